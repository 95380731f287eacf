/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a back-end program says to people: whole lines on stderr, any thread.
 *
 * Nothing a guest can provoke again and again may be logged again and again: who calls for such a
 * thing says it once. Not for standard output, which belongs to --help and --print-capabilities.
 */
#ifndef COMMON_LOG_H
#define COMMON_LOG_H

#include <belfry/log.h>

/* Once, before any thread starts. @program: borrowed for good. */
void log_init(const char *program);
void log_set_level(enum bf_log_level level);

void log_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_info(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_debug(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The library's messages, into the same stream. */
struct bf_log log_sink(void);

#endif
