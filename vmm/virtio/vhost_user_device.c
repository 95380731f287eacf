/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The life of a vhost-user device: connection, negotiation, events of the back end, statistics.
 *
 * _new and _free run on the event loop's thread; connection events come on the loop and take the
 * device's lock first. The connection is lost at most once and not made again: the guest sees
 * DEVICE_NEEDS_RESET, the VMM goes on. What the guest asks is in vhost_user_queues.c.
 */
#include "vhost_user_device.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include <belfry/socket.h>
#include <linux/virtio_config.h>

#include "../base/report.h"
#include "vhost_user_internal.h"

int vhost_user_refresh_config(struct vhost_user_device *device)
{
	uint32_t size = device->kind->config_size;
	int err;

	if (!size)
		return 0;
	err = bf_frontend_get_config(device->frontend, 0, device->config, size);
	if (!err && device->kind->adjust_config)
		device->kind->adjust_config(device->config, device->vdev.nr_queues);
	return err;
}

/* Operations of the library. All run with the device's lock held, by whoever called the library. */

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
	else if (device->transport)
		device->vdev.transport_ops->config_changed(device->vdev.transport);
}

static void on_disconnected(void *opaque, int error)
{
	struct vhost_user_device *device = opaque;

	report("%s: lost the back end at %s: %s. The guest must do without this device",
	       device->name, device->options.socket, bf_frontend_error(device->frontend));
	(void)error;
	device->state = VHOST_USER_FAILED;
	device->memory_announced = false;
	memset(device->started, 0, device->vdev.nr_queues * sizeof(*device->started));
	if (device->transport)
		device->vdev.transport_ops->needs_reset(device->vdev.transport);
}

static const struct bf_frontend_ops frontend_ops = {
	.doorbell_map = on_doorbell_map,
	.doorbell_unmap = on_doorbell_unmap,
	.config_changed = on_config_changed,
	.disconnected = on_disconnected,
};

static void on_log(void *opaque, enum bf_log_level level, const char *tag, const char *text)
{
	(void)opaque;
	(void)level;
	report("%s: %s", tag, text);
}

static void on_readable(void *opaque, uint32_t events)
{
	struct vhost_user_device *device = opaque;

	(void)events;
	pthread_mutex_lock(&device->vdev.lock);
	bf_frontend_dispatch(device->frontend);
	pthread_mutex_unlock(&device->vdev.lock);
}

static int connect_socket(struct vhost_user_device *device)
{
	const char *path = device->options.socket;
	int fd = bf_socket_connect(path);

	if (fd == -ENOENT)
		report("%s: there is no socket %s: start the back end first", device->name, path);
	else if (fd == -ECONNREFUSED)
		report("%s: nobody listens on %s: start the back end first", device->name, path);
	else if (fd < 0)
		report("%s: cannot connect to %s: %s", device->name, path, strerror(-fd));
	return fd;
}

static int attach(struct vhost_user_device *device)
{
	uint64_t mask = bf_frontend_supported_protocol_features();
	struct bf_frontend_config config = {
		.ops = &frontend_ops,
		.opaque = device,
		.name = device->name,
		.log = { .write = on_log, .level = BF_LOG_WARN },
	};
	int err, fd;

	if (!device->options.doorbells)
		mask &= ~bf_bit(BF_PROTOCOL_F_HOST_NOTIFIER);
	config.protocol_features = mask;
	err = bf_frontend_new(&config, &device->frontend);
	if (err) {
		report("%s: cannot make a front end: %s", device->name, strerror(-err));
		return err;
	}
	fd = connect_socket(device);
	if (fd < 0)
		return fd;
	err = bf_frontend_attach(device->frontend, fd);
	if (err)
		report("%s: the back end at %s cannot be used: %s", device->name,
		       device->options.socket, bf_frontend_error(device->frontend));
	return err;
}

/* What the back end offered must be enough for what was asked for. */
static int check_offer(struct vhost_user_device *device)
{
	unsigned has = bf_frontend_max_queues(device->frontend);
	int err;

	if (!bf_has(bf_frontend_features(device->frontend), VIRTIO_F_VERSION_1)) {
		report("%s: the back end at %s does not offer VIRTIO_F_VERSION_1; only modern devices "
		       "are supported",
		       device->name, device->options.socket);
		return -EPROTONOSUPPORT;
	}
	if (device->options.nr_queues > has) {
		report("%s: num-queues=%u, but the back end at %s has %u: ask for at most that many",
		       device->name, device->options.nr_queues, device->options.socket, has);
		return -EINVAL;
	}
	err = vhost_user_refresh_config(device);
	if (err)
		report("%s: the back end at %s does not give its configuration space: %s",
		       device->name, device->options.socket, bf_frontend_error(device->frontend));
	return err;
}

