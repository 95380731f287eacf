/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The rate limit in front of report(). Any thread; holds its lock for the bookkeeping only, never
 * while it writes.
 */
#include "report_limit.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <time.h>

#include "report.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

static bool allows(struct report_limit *limit, unsigned *dropped)
{
	uint64_t now = now_ns();
	bool allowed;

	pthread_mutex_lock(&lock);
	*dropped = 0;
	if (!limit->since_ns || now - limit->since_ns >= REPORT_INTERVAL_NS) {
		limit->since_ns = now;
		limit->nr = 0;
	}
	allowed = limit->nr < REPORT_BURST;
	if (allowed) {
		limit->nr++;
		*dropped = limit->dropped;
		limit->dropped = 0;
	} else {
		limit->dropped++;
	}
	pthread_mutex_unlock(&lock);
	return allowed;
}

void report_limited(struct report_limit *limit, const char *fmt, ...)
{
	unsigned dropped;
	char line[512];
	va_list args;

	if (!allows(limit, &dropped))
		return;
	va_start(args, fmt);
	vsnprintf(line, sizeof(line), fmt, args);
	va_end(args);
	if (dropped)
		report("%s (%u similar messages left out)", line, dropped);
	else
		report("%s", line);
}
