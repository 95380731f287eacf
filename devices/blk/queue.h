/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One virtqueue of the disk and the thread that serves it while it runs.
 *
 * Everything here is for the control context; the thread lives in queue_thread.c, between start and stop.
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
	int image_fd;
	enum blk_io_kind io_kind;
	bool durable_writes; /* the driver cannot flush: a finished write must be stable */
};

struct blk_queue;

/* 0 or -ENOMEM, or errno of eventfd(). */
int blk_queue_new(const struct blk_queue_env *env, unsigned idx, struct blk_queue **queue);
/* Not while it runs. NULL is fine. */
void blk_queue_free(struct blk_queue *queue);

/*
 * Start the thread on @vq. @word: its doorbell's word if there is to be one (DOORBELL_PENDING until
 * told otherwise), or NULL. 0 or negative errno.
 */
int blk_queue_start(struct blk_queue *queue, struct bf_virtq *vq, uint32_t *word);
/* Finish what is in flight and end the thread. Not running: no effect. */
void blk_queue_stop(struct blk_queue *queue);

/* MAPPED: the doorbell is watched and the thread does not sleep. Else: it sleeps on the kick. */
void blk_queue_set_doorbell(struct blk_queue *queue, enum stats_doorbell state);
enum stats_doorbell blk_queue_doorbell(const struct blk_queue *queue);

void blk_queue_stats(const struct blk_queue *queue, struct stats_queue *stats);

#endif
