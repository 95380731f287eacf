/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What worker.c (control and others), worker_thread.c (the thread) and worker_queues.c (the thread between
 * two rounds) share, and nobody else sees.
 */
#ifndef COMMON_WORKER_THREAD_H
#define COMMON_WORKER_THREAD_H

#include <pthread.h>
#include <time.h>

#include "spin.h"
#include "worker.h"

/* Where a queue's notifications come from. */
enum queue_way {
	WAY_NONE,     /* from nowhere: not added, or broken */
	WAY_EVENTFD,  /* the kick eventfd */
	WAY_DOORBELL, /* the page, and the kick eventfd now and then */
	WAY_RING,     /* nothing comes: the ring is looked at */
};

/* Looks at a queue in vain before it settles; some ten nanoseconds each. */
#define LINGER_MIN 48
#define LINGER_MAX 1024
/* What LINGER_MAX looks may take. */
#define LINGER_MAX_NS 30000

/* Something control wants done on the thread while it waits. */
struct worker_command {
	enum { WORKER_ADD, WORKER_REMOVE, WORKER_END } kind;
	struct worker_queue *queue;
	void (*finish)(struct worker_queue *queue); /* WORKER_REMOVE; may be NULL */
	int result;
	bool done;
};

struct worker {
	/* The thread's. Hot. */
	struct doorbell_table doorbells;
	struct worker_queue **sets[WORKER_NR_SETS]; /* [room] each, [nr[set]] in use */
	unsigned nr[WORKER_NR_SETS];
	unsigned nr_spinning; /* queues that make it spin */
	unsigned busy_rounds;
	enum worker_mode mode;
	bool ending;
	struct spin spin;
	bool alone; /* no CPU for a driver beside us: waiting for it only keeps it from running */
	unsigned room;
	int epoll_fd;
	int wake_fd; /* eventfd: there is something posted */

	/* Any thread: what is posted. `sleeping` says whether wake_fd is needed. */
	struct worker_queue *_Atomic poked; /* linked by next_poked */
	struct worker_command *_Atomic command;
	atomic_bool sleeping;

	/* Control's, and to wait for a command: */
	pthread_mutex_t turn; /* one command at a time */
	pthread_mutex_t lock; /* of command->done */
	pthread_cond_t done;
	pthread_t thread;
};

static inline uint64_t worker_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Worker. */

void worker_set_add(struct worker *w, enum worker_set set, struct worker_queue *q);
/* Not in it: no effect. */
void worker_set_remove(struct worker *w, enum worker_set set, struct worker_queue *q);
/* Something was heard of it, or may have been missed. */
void worker_activate(struct worker *w, struct worker_queue *q);
/* Its ring or its kick descriptor cannot be trusted: nothing more is heard of it. */
void worker_break_queue(struct worker *w, struct worker_queue *q);
/* Commands and pokes. Looks at memory only, if there are none. */
void worker_take_posted(struct worker *w);

void *worker_thread(void *worker);
/* Any thread, after something was posted: see that the thread finds it. */
void worker_wake(struct worker *worker);

#endif
