/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Who wakes whom: publishing what was used, calling the driver, asking the driver for kicks.
 *
 * Queue context. Each question has the same shape, in both formats. One side stores what it did and
 * then loads what the other wants; the other stores what it wants and then looks at what was done.
 * Only a full barrier between store and load, on both sides, makes sure that at least one of them
 * sees the other (virtio 1.2, 2.7.7, 2.7.13.4 and 2.8.21.2). The stores and loads are the format's,
 * the barriers are here. Must not enter the kernel but to signal the call eventfd, to tell control, and
 * to signal the log eventfd.
 */
#include "request.h"

#include "../base/fd.h"
#include "../base/shared.h"
#include "hold.h"

static void publish(struct bf_virtq *vq)
{
	if (__builtin_expect(!!vq->inflight, 0))
		bf_inflight_before_publish(vq);
	vq->format->publish(vq);
	if (__builtin_expect(!!vq->inflight, 0))
		bf_inflight_after_publish(vq);
	if (__builtin_expect(!!vq->dirty, 0))
		bf_dirty_signal(vq);
	vq->published_used = vq->next_used;
}

/* False: there is no way to call the driver, so it polls. */
static bool call(struct bf_virtq *vq)
{
	if (vq->call_fd < 0 && !vq->in_band)
		return false;
	bf_count(&vq->counters.calls, 1);
	if (vq->call_fd < 0)
		bf_virtq_post(vq, BF_POST_CALL);
	else
		bf_eventfd_signal(vq->call_fd);
	return true;
}

bool bf_virtq_flush(struct bf_virtq *vq)
{
	uint16_t before = vq->published_used;

	if (vq->next_used == before)
		return false;
	publish(vq);
	/* Partner: the driver's, between saying when it wants a call and looking at the ring. */
	bf_barrier();
	if (!vq->call_due && !vq->format->wants_call(vq, before)) {
		bf_count(&vq->counters.suppressed, 1);
		return false;
	}
	vq->call_due = false;
	return call(vq);
}

bool bf_virtq_notify(struct bf_virtq *vq)
{
	bool called;

	bf_virtq_enter(vq);
	called = bf_virtq_flush(vq);
	bf_virtq_leave(vq);
	return called;
}

static bool has_work(struct bf_virtq *vq)
{
	/* A broken ring has none, and one that waits for control neither: who sleeps sleeps on. */
	if (vq->broken || vq->waiting)
		return false;
	if (__builtin_expect(!!vq->inflight, 0) && bf_inflight_nr_again(vq))
		return true;
	return vq->format->has_work(vq);
}

bool bf_virtq_has_work(struct bf_virtq *vq)
{
	bool work;

	bf_virtq_enter(vq);
	work = has_work(vq);
	bf_virtq_leave(vq);
	return work;
}

bool bf_virtq_want_kicks(struct bf_virtq *vq, bool on)
{
	bool work = false;

	bf_virtq_enter(vq);
	vq->kicks_wanted = on;
	vq->format->ask_for_kicks(vq, on);
	if (on) {
		/* Partner: the driver's, between making something available and reading what we
		 * want. */
		bf_barrier();
		work = has_work(vq);
	}
	bf_virtq_leave(vq);
	return work;
}

uint64_t bf_virtq_drain_kick(struct bf_virtq *vq)
{
	uint64_t signals;

	bf_virtq_enter(vq);
	signals = bf_eventfd_drain(vq->kick_fd);
	bf_count(&vq->counters.kicks, signals);
	bf_virtq_leave(vq);
	return signals;
}

int bf_virtq_kick_fd(const struct bf_virtq *vq)
{
	return vq->kick_fd;
}
