/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Software checksums and segmentation (TCP and UDP over IPv4 and IPv6). Pure; any thread.
 *
 * The packet is a private copy, but its contents are the guest's: every header is measured before it is
 * used. Where the transport header is, csum_start says; that it lies behind the IP header, and that the
 * protocol there is the one that gso_type names, is checked here. Segments share the packet's bytes as
 * payload, so that only headers are copied.
 */
#include "offload.h"

#include <netinet/in.h>

#define VLAN_LEN 4
#define IPV4_LEN 20
#define IPV6_LEN 40
#define TCP_LEN  20
#define UDP_LEN  8
/* All headers of a segment: Ethernet, two tags, IP with options or extensions, TCP with options. */
#define HEADERS_MAX 256

#define TCP_FIN 0x01
#define TCP_PSH 0x08
#define TCP_CWR 0x80

static uint16_t get16(const uint8_t *at)
{
	return (uint16_t)(at[0] << 8 | at[1]);
}

static void put16(uint8_t *at, uint32_t value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
}

static uint32_t get32(const uint8_t *at)
{
	return (uint32_t)get16(at) << 16 | get16(at + 2);
}

static void put32(uint8_t *at, uint32_t value)
{
	put16(at, value >> 16);
	put16(at + 2, value);
}

uint64_t net_sum(const void *data, size_t len, uint64_t sum)
{
	const uint8_t *at = data;
	uint64_t native = 0;
	uint32_t four;
	uint16_t two;

	/* One's complement sums may be taken in any byte order; 32 bits at a time cannot overflow. */
	for (; len >= 4; at += 4, len -= 4) {
		memcpy(&four, at, 4);
		native += four;
	}
	if (len >= 2) {
		memcpy(&two, at, 2);
		native += two;
		at += 2;
		len -= 2;
	}
	native = (native & 0xffffffff) + (native >> 32);
	native = (native & 0xffff) + ((native >> 16) & 0xffff) + (native >> 32);
	native = (native & 0xffff) + (native >> 16);
	sum += htobe16((uint16_t)((native & 0xffff) + (native >> 16)));
	if (len)
		sum += (uint32_t)*at << 8;
	return sum;
}

