/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The life of a vhost-user device: made, offered to the guest, its back end lost, freed.
 *
 * _new and _free run on the event loop's thread; the connection's events come on the loop and take
 * the device's lock first. How a connection is made is in vhost_user_connect.c, how another is found
 * in vhost_user_reconnect.c, what the guest asks in vhost_user_queues.c.
 */
#include "vhost_user_device.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <linux/virtio_config.h>

#include "../base/report.h"
#include "vhost_user_internal.h"

void vhost_user_rebuild_config(struct vhost_user_device *device)
{
	device->kind->ops->config(device, device->has_theirs ? device->theirs : NULL,
				  device->config);
}

void vhost_user_config_interrupt(struct vhost_user_device *device)
{
	if (device->transport)
		device->vdev.transport_ops->config_changed(device->vdev.transport);
}

int vhost_user_refresh_config(struct vhost_user_device *device)
{
	const struct vhost_user_kind *kind = device->kind;
	uint8_t theirs[VHOST_USER_MAX_CONFIG];
	int err;

	if (kind->needs_config || bf_has(bf_frontend_protocol_features(device->frontend),
					 BF_PROTOCOL_F_CONFIG)) {
		err = bf_frontend_get_config(device->frontend, 0, theirs, kind->config_asked);
		if (err)
			return err;
		memcpy(device->theirs, theirs, kind->config_asked);
		device->has_theirs = true;
	}
	vhost_user_rebuild_config(device);
	return 0;
}

void vhost_user_update_offer(struct vhost_user_device *device)
{
	const struct vhost_user_kind *kind = device->kind;

	device->vdev.features = bf_frontend_features(device->frontend) &
				(kind->features | virtio_pci_features());
	if (kind->ops->features)
		device->vdev.features |= kind->ops->features(device);
}

void vhost_user_needs_reset(struct vhost_user_device *device)
{
	device->state = VHOST_USER_NEEDS_RESET;
	if (device->transport)
		device->vdev.transport_ops->needs_reset(device->vdev.transport);
}

static void on_readable(void *opaque, uint32_t events)
{
	struct vhost_user_device *device = opaque;

	(void)events;
	pthread_mutex_lock(&device->vdev.lock);
	bf_frontend_dispatch(device->frontend);
	pthread_mutex_unlock(&device->vdev.lock);
}

int vhost_user_watch(struct vhost_user_device *device)
{
	int err = event_loop_add(device->loop, bf_frontend_fd(device->frontend), EPOLLIN,
				 on_readable, device);

	device->watched = !err;
	return err;
}

void vhost_user_unwatch(struct vhost_user_device *device)
{
	if (device->watched)
		event_loop_del(device->loop, bf_frontend_fd(device->frontend));
	device->watched = false;
}

static void say_lost(struct vhost_user_device *device)
{
	report("%s: lost the back end at %s: %s. %s", device->name, device->options.socket,
	       bf_frontend_error(device->frontend),
	       !device->options.reconnect ? "The guest must do without this device" :
	       device->options.server     ? "Waiting for one to connect" :
					    "Trying to connect again");
}

void vhost_user_lost(struct vhost_user_device *device)
{
	unsigned i;

	say_lost(device);
	vhost_user_position_note(device);
	device->connected = false;
	device->memory_announced = false;
	device->has_theirs = false;
	for (i = 0; i < device->options.nr_queues; i++)
		device->queues[i].started = false;
	if (!device->options.reconnect) {
		vhost_user_needs_reset(device);
		device->state = VHOST_USER_FAILED;
	}
	if (device->kind->ops->connection)
		device->kind->ops->connection(device, false);
	if (device->options.reconnect)
		vhost_user_reconnect_begin(device);
}

static void init_virtio(struct vhost_user_device *device)
{
	struct virtio_device *vdev = &device->vdev;
	unsigned i;

	vdev->ops = &vhost_user_virtio_ops;
	vdev->name = device->name;
	vdev->device_id = device->kind->device_id;
	vdev->pci_class = device->kind->pci_class;
	vdev->config_size = device->kind->config_size;
	for (i = 0; i < vdev->nr_queues; i++)
		vdev->queues[i].max_size = (uint16_t)device->options.queue_size;
	vhost_user_update_offer(device);
}

static void init_lock(pthread_mutex_t *lock)
{
	pthread_mutexattr_t attr;

	pthread_mutexattr_init(&attr);
	pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(lock, &attr);
	pthread_mutexattr_destroy(&attr);
}

