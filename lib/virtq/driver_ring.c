/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The driver side of a virtqueue, what split and packed have in common: names, indirect tables, order.
 *
 * Queue context; no lock, no allocation after init. A request's name is its head (split) or its buffer
 * id (packed). Free names are a list; in order, a circle.
 */
#include "driver_ring.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <stdlib.h>

#include "../base/shared.h"

static uint64_t align_up(uint64_t value, uint64_t align)
{
	return (value + align - 1) & ~(align - 1);
}

/* Parts that different sides write do not share a cache line. */
void bf_driver_ring_layout(uint16_t size, bool packed, struct bf_driver_layout *layout)
{
	const uint64_t line = 64;
	uint64_t avail = packed ? sizeof(struct bf_packed_event) : bf_avail_size(size);
	uint64_t used = packed ? sizeof(struct bf_packed_event) : bf_used_size(size);

	layout->desc = 0;
	layout->avail = align_up(sizeof(struct bf_desc) * size, line);
	layout->used = align_up(layout->avail + avail, line);
	layout->indirect = align_up(layout->used + used, line);
	layout->size = align_up(
		layout->indirect + sizeof(struct bf_desc) * BF_DRIVER_INDIRECT * size, 4096);
}

_Static_assert(sizeof(struct bf_desc) == sizeof(struct bf_packed_desc), "one layout for both");

static bool has(uint64_t features, unsigned bit)
{
	return (features >> bit) & 1;
}

int bf_driver_ring_init(struct bf_driver_ring *ring, uint16_t size, void *base, uint64_t gpa,
			uint64_t features)
{
	bool packed = has(features, VIRTIO_F_RING_PACKED);
	struct bf_driver_layout layout;
	struct bf_driver_slot *slots = calloc(size, sizeof(*slots));
	uint16_t start = packed ? BF_PACKED_WRAP : 0;

	if (!slots)
		return -ENOMEM;
	bf_driver_ring_layout(size, packed, &layout);
	*ring = (struct bf_driver_ring){
		.format = packed ? &bf_driver_packed : &bf_driver_split,
		.desc = (void *)((char *)base + layout.desc),
		.avail = (void *)((char *)base + layout.avail),
		.used = (void *)((char *)base + layout.used),
		.slots = slots,
		.size = size,
		.nr_free = size,
		.avail_idx = start,
		.published_idx = start,
		.last_used = start,
		.event_idx = has(features, VIRTIO_RING_F_EVENT_IDX),
		.in_order = has(features, VIRTIO_F_IN_ORDER),
	};
	if (has(features, VIRTIO_RING_F_INDIRECT_DESC)) {
		ring->indirect = (void *)((char *)base + layout.indirect);
		ring->indirect_gpa = gpa + layout.indirect;
	}
	for (unsigned i = 0; i < size; i++)
		slots[i].next = (uint16_t)(i + 1 == size ? 0 : i + 1);
	bf_driver_ring_want_calls(ring, false);
	return 0;
}

void bf_driver_ring_done(struct bf_driver_ring *ring)
{
	free(ring->slots);
	ring->slots = NULL;
}

/*
 * virtio 1.2, 2.7.5.3 and 2.8.7: the whole request in a table of its own. In a packed one the last two
 * fields change places, and NEXT and next mean nothing: entries follow one another.
 */
static void fill_table(struct bf_driver_ring *ring, uint16_t name, const struct bf_piece *pieces,
		       unsigned nr_out, unsigned nr, struct bf_piece *whole)
{
	uint64_t offset = (uint64_t)name * BF_DRIVER_INDIRECT;
	struct bf_desc *table = ring->indirect + offset;
	bool packed = ring->format == &bf_driver_packed;

	for (unsigned i = 0; i < nr; i++) {
		unsigned write = i < nr_out ? 0 : VRING_DESC_F_WRITE;
		unsigned next = i + 1 < nr ? VRING_DESC_F_NEXT : 0;

		table[i].addr = bf_to_le64(pieces[i].gpa);
		table[i].len = bf_to_le32(pieces[i].len);
		table[i].flags = bf_to_le16((uint16_t)(packed ? 0 : write | next));
		table[i].next = bf_to_le16((uint16_t)(packed ? write : i + 1));
	}
	*whole = (struct bf_piece){ ring->indirect_gpa + offset * sizeof(*table),
				    (uint32_t)(nr * sizeof(*table)) };
}

/* In a split ring a request takes as many names as descriptors; in a packed one, one. */
static void take_name(struct bf_driver_ring *ring, unsigned descriptors)
{
	unsigned names = ring->format == &bf_driver_packed ? 1 : descriptors;

	while (names--)
		ring->free_head = ring->slots[ring->free_head].next;
	ring->nr_free = (uint16_t)(ring->nr_free - descriptors);
}

