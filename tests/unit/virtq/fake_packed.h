/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A driver's side of a packed ring for tests, in the memory of fake_driver.h. The driver has an index
 * and a wrap counter, as the specification tells it, and knows nothing of the types under test.
 */
#ifndef TESTS_UNIT_VIRTQ_FAKE_PACKED_H
#define TESTS_UNIT_VIRTQ_FAKE_PACKED_H

#include <linux/virtio_config.h>

#include "fake_driver.h"

#define PACKED        (1ull << VIRTIO_F_RING_PACKED)
#define EVENT_IDX     (1ull << VIRTIO_RING_F_EVENT_IDX)
#define INDIRECT_DESC (1ull << VIRTIO_RING_F_INDIRECT_DESC)
#define DRIVER_AREA   (RING_GPA + 32 * KIB)
#define DEVICE_AREA   (DRIVER_AREA + 64)
#define TABLES        (RING_GPA + 40 * KIB)

#define AVAIL (1u << 7)
#define USED  (1u << 15)

enum { ENABLE, DISABLE, DESC, RESERVED };

struct raw_packed {
	uint64_t addr;
	uint32_t len;
	uint16_t id;
	volatile uint16_t flags;
};

struct event {
	volatile uint16_t position; /* index in bits 0-14, wrap counter in bit 15 */
	volatile uint16_t flags;
};

/* Where one side stands. */
struct place {
	unsigned idx;
	bool wrap;
};

struct fake_packed {
	struct fake fake; /* memory, eventfds, virtqueue */
	unsigned size;
	struct raw_packed *ring;
	struct event *driver, *device;
	struct place next; /* the driver's: where the next descriptor goes */
};

static inline uint16_t encode(struct place place)
{
	return (uint16_t)(place.idx | (unsigned)place.wrap << 15);
}

static inline void step(const struct fake_packed *p, struct place *place)
{
	if (++place->idx == p->size) {
		place->idx = 0;
		place->wrap = !place->wrap;
	}
}

static inline uint16_t avail_flags(struct place place)
{
	return place.wrap ? AVAIL : USED;
}

/* Make the next descriptor available, alone or as a part of a chain that is not looked at yet. */
static inline void put(struct fake_packed *p, uint64_t addr, uint32_t len, uint16_t flags,
		       uint16_t id)
{
	struct raw_packed *desc = &p->ring[p->next.idx];

	desc->addr = addr;
	desc->len = len;
	desc->id = id;
	__atomic_store_n(&desc->flags, (uint16_t)(flags | avail_flags(p->next)), __ATOMIC_RELEASE);
	step(p, &p->next);
}

/* A table of indirect descriptors at @gpa; it may cross the border of two regions. */
static inline void put_indirect(struct fake_packed *p, uint64_t gpa, unsigned i,
				struct raw_packed desc)
{
	const uint8_t *bytes = (const uint8_t *)&desc;

	for (unsigned b = 0; b < sizeof(desc); b++)
		*(uint8_t *)at(&p->fake, gpa + i * sizeof(desc) + b) = bytes[b];
}

/* Has the device given back the descriptor at @place? */
static inline bool is_used(const struct fake_packed *p, struct place place)
{
	uint16_t flags = __atomic_load_n(&p->ring[place.idx].flags, __ATOMIC_ACQUIRE);

	return !!(flags & AVAIL) == place.wrap && !!(flags & USED) == place.wrap;
}

/* Does @event ask to be told of the @nr descriptors from @place on? One by one. */
static inline bool tell(const struct fake_packed *p, const struct event *event, struct place place,
			unsigned nr, bool event_idx)
{
	uint16_t flags = __atomic_load_n(&event->flags, __ATOMIC_ACQUIRE) & 3;
	uint16_t position = __atomic_load_n(&event->position, __ATOMIC_RELAXED);

	if (flags == DISABLE)
		return false;
	if (flags != DESC || !event_idx)
		return true;
	for (; nr; nr--, step(p, &place))
		if (position == encode(place))
			return true;
	return false;
}

/* Both sides at @start: a fresh ring when that is { 0, true }. */
static inline void packed_init_at(struct fake_packed *p, unsigned size, struct place start,
				  uint64_t features)
{
	memset(p, 0, sizeof(*p));
	fake_open(&p->fake);
	p->size = size;
	p->next = start;
	p->ring = at(&p->fake, RING_GPA);
	p->driver = at(&p->fake, DRIVER_AREA);
	p->device = at(&p->fake, DEVICE_AREA);
	/* What lies in the ring then is used; in a fresh ring that is zeroes, which are not. */
	for (unsigned i = 0; i < size; i++)
		if (i < start.idx ? start.wrap : !start.wrap)
			p->ring[i].flags = AVAIL | USED;
	p->fake.setup = (struct bf_virtq_setup){
		.memory = p->fake.memory,
		.size = (uint16_t)size,
		.base = encode(start) * 0x10001u,
		.desc_uva = UVA_OFFSET + RING_GPA,
		.avail_uva = UVA_OFFSET + DRIVER_AREA,
		.used_uva = UVA_OFFSET + DEVICE_AREA,
		.features = features | PACKED,
		.kick_fd = p->fake.kick_fd,
		.call_fd = p->fake.call_fd,
		.err_fd = p->fake.err_fd,
	};
	fake_start(&p->fake);
}

static inline void packed_init(struct fake_packed *p, unsigned size, uint64_t features)
{
	packed_init_at(p, size, (struct place){ 0, true }, features);
}

#endif
