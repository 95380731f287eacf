/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One virtqueue of the disk, and its place on a worker while it runs.
 *
 * Everything here is for the control context; the work is in queue_thread.c, between start and stop.
 */
#ifndef BLK_QUEUE_H
#define BLK_QUEUE_H

#include <belfry/virtq.h>

#include "devices/common/stats.h"
#include "io.h"
#include "request.h"

/* The most pieces of data in one request: offered as seg_max. */
#define BLK_SEG_MAX 126

/* What all queues of a disk share. Read when a queue starts; the disk never changes. */
struct blk_queue_env {
	const struct blk_disk *disk;
	int image_fd; /* -1: there is none, everything succeeds at once */
	enum blk_io_kind io_kind;
	bool durable_writes; /* the driver cannot flush: a finished write must be stable */
};

struct blk_queue;
struct worker;

/* 0 or -ENOMEM. */
int blk_queue_new(const struct blk_queue_env *env, unsigned idx, struct blk_queue **queue);
/* Not while it runs. NULL is fine. */
void blk_queue_free(struct blk_queue *queue);

/*
 * Have @worker serve @vq. @word: its doorbell's word if there is to be one (DOORBELL_PENDING until told
 * otherwise), or NULL. 0 or negative errno.
 */
int blk_queue_start(struct blk_queue *queue, struct worker *worker, struct bf_virtq *vq,
		    uint32_t *word);
/* Finish what is in flight and take it from the worker. Not running: no effect. */
void blk_queue_stop(struct blk_queue *queue);

/* MAPPED: the doorbell is what the worker watches. Else: the kick eventfd. */
void blk_queue_set_doorbell(struct blk_queue *queue, enum stats_doorbell state);

void blk_queue_stats(const struct blk_queue *queue, struct stats_queue *stats);

#endif
