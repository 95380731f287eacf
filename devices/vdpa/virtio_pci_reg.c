/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Access to the device's registers, little-endian, each in its own width. Any thread, but the
 * common configuration has registers that select others: those are the control context's.
 */
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <time.h>

#include "virtio_pci_internal.h"

#define WAIT_NS 1000000000ll

uint32_t virtio_pci_get(const struct virtio_pci *vp, const struct virtio_pci_structure *in,
			uint64_t at, unsigned width)
{
	/* What a narrow access leaves as it is are the upper bytes. */
	uint32_t value = 0;

	assert(width <= in->length && at <= in->length - width);
	if (vfio_read(vp->vfio, in->bar, in->offset + at, &value, width))
		return width == 4 ? UINT32_MAX : (1u << (8 * width)) - 1;
	return le32toh(value);
}

void virtio_pci_put(const struct virtio_pci *vp, const struct virtio_pci_structure *in, uint64_t at,
		    unsigned width, uint32_t value)
{
	uint32_t wire = htole32(value);

	assert(width <= in->length && at <= in->length - width);
	/* Lost, if the device is gone: reading tells, where that matters. */
	(void)vfio_write(vp->vfio, in->bar, in->offset + at, &wire, width);
}

uint8_t virtio_pci_get8(const struct virtio_pci *vp, unsigned at)
{
	return (uint8_t)virtio_pci_get(vp, &vp->caps.common, at, 1);
}

uint16_t virtio_pci_get16(const struct virtio_pci *vp, unsigned at)
{
	return (uint16_t)virtio_pci_get(vp, &vp->caps.common, at, 2);
}

uint32_t virtio_pci_get32(const struct virtio_pci *vp, unsigned at)
{
	return virtio_pci_get(vp, &vp->caps.common, at, 4);
}

void virtio_pci_put8(const struct virtio_pci *vp, unsigned at, uint8_t value)
{
	virtio_pci_put(vp, &vp->caps.common, at, 1, value);
}

void virtio_pci_put16(const struct virtio_pci *vp, unsigned at, uint16_t value)
{
	virtio_pci_put(vp, &vp->caps.common, at, 2, value);
}

void virtio_pci_put32(const struct virtio_pci *vp, unsigned at, uint32_t value)
{
	virtio_pci_put(vp, &vp->caps.common, at, 4, value);
}

static long long now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ll + now.tv_nsec;
}

int virtio_pci_wait(const struct virtio_pci *vp, unsigned at, unsigned width, uint32_t value)
{
	const uint32_t ones = (uint32_t)(UINT64_MAX >> (64 - 8 * width));
	struct timespec pause = { .tv_nsec = 10000 };
	long long end = now_ns() + WAIT_NS;
	uint32_t found;

	for (;;) {
		bool late = now_ns() >= end;

		found = virtio_pci_get(vp, &vp->caps.common, at, width);
		if (found == value)
			return 0;
		if (found == ones)
			return -ENODEV;
		if (late)
			return -ETIMEDOUT;
		nanosleep(&pause, NULL);
		if (pause.tv_nsec < 1000000)
			pause.tv_nsec *= 2;
	}
}
