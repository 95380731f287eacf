/* SPDX-License-Identifier: BSD-3-Clause */
/* File descriptors: closing, duplicating, eventfds. Any context. */
#include "fd.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

void bf_fd_close(int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		close(*fd);
	*fd = -1;
	errno = saved;
}

int bf_fd_dup(int fd)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);

	return copy < 0 ? -errno : copy;
}

int bf_fd_set_nonblocking(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return -errno;
	return 0;
}

void bf_eventfd_signal(int fd)
{
	const uint64_t one = 1;

	if (fd < 0)
		return;
	while (write(fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

uint64_t bf_eventfd_drain(int fd)
{
	uint64_t count;
	const struct iovec iov = { &count, sizeof(count) };
	ssize_t got;

	if (fd < 0)
		return 0;
	do
		got = preadv2(fd, &iov, 1, -1, RWF_NOWAIT);
	while (got < 0 && errno == EINTR);
	return got == sizeof(count) ? count : 0;
}
