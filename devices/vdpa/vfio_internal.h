/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What vfio_device.c (regions, interrupts: any VFIO) and vfio_type1.c (address space: containers
 * and groups) share.
 */
#ifndef VDPA_VFIO_INTERNAL_H
#define VDPA_VFIO_INTERNAL_H

#include <linux/vfio.h>

#include "sysfs.h"
#include "vfio.h"

struct vfio_area {
	uint64_t offset, size;
};

struct vfio_window {
	struct vfio_region region;
	/* What of it can be mapped; set only if that is not all. */
	struct vfio_area *areas;
	unsigned nr_areas;
	bool sparse;
};

struct vfio_mapping {
	uint64_t iova, size;
};

struct vfio_device {
	char bdf[VFIO_BDF_LEN];
	int fd;
	bool can_reset, irqs_on;
	unsigned nr_vectors;
	struct vfio_window windows[VFIO_PCI_NUM_REGIONS];

	/* The address space. */
	int container_fd, group_fd;
	struct vfio_dma_range *ranges;
	unsigned nr_ranges;
	struct vfio_mapping *mappings;
	unsigned nr_mappings, max_mappings;
};

/* Makes an address space, puts the device into it, opens the device's fd. Says why not. */
int vfio_space_open(struct vfio_device *dev, const struct sysfs_device *facts);
/* After the device's fd was closed. Of a half-open one as well. */
void vfio_space_close(struct vfio_device *dev);

/*
 * The kernel's chains of capabilities: the first with @id and at least @len bytes, in the answer of
 * @size bytes whose chain begins at @offset. NULL if there is none.
 */
const void *vfio_find_capability(const void *answer, uint32_t size, uint32_t offset, uint16_t id,
				 uint32_t len);

#endif
