/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Where a ring stands when the back end that served it is gone and cannot be asked.
 *
 * A split ring has the device's position in it: the used index, in guest memory. For a device that
 * completes in order, such as net, another back end goes on there: what was taken and not given back
 * is done again, which for packets is allowed. Where requests complete in any order and must be done
 * exactly once, the used index says how many are done but not which: only a ring with nothing
 * outstanding can go on. That is looked at when the back end is lost, because the driver goes on
 * adding requests, and those have been seen by nobody.
 *
 * A packed ring has no index in it. One that no driver has ever written to can begin anew; of any
 * other nobody knows the position.
 *
 * Under the device's lock. The indices are the guest's to write, so each is read once; a wrong one
 * harms the guest alone, the back end checks the ring as it does every ring.
 */
#include <endian.h>
#include <errno.h>
#include <stdio.h>

#include <belfry/virtq.h>
#include <linux/virtio_config.h>

#include "vhost_user_internal.h"

/* Of both index structures: flags, index (virtio 1.2, 2.7.6 and 2.7.8). */
#define IDX_OFFSET 2
#define DESC_SIZE  16ull

static bool packed(const struct vhost_user_device *device)
{
	return bf_has(device->vdev.driver_features, VIRTIO_F_RING_PACKED);
}

static int read_idx(struct vhost_user_device *device, uint64_t gpa, uint16_t *idx)
{
	const uint16_t *at = vm_gpa_to_hva(device->vm, gpa + IDX_OFFSET, sizeof(*at));

	if (!at)
		return -EFAULT;
	*idx = le16toh(__atomic_load_n(at, __ATOMIC_ACQUIRE));
	return 0;
}

/* All zeroes, as a driver makes it: no descriptor was ever made available. */
static bool never_written(struct vhost_user_device *device, const struct virtio_queue *q)
{
	const uint64_t *words = vm_gpa_to_hva(device->vm, q->desc_gpa, DESC_SIZE * q->size);
	uint64_t any = 0;
	size_t i;

	if (!words)
		return false;
	for (i = 0; i < DESC_SIZE * q->size / sizeof(*words); i++)
		any |= __atomic_load_n(&words[i], __ATOMIC_RELAXED);
	return !any;
}

static int note_split(struct vhost_user_device *device, const struct virtio_queue *vq,
		      struct vhost_user_queue *q)
{
	uint16_t avail;
	int err = read_idx(device, vq->device_gpa, &q->used_at_loss);

	if (!err)
		err = read_idx(device, vq->driver_gpa, &avail);
	if (!err && device->kind->exact && avail != q->used_at_loss)
		err = -EINPROGRESS;
	return err;
}

void vhost_user_position_note(struct vhost_user_device *device)
{
	unsigned i;

	for (i = 0; i < device->options.nr_queues; i++) {
		const struct virtio_queue *vq = &device->vdev.queues[i];
		struct vhost_user_queue *q = &device->queues[i];

		if (!q->started)
			continue; /* what an earlier loss found out still holds */
		if (!packed(device))
			q->lost = note_split(device, vq, q);
		else
			q->lost = never_written(device, vq) ? 0 : -ENODATA;
	}
}

static int find_split(struct vhost_user_device *device, const struct virtio_queue *vq,
		      const struct vhost_user_queue *q, uint32_t *base)
{
	uint16_t used;
	int err = read_idx(device, vq->device_gpa, &used);

	if (err)
		return err;
	/* Somebody still serves the ring, or the driver writes what is not its own. */
	if (device->kind->exact && used != q->used_at_loss)
		return -EBUSY;
	*base = used;
	return 0;
}

static const char *explain(int err)
{
	switch (err) {
	case -EINPROGRESS:
		return "it had requests that may or may not have been done";
	case -ENODATA:
		return "the position in a packed ring is known to the lost back end only";
	case -EBUSY:
		return "its used index has moved without a back end";
	default:
		return "its ring is not in guest memory";
	}
}

int vhost_user_position_find(struct vhost_user_device *device, uint32_t *bases,
			     const struct vhost_user_sentence *why)
{
	unsigned i;
	int err = 0;

	for (i = 0; i < device->options.nr_queues && !err; i++) {
		const struct vhost_user_queue *q = &device->queues[i];

		bases[i] = packed(device) ? BF_VIRTQ_PACKED_BASE : 0;
		if (!q->wanted || !q->served)
			continue;
		err = q->lost;
		if (!err && !packed(device))
			err = find_split(device, &device->vdev.queues[i], q, &bases[i]);
		if (err)
			snprintf(why->text, why->len, "queue %u cannot go on: %s", i,
				 explain(err));
	}
	return err ? -ESTALE : 0;
}
