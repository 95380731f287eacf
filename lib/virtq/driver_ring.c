/* SPDX-License-Identifier: BSD-3-Clause */
/* The driver side of a split virtqueue. Queue context; no lock, no allocation after init. */
#include "driver_ring.h"

#include <errno.h>
#include <stdlib.h>

#include "../base/shared.h"

static uint64_t align_up(uint64_t value, uint64_t align)
{
	return (value + align - 1) & ~(align - 1);
}

/* Parts that different sides write do not share a cache line. */
void bf_driver_ring_layout(uint16_t size, struct bf_driver_layout *layout)
{
	const uint64_t line = 64;

	layout->desc = 0;
	layout->avail = align_up(sizeof(struct bf_desc) * size, line);
	layout->used = align_up(layout->avail + bf_avail_size(size), line);
	layout->indirect = align_up(layout->used + bf_used_size(size), line);
	layout->size = align_up(layout->indirect +
					sizeof(struct bf_desc) * BF_DRIVER_INDIRECT * size, 4096);
}

int bf_driver_ring_init(struct bf_driver_ring *ring, uint16_t size, void *base, uint64_t gpa,
			bool event_idx, bool indirect)
{
	struct bf_driver_layout layout;
	struct bf_driver_slot *slots = calloc(size, sizeof(*slots));

	if (!slots)
		return -ENOMEM;
	bf_driver_ring_layout(size, &layout);
	*ring = (struct bf_driver_ring){
		.desc = (void *)((char *)base + layout.desc),
		.avail = (void *)((char *)base + layout.avail),
		.used = (void *)((char *)base + layout.used),
		.slots = slots,
		.size = size,
		.nr_free = size,
		.event_idx = event_idx,
	};
	if (indirect) {
		ring->indirect = (void *)((char *)base + layout.indirect);
		ring->indirect_gpa = gpa + layout.indirect;
	}
	for (unsigned i = 0; i < size; i++)
		slots[i].next = (uint16_t)(i + 1);
	bf_driver_ring_want_calls(ring, false);
	return 0;
}

void bf_driver_ring_done(struct bf_driver_ring *ring)
{
	free(ring->slots);
	ring->slots = NULL;
}

static void fill(struct bf_desc *desc, const struct bf_piece *piece, uint16_t flags, uint16_t next)
{
	desc->addr = bf_to_le64(piece->gpa);
	desc->len = bf_to_le32(piece->len);
	desc->flags = bf_to_le16(flags);
	desc->next = bf_to_le16(next);
}

/* virtio 1.2, 2.7.5.3: the whole request in a table of its own, one descriptor in the ring. */
static void add_indirect(struct bf_driver_ring *ring, uint16_t head, const struct bf_piece *pieces,
			 unsigned nr_out, unsigned nr)
{
	uint64_t offset = (uint64_t)head * BF_DRIVER_INDIRECT;
	struct bf_desc *table = ring->indirect + offset;
	struct bf_piece whole = { ring->indirect_gpa + offset * sizeof(*table),
				  (uint32_t)(nr * sizeof(*table)) };

	for (unsigned i = 0; i < nr; i++)
		fill(&table[i], &pieces[i],
		     (uint16_t)((i < nr_out ? 0 : VRING_DESC_F_WRITE) |
				(i + 1 < nr ? VRING_DESC_F_NEXT : 0)),
		     (uint16_t)(i + 1));
	fill(&ring->desc[head], &whole, VRING_DESC_F_INDIRECT, 0);
}

static void add_chain(struct bf_driver_ring *ring, uint16_t head, const struct bf_piece *pieces,
		      unsigned nr_out, unsigned nr)
{
	uint16_t at = head;

	for (unsigned i = 0; i < nr; i++) {
		uint16_t next = ring->slots[at].next;

		fill(&ring->desc[at], &pieces[i],
		     (uint16_t)((i < nr_out ? 0 : VRING_DESC_F_WRITE) |
				(i + 1 < nr ? VRING_DESC_F_NEXT : 0)),
		     next);
		at = next;
	}
}

