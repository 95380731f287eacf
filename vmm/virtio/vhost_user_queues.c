/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The virtio side of a vhost-user device: what the transport asks, said to the back end.
 *
 * Runs on vCPU threads under the device's lock. A call may wait for the back end, at most the
 * connection's timeout. While no back end is connected nothing waits: what the driver sets up is kept
 * for the next one (vhost_user_reconnect.c), and a guest's reset always ends.
 *
 * A queue is the back end's, or the kind's own (a control queue), or nobody's: where the own queue
 * is depends on the driver's features.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <belfry/virtq.h>
#include <linux/virtio_config.h>

#include "../base/report.h"
#include "vhost_user_internal.h"

#define STATUS_DRIVER   (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER)
#define STATUS_FEATURES (STATUS_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK)
#define STATUS_RUNNING  (STATUS_FEATURES | VIRTIO_CONFIG_S_DRIVER_OK)

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

/* Another back end will come, and gets what the driver has set up by then. */
static bool is_away(const struct vhost_user_device *device)
{
	return !device->connected && device->options.reconnect &&
	       device->state != VHOST_USER_FAILED;
}

/* The same is known as soon as a call to the library says so, before the loop hears of it. */
static int unless_lost(const struct vhost_user_device *device, int err)
{
	bool lost = device->options.reconnect && !bf_frontend_attached(device->frontend);

	return lost ? 0 : err;
}

static int own_queue(struct vhost_user_device *device)
{
	return device->kind->ops->own_queue ? device->kind->ops->own_queue(device) : -1;
}

static bool is_own(struct vhost_user_device *device, unsigned queue)
{
	return (int)queue == own_queue(device);
}

static bool is_theirs(struct vhost_user_device *device, unsigned queue)
{
	return queue < device->options.nr_queues && !is_own(device, queue);
}

static int config_read(struct virtio_device *vdev, uint32_t offset, void *data, uint32_t len)
{
	memcpy(data, from_virtio(vdev)->config + offset, len);
	return 0;
}

static int config_write(struct virtio_device *vdev, uint32_t offset, const void *data, uint32_t len)
{
	struct vhost_user_device *device = from_virtio(vdev);
	int err;

	/* Where config space is the kind's, none of it is the driver's to write. */
	if (!device->kind->needs_config)
		return 0;
	err = bf_frontend_set_config(device->frontend, offset, data, len);
	if (err)
		return err;
	/* The back end decides what became of it. */
	return vhost_user_refresh_config(device);
}

int vhost_user_send_features(struct vhost_user_device *device, uint64_t features)
{
	int err = bf_frontend_set_status(device->frontend, STATUS_DRIVER);

	/* What is served here and not offered there is no business of the back end's. */
	features &= bf_frontend_features(device->frontend) & ~device->kind->kept;
	if (!err)
		err = bf_frontend_set_features(device->frontend, features);
	if (!err)
		err = bf_frontend_set_status(device->frontend, STATUS_FEATURES);
	return err;
}

static int set_features(struct virtio_device *vdev, uint64_t features)
{
	struct vhost_user_device *device = from_virtio(vdev);
	int err = is_away(device) ? 0 : vhost_user_send_features(device, features);

	if (err)
		failed(device, "the back end refuses the driver's features", err);
	return unless_lost(device, err);
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
		return failed(device, "the back end does not take the guest's memory", rc);
	device->memory_announced = true;
	return 0;
}

static struct bf_vring_setup describe(struct vhost_user_device *device, unsigned queue,
				      const uint32_t *bases)
{
	const struct vhost_user_kind_ops *ops = device->kind->ops;
	const struct virtio_queue *q = &device->vdev.queues[queue];
	bool packed = bf_has(device->vdev.driver_features, VIRTIO_F_RING_PACKED);
	uint32_t fresh = packed ? BF_VIRTQ_PACKED_BASE : 0;

	return (struct bf_vring_setup){ .queue = queue,
					.size = q->size,
					.desc_gpa = q->desc_gpa,
					.avail_gpa = q->driver_gpa,
					.used_gpa = q->device_gpa,
					.base = bases ? bases[queue] : fresh,
					.kick_fd = q->kick_fd,
					.call_fd = q->call_fd,
					.err_fd = -1,
					.disabled = ops->enabled && !ops->enabled(device, queue) };
}

static int start_queues(struct vhost_user_device *device, const unsigned *queues, unsigned nr,
			const uint32_t *bases)
{
	struct bf_vring_setup *setups = calloc(nr ? nr : 1, sizeof(*setups));
	unsigned i;
	int err;

	if (!setups)
		return -ENOMEM;
	for (i = 0; i < nr; i++) {
		setups[i] = describe(device, queues[i], bases);
		device->queues[queues[i]].started = true;
		device->queues[queues[i]].served = true;
	}
	err = bf_frontend_start_vrings(device->frontend, setups, nr);
	/* Refused, they are stopped again; lost on the way, they count as served until then. */
	for (i = 0; i < nr && err && bf_frontend_attached(device->frontend); i++)
		device->queues[queues[i]].started = false;
	free(setups);
	return err;
}

