/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The disk image: a raw regular file or a block device. The format is never guessed: a guest could
 * write any header into a raw disk.
 */
#ifndef BLK_IMAGE_H
#define BLK_IMAGE_H

#include <stdbool.h>
#include <stdint.h>

#define BLK_SECTOR_SIZE 512u

struct blk_image {
	int fd; /* -1: there is no file */
	bool read_only;
	uint64_t nr_sectors;
	uint32_t physical_size; /* bytes that the storage below works in; at least a sector */
	uint32_t optimal_size;  /* bytes; 0: not known */
};

#define BLK_IMAGE_NONE   \
	{                \
		.fd = -1 \
	}

/* 0 or negative errno, and then it is said why. */
int blk_image_open(struct blk_image *image, const char *path, bool read_only, bool locking);
/* None: a disk of @size bytes that keeps nothing. 0, or -EINVAL and it is said why. */
int blk_image_null(struct blk_image *image, uint64_t size, bool read_only);
/* Of opened or NONE; leaves NONE. */
void blk_image_close(struct blk_image *image);

#endif
