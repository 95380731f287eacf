/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The device as a whole: from the front end's queues to DRIVER_OK, and back to reset.
 *
 * The order of a start: features; our own memory; queues, each with its interrupt; DRIVER_OK; the
 * number of pairs; then the relay and the doorbells, since a doorbell may only be rung after
 * DRIVER_OK (virtio 1.2, 3.1.1). A stop goes the other way round, and no queue's eventfd is used
 * after it has been disconnected.
 *
 * Control context. Must not decide when: that is session.c's.
 */
#include "vdpa_internal.h"

#include <endian.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#include "devices/common/log.h"

#define DRAIN_MS    1000
#define SPLIT_FRESH 0u
/* Both wrap counters are 1 at the beginning (virtio 1.2, 2.8.1). */
#define PACKED_FRESH BF_VIRTQ_PACKED_BASE
/* A position that no ring has at its beginning: see position_of(). */
#define PACKED_LOST 0u

bool vdpa_is_fresh(const struct vdpa *v, const struct bf_offload_vring *vring)
{
	return vring->base == (vdpa_is_packed(v) ? PACKED_FRESH : SPLIT_FRESH);
}

/* One index of a split ring: the second field of its available and of its used ring. The guest's. */
static int read_index(const struct vdpa *v, uint64_t ring_gpa, uint16_t *index)
{
	const uint16_t *field = bf_memory_from_gpa(bf_backend_memory(v->be), ring_gpa + 2, 2);

	if (!field)
		return -EFAULT;
	*index = le16toh(__atomic_load_n(field, __ATOMIC_ACQUIRE));
	return 0;
}

int vdpa_check_position(struct vdpa *v, unsigned queue, const struct bf_offload_vring *vring)
{
	uint16_t avail;

	if (vdpa_is_fresh(v, vring))
		return 0;
	if (vdpa_is_packed(v)) {
		log_error("queue %u: the front end goes on with a packed ring (0x%x); a virtio device "
			  "can only begin one: reset the device in the guest",
			  queue, vring->base);
		return -EINVAL;
	}
	if (v->kind.ordered)
		return 0;
	/* What was between used and available may have been done out of order, or not at all. */
	if (read_index(v, vring->driver_gpa, &avail) || avail != vring->base) {
		log_error("queue %u: the front end goes on with requests outstanding; which of them "
			  "were done is not known: reset the device in the guest",
			  queue);
		return -EINVAL;
	}
	return 0;
}

static size_t page_align(size_t size)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	return (size + page - 1) & ~(page - 1);
}

static bool needs_mediation(const struct vdpa *v, const struct vdpa_queue *q)
{
	return q->present && !vdpa_is_fresh(v, &q->vring);
}

static void free_own_memory(struct vdpa *v)
{
	if (!v->own.base)
		return;
	vfio_dma_unmap(v->vfio, v->own.iova, v->own.size);
	munmap(v->own.base, v->own.size);
	v->own = (struct own_memory){ 0 };
}

/* Memory for the control queue and for what is mediated: away from the guest's addresses. */
static int make_own_memory(struct vdpa *v)
{
	size_t size = v->has_ctrl ? page_align(CTRL_QUEUE_MEMORY) : 0;
	uint64_t iova;
	void *base;
	int ret;

	for (unsigned i = 0; i < v->kind.nr_queues; i++)
		if (needs_mediation(v, &v->queues[i]))
			size += page_align(vdpa_mediated_size(v, i));
	if (!size)
		return 0;
	ret = guest_dma_find_hole(&v->dma, size, &iova);
	if (ret) {
		log_error("guest memory leaves no address for the device's own queues");
		return ret;
	}
	base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (base == MAP_FAILED)
		return -errno;
	ret = vfio_dma_map(v->vfio, iova, base, size);
	if (ret) {
		log_error("%zu bytes cannot be mapped for the device's own queues at 0x%llx: %s",
			  size, (unsigned long long)iova, strerror(-ret));
		munmap(base, size);
		return ret;
	}
	v->own = (struct own_memory){ .base = base, .size = size, .iova = iova };
	return 0;
}

static int set_up_ctrl(struct vdpa *v)
{
	int ret;

	if (!v->has_ctrl)
		return 0;
	ret = ctrl_queue_start(&v->ctrl, v->pci,
			       kind_ctrl_queue(&v->kind, v->pci, v->device_features),
			       vdpa_is_packed(v), v->own.base, v->own.iova);
	if (ret)
		log_error("the device's control queue cannot be set up: %s", strerror(-ret));
	return ret;
}

