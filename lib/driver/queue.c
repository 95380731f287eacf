/* SPDX-License-Identifier: BSD-3-Clause */
/* The driver's queue context: add, kick, get, wait. One thread a queue. */
#include "driver.h"

#include <errno.h>
#include <poll.h>
#include <time.h>

#include "../base/check.h"
#include "../base/fd.h"

/* The most pieces of one request. */
#define MAX_PIECES 128

static int translate(const struct bf_driver *drv, const struct iovec *iov, unsigned nr,
		     struct bf_piece *pieces)
{
	for (unsigned i = 0; i < nr; i++) {
		uint64_t offset = (uint64_t)((uint8_t *)iov[i].iov_base - drv->memory);

		if (!bf_range_ok(offset, iov[i].iov_len, drv->memory_size) ||
		    iov[i].iov_len > UINT32_MAX)
			return -EINVAL;
		pieces[i] = (struct bf_piece){ BF_DRIVER_GPA + offset, (uint32_t)iov[i].iov_len };
	}
	return 0;
}

int bf_driver_add(struct bf_driver *drv, unsigned queue, const struct iovec *iov, unsigned nr_out,
		  unsigned nr_in, void *cookie)
{
	struct bf_driver_queue *q = &drv->queues[queue];
	struct bf_piece pieces[MAX_PIECES];
	unsigned nr = nr_out + nr_in;
	int ret;

	if (nr == 0 || nr_out > MAX_PIECES || nr_in > MAX_PIECES || nr > MAX_PIECES)
		return -EINVAL;
	ret = translate(drv, iov, nr, pieces);
	if (ret < 0)
		return ret;
	ret = bf_driver_ring_add(&q->ring, pieces, nr_out, nr_in, cookie);
	if (ret == 0)
		q->counters.added++;
	return ret;
}

void bf_driver_ring(struct bf_driver *drv, unsigned queue)
{
	struct bf_driver_queue *q = &drv->queues[queue];

	if (bf_ringer_ring(&q->ringer, q->idx)) {
		q->counters.doorbells++;
		return;
	}
	bf_eventfd_signal(q->kick_fd);
	q->counters.kicks++;
}

bool bf_driver_kick(struct bf_driver *drv, unsigned queue)
{
	struct bf_driver_queue *q = &drv->queues[queue];
	bool anything = q->ring.published_idx != q->ring.avail_idx;

	if (!bf_driver_ring_publish(&q->ring)) {
		q->counters.suppressed += anything;
		return false;
	}
	bf_driver_ring(drv, queue);
	return true;
}

void *bf_driver_get(struct bf_driver *drv, unsigned queue, uint32_t *len)
{
	struct bf_driver_queue *q = &drv->queues[queue];
	void *cookie = bf_driver_ring_get(&q->ring, len);

	if (cookie)
		q->counters.finished++;
	return cookie;
}

int bf_driver_broken(const struct bf_driver *drv, unsigned queue)
{
	return drv->queues[queue].ring.broken;
}

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* False: @timeout_ms is over. A call is only a hint that something is finished. */
static bool sleep_until_called(struct bf_driver_queue *q, int timeout_ms)
{
	struct pollfd pfd = { .fd = q->call_fd, .events = POLLIN };

	if (poll(&pfd, 1, timeout_ms) <= 0)
		return false;
	bf_eventfd_drain(q->call_fd);
	q->counters.wakeups++;
	return true;
}

int bf_driver_wait(struct bf_driver *drv, unsigned queue, int timeout_ms)
{
	struct bf_driver_queue *q = &drv->queues[queue];
	int64_t end = timeout_ms < 0 ? 0 : now_ms() + timeout_ms;
	bool ready;

	if (q->ring.broken)
		return -EPIPE;
	/* Asking for calls comes before looking once more, or a completion in between is slept over. */
	while (!(ready = bf_driver_ring_want_calls(&q->ring, true))) {
		int64_t left = end - now_ms();

		if (!sleep_until_called(q, timeout_ms < 0 ? -1 : left > 0 ? (int)left : 0))
			break;
	}
	bf_driver_ring_want_calls(&q->ring, false);
	return ready;
}

const struct bf_driver_counters *bf_driver_counters(const struct bf_driver *drv, unsigned queue)
{
	return &drv->queues[queue].counters;
}
