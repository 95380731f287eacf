/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A driver and a device that work while a test changes things under them: one thread writes requests
 * into a split ring and checks what comes back, one serves the ring by copying. The test's own thread is
 * the front end and the back end's control context.
 */
#ifndef TESTS_UNIT_BACKEND_LOAD_H
#define TESTS_UNIT_BACKEND_LOAD_H

#include "fake_frontend.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

/* Without an event index: it is called for everything, and calls are not what is looked at. */
#define LOAD_FEATURES (FEATURES & ~bf_bit(29))
#define LOAD_RING     64
#define LOAD_SLOTS    16
#define LOAD_DATA     0x10000u /* slot s: out at +s * 8192, in a page behind it */

/* A guest's memory, as the driver sees it, and where it tells the device that it is. */
struct guest {
	int fd;
	uint8_t *mem;
	uint64_t base; /* what descriptors say: guest-physical, or I/O virtual */
};

static inline void guest_init(struct guest *guest)
{
	guest->fd = make_memfd("bf-guest", MEMORY_SIZE, 0);
	guest->mem = mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, guest->fd, 0);
	assert_ptr_not_equal(guest->mem, MAP_FAILED);
	guest->base = GPA;
}

static inline void guest_done(struct guest *guest)
{
	munmap(guest->mem, MEMORY_SIZE);
	close(guest->fd);
}

static inline uint16_t *guest_avail(struct guest *guest, unsigned queue)
{
	return (uint16_t *)(void *)(guest->mem + 4096 * queue + 1024);
}

static inline uint16_t *guest_used(struct guest *guest, unsigned queue)
{
	return (uint16_t *)(void *)(guest->mem + 4096 * queue + 2048);
}

static inline void guest_desc(struct guest *guest, unsigned queue, unsigned idx, uint64_t address,
			      uint32_t len, uint16_t flags, uint16_t next)
{
	uint8_t *desc = guest->mem + 4096 * queue + 16 * idx;

	memcpy(desc, &address, 8);
	memcpy(desc + 8, &len, 4);
	memcpy(desc + 12, &flags, 2);
	memcpy(desc + 14, &next, 2);
}

/* Make chain @head available in a ring of @size entries. */
static inline void guest_offer(struct guest *guest, unsigned queue, unsigned size, uint16_t head)
{
	uint16_t *avail = guest_avail(guest, queue), idx = avail[1];

	avail[2 + idx % size] = head;
	__atomic_store_n(&avail[1], (uint16_t)(idx + 1), __ATOMIC_RELEASE);
}

/* One buffer for the device to write, at @address, as the whole request. */
static inline void guest_offer_in(struct guest *guest, unsigned queue, unsigned size, uint16_t head,
				  uint64_t address, uint32_t len)
{
	guest_desc(guest, queue, head, address, len, 2, 0);
	guest_offer(guest, queue, size, head);
}

/* A device whose thread echoes: out is copied to in. */
struct echo {
	struct peer peer; /* first: the fake operations get it */
	pthread_t thread;
	bool threaded;
	int halt;
	struct bf_virtq *served;
	atomic_uint hold_ms; /* how long each request is kept */
	atomic_bool keep;    /* until the vring stops */
	atomic_uint held;    /* requests that are being kept */
	unsigned suspends;
};

static inline void echo_sleep(unsigned ms)
{
	const struct timespec pause = { ms / 1000, (long)(ms % 1000) * 1000000 };

	nanosleep(&pause, NULL);
}

static inline bool echo_halted(const struct echo *echo)
{
	struct pollfd halt = { .fd = echo->halt, .events = POLLIN };

	return poll(&halt, 1, 0) == 1;
}

