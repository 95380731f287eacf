/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sits between a front end and a back end, on both channels, on a thread of its own. Passes every
 * message on, whole; counts; and lets the test say something of its own in either side's name.
 */
#ifndef TESTS_INTEGRATION_PROXY_H
#define TESTS_INTEGRATION_PROXY_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <belfry/protocol.h>

#define PROXY_MAX_FDS 16

struct proxy_message {
	struct proxy_message *next;
	struct bf_header hdr;
	unsigned nr_fds;
	int fds[PROXY_MAX_FDS];
	uint8_t payload[8192];
};

struct proxy {
	/*
	 * Keep what the front end says until it has been quiet for this long, then pass on all of it: one
	 * round trip, however many messages. 0: pass on at once.
	 */
	unsigned hold_ms;

	int front, back;           /* main channel: to the front end, to the back end */
	int back_front, back_back; /* back-end channel, likewise; -1: there is none yet */
	int wake_fd;
	struct proxy_message *held, **held_tail;
	pthread_t thread;
	pthread_mutex_t lock;
	bool stop;
	atomic_uint nr_messages, nr_rounds;
	atomic_uint nr_back_messages;
};

/* @back_fd: to the back end, owned. Returns the fd for the front end. hold_ms is set before. */
int proxy_start(struct proxy *proxy, int back_fd);
void proxy_stop(struct proxy *proxy);

/* In whose name, and so to whom. */
enum proxy_as { AS_FRONT_END, AS_BACK_END };
/*
 * Send a message on the channel where @as asks: header, payload of any length, descriptors.
 */
void proxy_say(struct proxy *proxy, enum proxy_as as, struct bf_header hdr, const void *payload,
	       unsigned len, const int *fds, unsigned nr_fds);
/*
 * The answer to it, between proxy_hold() and proxy_release(), in which nothing is passed on. An
 * acknowledgement's value, or -EAGAIN none within @timeout_ms, -ECONNRESET closed.
 */
int64_t proxy_answer(struct proxy *proxy, enum proxy_as as, unsigned timeout_ms);
void proxy_hold(struct proxy *proxy);
void proxy_release(struct proxy *proxy);

#endif
