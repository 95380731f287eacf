/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Log lines of back-end programs. Owns stderr; any thread. A line is one write(), so that lines of
 * several threads do not mix. Under systemd a line carries its priority as "<N>".
 */
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log.h"

static struct {
	const char *program;
	enum bf_log_level level;
	bool journal;
} logger = { .program = "belfry", .level = BF_LOG_INFO };

/* JOURNAL_STREAM is "device:inode" of the journal's stream; inherited by children that redirect. */
static bool stderr_is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long dev, ino;
	struct stat st;

	if (!stream || sscanf(stream, "%llu:%llu", &dev, &ino) != 2 || fstat(STDERR_FILENO, &st))
		return false;
	return st.st_dev == dev && st.st_ino == ino;
}

void log_init(const char *program)
{
	logger.program = program;
	logger.journal = stderr_is_journal();
}

void log_set_level(enum bf_log_level level)
{
	logger.level = level;
}

static void put_line(enum bf_log_level level, const char *tag, const char *text)
{
	static const char *const words[] = { "", "warning: ", "", "debug: ", "trace: " };
	static const int priorities[] = { 3, 4, 6, 7, 7 };
	char line[1024], prefix[8] = "";
	int saved = errno, len;

	if (logger.journal)
		snprintf(prefix, sizeof(prefix), "<%d>", priorities[level]);
	len = snprintf(line, sizeof(line), "%s%s: %s%s%s%s\n", prefix, logger.program, words[level],
		       tag, *tag ? ": " : "", text);
	if (len >= (int)sizeof(line)) {
		len = sizeof(line) - 1;
		line[len - 1] = '\n';
	}
	/* Nobody is left to tell if stderr cannot be written. */
	if (len > 0 && write(STDERR_FILENO, line, len) < 0)
		errno = saved;
	errno = saved;
}

static __attribute__((format(printf, 2, 0))) void log_format(enum bf_log_level level,
							     const char *format, va_list args)
{
	char text[900];

	if (level > logger.level)
		return;
	vsnprintf(text, sizeof(text), format, args);
	put_line(level, "", text);
}

#define DEFINE_LOG(name, level)                  \
	void name(const char *format, ...)       \
	{                                        \
		va_list args;                    \
                                                 \
		va_start(args, format);          \
		log_format(level, format, args); \
		va_end(args);                    \
	}

DEFINE_LOG(log_error, BF_LOG_ERROR)
DEFINE_LOG(log_warn, BF_LOG_WARN)
DEFINE_LOG(log_info, BF_LOG_INFO)
DEFINE_LOG(log_debug, BF_LOG_DEBUG)

static void write_sink(void *opaque, enum bf_log_level level, const char *tag, const char *text)
{
	(void)opaque;
	if (level <= BF_LOG_TRACE && level <= logger.level)
		put_line(level, tag, text);
}

struct bf_log log_sink(void)
{
	return (struct bf_log){ .write = write_sink, .level = logger.level };
}