int vhost_user_start_queues(struct vhost_user_device *device, const uint32_t *bases)
{
	unsigned queues[BF_MAX_QUEUES];
	unsigned i, nr = 0;
	int err = announce_memory(device);

	if (err)
		return err;
	for (i = 0; i < device->options.nr_queues; i++)
		if (device->queues[i].wanted)
			queues[nr++] = i;
	err = start_queues(device, queues, nr, bases);
	if (!err)
		err = bf_frontend_set_status(device->frontend, STATUS_RUNNING);
	return err ? failed(device, "the back end does not start the queues", err) : 0;
}

static void want(struct vhost_user_device *device, unsigned queue, bool on)
{
	device->queues[queue].wanted = on;
	device->queues[queue].served = false;
	device->queues[queue].lost = 0;
}

static int start_own(struct vhost_user_device *device)
{
	int queue = own_queue(device);

	if (queue < 0 || !device->vdev.queues[queue].enabled)
		return 0;
	return device->kind->ops->own_start(device, (unsigned)queue);
}

static int start(struct virtio_device *vdev)
{
	struct vhost_user_device *device = from_virtio(vdev);
	unsigned i;
	int err = start_own(device);

	if (err)
		return err;
	for (i = 0; i < device->options.nr_queues; i++)
		want(device, i, is_theirs(device, i) && vdev->queues[i].enabled);
	if (!is_away(device))
		err = unless_lost(device, vhost_user_start_queues(device, NULL));
	if (!err)
		device->state = VHOST_USER_RUNNING;
	return err;
}

static int stop_queues(struct vhost_user_device *device, const unsigned *queues, unsigned nr)
{
	int err = nr ? bf_frontend_stop_vrings(device->frontend, queues, nr, NULL) : 0;
	unsigned i;

	/* Stopped on any error too: that is the library's promise. */
	for (i = 0; i < nr; i++)
		device->queues[queues[i]].started = false;
	return err;
}

static int stop_all(struct vhost_user_device *device)
{
	unsigned queues[BF_MAX_QUEUES];
	unsigned i, nr = 0;

	for (i = 0; i < device->options.nr_queues; i++) {
		want(device, i, false);
		if (device->queues[i].started)
			queues[nr++] = i;
	}
	return stop_queues(device, queues, nr);
}

static void reset(struct virtio_device *vdev)
{
	struct vhost_user_device *device = from_virtio(vdev);
	const struct vhost_user_kind_ops *ops = device->kind->ops;
	int err;

	if (ops->own_stop)
		ops->own_stop(device);
	err = stop_all(device);
	if (device->state != VHOST_USER_FAILED)
		device->state = VHOST_USER_IDLE;
	if (ops->reset)
		ops->reset(device);
	if (device->state == VHOST_USER_FAILED)
		return;
	if (!err && device->connected)
		err = bf_frontend_set_status(device->frontend, 0);
	if (err)
		failed(device, "while resetting the device", err);
	if (bf_frontend_attached(device->frontend))
		vhost_user_update_offer(device);
}

static int queue_stop(struct virtio_device *vdev, unsigned queue)
{
	struct vhost_user_device *device = from_virtio(vdev);
	int err = 0;

	if (is_own(device, queue)) {
		device->kind->ops->own_stop(device);
	} else if (is_theirs(device, queue)) {
		want(device, queue, false);
		if (device->queues[queue].started)
			err = stop_queues(device, &queue, 1);
	}
	if (err)
		failed(device, "while resetting a queue", err);
	return unless_lost(device, err);
}

static int queue_start(struct virtio_device *vdev, unsigned queue)
{
	struct vhost_user_device *device = from_virtio(vdev);
	int err = 0;

	if (is_own(device, queue))
		return device->kind->ops->own_start(device, queue);
	if (!is_theirs(device, queue))
		return 0;
	want(device, queue, true);
	if (!is_away(device))
		err = start_queues(device, &queue, 1, NULL);
	if (err)
		failed(device, "while starting a queue again", err);
	return unless_lost(device, err);
}

int vhost_user_enable_queues(struct vhost_user_device *device, unsigned first, unsigned end,
			     bool on)
{
	unsigned queues[BF_MAX_QUEUES];
	unsigned i, nr = 0;
	int err;

	for (i = first; i < end && i < device->options.nr_queues; i++)
		if (device->queues[i].started)
			queues[nr++] = i;
	if (!device->connected)
		return 0; /* described when they start */
	err = bf_frontend_enable_vrings(device->frontend, queues, nr, on);
	return err ? failed(device, "while enabling and disabling queues", err) : 0;
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
