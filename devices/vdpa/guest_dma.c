/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which regions are mapped for DMA, and the way from one map of guest memory to the next.
 *
 * Control context. A region that stays is recognised by the file behind it, not by where this
 * process has mapped it: a front end sends the whole table again for each change, the library maps
 * it anew, and the pages that the IOMMU points at are the same.
 */
#include "guest_dma.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "devices/common/log.h"

static int describe(const struct bf_memory *memory, unsigned idx, struct guest_dma_region *to)
{
	const struct bf_memory_region *from = bf_memory_region(memory, idx);
	struct stat st;

	if (fstat(from->fd, &st))
		return -errno;
	*to = (struct guest_dma_region){ .gpa = from->gpa,
					 .size = from->size,
					 .dev = st.st_dev,
					 .ino = st.st_ino,
					 .fd_offset = from->fd_offset,
					 .hva = from->hva };
	return 0;
}

static bool same(const struct guest_dma_region *a, const struct guest_dma_region *b)
{
	return a->gpa == b->gpa && a->size == b->size && a->dev == b->dev && a->ino == b->ino &&
	       a->fd_offset == b->fd_offset;
}

static bool contains(const struct guest_dma_region *set, unsigned nr,
		     const struct guest_dma_region *one)
{
	for (unsigned i = 0; i < nr; i++)
		if (same(&set[i], one))
			return true;
	return false;
}

static void say_limit(const struct guest_dma *dma, const struct guest_dma_region *region)
{
	struct rlimit limit = { 0 };
	uint64_t mapped = 0;

	getrlimit(RLIMIT_MEMLOCK, &limit);
	vfio_dma_count(dma->vfio, &mapped);
	log_error("the memory limit is too low: guest memory has to be locked for the device's DMA; "
		  "expected a limit of at least %llu KiB, found %llu KiB. Raise it with "
		  "'prlimit --pid %d --memlock=unlimited', 'ulimit -l unlimited' before the start, "
		  "or LimitMEMLOCK=infinity in the systemd unit",
		  (unsigned long long)((mapped + region->size) >> 10),
		  (unsigned long long)(limit.rlim_cur >> 10), (int)getpid());
}

static void say_addresses(const struct guest_dma *dma, const struct guest_dma_region *region)
{
	const struct vfio_dma_range *ranges;
	unsigned nr = vfio_iova_ranges(dma->vfio, &ranges);
	uint64_t last = region->gpa + region->size - 1;

	for (unsigned i = 0; i < nr; i++)
		if (region->gpa >= ranges[i].first && last <= ranges[i].last)
			return;
	log_error("the IOMMU of this machine translates addresses from 0x%llx to 0x%llx in %u "
		  "ranges, and the region is in none of them: give the guest less memory, or a "
		  "memory layout without that address",
		  (unsigned long long)ranges[0].first, (unsigned long long)ranges[nr - 1].last,
		  nr);
}

static void say_why_not(const struct guest_dma *dma, const struct guest_dma_region *region,
			int error)
{
	log_error("guest memory at 0x%llx, %llu KiB, cannot be mapped for the device's DMA: %s",
		  (unsigned long long)region->gpa, (unsigned long long)(region->size >> 10),
		  strerror(-error));
	if (error == -ENOMEM)
		say_limit(dma, region);
	else if (error == -ENOSPC)
		log_error("the kernel's number of DMA mappings is used up: raise it with 'echo "
			  "65535 >/sys/module/vfio_iommu_type1/parameters/dma_entry_limit'");
	else if (error == -EFAULT)
		log_error("its pages cannot be locked: expected ordinary shared memory (a memfd, "
			  "hugetlbfs, /dev/shm); choose that in the front end");
	else
		say_addresses(dma, region);
}

static int map(struct guest_dma *dma, const struct guest_dma_region *region)
{
	return vfio_dma_map(dma->vfio, region->gpa, region->hva, region->size);
}

static void unmap(struct guest_dma *dma, const struct guest_dma_region *region)
{
	int ret = vfio_dma_unmap(dma->vfio, region->gpa, region->size);

	if (ret)
		log_error("guest memory at 0x%llx cannot be unmapped: %s",
			  (unsigned long long)region->gpa, strerror(-ret));
}

/* Regions of @set up to @nr that are not in the other set: all unmapped, or all mapped. */
static void unmap_others(struct guest_dma *dma, const struct guest_dma_region *set, unsigned nr,
			 const struct guest_dma_region *keep, unsigned nr_keep)
{
	for (unsigned i = 0; i < nr; i++)
		if (!contains(keep, nr_keep, &set[i]))
			unmap(dma, &set[i]);
}

static int map_others(struct guest_dma *dma, const struct guest_dma_region *set, unsigned nr,
		      const struct guest_dma_region *present, unsigned nr_present)
{
	for (unsigned i = 0; i < nr; i++) {
		int ret;

		if (contains(present, nr_present, &set[i]))
			continue;
		ret = map(dma, &set[i]);
		if (!ret)
			continue;
		say_why_not(dma, &set[i], ret);
		unmap_others(dma, set, i, present, nr_present);
		return ret;
	}
	return 0;
}

/*
 * Gone first, since a new region may lie where an old one was. Putting back what was taken away can
 * only fail for want of memory; then the device has less, and its DMA there fails.
 */
static int exchange(struct guest_dma *dma, struct guest_dma_region *now, unsigned nr)
{
	int ret;

	unmap_others(dma, dma->regions, dma->nr, now, nr);
	ret = map_others(dma, now, nr, dma->regions, dma->nr);
	if (ret) {
		map_others(dma, dma->regions, dma->nr, now, nr);
		return ret;
	}
	free(dma->regions);
	dma->regions = now;
	dma->nr = nr;
	return 0;
}

int guest_dma_update(struct guest_dma *dma, const struct bf_memory *memory)
{
	unsigned nr = memory ? bf_memory_nr_regions(memory) : 0;
	struct guest_dma_region *now = calloc(nr ? nr : 1, sizeof(*now));
	int ret = now ? 0 : -ENOMEM;

	for (unsigned i = 0; !ret && i < nr; i++)
		ret = describe(memory, i, &now[i]);
	if (!ret)
		ret = exchange(dma, now, nr);
	if (ret)
		free(now);
	return ret;
}

/* From @last down, the highest place of @size bytes above @first that no region touches. */
static int search_down(const struct guest_dma *dma, uint64_t first, uint64_t last, uint64_t size,
		       uint64_t *iova)
{
	uint64_t mask = ~((uint64_t)sysconf(_SC_PAGESIZE) - 1);

	while (last >= first && last - first >= size - 1) {
		uint64_t place = (last - (size - 1)) & mask;
		bool covered = false;

		if (place < first)
			return -ENOSPC;
		for (unsigned i = 0; i < dma->nr && !covered; i++) {
			const struct guest_dma_region *r = &dma->regions[i];

			if (r->gpa > place + (size - 1) || r->gpa + (r->size - 1) < place)
				continue;
			if (!r->gpa)
				return -ENOSPC;
			last = r->gpa - 1;
			covered = true;
		}
		if (!covered) {
			*iova = place;
			return 0;
		}
	}
	return -ENOSPC;
}

int guest_dma_find_hole(const struct guest_dma *dma, uint64_t size, uint64_t *iova)
{
	const struct vfio_dma_range *ranges;
	unsigned nr = vfio_iova_ranges(dma->vfio, &ranges);

	while (nr--)
		if (!search_down(dma, ranges[nr].first, ranges[nr].last, size, iova))
			return 0;
	return -ENOSPC;
}
