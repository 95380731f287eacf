/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sockets of back-end programs. Control context. Owns the listening socket and the file it is bound
 * to. Some programs take --fd for a listening socket and some for a connected one; the socket
 * itself knows (SO_ACCEPTCONN), so nobody has to.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <belfry/socket.h>

#include "listener.h"
#include "log.h"

/* A client that is gone before it is accepted must not leave us waiting in accept(). */
static int set_flags(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) || fcntl(fd, F_SETFD, FD_CLOEXEC))
		return -errno;
	return 0;
}

static void say_why_not(const char *path, int error)
{
	if (error == -EADDRINUSE)
		log_error("%s: somebody is listening there already; stop it or choose another path",
			  path);
	else if (error == -ENOTSOCK)
		log_error("%s: expected a free path or an old socket, found something else; "
			  "it is left alone, choose another path",
			  path);
	else if (error == -ENAMETOOLONG)
		log_error("%s: expected a socket path of at most 107 bytes, found %zu", path,
			  strlen(path));
	else
		log_error("%s: cannot listen: %s", path, strerror(-error));
}

int listener_open_path(struct listener *listener, const char *path, unsigned mode)
{
	struct stat st = { 0 };
	int fd = bf_socket_listen(path, mode);
	int ret = fd < 0 ? fd : set_flags(fd);

	if (!ret && lstat(path, &st))
		ret = -errno;
	if (ret) {
		if (fd >= 0)
			close(fd);
		say_why_not(path, ret);
		return ret;
	}
	*listener = (struct listener){ .listen_fd = fd,
				       .connected_fd = -1,
				       .path = path,
				       .dev = st.st_dev,
				       .ino = st.st_ino };
	return 0;
}

static int socket_option(int fd, int option, int *value)
{
	socklen_t len = sizeof(*value);

	return getsockopt(fd, SOL_SOCKET, option, value, &len) ? -errno : 0;
}

static int check_socket(int fd, const char *origin)
{
	int domain = -1, type = -1, ret;

	ret = socket_option(fd, SO_DOMAIN, &domain);
	if (!ret)
		ret = socket_option(fd, SO_TYPE, &type);
	if (ret) {
		log_error("%s: expected an open UNIX stream socket, found %s", origin,
			  ret == -EBADF ? "no open descriptor" : "no socket");
		return ret;
	}
	if (domain != AF_UNIX || type != SOCK_STREAM) {
		log_error("%s: expected a UNIX stream socket, found a socket of another kind",
			  origin);
		return -EPROTOTYPE;
	}
	return 0;
}

static int check_connected(int fd, const char *origin)
{
	struct sockaddr_storage peer;
	socklen_t len = sizeof(peer);

	if (!getpeername(fd, (struct sockaddr *)&peer, &len))
		return 0;
	log_error("%s: expected a socket that listens or is connected, found one that does neither",
		  origin);
	return -ENOTCONN;
}

int listener_open_fd(struct listener *listener, int fd, const char *origin)
{
	int listens = 0, ret;

	ret = check_socket(fd, origin);
	if (ret)
		return ret;
	ret = socket_option(fd, SO_ACCEPTCONN, &listens);
	if (!ret && !listens)
		ret = check_connected(fd, origin);
	if (!ret)
		ret = set_flags(fd);
	if (ret)
		return ret;
	*listener = (struct listener){ .listen_fd = listens ? fd : -1,
				       .connected_fd = listens ? -1 : fd };
	return 0;
}

void listener_close(struct listener *listener)
{
	struct stat st;

	/* Another program may have put its own socket there since. */
	if (listener->path && !lstat(listener->path, &st) && st.st_dev == listener->dev &&
	    st.st_ino == listener->ino)
		unlink(listener->path);
	if (listener->listen_fd >= 0)
		close(listener->listen_fd);
	if (listener->connected_fd >= 0)
		close(listener->connected_fd);
	*listener = (struct listener)LISTENER_NONE;
}
