/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The queue thread. It alone touches the ring, the request slots and the I/O engine between start
 * and stop; control only sets `stop` and `doorbell`, and reads counters. No lock, no allocation,
 * and no system call but I/O, kick and call.
 *
 * Sleeping. The thread asks for kicks, looks at the ring and at the engine once more, and then
 * polls: kick eventfd, engine, and an eventfd of control's. Both orders of "driver publishes, then
 * looks whether we want kicks" and "we want kicks, then look at the ring" end with one of us seeing
 * the other; the barriers are in bf_virtq_want_kicks() and in the driver.
 *
 * Spinning. With a doorbell page mapped, the thread watches the page instead, and looks at the ring
 * only when it was rung, like hardware. It never asks the driver to be silent: with event index the
 * driver rings only when the index we published is passed, so wanting kicks is renewed each time
 * the ring was found empty, with one more look at the ring for what came in between. The kick
 * eventfd is drained all the same, now and then: the front end may take the page away without
 * asking, and kicks come there from then on.
 *
 * A ring that the driver broke is left alone until the next start; the thread then waits for that.
 */
#include <errno.h>
#include <linux/virtio_blk.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

#include "devices/common/doorbell.h"
#include "devices/common/log.h"
#include "queue_thread.h"

/* Requests between two looks at completions, so that neither side starves. */
#define BATCH 64

/* Written here only; control may read it at any moment. */
static void count(uint64_t *counter)
{
	__atomic_store_n(counter, *counter + 1, __ATOMIC_RELAXED);
}

static bool spinning(const struct blk_queue *q)
{
	/* Without a kick eventfd the protocol asks for polling of the ring. */
	return !q->broken &&
	       (q->fds[FD_KICK].fd < 0 ||
		atomic_load_explicit(&q->doorbell, memory_order_acquire) == DOORBELL_MAPPED);
}

static bool stopping(const struct blk_queue *q)
{
	return atomic_load_explicit(&q->stop, memory_order_acquire);
}

static void answer(struct blk_queue *q, struct slot *slot, uint8_t status)
{
	uint32_t read_len = slot->req.op == BLK_OP_READ ? slot->io.done : 0;

	bf_virtq_push(q->vq, slot->head, blk_request_answer(&slot->req, status, read_len));
}

static void start_io(struct blk_queue *q, struct slot *slot)
{
	slot->io = (struct blk_io_req){
		.op = slot->req.op,
		.durable = q->durable,
		.iov = slot->pieces,
		.nr_iov = slot->req.nr_iov,
		.offset = slot->req.offset,
		.left = slot->req.len,
	};
	blk_io_add(q->io, &slot->io);
	q->in_flight++;
}

/* A chain that cannot even be answered: given back with nothing written. */
static void return_bad(struct blk_queue *q, const struct bf_chain *chain)
{
	count(&q->counters->errors);
	if (!q->bad_said)
		log_warn("queue %u: a request without room for header or status "
			 "(%llu bytes to read, %llu to write); more of them are only counted",
			 q->idx, (unsigned long long)chain->out_len,
			 (unsigned long long)chain->in_len);
	q->bad_said = true;
	bf_virtq_push(q->vq, chain->head, 0);
}

static void begin(struct blk_queue *q, const struct bf_chain *chain)
{
	struct slot *slot = &q->slots[chain->head];

	slot->head = chain->head;
	if (blk_request_parse(q->env->disk, chain, slot->pieces, SLOT_PIECES, &slot->req))
		return_bad(q, chain);
	else if (slot->req.op == BLK_OP_NONE)
		answer(q, slot, slot->req.status);
	else
		start_io(q, slot);
}

/* Start new requests. Returns how many. */
static unsigned take(struct blk_queue *q)
{
	struct bf_chain chain;
	const char *reason;
	unsigned nr;
	int ret = 0;

	if (q->broken)
		return 0;
	for (nr = 0; nr < BATCH; nr++) {
		chain.iov = q->chain_pieces;
		chain.nr_iov = CHAIN_PIECES;
		ret = bf_virtq_pop(q->vq, &chain);
		if (ret <= 0)
			break;
		begin(q, &chain);
	}
	if (ret < 0) {
		q->broken = true;
		bf_virtq_broken(q->vq, &reason);
		log_warn(
			"queue %u: the driver broke the ring: %s; it is served again after a reset",
			q->idx, reason ? reason : strerror(-ret));
	}
	return nr;
}

/* Give back what the engine has finished. Returns how many. */
static unsigned give_back(struct blk_queue *q)
{
	struct blk_io_req *io = blk_io_reap(q->io);
	unsigned nr = 0;

	while (io) {
		struct blk_io_req *next = io->next;

		answer(q, (struct slot *)io, io->result ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK);
		q->in_flight--;
		nr++;
		io = next;
	}
	return nr;
}

