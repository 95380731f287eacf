/* SPDX-License-Identifier: BSD-3-Clause */
/**
 * belfry/log.h - where the library's messages go. Silent unless the caller gives a sink.
 */
#ifndef BELFRY_LOG_H
#define BELFRY_LOG_H

#ifdef __cplusplus
extern "C" {
#endif

enum bf_log_level {
	BF_LOG_ERROR,
	BF_LOG_WARN,
	BF_LOG_INFO,
	BF_LOG_DEBUG,
	BF_LOG_TRACE,
};

/**
 * A sink, copied into the object that is made with it.
 * @write: may be NULL. Runs on the context of the object; must not call back into the library.
 *         @tag is subsystem and object ("vring blk0/3"), @text one line without newline; both
 *         borrowed for the call.
 * @level: nothing less urgent is formatted.
 * What a peer causes is rate-limited to 10 lines a second per object.
 */
struct bf_log {
	void (*write)(void *opaque, enum bf_log_level level, const char *tag, const char *text);
	void *opaque;
	enum bf_log_level level;
};

#ifdef __cplusplus
}
#endif
#endif
