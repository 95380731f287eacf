/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One region of guest memory, mapped: checks what a peer says of it against the file itself.
 *
 * Made on the control context; counted, and released on whichever context drops it last. Must not
 * take ownership of a descriptor (the map does, once all of it has succeeded).
 */
#include "map.h"

#include <errno.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "../base/check.h"
#include "../base/fd.h"

/*
 * What an offset into @fd must be a multiple of to be mapped. Only hugetlbfs wants more than a
 * page; other file systems report a preferred transfer size in st_blksize, which has nothing to do
 * with it.
 */
static uint64_t mapping_alignment(int fd, const struct stat *st)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	struct statfs fs;

	if (fstatfs(fd, &fs) < 0 || (unsigned long)fs.f_type != HUGETLBFS_MAGIC)
		return page;
	if (st->st_blksize <= 0 || !bf_is_power_of_two((uint64_t)st->st_blksize))
		return page;
	return (uint64_t)st->st_blksize;
}

static int check_region(const struct bf_memory_region *region, struct stat *st)
{
	if (!region->size || !bf_no_wrap(region->gpa, region->size) ||
	    !bf_no_wrap(region->uva, region->size))
		return -EINVAL;
	if (fstat(region->fd, st) < 0)
		return -errno;
	/* off_t is signed; this also keeps the rounding below inside 64 bits. */
	if (!bf_range_ok(region->fd_offset, region->size, INT64_MAX / 2))
		return -ENXIO;
	/* Only a regular file has a length to compare with; a device answers in mmap(). */
	if (S_ISREG(st->st_mode) &&
	    !bf_range_ok(region->fd_offset, region->size, (uint64_t)st->st_size))
		return -ENXIO;
	return 0;
}

int bf_mapping_new(const struct bf_memory_region *region, struct bf_mapping **mapping)
{
	struct bf_mapping *made;
	uint64_t align, lead, len;
	struct stat st;
	int ret;

	ret = check_region(region, &st);
	if (ret)
		return ret;
	align = mapping_alignment(region->fd, &st);
	lead = region->fd_offset & (align - 1);
	len = (lead + region->size + align - 1) & ~(align - 1);
	if (len > SIZE_MAX)
		return -ENOMEM;

	made = calloc(1, sizeof(*made));
	if (!made)
		return -ENOMEM;
	made->base = mmap(NULL, (size_t)len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
			  region->fd, (off_t)(region->fd_offset - lead));
	if (made->base == MAP_FAILED) {
		ret = -errno;
		free(made);
		return ret;
	}
	/* A guest's memory has no place in our core dump. Not every kind of file can be left out.
	 */
	(void)madvise(made->base, (size_t)len, MADV_DONTDUMP);

	made->refs = 1;
	made->len = (size_t)len;
	made->region = *region;
	made->region.hva = (uint8_t *)made->base + lead;
	made->region.fd = -1;
	bf_guard_add(&made->guarded, made->base, made->len, (size_t)align, &made->cut);
	*mapping = made;
	return 0;
}

void bf_mapping_cut_all(struct bf_mapping *mapping, int empty_fd)
{
	/* Can fail for want of memory only, and then it stays what it was. */
	if (mmap(mapping->base, mapping->len, PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_NORESERVE | MAP_FIXED, empty_fd, 0) == MAP_FAILED)
		return;
	__atomic_store_n(&mapping->cut, true, __ATOMIC_RELAXED);
	/* Release: the flag before the count. Partner: bf_memory_cut(). */
	__atomic_add_fetch(&bf_guard_cuts, 1, __ATOMIC_RELEASE);
}

struct bf_mapping *bf_mapping_ref(struct bf_mapping *mapping)
{
	__atomic_add_fetch(&mapping->refs, 1, __ATOMIC_RELAXED);
	return mapping;
}

void bf_mapping_unref(struct bf_mapping *mapping)
{
	/* Release what this context did with the memory; acquire what the others did, to unmap. */
	if (!mapping || __atomic_sub_fetch(&mapping->refs, 1, __ATOMIC_ACQ_REL))
		return;
	bf_guard_remove(&mapping->guarded);
	munmap(mapping->base, mapping->len);
	bf_fd_close(&mapping->region.fd);
	free(mapping);
}
