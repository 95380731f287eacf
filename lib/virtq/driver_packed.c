/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The driver side of a packed virtqueue (virtio 1.2, 2.8). Queue context; no lock, no allocation.
 *
 * What is added becomes visible at once: the device polls the descriptor at its own position, so the
 * flags of the first one that it has not seen are held back, and everything behind it may be written
 * in any order.
 */
#include <errno.h>

#include "../base/shared.h"
#include "driver_ring.h"

static void put(struct bf_driver_ring *ring, uint16_t id, const struct bf_piece *piece,
		unsigned flags)
{
	struct bf_packed_desc *desc = &ring->ring[bf_packed_idx(ring->avail_idx)];

	flags |= bf_packed_wrap(ring->avail_idx) ? BF_PACKED_AVAIL : BF_PACKED_USED;
	desc->addr = bf_to_le64(piece->gpa);
	desc->len = bf_to_le32(piece->len);
	desc->id = bf_to_le16(id);
	if (ring->avail_idx == ring->published_idx)
		ring->first_flags = (uint16_t)flags;
	else
		bf_store16(&desc->flags, (uint16_t)flags);
	ring->avail_idx = bf_packed_advance(ring->avail_idx, 1, ring->size);
}

/*
 * A request that takes the whole ring ends where it began, a turn later: the wrap counter tells the two
 * positions apart.
 */
static void add(struct bf_driver_ring *ring, uint16_t id, const struct bf_piece *pieces,
		unsigned nr_out, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++)
		put(ring, id, &pieces[i],
		    (i < nr_out ? 0u : VRING_DESC_F_WRITE) | (i + 1 < nr ? VRING_DESC_F_NEXT : 0u));
}

static void add_table(struct bf_driver_ring *ring, uint16_t id, const struct bf_piece *table)
{
	put(ring, id, table, VRING_DESC_F_INDIRECT);
}

static void publish(struct bf_driver_ring *ring)
{
	/* Release: all the rest before it. Partner: the device's acquire of these flags. */
	bf_store16_release(&ring->ring[bf_packed_idx(ring->published_idx)].flags,
			   ring->first_flags);
}

static bool wants_kick(const struct bf_driver_ring *ring, uint16_t before)
{
	/* Acquire: the position is older than the flags that give it a meaning. */
	uint16_t flags = bf_load16_acquire(&ring->device_event->flags) & BF_PACKED_EVENT_FLAGS;
	uint16_t event;

	if (flags == VRING_PACKED_EVENT_FLAG_DISABLE)
		return false;
	if (flags != VRING_PACKED_EVENT_FLAG_DESC || !ring->event_idx)
		return true;
	event = bf_load16(&ring->device_event->position);
	/* A kick too many costs only time. */
	if (bf_packed_idx(event) >= ring->size)
		return true;
	return bf_packed_passes(event, ring->published_idx, before, ring->size);
}

static int look(const struct bf_driver_ring *ring, uint32_t *id, uint32_t *len)
{
	const struct bf_packed_desc *desc = &ring->ring[bf_packed_idx(ring->last_used)];
	/* Acquire: the other fields were written before. Partner: the device's release. */
	uint16_t flags = bf_load16_acquire(&desc->flags);
	bool wrap = bf_packed_wrap(ring->last_used);

	if (!!(flags & BF_PACKED_AVAIL) != wrap || !!(flags & BF_PACKED_USED) != wrap)
		return 0;
	*id = bf_load16(&desc->id);
	*len = flags & VRING_DESC_F_WRITE ? bf_load32(&desc->len) : 0;
	return 1;
}

static void advance(struct bf_driver_ring *ring, unsigned nr)
{
	ring->last_used = bf_packed_advance(ring->last_used, nr, ring->size);
}

static void ask_for_calls(struct bf_driver_ring *ring, bool on)
{
	uint16_t flags = VRING_PACKED_EVENT_FLAG_DISABLE;

	if (on)
		flags = ring->event_idx ? VRING_PACKED_EVENT_FLAG_DESC
					: VRING_PACKED_EVENT_FLAG_ENABLE;
	if (on && ring->event_idx)
		bf_store16(&ring->driver_event->position, ring->last_used);
	/* Release: position before flags. */
	bf_store16_release(&ring->driver_event->flags, flags);
}

const struct bf_driver_format bf_driver_packed = {
	.add = add,
	.add_table = add_table,
	.publish = publish,
	.wants_kick = wants_kick,
	.look = look,
	.advance = advance,
	.ask_for_calls = ask_for_calls,
};
