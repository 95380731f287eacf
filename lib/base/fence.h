/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A full barrier that costs one side nothing.
 *
 * Where a hot thread stores A and loads B, and a cold one stores B and loads A, both need a full
 * barrier in between, or neither may see the other. The kernel can run the hot thread's barrier for
 * it: membarrier() of the cold thread interrupts every CPU that runs this process. The hot side is
 * left with a compiler barrier. Without that system call both sides use a fence.
 */
#ifndef BASE_FENCE_H
#define BASE_FENCE_H

#include <stdbool.h>

/* Set once, before the first hot thread: the kernel does not do it for us. */
extern bool bf_fence_both;

/* Any thread, before either side is used; idempotent. */
void bf_fence_register(void);

/* The hot side, between its store and its load. */
static inline void bf_fence_hot(void)
{
	if (__builtin_expect(bf_fence_both, 0))
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
	else
		__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

/* The cold side, likewise. */
void bf_fence_cold(void);

#endif
