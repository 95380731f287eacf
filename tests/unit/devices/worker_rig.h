/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Workers with several queues, a small device on them, and a driver, written by hand, of split rings: each
 * request is a word that the device inverts.
 */
#ifndef TESTS_DEVICES_WORKER_RIG_H
#define TESTS_DEVICES_WORKER_RIG_H

#include "../support.h"

#include <linux/virtio_ring.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/eventfd.h>
#include <time.h>

#include <belfry/memory.h>
#include <belfry/protocol.h>

#include "devices/common/log.h"
#include "devices/common/spin.h"
#include "devices/common/worker.h"

#define MAX_QUEUES 80
#define SIZE       64
#define AREA       8192u /* of guest memory, for one queue */
#define BASE       0x10000u
#define LIMIT_S    10 /* without any progress */

enum how { BY_KICK, BY_PAGE, BY_STAGGERED, BY_PAGE_32, BY_NOTHING };

struct queue {
	struct worker_queue wq;
	unsigned idx;
	uint8_t *area;
	int kick_fd, call_fd;
	/* The device's. */
	atomic_uint served; /* calls */
	atomic_uint asked;  /* a word that a poke is about */
	atomic_uint seen;   /* of `asked` */
	atomic_uint from_source;
	bool busy; /* always has something to do */
	bool slow; /* gives nothing back before finish() */
	unsigned in_hand;
	uint16_t heads[SIZE];
	/* The driver's. */
	atomic_int how;
	uint16_t avail, done;
	unsigned made, notified, to_do;
};

static struct rig {
	struct worker *workers[2];
	struct bf_memory *memory;
	uint8_t *base;
	struct doorbell_pages pages;
	struct queue queues[MAX_QUEUES];
	unsigned nr, nr_fds;
} rig;

/* The ring of a queue: descriptors at 0, available at 1024, used at 2048, buffers at 4096. */
static inline struct vring_desc *desc(struct queue *q)
{
	return (void *)q->area;
}

static inline struct vring_avail *avail(struct queue *q)
{
	return (void *)(q->area + 1024);
}

static inline struct vring_used *used(struct queue *q)
{
	return (void *)(q->area + 2048);
}

static inline uint32_t *buffer(struct queue *q, unsigned i)
{
	return (uint32_t *)(void *)(q->area + 4096) + i;
}

/* Device. */

static inline void give_back(struct queue *q)
{
	while (q->in_hand)
		bf_virtq_push(q->wq.vq, q->heads[--q->in_hand], 4);
	bf_virtq_notify(q->wq.vq);
}

static inline bool serve(struct worker_queue *wq)
{
	struct queue *q = (struct queue *)wq;
	struct iovec iov[4];
	struct bf_chain chain;
	uint64_t value;
	unsigned nr = 0;

	atomic_fetch_add(&q->served, 1);
	atomic_store(&q->seen, atomic_load(&q->asked));
	if (wq->source_fd >= 0 && read(wq->source_fd, &value, sizeof(value)) > 0)
		atomic_fetch_add(&q->from_source, (unsigned)value);
	for (; nr < 16 && q->in_hand < SIZE; nr++) {
		chain.iov = iov;
		chain.nr_iov = 4;
		if (bf_virtq_pop(wq->vq, &chain) <= 0)
			break;
		*(uint32_t *)iov[0].iov_base = ~*(uint32_t *)iov[0].iov_base;
		q->heads[q->in_hand++] = chain.head;
	}
	if (!q->slow)
		give_back(q);
	return nr > 0 || q->busy;
}

static const struct worker_ops ops = { .serve = serve };

static inline void finish(struct worker_queue *wq)
{
	give_back((struct queue *)wq);
}

/* While the worker may be counting. */
#define counter(q, name) __atomic_load_n(&bf_virtq_counters((q)->wq.vq)->name, __ATOMIC_RELAXED)

/* Driver. */

