/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Drivers for the echo device: a thread for a queue that keeps requests in flight, checks what comes
 * back, and gives up when nothing comes back for too long. Failures are sentences: cmocka's
 * assertions belong to the main thread.
 */
#ifndef TESTS_INTEGRATION_ECHO_DRIVER_H
#define TESTS_INTEGRATION_ECHO_DRIVER_H

#include <pthread.h>

#include <belfry/driver.h>

#include "echo_device.h"

#define ECHO_MAX_LEN 256

struct echo_slot {
	uint8_t *out, *in;
	unsigned len;
	bool busy;
};

struct echo_worker {
	/* Set by the test. */
	struct bf_driver *drv;
	unsigned queue;
	unsigned depth;           /* requests in flight */
	unsigned long nr;         /* requests to do */
	const atomic_uint *until; /* or: go on until this reaches @target */
	unsigned target;
	unsigned patience_ms; /* without a completion: lost */
	bool storm;           /* ring also when there is no reason to */

	pthread_t thread;
	struct echo_slot *slots;
	unsigned in_flight;
	unsigned long added, done;
	uint64_t random;
	int64_t last_ms;
	char failure[256]; /* "" or what went wrong */
	atomic_bool over;
};

/* Control: take buffers from the driver's memory, and start the thread. */
void echo_worker_start(struct echo_worker *w);
/* Dispatch the driver until all of them are over, then join. 0 or the error that dispatch gave. */
int echo_workers_finish(struct bf_driver *drv, struct echo_worker *workers, unsigned nr);

/* One request, checked, from the caller's thread, which is control too. 0 or -ETIMEDOUT, -EBADMSG. */
int echo_once(struct bf_driver *drv, unsigned queue, unsigned timeout_ms);

/* A driver for @dev's socket, or fail the test. */
struct bf_driver *echo_connect(int *fd, struct bf_driver_config config);

/* Dispatch for @ms. The last error. */
int echo_dispatch_for(struct bf_driver *drv, unsigned ms);

#endif
