/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Messages that a guest or a back end can cause any number of times: at most REPORT_BURST lines
 * per limit in REPORT_INTERVAL_NS, so that neither can fill a disk with a log. Any thread.
 */
#ifndef VMM_REPORT_LIMIT_H
#define VMM_REPORT_LIMIT_H

#include <stdint.h>

#define REPORT_BURST       5
#define REPORT_INTERVAL_NS 10000000000ull

/* Zero-initialised, one per object that can be the cause. */
struct report_limit {
	uint64_t since_ns; /* begin of the current interval; 0: none yet */
	unsigned nr;       /* lines printed in it */
	unsigned dropped;  /* left out since the last line */
};

void report_limited(struct report_limit *limit, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

#endif
