/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Another back end in the place of one that was lost.
 *
 * While the back end is away there is a thread that tries to connect and shake hands, without the
 * device's lock: a peer that accepts and then says nothing holds up nobody. Each attempt is a front
 * end of its own. One that works takes the old one's place under the lock, on that thread: features,
 * memory, queues from where they stand; then the thread ends. The guest may reset the device, set it
 * up or switch itself off at any moment in between.
 *
 * Where nobody knows how a queue could go on, the driver is told to reset the device
 * (DEVICE_NEEDS_RESET); the connection stays, and serves what the driver sets up then.
 *
 * Lock order: the device's lock, then again.lock, which is held for a moment only. Nobody waits for
 * the thread with the device's lock held, except when it is known to have let go of it.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../base/report.h"
#include "vhost_user_internal.h"

/* Nobody there: look often. A peer that is there but cannot be used: less and less often. */
#define PAUSE_MS     250
#define MAX_PAUSE_MS 4000

#define STACK_SIZE (256u << 10)

int vhost_user_reconnect_init(struct vhost_user_device *device)
{
	if (!device->options.reconnect)
		return 0;
	device->again.stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (device->again.stop_fd >= 0)
		return 0;
	report("%s: cannot make an eventfd: %s", device->name, strerror(errno));
	return -errno;
}

/* Is the driver's choice something this back end can serve? */
static int check_features(struct vhost_user_device *device, const struct bf_frontend *frontend,
			  const struct vhost_user_sentence *why)
{
	const struct vhost_user_kind *kind = device->kind;
	uint64_t own = kind->ops->features ? kind->ops->features(device) : 0;
	uint64_t missing = device->vdev.driver_features & ~kind->kept & ~own &
			   ~bf_frontend_features(frontend);

	if (!missing)
		return 0;
	snprintf(why->text, why->len,
		 "the back end at %s does not offer all features that the driver uses (missing: "
		 "0x%llx); start it with the abilities it had before",
		 device->options.socket, (unsigned long long)missing);
	return -EOPNOTSUPP;
}

static void give_up_rings(struct vhost_user_device *device, const char *text)
{
	report("%s: the back end at %s is there again, but %s. The driver must reset the device",
	       device->name, device->options.socket, text);
	vhost_user_needs_reset(device);
}

/* The queues of a driver that is at work. 0 also if only a reset of the device helps. */
static int resume_queues(struct vhost_user_device *device, const struct vhost_user_sentence *why)
{
	uint32_t *bases = calloc(device->options.nr_queues, sizeof(*bases));
	int err = bases ? vhost_user_position_find(device, bases, why) : -ENOMEM;

	if (!err)
		err = vhost_user_start_queues(device, bases);
	if (err == -EREMOTEIO)
		snprintf(why->text, why->len, "%s", bf_frontend_error(device->frontend));
	if (err == -ESTALE || err == -EREMOTEIO) {
		give_up_rings(device, why->text);
		err = 0;
	}
	free(bases);
	return err;
}

static int resume(struct vhost_user_device *device, const struct vhost_user_sentence *why)
{
	uint64_t features = device->vdev.driver_features;
	int err = vhost_user_refresh_config(device);

	if (!err && !features)
		vhost_user_update_offer(device);
	if (!err && features)
		err = vhost_user_send_features(device, features);
	if (!err && device->state == VHOST_USER_RUNNING)
		err = resume_queues(device, why);
	if (err)
		snprintf(why->text, why->len, "the back end at %s cannot be used: %s",
			 device->options.socket, bf_frontend_error(device->frontend));
	return err;
}

/* What it was told to start it may have served for a moment. */
static void put_back(struct vhost_user_device *device, struct bf_frontend *before)
{
	unsigned i;

	vhost_user_position_note(device);
	device->frontend = before;
	device->memory_announced = false;
	device->has_theirs = false;
	for (i = 0; i < device->options.nr_queues; i++)
		device->queues[i].started = false;
}

static void retire(struct vhost_user_device *device, struct bf_frontend *before)
{
	struct bf_frontend *now = device->frontend;

	device->frontend = before;
	vhost_user_unwatch(device);
	vhost_user_stats_keep(device);
	device->frontend = now;
	bf_frontend_free(before);
}

/* With the device's lock. On failure @frontend is the caller's still. */
static int take_over(struct vhost_user_device *device, struct bf_frontend *frontend,
		     const struct vhost_user_sentence *why)
{
	struct bf_frontend *before = device->frontend;
	int err = check_features(device, frontend, why);

	if (err)
		return err;
	device->frontend = frontend;
	device->connected = true;
	err = resume(device, why);
	if (err) {
		device->connected = false;
		put_back(device, before);
		return err;
	}
	retire(device, before);
	err = vhost_user_watch(device);
	if (err)
		report("%s: cannot watch the connection: %s", device->name, strerror(-err));
	device->again.nr++;
	if (device->state != VHOST_USER_NEEDS_RESET)
		report("%s: the back end at %s is there again", device->name,
		       device->options.socket);
	if (device->kind->ops->connection)
		device->kind->ops->connection(device, true);
	vhost_user_config_interrupt(device);
	return 0;
}

