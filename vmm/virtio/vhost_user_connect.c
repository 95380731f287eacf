/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Making a connection: a socket, a front end on it, and a look at what the back end offers.
 *
 * Runs on the event loop's thread at first, and on the thread of vhost_user_reconnect.c later, there
 * without the device's lock, since a peer may take its time. So it must not touch what the lock
 * guards: it reads the options and the kind, which never change, and makes a front end that nobody
 * else knows yet.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <belfry/socket.h>
#include <linux/virtio_config.h>

#include "../base/report.h"
#include "vhost_user_internal.h"

#define SOCKET_MODE 0600

/* The library's operations; all run with the device's lock held, by whoever called the library. */

static int on_doorbell_map(void *opaque, unsigned queue, void *page)
{
	struct vhost_user_device *device = opaque;

	if (!device->transport)
		return -EAGAIN;
	return device->vdev.transport_ops->doorbell_map(device->vdev.transport, queue, page);
}

static void on_doorbell_unmap(void *opaque, unsigned queue)
{
	struct vhost_user_device *device = opaque;

	if (device->transport)
		device->vdev.transport_ops->doorbell_unmap(device->vdev.transport, queue);
}

static void on_config_changed(void *opaque)
{
	struct vhost_user_device *device = opaque;
	int err = vhost_user_refresh_config(device);

	if (err)
		report_limited(&device->limit, "%s: configuration changed, but not readable: %s",
			       device->name, bf_frontend_error(device->frontend));
	else
		vhost_user_config_interrupt(device);
}

static void on_disconnected(void *opaque, int error)
{
	(void)error;
	vhost_user_lost(opaque);
}

static const struct bf_frontend_ops frontend_ops = {
	.doorbell_map = on_doorbell_map,
	.doorbell_unmap = on_doorbell_unmap,
	.config_changed = on_config_changed,
	.disconnected = on_disconnected,
};

static void on_log(void *opaque, enum bf_log_level level, const char *tag, const char *text)
{
	struct vhost_user_device *device = opaque;

	(void)level;
	report_limited(&device->log_limit, "%s: %s", tag, text);
}

int vhost_user_listen(struct vhost_user_device *device)
{
	const char *path = device->options.socket;

	if (!device->options.server)
		return 0;
	device->listen_fd = bf_socket_listen(path, SOCKET_MODE);
	if (device->listen_fd == -EADDRINUSE)
		report("%s: server=on, but another program listens on %s: end it, or leave out "
		       "server=on to connect to it",
		       device->name, path);
	else if (device->listen_fd == -ENOTSOCK)
		report("%s: %s exists and is no socket: remove it, or give another path",
		       device->name, path);
	else if (device->listen_fd < 0)
		report("%s: cannot listen on %s: %s", device->name, path,
		       strerror(-device->listen_fd));
	else
		report("%s: waiting for the back end to connect to %s", device->name, path);
	return device->listen_fd < 0 ? device->listen_fd : 0;
}

/* Signals come through the event loop, which does not run yet at the first time: let them end us. */
static int wait_for_peer(const struct vhost_user_device *device, int stop_fd)
{
	struct pollfd fds[] = { { .fd = device->listen_fd, .events = POLLIN },
				{ .fd = stop_fd, .events = POLLIN } };
	sigset_t blocked;

	pthread_sigmask(SIG_SETMASK, NULL, &blocked);
	if (stop_fd < 0) {
		sigdelset(&blocked, SIGTERM);
		sigdelset(&blocked, SIGINT);
		sigdelset(&blocked, SIGHUP);
	}
	if (ppoll(fds, 2, NULL, &blocked) < 0)
		return errno == EINTR ? -EAGAIN : -errno;
	return fds[1].revents ? -ECANCELED : 0;
}

static int accept_peer(struct vhost_user_device *device, int stop_fd,
		       const struct vhost_user_sentence *why)
{
	int fd;

	do {
		fd = wait_for_peer(device, stop_fd);
		if (!fd)
			fd = bf_socket_accept(device->listen_fd);
	} while (fd == -EAGAIN || fd == -ECONNABORTED);
	if (fd < 0)
		snprintf(why->text, why->len, "cannot accept a connection at %s: %s",
			 device->options.socket, strerror(-fd));
	return fd;
}

int vhost_user_open_socket(struct vhost_user_device *device, int stop_fd,
			   const struct vhost_user_sentence *why)
{
	const char *path = device->options.socket;
	int fd;

	if (device->options.server)
		return accept_peer(device, stop_fd, why);
	fd = bf_socket_connect(path);
	if (fd == -ENOENT)
		snprintf(why->text, why->len, "there is no socket %s: start the back end first",
			 path);
	else if (fd == -ECONNREFUSED)
		snprintf(why->text, why->len, "nobody listens on %s: start the back end first",
			 path);
	else if (fd < 0)
		snprintf(why->text, why->len, "cannot connect to %s: %s", path, strerror(-fd));
	return fd;
}

/* What the back end offers must be enough for what was asked for. */
static int check_offer(struct vhost_user_device *device, struct bf_frontend *frontend,
		       const struct vhost_user_sentence *why)
{
	const struct vhost_user_options *o = &device->options;
	unsigned has = bf_frontend_max_queues(frontend);

	if (!bf_has(bf_frontend_features(frontend), VIRTIO_F_VERSION_1)) {
		snprintf(why->text, why->len,
			 "the back end at %s does not offer VIRTIO_F_VERSION_1; only modern devices "
			 "are supported",
			 o->socket);
		return -EPROTONOSUPPORT;
	}
	if (o->nr_queues > has) {
		snprintf(why->text, why->len,
			 "%u queues asked for, but the back end at %s has %u: ask for at most that "
			 "many with %s=",
			 o->nr_queues, o->socket, has, device->kind->queues_key);
		return -EINVAL;
	}
	return 0;
}

static int make_frontend(struct vhost_user_device *device, struct bf_frontend **frontend)
{
	struct bf_frontend_config config = {
		.ops = &frontend_ops,
		.opaque = device,
		.name = device->name,
		.protocol_features = bf_frontend_supported_protocol_features(),
		.log = { .write = on_log, .opaque = device, .level = BF_LOG_WARN },
	};

	if (!device->options.doorbells)
		config.protocol_features &= ~bf_bit(BF_PROTOCOL_F_HOST_NOTIFIER);
	return bf_frontend_new(&config, frontend);
}

int vhost_user_attach(struct vhost_user_device *device, int fd, struct bf_frontend **out,
		      const struct vhost_user_sentence *why)
{
	struct bf_frontend *frontend;
	int err = make_frontend(device, &frontend);

	if (err) {
		snprintf(why->text, why->len, "cannot make a front end: %s", strerror(-err));
		close(fd);
		return err;
	}
	err = bf_frontend_attach(frontend, fd);
	if (err)
		snprintf(why->text, why->len, "the back end at %s cannot be used: %s",
			 device->options.socket, bf_frontend_error(frontend));
	else
		err = check_offer(device, frontend, why);
	if (err) {
		bf_frontend_free(frontend);
		return err;
	}
	*out = frontend;
	return 0;
}
