/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Life of a queue: memory, start, stop, statistics. Control context. While it runs, all that may be
 * touched here is counters, for reading.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "devices/common/log.h"
#include "queue_thread.h"

int blk_queue_new(const struct blk_queue_env *env, unsigned idx, struct blk_queue **queue)
{
	struct blk_queue *q = calloc(1, sizeof(*q));

	if (!q)
		return -ENOMEM;
	q->env = env;
	q->idx = idx;
	*queue = q;
	return 0;
}

static void free_slots(struct blk_queue *q)
{
	free(q->slots);
	free(q->far);
	q->slots = NULL;
	q->far = NULL;
	q->nr_slots = 0;
}

void blk_queue_free(struct blk_queue *q)
{
	if (!q)
		return;
	free(q->chain_pieces);
	free_slots(q);
	free(q);
}

/* Kept from run to run; @nr is the ring's size and may grow. Zeroed memory that is not used costs none. */
static int allocate(struct blk_queue *q, unsigned nr)
{
	if (!q->chain_pieces)
		q->chain_pieces = calloc(CHAIN_PIECES, sizeof(*q->chain_pieces));
	if (!q->chain_pieces)
		return -ENOMEM;
	if (q->env->image_fd < 0 || nr <= q->nr_slots)
		return 0;
	free_slots(q);
	q->slots = calloc(nr, sizeof(*q->slots));
	q->far = calloc(nr, sizeof(*q->far));
	if (!q->slots || !q->far) {
		free_slots(q);
		return -ENOMEM;
	}
	q->nr_slots = nr;
	return 0;
}

static void prepare(struct blk_queue *q, struct bf_virtq *vq, uint32_t *word)
{
	q->wq.vq = vq;
	q->wq.word = word;
	q->wq.ops = q->io ? &blk_queue_ops : &blk_null_queue_ops;
	q->wq.source_fd = q->io ? blk_io_fd(q->io) : -1;
	q->in_flight = 0;
	q->nr_done = 0;
	q->bad_said = false;
	q->durable = q->env->durable_writes;
	stats_counters_read(&q->at_start, bf_virtq_counters(vq));
}

static int open_engine(struct blk_queue *q, unsigned depth)
{
	if (q->env->image_fd < 0)
		return 0;
	return blk_io_new(q->env->io_kind, q->env->image_fd, depth, &q->io);
}

int blk_queue_start(struct blk_queue *q, struct worker *worker, struct bf_virtq *vq, uint32_t *word)
{
	unsigned size = bf_virtq_size(vq);
	int ret = allocate(q, size);

	if (!ret)
		ret = open_engine(q, size);
	if (ret)
		goto err_said;
	prepare(q, vq, word);
	ret = worker_add(worker, &q->wq);
	if (ret)
		goto err_io;
	q->running = true;
	log_debug("queue %u: started, %u entries, I/O by %s", q->idx, size,
		  q->io ? blk_io_name(q->io) : "nobody");
	return 0;

err_io:
	blk_io_free(q->io);
	q->io = NULL;
	q->wq.vq = NULL;
err_said:
	log_error("queue %u: cannot be started: %s", q->idx, strerror(-ret));
	return ret;
}

void blk_queue_stop(struct blk_queue *q)
{
	struct bf_virtq_counters now;

	if (!q->running)
		return;
	worker_remove(&q->wq, blk_queue_finish);
	q->running = false;
	stats_counters_read(&now, bf_virtq_counters(q->wq.vq));
	stats_counters_add(&q->total, &now, &q->at_start);
	blk_io_free(q->io);
	q->io = NULL;
	q->wq.vq = NULL;
	log_debug("queue %u: stopped", q->idx);
}

void blk_queue_set_doorbell(struct blk_queue *q, enum stats_doorbell state)
{
	worker_set_doorbell(&q->wq, state);
}

void blk_queue_stats(const struct blk_queue *q, struct stats_queue *stats)
{
	struct bf_virtq_counters now;

	*stats = (struct stats_queue){
		.queue = q->idx,
		.counters = q->total,
		.wakeups = __atomic_load_n(&q->wq.wakeups, __ATOMIC_RELAXED),
		.doorbell = (enum stats_doorbell)atomic_load(&q->wq.doorbell),
	};
	if (!q->running)
		return;
	stats_counters_read(&now, bf_virtq_counters(q->wq.vq));
	stats_counters_add(&stats->counters, &now, &q->at_start);
}
