/* SPDX-License-Identifier: BSD-3-Clause */
/**
 * belfry/memory.h - guest memory: regions, and the map a back end makes of them.
 *
 * A map is immutable and counted: build one, share it with any thread, drop it. A memory change
 * makes a new one. Regions of a map overlap neither in guest-physical nor in user addresses.
 */
#ifndef BELFRY_MEMORY_H
#define BELFRY_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

/** The most regions of a map (memory slots). One SET_MEM_TABLE carries at most 8. */
#define BF_MAX_REGIONS 512

/**
 * One range of guest memory.
 * @gpa:       guest-physical address
 * @size:      bytes
 * @uva:       the front end's own address of it: what ring addresses of the protocol are given in
 * @hva:       where this process has it mapped; in a front end the same as @uva
 * @fd:        what it is mapped from; -1 if none
 * @fd_offset: bytes into @fd
 */
struct bf_memory_region {
	uint64_t gpa;
	uint64_t size;
	uint64_t uva;
	void *hva;
	int fd;
	uint64_t fd_offset;
};

struct bf_memory;

/**
 * bf_memory_new - map regions into this process.
 * @regions: [@nr], nr <= BF_MAX_REGIONS; hva ignored. fds are owned by the map on success only.
 * -EINVAL no regions, or one empty, wrapping, overlapping; -ENXIO a range that its fd does not have
 * (regular file too short; other kinds have no length that is known); -E2BIG too many; -EBADF no
 * fd; -ENOMEM; or mmap()'s errno. The count starts at 1.
 */
int bf_memory_new(const struct bf_memory_region *regions, unsigned nr, struct bf_memory **map);
/** Any thread. The last bf_memory_unref() unmaps and closes. NULL is fine for unref. */
struct bf_memory *bf_memory_ref(struct bf_memory *map);
void bf_memory_unref(struct bf_memory *map);

/** How many regions the map has; at least 1. */
unsigned bf_memory_nr_regions(const struct bf_memory *map);
/** Region @idx below bf_memory_nr_regions(), sorted by gpa. Borrowed. */
const struct bf_memory_region *bf_memory_region(const struct bf_memory *map, unsigned idx);

/**
 * Translate all of [address, address + len), or fail: NULL when it is not wholly inside one region.
 * A length of zero still needs a valid address. Any thread.
 */
void *bf_memory_from_gpa(const struct bf_memory *map, uint64_t gpa, uint64_t len);
void *bf_memory_from_uva(const struct bf_memory *map, uint64_t uva, uint64_t len);

/**
 * bf_memory_iov - translate a guest-physical range that may cross regions that touch.
 * @iov: [@nr_iov] receives the pieces. Returns how many; -EFAULT when some byte is in no region;
 * -E2BIG when @nr_iov is too small. An empty range gives -EFAULT or one empty piece.
 */
int bf_memory_iov(const struct bf_memory *map, uint64_t gpa, uint64_t len, struct iovec *iov,
		  unsigned nr_iov);

/**
 * bf_memory_guard - survive a file that shrinks under its mapping.
 *
 * Touching guest memory behind the new end of such a file raises SIGBUS, which would end the process.
 * This installs a handler, for the process: what is gone is replaced by zeroed private memory, in that
 * mapping only, and the map counts as cut from then on. Every virtqueue on it breaks with -EFAULT at
 * its next call. Signals that have nothing to do with a map go to the handler that was there before.
 * Idempotent; call it before threads exist. 0 or errno of sigaction().
 */
int bf_memory_guard(void);
/** Any thread: has some of this map been cut? A load. */
bool bf_memory_cut(const struct bf_memory *map);

#ifdef __cplusplus
}
#endif
#endif
