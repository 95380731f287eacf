/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The virtio side of a vhost-user device: what the transport asks, said to the back end.
 *
 * Runs on vCPU threads under the device's lock. A call may wait for the back end, at most the
 * connection's timeout; after the back end is lost every call fails or succeeds at once, so that a
 * guest's reset always ends.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <linux/virtio_config.h>

#include "../base/report.h"
#include "vhost_user_internal.h"

#define STATUS_DRIVER   (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER)
#define STATUS_FEATURES (STATUS_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK)
#define STATUS_RUNNING  (STATUS_FEATURES | VIRTIO_CONFIG_S_DRIVER_OK)

/* A packed ring begins with both wrap counters at 1 (virtio 1.2, 2.8.1): bits 15 and 31. */
#define PACKED_BASE 0x80008000u

static struct vhost_user_device *from_virtio(struct virtio_device *vdev)
{
	return (void *)((char *)vdev - offsetof(struct vhost_user_device, vdev));
}

static int failed(struct vhost_user_device *device, const char *what, int err)
{
	report_limited(&device->limit, "%s: %s: %s", device->name, what,
		       bf_frontend_error(device->frontend));
	return err;
}

static int config_read(struct virtio_device *vdev, uint32_t offset, void *data, uint32_t len)
{
	memcpy(data, from_virtio(vdev)->config + offset, len);
	return 0;
}

static int config_write(struct virtio_device *vdev, uint32_t offset, const void *data, uint32_t len)
{
	struct vhost_user_device *device = from_virtio(vdev);
	int err = bf_frontend_set_config(device->frontend, offset, data, len);

	if (err)
		return err;
	/* The back end decides what became of it. */
	return vhost_user_refresh_config(device);
}

static int set_features(struct virtio_device *vdev, uint64_t features)
{
	struct vhost_user_device *device = from_virtio(vdev);
	int err = bf_frontend_set_status(device->frontend, STATUS_DRIVER);

	if (!err)
		err = bf_frontend_set_features(device->frontend, features);
	if (!err)
		err = bf_frontend_set_status(device->frontend, STATUS_FEATURES);
	return err ? failed(device, "the back end refuses the driver's features", err) : 0;
}

static int announce_memory(struct vhost_user_device *device)
{
	struct bf_memory_region regions[8];
	const struct vm_ram *ram;
	unsigned nr = vm_ram(device->vm, &ram);
	unsigned i;
	int rc;

	if (device->memory_announced)
		return 0;
	if (nr > sizeof(regions) / sizeof(regions[0]))
		return -E2BIG;
	for (i = 0; i < nr; i++)
		regions[i] = (struct bf_memory_region){ .gpa = ram[i].gpa,
							.size = ram[i].size,
							.uva = (uintptr_t)ram[i].hva,
							.hva = ram[i].hva,
							.fd = ram[i].fd,
							.fd_offset = ram[i].fd_offset };
	rc = bf_frontend_set_memory(device->frontend, regions, nr);
	if (rc < 0)
		return rc;
	device->memory_announced = true;
	return 0;
}

static struct bf_vring_setup describe(const struct vhost_user_device *device, unsigned queue)
{
	const struct virtio_queue *q = &device->vdev.queues[queue];
	bool packed = bf_has(device->vdev.driver_features, VIRTIO_F_RING_PACKED);

	return (struct bf_vring_setup){ .queue = queue,
					.size = q->size,
					.desc_gpa = q->desc_gpa,
					.avail_gpa = q->driver_gpa,
					.used_gpa = q->device_gpa,
					.base = packed ? PACKED_BASE : 0,
					.kick_fd = q->kick_fd,
					.call_fd = q->call_fd,
					.err_fd = -1 };
}

static int start_queues(struct vhost_user_device *device, const unsigned *queues, unsigned nr)
{
	struct bf_vring_setup *setups = calloc(nr ? nr : 1, sizeof(*setups));
	unsigned i;
	int err;

	if (!setups)
		return -ENOMEM;
	for (i = 0; i < nr; i++)
		setups[i] = describe(device, queues[i]);
	err = bf_frontend_start_vrings(device->frontend, setups, nr);
	for (i = 0; i < nr && !err; i++)
		device->started[queues[i]] = true;
	free(setups);
	return err;
}

/* Numbers of the queues for which @flag holds: started ones, or those the driver has enabled. */
static unsigned collect(const struct vhost_user_device *device, bool enabled, unsigned *queues)
{
	unsigned i, nr = 0;

	for (i = 0; i < device->vdev.nr_queues; i++)
		if (enabled ? device->vdev.queues[i].enabled : device->started[i])
			queues[nr++] = i;
	return nr;
}

static int start(struct virtio_device *vdev)
{
	struct vhost_user_device *device = from_virtio(vdev);
	unsigned queues[BF_MAX_QUEUES];
	int err = announce_memory(device);

	if (err)
		return failed(device, "the back end does not take the guest's memory", err);
	err = start_queues(device, queues, collect(device, true, queues));
	if (!err)
		err = bf_frontend_set_status(device->frontend, STATUS_RUNNING);
	if (err)
		return failed(device, "the back end does not start the queues", err);
	device->state = VHOST_USER_RUNNING;
	return 0;
}

static int stop_queues(struct vhost_user_device *device, const unsigned *queues, unsigned nr)
{
	int err = nr ? bf_frontend_stop_vrings(device->frontend, queues, nr, NULL) : 0;
	unsigned i;

	/* Stopped on any error too: that is the library's promise. */
	for (i = 0; i < nr; i++)
		device->started[queues[i]] = false;
	return err;
}

static void reset(struct virtio_device *vdev)
{
	struct vhost_user_device *device = from_virtio(vdev);
	unsigned queues[BF_MAX_QUEUES];
	int err;

	err = stop_queues(device, queues, collect(device, false, queues));
	if (device->state == VHOST_USER_FAILED)
		return;
	if (!err)
		err = bf_frontend_set_status(device->frontend, 0);
	if (err)
		failed(device, "while resetting the device", err);
	device->state = VHOST_USER_IDLE;
}

static int queue_stop(struct virtio_device *vdev, unsigned queue)
{
	struct vhost_user_device *device = from_virtio(vdev);
	int err = device->started[queue] ? stop_queues(device, &queue, 1) : 0;

	return err ? failed(device, "while resetting a queue", err) : 0;
}

static int queue_start(struct virtio_device *vdev, unsigned queue)
{
	struct vhost_user_device *device = from_virtio(vdev);
	int err = start_queues(device, &queue, 1);

	return err ? failed(device, "while starting a queue again", err) : 0;
}

static void withdraw_doorbells(struct virtio_device *vdev, const char *why)
{
	struct vhost_user_device *device = from_virtio(vdev);

	if (device->frontend)
		bf_frontend_withdraw_doorbells(device->frontend, why);
}

const struct virtio_device_ops vhost_user_virtio_ops = {
	.config_read = config_read,
	.config_write = config_write,
	.set_features = set_features,
	.start = start,
	.reset = reset,
	.queue_stop = queue_stop,
	.queue_start = queue_start,
	.withdraw_doorbells = withdraw_doorbells,
};
