/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What an object says to people: its last error as a sentence, and lines to the caller's sink.
 *
 * An error is returned with its sentence kept here, or logged; not both. Lines caused by a peer are
 * limited to 10 a second. Belongs to the context of the object it is part of.
 */
#ifndef BASE_REPORT_H
#define BASE_REPORT_H

#include <time.h>

#include <belfry/log.h>

struct bf_report {
	struct bf_log log;
	char tag[48];
	char error[256];
	time_t second;        /* of the rate limit */
	unsigned lines;       /* in that second */
	unsigned suppressed;
};

/* @kind and @name make the tag: "frontend blk0". @log may be NULL: silent. */
void bf_report_init(struct bf_report *report, const struct bf_log *log, const char *kind,
		    const char *name);
/* Keep a sentence; returns @error, so that `return bf_report_error(...)` reads well. */
int bf_report_error(struct bf_report *report, int error, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
void bf_report_log(struct bf_report *report, enum bf_log_level level, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* For what a peer or a guest causes: rate-limited. */
void bf_report_peer(struct bf_report *report, enum bf_log_level level, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

#endif
