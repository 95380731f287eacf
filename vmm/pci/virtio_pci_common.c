/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The common configuration structure (virtio 1.2, 4.1.4.3): what each register reads and writes.
 *
 * Runs on vCPU threads under the device's lock. Reads of any width come from a picture of the whole
 * structure; a write counts only if it is exactly one field, or one half of a 64-bit field, which
 * is all the specification lets a driver do (4.1.3.1).
 */
#include <stddef.h>

#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>

#include "virtio_pci_internal.h"

#define COMMON_SIZE 64

/* The queue that the driver selected, or NULL: none of its registers exists then. */
static struct virtio_queue *selected(const struct virtio_pci *vp)
{
	return vp->queue_select < vp->dev->nr_queues ? &vp->dev->queues[vp->queue_select] : NULL;
}

static uint32_t feature_word(uint64_t features, uint32_t select)
{
	return select < 2 ? (uint32_t)(features >> (32 * select)) : 0;
}

static void set64(uint8_t *field, uint64_t value)
{
	memcpy(field, &value, sizeof(value));
}

static void picture_queue(const struct virtio_pci *vp, uint8_t *regs)
{
	const struct virtio_queue *q = selected(vp);

	if (!q)
		return;
	pci_set16(regs + VIRTIO_PCI_COMMON_Q_SIZE, q->size);
	pci_set16(regs + VIRTIO_PCI_COMMON_Q_MSIX, vp->queues[vp->queue_select].source.vector);
	pci_set16(regs + VIRTIO_PCI_COMMON_Q_ENABLE, q->enabled);
	pci_set16(regs + VIRTIO_PCI_COMMON_Q_NOFF, (uint16_t)vp->queue_select);
	set64(regs + VIRTIO_PCI_COMMON_Q_DESCLO, q->desc_gpa);
	set64(regs + VIRTIO_PCI_COMMON_Q_AVAILLO, q->driver_gpa);
	set64(regs + VIRTIO_PCI_COMMON_Q_USEDLO, q->device_gpa);
	pci_set16(regs + VIRTIO_PCI_COMMON_Q_NDATA, (uint16_t)vp->queue_select);
	/* queue_reset reads 0: a reset is complete when the write returns. */
}

static void picture(const struct virtio_pci *vp, uint8_t *regs)
{
	memset(regs, 0, COMMON_SIZE);
	pci_set32(regs + VIRTIO_PCI_COMMON_DFSELECT, vp->device_feature_select);
	pci_set32(regs + VIRTIO_PCI_COMMON_DF,
		  feature_word(vp->dev->features, vp->device_feature_select));
	pci_set32(regs + VIRTIO_PCI_COMMON_GFSELECT, vp->driver_feature_select);
	pci_set32(regs + VIRTIO_PCI_COMMON_GF,
		  feature_word(vp->driver_features, vp->driver_feature_select));
	pci_set16(regs + VIRTIO_PCI_COMMON_MSIX, vp->config_source.vector);
	pci_set16(regs + VIRTIO_PCI_COMMON_NUMQ, (uint16_t)vp->dev->nr_queues);
	regs[VIRTIO_PCI_COMMON_STATUS] = vp->status;
	regs[VIRTIO_PCI_COMMON_CFGGENERATION] = vp->config_generation;
	pci_set16(regs + VIRTIO_PCI_COMMON_Q_SELECT, (uint16_t)vp->queue_select);
	picture_queue(vp, regs);
}

void virtio_pci_common_read(struct virtio_pci *vp, uint64_t offset, void *data, unsigned len)
{
	uint8_t regs[COMMON_SIZE];

	memset(data, 0, len);
	if (len > COMMON_SIZE || offset > COMMON_SIZE - len)
		return;
	picture(vp, regs);
	memcpy(data, regs + offset, len);
}

/* Once FEATURES_OK is accepted the features are settled until reset. */
static void write_driver_features(struct virtio_pci *vp, uint32_t value)
{
	unsigned shift = 32 * vp->driver_feature_select;

	if (vp->driver_feature_select >= 2 || vp->status & VIRTIO_CONFIG_S_FEATURES_OK)
		return;
	vp->driver_features &= ~((uint64_t)UINT32_MAX << shift);
	vp->driver_features |= (uint64_t)value << shift;
}

