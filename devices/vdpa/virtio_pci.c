/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Life cycle of the device: found, reset, negotiated, running (virtio 1.2, 3.1.1). Control context.
 */
#include <errno.h>
#include <inttypes.h>
#include <linux/vfio.h>
#include <stdlib.h>
#include <string.h>

#include "devices/common/log.h"
#include "virtio_pci_internal.h"

#ifndef VIRTIO_F_NOTIFICATION_DATA
#define VIRTIO_F_NOTIFICATION_DATA 38
#endif
#define F_NOTIF_CONFIG_DATA 39
#define F_ADMIN_VQ          41

/* Not driven here: each of these changes what a register of ours means. */
static const uint64_t not_driven = 1ull << VIRTIO_F_NOTIFICATION_DATA |
				   1ull << F_NOTIF_CONFIG_DATA | 1ull << F_ADMIN_VQ |
				   1ull << VIRTIO_F_SR_IOV;

static uint64_t read_features(const struct virtio_pci *vp)
{
	uint64_t features;

	virtio_pci_put32(vp, VIRTIO_PCI_COMMON_DFSELECT, 0);
	features = virtio_pci_get32(vp, VIRTIO_PCI_COMMON_DF);
	virtio_pci_put32(vp, VIRTIO_PCI_COMMON_DFSELECT, 1);
	return features | (uint64_t)virtio_pci_get32(vp, VIRTIO_PCI_COMMON_DF) << 32;
}

static void write_features(const struct virtio_pci *vp, uint64_t features)
{
	virtio_pci_put32(vp, VIRTIO_PCI_COMMON_GFSELECT, 0);
	virtio_pci_put32(vp, VIRTIO_PCI_COMMON_GF, (uint32_t)features);
	virtio_pci_put32(vp, VIRTIO_PCI_COMMON_GFSELECT, 1);
	virtio_pci_put32(vp, VIRTIO_PCI_COMMON_GF, (uint32_t)(features >> 32));
}

static int add_status(struct virtio_pci *vp, uint8_t bits)
{
	uint8_t status = virtio_pci_status(vp);

	if (status == 0xff)
		return -ENODEV;
	virtio_pci_put8(vp, VIRTIO_PCI_COMMON_STATUS, status | bits);
	status = virtio_pci_status(vp);
	if (status == 0xff)
		return -ENODEV;
	return (status & bits) == bits ? 0 : -EINVAL;
}

int virtio_pci_reset(struct virtio_pci *vp)
{
	virtio_pci_put8(vp, VIRTIO_PCI_COMMON_STATUS, 0);
	/* 4.1.4.3.2: the reset is over when 0 is read back. Also flushes the write. */
	return virtio_pci_wait(vp, VIRTIO_PCI_COMMON_STATUS, 1, 0);
}

