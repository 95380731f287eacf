/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The in-flight region as a whole: made, mapped, divided into queues.
 *
 * Control context. Must not look at what is in it: that is lib/virtq/inflight_*.c, and nothing of it is
 * trusted. Sizes come from the front end and are computed here again.
 */
#include "inflight.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../base/check.h"
#include "../base/fd.h"
#include "guard.h"

struct bf_inflight_region {
	bool packed;
	uint16_t nr_queues, queue_size;
	uint8_t *parts;
	uint64_t size;
	int fd; /* -1: the front end's, which was borrowed */
	void *base;
	size_t len;
	struct bf_guarded guarded;
	bool cut; /* what is gone is zero: the front end's loss alone */
};

uint64_t bf_inflight_queue_size(bool packed, uint16_t queue_size)
{
	uint64_t size = packed ? sizeof(struct bf_inflight_packed) +
					 queue_size * sizeof(struct bf_inflight_packed_desc)
			       : sizeof(struct bf_inflight_split) +
					 queue_size * sizeof(struct bf_inflight_split_desc);

	return (size + BF_INFLIGHT_ALIGN - 1) & ~(uint64_t)(BF_INFLIGHT_ALIGN - 1);
}

/* Of @fd, which has them: a region of nr_queues * part size bytes at @offset. */
static int map(struct bf_inflight_region *made, int fd, uint64_t offset)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), lead = offset & (page - 1);

	if (lead + made->size > SIZE_MAX)
		return -ENOMEM;
	made->len = (size_t)(lead + made->size);
	made->base = mmap(NULL, made->len, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
			  (off_t)(offset - lead));
	if (made->base == MAP_FAILED)
		return -errno;
	made->parts = (uint8_t *)made->base + lead;
	bf_guard_add(&made->guarded, made->base, made->len, (size_t)page, &made->cut);
	return 0;
}

static struct bf_inflight_region *describe(bool packed, uint16_t nr_queues, uint16_t queue_size)
{
	struct bf_inflight_region *made = calloc(1, sizeof(*made));

	if (!made)
		return NULL;
	made->packed = packed;
	made->nr_queues = nr_queues;
	made->queue_size = queue_size;
	made->size = nr_queues * bf_inflight_queue_size(packed, queue_size);
	made->fd = -1;
	return made;
}

/* A file of @size zeroes that nobody can take away any more. The fd or negative errno. */
static int make_file(uint64_t size)
{
	int fd = memfd_create("belfry-inflight", MFD_CLOEXEC | MFD_ALLOW_SEALING), ret;

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)size) < 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
		ret = -errno;
		close(fd);
		return ret;
	}
	return fd;
}

int bf_inflight_new(bool packed, uint16_t nr_queues, uint16_t queue_size,
		    struct bf_inflight_region **region)
{
	struct bf_inflight_region *made;
	int ret;

	if (!nr_queues || !queue_size)
		return -EINVAL;
	made = describe(packed, nr_queues, queue_size);
	if (!made)
		return -ENOMEM;
	ret = made->fd = make_file(made->size);
	if (ret < 0)
		goto free_region;
	ret = map(made, made->fd, 0);
	if (ret)
		goto close_file;
	*region = made;
	return 0;

close_file:
	close(made->fd);
free_region:
	free(made);
	return ret;
}

int bf_inflight_map(int fd, uint64_t mmap_size, uint64_t mmap_offset, bool packed,
		    uint16_t nr_queues, uint16_t queue_size, struct bf_inflight_region **region)
{
	struct bf_inflight_region *made;
	struct stat st;
	int ret;

	/* Larger is fine: others align the parts, or round the whole up to pages. */
	if (!nr_queues || !queue_size || !bf_no_wrap(mmap_offset, mmap_size) ||
	    mmap_size < nr_queues * bf_inflight_queue_size(packed, queue_size))
		return -EINVAL;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!bf_range_ok(mmap_offset, mmap_size, INT64_MAX / 2) ||
	    (S_ISREG(st.st_mode) && !bf_range_ok(mmap_offset, mmap_size, (uint64_t)st.st_size)))
		return -ENXIO;
	/* Fields are 64 bits wide: a part that begins anywhere cannot be used. */
	if (mmap_offset % sizeof(uint64_t))
		return -EINVAL;
	made = describe(packed, nr_queues, queue_size);
	if (!made)
		return -ENOMEM;
	ret = map(made, fd, mmap_offset);
	if (ret) {
		free(made);
		return ret;
	}
	*region = made;
	return 0;
}

void bf_inflight_free(struct bf_inflight_region *region)
{
	if (!region)
		return;
	bf_guard_remove(&region->guarded);
	munmap(region->base, region->len);
	bf_fd_close(&region->fd);
	free(region);
}

int bf_inflight_fd(const struct bf_inflight_region *region)
{
	return region->fd;
}

uint64_t bf_inflight_size(const struct bf_inflight_region *region)
{
	return region->size;
}

bool bf_inflight_is_packed(const struct bf_inflight_region *region)
{
	return region->packed;
}

void *bf_inflight_queue(const struct bf_inflight_region *region, unsigned queue,
			uint16_t *queue_size)
{
	if (queue >= region->nr_queues)
		return NULL;
	*queue_size = region->queue_size;
	return region->parts + queue * bf_inflight_queue_size(region->packed, region->queue_size);
}
