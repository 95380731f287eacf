/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The --stats file of back-end programs: JSON, always whole, since it is replaced by rename.
 */
#ifndef COMMON_STATS_H
#define COMMON_STATS_H

#include <stdint.h>

#include <jansson.h>

#include <belfry/virtq.h>

/* How the notifications of a queue come. Lives on control; queue threads read it. */
enum stats_doorbell {
	DOORBELL_OFF,     /* not asked for */
	DOORBELL_PENDING, /* handed to the front end, which has not answered */
	DOORBELL_MAPPED,
	DOORBELL_REFUSED, /* served by eventfd */
};

struct stats_queue {
	unsigned queue;
	struct bf_virtq_counters counters;
	uint64_t wakeups; /* times the queue thread slept and was woken */
	enum stats_doorbell doorbell;
};

/* A new object, or NULL without memory. */
json_t *stats_queue_json(const struct stats_queue *queue);

/* Field by field, while the queue's thread may be counting. */
void stats_counters_read(struct bf_virtq_counters *to, const struct bf_virtq_counters *from);
/* @to += @now - @before */
void stats_counters_add(struct bf_virtq_counters *to, const struct bf_virtq_counters *now,
			const struct bf_virtq_counters *before);

/* Replace the file at @path by @root, whose reference is taken. 0 or negative errno. */
int stats_write(const char *path, json_t *root);

#endif
