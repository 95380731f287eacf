/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the front end says, and when the device starts.
 *
 * A virtio device starts as a whole: all queues are set up, then DRIVER_OK. vhost-user starts queues
 * one by one. So the device starts when the front end says DRIVER_OK, if it speaks of the status at
 * all; otherwise when every queue that the driver's features allow is there, or, with fewer, when
 * none has come for SETTLE_MS: front ends start all their queues in one go.
 *
 * Control context. Must not touch a register: that is start.c's.
 */
#include "vdpa_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/timerfd.h>

#include <linux/virtio_config.h>

#include "devices/common/log.h"

#define SETTLE_MS 20

static bool status_agreed(const struct vdpa *v)
{
	return bf_has(bf_backend_protocol_features(v->be), BF_PROTOCOL_F_STATUS);
}

static unsigned nr_present(const struct vdpa *v)
{
	unsigned nr = 0;

	for (unsigned i = 0; i < v->kind.nr_queues; i++)
		nr += v->queues[i].present;
	return nr;
}

static void settle_in(struct vdpa *v, unsigned ms)
{
	const struct itimerspec spec = { .it_value.tv_nsec = ms * 1000000L };

	timerfd_settime(v->settle_fd, 0, &spec, NULL);
}

/* A queue has come while the device is stopped. */
static int consider_start(struct vdpa *v)
{
	if (status_agreed(v) && !(v->status & VIRTIO_CONFIG_S_DRIVER_OK))
		return 0;
	if (nr_present(v) < kind_full_set(&v->kind, v->driver_features)) {
		settle_in(v, SETTLE_MS);
		return 0;
	}
	settle_in(v, 0);
	return vdpa_start_device(v);
}

void vdpa_on_settled(struct vdpa *v)
{
	if (v->running || !nr_present(v) || !vdpa_start_device(v))
		return;
	log_error("ending the connection, since the device did not start");
	bf_backend_detach(v->be);
	vdpa_on_disconnected(v, -EIO);
}

static int on_vring_start(void *opaque, unsigned queue, const struct bf_offload_vring *vring)
{
	struct vdpa *v = opaque;
	struct vdpa_queue *q = &v->queues[queue];
	int ret = vdpa_check_position(v, queue, vring);

	if (ret)
		return ret;
	q->vring = *vring;
	q->present = true;
	q->position = vring->base;
	ret = v->running ? vdpa_add_queue(v, queue) : consider_start(v);
	if (ret)
		q->present = false;
	return ret;
}

/*
 * Without queue reset one queue stops by stopping all. If that was not the front end's wish for the
 * others, they go on a little later, from where they stood.
 */
static uint32_t on_vring_stop(void *opaque, unsigned queue)
{
	struct vdpa *v = opaque;
	struct vdpa_queue *q = &v->queues[queue];
	bool halted = false;

	if (q->in_device && !vdpa_remove_queue(v, queue)) {
		vdpa_stop_device(v);
		halted = true;
	}
	q->present = false;
	q->doorbell = DOORBELL_OFF;
	if (!nr_present(v)) {
		settle_in(v, 0);
		vdpa_stop_device(v);
	} else if (halted) {
		settle_in(v, SETTLE_MS);
	}
	return q->position;
}

static int on_vring_enable(void *opaque, unsigned queue, bool enabled)
{
	struct vdpa *v = opaque;

	v->queues[queue].vring.enabled = enabled;
	return v->running ? vdpa_set_pairs(v) : 0;
}

static int on_vring_eventfds(void *opaque, unsigned queue, const struct bf_offload_vring *vring)
{
	struct vdpa *v = opaque;
	struct vdpa_queue *q = &v->queues[queue];

	if (q->in_device)
		vdpa_disconnect_queue(v, queue);
	q->vring.kick_fd = vring->kick_fd;
	q->vring.call_fd = vring->call_fd;
	return q->in_device ? vdpa_connect_queue(v, queue) : 0;
}

static int on_memory(void *opaque, const struct bf_memory *memory)
{
	struct vdpa *v = opaque;

	/* Queues are stopped then; a device that is not must not lose its memory first. */
	if (!memory)
		vdpa_stop_device(v);
	return guest_dma_update(&v->dma, memory);
}

static int on_status(void *opaque, uint8_t status)
{
	struct vdpa *v = opaque;

	v->status = status;
	if (!(status & VIRTIO_CONFIG_S_DRIVER_OK) || v->running || !nr_present(v))
		return 0;
	settle_in(v, 0);
	return vdpa_start_device(v);
}

int vdpa_on_set_features(void *opaque, uint64_t features)
{
	struct vdpa *v = opaque;

	if (!bf_has(features, VIRTIO_F_VERSION_1)) {
		log_error("the driver accepted no VIRTIO_F_VERSION_1: a modern device has no "
			  "legacy interface; use a guest with virtio 1.0 or later");
		return -EINVAL;
	}
	v->driver_features = features;
	return 0;
}

/* The library has stopped the queues and taken the memory away; the rest is ours. */
void vdpa_on_disconnected(void *opaque, int error)
{
	struct vdpa *v = opaque;

	(void)error;
	settle_in(v, 0);
	vdpa_stop_device(v);
	v->driver_features = 0;
	v->status = 0;
	v->said_refused = false;
}

const struct bf_offload_ops vdpa_offload_ops = {
	.vring_start = on_vring_start,
	.vring_stop = on_vring_stop,
	.vring_enable = on_vring_enable,
	.vring_eventfds = on_vring_eventfds,
	.memory = on_memory,
	.status = on_status,
};
