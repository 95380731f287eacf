/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * VFIO, behind one small interface: an address space that a device does DMA in, and the device.
 *
 * Today's implementation is the type1 container with its groups (vfio_type1.c); iommufd can be a
 * second one. What is the same for both, regions and interrupts of a device fd, is vfio_device.c.
 *
 * Control context, except vfio_read() and vfio_write() of regions, which any thread may call.
 * Whoever opens gets its reasons in the log, with the command that mends them; every other call
 * returns negative errno and says nothing.
 *
 * No region is ever mapped into this process. The front end holds the device's fd too, for its
 * doorbells, and could switch the device's memory off: a mapped register would then be a SIGBUS
 * here, while a write to the fd fails with -EIO.
 */
#ifndef VDPA_VFIO_H
#define VDPA_VFIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* domain:bus:device.function, as sysfs writes it. */
#define VFIO_BDF_LEN 17

/* Complete a short "01:00.0" to "0000:01:00.0". -EINVAL if it is neither. */
int vfio_bdf_parse(const char *text, char bdf[VFIO_BDF_LEN]);

struct vfio_device;

struct vfio_region {
	uint64_t size;   /* 0: the device has no such region */
	uint64_t offset; /* of it in the device's fd */
	bool mappable;   /* at least in part: vfio_can_map() */
};

struct vfio_dma_range {
	uint64_t first, last; /* both inclusive */
};

/*
 * vfio_open - take @bdf and put it into an address space of its own, empty. The device is reset,
 * does memory accesses and is bus master. Says why not. Raises this process's soft limit of locked
 * memory to the hard one.
 */
int vfio_open(const char *bdf, struct vfio_device **out);
/*
 * Stops and resets the device, so that nothing of it reaches memory any more; then unmaps and
 * closes. NULL is fine. The front end's copies of vfio_fd() keep the device taken until it closes
 * them.
 */
void vfio_close(struct vfio_device *dev);

/* The device's own fd: what doorbell pages are mapped from. Borrowed. */
int vfio_fd(const struct vfio_device *dev);
const char *vfio_name(const struct vfio_device *dev); /* its BDF */

/* @index: VFIO_PCI_BAR0_REGION_INDEX, ..., VFIO_PCI_CONFIG_REGION_INDEX. -EINVAL no such index. */
int vfio_region(const struct vfio_device *dev, unsigned index, struct vfio_region *region);
/*
 * All of @len or nothing: -EINVAL outside of the region, -EIO the device does not answer. A BAR is
 * accessed in the widest aligned units of at most 4 bytes.
 */
int vfio_read(const struct vfio_device *dev, unsigned index, uint64_t offset, void *data,
	      size_t len);
int vfio_write(const struct vfio_device *dev, unsigned index, uint64_t offset, const void *data,
	       size_t len);
/* Whether another process can map this part of a region from vfio_fd(). Page-aligned both. */
bool vfio_can_map(const struct vfio_device *dev, unsigned index, uint64_t offset, uint64_t len);

/* Function-level reset, or the reset of its bus. -ENOTTY if it has none. Interrupts, bus mastering
 * and DMA mappings stay as they are. */
int vfio_reset(struct vfio_device *dev);

/*
 * MSI-X: how many vectors. All are enabled, without receiver, by vfio_irq_enable(); if the kernel
 * has not got so many to give, their number is lower from then on.
 */
unsigned vfio_nr_vectors(const struct vfio_device *dev);
int vfio_irq_enable(struct vfio_device *dev);
void vfio_irq_disable(struct vfio_device *dev);
/*
 * The eventfd that a vector signals from now on (borrowed; the kernel keeps its own reference), -1:
 * none. Only this vector is touched. -EINVAL not enabled, or no such vector. An interrupt that
 * comes while there is no receiver waits in the device, and is delivered to the next one.
 */
int vfio_irq_set(struct vfio_device *dev, unsigned vector, int eventfd);
/* Signalled when the kernel wants the device back (unbind, unplug). -1: none. */
int vfio_set_request_fd(struct vfio_device *dev, int eventfd);

/*
 * DMA. @hva must stay mapped; page-aligned all. -ENOMEM: the memory limit, vfio_memory_limit();
 * -ENOSPC: too many mappings, vfio_mapping_limit(); -EEXIST an overlap; -EINVAL not aligned, or an
 * @iova that the IOMMU cannot translate; -EFAULT memory that cannot be read and written.
 */
int vfio_dma_map(struct vfio_device *dev, uint64_t iova, void *hva, uint64_t size);
/* Exactly what was mapped there. -ENOENT */
int vfio_dma_unmap(struct vfio_device *dev, uint64_t iova, uint64_t size);
void vfio_dma_unmap_all(struct vfio_device *dev);
/* Addresses the IOMMU takes, ascending. Borrowed. At least one. */
unsigned vfio_iova_ranges(const struct vfio_device *dev, const struct vfio_dma_range **ranges);
/* What is mapped now. */
unsigned vfio_dma_count(const struct vfio_device *dev, uint64_t *bytes);
/* Bytes that this process may lock (RLIMIT_MEMLOCK), UINT64_MAX: no limit. */
uint64_t vfio_memory_limit(void);
/* Mappings that one device may have: parameter dma_entry_limit of vfio_iommu_type1. 0: unknown. */
unsigned vfio_mapping_limit(void);

#endif
