/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Connecting instead of listening. Control context. Owns the timer; never waits itself, so that
 * signals and the device are served between two tries.
 *
 * The interval doubles from 100 ms to 1 s. It begins anew only after a connection that lasted: a
 * front end that takes connections and drops them at once is met once a second, not in a loop.
 */
#include <errno.h>
#include <string.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <belfry/socket.h>

#include "connector.h"
#include "log.h"

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void set_timer(const struct connector *connector, struct timespec after)
{
	const struct itimerspec when = { .it_value = after };

	/* Fails only for a bad fd or a bad time, and these are neither. */
	timerfd_settime(connector->timer_fd, 0, &when, NULL);
}

static void try_later(struct connector *connector)
{
	unsigned ms = connector->wait_ms;

	set_timer(connector,
		  (struct timespec){ .tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000 });
	connector->wait_ms = ms > CONNECTOR_LAST_MS / 2 ? CONNECTOR_LAST_MS : ms * 2;
}

int connector_open(struct connector *connector, const char *path)
{
	int fd;

	if (strlen(path) >= sizeof(((struct sockaddr_un *)0)->sun_path)) {
		log_error("%s: expected a socket path of at most %zu bytes, found %zu", path,
			  sizeof(((struct sockaddr_un *)0)->sun_path) - 1, strlen(path));
		return -ENAMETOOLONG;
	}
	fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (fd < 0) {
		int ret = -errno;

		log_error("timerfd: %s", strerror(-ret));
		return ret;
	}
	*connector =
		(struct connector){ .path = path, .timer_fd = fd, .wait_ms = CONNECTOR_FIRST_MS };
	set_timer(connector, (struct timespec){ .tv_nsec = 1 });
	return 0;
}

/* A reason is told once; the next one, if it is another, again. */
static void say_why_not(struct connector *connector, int error)
{
	if (error == -ENOENT || error == -EAGAIN)
		error = -ECONNREFUSED; /* for people all of these are: not yet */
	if (error == connector->said)
		return;
	connector->said = error;
	if (error == -ECONNREFUSED)
		log_info("nobody listens on %s yet; trying until somebody does", connector->path);
	else
		log_warn("%s: cannot connect: %s; trying on", connector->path, strerror(-error));
}

int connector_try(struct connector *connector)
{
	uint64_t expirations;
	int fd;

	if (read(connector->timer_fd, &expirations, sizeof(expirations)) < 0)
		return -errno; /* not due */
	fd = bf_socket_connect(connector->path);
	if (fd < 0) {
		say_why_not(connector, fd);
		try_later(connector);
		return fd;
	}
	connector->said = 0;
	connector->connected_at = now_ms();
	return fd;
}

void connector_ended(struct connector *connector)
{
	if (now_ms() - connector->connected_at >= CONNECTOR_LAST_MS)
		connector->wait_ms = CONNECTOR_FIRST_MS;
	try_later(connector);
}

void connector_close(struct connector *connector)
{
	if (connector->timer_fd >= 0)
		close(connector->timer_fd);
	*connector = (struct connector)CONNECTOR_NONE;
}