/* A vector that cannot be had reads back as "none" (4.1.5.1.3.2): msix_bind() leaves that behind.
 */
static void write_vector(struct virtio_pci *vp, struct msix_source *source, uint16_t vector)
{
	int err = msix_bind(&vp->msix, source, vector);

	if (err)
		report_limited(&vp->limit, "%s: no interrupt for vector %u: %s", vp->dev->name,
			       vector, strerror(-err));
}

static void write_queue_size(struct virtio_queue *q, uint16_t size)
{
	if (!q->enabled && size && !(size & (size - 1)) && size <= q->max_size)
		q->size = size;
}

static bool write32(struct virtio_pci *vp, uint64_t offset, uint32_t value)
{
	switch (offset) {
	case VIRTIO_PCI_COMMON_DFSELECT:
		vp->device_feature_select = value;
		return true;
	case VIRTIO_PCI_COMMON_GFSELECT:
		vp->driver_feature_select = value;
		return true;
	case VIRTIO_PCI_COMMON_GF:
		write_driver_features(vp, value);
		return true;
	default:
		return false;
	}
}

/* A half of a ring address. */
static void write_queue32(struct virtio_queue *q, uint64_t offset, uint32_t value)
{
	uint64_t *gpa;

	switch (offset & ~7ull) {
	case VIRTIO_PCI_COMMON_Q_DESCLO:
		gpa = &q->desc_gpa;
		break;
	case VIRTIO_PCI_COMMON_Q_AVAILLO:
		gpa = &q->driver_gpa;
		break;
	case VIRTIO_PCI_COMMON_Q_USEDLO:
		gpa = &q->device_gpa;
		break;
	default:
		return;
	}
	if (q->enabled || offset % 4)
		return;
	if (offset & 4)
		*gpa = (uint32_t)*gpa | (uint64_t)value << 32;
	else
		*gpa = (*gpa & ~(uint64_t)UINT32_MAX) | value;
}

static void write_queue16(struct virtio_pci *vp, struct virtio_queue *q, uint64_t offset,
			  uint16_t value)
{
	switch (offset) {
	case VIRTIO_PCI_COMMON_Q_SIZE:
		write_queue_size(q, value);
		break;
	case VIRTIO_PCI_COMMON_Q_MSIX:
		write_vector(vp, &vp->queues[vp->queue_select].source, value);
		break;
	case VIRTIO_PCI_COMMON_Q_ENABLE:
		if (value == 1)
			virtio_pci_queue_enable(vp, vp->queue_select);
		break;
	case VIRTIO_PCI_COMMON_Q_RESET:
		if (value == 1)
			virtio_pci_queue_reset(vp, vp->queue_select);
		break;
	default:
		break;
	}
}

static bool write16(struct virtio_pci *vp, uint64_t offset, uint16_t value)
{
	switch (offset) {
	case VIRTIO_PCI_COMMON_MSIX:
		write_vector(vp, &vp->config_source, value);
		return true;
	case VIRTIO_PCI_COMMON_Q_SELECT:
		vp->queue_select = value;
		return true;
	default:
		return false;
	}
}

void virtio_pci_common_write(struct virtio_pci *vp, uint64_t offset, const void *data, unsigned len)
{
	struct virtio_queue *q = selected(vp);
	const uint8_t *bytes = data;

	if (len == 1 && offset == VIRTIO_PCI_COMMON_STATUS) {
		virtio_pci_status_write(vp, bytes[0]);
	} else if (len == 2) {
		if (!write16(vp, offset, pci_get16(bytes)) && q)
			write_queue16(vp, q, offset, pci_get16(bytes));
	} else if (len == 4) {
		if (!write32(vp, offset, pci_get32(bytes)) && q)
			write_queue32(q, offset, pci_get32(bytes));
	} else if (len == 8 && q && offset % 8 == 0) {
		write_queue32(q, offset, pci_get32(bytes));
		write_queue32(q, offset + 4, pci_get32(bytes + 4));
	}
}
