/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Where a back end's connections come from with --client: a path that somebody else listens on, or
 * will. It is tried again and again, at growing intervals, and a timer says when.
 */
#ifndef COMMON_CONNECTOR_H
#define COMMON_CONNECTOR_H

#include <stdbool.h>
#include <stdint.h>

#define CONNECTOR_FIRST_MS 100
#define CONNECTOR_LAST_MS  1000

struct connector {
	const char *path;     /* borrowed */
	int timer_fd;         /* to poll: readable when it is time for connector_try() */
	unsigned wait_ms;     /* how long after the next failure */
	int64_t connected_at; /* ms of CLOCK_MONOTONIC */
	int said;             /* the error that was told last; 0: none since the last connection */
};

#define CONNECTOR_NONE         \
	{                      \
		.timer_fd = -1 \
	}

static inline bool connector_is_open(const struct connector *connector)
{
	return connector->timer_fd >= 0;
}

/* The first try is due at once. 0 or negative errno, and then it is said why. */
int connector_open(struct connector *connector, const char *path);
/*
 * timer_fd is readable. A connected fd, the caller's, and no more tries until connector_ended(); or
 * negative errno: it is said why, once, and the next try is set.
 */
int connector_try(struct connector *connector);
/* The connection has ended, or could not be used: begin again. */
void connector_ended(struct connector *connector);
/* Of opened or NONE; leaves NONE. */
void connector_close(struct connector *connector);

#endif