static inline void echo_one(struct echo *echo, struct bf_chain *chain)
{
	uint32_t len = 0;

	atomic_fetch_add(&echo->held, 1);
	if (atomic_load(&echo->hold_ms))
		echo_sleep(atomic_load(&echo->hold_ms));
	while (atomic_load(&echo->keep) && !echo_halted(echo))
		echo_sleep(1);
	for (unsigned i = 0; i < chain->nr_in; i++) {
		struct iovec *in = &chain->iov[chain->nr_out + i];

		if (chain->nr_out && in->iov_len >= 8 && chain->iov[0].iov_len >= 8)
			memcpy(in->iov_base, chain->iov[0].iov_base, 8);
		else
			memset(in->iov_base, 0x5a, in->iov_len);
		len += (uint32_t)in->iov_len;
	}
	bf_virtq_push(echo->served, chain->head, len);
	bf_virtq_notify(echo->served);
	atomic_fetch_sub(&echo->held, 1);
}

static inline void *echo_run(void *opaque)
{
	struct echo *echo = opaque;
	struct bf_virtq *vq = echo->served;
	struct iovec iov[8];
	struct pollfd fds[2] = {
		{ .fd = echo->halt, .events = POLLIN },
		{ .fd = bf_virtq_kick_fd(vq), .events = POLLIN },
	};

	for (;;) {
		struct bf_chain chain = { .iov = iov, .nr_iov = 8 };

		bf_virtq_drain_kick(vq);
		while (bf_virtq_pop(vq, &chain) == 1) {
			echo_one(echo, &chain);
			chain = (struct bf_chain){ .iov = iov, .nr_iov = 8 };
		}
		if (echo_halted(echo))
			return NULL;
		/* Whoever forgets to kick is found by the driver's patience. */
		if (!bf_virtq_want_kicks(vq, true))
			poll(fds, 2, -1);
	}
}

static inline int echo_start(void *opaque, unsigned queue, struct bf_virtq *vq)
{
	struct echo *echo = opaque;
	int ret = fake_start(opaque, queue, vq);

	if (ret || !echo->threaded)
		return ret;
	echo->served = vq;
	echo->halt = eventfd(0, EFD_CLOEXEC);
	assert_int_equal(pthread_create(&echo->thread, NULL, echo_run, echo), 0);
	return 0;
}

static inline void echo_stop(void *opaque, unsigned queue)
{
	struct echo *echo = opaque;

	if (echo->threaded) {
		eventfd_write(echo->halt, 1);
		pthread_join(echo->thread, NULL);
		close(echo->halt);
		echo->served = NULL;
	}
	fake_stop(opaque, queue);
}

static inline void echo_suspend(void *opaque, unsigned queue)
{
	((struct echo *)opaque)->suspends++;
	echo_stop(opaque, queue);
}

static const struct bf_backend_ops echo_ops = {
	.vring_start = echo_start,
	.vring_stop = echo_stop,
	.vring_suspend = echo_suspend,
	.get_config = fake_get_config,
	.set_config = fake_set_config,
	.set_features = fake_set_features,
	.reset = fake_reset,
	.disconnected = fake_disconnected,
};

/* @threaded: with a thread; otherwise the test pops and pushes. @features: to offer and agree to. */
static inline void echo_init(struct echo *echo, bool threaded, uint64_t features, uint64_t protocol)
{
	struct bf_backend_config config = peer_config(&echo->peer);
	struct peer *peer = &echo->peer;

	config.ops = &echo_ops;
	config.features = features;
	config.protocol_features = protocol;
	peer_init_as(peer, &config);
	echo->threaded = threaded;
	echo->halt = -1;
	atomic_init(&echo->hold_ms, 0);
	atomic_init(&echo->keep, false);
	atomic_init(&echo->held, 0);
	echo->served = NULL;
	echo->suspends = 0;
	say_u64(peer, BF_FE_SET_PROTOCOL_FEATURES, get_u64(peer, BF_FE_GET_PROTOCOL_FEATURES));
	assert_int_equal(say_u64(peer, BF_FE_SET_FEATURES, features | ACK_BIT), ACCEPTED);
	open_back(peer);
}

