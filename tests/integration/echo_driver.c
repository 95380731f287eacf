/* SPDX-License-Identifier: BSD-3-Clause */
/* Drivers for the echo device. The worker's thread is the queue context, the test's is control. */
#include "echo_driver.h"

#include "../unit/support.h"

#include <poll.h>
#include <sched.h>
#include <time.h>

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static unsigned next_random(struct echo_worker *w)
{
	w->random = w->random * 6364136223846793005ull + 1442695040888963407ull;
	return (unsigned)(w->random >> 40);
}

/* Between one and four pieces of @len bytes together. */
static unsigned cut(struct echo_worker *w, uint8_t *bytes, unsigned len, struct iovec *iov)
{
	unsigned nr = 0, at = 0;

	while (at < len && nr < 3) {
		unsigned part = 1 + next_random(w) % (len - at);

		iov[nr++] = (struct iovec){ bytes + at, part };
		at += part;
	}
	if (at < len)
		iov[nr++] = (struct iovec){ bytes + at, len - at };
	return nr;
}

static int add_one(struct echo_worker *w, struct echo_slot *slot)
{
	struct iovec iov[8];
	unsigned nr_out, nr_in;
	int ret;

	slot->len = 1 + next_random(w) % (ECHO_MAX_LEN - 1);
	for (unsigned i = 0; i < slot->len; i++)
		slot->out[i] = (uint8_t)(next_random(w) >> 8);
	memset(slot->in, 0, slot->len);
	nr_out = cut(w, slot->out, slot->len, iov);
	nr_in = cut(w, slot->in, slot->len, iov + nr_out);
	ret = bf_driver_add(w->drv, w->queue, iov, nr_out, nr_in, slot);
	if (ret)
		return ret;
	slot->busy = true;
	w->in_flight++;
	w->added++;
	return 0;
}

static bool all_added(const struct echo_worker *w)
{
	return w->until ? atomic_load(w->until) >= w->target : w->added >= w->nr;
}

static void add_all(struct echo_worker *w)
{
	for (unsigned i = 0; i < w->depth && !all_added(w); i++) {
		int ret;

		if (w->slots[i].busy)
			continue;
		ret = add_one(w, &w->slots[i]);
		if (ret == -ENOSPC)
			return;
		if (ret)
			snprintf(w->failure, sizeof(w->failure), "queue %u: cannot add: %s",
				 w->queue, strerror(-ret));
	}
}

static bool is_reversed(const struct echo_slot *slot)
{
	for (unsigned i = 0; i < slot->len; i++)
		if (slot->in[i] != slot->out[slot->len - 1 - i])
			return false;
	return true;
}

static unsigned collect(struct echo_worker *w)
{
	struct echo_slot *slot;
	uint32_t len = 0;
	unsigned nr = 0;

	while ((slot = bf_driver_get(w->drv, w->queue, &len))) {
		if (!slot->busy || len != slot->len || !is_reversed(slot))
			snprintf(
				w->failure, sizeof(w->failure),
				"queue %u: after %lu requests one of %u bytes came back %s, %u bytes",
				w->queue, w->done, slot->len, slot->busy ? "wrong" : "twice", len);
		slot->busy = false;
		w->in_flight--;
		w->done++;
		nr++;
	}
	if (nr)
		w->last_ms = now_ms();
	return nr;
}

/* Is it the notification that was lost, or the request? A second ring tells. */
static void explain_loss(struct echo_worker *w)
{
	int64_t until = now_ms() + 1000;
	bool there = false;

	bf_driver_ring(w->drv, w->queue);
	while (!there && now_ms() < until) {
		there = bf_driver_get(w->drv, w->queue, NULL) != NULL;
		usleep(1000);
	}
	snprintf(w->failure, sizeof(w->failure),
		 "queue %u: after %lu requests nothing came back for %u ms; %s", w->queue, w->done,
		 w->patience_ms,
		 there ? "a second ring brought it: the notification was LOST"
		       : "a second ring did not bring it");
}

