/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A device in a process of its own: every request's readable bytes come back reversed in its
 * writable ones. It is what belfry-blk is without an image: a bf_backend on the main thread, a thread
 * for each queue, doorbell pages.
 *
 * The process that started it reads what it did in memory that both have mapped.
 */
#ifndef TESTS_INTEGRATION_ECHO_DEVICE_H
#define TESTS_INTEGRATION_ECHO_DEVICE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define ECHO_MAPPINGS "memfd:belfry-"

struct echo_config {
	unsigned nr_queues;
	bool doorbell;   /* publish each queue's page when it starts */
	bool staggered;  /* listen where a driver with stagger_doorbells rings, and nowhere else */
	bool suppress;   /* ask the driver not to ring while the thread works */
	bool idle;       /* take the queues, and do nothing with them */
	unsigned cycles; /* register, replace, withdraw the doorbell of queue 0 so often */
	uint64_t not_protocol_features; /* do not offer these */
};

/* Written by the device's process. */
struct echo_report {
	atomic_ulong requests;
	atomic_ulong doorbells;                   /* seen in a page */
	atomic_ulong kicks;                       /* times the kick eventfd had something */
	atomic_uint cycles;                       /* done */
	atomic_uint mapped, refused;              /* answers for doorbells */
	atomic_int end_error;                     /* what the connection ended with */
	atomic_int nr_left_fds, nr_left_mappings; /* at the end, more than at the beginning */
	char failure[256];                        /* "" or what went wrong */
};

struct echo_device {
	pid_t pid;
	int fd; /* the driver's end of the main channel; bf_driver_new() takes it: set to -1 then */
	struct echo_report *report;
};

/* Make the process. Fails the test when it cannot. */
void echo_device_start(struct echo_device *dev, const struct echo_config *config);
/*
 * Wait for the process to end by itself, at most 20 s, and free. 0 it ended well; the signal that
 * killed it; -1 anything else. The report is copied to *@last unless NULL.
 */
int echo_device_end(struct echo_device *dev, struct echo_report *last);

/* The device itself, as the process runs it. @fd: connected socket, owned. 0 it ended well. */
int echo_device_serve(const struct echo_config *config, int fd, struct echo_report *report);

#endif
