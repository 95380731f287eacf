/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The thread of a worker. It alone touches the rings of its queues; control and others only post
 * (worker.c). No lock and no system call but those of its devices while there is work; no allocation
 * but when a queue is added.
 *
 * Active queues. A queue is served, again and again in turns with the others that have something, until
 * there was nothing to do for it for a moment (linger_rounds()): a driver that gets an answer often asks
 * the next question at once, and neither side should pay for a notification then. How long that moment is,
 * where notifications go through the kernel, follows the driver: from some two microseconds up to thirty,
 * as long as it comes back within thirty. After that the queue is settled: the driver is asked for kicks,
 * the ring is looked at once more, and the queue is left alone until something is heard of it: its kick
 * eventfd, its doorbell, its source, a poke. Both orders of "driver publishes, then looks whether we want
 * kicks" and "we want kicks, then look at the ring" end with one of us seeing the other; the barriers are
 * in bf_virtq_want_kicks() and in the driver.
 *
 * Sleeping. When no queue is active, and none is of a kind that must be watched, sources are armed and the
 * thread sleeps on all kick eventfds and sources at once, and on an eventfd for what is posted.
 *
 * Spinning. With a doorbell page mapped, the thread watches the page instead, and looks at the ring only
 * when it was rung, like hardware. It never asks the driver to be silent: with event index the driver rings
 * only when the index we published is passed, so wanting kicks is renewed each time the queue settles. The
 * kick eventfds are looked at all the same, now and then: the front end may take a page away without
 * asking, and kicks come there from then on. A queue without a kick eventfd is polled, as the protocol
 * asks: its ring is looked at in every round, and its driver need not notify. WORKER_POLL does so with all.
 *
 * A ring that the driver broke, or a kick descriptor that the peer has made useless, is left alone until
 * the next start; what is in flight is still finished.
 */
#include <stddef.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "log.h"
#include "worker_thread.h"

/* Where a notification is cheap: nearly none. */
#define LINGER_DOORBELL 6
/* While some queues are busy, the fds of the others are looked at once in this many rounds. */
#define BUSY_LOOK_ROUNDS 8
#define NR_EVENTS        64

/* Written here only; control may read it at any moment. */
static void count(uint64_t *counter)
{
	__atomic_store_n(counter, *counter + 1, __ATOMIC_RELAXED);
}

/* Serving. */

static bool serve(struct worker *w, struct worker_queue *q)
{
	bool did = q->ops->serve(q);

	if (q->ops->arm)
		worker_set_add(w, WORKER_UNARMED, q);
	if (!q->ops->ready)
		return did;
	if (q->source_quiet)
		worker_set_remove(w, WORKER_READY, q);
	else
		worker_set_add(w, WORKER_READY, q);
	return did;
}

/*
 * A driver that was called last time sleeps between requests. Being called it may run before us, on this
 * very CPU, and should find that it is to ring.
 */
void worker_notify(struct worker_queue *q)
{
	if (q->called && q->way == WAY_DOORBELL)
		bf_virtq_want_kicks(q->vq, true);
	q->called = bf_virtq_notify(q->vq);
}

/* Nothing to do. True: it may rest until something is heard of it. */
static bool settle(struct worker *w, struct worker_queue *q)
{
	if (!q->broken && bf_virtq_broken(q->vq, NULL))
		worker_break_queue(w, q);
	if (q->way == WAY_NONE || q->way == WAY_RING || q->parked)
		return true;
	return !bf_virtq_want_kicks(q->vq, true);
}

/* After it was served in vain: is it worth trying again? */
static bool looks_worth(struct worker_queue *q)
{
	return (!q->broken && !q->parked && bf_virtq_has_work(q->vq)) ||
	       (q->ops->ready && q->ops->ready(q));
}

static unsigned linger_rounds(const struct worker_queue *q)
{
	if (q->way == WAY_EVENTFD)
		return q->linger;
	return q->way == WAY_DOORBELL ? LINGER_DOORBELL : 0;
}

/* One turn for @q. True: something was done. */
static bool serve_active(struct worker *w, struct worker_queue *q)
{
	if ((!q->looks || looks_worth(q)) && serve(w, q)) {
		q->looks = 0;
		return true;
	}
	if (!q->looks++ && q->way == WAY_EVENTFD)
		q->idle_since = worker_now_ns();
	if (q->looks < linger_rounds(q))
		return false;
	if (settle(w, q))
		worker_set_remove(w, WORKER_ACTIVE, q);
	else
		q->looks = 0;
	return false;
}

/* A turn for each active queue. True: something was done for one of them. */
static bool serve_all(struct worker *w)
{
	unsigned i = 0;
	bool did = false;

	while (i < w->nr[WORKER_ACTIVE]) {
		struct worker_queue *q = w->sets[WORKER_ACTIVE][i];

		did |= serve_active(w, q);
		i += w->nr[WORKER_ACTIVE] > i && w->sets[WORKER_ACTIVE][i] == q;
	}
	return did;
}

