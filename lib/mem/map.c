/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Memory maps: built, counted, dropped, and one built out of another.
 *
 * Built on the control context and immutable from then on; references may be taken and dropped on
 * any. Must not change a map that has been handed out: a memory change makes a new one.
 */
#include "map.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "../base/fd.h"

static int compare_gpa(const void *a, const void *b)
{
	uint64_t x = (*(struct bf_mapping *const *)a)->region.gpa;
	uint64_t y = (*(struct bf_mapping *const *)b)->region.gpa;

	return (x > y) - (x < y);
}

static int compare_start(const void *a, const void *b)
{
	uint64_t x = ((const struct bf_span *)a)->start, y = ((const struct bf_span *)b)->start;

	return (x > y) - (x < y);
}

/* Sorted spans that do not wrap overlap somewhere only if two neighbours do. */
static int check_disjoint(const struct bf_span *spans, unsigned nr)
{
	for (unsigned i = 1; i < nr; i++)
		if (spans[i].start - spans[i - 1].start < spans[i - 1].size)
			return -EINVAL;
	return 0;
}

static struct bf_memory *allocate(unsigned nr)
{
	struct bf_memory *map;

	map = calloc(1, sizeof(*map) + nr * (2 * sizeof(struct bf_span) + sizeof(void *)));
	if (!map)
		return NULL;
	map->refs = 1;
	map->nr = nr;
	map->by_uva = map->by_gpa + nr;
	map->mappings = (void *)(map->by_uva + nr);
	map->gpa_space = (struct bf_space){ map->by_gpa, nr };
	map->uva_space = (struct bf_space){ map->by_uva, nr };
	return map;
}

/* Make a map of @mappings: [@nr], nr > 0. Takes over their counts on success only. */
static int assemble(struct bf_mapping *const *mappings, unsigned nr, struct bf_memory **map)
{
	struct bf_memory *made = allocate(nr);
	int ret;

	if (!made)
		return -ENOMEM;
	memcpy(made->mappings, mappings, nr * sizeof(*mappings));
	qsort(made->mappings, nr, sizeof(*made->mappings), compare_gpa);
	for (unsigned i = 0; i < nr; i++) {
		const struct bf_memory_region *region = &made->mappings[i]->region;

		made->by_gpa[i] = (struct bf_span){ region->gpa, region->size, region->hva,
						    region->gpa, BF_PERM_READ | BF_PERM_WRITE };
		made->by_uva[i] = (struct bf_span){ region->uva, region->size, region->hva,
						    region->gpa, BF_PERM_READ | BF_PERM_WRITE };
	}
	qsort(made->by_uva, nr, sizeof(*made->by_uva), compare_start);

	ret = check_disjoint(made->by_gpa, nr);
	if (!ret)
		ret = check_disjoint(made->by_uva, nr);
	if (ret) {
		free(made);
		return ret;
	}
	*map = made;
	return 0;
}

