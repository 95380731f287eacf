/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The disk as a vhost-user device: config space, features, and the operations of a back end.
 */
#ifndef BLK_DEVICE_H
#define BLK_DEVICE_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include <belfry/backend.h>

#include "devices/common/worker.h"
#include "image.h"
#include "io.h"

struct blk_device;

struct blk_device_config {
	const struct blk_image *image; /* borrowed for the life of the device */
	const char *serial;            /* up to 20 bytes are used */
	unsigned nr_queues;
	unsigned nr_threads;     /* at least 1; more than queues are not made */
	uint16_t queue_size;     /* the most that is accepted */
	enum worker_mode notify; /* DOORBELL: offer a page per queue, and poll it */
	enum blk_io_kind io_kind;
	bool postcopy; /* offer it */
};

/* 0 or negative errno, and then it is said why. Control context, as everything here. */
int blk_device_new(const struct blk_device_config *config, struct blk_device **device);
/* Ends the connection first. NULL is fine. */
void blk_device_free(struct blk_device *device);

struct bf_backend *blk_device_backend(struct blk_device *device);
/* For --stats. A new object, or NULL without memory. */
json_t *blk_device_stats(void *device);

#endif