int virtio_pci_negotiate(struct virtio_pci *vp, uint64_t features)
{
	int ret;

	if (features & ~vp->features)
		return -EINVAL;
	ret = virtio_pci_reset(vp);
	if (!ret)
		ret = add_status(vp, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	if (!ret)
		ret = add_status(vp, VIRTIO_CONFIG_S_DRIVER);
	if (ret)
		return ret == -EINVAL ? -EIO : ret;
	write_features(vp, features);
	ret = add_status(vp, VIRTIO_CONFIG_S_FEATURES_OK);
	if (ret)
		return ret;
	vp->agreed = features;
	virtio_pci_learn_queues(vp);
	return 0;
}

int virtio_pci_driver_ok(struct virtio_pci *vp)
{
	int ret = add_status(vp, VIRTIO_CONFIG_S_DRIVER_OK);

	return ret == -EINVAL ? -EIO : ret;
}

uint8_t virtio_pci_status(const struct virtio_pci *vp)
{
	return virtio_pci_get8(vp, VIRTIO_PCI_COMMON_STATUS);
}

unsigned virtio_pci_device_id(const struct virtio_pci *vp)
{
	return vp->caps.device_id;
}

unsigned virtio_pci_nr_queues(const struct virtio_pci *vp)
{
	return vp->nr_queues;
}

uint64_t virtio_pci_features(const struct virtio_pci *vp)
{
	return vp->features;
}

static int find_structures(struct virtio_pci *vp)
{
	struct vfio_region bars[NR_BARS];
	uint8_t config[PCI_CONFIG_LEN];
	const char *reason;
	unsigned i;
	int ret;

	ret = vfio_read(vp->vfio, VFIO_PCI_CONFIG_REGION_INDEX, 0, config, sizeof(config));
	for (i = 0; !ret && i < NR_BARS; i++)
		ret = vfio_region(vp->vfio, VFIO_PCI_BAR0_REGION_INDEX + i, &bars[i]);
	if (ret) {
		log_error("%s: its configuration space cannot be read: %s", vfio_name(vp->vfio),
			  strerror(-ret));
		return ret;
	}
	ret = virtio_pci_parse_caps(config, bars, &vp->caps, &reason);
	if (ret)
		log_error("%s: %s", vfio_name(vp->vfio), reason);
	return ret;
}

static int check_vectors(const struct virtio_pci *vp)
{
	unsigned nr = vfio_nr_vectors(vp->vfio);

	if (nr >= 2)
		return 0;
	log_error("%s: expected at least 2 MSI-X vectors, for a queue and for changes of "
		  "configuration, found %u; the device must be set up with more (in QEMU: "
		  "vectors=N)",
		  vfio_name(vp->vfio), nr);
	return -ENOSPC;
}

static int check_features(const struct virtio_pci *vp)
{
	if (!(vp->features & 1ull << VIRTIO_F_VERSION_1)) {
		log_error(
			"%s: expected a modern virtio device (VERSION_1), found features %#" PRIx64
			"; in QEMU: disable-legacy=on",
			vfio_name(vp->vfio), vp->features);
		return -EOPNOTSUPP;
	}
	/* 6.1: without it the device is free to take our I/O addresses for the host's memory. */
	if (!(vp->features & 1ull << VIRTIO_F_ACCESS_PLATFORM)) {
		log_error("%s: expected a device that says it goes through the IOMMU "
			  "(ACCESS_PLATFORM), found features %#" PRIx64
			  "; in QEMU: iommu_platform=on",
			  vfio_name(vp->vfio), vp->features);
		return -EOPNOTSUPP;
	}
	return 0;
}

/*
 * With all features agreed, once: only then a device need show all its queues, and what a former
 * driver agreed to may be at work even after a reset.
 */
static int count_queues(struct virtio_pci *vp)
{
	uint16_t nr;
	int ret;

	ret = virtio_pci_negotiate(vp, vp->features);
	if (ret && ret != -EINVAL)
		return ret;
	nr = virtio_pci_get16(vp, VIRTIO_PCI_COMMON_NUMQ);
	if (!nr || nr == 0xffff)
		return -EBADMSG;
	vp->queues = calloc(nr, sizeof(*vp->queues));
	if (!vp->queues)
		return -ENOMEM;
	vp->nr_queues = nr;
	virtio_pci_learn_queues(vp);
	return virtio_pci_reset(vp);
}

static int start_up(struct virtio_pci *vp)
{
	int ret;

	ret = find_structures(vp);
	if (!ret)
		ret = check_vectors(vp);
	if (ret)
		return ret;
	ret = virtio_pci_reset(vp);
	if (!ret) {
		vp->features = read_features(vp);
		ret = check_features(vp);
		if (ret)
			return ret;
		vp->features &= ~not_driven;
		ret = count_queues(vp);
	}
	if (ret)
		log_error("%s: the device does not behave as a virtio device should: %s; a reset "
			  "of the device may help: as root: echo 1 >/sys/bus/pci/devices/%s/reset",
			  vfio_name(vp->vfio), strerror(-ret), vfio_name(vp->vfio));
	return ret;
}

int virtio_pci_new(struct vfio_device *vfio, struct virtio_pci **out)
{
	struct virtio_pci *vp = calloc(1, sizeof(*vp));
	int ret;

	if (!vp)
		return -ENOMEM;
	vp->vfio = vfio;
	ret = start_up(vp);
	if (ret) {
		virtio_pci_free(vp);
		return ret;
	}
	*out = vp;
	return 0;
}

void virtio_pci_free(struct virtio_pci *vp)
{
	if (!vp)
		return;
	/* A device that does not follow is reset by VFIO. */
	if (vp->caps.common.length)
		(void)virtio_pci_reset(vp);
	free(vp->queues);
	free(vp);
}
