/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Telling whoever started us that we listen.
 */
#ifndef COMMON_READY_H
#define COMMON_READY_H

/* 0, or negative errno: @fd is not an open, writable descriptor. */
int ready_check_fd(int fd);
/*
 * Write "1\n" to @fd and close it (-1: none), and tell systemd (NOTIFY_SOCKET), if it asks.
 * Nobody waiting any more is no failure.
 */
void ready_announce(int fd);

/* The one listening socket that systemd passed, -ENOENT if it passed none, -E2BIG if several. */
int ready_inherited_socket(void);

#endif
