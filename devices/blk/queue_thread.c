/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The work on a queue: chains become requests, requests go to the I/O engine or are answered, what the
 * engine has finished goes back. On the worker, which alone touches the ring, the slots and the engine
 * between start and stop; control only reads counters. No lock, no allocation, and no system call but I/O
 * and call, of which there is one a batch.
 *
 * When to do it is the worker's business (devices/common/worker_thread.c).
 */
#include <linux/virtio_blk.h>
#include <poll.h>
#include <sched.h>

#include "devices/common/log.h"
#include "queue_thread.h"

static struct blk_queue *from_worker(struct worker_queue *wq)
{
	return (struct blk_queue *)wq;
}

static void push_done(struct blk_queue *q)
{
	if (q->nr_done)
		bf_virtq_push_batch(q->wq.vq, q->done, q->nr_done);
	q->nr_done = 0;
}

static void give(struct blk_queue *q, uint16_t head, uint32_t len)
{
	q->done[q->nr_done++] = (struct bf_done){ .head = head, .len = len };
	if (q->nr_done == BATCH)
		push_done(q);
}

/* A chain that cannot even be answered: given back with nothing written. */
static void return_bad(struct blk_queue *q, const struct bf_chain *chain)
{
	uint64_t *errors = &q->wq.counters->errors;

	__atomic_store_n(errors, *errors + 1, __ATOMIC_RELAXED);
	if (!q->bad_said)
		log_warn("queue %u: a request without room for header or status "
			 "(%llu bytes to read, %llu to write); more of them are only counted",
			 q->idx, (unsigned long long)chain->out_len,
			 (unsigned long long)chain->in_len);
	q->bad_said = true;
	give(q, chain->head, 0);
}

static void answer(struct blk_queue *q, uint16_t head, const struct blk_request *req,
		   uint8_t status, uint32_t read_len)
{
	give(q, head, blk_request_answer(req, status, read_len));
}

static void start_io(struct blk_queue *q, struct slot *slot, struct iovec *pieces)
{
	slot->io = (struct blk_io_req){
		.op = slot->req.op,
		.durable = q->durable,
		.iov = pieces,
		.nr_iov = slot->req.nr_iov,
		.offset = slot->req.offset,
		.left = slot->req.len,
	};
	blk_io_add(q->io, &slot->io);
	q->in_flight++;
}

static void begin(struct blk_queue *q, const struct bf_chain *chain)
{
	struct slot *slot = &q->slots[chain->head];
	/* The pieces of its data cannot be more than those of the chain. */
	bool near = chain->nr_out + chain->nr_in <= SLOT_NEAR_PIECES + 1;
	struct iovec *pieces = near ? slot->near : q->far[chain->head].iov;

	slot->head = chain->head;
	if (blk_request_parse(q->env->disk, chain, pieces, near ? SLOT_NEAR_PIECES : SLOT_PIECES,
			      &slot->req))
		return_bad(q, chain);
	else if (slot->req.op == BLK_OP_NONE)
		answer(q, chain->head, &slot->req, slot->req.status, 0);
	else
		start_io(q, slot, pieces);
}

/* The next batch into chains. How many; a broken ring has none. */
static unsigned pop(struct blk_queue *q)
{
	int nr;

	if (q->wq.broken)
		return 0;
	nr = bf_virtq_pop_batch(q->wq.vq, q->chains, BATCH, q->chain_pieces, CHAIN_PIECES);
	return nr > 0 ? (unsigned)nr : 0;
}

/* Start new requests. Returns how many. */
static unsigned take(struct blk_queue *q)
{
	unsigned nr = pop(q), i;

	for (i = 0; i < nr; i++)
		begin(q, &q->chains[i]);
	return nr;
}

/* Take what the engine has finished. Returns how many. */
static unsigned give_back(struct blk_queue *q)
{
	struct blk_io_req *io = blk_io_reap(q->io);
	unsigned nr = 0;

	while (io) {
		struct blk_io_req *next = io->next;
		struct slot *slot = (struct slot *)io;

		answer(q, slot->head, &slot->req, io->result ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK,
		       io->op == BLK_OP_READ ? io->done : 0);
		q->in_flight--;
		nr++;
		io = next;
	}
	return nr;
}

static void notify(struct blk_queue *q)
{
	push_done(q);
	worker_notify(&q->wq);
}

static bool serve(struct worker_queue *wq)
{
	struct blk_queue *q = from_worker(wq);
	unsigned nr = give_back(q);

	nr += take(q);
	if (!blk_io_submit(q->io)) {
		sched_yield();
		nr++; /* not idle: to be tried again */
	}
	/* What was cached is finished by now, and goes out with the same notification. */
	nr += give_back(q);
	if (nr)
		notify(q);
	wq->source_quiet = !q->in_flight;
	return nr > 0;
}

static bool arm(struct worker_queue *wq)
{
	return blk_io_arm(from_worker(wq)->io);
}

static bool ready(struct worker_queue *wq)
{
	return blk_io_ready(from_worker(wq)->io);
}

/* Everything in range succeeds at once, and the data of reads is left as it was. */
static bool serve_null(struct worker_queue *wq)
{
	struct blk_queue *q = from_worker(wq);
	unsigned nr = pop(q), i;
	struct blk_request req;

	for (i = 0; i < nr; i++) {
		if (blk_request_check(q->env->disk, &q->chains[i], &req))
			return_bad(q, &q->chains[i]);
		else
			answer(q, q->chains[i].head, &req, req.status,
			       req.op == BLK_OP_READ ? req.len : 0);
	}
	if (nr)
		notify(q);
	return nr > 0;
}

/* Nothing popped may be lost: wait for the engine, and give all of it back. */
void blk_queue_finish(struct worker_queue *wq)
{
	struct blk_queue *q = from_worker(wq);
	struct pollfd io = { .fd = wq->source_fd, .events = POLLIN };

	while (q->in_flight) {
		bool all = blk_io_submit(q->io);

		if (!give_back(q) && !blk_io_arm(q->io))
			poll(&io, 1, all ? -1 : 1);
	}
	notify(q);
}

const struct worker_ops blk_queue_ops = { .serve = serve, .arm = arm, .ready = ready };
const struct worker_ops blk_null_queue_ops = { .serve = serve_null };
