/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Who wakes whom: publishing the used index, calling the driver, asking the driver for kicks.
 *
 * Queue context. Each question has the same shape. One side stores what it did and then loads what
 * the other wants; the other stores what it wants and then looks at what was done. Only a full
 * barrier between store and load, on both sides, makes sure that at least one of them sees the
 * other (virtio 1.2, 2.7.7 and 2.7.13.4). Must not enter the kernel but to signal the call eventfd.
 */
#include "virtq.h"

#include "../base/fd.h"
#include "../base/shared.h"

/* Does the driver want to be called for what lies between @before and the index now? */
static bool driver_wants_call(struct bf_virtq *vq, uint16_t before)
{
	if (vq->call_due)
		return true;
	if (vq->event_idx)
		return bf_ring_passes(bf_load16(vq->used_event), vq->next_used, before);
	return !(bf_load16(&vq->avail->flags) & VRING_AVAIL_F_NO_INTERRUPT);
}

bool bf_virtq_notify(struct bf_virtq *vq)
{
	uint16_t before = vq->published_used;

	if (vq->next_used == before)
		return false;
	/* Release: entries before index. Partner: the driver's read barrier behind loading it. */
	bf_store16_release(&vq->used->idx, vq->next_used);
	vq->published_used = vq->next_used;
	bf_barrier(); /* partner: the driver's, between used_event or its flags and our index */
	if (!driver_wants_call(vq, before)) {
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
	return !vq->broken && bf_load16_acquire(&vq->avail->idx) != vq->next_avail;
}

bool bf_virtq_want_kicks(struct bf_virtq *vq, bool on)
{
	vq->kicks_wanted = on;
	if (!vq->event_idx)
		bf_store16(&vq->used->flags, on ? 0 : VRING_USED_F_NO_NOTIFY);
	/* With an event index, off needs no store: the event is left behind and not passed again.
	 */
	if (!on)
		return false;
	if (vq->event_idx) {
		vq->told_event = vq->next_avail;
		bf_store16(vq->avail_event, vq->next_avail);
	}
	bf_barrier(); /* partner: the driver's, between its index and reading the two above */
	return bf_virtq_has_work(vq);
}
