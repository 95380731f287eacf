/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Where a back end's connections come from: a path to listen on, or a socket it was given.
 */
#ifndef COMMON_LISTENER_H
#define COMMON_LISTENER_H

#include <sys/types.h>

struct listener {
	int listen_fd;    /* -1: there will be no other connection */
	int connected_fd; /* given connected; -1 otherwise, or taken */
	const char *path; /* bound by us, to be unlinked; NULL otherwise */
	dev_t dev;        /* the socket file that we bound */
	ino_t ino;
};

#define LISTENER_NONE                               \
	{                                           \
		.listen_fd = -1, .connected_fd = -1 \
	}

/* Listen at @path (borrowed), whose file gets @mode. 0 or negative errno, and then it is said why.
 */
int listener_open_path(struct listener *listener, const char *path, unsigned mode);
/*
 * Take over a socket of AF_UNIX, SOCK_STREAM. Whether it listens or is connected decides how it
 * is used. @origin: for messages, e.g. "--fd=5". 0 or negative errno, and then it is said why.
 */
int listener_open_fd(struct listener *listener, int fd, const char *origin);
/* Close, and unlink what is ours. Of opened or NONE; leaves NONE. */
void listener_close(struct listener *listener);

#endif
