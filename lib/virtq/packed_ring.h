/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The packed virtqueue as it lies in guest memory (virtio 1.2, 2.8), and positions in it.
 *
 * "Positions". A place in the ring is a descriptor's index in bits 0-14 and the wrap counter in bit
 * 15: the form of the event suppression areas and of the protocol's vring base. The counter is 1 in
 * the first turn, so index and counter together say where one is in a cycle of two turns, and since
 * driver and device are never more than one turn apart, who is ahead of whom and by how much. The
 * size need not be a power of two, so nothing here masks.
 */
#ifndef VIRTQ_PACKED_RING_H
#define VIRTQ_PACKED_RING_H

#include <linux/virtio_ring.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../base/endian.h"

/* Written by the driver to make a buffer available, overwritten by the device to give one back. */
struct bf_packed_desc {
	bf_le64 addr; /* guest-physical */
	bf_le32 len;
	bf_le16 id;
	bf_le16 flags; /* VRING_DESC_F_*, BF_PACKED_* */
};

/* Event suppression: what the side that writes it wants to be told of. */
struct bf_packed_event {
	bf_le16 position;
	bf_le16 flags; /* VRING_PACKED_EVENT_FLAG_* in the lowest two bits */
};

#define BF_PACKED_AVAIL       (1u << VRING_PACKED_DESC_F_AVAIL)
#define BF_PACKED_USED        (1u << VRING_PACKED_DESC_F_USED)
#define BF_PACKED_EVENT_FLAGS 3u
#define BF_PACKED_WRAP        (1u << VRING_PACKED_EVENT_F_WRAP_CTR)
#define BF_PACKED_MAX         32768u
#define BF_PACKED_RING_ALIGN  16u
#define BF_PACKED_EVENT_ALIGN 4u

static inline uint64_t bf_packed_ring_size(unsigned size)
{
	return (uint64_t)size * sizeof(struct bf_packed_desc);
}

static inline unsigned bf_packed_idx(uint16_t position)
{
	return position & (BF_PACKED_WRAP - 1);
}

static inline bool bf_packed_wrap(uint16_t position)
{
	return position & BF_PACKED_WRAP;
}

/* @n at most @size. */
static inline uint16_t bf_packed_advance(uint16_t position, unsigned n, unsigned size)
{
	unsigned idx = bf_packed_idx(position) + n, wrap = position & BF_PACKED_WRAP;

	if (idx >= size) {
		idx -= size;
		wrap ^= BF_PACKED_WRAP;
	}
	return (uint16_t)(idx | wrap);
}

/* Descriptors from @from on until @to, below two turns; both inside the ring. */
static inline unsigned bf_packed_distance(uint16_t from, uint16_t to, unsigned size)
{
	unsigned a = bf_packed_idx(from) + (bf_packed_wrap(from) ? 0 : size);
	unsigned b = bf_packed_idx(to) + (bf_packed_wrap(to) ? 0 : size);

	return b >= a ? b - a : b + 2 * size - a;
}

/* Is @event one of the descriptors from @before on until @after? */
static inline bool bf_packed_passes(uint16_t event, uint16_t after, uint16_t before, unsigned size)
{
	return bf_packed_distance(before, event, size) < bf_packed_distance(before, after, size);
}

_Static_assert(sizeof(struct bf_packed_desc) == sizeof(struct vring_packed_desc), "descriptor");
_Static_assert(offsetof(struct bf_packed_desc, addr) == offsetof(struct vring_packed_desc, addr),
	       "addr");
_Static_assert(offsetof(struct bf_packed_desc, len) == offsetof(struct vring_packed_desc, len),
	       "len");
_Static_assert(offsetof(struct bf_packed_desc, id) == offsetof(struct vring_packed_desc, id), "id");
_Static_assert(offsetof(struct bf_packed_desc, flags) == offsetof(struct vring_packed_desc, flags),
	       "flags");
_Static_assert(sizeof(struct bf_packed_event) == sizeof(struct vring_packed_desc_event), "event");
_Static_assert(offsetof(struct bf_packed_event, position) ==
		       offsetof(struct vring_packed_desc_event, off_wrap),
	       "position");
_Static_assert(offsetof(struct bf_packed_event, flags) ==
		       offsetof(struct vring_packed_desc_event, flags),
	       "event flags");

#endif