static struct vhost_user_device *allocate(const struct vhost_user_kind *kind,
					  const struct vhost_user_options *options)
{
	struct vhost_user_device *device = calloc(1, sizeof(*device));
	unsigned nr;

	if (!device)
		return NULL;
	init_lock(&device->vdev.lock);
	pthread_mutex_init(&device->again.lock, NULL);
	device->listen_fd = device->again.stop_fd = device->again.socket_fd = -1;
	device->kind = kind;
	device->options = *options;
	nr = options->nr_queues + kind->nr_own_queues;
	device->vdev.nr_queues = nr;
	device->vdev.queues = calloc(nr, sizeof(*device->vdev.queues));
	device->queues = calloc(options->nr_queues, sizeof(*device->queues));
	if (!device->vdev.queues || !device->queues) {
		vhost_user_device_free(device);
		return NULL;
	}
	return device;
}

/* The first connection. */
static int connect_first(struct vhost_user_device *device)
{
	char text[320] = "";
	const struct vhost_user_sentence why = { text, sizeof(text) };
	int fd, err = vhost_user_listen(device);

	if (err)
		return err;
	fd = vhost_user_open_socket(device, -1, &why);
	err = fd < 0 ? fd : vhost_user_attach(device, fd, &device->frontend, &why);
	if (err)
		report("%s: %s", device->name, text);
	device->connected = !err;
	return err;
}

static int make_model(struct vhost_user_device *device)
{
	const struct vhost_user_kind_ops *ops = device->kind->ops;
	int err = ops->create ? ops->create(device) : 0;

	if (err) {
		report("%s: cannot be made: %s", device->name, strerror(-err));
		return err;
	}
	err = vhost_user_refresh_config(device);
	if (err)
		report("%s: the back end at %s does not give its configuration space: %s",
		       device->name, device->options.socket, bf_frontend_error(device->frontend));
	return err;
}

static int put_on_bus(struct vhost_user_device *device, struct pci_bus *bus)
{
	int err;

	init_virtio(device);
	err = virtio_pci_new(device->vm, bus, &device->vdev, &device->transport);
	if (err) {
		report("%s: cannot be put on the PCI bus: %s", device->name, strerror(-err));
		return err;
	}
	err = vhost_user_watch(device);
	if (err)
		report("%s: cannot watch the connection: %s", device->name, strerror(-err));
	return err;
}

int vhost_user_device_new(struct vm *vm, struct pci_bus *bus, struct event_loop *loop,
			  const struct vhost_user_kind *kind,
			  const struct vhost_user_options *options, struct vhost_user_device **out)
{
	struct vhost_user_device *device = allocate(kind, options);
	int err;

	if (!device)
		return -ENOMEM;
	device->vm = vm;
	device->loop = loop;
	/* Slot 0 is the host bridge. */
	snprintf(device->name, sizeof(device->name), "%s%u", kind->name,
		 pci_bus_next_slot(bus) - 1);

	err = vhost_user_reconnect_init(device);
	if (!err)
		err = connect_first(device);
	if (!err)
		err = make_model(device);
	if (!err)
		err = put_on_bus(device, bus);
	if (err) {
		vhost_user_device_free(device);
		return err;
	}
	*out = device;
	return 0;
}

void vhost_user_device_reset(struct vhost_user_device *device)
{
	pthread_mutex_lock(&device->again.lock);
	device->again.interrupted = false;
	pthread_mutex_unlock(&device->again.lock);
	pthread_mutex_lock(&device->vdev.lock);
	device->vdev.ops->reset(&device->vdev);
	pthread_mutex_unlock(&device->vdev.lock);
}

unsigned vhost_user_device_withdraw(struct vhost_user_device *device, const char *why)
{
	struct bf_doorbell_state door;
	unsigned i, nr = 0;

	pthread_mutex_lock(&device->vdev.lock);
	for (i = 0; i < device->options.nr_queues; i++) {
		bf_frontend_doorbell_state(device->frontend, i, &door);
		nr += door.mapped;
	}
	if (nr)
		bf_frontend_withdraw_doorbells(device->frontend, why);
	pthread_mutex_unlock(&device->vdev.lock);
	return nr;
}

static void close_listener(struct vhost_user_device *device)
{
	if (device->listen_fd < 0)
		return;
	close(device->listen_fd);
	unlink(device->options.socket);
}

void vhost_user_device_free(struct vhost_user_device *device)
{
	if (!device)
		return;
	vhost_user_reconnect_done(device);
	vhost_user_unwatch(device);
	pthread_mutex_lock(&device->vdev.lock);
	if (device->model)
		device->kind->ops->destroy(device);
	/* The connection before the transport: it signals kick eventfds, which are the transport's.
	 */
	if (device->frontend)
		bf_frontend_detach(device->frontend);
	pthread_mutex_unlock(&device->vdev.lock);
	virtio_pci_free(device->transport);
	bf_frontend_free(device->frontend);
	close_listener(device);
	pthread_mutex_destroy(&device->again.lock);
	pthread_mutex_destroy(&device->vdev.lock);
	free(device->queues);
	free(device->vdev.queues);
	free(device);
}
