/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The life of a back-end program: everything that does not depend on the kind of device.
 *
 *	program_start()           first thing in main(): signals, log
 *	options_parse()           with the groups of program_options() and its own
 *	program_check()           do the common options make sense together?
 *	... open what it serves, bf_backend_new() ...
 *	program_run()             listen or connect, say so, serve, clean up
 */
#ifndef COMMON_PROGRAM_H
#define COMMON_PROGRAM_H

#include <stdbool.h>

#include <jansson.h>

#include <belfry/backend.h>

#include "options.h"

struct program_options {
	const char *socket_path;
	int fd;
	int socket_mode;
	bool client; /* connect to socket_path instead of listening there */
	bool one_off;
	int ready_fd;
	const char *stats;
	int log_level;
};

#define PROGRAM_OPTIONS_DEFAULT                                                         \
	{                                                                               \
		.fd = -1, .socket_mode = 0600, .ready_fd = -1, .log_level = BF_LOG_INFO \
	}

#define PROGRAM_NR_OPTIONS 8

/* Fill in the options that all back ends have; they write to @opt. */
void program_options(struct program_options *opt, struct option_spec specs[PROGRAM_NR_OPTIONS]);

/* --socket-path may be given more than once: into @sockets, instead of program_options.socket_path. */
void program_options_several(struct option_spec specs[PROGRAM_NR_OPTIONS],
			     struct option_list *sockets);

/* No thread may exist yet: they inherit the signal mask. */
void program_start(const char *name);
/* 0 or the exit status, and then it is said why. */
int program_check(const struct program_options *opt);

/* A back end, and where its connections come from. */
struct program_seat {
	const char *socket_path;
	struct bf_backend *be;
};

#define PROGRAM_MAX_SEATS OPTION_LIST_MAX

struct program {
	const struct program_options *opt;
	struct bf_backend *be; /* at opt's socket */
	/* Others, served at the same time by the same rules; below PROGRAM_MAX_SEATS. */
	const struct program_seat *more;
	unsigned nr_more;
	/* A new object for --stats, or NULL without memory. Control context. */
	json_t *(*stats)(void *opaque);
	/*
	 * Events of the device itself; NULL: none. Called on the control context whenever device_fd
	 * (borrowed; -1: none yet) is readable, also while no front end is connected, and must make
	 * it unreadable. False: the device is asked for by its owner, serving ends as with SIGTERM
	 * and with the same status, 0. It may detach, which is a failed connection like one that
	 * broke the protocol, and may neither attach nor dispatch. For both it has said why.
	 */
	bool (*device_event)(void *opaque);
	int device_fd;
	/* PAGEFAULT is offered: the end of a connection has to be seen while control waits for memory. */
	bool postcopy;
	void *opaque;
};

/*
 * Serve until SIGTERM or SIGINT, the end of an only connection, or the word of device_event. The
 * exit status. The end of each connection is told by the back end's own operations: vring_stop for
 * all, and disconnected unless it is we who end.
 */
int program_run(const struct program *program);

#endif
