/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Readiness and socket activation: the two protocols of systemd (sd_notify(3), sd_listen_fds(3)),
 * by hand, and a pipe for everybody else. Control context, at start.
 */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "log.h"
#include "ready.h"

#define LISTEN_FDS_START 3

int ready_check_fd(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0)
		return -errno;
	return (flags & O_ACCMODE) == O_RDONLY ? -EBADF : 0;
}

static int notify_service_manager(const char *path, const char *text)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	size_t len = strlen(path);
	socklen_t address_len;
	int fd, ret = 0;

	if (len < 2 || len >= sizeof(address.sun_path) || (*path != '/' && *path != '@'))
		return -EINVAL;
	memcpy(address.sun_path, path, len);
	if (*path == '@') /* abstract: the length says where the name ends */
		address.sun_path[0] = '\0';
	address_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (sendto(fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *)&address, address_len) <
	    0)
		ret = -errno;
	close(fd);
	return ret;
}

void ready_announce(int fd)
{
	const char *path = getenv("NOTIFY_SOCKET");
	int ret;

	if (path) {
		ret = notify_service_manager(path, "READY=1");
		if (ret)
			log_warn("NOTIFY_SOCKET=%s: %s; readiness not told", path, strerror(-ret));
	}
	if (fd < 0)
		return;
	if (write(fd, "1\n", 2) != 2)
		log_warn("--ready-fd=%d: %s; readiness not told", fd, strerror(errno));
	close(fd);
}

int ready_inherited_socket(void)
{
	const char *pid = getenv("LISTEN_PID"), *nr = getenv("LISTEN_FDS");

	/* Meant for another process, e.g. for the shell that started us. */
	if (!pid || !nr || strtol(pid, NULL, 10) != getpid())
		return -ENOENT;
	if (!strcmp(nr, "0"))
		return -ENOENT;
	return strcmp(nr, "1") ? -E2BIG : LISTEN_FDS_START;
}
