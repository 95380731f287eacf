/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The driver of a modern virtio-pci device (virtio 1.2, 4.1) through VFIO: registers and nothing
 * else. What a queue is used for, and by whom, is not known here.
 *
 * Control context, except virtio_pci_ring(), which may be called from any thread for a queue that
 * is started. The device is not trusted with this process: every offset and length it states is
 * checked against its regions.
 */
#ifndef VDPA_VIRTIO_PCI_H
#define VDPA_VIRTIO_PCI_H

#include <stdbool.h>
#include <stdint.h>

#include "vfio.h"

struct virtio_pci;

/*
 * Says why not: no virtio device, legacy only, not behind the IOMMU (ACCESS_PLATFORM), less than 2
 * MSI-X vectors, structures that make no sense. Leaves the device reset.
 */
int virtio_pci_new(struct vfio_device *vfio, struct virtio_pci **out);
/* Resets it (status 0) first. NULL is fine. */
void virtio_pci_free(struct virtio_pci *vp);

unsigned virtio_pci_device_id(const struct virtio_pci *vp); /* VIRTIO_ID_* */
/* As many as it has with all features agreed. */
unsigned virtio_pci_nr_queues(const struct virtio_pci *vp);
/* Bytes of device configuration space that there are; may be more than the type has fields. */
uint32_t virtio_pci_config_size(const struct virtio_pci *vp);
/* Offered, but for what changes the registers that are used here: NOTIFICATION_DATA,
 * NOTIF_CONFIG_DATA, ADMIN_VQ, SR_IOV. */
uint64_t virtio_pci_features(const struct virtio_pci *vp);

/*
 * virtio_pci_reset - status 0, and wait until the device has done it (bounded). After this no DMA
 * and no interrupt of it comes. -ETIMEDOUT, -ENODEV (all ones are read: it is gone).
 */
int virtio_pci_reset(struct virtio_pci *vp);
/*
 * Reset to FEATURES_OK with exactly @features. -EINVAL: the device refuses them. The sizes and
 * doorbells of its queues may be others from now on (a net device without MQ has its control queue
 * elsewhere), so nothing may be ringing.
 */
int virtio_pci_negotiate(struct virtio_pci *vp, uint64_t features);
int virtio_pci_driver_ok(struct virtio_pci *vp);
uint8_t virtio_pci_status(const struct virtio_pci *vp);

/* Most entries of a queue; 0: not available with the features that were agreed last. */
uint16_t virtio_pci_queue_max_size(const struct virtio_pci *vp, unsigned queue);
#define VIRTIO_PCI_NO_VECTOR 0xffff
struct virtio_pci_queue_setup {
	unsigned queue;
	uint16_t size;
	uint16_t vector; /* or VIRTIO_PCI_NO_VECTOR */
	uint64_t desc_iova, driver_iova, device_iova;
};
/*
 * Set up and enable. -EINVAL no such queue, or a size it does not take; -EBUSY it is enabled
 * already; -ENOSPC a vector it does not take; -EIO it did not take it.
 */
int virtio_pci_queue_start(struct virtio_pci *vp, const struct virtio_pci_queue_setup *setup);
/* VIRTIO_F_RING_RESET: stop this queue alone; it may be started again. -ETIMEDOUT, -ENODEV,
 * -ENOTSUP without that feature. */
int virtio_pci_queue_reset(struct virtio_pci *vp, unsigned queue);
/* The vector of configuration changes, or VIRTIO_PCI_NO_VECTOR. -ENOSPC */
int virtio_pci_config_vector(struct virtio_pci *vp, uint16_t vector);

/*
 * Device configuration, consistent by its generation. -EINVAL: range outside of config_size, or a
 * read of more than 256 bytes; -EAGAIN: it never held still; -EIO.
 */
int virtio_pci_config_read(const struct virtio_pci *vp, uint32_t offset, void *data, uint32_t len);
int virtio_pci_config_write(struct virtio_pci *vp, uint32_t offset, const void *data, uint32_t len);

/* Ring a queue's doorbell: one store (16 bits, the index). Any thread. */
void virtio_pci_ring(const struct virtio_pci *vp, unsigned queue);
/*
 * Where the doorbell is in vfio_fd(): *@offset of its page. -ENOTSUP: it is not at the beginning of
 * a page, shares the page with another queue's or with other registers, or the page cannot be
 * mapped: relay only.
 */
int virtio_pci_doorbell(const struct virtio_pci *vp, unsigned queue, uint64_t *offset);

#endif
