/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which queues a worker has, where the notifications of each come from, and what others have posted. On the
 * worker's thread, all of it, between two rounds: the quick part is worker_thread.c. May allocate when a
 * queue is added; must not serve one.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "worker_thread.h"

/* Sets. */

void worker_set_add(struct worker *w, enum worker_set set, struct worker_queue *q)
{
	if (q->at[set])
		return;
	w->sets[set][w->nr[set]] = q;
	q->at[set] = ++w->nr[set];
}

/* The last one of the set takes its place. */
void worker_set_remove(struct worker *w, enum worker_set set, struct worker_queue *q)
{
	struct worker_queue *last;

	if (!q->at[set])
		return;
	last = w->sets[set][--w->nr[set]];
	w->sets[set][q->at[set] - 1] = last;
	last->at[set] = q->at[set];
	q->at[set] = 0;
}

/*
 * It had settled, and here it is again. Had it lingered for longer, the driver would not have had to
 * notify, nor this thread to wake up; if it is too late for that, lingering was in vain.
 */
static void adapt(const struct worker *w, struct worker_queue *q)
{
	if (!w->alone && worker_now_ns() - q->idle_since < LINGER_MAX_NS)
		q->linger = q->linger < LINGER_MAX / 2 ? 2 * q->linger : LINGER_MAX;
	else
		q->linger = q->linger > 2 * LINGER_MIN ? q->linger / 2 : LINGER_MIN;
}

void worker_activate(struct worker *w, struct worker_queue *q)
{
	q->looks = 0;
	if (q->at[WORKER_ACTIVE])
		return;
	worker_set_add(w, WORKER_ACTIVE, q);
	if (q->way != WAY_EVENTFD)
		return;
	adapt(w, q);
	bf_virtq_want_kicks(q->vq, false);
}

/* Ways. */

static enum queue_way wanted_way(const struct worker *w, const struct worker_queue *q)
{
	if (q->broken)
		return WAY_NONE;
	if (w->mode == WORKER_POLL || bf_virtq_kick_fd(q->vq) < 0)
		return WAY_RING;
	if (w->mode == WORKER_DOORBELL && q->word &&
	    atomic_load_explicit(&q->doorbell, memory_order_acquire) == DOORBELL_MAPPED)
		return WAY_DOORBELL;
	return WAY_EVENTFD;
}

static bool spins(enum queue_way way)
{
	return way == WAY_DOORBELL || way == WAY_RING;
}

static void count_spinning(struct worker *w, bool was, bool is)
{
	unsigned before = w->nr_spinning;

	w->nr_spinning += is - was;
	if (!before && w->nr_spinning)
		spin_begin(&w->spin);
	else if (before && !w->nr_spinning)
		spin_end(&w->spin);
}

static void set_way(struct worker *w, struct worker_queue *q, enum queue_way way)
{
	enum queue_way before = (enum queue_way)q->way;

	if (way == before)
		return;
	doorbell_table_remove(&w->doorbells, &q->watch);
	worker_set_remove(w, WORKER_RINGS, q);
	q->way = way;
	if (way == WAY_DOORBELL)
		doorbell_table_add(&w->doorbells, &q->watch, q->word, bf_virtq_queue(q->vq));
	if (way == WAY_RING)
		worker_set_add(w, WORKER_RINGS, q);
	count_spinning(w, spins(before), spins(way));
	if (way == WAY_DOORBELL || way == WAY_RING)
		bf_virtq_want_kicks(q->vq, way == WAY_DOORBELL);
	/* What was notified of on the former way may still be in the ring. */
	worker_activate(w, q);
}

void worker_break_queue(struct worker *w, struct worker_queue *q)
{
	q->broken = true;
	epoll_ctl(w->epoll_fd, EPOLL_CTL_DEL, bf_virtq_kick_fd(q->vq), NULL);
	set_way(w, q, WAY_NONE);
}

/* What is posted. */

