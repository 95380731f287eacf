/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A packet from the guest: the chain opened, its header checked, and what a receiver without offloads is
 * given for it. Each piece is an allocation of its own, so that the sanitizer sees one byte too far.
 *
 * Input: the sender's features, the receiver's, where a chain is cut, the header, the packet: bytes, or
 * (bit 7 of the first byte) an IPv4 or IPv6 packet of TCP or UDP over which the bytes are laid.
 */
#include "tests/fuzz/fuzz.h"

#include "devices/net/offload.h"
#include "devices/net/tx.h"

#define MAX_CUTS   6u
#define PACKET_MAX 4096u

static struct net_tx tx;
static uint64_t nr_opened, nr_dropped, nr_emitted, nr_segmented, nr_refused, nr_gso;
static volatile uint8_t sum;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	return 0;
}

static uint64_t features(uint8_t choice, const unsigned *bits)
{
	uint64_t all = bf_bit(32);

	for (unsigned i = 0; i < 8; i++)
		all |= choice & 1u << i ? bf_bit(bits[i]) : 0;
	return choice == 0x55 ? 0 : all;
}

/* Headers that segmentation believes: Ethernet, IP, TCP or UDP. */
static void lay_template(uint8_t *packet, bool ipv6, bool tcp)
{
	uint8_t *ip = packet + 14, *l4 = ip + (ipv6 ? 40 : 20);

	packet[12] = ipv6 ? 0x86 : 0x08;
	packet[13] = ipv6 ? 0xdd : 0;
	ip[0] = ipv6 ? 0x60 : 0x45;
	ip[ipv6 ? 6 : 9] = tcp ? 6 : 17;
	l4[12] = 0x50;
}

static bool emit(void *opaque, const struct net_packet *packet)
{
	uint64_t receiver = *(uint64_t *)opaque, len = 0;

	fuzz_must(net_meta_accepted(&packet->meta, receiver));
	for (unsigned i = 0; i < packet->nr_iov; i++) {
		const uint8_t *bytes = packet->iov[i].iov_base;

		for (size_t b = 0; b < packet->iov[i].iov_len; b++)
			sum = (uint8_t)(sum + bytes[b]);
		len += packet->iov[i].iov_len;
	}
	fuzz_must(len == packet->len && len && len <= NET_PACKET_MAX);
	nr_emitted++;
	return true;
}

/* Opened: the pieces are the packet, and what the header says lies in it. */
static void check(const struct net_packet *packet, const struct bf_chain *chain, uint64_t receiver)
{
	const struct net_meta *meta = &packet->meta;
	uint64_t before = nr_emitted, len = 0;
	uint8_t *copy;

	fuzz_must(packet->len == chain->out_len - tx.hdr_len && packet->len >= NET_ETH_LEN);
	for (unsigned i = 0; i < packet->nr_iov; i++)
		len += packet->iov[i].iov_len;
	fuzz_must(len == packet->len);
	if (meta->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)
		fuzz_must((uint32_t)meta->csum_start + meta->csum_offset + 2 <= packet->len);
	if (meta->gso_type)
		fuzz_must(meta->gso_size && meta->hdr_len <= packet->len);
	nr_gso += meta->gso_type != 0;
	/* As long as it is, and no longer. */
	copy = malloc(packet->len);
	fuzz_must(copy);
	net_gather(copy, packet->iov, packet->nr_iov, 0, packet->len);
	if (!net_offload(copy, packet->len, meta, receiver, emit, &receiver)) {
		nr_refused++;
		fuzz_must(nr_emitted == before);
	}
	nr_segmented += nr_emitted > before + 1;
	free(copy);
	nr_opened++;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const unsigned host[] = { VIRTIO_NET_F_CSUM,
					 VIRTIO_NET_F_HOST_TSO4,
					 VIRTIO_NET_F_HOST_TSO6,
					 NET_F_HOST_USO,
					 VIRTIO_NET_F_HOST_ECN,
					 VIRTIO_NET_F_MRG_RXBUF,
					 40,
					 41 };
	static const unsigned guest[] = { VIRTIO_NET_F_GUEST_CSUM,
					  VIRTIO_NET_F_GUEST_TSO4,
					  VIRTIO_NET_F_GUEST_TSO6,
					  NET_F_GUEST_USO4,
					  NET_F_GUEST_USO6,
					  VIRTIO_NET_F_GUEST_ECN,
					  40,
					  41 };
	struct input in = { data, size };
	static uint8_t bytes[12 + PACKET_MAX];
	uint8_t kind = input8(&in);
	uint64_t sender = features(input8(&in), host), receiver = features(input8(&in), guest);
	unsigned len = input16(&in) % sizeof(bytes), nr = 0, at = 0;
	struct iovec pieces[MAX_CUTS + 1], kept[MAX_CUTS + 1];
	struct bf_chain chain = { .iov = pieces };
	struct net_packet packet;

	for (unsigned i = 0; i <= MAX_CUTS && at < len; i++) {
		unsigned cut = i == MAX_CUTS ? 0 : input8(&in) & 0x7f;

		cut = !cut || cut > len - at ? len - at : cut;
		pieces[nr++] = (struct iovec){ malloc(cut), cut };
		at += cut;
	}
	memset(bytes, 0, sizeof(bytes));
	net_tx_start(&tx, NULL, sender);
	input_bytes(&in, bytes, tx.hdr_len);
	if (kind & 0x80)
		lay_template(bytes + tx.hdr_len, kind & 1, kind & 2);
	for (unsigned i = 0; i < 200 && in.left; i++)
		bytes[tx.hdr_len + i] ^= input8(&in);
	at = 0;
	for (unsigned i = 0; i < nr; i++) {
		fuzz_must(pieces[i].iov_base);
		memcpy(pieces[i].iov_base, bytes + at, pieces[i].iov_len);
		at += (unsigned)pieces[i].iov_len;
	}
	memcpy(kept, pieces, sizeof(kept));
	chain.out_len = len;
	chain.nr_out = (uint16_t)nr;
	if (net_tx_open(&tx, &chain, &packet))
		check(&packet, &chain, receiver);
	else
		nr_dropped++;
	for (unsigned i = 0; i < nr; i++)
		free(kept[i].iov_base);
	return 0;
}

bool fuzz_report(void)
{
	printf("net: %llu packets opened, %llu with segmentation, %llu dropped; %llu emitted, %llu "
	       "taken apart, %llu refused\n",
	       (unsigned long long)nr_opened, (unsigned long long)nr_gso,
	       (unsigned long long)nr_dropped, (unsigned long long)nr_emitted,
	       (unsigned long long)nr_segmented, (unsigned long long)nr_refused);
	return nr_opened && nr_gso && nr_dropped && nr_emitted && nr_segmented && nr_refused;
}
