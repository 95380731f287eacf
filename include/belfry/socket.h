/* SPDX-License-Identifier: BSD-3-Clause */
/**
 * belfry/socket.h - AF_UNIX sockets the way vhost-user programs use them: either side may listen.
 */
#ifndef BELFRY_SOCKET_H
#define BELFRY_SOCKET_H

#ifdef __cplusplus
extern "C" {
#endif

/**
 * bf_socket_connect - connect to a listening stream socket. Does not wait for the peer to accept.
 * Returns an fd (close-on-exec, the caller's); -ENAMETOOLONG, -ENOENT nobody made it, -ECONNREFUSED
 * nobody listens, -EAGAIN its backlog is full, or another errno of socket() and connect().
 */
int bf_socket_connect(const char *path);
/**
 * bf_socket_listen - bind and listen. A stale socket file (nobody listens on it any more) is
 * replaced; a live one never is: -EADDRINUSE. -ENOTSOCK when something else is at @path.
 * @mode: permissions of the socket file, e.g. 0600.
 * Returns an fd, the caller's, who also unlinks @path at the end.
 */
int bf_socket_listen(const char *path, unsigned mode);
/** Accept one connection, close-on-exec. Returns an fd, or accept4()'s errno. */
int bf_socket_accept(int listen_fd);

#ifdef __cplusplus
}
#endif
#endif
