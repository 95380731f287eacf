/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The device side of a virtqueue, from the inside.
 *
 * Control makes it and starts and stops it; between start and stop it belongs to the queue context,
 * which uses belfry/virtq.h. The ring itself is guest memory: nothing read from it is kept but as a
 * checked copy.
 *
 * What the two formats have in common is in virtq.c (life), request.c (what is in flight), walk.c
 * (chains) and notify.c (who wakes whom); each calls the format, chosen at start, where they differ.
 */
#ifndef VIRTQ_VIRTQ_H
#define VIRTQ_VIRTQ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <belfry/memory.h>
#include <belfry/virtq.h>

#include "packed_ring.h"
#include "ring.h"

/* What split and packed rings do differently. Queue context, hot. */
struct bf_virtq_format {
	/* As bf_virtq_pop(), of a ring that is not broken. */
	int (*pop)(struct bf_virtq *vq, struct bf_chain *chain);
	/* Fill the next used entry; @entries is what bf_virtq_take() was told. Not yet visible. */
	void (*push)(struct bf_virtq *vq, uint16_t head, uint32_t len, unsigned entries);
	/* Make visible what lies between published_used and next_used, which are not equal. */
	void (*publish)(struct bf_virtq *vq);
	/* Does the driver want to be called for what lies between @before and next_used? */
	bool (*wants_call)(const struct bf_virtq *vq, uint16_t before);
	bool (*has_work)(const struct bf_virtq *vq);
	/* Store what we want of the driver. The barrier behind it is the caller's. */
	void (*ask_for_kicks)(struct bf_virtq *vq, bool on);
};

extern const struct bf_virtq_format bf_split_format, bf_packed_format;

/* A position is an index that runs freely (split), or what packed_ring.h says of positions. */
struct bf_virtq {
	/* Hot: one cache line. */
	const struct bf_virtq_format *format;
	union {
		const struct bf_desc *desc;
		struct bf_packed_desc *ring;
	};
	union {
		const struct bf_avail *avail;
		const struct bf_packed_event *driver_event; /* when it wants to be called */
	};
	union {
		struct bf_used *used;
		struct bf_packed_event *device_event; /* when we want to be kicked */
	};
	struct bf_memory *memory; /* counted */
	uint16_t *in_flight;      /* by head or buffer id: ring entries of it; 0: not in flight */
	uint16_t size;
	uint16_t next_avail; /* position of the next request to take */
	union {
		uint16_t seen_avail;  /* split: the driver's index, checked copy */
		uint16_t first_flags; /* packed: of the first used descriptor, held back */
	};
	uint16_t next_used;      /* position of the next used entry to fill */
	uint16_t published_used; /* the same as the driver sees it */
	uint16_t told_event;     /* with event_idx: the position that we want a kick for */
	bool event_idx;
	bool indirect;
	bool kicks_wanted; /* what we last told the driver */
	bool call_due;     /* signal with the next notify, whatever the driver says */

	/* Hot: the next line. */
	int broken; /* 0 or the negative errno */
	unsigned nr_in_flight;
	struct bf_virtq_counters counters;

	/* Split only. */
	const bf_le16 *used_event; /* in the driver area: when it wants to be called */
	bf_le16 *avail_event;      /* in the device area: when we want to be kicked */

	/* Cold. */
	int kick_fd, call_fd, err_fd; /* borrowed from the vring; -1: none */
	unsigned queue;
	bool running;
	char reason[160];
} __attribute__((aligned(64)));

_Static_assert(offsetof(struct bf_virtq, broken) <= 64, "what every request needs is one line");

/* Control. @vq is zeroed memory that is aligned as its type; bf_virtq_new() for one inside another. */
void bf_virtq_init(struct bf_virtq *vq, unsigned queue);

/*
 * Control. Find the parts of the ring in memory, take over the positions, choose the format
 * (attach.c). 0 or what bf_virtq_start() says; @vq untouched on failure.
 */
int bf_split_attach(struct bf_virtq *vq, const struct bf_virtq_setup *setup, const char **why);
int bf_packed_attach(struct bf_virtq *vq, const struct bf_virtq_setup *setup, const char **why);

/* Queue. Mark broken, once: keep a sentence, signal the error eventfd. Returns @error. */
int bf_virtq_break(struct bf_virtq *vq, int error, const char *format, ...)
	__attribute__((format(printf, 3, 4), cold));

/*
 * Queue. A request becomes ours: @head, from the driver, is bounded and may not be in flight
 * already; it occupies @entries of the ring. 1, or -EBADMSG and the ring is broken.
 */
int bf_virtq_take(struct bf_virtq *vq, uint16_t head, unsigned entries);

/* One writer; a reader on another thread sees an old value or a new one. */
static inline void bf_count(uint64_t *counter, uint64_t n)
{
	__atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

#endif
