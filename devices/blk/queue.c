/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Life of a queue: memory, start, stop, statistics. Control context. While the thread runs, all
 * that may be touched here is `stop`, `doorbell`, the wake eventfd, and counters for reading.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "devices/common/log.h"
#include "queue_thread.h"

int blk_queue_new(const struct blk_queue_env *env, unsigned idx, struct blk_queue **queue)
{
	struct blk_queue *q = calloc(1, sizeof(*q));
	int ret;

	if (!q)
		return -ENOMEM;
	q->env = env;
	q->idx = idx;
	q->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (q->wake_fd < 0) {
		ret = -errno;
		free(q);
		return ret;
	}
	*queue = q;
	return 0;
}

void blk_queue_free(struct blk_queue *q)
{
	if (!q)
		return;
	close(q->wake_fd);
	free(q->chain_pieces);
	free(q->slots);
	free(q);
}

/* Kept from run to run; @nr is the ring's size and may grow. */
static int allocate(struct blk_queue *q, unsigned nr)
{
	if (!q->chain_pieces)
		q->chain_pieces = calloc(CHAIN_PIECES, sizeof(*q->chain_pieces));
	if (nr > q->nr_slots) {
		free(q->slots);
		q->slots = calloc(nr, sizeof(*q->slots));
		q->nr_slots = q->slots ? nr : 0;
	}
	return q->chain_pieces && q->slots ? 0 : -ENOMEM;
}

static void prepare(struct blk_queue *q, struct bf_virtq *vq, uint32_t *word)
{
	q->vq = vq;
	q->counters = bf_virtq_counters(vq);
	q->word = word;
	q->in_flight = 0;
	q->broken = false;
	q->bad_said = false;
	q->spins = false;
	q->notified = true; /* a start is a kick: look without waiting for one */
	q->durable = q->env->durable_writes;
	q->fds[FD_KICK] = (struct pollfd){ .fd = bf_virtq_kick_fd(vq), .events = POLLIN };
	q->fds[FD_IO] = (struct pollfd){ .fd = blk_io_fd(q->io), .events = POLLIN };
	q->fds[FD_WAKE] = (struct pollfd){ .fd = q->wake_fd, .events = POLLIN };
	atomic_store(&q->stop, false);
	atomic_store(&q->doorbell, word ? DOORBELL_PENDING : DOORBELL_OFF);
	stats_counters_read(&q->at_start, q->counters);
}

static void name_thread(const struct blk_queue *q)
{
	char name[16];

	snprintf(name, sizeof(name), "queue %u", q->idx);
	pthread_setname_np(q->thread, name);
}

int blk_queue_start(struct blk_queue *q, struct bf_virtq *vq, uint32_t *word)
{
	unsigned size = bf_virtq_size(vq);
	int ret = allocate(q, size);

	if (!ret)
		ret = blk_io_new(q->env->io_kind, q->env->image_fd, size, &q->io);
	if (ret)
		goto err_said;
	prepare(q, vq, word);
	ret = -pthread_create(&q->thread, NULL, blk_queue_thread, q);
	if (ret)
		goto err_io;
	name_thread(q);
	q->running = true;
	log_debug("queue %u: started, %u entries, I/O by %s", q->idx, size, blk_io_name(q->io));
	return 0;

err_io:
	blk_io_free(q->io);
	q->io = NULL;
	q->vq = NULL;
err_said:
	log_error("queue %u: cannot be started: %s", q->idx, strerror(-ret));
	return ret;
}

static void wake(const struct blk_queue *q)
{
	uint64_t one = 1;

	if (write(q->wake_fd, &one, sizeof(one)) < 0)
		return; /* full: it is awake anyway */
}

void blk_queue_stop(struct blk_queue *q)
{
	struct bf_virtq_counters now;

	if (!q->running)
		return;
	atomic_store(&q->stop, true);
	wake(q);
	pthread_join(q->thread, NULL);
	blk_queue_drain_wake(q);
	q->running = false;
	stats_counters_read(&now, q->counters);
	stats_counters_add(&q->total, &now, &q->at_start);
	blk_io_free(q->io);
	q->io = NULL;
	q->vq = NULL;
	q->counters = NULL;
	log_debug("queue %u: stopped", q->idx);
}

void blk_queue_set_doorbell(struct blk_queue *q, enum stats_doorbell state)
{
	atomic_store(&q->doorbell, (int)state);
	if (q->running)
		wake(q);
}

enum stats_doorbell blk_queue_doorbell(const struct blk_queue *q)
{
	return (enum stats_doorbell)atomic_load(&q->doorbell);
}

void blk_queue_stats(const struct blk_queue *q, struct stats_queue *stats)
{
	struct bf_virtq_counters now;

	*stats = (struct stats_queue){
		.queue = q->idx,
		.counters = q->total,
		.wakeups = __atomic_load_n(&q->wakeups, __ATOMIC_RELAXED),
		.doorbell = blk_queue_doorbell(q),
	};
	if (!q->running)
		return;
	stats_counters_read(&now, q->counters);
	stats_counters_add(&stats->counters, &now, &q->at_start);
}
