/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A small guest and a small device over one split ring, in plain memory, written after the
 * specification and sharing nothing with what they test. Each request is a token: the device must
 * see them in the order in which they were made, and the guest must get each one back once.
 */
#ifndef TESTS_DEVICES_FAKE_SPLIT_H
#define TESTS_DEVICES_FAKE_SPLIT_H

#include "../support.h"

#include <stdbool.h>

#define MAX_SIZE 256

struct entry {
	uint32_t id, len;
};

/* One split ring: what the guest and a device have in common. */
struct rings {
	_Alignas(8) uint16_t avail[3 + MAX_SIZE];
	_Alignas(8) uint32_t used[(8 + 8 * MAX_SIZE) / 4];
};

static inline uint16_t *used_flags(struct rings *r)
{
	return (uint16_t *)r->used;
}

static inline uint16_t *used_idx(struct rings *r)
{
	return (uint16_t *)r->used + 1;
}

static inline struct entry *used_entry(struct rings *r, unsigned i)
{
	return (struct entry *)(r->used + 1 + 2 * i);
}

static inline uint16_t *avail_event(struct rings *r, unsigned size)
{
	return (uint16_t *)used_entry(r, size);
}

static inline uint16_t get(const uint16_t *word)
{
	return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

static inline void put(uint16_t *word, uint16_t value)
{
	__atomic_store_n(word, value, __ATOMIC_RELEASE);
}

static inline void barrier(void)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static inline bool need_event(uint16_t event, uint16_t now, uint16_t before)
{
	return (uint16_t)(now - event - 1) < (uint16_t)(now - before);
}

/* A generator of our own: the same schedules on every machine. */
static inline uint32_t random_next(uint32_t *seed)
{
	*seed = *seed * 1664525 + 1013904223;
	return *seed >> 8;
}

struct guest {
	struct rings *rings;
	unsigned size;
	bool event_idx;
	uint16_t avail_idx, used_seen;
	uint32_t token[MAX_SIZE]; /* the descriptor table, as far as the device reads it */
	bool busy[MAX_SIZE];
	unsigned nr_busy;
	uint32_t made, finished;
	uint32_t seed;
};

static inline uint32_t answer_of(uint32_t token)
{
	return token * 2654435761u + 1;
}

/* Make up to @nr requests. True: the device wants a kick. */
static inline bool guest_submit(struct guest *g, unsigned nr)
{
	uint16_t before = g->avail_idx;
	unsigned head;

	for (; nr && g->nr_busy < g->size; nr--, g->nr_busy++) {
		for (head = random_next(&g->seed) % g->size; g->busy[head];)
			head = (head + 1) % g->size;
		g->busy[head] = true;
		g->token[head] = g->made++;
		put(&g->rings->avail[2 + g->avail_idx++ % g->size], head);
	}
	if (g->avail_idx == before)
		return false;
	put(&g->rings->avail[1], g->avail_idx);
	barrier();
	if (g->event_idx)
		return need_event(get(avail_event(g->rings, g->size)), g->avail_idx, before);
	return !get(used_flags(g->rings));
}

/* Take what is done, and ask to be interrupted for the next. */
static inline void guest_collect(struct guest *g)
{
	for (;;) {
		while (g->used_seen != get(used_idx(g->rings))) {
			struct entry e = *used_entry(g->rings, g->used_seen++ % g->size);

			assert_true(e.id < g->size);
			assert_true(g->busy[e.id]);
			assert_int_equal(e.len, answer_of(g->token[e.id]));
			g->busy[e.id] = false;
			g->nr_busy--;
			g->finished++;
		}
		put(&g->rings->avail[2 + g->size], g->used_seen);
		barrier();
		if (g->used_seen == get(used_idx(g->rings)))
			return;
	}
}

struct device {
	struct rings *rings;
	const struct guest *guest; /* DMA */
	unsigned size;
	bool event_idx, in_order;
	uint16_t avail_seen, used_idx;
	uint16_t held[MAX_SIZE];
	unsigned nr_held;
	uint32_t next_token; /* requests come in the order in which they were made */
	uint32_t seed;
};

/* The doorbell was rung. */
static inline void device_fetch(struct device *d)
{
	for (;;) {
		while (d->avail_seen != get(&d->rings->avail[1])) {
			uint16_t head = get(&d->rings->avail[2 + d->avail_seen++ % d->size]);

			assert_true(head < d->size);
			assert_true(d->nr_held < d->size);
			assert_int_equal(d->guest->token[head], d->next_token++);
			d->held[d->nr_held++] = head;
		}
		put(avail_event(d->rings, d->size), d->avail_seen);
		barrier();
		if (d->avail_seen == get(&d->rings->avail[1]))
			return;
	}
}

/* Return up to @nr. True: interrupt. */
static inline bool device_return(struct device *d, unsigned nr)
{
	uint16_t before = d->used_idx;

	for (; nr && d->nr_held; nr--) {
		unsigned which = d->in_order ? 0 : random_next(&d->seed) % d->nr_held;
		uint16_t head = d->held[which];

		memmove(d->held + which, d->held + which + 1,
			(--d->nr_held - which) * sizeof(d->held[0]));
		*used_entry(d->rings, d->used_idx++ % d->size) =
			(struct entry){ head, answer_of(d->guest->token[head]) };
	}
	if (d->used_idx == before)
		return false;
	put(used_idx(d->rings), d->used_idx);
	barrier();
	if (d->event_idx)
		return need_event(get(&d->rings->avail[2 + d->size]), d->used_idx, before);
	return !get(&d->rings->avail[0]);
}

#endif