static inline void notify(struct queue *q)
{
	uint32_t *word = doorbell_word(&rig.pages, q->idx);
	uint64_t one = 1;

	q->notified++;
	switch (atomic_load(&q->how)) {
	case BY_STAGGERED:
		word = doorbell_staggered(word, q->idx);
		__attribute__((fallthrough));
	case BY_PAGE:
		__atomic_store_n((uint16_t *)word, (uint16_t)q->idx, __ATOMIC_RELEASE);
		break;
	case BY_PAGE_32:
		__atomic_store_n(word, q->idx | (uint32_t)q->avail << 16, __ATOMIC_RELEASE);
		break;
	case BY_KICK:
		assert_int_equal(write(q->kick_fd, &one, sizeof(one)), sizeof(one));
	}
}

static inline void submit(struct queue *q, unsigned nr)
{
	uint16_t before = q->avail, event;

	for (; nr && (uint16_t)(q->avail - q->done) < SIZE && q->made < q->to_do; nr--) {
		unsigned i = q->avail++ % SIZE;

		*buffer(q, i) = q->made++;
		desc(q)[i] = (struct vring_desc){
			.addr = BASE + (uint64_t)((uint8_t *)buffer(q, i) - rig.base),
			.len = 4,
			.flags = VRING_DESC_F_WRITE,
		};
		avail(q)->ring[(uint16_t)(q->avail - 1) % SIZE] = (uint16_t)i;
	}
	if (before == q->avail)
		return;
	__atomic_store_n(&avail(q)->idx, q->avail, __ATOMIC_SEQ_CST);
	/* A locked instruction and not a fence, which the thread sanitizer does not know. */
	atomic_fetch_add(&q->asked, 0);
	event = __atomic_load_n((uint16_t *)&used(q)->ring[SIZE], __ATOMIC_SEQ_CST);
	if ((uint16_t)(q->avail - event - 1) < (uint16_t)(q->avail - before))
		notify(q);
}

static inline bool collect(struct queue *q)
{
	uint16_t now = __atomic_load_n(&used(q)->idx, __ATOMIC_ACQUIRE);
	bool any = now != q->done;

	for (; q->done != now; q->done++) {
		struct vring_used_elem *elem = &used(q)->ring[q->done % SIZE];

		assert_in_range(elem->id, 0, SIZE - 1);
		assert_int_equal(elem->len, 4);
	}
	return any;
}

static inline double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

struct load {
	unsigned first, nr, bursts;
	pthread_t thread;
	atomic_bool *stop;
};

static inline unsigned left(const struct queue *q)
{
	return q->to_do - q->made + (uint16_t)(q->avail - q->done);
}

/* Drive some queues until all they have to do is done. */
static inline void *drive(void *arg)
{
	struct load *load = arg;
	double limit = 0;
	unsigned i, todo, seed = 1, idle = 0;

	do {
		bool any = false;

		for (i = load->first, todo = 0; i < load->first + load->nr; i++) {
			struct queue *q = &rig.queues[i];

			seed = seed * 1664525 + 1013904223;
			submit(q, 1 + (seed >> 16) % load->bursts);
			any |= collect(q);
			todo += left(q);
		}
		idle = any ? 0 : idle + 1;
		if (idle == 1)
			limit = seconds() + LIMIT_S;
		if (idle > 20)
			sched_yield();
		if (any && (seed >> 8) % 512 == 0)
			usleep(50); /* time to fall asleep */
		if (idle && idle % 1000 == 0 && seconds() > limit)
			fail_msg("%u requests of %u queues are lost", todo, load->nr);
	} while (todo);
	return NULL;
}

/* Rig. */

