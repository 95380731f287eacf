/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Ringing a doorbell that another thread may take away.
 *
 * Withdrawing a doorbell from a thread. The queue thread loads the page's address and stores into it;
 * in between, control must not unmap it. A lock or a full barrier per ring would cost more than the
 * store. So the queue thread makes @turn odd, loads the address, stores, and makes @turn even, all with
 * plain stores; control clears the address and then has the kernel run a barrier on every CPU that
 * runs this process (membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED). After that, either @turn is even,
 * and the next ring will load the cleared address; or it is odd, and control waits for that one turn
 * to end. This is the user-space form of what KVM's SRCU does for a vCPU.
 *
 * A kick is not lost: a ring that found the page stored into it before the page was unmapped, and the
 * front end signals the kick eventfd after that; a later one finds no page and writes the eventfd.
 */
#include "driver.h"

#include <linux/membarrier.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

static int membarrier(int command)
{
	return (int)syscall(__NR_membarrier, command, 0, 0);
}

bool bf_ringer_register(void)
{
	return membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) == 0;
}

void bf_ringer_map(struct bf_ringer *ringer, void *page)
{
	__atomic_store_n(&ringer->page, page, __ATOMIC_RELEASE);
}

void bf_ringer_unmap(struct bf_ringer *ringer)
{
	uint32_t turn;

	__atomic_store_n(&ringer->page, NULL, __ATOMIC_SEQ_CST);
	/* Partner: the compiler barrier, or fence, in bf_ringer_ring(). */
	if (!ringer->fence)
		membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	turn = __atomic_load_n(&ringer->turn, __ATOMIC_ACQUIRE);
	while (turn % 2 && __atomic_load_n(&ringer->turn, __ATOMIC_ACQUIRE) == turn)
		sched_yield();
}

bool bf_ringer_ring(struct bf_ringer *ringer, uint16_t value)
{
	uint32_t turn = ringer->turn;
	uint16_t *page;

	__atomic_store_n(&ringer->turn, turn + 1, __ATOMIC_RELAXED);
	if (ringer->fence)
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
	else
		__atomic_signal_fence(__ATOMIC_SEQ_CST);
	page = __atomic_load_n(&ringer->page, __ATOMIC_ACQUIRE);
	/* Release: the device finds the ring's new index when it sees the doorbell. */
	if (page)
		__atomic_store_n(page, value, __ATOMIC_RELEASE);
	__atomic_store_n(&ringer->turn, turn + 2, __ATOMIC_RELEASE);
	return page != NULL;
}
