/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The queue thread of the echo device.
 *
 * It looks at its ring once when it starts, and from then on only when it was notified: when it found
 * a page changed that it is armed for, or read something from the kick eventfd. A ring that is looked
 * at without being told to would hide a lost notification. For the same reason the page is as hard
 * of hearing as hardware may be: what is stored before arming or after disarming is not noticed, ever.
 * The library promises a signal on the kick eventfd for both.
 */
#include "echo_queue.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define PIECES      64
#define SPIN_ROUNDS 64
#define MAX_LEN     4096

static void wake(struct echo_queue *q)
{
	eventfd_write(q->wake_fd, 1);
}

static size_t gather(const struct bf_chain *chain, uint8_t *bytes)
{
	size_t len = 0;

	for (unsigned i = 0; i < chain->nr_out && len < MAX_LEN; i++) {
		size_t part = chain->iov[i].iov_len;

		if (part > MAX_LEN - len)
			part = MAX_LEN - len;
		memcpy(bytes + len, chain->iov[i].iov_base, part);
		len += part;
	}
	return len;
}

static void scatter_reversed(const struct bf_chain *chain, const uint8_t *bytes, size_t len)
{
	size_t done = 0;

	for (unsigned i = chain->nr_out; i < (unsigned)chain->nr_out + chain->nr_in; i++) {
		uint8_t *to = chain->iov[i].iov_base;

		for (size_t j = 0; j < chain->iov[i].iov_len && done < len; j++)
			to[j] = bytes[len - 1 - done++];
	}
}

static uint32_t answer(const struct bf_chain *chain)
{
	uint8_t bytes[MAX_LEN];
	size_t len = gather(chain, bytes);

	if (len > chain->in_len)
		len = chain->in_len;
	scatter_reversed(chain, bytes, len);
	return (uint32_t)len;
}

static void serve(struct echo_queue *q)
{
	struct iovec pieces[PIECES];
	struct bf_chain chain = { .iov = pieces, .nr_iov = PIECES };
	const char *reason = NULL;
	int ret;

	while (!q->broken && (ret = bf_virtq_pop(q->vq, &chain)) != 0) {
		if (ret < 0) {
			bf_virtq_broken(q->vq, &reason);
			snprintf(q->report->failure, sizeof(q->report->failure),
				 "queue %u broke: %s", bf_virtq_queue(q->vq),
				 reason ? reason : strerror(-ret));
			q->broken = true;
			break;
		}
		bf_virtq_push(q->vq, chain.head, answer(&chain));
		atomic_fetch_add_explicit(&q->report->requests, 1, memory_order_relaxed);
		chain.nr_iov = PIECES;
	}
	bf_virtq_notify(q->vq);
}

/* With suppression: silence while working, then the look that wanting kicks again asks for. */
static void serve_notified(struct echo_queue *q)
{
	if (!q->suppress) {
		serve(q);
		return;
	}
	do {
		bf_virtq_want_kicks(q->vq, false);
		serve(q);
	} while (bf_virtq_want_kicks(q->vq, true));
}

static bool hear_page(struct echo_queue *q)
{
	atomic_uint *page = atomic_load(&q->armed);

	if (!page || atomic_load_explicit(page, memory_order_relaxed) == ECHO_SILENT)
		return false;
	if (atomic_exchange(page, ECHO_SILENT) == ECHO_SILENT)
		return false;
	atomic_fetch_add_explicit(&q->report->doorbells, 1, memory_order_relaxed);
	return true;
}

/* Sleeps only when no page is armed. */
static bool hear_kick(struct echo_queue *q)
{
	struct pollfd fds[] = {
		{ .fd = bf_virtq_kick_fd(q->vq), .events = POLLIN },
		{ .fd = q->wake_fd, .events = POLLIN },
	};
	eventfd_t count;

	if (poll(fds, 2, atomic_load(&q->armed) ? 0 : -1) <= 0) {
		sched_yield();
		return false;
	}
	if (fds[1].revents)
		eventfd_read(q->wake_fd, &count);
	if (!fds[0].revents || !bf_virtq_drain_kick(q->vq))
		return false;
	atomic_fetch_add_explicit(&q->report->kicks, 1, memory_order_relaxed);
	return true;
}

static bool notified(struct echo_queue *q)
{
	for (unsigned i = 0; i < SPIN_ROUNDS && atomic_load(&q->armed); i++)
		if (hear_page(q))
			return true;
	return hear_kick(q);
}

static void *run(void *arg)
{
	struct echo_queue *q = arg;

	serve_notified(q);
	while (!atomic_load(&q->stop))
		if (notified(q))
			serve_notified(q);
	return NULL;
}

int echo_queue_init(struct echo_queue *q, const struct echo_config *config,
		    struct echo_report *report)
{
	memset(q, 0, sizeof(*q));
	q->suppress = config->suppress;
	q->report = report;
	q->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return q->wake_fd < 0 ? -errno : 0;
}

void echo_queue_done(struct echo_queue *q)
{
	close(q->wake_fd);
}

int echo_queue_start(struct echo_queue *q, struct bf_virtq *vq)
{
	int ret;

	q->vq = vq;
	q->broken = false;
	atomic_store(&q->stop, false);
	ret = -pthread_create(&q->thread, NULL, run, q);
	q->running = !ret;
	return ret;
}

void echo_queue_stop(struct echo_queue *q)
{
	if (!q->running)
		return;
	atomic_store(&q->stop, true);
	wake(q);
	pthread_join(q->thread, NULL);
	q->running = false;
	atomic_store(&q->armed, NULL);
}

void echo_queue_arm(struct echo_queue *q, atomic_uint *page)
{
	/* As an acquire it makes the requests visible whose rings it discards: the kick finds them. */
	atomic_exchange(page, ECHO_SILENT);
	atomic_store(&q->armed, page);
	wake(q);
}

void echo_queue_disarm(struct echo_queue *q)
{
	atomic_store(&q->armed, NULL);
}
