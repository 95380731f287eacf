/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The statistics of a vhost-user device: numbers that outlive connections.
 *
 * Under the device's lock. A front end counts for one connection; what it counted is kept when
 * another takes its place, so that no number ever goes back.
 */
#include "vhost_user_internal.h"

void vhost_user_stats_keep(struct vhost_user_device *device)
{
	struct bf_doorbell_state door;
	unsigned i;

	for (i = 0; i < device->options.nr_queues; i++) {
		struct vhost_user_queue *q = &device->queues[i];

		bf_frontend_doorbell_state(device->frontend, i, &door);
		q->past.mapped += door.nr_mapped;
		q->past.withdrawn += door.nr_withdrawn;
		q->past.refused += door.nr_refused;
		q->past.kicks += door.nr_kicks;
	}
}

static json_t *queue_stats(struct vhost_user_device *device, unsigned idx)
{
	const struct virtio_queue *vq = &device->vdev.queues[idx];
	const struct vhost_user_queue *q = &device->queues[idx];
	struct bf_doorbell_state door;

	bf_frontend_doorbell_state(device->frontend, idx, &door);
	return json_pack("{s:i, s:i, s:I, s:b, s:b, s:s, s:I, s:I, s:I, s:I}", "queue", (int)idx,
			 "size", (int)vq->size, "notify_gpa",
			 (json_int_t)virtio_pci_notify_gpa(device->transport, idx), "started",
			 (int)q->started, "doorbell_mapped", (int)door.mapped, "doorbell_reason",
			 door.reason ? door.reason : "", "doorbells_mapped",
			 (json_int_t)(q->past.mapped + door.nr_mapped), "doorbells_withdrawn",
			 (json_int_t)(q->past.withdrawn + door.nr_withdrawn), "doorbells_refused",
			 (json_int_t)(q->past.refused + door.nr_refused), "vmm_kicks",
			 (json_int_t)(vq->nr_vmm_kicks + q->past.kicks + door.nr_kicks));
}

json_t *vhost_user_device_stats(struct vhost_user_device *device)
{
	static const char *const states[] = { "idle", "running", "needs-reset", "failed" };
	json_t *queues = json_array();
	json_t *stats;
	unsigned i;

	pthread_mutex_lock(&device->vdev.lock);
	for (i = 0; i < device->options.nr_queues; i++)
		json_array_append_new(queues, queue_stats(device, i));
	stats = json_pack("{s:s, s:s, s:s, s:b, s:I, s:s, s:o}", "name", device->name, "socket",
			  device->options.socket, "state", states[device->state], "connected",
			  (int)device->connected, "reconnections", (json_int_t)device->again.nr,
			  "notify", device->options.doorbells ? "auto" : "eventfd", "queues",
			  queues);
	if (stats && device->kind->ops->stats)
		device->kind->ops->stats(device, stats);
	pthread_mutex_unlock(&device->vdev.lock);
	return stats;
}
