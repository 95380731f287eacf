/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The status machine of a virtio device (virtio 1.2, 2.1 and 3.1), and the life of its queues.
 *
 * Runs under the device's lock, on a vCPU thread or on the device's control context. It decides
 * when the device model is told to start and stop; register access is virtio_pci_common.c's.
 * A queue's registers are frozen from enable to reset, so what was checked here is what runs.
 */
#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <linux/virtio_config.h>

#include "virtio_pci_internal.h"

#define DRIVER_BITS                                                                         \
	(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_DRIVER_OK | \
	 VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_FAILED)

static bool has_feature(const struct virtio_pci *vp, unsigned bit)
{
	return vp->dev->driver_features >> bit & 1;
}

void virtio_pci_config_interrupt(struct virtio_pci *vp)
{
	vp->isr |= VIRTIO_PCI_ISR_CONFIG_CHANGE;
	eventfd_write(vp->config_fd, 1);
}

void virtio_pci_needs_reset(struct virtio_pci *vp)
{
	if (!vp->status || vp->status & VIRTIO_CONFIG_S_NEEDS_RESET)
		return;
	vp->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
	/* 2.1.2: the interrupt is owed only to a driver that set DRIVER_OK. */
	if (vp->status & VIRTIO_CONFIG_S_DRIVER_OK)
		virtio_pci_config_interrupt(vp);
}

static bool part_in_ram(struct virtio_pci *vp, uint64_t gpa, uint64_t len, uint64_t align)
{
	return gpa % align == 0 && vm_gpa_to_hva(vp->vm, gpa, len);
}

/* 2.7 and 2.8: sizes and alignments of the three parts, split or packed. */
static bool ring_in_ram(struct virtio_pci *vp, const struct virtio_queue *q)
{
	uint64_t n = q->size;

	if (!part_in_ram(vp, q->desc_gpa, 16 * n, 16))
		return false;
	if (has_feature(vp, VIRTIO_F_RING_PACKED))
		return part_in_ram(vp, q->driver_gpa, 4, 4) && part_in_ram(vp, q->device_gpa, 4, 4);
	return part_in_ram(vp, q->driver_gpa, 6 + 2 * n, 2) &&
	       part_in_ram(vp, q->device_gpa, 6 + 8 * n, 4);
}

static int check_queue(struct virtio_pci *vp, unsigned idx)
{
	const struct virtio_queue *q = &vp->dev->queues[idx];

	if (ring_in_ram(vp, q))
		return 0;
	report_limited(
		&vp->limit,
		"%s: queue %u refused: the driver's ring (%u entries; descriptors 0x%llx, driver "
		"area 0x%llx, device area 0x%llx) is misaligned or not in guest RAM",
		vp->dev->name, idx, q->size, (unsigned long long)q->desc_gpa,
		(unsigned long long)q->driver_gpa, (unsigned long long)q->device_gpa);
	return -EFAULT;
}

static void start(struct virtio_pci *vp)
{
	unsigned i;
	int err = 0;

	for (i = 0; i < vp->dev->nr_queues && !err; i++)
		if (vp->dev->queues[i].enabled)
			err = check_queue(vp, i);
	if (!err)
		err = vp->dev->ops->start(vp->dev);
	if (err)
		virtio_pci_needs_reset(vp);
}

/* 3.1.1 step 5: the bit reads back as set only if the device can work with the subset. */
static bool accept_features(struct virtio_pci *vp)
{
	uint64_t features = vp->driver_features;

	if (features & ~vp->dev->features || !(features >> VIRTIO_F_VERSION_1 & 1))
		return false;
	if (vp->dev->ops->set_features(vp->dev, features))
		return false;
	vp->dev->driver_features = features;
	return true;
}

void virtio_pci_status_write(struct virtio_pci *vp, uint8_t value)
{
	/* 2.1.1: a driver never clears a bit except by writing 0; one that tries changes nothing.
	 */
	uint8_t rising = value & DRIVER_BITS & (uint8_t)~vp->status;

	if (!value) {
		virtio_pci_device_reset(vp);
		return;
	}
	vp->status |= rising & (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER |
				VIRTIO_CONFIG_S_FAILED);
	if (vp->status & VIRTIO_CONFIG_S_NEEDS_RESET)
		return;
	if (rising & VIRTIO_CONFIG_S_FEATURES_OK && vp->status & VIRTIO_CONFIG_S_DRIVER &&
	    accept_features(vp))
		vp->status |= VIRTIO_CONFIG_S_FEATURES_OK;
	if (rising & VIRTIO_CONFIG_S_DRIVER_OK && vp->status & VIRTIO_CONFIG_S_FEATURES_OK) {
		vp->status |= VIRTIO_CONFIG_S_DRIVER_OK;
		start(vp);
	}
}

void virtio_pci_queue_enable(struct virtio_pci *vp, unsigned queue)
{
	bool running = vp->status & VIRTIO_CONFIG_S_DRIVER_OK;
	struct virtio_queue *q = &vp->dev->queues[queue];

	if (q->enabled || !(vp->status & VIRTIO_CONFIG_S_FEATURES_OK))
		return;
	if (!running) {
		q->enabled = true;
		return;
	}
	/* After DRIVER_OK a queue may come (back) only with ring reset (2.6.1.2). */
	if (!has_feature(vp, VIRTIO_F_RING_RESET) || vp->status & VIRTIO_CONFIG_S_NEEDS_RESET)
		return;
	q->enabled = true;
	if (check_queue(vp, queue) || vp->dev->ops->queue_start(vp->dev, queue))
		virtio_pci_needs_reset(vp);
}

/* An event of the previous life must not interrupt the next one. */
static void drain(int fd)
{
	eventfd_t count;

	eventfd_read(fd, &count);
}

static void clear_queue(struct virtio_pci *vp, unsigned idx)
{
	struct virtio_queue *q = &vp->dev->queues[idx];

	q->enabled = false;
	q->size = q->max_size;
	q->desc_gpa = 0;
	q->driver_gpa = 0;
	q->device_gpa = 0;
	msix_bind(&vp->msix, &vp->queues[idx].source, MSIX_NO_VECTOR);
	drain(q->call_fd);
}

void virtio_pci_queue_reset(struct virtio_pci *vp, unsigned queue)
{
	if (!has_feature(vp, VIRTIO_F_RING_RESET) || !vp->dev->queues[queue].enabled)
		return;
	if (vp->status & VIRTIO_CONFIG_S_DRIVER_OK && vp->dev->ops->queue_stop(vp->dev, queue))
		virtio_pci_needs_reset(vp);
	clear_queue(vp, queue);
}

void virtio_pci_device_reset(struct virtio_pci *vp)
{
	unsigned i;

	vp->dev->ops->reset(vp->dev);
	for (i = 0; i < vp->dev->nr_queues; i++)
		clear_queue(vp, i);
	msix_bind(&vp->msix, &vp->config_source, MSIX_NO_VECTOR);
	drain(vp->config_fd);
	vp->isr = 0;
	vp->device_feature_select = 0;
	vp->driver_feature_select = 0;
	vp->queue_select = 0;
	vp->driver_features = 0;
	vp->dev->driver_features = 0;
	vp->status = 0;
}
