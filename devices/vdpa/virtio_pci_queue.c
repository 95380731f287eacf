/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Queues and doorbells of the device. Control context; virtio_pci_ring() from any thread.
 *
 * What ringing needs is learned when features are agreed, and not changed while a queue is started:
 * so ringing takes no lock, and needs no queue_select.
 */
#include <errno.h>
#include <unistd.h>

#include "virtio_pci_internal.h"

#ifndef VIRTIO_F_RING_RESET
#define VIRTIO_F_RING_RESET 40
#endif

/* Of virtio 1.2; a device of before has a shorter structure. */
#define Q_RESET 58

static void select_queue(const struct virtio_pci *vp, unsigned queue)
{
	virtio_pci_put16(vp, VIRTIO_PCI_COMMON_Q_SELECT, (uint16_t)queue);
}

/* 4.1.4.4: the doorbell is at queue_notify_off * notify_off_multiplier. */
static void learn_queue(struct virtio_pci *vp, unsigned idx)
{
	const struct virtio_pci_structure *notify = &vp->caps.notify;
	struct virtio_pci_queue *queue = &vp->queues[idx];
	uint64_t offset;

	select_queue(vp, idx);
	queue->max_size = virtio_pci_get16(vp, VIRTIO_PCI_COMMON_Q_SIZE);
	offset = (uint64_t)virtio_pci_get16(vp, VIRTIO_PCI_COMMON_Q_NOFF) *
		 vp->caps.notify_multiplier;
	/* A doorbell outside of its structure is no doorbell, and its queue no queue. */
	if (queue->max_size > 32768 || offset > notify->length - 2)
		queue->max_size = 0;
	queue->doorbell = queue->max_size ? notify->offset + offset : 0;
}

void virtio_pci_learn_queues(struct virtio_pci *vp)
{
	unsigned i;

	for (i = 0; i < vp->nr_queues; i++)
		learn_queue(vp, i);
}

uint16_t virtio_pci_queue_max_size(const struct virtio_pci *vp, unsigned queue)
{
	return queue < vp->nr_queues ? vp->queues[queue].max_size : 0;
}

static void put_address(const struct virtio_pci *vp, unsigned at, uint64_t iova)
{
	/* 4.1.3.1: a 64-bit field as two of 32 bits. */
	virtio_pci_put32(vp, at, (uint32_t)iova);
	virtio_pci_put32(vp, at + 4, (uint32_t)(iova >> 32));
}

static int set_vector(const struct virtio_pci *vp, unsigned at, uint16_t vector)
{
	virtio_pci_put16(vp, at, vector);
	/* 4.1.5.1.2: a device without resources for it answers NO_VECTOR. */
	return virtio_pci_get16(vp, at) == vector ? 0 : -ENOSPC;
}

int virtio_pci_queue_start(struct virtio_pci *vp, const struct virtio_pci_queue_setup *setup)
{
	uint16_t max = virtio_pci_queue_max_size(vp, setup->queue);
	int ret;

	if (!setup->size || setup->size > max)
		return -EINVAL;
	select_queue(vp, setup->queue);
	if (virtio_pci_get16(vp, VIRTIO_PCI_COMMON_Q_ENABLE))
		return -EBUSY;
	virtio_pci_put16(vp, VIRTIO_PCI_COMMON_Q_SIZE, setup->size);
	if (virtio_pci_get16(vp, VIRTIO_PCI_COMMON_Q_SIZE) != setup->size)
		return -EINVAL;
	ret = set_vector(vp, VIRTIO_PCI_COMMON_Q_MSIX, setup->vector);
	if (ret)
		return ret;
	put_address(vp, VIRTIO_PCI_COMMON_Q_DESCLO, setup->desc_iova);
	put_address(vp, VIRTIO_PCI_COMMON_Q_AVAILLO, setup->driver_iova);
	put_address(vp, VIRTIO_PCI_COMMON_Q_USEDLO, setup->device_iova);
	virtio_pci_put16(vp, VIRTIO_PCI_COMMON_Q_ENABLE, 1);
	return virtio_pci_get16(vp, VIRTIO_PCI_COMMON_Q_ENABLE) == 1 ? 0 : -EIO;
}

int virtio_pci_queue_reset(struct virtio_pci *vp, unsigned queue)
{
	int ret;

	if (!(vp->agreed & 1ull << VIRTIO_F_RING_RESET) || vp->caps.common.length < Q_RESET + 2)
		return -ENOTSUP;
	if (queue >= vp->nr_queues)
		return -EINVAL;
	select_queue(vp, queue);
	virtio_pci_put16(vp, Q_RESET, 1);
	/* 2.6.1: only when both read 0 the queue is forgotten. */
	ret = virtio_pci_wait(vp, Q_RESET, 2, 0);
	return ret ? ret : virtio_pci_wait(vp, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 0);
}

int virtio_pci_config_vector(struct virtio_pci *vp, uint16_t vector)
{
	return set_vector(vp, VIRTIO_PCI_COMMON_MSIX, vector);
}

void virtio_pci_ring(const struct virtio_pci *vp, unsigned queue)
{
	struct virtio_pci_structure bell = { .bar = vp->caps.notify.bar, .length = 2 };

	if (!virtio_pci_queue_max_size(vp, queue))
		return;
	bell.offset = vp->queues[queue].doorbell;
	/* What was put into the ring, by whomever, comes first; partner: the device's read of it. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	virtio_pci_put(vp, &bell, 0, 2, queue);
}

static bool overlap(uint64_t a, uint64_t a_len, uint64_t b, uint64_t b_len)
{
	return a < b + b_len && b < a + a_len;
}

/* Whether anything but the queue's own doorbell is known to be in this page of the notify BAR. */
static bool page_is_shared(const struct virtio_pci *vp, unsigned queue, uint64_t offset,
			   uint64_t page)
{
	const struct virtio_pci_caps *caps = &vp->caps;
	unsigned i;

	for (i = 0; i < vp->nr_queues; i++)
		if (i != queue && vp->queues[i].max_size &&
		    overlap(offset, page, vp->queues[i].doorbell, 2))
			return true;
	/* The guest must not reach the registers of the device, nor its MSI-X table. */
	for (i = 0; i < caps->nr_taken; i++)
		if (caps->taken[i].bar == caps->notify.bar &&
		    overlap(offset, page, caps->taken[i].offset, caps->taken[i].length))
			return true;
	return false;
}

int virtio_pci_doorbell(const struct virtio_pci *vp, unsigned queue, uint64_t *offset)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), at;
	struct vfio_region region;
	int ret;

	if (!virtio_pci_queue_max_size(vp, queue))
		return -EINVAL;
	at = vp->queues[queue].doorbell;
	if (at % page || !vfio_can_map(vp->vfio, vp->caps.notify.bar, at, page) ||
	    page_is_shared(vp, queue, at, page))
		return -ENOTSUP;
	ret = vfio_region(vp->vfio, vp->caps.notify.bar, &region);
	if (ret)
		return ret;
	*offset = region.offset + at;
	return 0;
}
