/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The header in front of a packet (virtio 1.2, 5.1.6): what the other side says about a packet, read
 * once, checked against the packet's length, and from then on ours. Pure; any thread.
 */
#ifndef NET_HEADER_H
#define NET_HEADER_H

#include <endian.h>
#include <linux/virtio_net.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/uio.h>

#include <belfry/protocol.h>

/* Not in the headers of every supported system. */
#define NET_F_GUEST_USO4 54
#define NET_F_GUEST_USO6 55
#define NET_F_HOST_USO   56
#define NET_GSO_UDP_L4   5

/* What the checksum and segmentation features of one direction are. */
#define NET_F_HOST_OFFLOADS                                           \
	(bf_bit(VIRTIO_NET_F_CSUM) | bf_bit(VIRTIO_NET_F_HOST_TSO4) | \
	 bf_bit(VIRTIO_NET_F_HOST_TSO6) | bf_bit(VIRTIO_NET_F_HOST_ECN) | bf_bit(NET_F_HOST_USO))
#define NET_F_GUEST_USO (bf_bit(NET_F_GUEST_USO4) | bf_bit(NET_F_GUEST_USO6))
#define NET_F_GUEST_OFFLOADS                                                 \
	(bf_bit(VIRTIO_NET_F_GUEST_CSUM) | bf_bit(VIRTIO_NET_F_GUEST_TSO4) | \
	 bf_bit(VIRTIO_NET_F_GUEST_TSO6) | bf_bit(VIRTIO_NET_F_GUEST_ECN) | NET_F_GUEST_USO)

#define NET_ETH_LEN 14
#define NET_MAC_LEN 6
/* The largest IP packet, its Ethernet header, and two VLAN tags. */
#define NET_PACKET_MAX (65535 + NET_ETH_LEN + 8)

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define NET_LE16(constant) (constant)
#else
#define NET_LE16(constant) ((uint16_t)((constant) << 8 | (constant) >> 8))
#endif

/* Without VERSION_1 and MRG_RXBUF a header has no num_buffers. */
#define NET_HDR_LEN       12
#define NET_HDR_LEN_SHORT 10

/* Why a packet was not passed on. */
enum net_drop {
	NET_DROP_SHORT, /* no longer than its header and Ethernet's */
	NET_DROP_LONG,  /* beyond NET_PACKET_MAX */
	NET_DROP_CHAIN, /* a chain of the wrong direction, or a receive buffer without room for a header */
	NET_DROP_HEADER, /* checksum or segmentation fields that do not fit the packet */
	NET_DROP_ROOM,   /* the guest has no buffers, and enough packets wait for it */
	NET_DROP_SIZE,   /* larger than the guest's buffers */
	NET_DROP_PORT,   /* the port does not take it, or has nowhere to send it */
	NET_DROP_DISABLED, /* the front end has switched the queue off */
	NET_NR_DROPS,
};

/* A checked header, in host order; all zero for a packet about which nothing is said. */
struct net_meta {
	uint8_t flags;    /* VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_F_DATA_VALID */
	uint8_t gso_type; /* VIRTIO_NET_HDR_GSO_*, with VIRTIO_NET_HDR_GSO_ECN */
	uint16_t hdr_len; /* a hint: never relied on */
	uint16_t gso_size;
	uint16_t csum_start, csum_offset;
};

/* A packet on its way: the pieces are its bytes without the header. */
struct net_packet {
	struct net_meta meta;
	uint32_t len;
	unsigned nr_iov;
	struct iovec *iov;
};

/* The length of headers by what the driver accepted. */
static inline unsigned net_header_len(uint64_t features)
{
	return features & (bf_bit(32 /* VERSION_1 */) | bf_bit(VIRTIO_NET_F_MRG_RXBUF))
		       ? NET_HDR_LEN
		       : NET_HDR_LEN_SHORT;
}

/*
 * The fields that say something, of a packet of @len bytes, from a sender that accepted @features.
 * True and *@meta, or false: they do not fit.
 */
bool net_meta_check(const struct virtio_net_hdr_v1 *raw, uint32_t len, uint64_t features,
		    struct net_meta *meta);

/* @raw: a private copy of the header. As net_meta_check(), most packets by the short way. */
static inline bool net_meta_read(const struct virtio_net_hdr_v1 *raw, uint32_t len,
				 uint64_t features, struct net_meta *meta)
{
	if (__builtin_expect(raw->flags | raw->gso_type, 0))
		return net_meta_check(raw, len, features, meta);
	memset(meta, 0, sizeof(*meta));
	return true;
}

/* May a receiver that accepted @features be given such a packet as it is? */
bool net_meta_accepted(const struct net_meta *meta, uint64_t features);

/* The header for a receiver. */
static inline void net_meta_write(const struct net_meta *meta, uint16_t num_buffers,
				  struct virtio_net_hdr_v1 *raw)
{
	*raw = (struct virtio_net_hdr_v1){
		.flags = meta->flags,
		.gso_type = meta->gso_type,
		.hdr_len = htole16(meta->hdr_len),
		.gso_size = htole16(meta->gso_size),
		.csum_start = htole16(meta->csum_start),
		.csum_offset = htole16(meta->csum_offset),
		.num_buffers = htole16(num_buffers),
	};
}

/* Out of memory that the other side can write: what was read is not read again by the compiler's leave. */
static inline void net_read(void *private_copy, const void *shared, size_t len)
{
	memcpy(private_copy, shared, len);
	__asm__ __volatile__("" ::: "memory");
}

/* The smallest packets inline: they are the many. */
static inline void net_copy(void *to, const void *from, size_t len)
{
	uint8_t *t = to;
	const uint8_t *f = from;

	if (len < 32 || len > 64) {
		memcpy(t, f, len);
		return;
	}
	memcpy(t, f, 32);
	memcpy(t + len - 32, f + len - 32, 32);
}

/* Copy @len bytes out of pieces, from @offset on. The caller knows that they are there. */
void net_gather(void *to, const struct iovec *iov, unsigned nr_iov, size_t offset, size_t len);

#endif
