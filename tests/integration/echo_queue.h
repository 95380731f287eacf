/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A queue of the echo device: its thread, its two doorbell pages. Start, stop, arm and disarm are
 * called by control. See echo_queue.c.
 */
#ifndef TESTS_INTEGRATION_ECHO_QUEUE_H
#define TESTS_INTEGRATION_ECHO_QUEUE_H

#include <pthread.h>

#include <belfry/virtq.h>

#include "echo_device.h"

#define ECHO_SILENT 0xffffffffu

struct echo_queue {
	struct bf_virtq *vq;
	struct echo_report *report;
	bool suppress;
	bool running;
	pthread_t thread;
	int wake_fd;
	atomic_bool stop;
	_Atomic(atomic_uint *) armed; /* the page that is looked at; NULL: none */
	bool broken;
};

int echo_queue_init(struct echo_queue *q, const struct echo_config *config,
		    struct echo_report *report);
void echo_queue_done(struct echo_queue *q);
int echo_queue_start(struct echo_queue *q, struct bf_virtq *vq);
void echo_queue_stop(struct echo_queue *q);
/* What was stored in @page before goes unheard. */
void echo_queue_arm(struct echo_queue *q, atomic_uint *page);
/* From now on a store into the page goes unheard. */
void echo_queue_disarm(struct echo_queue *q);

#endif
