/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Ringing a doorbell that another thread may take away.
 *
 * Withdrawing a doorbell from a thread. The queue thread loads the page's address and stores into it;
 * in between, control must not unmap it. A lock or a full barrier per ring would cost more than the
 * store. So the queue thread makes @turn odd, loads the address, stores, and makes @turn even, all with
 * plain stores; control clears the address and then has the kernel run a barrier on every CPU that
 * runs this process (base/fence.h). After that, either @turn is even,
 * and the next ring will load the cleared address; or it is odd, and control waits for that one turn
 * to end. This is the user-space form of what KVM's SRCU does for a vCPU.
 *
 * A kick is not lost: a ring that found the page stored into it before the page was unmapped, and the
 * front end signals the kick eventfd after that; a later one finds no page and writes the eventfd.
 */
#include "driver.h"

#include <sched.h>

#include "../base/fence.h"

void bf_ringer_map(struct bf_ringer *ringer, void *word)
{
	__atomic_store_n(&ringer->word, word, __ATOMIC_RELEASE);
}

void bf_ringer_unmap(struct bf_ringer *ringer)
{
	uint32_t turn;

	__atomic_store_n(&ringer->word, NULL, __ATOMIC_SEQ_CST);
	bf_fence_cold(); /* partner: bf_fence_hot() in bf_ringer_ring() */
	turn = __atomic_load_n(&ringer->turn, __ATOMIC_ACQUIRE);
	while (turn % 2 && __atomic_load_n(&ringer->turn, __ATOMIC_ACQUIRE) == turn)
		sched_yield();
}

bool bf_ringer_ring(struct bf_ringer *ringer, uint16_t value)
{
	uint32_t turn = ringer->turn;
	uint16_t *word;

	__atomic_store_n(&ringer->turn, turn + 1, __ATOMIC_RELAXED);
	bf_fence_hot(); /* partner: bf_fence_cold() in bf_ringer_unmap() */
	word = __atomic_load_n(&ringer->word, __ATOMIC_ACQUIRE);
	/* Release: the device finds the ring's new index when it sees the doorbell. */
	if (word)
		__atomic_store_n(word, value, __ATOMIC_RELEASE);
	__atomic_store_n(&ringer->turn, turn + 2, __ATOMIC_RELEASE);
	return word != NULL;
}