static uint32_t sum(const struct bf_piece *pieces, unsigned from, unsigned to)
{
	uint32_t len = 0;

	for (unsigned i = from; i < to; i++)
		len += pieces[i].len;
	return len;
}

int bf_driver_ring_add(struct bf_driver_ring *ring, const struct bf_piece *pieces, unsigned nr_out,
		       unsigned nr_in, void *cookie)
{
	unsigned nr = nr_out + nr_in;
	bool indirect = ring->indirect && nr > 1 && nr <= BF_DRIVER_INDIRECT;
	unsigned descriptors = indirect ? 1 : nr;
	uint16_t name = ring->free_head;
	struct bf_piece table;

	if (descriptors > ring->nr_free)
		return -ENOSPC;
	if (indirect) {
		fill_table(ring, name, pieces, nr_out, nr, &table);
		ring->format->add_table(ring, name, &table);
	} else {
		ring->format->add(ring, name, pieces, nr_out, nr);
	}
	take_name(ring, descriptors);
	ring->slots[name].cookie = cookie;
	ring->slots[name].nr = (uint16_t)descriptors;
	ring->slots[name].in_len = sum(pieces, nr_out, nr);
	return 0;
}

bool bf_driver_ring_publish(struct bf_driver_ring *ring)
{
	uint16_t before = ring->published_idx;

	if (before == ring->avail_idx)
		return false;
	ring->format->publish(ring);
	ring->published_idx = ring->avail_idx;
	/*
	 * Partner: the device's barrier between asking for kicks and looking once more at the ring.
	 * Either it sees what is new, or we see that it wants to be told.
	 */
	bf_barrier();
	return ring->format->wants_kick(ring, before);
}

static void *give_up(struct bf_driver_ring *ring)
{
	ring->broken = -EPIPE;
	return NULL;
}

/* In a split ring the names of a chain's descriptors come back with its head. In order the list is a
 * circle, which never changes. */
static void release(struct bf_driver_ring *ring, uint16_t name)
{
	unsigned nr = ring->slots[name].nr;
	uint16_t last = name;

	ring->nr_free = (uint16_t)(ring->nr_free + nr);
	if (ring->in_order)
		return;
	for (unsigned i = 1; ring->format == &bf_driver_split && i < nr; i++)
		last = ring->slots[last].next;
	ring->slots[last].next = ring->free_head;
	ring->free_head = name;
}

/* The name of the next finished request: as bf_driver_format.look(). */
static int next_in_order(struct bf_driver_ring *ring, uint32_t *name, uint32_t *len)
{
	const struct bf_driver_slot *slot = &ring->slots[ring->oldest];
	unsigned names = ring->format == &bf_driver_packed ? 1 : slot->nr;

	if (!ring->in_batch) {
		int ret = ring->format->look(ring, name, len);

		if (ret <= 0)
			return ret;
		if (*name >= ring->size || !ring->slots[*name].cookie)
			return -EPIPE;
		ring->batch_last = (uint16_t)*name;
		ring->batch_len = *len;
	}
	*name = ring->oldest;
	ring->in_batch = ring->oldest != ring->batch_last;
	/* Those that are not named count as written in full. */
	*len = ring->in_batch ? slot->in_len : ring->batch_len;
	ring->oldest = (uint16_t)((ring->oldest + names) % ring->size);
	return 1;
}

void *bf_driver_ring_get(struct bf_driver_ring *ring, uint32_t *len)
{
	struct bf_driver_slot *slot;
	uint32_t name, written;
	void *cookie;
	int ret;

	if (ring->broken)
		return NULL;
	ret = ring->in_order ? next_in_order(ring, &name, &written)
			     : ring->format->look(ring, &name, &written);
	if (!ret)
		return NULL;
	if (ret < 0 || name >= ring->size || !ring->slots[name].cookie)
		return give_up(ring);
	slot = &ring->slots[name];
	cookie = slot->cookie;
	slot->cookie = NULL;
	ring->format->advance(ring, slot->nr);
	release(ring, (uint16_t)name);
	if (len)
		*len = written;
	return cookie;
}

bool bf_driver_ring_want_calls(struct bf_driver_ring *ring, bool on)
{
	uint32_t name, len;

	ring->format->ask_for_calls(ring, on);
	if (!on)
		return false;
	/* Partner: the device's barrier between publishing and reading what we just stored. */
	bf_barrier();
	return ring->in_batch || ring->format->look(ring, &name, &len);
}
