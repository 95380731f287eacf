/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What sysfs says of a PCI device: facts only, nothing is opened or changed.
 *
 * Control context. @sys is where sysfs is: SYSFS, or a made-up one in tests.
 */
#ifndef VDPA_SYSFS_H
#define VDPA_SYSFS_H

#include <stdbool.h>
#include <stdint.h>

#include "vfio.h"

#define SYSFS          "/sys"
#define SYSFS_NAME_LEN 64

struct sysfs_device {
	char bdf[VFIO_BDF_LEN];
	uint16_t vendor, device, subsystem_device;
	uint32_t class;
	char driver[SYSFS_NAME_LEN]; /* "": none */
	int group;                   /* IOMMU group, -1: none */
	bool noiommu;                /* a group without an IOMMU behind it */
};

/* @bdf: complete. -ENODEV: there is no such device. */
int sysfs_read_device(const char *sys, const char *bdf, struct sysfs_device *out);

/* virtio 1.2, 4.1.2: by vendor and device id. */
bool sysfs_is_virtio(const struct sysfs_device *device);
/* VIRTIO_ID_*; 0: not a virtio device. */
unsigned sysfs_virtio_type(const struct sysfs_device *device);
/* A device whose modern interface, if it has one, comes beside the legacy one. */
bool sysfs_is_transitional(const struct sysfs_device *device);

/* vfio-pci itself, or a variant of it for one kind of device. */
bool sysfs_driver_is_vfio(const char *driver);
/* Whether the kernel knows a PCI driver of this name. */
bool sysfs_has_driver(const char *sys, const char *driver);

/*
 * Another device of the group that keeps the group from being given away: bound to a driver that
 * does DMA for the kernel. 1 and @other; 0: none.
 */
int sysfs_group_blocker(const char *sys, const struct sysfs_device *device,
			struct sysfs_device *other);

#endif