static void wait_for_call(struct echo_worker *w)
{
	int64_t left = w->last_ms + (int64_t)w->patience_ms - now_ms();
	int ret = bf_driver_wait(w->drv, w->queue, left > 0 ? (int)left : 0);

	if (ret < 0)
		snprintf(w->failure, sizeof(w->failure), "queue %u: broken: %s", w->queue,
			 strerror(-ret));
	if (ret || now_ms() < w->last_ms + (int64_t)w->patience_ms)
		return;
	if (collect(w))
		snprintf(w->failure, sizeof(w->failure),
			 "queue %u: after %lu requests one was there, but in %u ms no call for it",
			 w->queue, w->done, w->patience_ms);
	else
		explain_loss(w);
}

static void ring_on(struct echo_worker *w)
{
	for (unsigned i = 0; i < 200; i++)
		bf_driver_ring(w->drv, w->queue);
	if (now_ms() > w->last_ms + (int64_t)w->patience_ms && !collect(w))
		explain_loss(w);
}

static void *work(void *arg)
{
	struct echo_worker *w = arg;

	w->last_ms = now_ms();
	while (!w->failure[0]) {
		add_all(w);
		if (!w->in_flight)
			break;
		bf_driver_kick(w->drv, w->queue);
		if (collect(w))
			continue;
		if (w->storm)
			ring_on(w);
		else
			wait_for_call(w);
	}
	atomic_store(&w->over, true);
	return NULL;
}

void echo_worker_start(struct echo_worker *w)
{
	w->slots = calloc(w->depth, sizeof(*w->slots));
	assert_non_null(w->slots);
	for (unsigned i = 0; i < w->depth; i++) {
		w->slots[i].out = bf_driver_alloc(w->drv, 2 * ECHO_MAX_LEN, 64);
		assert_non_null(w->slots[i].out);
		w->slots[i].in = w->slots[i].out + ECHO_MAX_LEN;
	}
	w->random = 0x9e3779b97f4a7c15ull * (w->queue + 1);
	assert_int_equal(pthread_create(&w->thread, NULL, work, w), 0);
}

static bool all_over(struct echo_worker *workers, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++)
		if (!atomic_load(&workers[i].over))
			return false;
	return true;
}

int echo_workers_finish(struct bf_driver *drv, struct echo_worker *workers, unsigned nr)
{
	int ret = 0;

	while (!all_over(workers, nr)) {
		int now = echo_dispatch_for(drv, 5);

		ret = ret ? ret : now;
	}
	for (unsigned i = 0; i < nr; i++) {
		pthread_join(workers[i].thread, NULL);
		free(workers[i].slots);
	}
	return ret;
}

int echo_once(struct bf_driver *drv, unsigned queue, unsigned timeout_ms)
{
	uint8_t *bytes = bf_driver_alloc(drv, 64, 64);
	int64_t until = now_ms() + timeout_ms;
	struct iovec iov[2];
	uint32_t len = 0;

	assert_non_null(bytes);
	memcpy(bytes, "drawkcab", 8);
	memset(bytes + 32, 0, 8);
	iov[0] = (struct iovec){ bytes, 8 };
	iov[1] = (struct iovec){ bytes + 32, 8 };
	if (bf_driver_add(drv, queue, iov, 1, 1, bytes))
		return -ENOSPC;
	bf_driver_kick(drv, queue);
	while (!bf_driver_get(drv, queue, &len)) {
		if (now_ms() > until)
			return -ETIMEDOUT;
		if (echo_dispatch_for(drv, 0))
			return -ENOTCONN;
		bf_driver_wait(drv, queue, 1);
	}
	return len == 8 && !memcmp(bytes + 32, "backward", 8) ? 0 : -EBADMSG;
}

struct bf_driver *echo_connect(int *fd, struct bf_driver_config config)
{
	struct bf_driver *drv = NULL;
	char error[256] = "";
	int given = *fd;

	*fd = -1;
	config.name = "echo";
	if (!config.memory_size)
		config.memory_size = 1 << 20;
	if (bf_driver_new(&config, given, &drv, error, sizeof(error)))
		fail_msg("%s", error);
	return drv;
}

int echo_dispatch_for(struct bf_driver *drv, unsigned ms)
{
	struct pollfd fd = { .fd = bf_frontend_fd(bf_driver_frontend(drv)), .events = POLLIN };
	int64_t until = now_ms() + ms;
	int ret = 0;

	do {
		int64_t left = until - now_ms();
		int now = 0;

		if (poll(&fd, 1, left > 0 ? (int)left : 0) > 0)
			now = bf_driver_dispatch(drv);
		ret = ret ? ret : now;
	} while (now_ms() < until);
	return ret;
}
