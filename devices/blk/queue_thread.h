/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What queue.c (life, control context) and queue_thread.c (work, queue context) share, and nobody
 * else sees.
 */
#ifndef BLK_QUEUE_THREAD_H
#define BLK_QUEUE_THREAD_H

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>

#include "devices/common/spin.h"
#include "queue.h"

/* Pieces of data per request; more than seg_max, since a piece may cross memory regions. */
#define SLOT_PIECES (BLK_SEG_MAX + 18)
/* Pieces of a whole chain, header and status included. Longer chains are broken. */
#define CHAIN_PIECES 1024

/* A request in flight. The slot's number is the head of its chain, which is in flight only once. */
struct slot {
	struct blk_io_req io; /* first: completions come back as this */
	struct blk_request req;
	uint16_t head;
	struct iovec pieces[SLOT_PIECES];
};

enum { FD_KICK, FD_IO, FD_WAKE, NR_FDS };

struct blk_queue {
	/* The thread's. */
	struct bf_virtq *vq;
	struct bf_virtq_counters *counters;
	struct blk_io *io;
	struct slot *slots;
	uint32_t *word;
	unsigned in_flight;
	bool broken;
	bool spins;    /* watches memory instead of sleeping */
	bool notified; /* the ring may hold requests that nobody will ring for (again) */
	bool bad_said;
	bool durable; /* env's, as it was at start */
	struct spin spin;
	struct iovec *chain_pieces;
	struct pollfd fds[NR_FDS];
	uint64_t wakeups; /* written by the thread, read by control: atomic */

	/* Written by control, read by the thread. */
	atomic_bool stop;
	atomic_int doorbell; /* enum stats_doorbell */

	/* Control's. */
	const struct blk_queue_env *env;
	unsigned idx;
	unsigned nr_slots;
	int wake_fd;
	bool running;
	pthread_t thread;
	struct bf_virtq_counters at_start;
	struct bf_virtq_counters total; /* of earlier runs */
};

/* The thread: serves until `stop`, and leaves nothing in flight. @arg: struct blk_queue. */
void *blk_queue_thread(void *arg);
void blk_queue_drain_wake(struct blk_queue *q);

#endif
