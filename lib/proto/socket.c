/* SPDX-License-Identifier: BSD-3-Clause */
/* AF_UNIX stream sockets: connect, listen, accept. Any context. */
#include <belfry/socket.h>

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "../base/fd.h"

static int make_address(const char *path, struct sockaddr_un *address)
{
	size_t len = strlen(path);

	if (len == 0)
		return -ENOENT;
	if (len >= sizeof(address->sun_path))
		return -ENAMETOOLONG;
	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	memcpy(address->sun_path, path, len);
	return 0;
}

int bf_socket_connect(const char *path)
{
	struct sockaddr_un address;
	int ret = make_address(path, &address);
	int fd;

	if (ret < 0)
		return ret;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		ret = -errno;
		bf_fd_close(&fd);
		return ret;
	}
	return fd;
}

/* 0: nobody listens and the file is gone; or why it must stay. */
static int remove_stale(const char *path)
{
	struct stat st;
	int fd;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -ENOTSOCK;
	fd = bf_socket_connect(path);
	if (fd >= 0) {
		bf_fd_close(&fd);
		return -EADDRINUSE;
	}
	if (fd == -EAGAIN) /* its backlog is full: very much alive */
		return -EADDRINUSE;
	if (fd != -ECONNREFUSED)
		return fd == -ENOENT ? 0 : fd;
	if (unlink(path) < 0 && errno != ENOENT)
		return -errno;
	return 0;
}

int bf_socket_listen(const char *path, unsigned mode)
{
	struct sockaddr_un address;
	int ret = make_address(path, &address);
	int fd;

	if (ret < 0)
		return ret;
	ret = remove_stale(path);
	if (ret < 0)
		return ret;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	/* Linux gives the socket file the mode of the fd: no moment in which it is open to others. */
	if (fchmod(fd, mode) < 0 ||
	    bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		ret = -errno;
		goto close_fd;
	}
	if (chmod(path, mode) < 0 || listen(fd, 16) < 0) {
		ret = -errno;
		goto unlink_path;
	}
	return fd;

unlink_path:
	unlink(path);
close_fd:
	bf_fd_close(&fd);
	return ret;
}

int bf_socket_accept(int listen_fd)
{
	int fd;

	do
		fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	while (fd < 0 && errno == EINTR);
	return fd < 0 ? -errno : fd;
}
