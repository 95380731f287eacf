/* SPDX-License-Identifier: BSD-3-Clause */
/* Messages of the library: sentences kept on an object, lines to the caller's sink. */
#include "report.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>

#define PEER_LINES_PER_SECOND 10

void bf_report_init(struct bf_report *report, const struct bf_log *log, const char *kind,
		    const char *name)
{
	*report = (struct bf_report){ 0 };
	if (log)
		report->log = *log;
	snprintf(report->tag, sizeof(report->tag), "%s %s", kind, name ? name : "");
}

int bf_report_error(struct bf_report *report, int error, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(report->error, sizeof(report->error), format, args);
	va_end(args);
	return error;
}

static bool wanted(const struct bf_report *report, enum bf_log_level level)
{
	return report->log.write && level <= report->log.level;
}

static void write_line(struct bf_report *report, enum bf_log_level level, const char *format,
		       va_list args) __attribute__((format(printf, 3, 0)));

static void write_line(struct bf_report *report, enum bf_log_level level, const char *format,
		       va_list args)
{
	char text[512];

	vsnprintf(text, sizeof(text), format, args);
	report->log.write(report->log.opaque, level, report->tag, text);
}

void bf_report_log(struct bf_report *report, enum bf_log_level level, const char *format, ...)
{
	va_list args;

	if (!wanted(report, level))
		return;
	va_start(args, format);
	write_line(report, level, format, args);
	va_end(args);
}

static bool within_limit(struct bf_report *report)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	if (now.tv_sec != report->second) {
		unsigned missed = report->suppressed;

		report->second = now.tv_sec;
		report->lines = 0;
		report->suppressed = 0;
		if (missed)
			bf_report_log(report, BF_LOG_WARN, "%u more lines like these were left out",
				      missed);
	}
	if (report->lines < PEER_LINES_PER_SECOND) {
		report->lines++;
		return true;
	}
	report->suppressed++;
	return false;
}

void bf_report_peer(struct bf_report *report, enum bf_log_level level, const char *format, ...)
{
	va_list args;

	if (!wanted(report, level) || !within_limit(report))
		return;
	va_start(args, format);
	write_line(report, level, format, args);
	va_end(args);
}