static int reserve(struct worker *w)
{
	unsigned room = w->room ? 2 * w->room : 4, i;
	int ret;

	if (w->nr[WORKER_ALL] < w->room)
		return 0;
	for (i = 0; i < WORKER_NR_SETS; i++) {
		struct worker_queue **items = realloc(w->sets[i], room * sizeof(*items));

		if (!items)
			return -ENOMEM;
		w->sets[i] = items;
	}
	ret = doorbell_table_reserve(&w->doorbells, room);
	if (!ret)
		w->room = room;
	return ret;
}

/* What epoll keeps is the queue, and in the lowest bit which of its two descriptors it is. */
static int watch_fd(struct worker *w, struct worker_queue *q, int fd, bool source)
{
	struct epoll_event event = { .events = source ? EPOLLIN | EPOLLET : EPOLLIN,
				     .data.u64 = (uint64_t)(uintptr_t)q | source };

	if (fd < 0)
		return 0;
	return epoll_ctl(w->epoll_fd, EPOLL_CTL_ADD, fd, &event) ? -errno : 0;
}

static void unwatch_fd(struct worker *w, int fd)
{
	if (fd >= 0)
		epoll_ctl(w->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

static int add(struct worker *w, struct worker_queue *q)
{
	int ret = reserve(w);

	if (!ret)
		ret = watch_fd(w, q, bf_virtq_kick_fd(q->vq), false);
	if (ret)
		return ret;
	ret = watch_fd(w, q, q->source_fd, true);
	if (ret) {
		unwatch_fd(w, bf_virtq_kick_fd(q->vq));
		return ret;
	}
	q->broken = false;
	q->called = false;
	q->linger = LINGER_MIN;
	q->idle_since = 0;
	q->way = WAY_NONE;
	q->counters = bf_virtq_counters(q->vq);
	q->watch = (struct doorbell_watch){ 0 };
	worker_set_add(w, WORKER_ALL, q);
	atomic_store(&q->worker, w);
	set_way(w, q, wanted_way(w, q));
	return 0;
}

static void remove_queue(struct worker *w, struct worker_queue *q,
			 void (*finish)(struct worker_queue *queue))
{
	unsigned set;

	atomic_store(&q->worker, NULL);
	unwatch_fd(w, bf_virtq_kick_fd(q->vq));
	unwatch_fd(w, q->source_fd);
	set_way(w, q, WAY_NONE);
	for (set = 0; set < WORKER_NR_SETS; set++)
		worker_set_remove(w, (enum worker_set)set, q);
	if (finish)
		finish(q);
}

static void take_command(struct worker *w)
{
	struct worker_command *command = atomic_exchange(&w->command, NULL);

	if (!command)
		return;
	switch (command->kind) {
	case WORKER_ADD:
		command->result = add(w, command->queue);
		break;
	case WORKER_REMOVE:
		remove_queue(w, command->queue, command->finish);
		break;
	case WORKER_END:
		w->ending = true;
	}
	pthread_mutex_lock(&w->lock);
	command->done = true; /* it is gone when the lock is free */
	pthread_cond_signal(&w->done);
	pthread_mutex_unlock(&w->lock);
}

/* @q was on our list. It may have gone to another worker since, and its poke with it. */
static void take_poke(struct worker *w, struct worker_queue *q)
{
	struct worker *now;

	atomic_exchange(&q->poked, false);
	now = atomic_load(&q->worker);
	if (now == w) {
		set_way(w, q, wanted_way(w, q));
		worker_activate(w, q);
	} else if (now) {
		worker_poke(q);
	}
}

void worker_take_posted(struct worker *w)
{
	struct worker_queue *q, *next;

	if (atomic_load_explicit(&w->poked, memory_order_relaxed)) {
		for (q = atomic_exchange(&w->poked, NULL); q; q = next) {
			next = q->next_poked;
			take_poke(w, q);
		}
	}
	if (atomic_load_explicit(&w->command, memory_order_relaxed))
		take_command(w);
}
