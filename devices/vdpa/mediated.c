/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Mediated queues: mediator.h put between the guest's ring and the device.
 *
 * Control context: kicks and interrupts of these queues are events of the main loop. The device
 * reads descriptors and buffers in the guest's memory and rings in ours.
 */
#include "vdpa_internal.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include <linux/virtio_ring.h>

#include "devices/common/log.h"

/* The used ring has 4-byte fields and follows the available ring. */
static size_t used_at(uint16_t size)
{
	return (mediator_avail_size(size) + 3) & ~(size_t)3;
}

size_t vdpa_mediated_size(const struct vdpa *v, unsigned queue)
{
	uint16_t size = v->queues[queue].vring.size;

	return used_at(size) + mediator_used_size(size);
}

static int make_mediator(struct vdpa *v, struct vdpa_queue *q, size_t at)
{
	const struct bf_offload_vring *vring = &q->vring;
	struct bf_memory *memory = bf_backend_memory(v->be);
	const struct mediator_setup setup = {
		.size = vring->size,
		.base = (uint16_t)vring->base,
		.event_idx = bf_has(v->driver_features, VIRTIO_RING_F_EVENT_IDX),
		.may_go_direct = bf_has(v->device_features, VIRTIO_F_RING_RESET),
		.guest_avail = bf_memory_from_gpa(memory, vring->driver_gpa,
						  mediator_avail_size(vring->size)),
		.guest_used = bf_memory_from_gpa(memory, vring->device_gpa,
						 mediator_used_size(vring->size)),
		.shadow_avail = v->own.base + at,
		.shadow_used = v->own.base + at + used_at(vring->size),
	};

	if (!setup.guest_avail || !setup.guest_used)
		return -EFAULT;
	return mediator_new(&setup, &q->mediator);
}

int vdpa_mediate(struct vdpa *v, unsigned queue, size_t at)
{
	struct vdpa_queue *q = &v->queues[queue];
	const struct virtio_pci_queue_setup setup = {
		.queue = queue,
		.size = q->vring.size,
		.vector = vdpa_vector(queue),
		.desc_iova = q->vring.desc_gpa,
		.driver_iova = v->own.iova + at,
		.device_iova = v->own.iova + at + used_at(q->vring.size),
	};
	int ret = make_mediator(v, q, at);

	if (ret)
		goto failed;
	q->irq_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	ret = q->irq_fd < 0 ? -errno : 0;
	if (!ret)
		ret = virtio_pci_queue_start(v->pci, &setup);
	if (!ret)
		ret = vdpa_watch(v, q->irq_fd, EVENT_IRQ, queue);
	if (ret)
		goto failed;
	q->rings = bf_memory_ref(bf_backend_memory(v->be));
	q->in_device = true;
	q->nr_mediated++;
	/* The page that the front end may have kept is not a way to this ring. */
	if (q->doorbell == DOORBELL_MAPPED || q->doorbell == DOORBELL_PENDING)
		bf_backend_withdraw_doorbell(v->be, queue);
	q->doorbell = DOORBELL_OFF;
	log_info("queue %u goes on at %u: its notifications and interrupts pass through here until "
		 "%s",
		 queue, q->vring.base,
		 bf_has(v->device_features, VIRTIO_F_RING_RESET) ?
			 "its index comes to 0 or the guest resets the device" :
			 "the guest resets the device");
	return 0;

failed:
	log_error("queue %u cannot go on at %u: %s", queue, q->vring.base, strerror(-ret));
	if (q->irq_fd >= 0)
		close(q->irq_fd);
	q->irq_fd = -1;
	mediator_free(q->mediator);
	q->mediator = NULL;
	return ret;
}

static void take(int fd, int flags)
{
	uint64_t value;
	const struct iovec iov = { &value, sizeof(value) };

	/* Empty: it was taken already. */
	if (preadv2(fd, &iov, 1, -1, flags) < 0)
		return;
}

static void signal_guest(const struct vdpa_queue *q)
{
	const uint64_t one = 1;

	/* Full: it is signalled already. */
	if (q->vring.call_fd >= 0 && write(q->vring.call_fd, &one, sizeof(one)) < 0)
		return;
}

static void let_go(struct vdpa *v, struct vdpa_queue *q)
{
	if (q->irq_fd >= 0) {
		vdpa_unwatch(v, q->irq_fd);
		close(q->irq_fd);
		q->irq_fd = -1;
	}
	mediator_free(q->mediator);
	q->mediator = NULL;
	bf_memory_unref(q->rings);
	q->rings = NULL;
}

/* The ring is at 0 and the device has nothing of it: from here on it is the device's. */
static int go_direct(struct vdpa *v, unsigned queue)
{
	struct vdpa_queue *q = &v->queues[queue];
	int ret;

	vdpa_disconnect_queue(v, queue);
	ret = virtio_pci_queue_reset(v->pci, queue);
	if (ret)
		return ret;
	let_go(v, q);
	q->vring.base = q->position = 0;
	ret = vdpa_set_up_direct(v, queue);
	if (!ret)
		ret = vdpa_connect_queue(v, queue);
	if (ret)
		return ret;
	signal_guest(q);
	log_info("queue %u is the device's again", queue);
	vdpa_offer_doorbell(v, queue);
	return 0;
}

static void act(struct vdpa *v, unsigned queue, int todo)
{
	struct vdpa_queue *q = &v->queues[queue];

	if (todo < 0) {
		log_error("queue %u: its ring makes no sense; it is served no more", queue);
		vdpa_disconnect_queue(v, queue);
		return;
	}
	if (todo & MEDIATOR_RING)
		virtio_pci_ring(v->pci, queue);
	if (todo & MEDIATOR_CALL)
		signal_guest(q);
	if ((todo & MEDIATOR_DIRECT) && go_direct(v, queue))
		log_error("queue %u: the device does not take it back", queue);
}

static void pump(struct vdpa *v, unsigned queue)
{
	struct vdpa_queue *q = &v->queues[queue];

	act(v, queue, mediator_drain(q->mediator));
	if (q->mediator && q->watched_fd >= 0)
		act(v, queue, mediator_feed(q->mediator));
}

int vdpa_mediated_connect(struct vdpa *v, unsigned queue)
{
	struct vdpa_queue *q = &v->queues[queue];
	int ret = vfio_irq_set(v->vfio, vdpa_vector(queue), q->irq_fd);

	if (!ret && q->vring.kick_fd >= 0) {
		ret = vdpa_watch(v, q->vring.kick_fd, EVENT_KICK, queue);
		if (!ret)
			q->watched_fd = q->vring.kick_fd;
	}
	if (ret) {
		log_error("queue %u cannot be connected to its eventfds: %s", queue, strerror(-ret));
		return ret;
	}
	pump(v, queue);
	return 0;
}

void vdpa_mediated_event(struct vdpa *v, unsigned queue)
{
	struct vdpa_queue *q = &v->queues[queue];

	if (!q->mediator)
		return;
	/* Another process's eventfd: whatever was made of it, this does not wait. */
	if (q->watched_fd >= 0)
		take(q->watched_fd, RWF_NOWAIT);
	take(q->irq_fd, 0);
	pump(v, queue);
}

void vdpa_mediated_end(struct vdpa *v, unsigned queue)
{
	struct vdpa_queue *q = &v->queues[queue];

	if (mediator_drain(q->mediator) > 0)
		signal_guest(q);
	q->position = mediator_base(q->mediator);
	let_go(v, q);
}