int bf_driver_ring_add(struct bf_driver_ring *ring, const struct bf_piece *pieces, unsigned nr_out,
		       unsigned nr_in, void *cookie)
{
	unsigned nr = nr_out + nr_in;
	bool indirect = ring->indirect && nr > 1 && nr <= BF_DRIVER_INDIRECT;
	unsigned taken = indirect ? 1 : nr;
	uint16_t head = ring->free_head;

	if (taken > ring->nr_free)
		return -ENOSPC;
	if (indirect)
		add_indirect(ring, head, pieces, nr_out, nr);
	else
		add_chain(ring, head, pieces, nr_out, nr);
	for (unsigned i = 0; i < taken; i++)
		ring->free_head = ring->slots[ring->free_head].next;
	ring->nr_free = (uint16_t)(ring->nr_free - taken);
	ring->slots[head].cookie = cookie;
	ring->slots[head].nr = (uint16_t)taken;
	bf_store16(&ring->avail->ring[ring->avail_idx & (ring->size - 1)], head);
	ring->avail_idx++;
	return 0;
}

bool bf_driver_ring_publish(struct bf_driver_ring *ring)
{
	uint16_t old = ring->published_idx, new = ring->avail_idx;

	if (old == new)
		return false;
	/* Entries before index; partner: the device's acquire of avail->idx. */
	bf_store16_release(&ring->avail->idx, new);
	ring->published_idx = new;
	/*
	 * Partner: the device's barrier between asking for kicks and looking once more at avail->idx.
	 * Either it sees the new index, or we see that it wants to be told.
	 */
	bf_barrier();
	if (ring->event_idx)
		return bf_ring_passes(bf_load16(bf_avail_event(ring->used, ring->size)), new, old);
	return !(bf_load16(&ring->used->flags) & VRING_USED_F_NO_NOTIFY);
}

static void *give_up(struct bf_driver_ring *ring)
{
	ring->broken = -EPIPE;
	return NULL;
}

static void release(struct bf_driver_ring *ring, uint16_t head)
{
	unsigned nr = ring->slots[head].nr;
	uint16_t last = head;

	for (unsigned i = 1; i < nr; i++)
		last = ring->slots[last].next;
	ring->slots[last].next = ring->free_head;
	ring->free_head = head;
	ring->nr_free = (uint16_t)(ring->nr_free + nr);
}

void *bf_driver_ring_get(struct bf_driver_ring *ring, uint32_t *len)
{
	struct bf_used_elem elem;
	uint16_t used_idx;
	uint32_t head;
	void *cookie;

	if (ring->broken)
		return NULL;
	used_idx = bf_load16_acquire(&ring->used->idx);
	if (used_idx == ring->last_used)
		return NULL;
	if ((uint16_t)(used_idx - ring->last_used) > ring->size)
		return give_up(ring);
	bf_copy_in(&elem, &ring->used->ring[ring->last_used & (ring->size - 1)], sizeof(elem));
	head = bf_from_le32(elem.id);
	if (head >= ring->size || !ring->slots[head].cookie)
		return give_up(ring);
	cookie = ring->slots[head].cookie;
	ring->slots[head].cookie = NULL;
	release(ring, (uint16_t)head);
	ring->last_used++;
	if (len)
		*len = bf_from_le32(elem.len);
	return cookie;
}

/*
 * With the event index "no calls" is an index just behind: every new entry is past it already, so the
 * device sees no reason to call until the index has gone all the way round.
 */
bool bf_driver_ring_want_calls(struct bf_driver_ring *ring, bool on)
{
	if (ring->event_idx)
		bf_store16(bf_used_event(ring->avail, ring->size),
			   (uint16_t)(on ? ring->last_used : ring->last_used - 1));
	else
		bf_store16(&ring->avail->flags, on ? 0 : VRING_AVAIL_F_NO_INTERRUPT);
	if (!on)
		return false;
	/* Partner: the device's barrier between moving used->idx and reading what we just stored. */
	bf_barrier();
	return bf_load16(&ring->used->idx) != ring->last_used;
}
