/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * In-flight tracking, from the inside: what one queue keeps, and what split and packed do differently.
 *
 * "Stores that may be the last". The process may be killed between any two instructions, and what it stored
 * until then, in program order, is what the successor finds. So the order of stores is the protocol. All of
 * them go through TRACK(), which keeps the compiler from moving them; the processor needs no barrier,
 * because nobody looks while we live. A test build redefines TRACK() and TRACK_POINT() to die there.
 *
 * "The region is written, never read", but by attach: what queues need of it they have in private memory.
 */
#ifndef VIRTQ_INFLIGHT_QUEUE_H
#define VIRTQ_INFLIGHT_QUEUE_H

#include "inflight.h"
#include "walk.h"

#ifndef TRACK
#define TRACK(field, value)                                            \
	do {                                                           \
		__atomic_signal_fence(__ATOMIC_SEQ_CST);               \
		__atomic_store_n(&(field), (value), __ATOMIC_RELAXED); \
		__atomic_signal_fence(__ATOMIC_SEQ_CST);               \
	} while (0)
#endif
#ifndef TRACK_POINT
#define TRACK_POINT() __atomic_signal_fence(__ATOMIC_SEQ_CST)
#endif

/* A request that a predecessor left, to be given again. */
struct bf_again {
	uint64_t counter;
	uint16_t head;  /* its name: head or buffer id */
	uint16_t entry; /* packed: where its copy begins */
};

/* Packed: which entries of the region hold the request of an id, from first to last in list order. */
struct bf_inflight_entries {
	uint16_t first, last, nr;
};

struct bf_inflight_queue {
	union {
		struct bf_inflight_split *split;
		struct bf_inflight_packed *packed;
	};
	uint64_t counter; /* of the next request that is taken */
	unsigned nr_batch;
	uint16_t *batch; /* [size]: pushed since the last publish, by name, in order */
	unsigned nr_again, next_again;
	uint16_t last_batch_head; /* split: as in the region */
	struct bf_again *again;   /* [nr_again]; what lies before next_again has been given */
	bool *is_again;           /* [size] by name */

	/* Packed only. Links end with `entries`. */
	uint16_t entries;                     /* of the region */
	uint16_t free_head;                   /* as in the region */
	uint16_t used;                        /* position up to which the driver was told */
	uint16_t *next;                       /* [entries]: as in the region, what matters of it */
	struct bf_inflight_entries *of_id;    /* [size] */
	struct bf_inflight_packed_desc *copy; /* [entries]: as they were at attach, for `again` */
};

/*
 * Attach, by format. Read the region once, check the copy, repair the region, set the positions of @vq,
 * fill in counter, and again[] in any order. 0 or -EINVAL with @why.
 */
int bf_inflight_split_recover(struct bf_virtq *vq, struct bf_inflight_queue *queue,
			      uint16_t entries, const char **why);
/* Likewise; -ENOMEM too. */
int bf_inflight_packed_recover(struct bf_virtq *vq, struct bf_inflight_queue *queue,
			       uint16_t entries, const char **why);

void bf_inflight_split_taken(struct bf_inflight_queue *queue, uint16_t head);
void bf_inflight_split_untaken(struct bf_inflight_queue *queue, uint16_t head);
void bf_inflight_split_before_publish(struct bf_inflight_queue *queue);
void bf_inflight_split_after_publish(struct bf_inflight_queue *queue, uint16_t used_idx);

void bf_inflight_packed_taken(const struct bf_virtq *vq, struct bf_inflight_queue *queue,
			      uint16_t id, uint16_t position, unsigned entries);
void bf_inflight_packed_untaken(struct bf_inflight_queue *queue, uint16_t id);
void bf_inflight_packed_before_publish(struct bf_inflight_queue *queue, uint16_t used);
void bf_inflight_packed_after_publish(struct bf_inflight_queue *queue, uint16_t used);
/* The elements of a request that is given again: 0 or as bf_walk_add(). */
int bf_inflight_packed_walk(struct bf_walk *walk, const struct bf_inflight_queue *queue,
			    const struct bf_again *again);

#endif
