/* SPDX-License-Identifier: BSD-3-Clause */
/* File descriptors have one owner; a slot that owns none holds -1. */
#ifndef BASE_FD_H
#define BASE_FD_H

#include <stdint.h>

/* Close *@fd if it is one, and leave -1. Keeps errno. */
void bf_fd_close(int *fd);
/* Give up ownership: returns *@fd and leaves -1. */
static inline int bf_fd_take(int *fd)
{
	int taken = *fd;

	*fd = -1;
	return taken;
}
/* Duplicate, close-on-exec. The new fd or negative errno. */
int bf_fd_dup(int fd);
/* Make non-blocking. 0 or negative errno. */
int bf_fd_set_nonblocking(int fd);

/* Signal an eventfd once; a full counter is as good as a signal. -1 is passed over. */
void bf_eventfd_signal(int fd);
/*
 * Empty an eventfd: the sum of its signals, 0 if none or not readable. Never blocks, not even when a
 * peer that shares it has taken O_NONBLOCK away.
 */
uint64_t bf_eventfd_drain(int fd);

#endif