static inline void start_queue(struct queue *q, int kick_fd)
{
	struct bf_virtq_setup setup = {
		.memory = rig.memory,
		.size = SIZE,
		.desc_uva = (uintptr_t)desc(q),
		.avail_uva = (uintptr_t)avail(q),
		.used_uva = (uintptr_t)used(q),
		.base = q->avail,
		.features = bf_bit(VIRTIO_RING_F_EVENT_IDX) | bf_bit(32),
		.kick_fd = kick_fd,
		.call_fd = q->call_fd,
		.err_fd = -1,
	};
	const char *why = "";

	if (bf_virtq_start(q->wq.vq, &setup, &why))
		fail_msg("%s", why);
}

static inline void make_queue(unsigned idx)
{
	struct queue *q = &rig.queues[idx];

	*q = (struct queue){ .idx = idx, .area = rig.base + idx * AREA };
	q->kick_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	q->call_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	q->wq.vq = bf_virtq_new(idx);
	assert_non_null(q->wq.vq);
	start_queue(q, q->kick_fd);
	q->wq.ops = &ops;
	q->wq.source_fd = -1;
	q->wq.word = doorbell_word(&rig.pages, idx);
}

static inline void make_rig(enum worker_mode mode, unsigned nr)
{
	uint64_t size = nr * AREA;
	struct bf_memory_region region = { .gpa = BASE, .size = size };
	unsigned i;

	rig.nr_fds = count_fds();
	rig.nr = nr;
	region.fd = make_memfd("worker-test", size, 0);
	rig.base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, region.fd, 0);
	assert_ptr_not_equal(rig.base, MAP_FAILED);
	region.uva = (uintptr_t)rig.base;
	assert_int_equal(bf_memory_new(&region, 1, &rig.memory), 0);
	assert_int_equal(doorbell_pages_init(&rig.pages, nr), 0);
	for (i = 0; i < 2; i++)
		assert_int_equal(worker_new(mode, "test", i, &rig.workers[i]), 0);
	for (i = 0; i < nr; i++)
		make_queue(i);
}

static inline void add_all(unsigned worker)
{
	for (unsigned i = 0; i < rig.nr; i++)
		assert_int_equal(worker_add(rig.workers[worker], &rig.queues[i].wq), 0);
}

static inline void drop_rig(void)
{
	unsigned i;

	for (i = 0; i < rig.nr; i++) {
		struct queue *q = &rig.queues[i];

		worker_remove(&q->wq, finish);
		bf_virtq_stop(q->wq.vq);
		bf_virtq_free(q->wq.vq);
		close(q->kick_fd);
		close(q->call_fd);
	}
	worker_free(rig.workers[0]);
	worker_free(rig.workers[1]);
	doorbell_pages_done(&rig.pages);
	munmap(rig.base, rig.nr * AREA);
	bf_memory_unref(rig.memory);
	assert_int_equal(count_fds(), rig.nr_fds);
}

static inline void use(unsigned idx, enum how how)
{
	struct queue *q = &rig.queues[idx];
	bool page = how == BY_PAGE || how == BY_STAGGERED || how == BY_PAGE_32;

	atomic_store(&q->how, how);
	if (page)
		worker_set_doorbell(&q->wq, DOORBELL_MAPPED);
}

static inline void start_load(struct load *load, unsigned first, unsigned nr, unsigned each)
{
	unsigned i;

	for (i = first; i < first + nr; i++)
		rig.queues[i].to_do += each;
	load->first = first;
	load->nr = nr;
	if (!load->bursts)
		load->bursts = 8;
	assert_int_equal(pthread_create(&load->thread, NULL, drive, load), 0);
}

static inline void end_load(struct load *load)
{
	pthread_join(load->thread, NULL);
}

/* Buffers were all inverted, by the device and once each: the last of each place. */
static inline void check_done(void)
{
	unsigned i, j;

	for (i = 0; i < rig.nr; i++) {
		struct queue *q = &rig.queues[i];

		assert_int_equal(counter(q, requests), q->to_do);
		for (j = 0; j < SIZE && j < q->made; j++)
			assert_int_equal(~*buffer(q, j) % SIZE, j);
	}
}

#endif
