/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Mappings of files that somebody else may shrink: which address ranges they are, for the SIGBUS handler
 * (bf_memory_guard()).
 *
 * Entered on control when a mapping is made, and taken out before it is unmapped. Any thread.
 */
#ifndef MEM_GUARD_H
#define MEM_GUARD_H

#include <stdbool.h>
#include <stddef.h>

/* What a mapping is known by. Embedded in its owner; lives until bf_guard_remove(). */
struct bf_guarded {
	int slot;  /* in the table; -1: not in it */
	bool *cut; /* set by the handler when a page was gone; the owner's, as long as this */
};

/*
 * Watch [base, base + len), mapped in units of @page bytes. A full table (or no memory for it) leaves the
 * mapping unwatched: a file that is cut then ends the process, as without a guard.
 */
void bf_guard_add(struct bf_guarded *guarded, void *base, size_t len, size_t page, bool *cut);
/* Before munmap(). When it returns, no handler has anything to do with the range. */
void bf_guard_remove(struct bf_guarded *guarded);

/* Atomic: how many pages were replaced in this process. */
extern unsigned bf_guard_cuts;

#endif