uint16_t net_fold(uint64_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

/* Zero says "no checksum" in UDP; its other form is right for everybody. */
static uint16_t never_zero(uint16_t sum)
{
	return sum ? sum : 0xffff;
}

static void complete_checksum(uint8_t *packet, uint32_t len, const struct net_meta *meta)
{
	uint64_t sum = net_sum(packet + meta->csum_start, len - meta->csum_start, 0);

	put16(packet + meta->csum_start + meta->csum_offset, never_zero(net_fold(sum)));
}

/* Where the headers of a packet are, which is to be cut. */
struct layout {
	bool ipv6, tcp;
	uint32_t l3, l4, payload; /* offsets */
};

static bool find_l3(const uint8_t *packet, uint32_t len, struct layout *l)
{
	uint32_t at = NET_ETH_LEN;
	uint16_t type = get16(packet + 12);

	for (unsigned tags = 0; type == 0x8100 || type == 0x88a8; tags++) {
		if (tags == 2 || len < at + VLAN_LEN)
			return false;
		type = get16(packet + at + 2);
		at += VLAN_LEN;
	}
	l->l3 = at;
	l->ipv6 = type == 0x86dd;
	return l->ipv6 || type == 0x0800;
}

static bool find_l4(const uint8_t *packet, struct layout *l)
{
	const uint8_t *ip = packet + l->l3;
	uint32_t ip_len = l->l4 - l->l3;
	uint8_t protocol = l->tcp ? IPPROTO_TCP : IPPROTO_UDP;

	if (l->ipv6) /* behind extension headers the protocol stands elsewhere */
		return ip_len >= IPV6_LEN && ip[0] >> 4 == 6 &&
		       (ip_len > IPV6_LEN || ip[6] == protocol);
	return ip_len >= IPV4_LEN && ip[0] >> 4 == 4 && (ip[0] & 15) * 4u == ip_len &&
	       ip[9] == protocol;
}

static bool find_layout(const uint8_t *packet, uint32_t len, const struct net_meta *meta,
			struct layout *l)
{
	unsigned type = meta->gso_type & ~VIRTIO_NET_HDR_GSO_ECN;
	uint32_t l4_len = UDP_LEN;

	l->tcp = type != NET_GSO_UDP_L4;
	l->l4 = meta->csum_start;
	if (len < NET_ETH_LEN || !find_l3(packet, len, l) || l->l4 < l->l3 || l->l4 >= len ||
	    !find_l4(packet, l))
		return false;
	if (l->tcp && l->ipv6 != (type == VIRTIO_NET_HDR_GSO_TCPV6))
		return false;
	if (meta->csum_offset != (l->tcp ? 16 : 6))
		return false;
	if (l->tcp) {
		if (len - l->l4 < TCP_LEN)
			return false;
		l4_len = (packet[l->l4 + 12] >> 4) * 4u;
		if (l4_len < TCP_LEN)
			return false;
	}
	if (l4_len > len - l->l4)
		return false;
	l->payload = l->l4 + l4_len;
	return l->payload <= HEADERS_MAX;
}

static uint64_t pseudo_sum(const uint8_t *headers, const struct layout *l, uint32_t l4_len)
{
	const uint8_t *ip = headers + l->l3;
	uint64_t sum = (l->tcp ? IPPROTO_TCP : IPPROTO_UDP) + (uint64_t)l4_len;

	return l->ipv6 ? net_sum(ip + 8, 32, sum) : net_sum(ip + 12, 8, sum);
}

static void fix_ip(uint8_t *headers, const struct layout *l, uint32_t packet_len, unsigned nr)
{
	uint8_t *ip = headers + l->l3;

	if (l->ipv6) {
		put16(ip + 4, packet_len - l->l3 - IPV6_LEN);
		return;
	}
	put16(ip + 2, packet_len - l->l3);
	put16(ip + 4, get16(ip + 4) + nr);
	put16(ip + 10, 0);
	put16(ip + 10, net_fold(net_sum(ip, l->l4 - l->l3, 0)));
}

/* @offset: of the segment in the payload. RFC 3168: CWR belongs to the first one only. */
static void fix_l4(uint8_t *headers, const struct layout *l, uint32_t l4_len, uint32_t offset,
		   bool last)
{
	uint8_t *l4 = headers + l->l4;

	if (!l->tcp) {
		put16(l4 + 4, l4_len);
		put16(l4 + 6, 0);
		return;
	}
	put32(l4 + 4, get32(l4 + 4) + offset);
	if (!last)
		l4[13] &= (uint8_t) ~(TCP_FIN | TCP_PSH);
	if (offset)
		l4[13] &= (uint8_t)~TCP_CWR;
	put16(l4 + 16, 0);
}

static bool emit_segment(uint8_t *packet, uint32_t payload_len, const struct layout *l,
			 uint32_t offset, uint32_t len, unsigned nr, net_emit_fn *emit,
			 void *opaque)
{
	uint8_t headers[HEADERS_MAX];
	struct iovec iov[2] = { { headers, l->payload }, { packet + l->payload + offset, len } };
	struct net_packet segment = { .len = l->payload + len, .nr_iov = 2, .iov = iov };
	uint32_t l4_len = segment.len - l->l4;
	uint64_t sum;

	memcpy(headers, packet, l->payload);
	fix_ip(headers, l, segment.len, nr);
	fix_l4(headers, l, l4_len, offset, offset + len == payload_len);
	/* The transport header is even, so that the sums of both parts may be added. */
	sum = net_sum(headers + l->l4, l->payload - l->l4, pseudo_sum(headers, l, l4_len));
	sum = net_sum(iov[1].iov_base, len, sum);
	put16(headers + l->l4 + (l->tcp ? 16 : 6), never_zero(net_fold(sum)));
	return emit(opaque, &segment);
}

static bool emit_segments(uint8_t *packet, uint32_t len, const struct net_meta *meta,
			  net_emit_fn *emit, void *opaque)
{
	uint32_t payload_len, offset = 0;
	struct layout l = { 0 };
	unsigned nr = 0;

	if (!find_layout(packet, len, meta, &l))
		return false;
	payload_len = len - l.payload;
	if ((payload_len + meta->gso_size - 1) / meta->gso_size > NET_SEGMENTS_MAX)
		return false;
	do {
		uint32_t now = payload_len - offset;

		now = now < meta->gso_size ? now : meta->gso_size;
		if (!emit_segment(packet, payload_len, &l, offset, now, nr++, emit, opaque))
			break;
		offset += now;
	} while (offset < payload_len);
	return true;
}

bool net_offload(uint8_t *packet, uint32_t len, const struct net_meta *meta, uint64_t features,
		 net_emit_fn *emit, void *opaque)
{
	struct iovec iov = { packet, len };
	struct net_packet whole = { .len = len, .nr_iov = 1, .iov = &iov };

	if (net_meta_accepted(meta, features)) {
		whole.meta = *meta;
	} else if (meta->gso_type != VIRTIO_NET_HDR_GSO_NONE) {
		return emit_segments(packet, len, meta, emit, opaque);
	} else {
		complete_checksum(packet, len, meta);
	}
	emit(opaque, &whole);
	return true;
}