/* From here until _close the attempt on @fd can be interrupted. */
static int attempt_open(struct vhost_user_device *device, int fd)
{
	struct vhost_user_reconnect *again = &device->again;
	int err = 0;

	pthread_mutex_lock(&again->lock);
	if (again->interrupted)
		err = -ECANCELED;
	else
		again->socket_fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (!err && again->socket_fd < 0)
		err = -errno;
	pthread_mutex_unlock(&again->lock);
	return err;
}

/* The duplicate must go: while it is open the peer does not see that we hang up. */
static void attempt_close(struct vhost_user_device *device)
{
	struct vhost_user_reconnect *again = &device->again;

	pthread_mutex_lock(&again->lock);
	if (again->socket_fd >= 0)
		close(again->socket_fd);
	again->socket_fd = -1;
	pthread_mutex_unlock(&again->lock);
}

static int use_socket(struct vhost_user_device *device, int fd,
		      const struct vhost_user_sentence *why)
{
	struct bf_frontend *frontend;
	int err = vhost_user_attach(device, fd, &frontend, why);

	if (err)
		return err;
	pthread_mutex_lock(&device->vdev.lock);
	err = take_over(device, frontend, why);
	if (err)
		bf_frontend_free(frontend);
	pthread_mutex_unlock(&device->vdev.lock);
	return err;
}

/* The same again and again is said once. */
static void say(struct vhost_user_device *device, const char *text)
{
	struct vhost_user_reconnect *again = &device->again;

	if (!strcmp(again->said, text))
		return;
	snprintf(again->said, sizeof(again->said), "%s", text);
	report("%s: %s. Trying on", device->name, text);
}

/* 0; -EAGAIN nobody is there; or why what is there cannot be used. */
static int try_once(struct vhost_user_device *device)
{
	char text[320] = "";
	const struct vhost_user_sentence why = { text, sizeof(text) };
	int fd = vhost_user_open_socket(device, device->again.stop_fd, &why);
	int err;

	if (fd == -ENOENT || fd == -ECONNREFUSED || fd == -ECANCELED)
		return -EAGAIN; /* what was said when it was lost still holds */
	err = fd;
	if (fd >= 0) {
		err = attempt_open(device, fd);
		if (err)
			close(fd);
		else
			err = use_socket(device, fd, &why);
		attempt_close(device);
	}
	if (err && text[0])
		say(device, text);
	return err;
}

static bool stopped_within(struct vhost_user_device *device, int ms)
{
	struct pollfd fd = { .fd = device->again.stop_fd, .events = POLLIN };

	return poll(&fd, 1, ms) > 0;
}

static void *keep_trying(void *opaque)
{
	struct vhost_user_device *device = opaque;
	int pause = PAUSE_MS;
	int err;

	while (!stopped_within(device, pause)) {
		err = try_once(device);
		if (!err)
			break;
		pause = err == -EAGAIN ? PAUSE_MS : pause * 2;
		pause = pause < MAX_PAUSE_MS ? pause : MAX_PAUSE_MS;
	}
	return NULL;
}

static void join(struct vhost_user_device *device)
{
	if (device->again.running)
		pthread_join(device->again.thread, NULL);
	device->again.running = false;
}

void vhost_user_reconnect_begin(struct vhost_user_device *device)
{
	pthread_attr_t attr;
	int err;

	/* The thread of the last time: the connection that it made was watched, so it let go. */
	join(device);
	device->again.said[0] = '\0';
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	err = pthread_create(&device->again.thread, &attr, keep_trying, device);
	pthread_attr_destroy(&attr);
	device->again.running = !err;
	if (!err)
		return;
	report("%s: cannot make a thread to connect again: %s", device->name, strerror(err));
	vhost_user_needs_reset(device);
	device->state = VHOST_USER_FAILED;
}

void vhost_user_device_interrupt(struct vhost_user_device *device)
{
	struct vhost_user_reconnect *again = &device->again;

	pthread_mutex_lock(&again->lock);
	again->interrupted = true;
	if (again->socket_fd >= 0)
		shutdown(again->socket_fd, SHUT_RDWR);
	pthread_mutex_unlock(&again->lock);
}

void vhost_user_reconnect_done(struct vhost_user_device *device)
{
	if (device->again.stop_fd < 0)
		return;
	vhost_user_device_interrupt(device);
	eventfd_write(device->again.stop_fd, 1);
	join(device);
	close(device->again.stop_fd);
	device->again.stop_fd = -1;
}
