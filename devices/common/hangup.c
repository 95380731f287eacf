/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Waiting for a connection to end, on a thread of its own. It sleeps until then, reads nothing, and must
 * not touch guest memory: it is there to help those who wait for that.
 */
#include "hangup.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

static void *watch(void *opaque)
{
	const struct hangup *hangup = opaque;
	struct pollfd fds[2] = {
		{ .fd = hangup->stop_fd, .events = POLLIN },
		{ .fd = hangup->fd, .events = POLLRDHUP },
	};

	while (poll(fds, 2, -1) < 0 && errno == EINTR)
		;
	if (!fds[0].revents)
		hangup->gone(hangup->opaque);
	return NULL;
}

static void close_both(struct hangup *hangup)
{
	if (hangup->fd >= 0)
		close(hangup->fd);
	if (hangup->stop_fd >= 0)
		close(hangup->stop_fd);
	hangup->fd = hangup->stop_fd = -1;
}

int hangup_start(struct hangup *hangup, int fd, void (*gone)(void *opaque), void *opaque)
{
	int ret;

	hangup->gone = gone;
	hangup->opaque = opaque;
	/* Another number for it: the library closes its own, which may soon be something else. */
	hangup->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (hangup->fd < 0)
		return -errno;
	hangup->stop_fd = eventfd(0, EFD_CLOEXEC);
	ret = hangup->stop_fd < 0 ? errno : 0;
	if (!ret)
		ret = pthread_create(&hangup->thread, NULL, watch, hangup);
	if (ret)
		close_both(hangup);
	hangup->running = !ret;
	return -ret;
}

void hangup_stop(struct hangup *hangup)
{
	const uint64_t one = 1;

	if (!hangup->running)
		return;
	while (write(hangup->stop_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
	pthread_join(hangup->thread, NULL);
	close_both(hangup);
	hangup->running = false;
}
