/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Why a device cannot be had, in a sentence for people: what was expected, what was found, and the
 * command that mends it. Control context; opens and changes nothing.
 */
#ifndef VDPA_VFIO_EXPLAIN_H
#define VDPA_VFIO_EXPLAIN_H

#include <stddef.h>

#include "sysfs.h"

#define EXPLAIN_LEN 850 /* fits a log line */

/* Where to look; tests have places of their own. */
struct vfio_places {
	const char *sys, *dev, *proc, *driverctl;
};

extern const struct vfio_places vfio_real_places;

/*
 * Before anything is opened. 0 and @facts: nothing speaks against it. Otherwise negative errno and
 * the sentence, which begins after the device's name:
 * -ENODEV no such device; -ENXIO no virtio device; -EOPNOTSUPP no IOMMU; -EADDRINUSE not bound to
 * vfio-pci; -EBUSY the group is shared with a device in use.
 */
int vfio_explain_device(const struct vfio_places *places, const char *bdf,
			struct sysfs_device *facts, char text[EXPLAIN_LEN]);

/* open() of /dev/vfio/vfio, or of the group's node, failed with @error (positive). */
void vfio_explain_container(const struct vfio_places *places, int error, char text[EXPLAIN_LEN]);
void vfio_explain_group(const struct vfio_places *places, const struct sysfs_device *facts,
			int error, char text[EXPLAIN_LEN]);
/* The kernel says that the group is not viable. */
void vfio_explain_not_viable(const struct vfio_places *places, const struct sysfs_device *facts,
			     char text[EXPLAIN_LEN]);

#endif