int vdpa_set_up_direct(struct vdpa *v, unsigned queue)
{
	const struct bf_offload_vring *vring = &v->queues[queue].vring;
	const struct virtio_pci_queue_setup setup = {
		.queue = queue,
		.size = vring->size,
		.vector = vdpa_vector(queue),
		.desc_iova = vring->desc_gpa,
		.driver_iova = vring->driver_gpa,
		.device_iova = vring->device_gpa,
	};
	int ret = virtio_pci_queue_start(v->pci, &setup);

	if (ret)
		log_error("queue %u of %u entries: the device does not take it: %s", queue,
			  vring->size, strerror(-ret));
	else
		v->queues[queue].in_device = true;
	return ret;
}

static int set_up_queues(struct vdpa *v)
{
	size_t at = v->has_ctrl ? page_align(CTRL_QUEUE_MEMORY) : 0;
	int ret = 0;

	for (unsigned i = 0; i < v->kind.nr_queues && !ret; i++) {
		struct vdpa_queue *q = &v->queues[i];

		if (!q->present)
			continue;
		if (needs_mediation(v, q)) {
			ret = vdpa_mediate(v, i, at);
			at += page_align(vdpa_mediated_size(v, i));
		} else {
			ret = vdpa_set_up_direct(v, i);
		}
		if (!ret)
			q->nr_starts++;
	}
	return ret;
}

static unsigned enabled_pairs(const struct vdpa *v)
{
	unsigned pairs = 0;

	while (2 * pairs + 1 < v->kind.nr_queues && v->queues[2 * pairs].in_device &&
	       v->queues[2 * pairs].vring.enabled && v->queues[2 * pairs + 1].in_device &&
	       v->queues[2 * pairs + 1].vring.enabled)
		pairs++;
	return pairs ? pairs : 1;
}

int vdpa_set_pairs(struct vdpa *v)
{
	unsigned pairs = enabled_pairs(v);
	int ret;

	if (!v->has_ctrl || pairs == v->pairs)
		return 0;
	ret = ctrl_queue_set_pairs(&v->ctrl, (uint16_t)pairs);
	if (ret) {
		log_error("the device does not use %u queue pairs: %s", pairs, strerror(-ret));
		return ret;
	}
	v->pairs = pairs;
	return 0;
}

int vdpa_connect_queue(struct vdpa *v, unsigned queue)
{
	struct vdpa_queue *q = &v->queues[queue];
	int ret;

	if (q->mediator)
		return vdpa_mediated_connect(v, queue);
	ret = vfio_irq_set(v->vfio, vdpa_vector(queue), q->vring.call_fd);
	if (!ret && q->vring.kick_fd >= 0)
		ret = relay_add(v->relay, queue, q->vring.kick_fd);
	if (ret) {
		log_error("queue %u cannot be connected to its eventfds: %s", queue, strerror(-ret));
		return ret;
	}
	/* What was made available before there was a doorbell or a relay. */
	virtio_pci_ring(v->pci, queue);
	return 0;
}

void vdpa_disconnect_queue(struct vdpa *v, unsigned queue)
{
	struct vdpa_queue *q = &v->queues[queue];

	if (q->watched_fd >= 0) {
		vdpa_unwatch(v, q->watched_fd);
		q->watched_fd = -1;
	}
	relay_remove(v->relay, queue);
	vfio_irq_set(v->vfio, vdpa_vector(queue), -1);
}

static int connect_queues(struct vdpa *v)
{
	int ret = 0;

	for (unsigned i = 0; i < v->kind.nr_queues && !ret; i++)
		if (v->queues[i].in_device)
			ret = vdpa_connect_queue(v, i);
	for (unsigned i = 0; i < v->kind.nr_queues && !ret; i++)
		if (v->queues[i].in_device)
			vdpa_offer_doorbell(v, i);
	return ret;
}

static int negotiate(struct vdpa *v)
{
	uint64_t features = kind_device_features(&v->kind, virtio_pci_features(v->pci),
						 v->driver_features);
	int ret = virtio_pci_negotiate(v->pci, features);

	if (!ret)
		ret = virtio_pci_config_vector(v->pci, VDPA_CONFIG_VECTOR);
	if (ret) {
		log_error("the device does not take the features 0x%llx: %s",
			  (unsigned long long)features, strerror(-ret));
		return ret;
	}
	v->device_features = features;
	v->has_ctrl = kind_ctrl_queue(&v->kind, v->pci, features) != KIND_NO_QUEUE;
	v->pairs = 1;
	return 0;
}

