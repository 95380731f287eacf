/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The device's IOTLB: which I/O virtual addresses it may use, as the front end has told.
 *
 * Belongs to the control context. Queue contexts read its space inside calls of lib/virtq; so every
 * change is made while control holds all virtqueues that use it (lib/virtq/hold.h). Entries are kept in
 * user addresses too, so that a change of the memory map re-makes the host addresses.
 */
#ifndef MEM_IOTLB_H
#define MEM_IOTLB_H

#include <belfry/memory.h>

#include "space.h"

/* More entries than this push out those that were used longest ago by insertion. */
#define BF_IOTLB_MAX 4096

struct bf_iotlb_table;

/* NULL: out of memory. */
struct bf_iotlb_table *bf_iotlb_new(void);
void bf_iotlb_free(struct bf_iotlb_table *iotlb);

/*
 * Allow [iova, iova + size) with @perm, at @uva of @memory; replaces whatever it overlaps. Entries that
 * touch on both sides and agree are merged. -EINVAL empty, wraps, no permission; -EFAULT @uva is not
 * wholly in @memory (pieces may be in several regions); -ENOMEM. Unchanged on failure.
 */
int bf_iotlb_update(struct bf_iotlb_table *iotlb, const struct bf_memory *memory, uint64_t iova,
		    uint64_t size, uint64_t uva, unsigned perm);
/* Forbid. What is not there is passed over; the parts of an entry outside of the range stay. */
int bf_iotlb_invalidate(struct bf_iotlb_table *iotlb, uint64_t iova, uint64_t size);
void bf_iotlb_clear(struct bf_iotlb_table *iotlb);
/* The memory map has changed: entries whose user addresses are gone go too. */
int bf_iotlb_remap(struct bf_iotlb_table *iotlb, const struct bf_memory *memory);

const struct bf_space *bf_iotlb_space(const struct bf_iotlb_table *iotlb);

#endif
