/* SPDX-License-Identifier: BSD-3-Clause */
/* The driver side of a split virtqueue (virtio 1.2, 2.7). Queue context; no lock, no allocation. */
#include <errno.h>

#include "../base/shared.h"
#include "driver_ring.h"

static void fill(struct bf_desc *desc, const struct bf_piece *piece, unsigned flags, uint16_t next)
{
	desc->addr = bf_to_le64(piece->gpa);
	desc->len = bf_to_le32(piece->len);
	desc->flags = bf_to_le16((uint16_t)flags);
	desc->next = bf_to_le16(next);
}

static void offer(struct bf_driver_ring *ring, uint16_t head)
{
	bf_store16(&ring->avail->ring[ring->avail_idx & (ring->size - 1)], head);
	ring->avail_idx++;
}

static void add(struct bf_driver_ring *ring, uint16_t head, const struct bf_piece *pieces,
		unsigned nr_out, unsigned nr)
{
	uint16_t at = head;

	for (unsigned i = 0; i < nr; i++) {
		uint16_t next = ring->slots[at].next;

		fill(&ring->desc[at], &pieces[i],
		     (i < nr_out ? 0u : VRING_DESC_F_WRITE) | (i + 1 < nr ? VRING_DESC_F_NEXT : 0u),
		     next);
		at = next;
	}
	offer(ring, head);
}

static void add_table(struct bf_driver_ring *ring, uint16_t head, const struct bf_piece *table)
{
	fill(&ring->desc[head], table, VRING_DESC_F_INDIRECT, 0);
	offer(ring, head);
}

static void publish(struct bf_driver_ring *ring)
{
	/* Entries before index; partner: the device's acquire of avail->idx. */
	bf_store16_release(&ring->avail->idx, ring->avail_idx);
}

static bool wants_kick(const struct bf_driver_ring *ring, uint16_t before)
{
	if (ring->event_idx)
		return bf_ring_passes(bf_load16(bf_avail_event(ring->used, ring->size)),
				      ring->published_idx, before);
	return !(bf_load16(&ring->used->flags) & VRING_USED_F_NO_NOTIFY);
}

static int look(const struct bf_driver_ring *ring, uint32_t *head, uint32_t *len)
{
	/* Acquire: entries up to it. Partner: the device's release. */
	uint16_t used_idx = bf_load16_acquire(&ring->used->idx);
	struct bf_used_elem elem;

	if (used_idx == ring->last_used)
		return 0;
	if ((uint16_t)(used_idx - ring->last_used) > ring->size)
		return -EPIPE;
	bf_copy_in(&elem, &ring->used->ring[ring->last_used & (ring->size - 1)], sizeof(elem));
	*head = bf_from_le32(elem.id);
	*len = bf_from_le32(elem.len);
	return 1;
}

static void advance(struct bf_driver_ring *ring, unsigned nr)
{
	(void)nr;
	ring->last_used++;
}

/*
 * With the event index "no calls" is an index just behind: every new entry is past it already, so the
 * device sees no reason to call until the index has gone all the way round.
 */
static void ask_for_calls(struct bf_driver_ring *ring, bool on)
{
	if (ring->event_idx)
		bf_store16(bf_used_event(ring->avail, ring->size),
			   (uint16_t)(on ? ring->last_used : ring->last_used - 1));
	else
		bf_store16(&ring->avail->flags, on ? 0 : VRING_AVAIL_F_NO_INTERRUPT);
}

const struct bf_driver_format bf_driver_split = {
	.add = add,
	.add_table = add_table,
	.publish = publish,
	.wants_kick = wants_kick,
	.look = look,
	.advance = advance,
	.ask_for_calls = ask_for_calls,
};
