/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The device's own configuration space: any range of it, in accesses that the fields allow. Control
 * context.
 *
 * virtio 1.2, 4.1.3.1: a field is accessed in its own width, a wide one as 32-bit words. Which
 * field is where depends on the type; where that is not known, the widest aligned access is made.
 */
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "virtio_pci_internal.h"

/* Reads of a configuration that changes all the time end some time. */
#define TRIES 100

/* Widths of the fields from offset 0 on, as in struct virtio_net_config and virtio_blk_config. */
static const uint8_t net_fields[] = { 1, 1, 1, 1, 1, 1, 2, 2, 2, 4, 1, 1, 2, 4 };
static const uint8_t blk_fields[] = { 4, 4, 4, 4, 2, 1, 1, 4, 1, 1, 2, 4, 1, 1,
				      2, 4, 4, 4, 4, 4, 1, 1, 1, 1, 4, 4, 4 };

static unsigned field_width(const uint8_t *fields, size_t nr, uint32_t offset)
{
	uint32_t at = 0;
	size_t i;

	for (i = 0; i < nr && at < offset; i++)
		at += fields[i];
	if (i == nr)
		return 4;
	/* In the middle of a field. */
	return at == offset ? fields[i] : 1;
}

static unsigned type_width(unsigned type, uint32_t offset)
{
	switch (type) {
	case VIRTIO_ID_NET:
		return field_width(net_fields, sizeof(net_fields), offset);
	case VIRTIO_ID_BLOCK:
		return field_width(blk_fields, sizeof(blk_fields), offset);
	}
	return 4;
}

/* How wide the access at @offset is, of which @left bytes are wanted. */
static unsigned width_at(const struct virtio_pci *vp, uint32_t offset, uint32_t left)
{
	unsigned width = type_width(vp->caps.device_id, offset);

	while (width > left || offset % width)
		width /= 2;
	return width;
}

static bool inside(const struct virtio_pci *vp, uint32_t offset, uint32_t len)
{
	uint32_t size = virtio_pci_config_size(vp);

	return len <= size && offset <= size - len;
}

uint32_t virtio_pci_config_size(const struct virtio_pci *vp)
{
	uint64_t length = vp->caps.device.length;

	return length > UINT32_MAX ? UINT32_MAX : (uint32_t)length;
}

static void read_fields(const struct virtio_pci *vp, uint32_t offset, uint8_t *data, uint32_t len)
{
	while (len) {
		unsigned width = width_at(vp, offset, len);
		uint32_t wire = htole32(virtio_pci_get(vp, &vp->caps.device, offset, width));

		memcpy(data, &wire, width);
		offset += width;
		data += width;
		len -= width;
	}
}

/* 2.5.1: what was read between two equal generations belongs together. */
int virtio_pci_config_read(const struct virtio_pci *vp, uint32_t offset, void *data, uint32_t len)
{
	uint8_t copy[256], generation;
	unsigned i;

	if (!inside(vp, offset, len) || len > sizeof(copy))
		return -EINVAL;
	for (i = 0; i < TRIES; i++) {
		generation = virtio_pci_get8(vp, VIRTIO_PCI_COMMON_CFGGENERATION);
		read_fields(vp, offset, copy, len);
		if (generation != virtio_pci_get8(vp, VIRTIO_PCI_COMMON_CFGGENERATION))
			continue;
		if (virtio_pci_status(vp) == 0xff)
			return -EIO;
		memcpy(data, copy, len);
		return 0;
	}
	return -EAGAIN;
}

int virtio_pci_config_write(struct virtio_pci *vp, uint32_t offset, const void *data, uint32_t len)
{
	const uint8_t *bytes = data;

	if (!inside(vp, offset, len))
		return -EINVAL;
	while (len) {
		unsigned width = width_at(vp, offset, len);
		uint32_t wire = 0;

		memcpy(&wire, bytes, width);
		virtio_pci_put(vp, &vp->caps.device, offset, width, le32toh(wire));
		offset += width;
		bytes += width;
		len -= width;
	}
	return virtio_pci_status(vp) == 0xff ? -EIO : 0;
}