int vdpa_start_device(struct vdpa *v)
{
	int ret = negotiate(v);

	if (ret)
		return ret;
	v->running = true;
	ret = make_own_memory(v);
	if (!ret)
		ret = set_up_ctrl(v);
	if (!ret)
		ret = set_up_queues(v);
	if (!ret)
		ret = virtio_pci_driver_ok(v->pci);
	if (!ret)
		ret = vdpa_set_pairs(v);
	if (!ret)
		ret = connect_queues(v);
	if (ret) {
		vdpa_stop_device(v);
		return ret;
	}
	v->nr_starts++;
	log_debug("the device runs");
	return 0;
}

/*
 * Where a queue stands that the device has let go of. A split ring says it itself. A packed ring does
 * not, nor does the device: what is returned is no beginning, so that a start with it is refused.
 */
static uint32_t position_of(const struct vdpa *v, const struct vdpa_queue *q)
{
	uint16_t used;

	if (vdpa_is_packed(v))
		return PACKED_LOST;
	return read_index(v, q->vring.device_gpa, &used) ? q->vring.base : used;
}

static void let_go(struct vdpa *v, unsigned queue)
{
	struct vdpa_queue *q = &v->queues[queue];

	if (q->mediator)
		vdpa_mediated_end(v, queue);
	else
		q->position = position_of(v, q);
	q->vring.base = q->position;
	q->in_device = false;
}

static bool outstanding(const struct vdpa *v)
{
	for (unsigned i = 0; i < v->kind.nr_queues; i++) {
		const struct vdpa_queue *q = &v->queues[i];
		uint16_t avail, used;

		if (q->in_device && !q->mediator && !vdpa_is_packed(v) &&
		    !read_index(v, q->vring.driver_gpa, &avail) &&
		    !read_index(v, q->vring.device_gpa, &used) && avail != used)
			return true;
	}
	return false;
}

/* A request that a reset cuts off is neither done nor not done. A guest can prolong this, no more. */
static void drain(const struct vdpa *v)
{
	const struct timespec ms = { .tv_nsec = 1000000 };

	if (v->kind.ordered)
		return;
	for (int i = 0; i < DRAIN_MS && outstanding(v); i++)
		nanosleep(&ms, NULL);
}

void vdpa_stop_device(struct vdpa *v)
{
	int ret;

	if (!v->running)
		return;
	drain(v);
	for (unsigned i = 0; i < v->kind.nr_queues; i++)
		if (v->queues[i].in_device)
			vdpa_disconnect_queue(v, i);
	ret = virtio_pci_reset(v->pci);
	if (ret) {
		log_error("the device does not reset: %s; resetting its function",
			  strerror(-ret));
		vfio_reset(v->vfio);
	}
	for (unsigned i = 0; i < v->kind.nr_queues; i++)
		if (v->queues[i].in_device)
			let_go(v, i);
	free_own_memory(v);
	v->has_ctrl = false;
	v->running = false;
	log_debug("the device is reset");
}

int vdpa_add_queue(struct vdpa *v, unsigned queue)
{
	struct vdpa_queue *q = &v->queues[queue];
	int ret;

	if (needs_mediation(v, q)) {
		/* Its memory has to be there when the device starts: all queues begin anew. */
		vdpa_stop_device(v);
		return vdpa_start_device(v);
	}
	ret = vdpa_set_up_direct(v, queue);
	if (!ret)
		ret = vdpa_connect_queue(v, queue);
	if (!ret)
		ret = vdpa_set_pairs(v);
	if (ret)
		return ret;
	q->nr_starts++;
	vdpa_offer_doorbell(v, queue);
	return 0;
}

bool vdpa_remove_queue(struct vdpa *v, unsigned queue)
{
	if (!bf_has(v->device_features, VIRTIO_F_RING_RESET))
		return false;
	if (!v->kind.ordered)
		drain(v);
	vdpa_disconnect_queue(v, queue);
	if (virtio_pci_queue_reset(v->pci, queue))
		return false;
	let_go(v, queue);
	return true;
}
