/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Control's side of "Holding a queue" (hold.h), and the slow path of the thread that finds it held.
 *
 * Must not wait for anything but a thread that is inside a call of lib/virtq: those are bounded, take no
 * lock and wait for nobody.
 */
#include "hold.h"

#include <sched.h>

#include "request.h"

void bf_virtq_hold(struct bf_virtq *const *vqs, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++)
		__atomic_store_n(&vqs[i]->held, true, __ATOMIC_SEQ_CST);
	bf_fence_cold(); /* partner: bf_fence_hot() in bf_virtq_enter() */
	for (unsigned i = 0; i < nr; i++)
		while (__atomic_load_n(&vqs[i]->inside, __ATOMIC_ACQUIRE))
			sched_yield();
}

void bf_virtq_release(struct bf_virtq *const *vqs, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++)
		__atomic_store_n(&vqs[i]->held, false, __ATOMIC_RELEASE);
}

void bf_virtq_wait_released(struct bf_virtq *vq)
{
	do {
		__atomic_store_n(&vq->inside, false, __ATOMIC_RELEASE);
		while (__atomic_load_n(&vq->held, __ATOMIC_ACQUIRE))
			sched_yield();
		__atomic_store_n(&vq->inside, true, __ATOMIC_RELAXED);
		bf_fence_hot(); /* as in bf_virtq_enter() */
	} while (__atomic_load_n(&vq->held, __ATOMIC_ACQUIRE));
}

/* By a walk over all names, so that any number of changes may be on their way: old stays old. */
void bf_virtq_mark_old(struct bf_virtq *vq)
{
	if (!vq->running)
		return;
	for (unsigned i = 0; i < vq->size && vq->nr_in_flight; i++)
		if (vq->in_flight[i])
			vq->in_flight[i] |= BF_TAKEN_OLD;
	__atomic_store_n(&vq->nr_old, vq->nr_in_flight, __ATOMIC_RELAXED);
}

bool bf_virtq_drained(const struct bf_virtq *vq)
{
	return !__atomic_load_n(&vq->nr_old, __ATOMIC_ACQUIRE);
}
