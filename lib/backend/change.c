/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Holding queues for a change, and waiting for what was popped before it. See change.h.
 *
 * Control context. Must not hold a queue longer than a change takes, and must not let go of anything
 * that a request may still use: that is the caller's, after bf_change_settle().
 */
#include "change.h"

#include <time.h>

#include "../virtq/hold.h"

void bf_change_begin(struct bf_backend *be, struct bf_change *change)
{
	*change = (struct bf_change){ 0 };
	for (unsigned i = 0; i < be->nr_queues; i++)
		if (be->vrings[i].running)
			change->vqs[change->nr++] = &be->vrings[i].vq;
	bf_virtq_hold(change->vqs, change->nr);
}

void bf_change_begin_one(struct bf_backend *be, unsigned queue, struct bf_change *change)
{
	*change = (struct bf_change){ 0 };
	if (be->vrings[queue].running)
		change->vqs[change->nr++] = &be->vrings[queue].vq;
	bf_virtq_hold(change->vqs, change->nr);
}

/*
 * A ring that is lost is about to be stopped, but its thread goes on until then. It has the old map of
 * memory, counted; but the spans of an IOTLB are not counted, and it must not see them again.
 */
static void keep_from_iotlb(struct bf_virtq *vq)
{
	vq->space = (struct bf_space){ 0 };
	vq->waiting = true;
}

void bf_change_move(struct bf_backend *be, struct bf_change *change)
{
	for (unsigned i = 0; i < change->nr; i++) {
		struct bf_virtq_setup setup;
		struct bf_virtq_extras extras;
		const char *why;

		bf_vring_describe(be, bf_virtq_queue(change->vqs[i]), &setup, &extras);
		change->lost[i] = bf_virtq_move(change->vqs[i], &setup, &extras, &why) < 0;
		if (change->lost[i] && be->iotlb)
			keep_from_iotlb(change->vqs[i]);
	}
}

/*
 * Requests have one of two generations. So they are marked only by a change that waits for them, or stops
 * the queue: there are never three.
 */
void bf_change_end(struct bf_change *change, bool drain)
{
	change->drains = drain;
	for (unsigned i = 0; drain && i < change->nr; i++)
		bf_virtq_mark_old(change->vqs[i]);
	bf_virtq_release(change->vqs, change->nr);
}

static bool all_drained(const struct bf_change *change)
{
	for (unsigned i = 0; i < change->nr; i++)
		if (!change->stopped[i] && !bf_virtq_drained(change->vqs[i]))
			return false;
	return true;
}

static uint64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* Requests take microseconds to milliseconds: look often at first, and seldom later. */
static void wait_drained(const struct bf_change *change)
{
	uint64_t deadline = now_us() + BF_DRAIN_MS * 1000;
	long pause_us = 20;

	while (!all_drained(change) && now_us() < deadline) {
		const struct timespec pause = { 0, pause_us * 1000 };

		nanosleep(&pause, NULL);
		if (pause_us < 1000)
			pause_us *= 2;
	}
}

static void stop(struct bf_backend *be, struct bf_change *change, unsigned i)
{
	bf_vring_stop(be, bf_virtq_queue(change->vqs[i]));
	change->stopped[i] = true;
}

void bf_change_settle(struct bf_backend *be, struct bf_change *change)
{
	for (unsigned i = 0; i < change->nr; i++)
		if (change->lost[i])
			stop(be, change, i);
	if (!change->drains)
		return;
	wait_drained(change);
	for (unsigned i = 0; i < change->nr; i++) {
		if (change->stopped[i] || bf_virtq_drained(change->vqs[i]))
			continue;
		bf_report_log(&be->report, BF_LOG_WARN,
			      "queue %u kept requests for %u ms under a change of memory, IOTLB or "
			      "log: it is stopped and started",
			      bf_virtq_queue(change->vqs[i]), BF_DRAIN_MS);
		stop(be, change, i);
	}
}

int bf_change_restart(struct bf_backend *be, struct bf_change *change)
{
	int first = 0;

	for (unsigned i = 0; i < change->nr; i++) {
		int ret =
			change->stopped[i] ? bf_vring_start(be, bf_virtq_queue(change->vqs[i])) : 0;

		if (ret && !first)
			first = ret;
	}
	return first;
}