/* Hearing: memory. */

static struct worker_queue *queue_of(struct doorbell_watch *watch)
{
	return (void *)((char *)watch - offsetof(struct worker_queue, watch));
}

static void hear(struct worker *w, struct doorbell_watch *watch)
{
	struct worker_queue *q = queue_of(watch);

	count(&q->counters->doorbells);
	worker_activate(w, q);
}

static void look_at_memory(struct worker *w)
{
	struct doorbell_watch *watch;
	unsigned i = 0;

	while ((watch = doorbell_table_scan(&w->doorbells, &i)))
		hear(w, watch);
	for (i = 0; i < w->nr[WORKER_RINGS]; i++) {
		struct worker_queue *q = w->sets[WORKER_RINGS][i];

		if (!q->parked && bf_virtq_has_work(q->vq))
			worker_activate(w, q);
	}
	for (i = 0; i < w->nr[WORKER_READY]; i++) {
		struct worker_queue *q = w->sets[WORKER_READY][i];

		if (!q->at[WORKER_ACTIVE] && q->ops->ready(q))
			worker_activate(w, q);
	}
}

/* Hearing: descriptors. */

static void take_kick(struct worker *w, struct worker_queue *q, uint32_t events)
{
	if (events & EPOLLIN)
		bf_virtq_drain_kick(q->vq);
	/* A descriptor that the peer has made useless must not keep the thread busy. */
	if (events & (EPOLLERR | EPOLLHUP)) {
		log_warn("queue %u: the kick descriptor is dead; the queue is stopped until its "
			 "next start",
			 bf_virtq_queue(q->vq));
		worker_break_queue(w, q);
	}
	worker_activate(w, q);
}

static void drain_wake(struct worker *w)
{
	uint64_t value;

	if (read(w->wake_fd, &value, sizeof(value)) < 0)
		return; /* nothing there */
}

static void take_event(struct worker *w, const struct epoll_event *event, bool slept)
{
	/* The lowest bit says which of the queue's descriptors it is: watch_fd(). */
	struct worker_queue *q = (void *)(uintptr_t)(event->data.u64 & ~1ull);

	if (!q) {
		drain_wake(w);
		return;
	}
	if (slept)
		count(&q->wakeups);
	if (event->data.u64 & 1)
		worker_activate(w, q);
	else
		take_kick(w, q, event->events);
}

static void look_at_fds(struct worker *w, int timeout_ms)
{
	struct epoll_event events[NR_EVENTS];
	int i, nr = epoll_wait(w->epoll_fd, events, NR_EVENTS, timeout_ms);

	for (i = 0; i < nr; i++)
		take_event(w, &events[i], timeout_ms < 0);
}

/* Resting. */

/* Have the sources of all queues speak up. False: one has something already. */
static bool arm_sources(struct worker *w)
{
	while (w->nr[WORKER_UNARMED]) {
		struct worker_queue *q = w->sets[WORKER_UNARMED][0];

		worker_set_remove(w, WORKER_UNARMED, q);
		if (!q->ops->arm(q))
			continue;
		worker_activate(w, q);
		return false;
	}
	return true;
}

/* Partner: worker_wake(). */
static void sleep_once(struct worker *w)
{
	atomic_store(&w->sleeping, true);
	if (!atomic_load(&w->poked) && !atomic_load(&w->command))
		look_at_fds(w, -1);
	atomic_store(&w->sleeping, false);
}

static void spin_once(struct worker *w)
{
	struct doorbell_watch *watch;
	unsigned place = 0;

	if (!spin_wait(&w->spin))
		return;
	while ((watch = doorbell_table_scan_others(&w->doorbells, &place)))
		hear(w, watch);
	look_at_fds(w, 0);
}

static void rest(struct worker *w)
{
	if (w->nr_spinning)
		spin_once(w);
	else if (w->nr[WORKER_ACTIVE])
		spin_pause();
	else if (arm_sources(w))
		sleep_once(w);
}

/* A worker with one queue finds all there is by serving it. */
static void worked(struct worker *w)
{
	spin_worked(&w->spin);
	if (w->nr[WORKER_ALL] > 1 && ++w->busy_rounds % BUSY_LOOK_ROUNDS == 0)
		look_at_fds(w, 0);
}

void *worker_thread(void *worker)
{
	struct worker *w = worker;

	for (;;) {
		worker_take_posted(w);
		if (w->ending)
			return NULL;
		if (w->nr_spinning)
			look_at_memory(w);
		if (serve_all(w))
			worked(w);
		else
			rest(w);
	}
}
