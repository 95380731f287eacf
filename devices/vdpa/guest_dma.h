/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Guest memory as the device sees it: every region of the current map, at its guest-physical
 * address. Control context.
 */
#ifndef VDPA_GUEST_DMA_H
#define VDPA_GUEST_DMA_H

#include <stdint.h>
#include <sys/types.h>

#include <belfry/memory.h>

#include "vfio.h"

struct guest_dma_region {
	uint64_t gpa, size;
	/* What is behind it: the same bytes, wherever this process has them mapped. */
	dev_t dev;
	ino_t ino;
	uint64_t fd_offset;
	void *hva; /* where it was mapped from; for putting it back only */
};

struct guest_dma {
	struct vfio_device *vfio;
	struct guest_dma_region *regions; /* [nr], as they are mapped */
	unsigned nr;
};

/*
 * Map what is new in @memory (NULL: none), unmap what is gone; what stays is not touched, and the
 * device may be at work in it. On failure nothing has changed, and the log says what to do.
 */
int guest_dma_update(struct guest_dma *dma, const struct bf_memory *memory);

/* An I/O address for @size bytes that no region of the guest covers. -ENOSPC */
int guest_dma_find_hole(const struct guest_dma *dma, uint64_t size, uint64_t *iova);

#endif
