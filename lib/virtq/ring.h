/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The split virtqueue as it lies in guest memory (virtio 1.2, 2.7): layouts and sizes.
 *
 * Fields are of little-endian types, so that none is used without conversion. For the device side
 * and the driver side alike. Everything here is shared: go through base/shared.h.
 */
#ifndef VIRTQ_RING_H
#define VIRTQ_RING_H

#include <linux/virtio_ring.h>
#include <stddef.h>
#include <stdint.h>

#include "../base/endian.h"

struct bf_desc {
	bf_le64 addr; /* guest-physical */
	bf_le32 len;
	bf_le16 flags; /* VRING_DESC_F_* */
	bf_le16 next;
};

/* Driver area. ring[size] is used_event, with VIRTIO_RING_F_EVENT_IDX. */
struct bf_avail {
	bf_le16 flags; /* VRING_AVAIL_F_NO_INTERRUPT */
	bf_le16 idx;
	bf_le16 ring[];
};

struct bf_used_elem {
	bf_le32 id;
	bf_le32 len;
};

/* Device area. Behind ring[size - 1] comes avail_event, with VIRTIO_RING_F_EVENT_IDX. */
struct bf_used {
	bf_le16 flags; /* VRING_USED_F_NO_NOTIFY */
	bf_le16 idx;
	struct bf_used_elem ring[];
};

#define BF_RING_DESC_ALIGN  16u
#define BF_RING_AVAIL_ALIGN 2u
#define BF_RING_USED_ALIGN  4u

static inline uint64_t bf_desc_size(unsigned size)
{
	return (uint64_t)size * sizeof(struct bf_desc);
}

/* Both with their event field, as the specification's sizes have it (2.7, "6 + ..."). */
static inline uint64_t bf_avail_size(unsigned size)
{
	return sizeof(struct bf_avail) + ((uint64_t)size + 1) * sizeof(bf_le16);
}

static inline uint64_t bf_used_size(unsigned size)
{
	return sizeof(struct bf_used) + (uint64_t)size * sizeof(struct bf_used_elem) +
	       sizeof(bf_le16);
}

/* When the driver wants to be called; written by the driver. */
static inline bf_le16 *bf_used_event(struct bf_avail *avail, unsigned size)
{
	return &avail->ring[size];
}

/* When the device wants to be kicked; written by the device. */
static inline bf_le16 *bf_avail_event(struct bf_used *used, unsigned size)
{
	return (void *)&used->ring[size];
}

/*
 * Does moving an index from @before to @after pass @event? The 16-bit rule of both event fields
 * (2.7.7.1, 2.7.10): true if @event is one of before, before + 1, ..., after - 1.
 */
static inline int bf_ring_passes(uint16_t event, uint16_t after, uint16_t before)
{
	return (uint16_t)(after - event - 1) < (uint16_t)(after - before);
}

_Static_assert(sizeof(struct bf_desc) == sizeof(struct vring_desc), "descriptor");
_Static_assert(offsetof(struct bf_desc, addr) == offsetof(struct vring_desc, addr), "addr");
_Static_assert(offsetof(struct bf_desc, len) == offsetof(struct vring_desc, len), "len");
_Static_assert(offsetof(struct bf_desc, flags) == offsetof(struct vring_desc, flags), "flags");
_Static_assert(offsetof(struct bf_desc, next) == offsetof(struct vring_desc, next), "next");
_Static_assert(offsetof(struct bf_avail, idx) == offsetof(struct vring_avail, idx), "avail idx");
_Static_assert(offsetof(struct bf_avail, ring) == offsetof(struct vring_avail, ring), "avail");
_Static_assert(sizeof(struct bf_used_elem) == sizeof(struct vring_used_elem), "used element");
_Static_assert(offsetof(struct bf_used_elem, len) == offsetof(struct vring_used_elem, len), "len");
_Static_assert(offsetof(struct bf_used, idx) == offsetof(struct vring_used, idx), "used idx");
_Static_assert(offsetof(struct bf_used, ring) == offsetof(struct vring_used, ring), "used");

#endif
