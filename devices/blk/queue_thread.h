/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What queue.c (life, control context) and queue_thread.c (work, on a worker) share, and nobody else
 * sees.
 */
#ifndef BLK_QUEUE_THREAD_H
#define BLK_QUEUE_THREAD_H

#include "devices/common/worker.h"
#include "queue.h"

/*
 * Requests between two looks at completions, and between two notifications: enough to share what a batch
 * costs, few enough that the driver works on the first while we work on the next.
 */
#define BATCH 8
/* Pieces of data per request; more than seg_max, since a piece may cross memory regions. */
#define SLOT_PIECES (BLK_SEG_MAX + 18)
/* What most requests have: these pieces are in the slot itself. */
#define SLOT_NEAR_PIECES 2
/* Pieces of a whole chain, header and status included, or of a batch. Longer chains are broken. */
#define CHAIN_PIECES 1024

/* A request in flight. The slot's number is the head of its chain, which is in flight only once. */
struct slot {
	struct blk_io_req io; /* first: completions come back as this */
	struct blk_request req;
	struct iovec near[SLOT_NEAR_PIECES];
	uint16_t head;
};

struct far_pieces {
	struct iovec iov[SLOT_PIECES];
};

struct blk_queue {
	struct worker_queue wq; /* first */

	/* The worker's, while it runs. */
	struct blk_io *io; /* NULL: nothing is read or written */
	struct slot *slots;
	struct far_pieces *far; /* [as slots] */
	unsigned in_flight;
	unsigned nr_done;
	bool bad_said;
	bool durable;               /* env's, as it was at start */
	struct bf_done done[BATCH]; /* finished, not yet pushed */
	struct bf_chain chains[BATCH];
	struct iovec *chain_pieces; /* [CHAIN_PIECES] */

	/* Control's. */
	const struct blk_queue_env *env;
	unsigned idx;
	unsigned nr_slots;
	bool running;
	struct bf_virtq_counters at_start;
	struct bf_virtq_counters total; /* of earlier runs */
};

/* With an engine; and for a disk that is not there. */
extern const struct worker_ops blk_queue_ops, blk_null_queue_ops;
/* Worker, the last thing: leaves nothing in flight. */
void blk_queue_finish(struct worker_queue *wq);

#endif