/* Queue @queue of @size entries at @base (user addresses, or what stands for them), up to the kick. */
static inline int echo_ring(struct echo *echo, unsigned queue, unsigned size, uint64_t base,
			    int *kick)
{
	struct peer *peer = &echo->peer;
	const uint64_t page = base + 4096ull * queue;

	assert_int_equal(say_state(peer, BF_FE_SET_VRING_NUM, queue, size), ACCEPTED);
	assert_int_equal(say_state(peer, BF_FE_SET_VRING_BASE, queue, 0), ACCEPTED);
	assert_int_equal(say_addr(peer, (struct bf_vring_addr){ .index = queue,
								.desc = page,
								.avail = page + 1024,
								.used = page + 2048 }),
			 ACCEPTED);
	assert_int_equal(say_state(peer, BF_FE_SET_VRING_ENABLE, queue, 1), ACCEPTED);
	return say_eventfd(peer, BF_FE_SET_VRING_KICK, queue, kick);
}

/* The driver of queue 0. */
struct load {
	struct guest *guest;
	int kick;
	pthread_t thread;
	atomic_bool stop;
	atomic_ulong done;
	atomic_uint wrong, stalls;
};

static inline uint64_t load_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static inline uint8_t *load_out(const struct load *load, unsigned slot)
{
	return load->guest->mem + LOAD_DATA + slot * 8192;
}

static inline void load_submit(struct load *load, unsigned slot, uint64_t value)
{
	uint64_t address = load->guest->base + LOAD_DATA + slot * 8192;

	memcpy(load_out(load, slot), &value, 8);
	memset(load_out(load, slot) + 4096, 0, 8);
	guest_desc(load->guest, 0, 2 * slot, address, 64, 1, (uint16_t)(2 * slot + 1));
	guest_desc(load->guest, 0, 2 * slot + 1, address + 4096, 64, 2, 0);
	guest_offer(load->guest, 0, LOAD_RING, (uint16_t)(2 * slot));
}

static inline void *load_run(void *opaque)
{
	struct load *load = opaque;
	uint16_t *used = guest_used(load->guest, 0), seen = used[1];
	uint64_t values[LOAD_SLOTS], next = 1, progress = load_now();
	unsigned outstanding = LOAD_SLOTS;

	for (unsigned slot = 0; slot < LOAD_SLOTS; slot++)
		load_submit(load, slot, values[slot] = next++);
	eventfd_write(load->kick, 1);
	while (outstanding) {
		uint32_t id;
		unsigned slot;

		if (__atomic_load_n(&used[1], __ATOMIC_ACQUIRE) == seen) {
			if (load_now() > progress + 10000) {
				atomic_fetch_add(&load->stalls, 1);
				return NULL;
			}
			sched_yield();
			continue;
		}
		progress = load_now();
		memcpy(&id, (uint8_t *)used + 4 + 8 * (seen % LOAD_RING), 4);
		seen++;
		slot = id / 2;
		if (id % 2 || slot >= LOAD_SLOTS ||
		    memcmp(load_out(load, slot) + 4096, &values[slot], 8))
			atomic_fetch_add(&load->wrong, 1);
		atomic_fetch_add(&load->done, 1);
		if (atomic_load(&load->stop)) {
			outstanding--;
			continue;
		}
		load_submit(load, slot, values[slot] = next++);
		eventfd_write(load->kick, 1);
	}
	return NULL;
}

static inline void load_start(struct load *load, struct guest *guest, int kick)
{
	memset(load, 0, sizeof(*load));
	load->guest = guest;
	load->kick = kick;
	assert_int_equal(pthread_create(&load->thread, NULL, load_run, load), 0);
}

/* All requests came back, each with what it asked for. */
static inline void load_finish(struct load *load)
{
	atomic_store(&load->stop, true);
	pthread_join(load->thread, NULL);
	assert_int_equal(atomic_load(&load->stalls), 0);
	assert_int_equal(atomic_load(&load->wrong), 0);
}

/* Let it do some more work. */
static inline void load_progress(struct load *load, unsigned long more)
{
	unsigned long target = atomic_load(&load->done) + more;

	while (atomic_load(&load->done) < target && !atomic_load(&load->stalls))
		sched_yield();
}

#endif
