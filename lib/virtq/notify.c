/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Who wakes whom: publishing what was used, calling the driver, asking the driver for kicks.
 *
 * Queue context. Each question has the same shape, in both formats. One side stores what it did and
 * then loads what the other wants; the other stores what it wants and then looks at what was done.
 * Only a full barrier between store and load, on both sides, makes sure that at least one of them
 * sees the other (virtio 1.2, 2.7.7, 2.7.13.4 and 2.8.21.2). The stores and loads are the format's,
 * the barriers are here. Must not enter the kernel but to signal the call eventfd.
 */
#include "virtq.h"

#include "../base/fd.h"
#include "../base/shared.h"

bool bf_virtq_notify(struct bf_virtq *vq)
{
	uint16_t before = vq->published_used;

	if (vq->next_used == before)
		return false;
	vq->format->publish(vq);
	vq->published_used = vq->next_used;
	/* Partner: the driver's, between saying when it wants a call and looking at the ring. */
	bf_barrier();
	if (!vq->call_due && !vq->format->wants_call(vq, before)) {
		bf_count(&vq->counters.suppressed, 1);
		return false;
	}
	vq->call_due = false;
	/* Without a call eventfd the driver polls. */
	if (vq->call_fd < 0)
		return false;
	bf_count(&vq->counters.calls, 1);
	bf_eventfd_signal(vq->call_fd);
	return true;
}

bool bf_virtq_has_work(struct bf_virtq *vq)
{
	/* A broken ring has none: whoever sleeps until there is work sleeps on. */
	return !vq->broken && vq->format->has_work(vq);
}

bool bf_virtq_want_kicks(struct bf_virtq *vq, bool on)
{
	vq->kicks_wanted = on;
	vq->format->ask_for_kicks(vq, on);
	if (!on)
		return false;
	/* Partner: the driver's, between making something available and reading what we want. */
	bf_barrier();
	return bf_virtq_has_work(vq);
}
