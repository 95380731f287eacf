/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Vrings served by the device itself: the hand-over in guest-physical addresses.
 *
 * Control context. Rings never move under a device that has them, so memory and eventfds change
 * while it runs. Must not read or write a ring: it is the device's and the guest's.
 */
#include "backend.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#include "../mem/map.h"

/* Bytes of each part of a ring (virtio 1.2, 2.7 and 2.8). */
struct ring_sizes {
	uint64_t desc, driver, device;
};

static struct ring_sizes ring_sizes(const struct bf_backend *be, uint16_t num)
{
	if (bf_has(be->agreed.features, VIRTIO_F_RING_PACKED))
		return (struct ring_sizes){
			.desc = num * (uint64_t)sizeof(struct vring_packed_desc),
			.driver = sizeof(struct vring_packed_desc_event),
			.device = sizeof(struct vring_packed_desc_event),
		};
	/* Flags and index in front, the other side's event index at the end. */
	return (struct ring_sizes){
		.desc = num * (uint64_t)sizeof(struct vring_desc),
		.driver = 6 + 2 * (uint64_t)num,
		.device = 6 + num * (uint64_t)sizeof(struct vring_used_elem),
	};
}

static int translate(const struct bf_backend *be, const struct bf_memory *memory, unsigned queue,
		     struct bf_offload_vring *to)
{
	const struct bf_vring *vring = &be->vrings[queue];
	const struct ring_sizes len = ring_sizes(be, vring->num);

	if (vring->addr.desc & 15 || vring->addr.avail & 1 || vring->addr.used & 3)
		return -EINVAL;
	if (bf_memory_uva_to_gpa(memory, vring->addr.desc, len.desc, &to->desc_gpa) ||
	    bf_memory_uva_to_gpa(memory, vring->addr.avail, len.driver, &to->driver_gpa) ||
	    bf_memory_uva_to_gpa(memory, vring->addr.used, len.device, &to->device_gpa))
		return -EFAULT;
	return 0;
}

static int describe(const struct bf_backend *be, const struct bf_memory *memory, unsigned queue,
		    struct bf_offload_vring *to)
{
	const struct bf_vring *vring = &be->vrings[queue];

	*to = (struct bf_offload_vring){
		.size = vring->num,
		.base = bf_vring_base(be, queue),
		.enabled = vring->enabled,
		.kick_fd = vring->kick_fd,
		.call_fd = vring->call_fd,
	};
	return translate(be, memory, queue, to);
}

int bf_offload_start(struct bf_backend *be, unsigned queue)
{
	const struct bf_vring_addr *addr = &be->vrings[queue].addr;
	struct bf_offload_vring vring;
	int ret = describe(be, be->memory, queue, &vring);

	if (ret)
		return bf_report_error(
			&be->report, ret,
			"queue %u cannot start: its ring is %s (%u entries; descriptors at 0x%llx, "
			"driver area 0x%llx, device area 0x%llx)",
			queue, ret == -EINVAL ? "not aligned" : "not inside one memory region",
			vring.size, (unsigned long long)addr->desc,
			(unsigned long long)addr->avail, (unsigned long long)addr->used);
	ret = be->offload->vring_start(be->opaque, queue, &vring);
	if (ret)
		return bf_report_error(&be->report, ret < 0 ? ret : -EIO,
				       "queue %u: the device could not start it (error %d)", queue,
				       ret);
	return 0;
}

int bf_offload_eventfds(struct bf_backend *be, unsigned queue)
{
	struct bf_offload_vring vring;
	int ret = describe(be, be->memory, queue, &vring);

	if (!ret)
		ret = be->offload->vring_eventfds(be->opaque, queue, &vring);
	if (ret)
		return bf_report_error(&be->report, ret < 0 ? ret : -EIO,
				       "queue %u: the device did not take the eventfd (error %d)",
				       queue, ret);
	return 0;
}

/* Whether a ring that the device has is in @memory where it was. */
static bool stays(const struct bf_backend *be, const struct bf_memory *memory, unsigned queue)
{
	struct bf_offload_vring before, after;

	return !translate(be, be->memory, queue, &before) &&
	       !translate(be, memory, queue, &after) && before.desc_gpa == after.desc_gpa &&
	       before.driver_gpa == after.driver_gpa && before.device_gpa == after.device_gpa;
}

/*
 * Rings whose memory goes are stopped before it is taken from the device. They cannot start again, so
 * the request is answered with failure although the map is in force: as with queue threads.
 */
int bf_offload_swap_memory(struct bf_backend *be, struct bf_memory *memory)
{
	int ret;

	for (unsigned i = 0; i < be->nr_queues; i++)
		if (be->vrings[i].running && !(memory && stays(be, memory, i)))
			bf_vring_stop(be, i);
	ret = be->offload->memory(be->opaque, memory);
	if (ret) {
		bf_memory_unref(memory);
		bf_vring_start_all(be);
		return bf_report_error(&be->report, ret < 0 ? ret : -EIO,
				       "the device cannot use this memory (error %d)", ret);
	}
	bf_memory_unref(be->memory);
	be->memory = memory;
	return bf_vring_start_all(be);
}
