/* SPDX-License-Identifier: BSD-3-Clause */
/* The cold half of an asymmetric barrier, see fence.h. Any context; must not be used in hot code. */
#include "fence.h"

#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

bool bf_fence_both;

static int membarrier(int command)
{
	return (int)syscall(__NR_membarrier, command, 0, 0);
}

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define __SANITIZE_THREAD__ 1
#endif
#endif

void bf_fence_register(void)
{
	if (bf_fence_both)
		return;
#ifdef __SANITIZE_THREAD__
	bf_fence_both = true; /* it cannot see the kernel's barriers */
#else
	if (membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED))
		bf_fence_both = true;
#endif
}

void bf_fence_cold(void)
{
	if (!bf_fence_both)
		membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}