static void init_virtio(struct vhost_user_device *device)
{
	struct virtio_device *vdev = &device->vdev;
	unsigned i;

	vdev->ops = &vhost_user_virtio_ops;
	vdev->name = device->name;
	vdev->device_id = device->kind->device_id;
	vdev->pci_class = device->kind->pci_class;
	vdev->features = bf_frontend_features(device->frontend) &
			 (device->kind->features | virtio_pci_features());
	vdev->config_size = device->kind->config_size;
	for (i = 0; i < vdev->nr_queues; i++)
		vdev->queues[i].max_size = (uint16_t)device->options.queue_size;
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

	if (!device)
		return NULL;
	init_lock(&device->vdev.lock);
	device->kind = kind;
	device->options = *options;
	device->vdev.nr_queues = options->nr_queues;
	device->vdev.queues = calloc(options->nr_queues, sizeof(*device->vdev.queues));
	device->started = calloc(options->nr_queues, sizeof(*device->started));
	device->config = calloc(1, kind->config_size ? kind->config_size : 1);
	if (!device->vdev.queues || !device->started || !device->config) {
		vhost_user_device_free(device);
		return NULL;
	}
	return device;
}

static int watch(struct vhost_user_device *device)
{
	int err = event_loop_add(device->loop, bf_frontend_fd(device->frontend), EPOLLIN,
				 on_readable, device);

	device->watched = !err;
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

	err = attach(device);
	if (!err)
		err = check_offer(device);
	if (err)
		goto free_device;
	init_virtio(device);
	err = virtio_pci_new(vm, bus, &device->vdev, &device->transport);
	if (err) {
		report("%s: cannot be put on the PCI bus: %s", device->name, strerror(-err));
		goto free_device;
	}
	err = watch(device);
	if (err)
		goto free_device;
	*out = device;
	return 0;

free_device:
	vhost_user_device_free(device);
	return err;
}

void vhost_user_device_reset(struct vhost_user_device *device)
{
	pthread_mutex_lock(&device->vdev.lock);
	device->vdev.ops->reset(&device->vdev);
	pthread_mutex_unlock(&device->vdev.lock);
}

void vhost_user_device_free(struct vhost_user_device *device)
{
	if (!device)
		return;
	if (device->watched)
		event_loop_del(device->loop, bf_frontend_fd(device->frontend));
	/* The connection first, since it signals kick eventfds; they are the transport's. */
	if (device->frontend) {
		pthread_mutex_lock(&device->vdev.lock);
		bf_frontend_detach(device->frontend);
		pthread_mutex_unlock(&device->vdev.lock);
	}
	virtio_pci_free(device->transport);
	bf_frontend_free(device->frontend);
	pthread_mutex_destroy(&device->vdev.lock);
	free(device->config);
	free(device->started);
	free(device->vdev.queues);
	free(device);
}

static json_t *queue_stats(struct vhost_user_device *device, unsigned idx)
{
	const struct virtio_queue *q = &device->vdev.queues[idx];
	struct bf_doorbell_state door;
	json_int_t kicks;

	bf_frontend_doorbell_state(device->frontend, idx, &door);
	kicks = (json_int_t)(q->nr_vmm_kicks + door.nr_kicks);
	return json_pack("{s:i, s:i, s:I, s:b, s:b, s:s, s:I, s:I, s:I, s:I}", "queue", (int)idx,
			 "size", (int)q->size, "notify_gpa",
			 (json_int_t)virtio_pci_notify_gpa(device->transport, idx), "started",
			 (int)device->started[idx], "doorbell_mapped", (int)door.mapped,
			 "doorbell_reason", door.reason ? door.reason : "", "doorbells_mapped",
			 (json_int_t)door.nr_mapped, "doorbells_withdrawn",
			 (json_int_t)door.nr_withdrawn, "doorbells_refused",
			 (json_int_t)door.nr_refused, "vmm_kicks", kicks);
}

json_t *vhost_user_device_stats(struct vhost_user_device *device)
{
	static const char *const states[] = { "idle", "running", "failed" };
	json_t *queues = json_array();
	json_t *stats;
	unsigned i;

	pthread_mutex_lock(&device->vdev.lock);
	for (i = 0; i < device->vdev.nr_queues; i++)
		json_array_append_new(queues, queue_stats(device, i));
	stats = json_pack("{s:s, s:s, s:s, s:s, s:o}", "name", device->name, "socket",
			  device->options.socket, "state", states[device->state], "notify",
			  device->options.doorbells ? "auto" : "eventfd", "queues", queues);
	pthread_mutex_unlock(&device->vdev.lock);
	return stats;
}
