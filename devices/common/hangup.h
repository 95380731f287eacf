/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A thread that waits for the front end to go away, for programs whose control context can be held up
 * by it: with --postcopy whoever touches guest memory waits until the front end has put it there.
 *
 * Control context. At most one connection at a time.
 */
#ifndef COMMON_HANGUP_H
#define COMMON_HANGUP_H

#include <pthread.h>
#include <stdbool.h>

struct hangup {
	bool running;
	pthread_t thread;
	int fd;      /* the connection once more */
	int stop_fd; /* eventfd */
	void (*gone)(void *opaque);
	void *opaque;
};

#define HANGUP_NONE                     \
	{                               \
		.fd = -1, .stop_fd = -1 \
	}

/* @fd: borrowed. @gone: on the thread, once, unless stopped before. 0 or negative errno. */
int hangup_start(struct hangup *hangup, int fd, void (*gone)(void *opaque), void *opaque);
/* When it returns, gone is not running and will not. Idempotent. */
void hangup_stop(struct hangup *hangup);

#endif
