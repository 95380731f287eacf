/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Changing a virtqueue under the thread that runs it.
 *
 * "Holding a queue". Every call of the queue context into a virtqueue enters it and leaves it again:
 * two plain stores and a load (bf_virtq_enter(), bf_virtq_leave()). Control sets `held`, has the kernel
 * run a barrier on every CPU (base/fence.h), and waits until the thread is not inside. From then on a
 * thread that wants in waits, and control may change anything: where the ring lies, its address space,
 * its log, its eventfds. What is between the calls is the device's work on requests that it popped:
 * those keep the pieces that they were given, so what a change takes away (a mapping, an IOTLB entry) may
 * go, and the front end may be answered, only when bf_virtq_drained() says that the requests popped
 * before the change are all back.
 *
 * A held thread waits by sched_yield(): control holds for microseconds, and never waits for anything
 * while it does. Control context, all of it, but enter and leave.
 */
#ifndef VIRTQ_HOLD_H
#define VIRTQ_HOLD_H

#include "../base/fence.h"
#include "virtq.h"

/* Control. Of queues that are not running: no effect, and changes are legal all the same. */
void bf_virtq_hold(struct bf_virtq *const *vqs, unsigned nr);
void bf_virtq_release(struct bf_virtq *const *vqs, unsigned nr);

/*
 * Control, while held: requests in flight now are those of before (bf_virtq_drained()). When the last of
 * them is pushed, BF_POST_DRAINED is posted.
 */
void bf_virtq_mark_old(struct bf_virtq *vq);
/* Control, any time: is none of them in flight any more? Acquire: the device has done with them. */
bool bf_virtq_drained(const struct bf_virtq *vq);

/*
 * Control, while held. The ring lies elsewhere now: the address space of @setup (its memory, or @extras)
 * has changed under it. Positions, what is in flight and counters stay. -EFAULT: the ring is not there
 * any more, and @vq is as before (the caller stops it).
 */
int bf_virtq_move(struct bf_virtq *vq, const struct bf_virtq_setup *setup,
		  const struct bf_virtq_extras *extras, const char **why);

/* Control, while held. Other eventfds (borrowed); the driver is called once. */
void bf_virtq_set_eventfds(struct bf_virtq *vq, int kick_fd, int call_fd, int err_fd);

void bf_virtq_wait_released(struct bf_virtq *vq) __attribute__((cold, noinline));

/* Queue. Between the two nothing of the virtqueue changes but by us. Not nested. */
static inline void bf_virtq_enter(struct bf_virtq *vq)
{
	__atomic_store_n(&vq->inside, true, __ATOMIC_RELAXED);
	bf_fence_hot(); /* partner: bf_fence_cold() in bf_virtq_hold() */
	/* Acquire: what control changed while it held. */
	if (__builtin_expect(__atomic_load_n(&vq->held, __ATOMIC_ACQUIRE), 0))
		bf_virtq_wait_released(vq);
}

static inline void bf_virtq_leave(struct bf_virtq *vq)
{
	/* Release: what this call did, to control. */
	__atomic_store_n(&vq->inside, false, __ATOMIC_RELEASE);
}

#endif