static bool same_file(int a, int b)
{
	struct stat x, y;

	return !fstat(a, &x) && !fstat(b, &y) && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* The mapping of @region that @old (NULL: nobody) has. */
static struct bf_mapping *find_same(const struct bf_memory *old,
				    const struct bf_memory_region *region)
{
	for (unsigned i = 0; old && i < old->nr; i++) {
		const struct bf_memory_region *known = &old->mappings[i]->region;

		if (known->gpa == region->gpa && known->size == region->size &&
		    known->uva == region->uva && known->fd_offset == region->fd_offset &&
		    same_file(known->fd, region->fd))
			return old->mappings[i];
	}
	return NULL;
}

static int map_or_keep(const struct bf_memory *old, const struct bf_memory_region *region,
		       struct bf_mapping **mapping)
{
	*mapping = find_same(old, region);
	if (!*mapping)
		return bf_mapping_new(region, mapping);
	bf_mapping_ref(*mapping);
	return 0;
}

/* The mapping's own, or the one that it has already stays. */
static void hand_over(struct bf_mapping *mapping, int fd)
{
	if (mapping->region.fd < 0)
		mapping->region.fd = fd;
	else
		bf_fd_close(&fd);
}

int bf_memory_new(const struct bf_memory_region *regions, unsigned nr, struct bf_memory **map)
{
	return bf_memory_new_keeping(NULL, regions, nr, map);
}

int bf_memory_new_keeping(const struct bf_memory *old, const struct bf_memory_region *regions,
			  unsigned nr, struct bf_memory **map)
{
	struct bf_mapping *mappings[BF_MAX_REGIONS] = { NULL };
	unsigned made = 0;
	int ret;

	if (nr > BF_MAX_REGIONS)
		return -E2BIG;
	if (!nr)
		return -EINVAL;
	for (; made < nr; made++) {
		ret = map_or_keep(old, &regions[made], &mappings[made]);
		if (ret)
			goto unmap;
	}
	ret = assemble(mappings, nr, map);
	if (ret)
		goto unmap;
	/* Nothing can fail any more: now the descriptors change hands. */
	for (unsigned i = 0; i < nr; i++)
		hand_over(mappings[i], regions[i].fd);
	return 0;

unmap:
	while (made--)
		bf_mapping_unref(mappings[made]);
	return ret;
}

int bf_memory_with(const struct bf_memory *map, const struct bf_memory_region *region,
		   struct bf_memory **with)
{
	struct bf_mapping *mappings[BF_MAX_REGIONS], *added;
	unsigned nr = map ? map->nr : 0;
	int ret;

	if (nr == BF_MAX_REGIONS)
		return -E2BIG;
	ret = bf_mapping_new(region, &added);
	if (ret)
		return ret;
	if (nr)
		memcpy(mappings, map->mappings, nr * sizeof(*mappings));
	mappings[nr] = added;
	ret = assemble(mappings, nr + 1, with);
	if (ret) {
		bf_mapping_unref(added);
		return ret;
	}
	for (unsigned i = 0; i < nr; i++)
		bf_mapping_ref(mappings[i]);
	added->region.fd = region->fd;
	return 0;
}

int bf_memory_without(const struct bf_memory *map, uint64_t gpa, uint64_t uva, uint64_t size,
		      struct bf_memory **without)
{
	struct bf_mapping *mappings[BF_MAX_REGIONS];
	struct bf_memory *rest = NULL;
	unsigned nr = 0;
	int ret;

	for (unsigned i = 0; map && i < map->nr; i++) {
		const struct bf_memory_region *region = &map->mappings[i]->region;

		if (region->gpa != gpa || region->uva != uva || region->size != size)
			mappings[nr++] = map->mappings[i];
	}
	if (!map || nr == map->nr)
		return -ENOENT;
	if (nr) {
		ret = assemble(mappings, nr, &rest);
		if (ret)
			return ret;
	}
	for (unsigned i = 0; i < nr; i++)
		bf_mapping_ref(mappings[i]);
	*without = rest;
	return 0;
}

struct bf_memory *bf_memory_ref(struct bf_memory *map)
{
	__atomic_add_fetch(&map->refs, 1, __ATOMIC_RELAXED);
	return map;
}

void bf_memory_unref(struct bf_memory *map)
{
	/* As for a mapping: whoever is last has seen all that the others did. */
	if (!map || __atomic_sub_fetch(&map->refs, 1, __ATOMIC_ACQ_REL))
		return;
	for (unsigned i = 0; i < map->nr; i++)
		bf_mapping_unref(map->mappings[i]);
	free(map);
}

unsigned bf_memory_nr_regions(const struct bf_memory *map)
{
	return map->nr;
}

const struct bf_memory_region *bf_memory_region(const struct bf_memory *map, unsigned idx)
{
	return &map->mappings[idx]->region;
}
