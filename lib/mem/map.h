/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Inside of a memory map, for lib/mem and for whoever builds one map out of another (lib/backend).
 *
 * A map is a sorted set of mappings. A mapping is counted by itself, so that adding or removing one
 * region makes a new map without mapping the others again: their host addresses stay what they are.
 * Both are immutable once they are visible to a second context.
 */
#ifndef MEM_MAP_H
#define MEM_MAP_H

#include <stddef.h>
#include <stdint.h>

#include <belfry/memory.h>

#include "guard.h"
#include "space.h"

/* One region as it is mapped: region.hva lies inside [base, base + len). */
struct bf_mapping {
	unsigned refs; /* atomic */
	struct bf_memory_region region;
	void *base;
	size_t len;
	struct bf_guarded guarded;
	bool cut; /* atomic: a page of it was gone (guard.h) */
};

struct bf_memory {
	unsigned refs; /* atomic */
	unsigned nr;
	unsigned cuts_seen;           /* atomic: bf_guard_cuts when none of them was ours */
	bool cut;                     /* atomic: one of them was */
	struct bf_mapping **mappings; /* [nr], by gpa; each holds a count */
	struct bf_space gpa_space;    /* guest-physical addresses: what by_gpa says */
	struct bf_space uva_space;    /* user addresses, by_uva */
	struct bf_span *by_uva;       /* [nr] */
	struct bf_span by_gpa[];      /* [nr]; then by_uva and mappings, in the same allocation */
};

/*
 * Map @region, with its descriptor borrowed: the mapping owns none (region.fd is -1) until the
 * caller stores it there. Errors as bf_memory_new().
 */
int bf_mapping_new(const struct bf_memory_region *region, struct bf_mapping **mapping);
struct bf_mapping *bf_mapping_ref(struct bf_mapping *mapping);
void bf_mapping_unref(struct bf_mapping *mapping);
/*
 * Take all of it away from under whoever uses it: as if its file had become empty (guard.h). @empty_fd: a
 * file that is. Any thread that keeps it counted.
 */
void bf_mapping_cut_all(struct bf_mapping *mapping, int empty_fd);

/*
 * As bf_memory_new(), but a region that @old has, of the same file, keeps its mapping: its host address
 * is what it was.
 */
int bf_memory_new_keeping(const struct bf_memory *old, const struct bf_memory_region *regions,
			  unsigned nr, struct bf_memory **map);
/*
 * A map with one region more than @map, which may be NULL: none yet. @region's fd is owned on
 * success only. Errors as bf_memory_new(). @map is not changed and not consumed.
 */
int bf_memory_with(const struct bf_memory *map, const struct bf_memory_region *region,
		   struct bf_memory **with);
/*
 * A map without the region that has exactly this address, size and user address; NULL in *@without
 * when it was the last. -ENOENT there is none, -ENOMEM.
 */
int bf_memory_without(const struct bf_memory *map, uint64_t gpa, uint64_t uva, uint64_t size,
		      struct bf_memory **without);

/*
 * The guest-physical address of a range given in user addresses. -EFAULT when it is not wholly inside
 * one region.
 */
int bf_memory_uva_to_gpa(const struct bf_memory *map, uint64_t uva, uint64_t len, uint64_t *gpa);

#endif
