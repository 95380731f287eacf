/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Queue threads: each serves any number of virtqueues, asleep or watching doorbells.
 *
 * "Control" is the program's main thread, "worker" the thread. A queue belongs to one worker for its
 * life; between worker_add() and worker_remove() only that thread touches its virtqueue. What it means to
 * serve a queue is the device's (struct worker_ops); when it is worth doing is the worker's:
 * worker_thread.c has the whole story of sleeping, spinning and doorbells.
 */
#ifndef COMMON_WORKER_H
#define COMMON_WORKER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <belfry/virtq.h>

#include "doorbell_table.h"
#include "stats.h"

/* How a worker learns that there is work. */
enum worker_mode {
	WORKER_EVENTFD,  /* sleeps on kick eventfds */
	WORKER_DOORBELL, /* spins on the doorbell pages of the queues whose pages are mapped */
	WORKER_POLL,     /* spins on the rings, and asks drivers not to notify at all */
};

struct worker;
struct worker_queue;

struct worker_ops {
	/*
	 * Worker. Do what there is to do, a bounded amount (some 64 requests): pop, work, push, notify.
	 * True: something was done, come again without waiting. Also called when @queue's source is
	 * readable, and once after worker_add().
	 */
	bool (*serve)(struct worker_queue *queue);
	/*
	 * Worker, before sleeping, and after the driver was asked for kicks: make the source readable
	 * when there is something. True: there is already. NULL: no preparation.
	 */
	bool (*arm)(struct worker_queue *queue);
	/* Worker, while spinning: a look at memory, is there something besides the ring? NULL: no. */
	bool (*ready)(struct worker_queue *queue);
};

/*
 * Worker, in ops->serve: bf_virtq_notify(), which may be used as well. This one asks a driver that sleeps
 * between requests for its next doorbell before it is woken, not after.
 */
void worker_notify(struct worker_queue *queue);

/* The sets of its queues that a worker keeps. */
enum worker_set {
	WORKER_ALL,
	WORKER_ACTIVE,  /* may have something to do */
	WORKER_UNARMED, /* served since their source was armed */
	WORKER_RINGS,   /* whose ring is looked at */
	WORKER_READY,   /* to be asked whether they are ready */
	WORKER_NR_SETS,
};

/* Embedded in the device's own queue, zeroed before its first use; outlives every worker_poke(). */
struct worker_queue {
	/* The device's, before worker_add(). */
	const struct worker_ops *ops;
	struct bf_virtq *vq;
	uint32_t *word; /* doorbell_word() of its page, or NULL */
	/*
	 * An fd besides the kick eventfd that the worker polls for reading (I/O engine, TAP, timer), or
	 * -1. Edge-triggered: serve takes what there is, or says that it wants to come again, or has a
	 * reason not to (no buffers) that the ring or a poke ends. While spinning it is looked at only
	 * now and then: ops->ready should see it coming.
	 */
	int source_fd;
	/* The device's, in ops->serve: nothing is on its way, ops->ready need not be asked. */
	bool source_quiet;
	/*
	 * The device's, set and cleared in ops->serve and ops->arm: what the ring holds is no work now, but
	 * buffers for packets that have not come, or work that waits for something else. While it is set
	 * the worker neither asks for kicks nor looks at the ring: the device does, by
	 * bf_virtq_want_kicks(), when it has run out. serve is then called for a kick, a doorbell, the
	 * source, ready and a poke only. (A receive queue would never let its thread sleep otherwise.)
	 */
	bool parked;

	/* The worker's. */
	bool called;                 /* the last notification signalled the driver */
	bool broken;                 /* the ring, or the kick descriptor; its source is served on */
	uint8_t way;                 /* enum queue_way in worker_thread.h */
	uint16_t linger;             /* how many looks are worth it: worker_thread.c */
	uint64_t idle_since;         /* ns */
	uint16_t looks;              /* at the ring in vain since it was served */
	unsigned at[WORKER_NR_SETS]; /* place in the set, from 1 */
	struct doorbell_watch watch;
	struct bf_virtq_counters *counters;
	uint64_t wakeups; /* atomic; times the worker slept and was woken for it */

	/* Any thread. */
	struct worker *_Atomic worker; /* NULL: not added */
	atomic_int doorbell;           /* enum stats_doorbell: control writes, worker reads */
	atomic_bool poked;             /* is on the worker's list of poked queues */
	struct worker_queue *next_poked;
};

/* Control. @name: of the thread, with @idx. 0 or negative errno. The thread runs until free. */
int worker_new(enum worker_mode mode, const char *name, unsigned idx, struct worker **worker);
/* All queues removed. NULL is fine. */
void worker_free(struct worker *worker);

/*
 * Control; waits until the worker has taken it over. 0 or negative errno (out of memory, epoll). Its
 * doorbell state is PENDING, or OFF without a word.
 */
int worker_add(struct worker *worker, struct worker_queue *queue);
/*
 * Control; waits until the worker has let go of it. @finish (may be NULL) runs on the worker as the last
 * thing: complete what is in flight. The other queues of the worker wait for it.
 */
void worker_remove(struct worker_queue *queue, void (*finish)(struct worker_queue *queue));

/* Control: the front end has taken the doorbell page, or not, or withdrawn it. */
void worker_set_doorbell(struct worker_queue *queue, enum stats_doorbell state);

/*
 * Any thread: have @queue served soon, although neither its kick nor its source says so (a packet was put
 * before it by another queue's worker). Cheap when it is awake. Not added: no effect.
 */
void worker_poke(struct worker_queue *queue);

#endif