/* New requests, if there may be any. Once the ring is empty, the driver must ring for the next. */
static unsigned look(struct blk_queue *q)
{
	unsigned nr;

	if (!q->notified)
		return 0;
	nr = take(q);
	if (q->spins && nr < BATCH)
		q->notified = !q->broken && bf_virtq_want_kicks(q->vq, true);
	return nr;
}

/* One round. False: there was nothing to do. */
static bool serve(struct blk_queue *q)
{
	unsigned nr = give_back(q);

	nr += look(q);
	if (!blk_io_submit(q->io)) {
		sched_yield();
		nr++; /* not idle: to be tried again */
	}
	/* What was cached is finished by now, and goes out with the same notification. */
	nr += give_back(q);
	if (nr)
		bf_virtq_notify(q->vq);
	return nr > 0;
}

void blk_queue_drain_wake(struct blk_queue *q)
{
	uint64_t count;

	if (read(q->wake_fd, &count, sizeof(count)) < 0)
		return; /* nothing there */
}

/* A kick "eventfd" that the peer has made useless must not keep the thread busy. */
static void check_kick_fd(struct blk_queue *q)
{
	if (!(q->fds[FD_KICK].revents & (POLLERR | POLLHUP | POLLNVAL)))
		return;
	log_warn("queue %u: the kick descriptor is dead; the queue is stopped until its next start",
		 q->idx);
	q->broken = true;
	q->fds[FD_KICK].fd = -1;
}

/* Wait for something to happen. */
static void sleep_once(struct blk_queue *q)
{
	if (poll(q->fds, NR_FDS, 0) <= 0) {
		if (poll(q->fds, NR_FDS, -1) <= 0)
			return;
		count(&q->wakeups);
	}
	if (q->fds[FD_KICK].revents & POLLIN)
		bf_virtq_drain_kick(q->vq);
	check_kick_fd(q);
	if (q->fds[FD_WAKE].revents)
		blk_queue_drain_wake(q);
}

static void idle_asleep(struct blk_queue *q)
{
	if (!q->broken && bf_virtq_want_kicks(q->vq, true))
		return;
	if (blk_io_arm(q->io))
		return;
	sleep_once(q);
	if (!q->broken)
		bf_virtq_want_kicks(q->vq, false);
}

/* Silence the doorbell if it was rung, and count that. The ring is looked at afterwards. */
static bool hear(struct blk_queue *q)
{
	if (!q->word || !doorbell_take(q->word))
		return false;
	q->notified = true;
	count(&q->counters->doorbells);
	return true;
}

/* Without a kick eventfd the driver notifies nobody: its index is all there is to watch. */
static bool ring_changed(struct blk_queue *q)
{
	if (q->fds[FD_KICK].fd >= 0 || !bf_virtq_has_work(q->vq))
		return false;
	q->notified = true;
	return true;
}

/*
 * Watch memory until something happens. Returns at the latest after a look at the kick eventfd, so
 * that the caller sees `stop` and a change of `doorbell`.
 */
static void idle_spinning(struct blk_queue *q)
{
	do {
		if (q->notified || hear(q) || ring_changed(q) || blk_io_ready(q->io)) {
			spin_worked(&q->spin);
			return;
		}
	} while (!spin_wait(&q->spin));
	if (q->fds[FD_KICK].fd >= 0 && bf_virtq_drain_kick(q->vq)) {
		q->notified = true;
		spin_worked(&q->spin);
	}
}

/* The doorbell came or went. What was rung for on the other way may still be in the ring. */
static void change_way(struct blk_queue *q)
{
	q->spins = !q->spins;
	q->notified = true;
	if (q->spins)
		spin_begin(&q->spin);
	else
		spin_end(&q->spin);
}

/* Nothing popped may be lost: wait for the engine, and give all of it back. */
static void finish_in_flight(struct blk_queue *q)
{
	struct pollfd io = { .fd = blk_io_fd(q->io), .events = POLLIN };

	while (q->in_flight) {
		bool all = blk_io_submit(q->io);

		if (!give_back(q) && !blk_io_arm(q->io))
			poll(&io, 1, all ? -1 : 1);
	}
	bf_virtq_notify(q->vq);
}

void *blk_queue_thread(void *arg)
{
	struct blk_queue *q = arg;

	while (!stopping(q)) {
		if (spinning(q) != q->spins)
			change_way(q);
		if (q->spins)
			hear(q);
		if (serve(q))
			continue;
		if (q->spins)
			idle_spinning(q);
		else
			idle_asleep(q);
	}
	if (q->spins)
		spin_end(&q->spin);
	finish_in_flight(q);
	return NULL;
}
