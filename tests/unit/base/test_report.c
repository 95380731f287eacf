/* SPDX-License-Identifier: BSD-3-Clause */
/* lib/base/report.c: sentences are kept, lines reach the sink, a noisy peer is limited. */
#include "../support.h"

#include "base/report.h"

struct sink {
	unsigned lines;
	enum bf_log_level last_level;
	char last[256], tag[64];
};

static void write_line(void *opaque, enum bf_log_level level, const char *tag, const char *text)
{
	struct sink *sink = opaque;

	sink->lines++;
	sink->last_level = level;
	snprintf(sink->last, sizeof(sink->last), "%s", text);
	snprintf(sink->tag, sizeof(sink->tag), "%s", tag);
}

static void error_is_kept_and_returned(void **state)
{
	struct bf_report report;

	(void)state;
	bf_report_init(&report, NULL, "frontend", "blk0");
	assert_string_equal(report.error, "");
	assert_int_equal(bf_report_error(&report, -EPROTO, "got %d of %d", 3, 12), -EPROTO);
	assert_string_equal(report.error, "got 3 of 12");
	bf_report_log(&report, BF_LOG_ERROR, "nobody listens");
}

static void level_and_tag(void **state)
{
	struct sink sink = { 0 };
	struct bf_log log = { write_line, &sink, BF_LOG_INFO };
	struct bf_report report;

	(void)state;
	bf_report_init(&report, &log, "vring", "net0/3");
	bf_report_log(&report, BF_LOG_DEBUG, "too quiet");
	assert_int_equal(sink.lines, 0);
	bf_report_log(&report, BF_LOG_INFO, "queue %u", 3u);
	assert_int_equal(sink.lines, 1);
	assert_string_equal(sink.tag, "vring net0/3");
	assert_string_equal(sink.last, "queue 3");
}

static void peer_lines_are_limited(void **state)
{
	struct sink sink = { 0 };
	struct bf_log log = { write_line, &sink, BF_LOG_TRACE };
	struct bf_report report;

	(void)state;
	bf_report_init(&report, &log, "frontend", "x");
	for (int i = 0; i < 100000; i++)
		bf_report_peer(&report, BF_LOG_WARN, "again");
	/* 10 a second, plus one note a second; 100,000 calls take well under 10 s. */
	assert_in_range(sink.lines, 10, 110);
	assert_true(report.suppressed > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(error_is_kept_and_returned),
		cmocka_unit_test(level_and_tag),
		cmocka_unit_test(peer_lines_are_limited),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
