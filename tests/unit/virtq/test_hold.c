/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Changing a virtqueue under its thread (lib/virtq/hold.h), with real threads: one is the device and
 * copies what it is sent, one is the driver and checks what comes back, and control maps the memory anew,
 * moves the ring there, and unmaps the old map when the requests of before are back. A piece that is used
 * after that, a request that is lost or done twice ends the test.
 */
#include "../support.h"

#include <linux/virtio_config.h>
#include <pthread.h>
#include <sched.h>
#include <sys/eventfd.h>

#include "lib/mem/map.h"
#include "lib/virtq/driver_ring.h"
#include "lib/virtq/hold.h"

#define SIZE    64
#define UVA     0x100000000ull
#define MEMORY  (1u << 20)
#define BUFFERS (512u << 10)
#define STRIDE  4096u
#define TOTAL   20000ull
#define BATCH   8

struct fixture {
	int fd;
	uint8_t *driver_memory;
	struct bf_driver_ring driver;
	struct bf_memory *memory;
	struct bf_virtq *vq;
	struct bf_virtq_setup setup;
	struct bf_virtq_extras extras;
	struct bf_driver_layout layout;
	bool one_by_one, events, stop;
	int kick_fd, call_fd;
	uint64_t sent, done;
};

static struct bf_memory *map_anew(int fd)
{
	struct bf_memory_region region = { .uva = UVA, .size = MEMORY };
	struct bf_memory *memory = NULL;

	region.fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	assert_int_equal(bf_memory_new(&region, 1, &memory), 0);
	return memory;
}

static void open_fixture(struct fixture *f, uint64_t features)
{
	memset(f, 0, sizeof(*f));
	f->fd = make_memfd("bf-hold", MEMORY, 0);
	f->driver_memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED, f->fd, 0);
	assert_ptr_not_equal(f->driver_memory, MAP_FAILED);
	bf_driver_ring_layout(SIZE, (features >> VIRTIO_F_RING_PACKED) & 1, &f->layout);
	assert_int_equal(bf_driver_ring_init(&f->driver, SIZE, f->driver_memory, 0, features), 0);
	f->memory = map_anew(f->fd);
	f->kick_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	f->call_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	f->events = features & (1ull << VIRTIO_RING_F_EVENT_IDX);
	f->extras = (struct bf_virtq_extras){ .log_fd = -1, .post_fd = -1 };
	f->setup = (struct bf_virtq_setup){
		.memory = f->memory,
		.size = SIZE,
		.base = (features >> VIRTIO_F_RING_PACKED) & 1 ? BF_VIRTQ_PACKED_BASE : 0,
		.desc_uva = UVA + f->layout.desc,
		.avail_uva = UVA + f->layout.avail,
		.used_uva = UVA + f->layout.used,
		.features = features,
		.kick_fd = f->kick_fd,
		.call_fd = f->call_fd,
		.err_fd = -1,
	};
	f->vq = bf_virtq_new(0);
	assert_int_equal(bf_virtq_start(f->vq, &f->setup, NULL), 0);
}

static void close_fixture(struct fixture *f)
{
	bf_virtq_free(f->vq);
	bf_memory_unref(f->memory);
	bf_driver_ring_done(&f->driver);
	munmap(f->driver_memory, MEMORY);
	close(f->fd);
	close(f->kick_fd);
	close(f->call_fd);
}

static void copy(const struct bf_chain *chain)
{
	if (chain->nr_out != 1 || chain->nr_in != 1 || chain->out_len != chain->in_len)
		abort();
	memcpy(chain->iov[1].iov_base, chain->iov[0].iov_base, chain->iov[0].iov_len);
}

static unsigned serve(struct fixture *f)
{
	struct bf_chain chains[BATCH];
	struct bf_done done[BATCH];
	struct iovec iov[2 * BATCH];
	int nr;

	if (f->one_by_one) {
		chains[0] = (struct bf_chain){ .iov = iov, .nr_iov = 2 };
		nr = bf_virtq_pop(f->vq, chains);
	} else {
		nr = bf_virtq_pop_batch(f->vq, chains, BATCH, iov, 2 * BATCH);
	}
	for (int i = 0; i < nr; i++) {
		copy(&chains[i]);
		done[i] = (struct bf_done){ chains[i].head, (uint32_t)chains[i].in_len };
	}
	if (nr > 0) {
		bf_virtq_push_batch(f->vq, done, (unsigned)nr);
		bf_virtq_notify(f->vq);
	} else if (f->events && !bf_virtq_want_kicks(f->vq, true)) {
		bf_virtq_drain_kick(f->vq);
	}
	return nr < 0 ? abort(), 0 : (unsigned)nr;
}

static void *device(void *opaque)
{
	struct fixture *f = opaque;

	while (!__atomic_load_n(&f->stop, __ATOMIC_ACQUIRE))
		if (!serve(f))
			sched_yield();
	return NULL;
}

/* Slot @i of the buffers: 64 bytes out, 64 bytes in, in one page. */
static uint64_t slot(unsigned i)
{
	return BUFFERS + i * (uint64_t)STRIDE;
}

static void send_one(struct fixture *f, unsigned i)
{
	const struct bf_piece pieces[2] = { { slot(i), 64 }, { slot(i) + 64, 64 } };
	uint8_t *out = f->driver_memory + slot(i);

	for (unsigned b = 0; b < 64; b += 8)
		memcpy(out + b, &f->sent, 8);
	memset(out + 64, 0xee, 64);
	if (bf_driver_ring_add(&f->driver, pieces, 1, 1, out))
		abort();
	f->sent++;
}

static void receive_one(struct fixture *f, uint8_t *out, uint32_t len)
{
	if (len != 64 || memcmp(out, out + 64, 64))
		abort();
	__atomic_store_n(&f->done, f->done + 1, __ATOMIC_RELAXED);
}

static void *driver(void *opaque)
{
	struct fixture *f = opaque;
	unsigned free_slots[SIZE / 2], nr_free = SIZE / 2;
	uint64_t one = 1;

	for (unsigned i = 0; i < SIZE / 2; i++)
		free_slots[i] = i;
	while (f->done < TOTAL) {
		uint8_t *out;
		uint32_t len;
		unsigned n = 1 + (unsigned)(f->sent % 7);

		while (n-- && nr_free && f->sent < TOTAL)
			send_one(f, free_slots[--nr_free]);
		if (bf_driver_ring_publish(&f->driver))
			if (write(f->kick_fd, &one, sizeof(one)) < 0)
				abort();
		while ((out = bf_driver_ring_get(&f->driver, &len))) {
			receive_one(f, out, len);
			free_slots[nr_free++] =
				(unsigned)(((uint64_t)(out - f->driver_memory) - BUFFERS) / STRIDE);
		}
		if (f->driver.broken)
			abort();
		sched_yield();
	}
	return NULL;
}

/* One change of memory, as a back end makes it. */
static void change(struct fixture *f)
{
	struct bf_memory *old = f->memory;

	f->memory = map_anew(f->fd);
	bf_virtq_hold(&f->vq, 1);
	f->setup.memory = f->memory;
	assert_int_equal(bf_virtq_move(f->vq, &f->setup, &f->extras, NULL), 0);
	bf_virtq_mark_old(f->vq);
	bf_virtq_set_eventfds(f->vq, f->kick_fd, f->call_fd, -1);
	bf_virtq_release(&f->vq, 1);
	while (!bf_virtq_drained(f->vq))
		sched_yield();
	bf_memory_unref(old);
}

static void run(uint64_t features, bool one_by_one)
{
	struct fixture f;
	pthread_t threads[2];
	unsigned changes = 0;
	const struct timespec pause = { .tv_nsec = 20000 };

	open_fixture(&f, features);
	f.one_by_one = one_by_one;
	assert_int_equal(pthread_create(&threads[0], NULL, device, &f), 0);
	assert_int_equal(pthread_create(&threads[1], NULL, driver, &f), 0);
	while (__atomic_load_n(&f.done, __ATOMIC_RELAXED) < TOTAL) {
		change(&f);
		changes++;
		if (changes % 4 == 0)
			nanosleep(&pause, NULL);
	}
	pthread_join(threads[1], NULL);
	__atomic_store_n(&f.stop, true, __ATOMIC_RELEASE);
	pthread_join(threads[0], NULL);
	assert_true(changes > 20);
	assert_int_equal(f.sent, TOTAL);
	assert_int_equal(bf_virtq_counters(f.vq)->requests, TOTAL);
	assert_int_equal(bf_virtq_in_flight(f.vq), 0);
	close_fixture(&f);
	assert_int_equal(count_mappings("bf-hold"), 0);
}

static void split_in_batches(void **state)
{
	(void)state;
	run(0, false);
	run(1ull << VIRTIO_RING_F_EVENT_IDX, false);
}

static void packed_in_batches(void **state)
{
	(void)state;
	run(1ull << VIRTIO_F_RING_PACKED, false);
	run(1ull << VIRTIO_F_RING_PACKED | 1ull << VIRTIO_F_IN_ORDER, false);
}

static void one_by_one(void **state)
{
	(void)state;
	run(1ull << VIRTIO_RING_F_EVENT_IDX | 1ull << VIRTIO_RING_F_INDIRECT_DESC, true);
	run(1ull << VIRTIO_F_RING_PACKED, true);
}

/* A thread that control finds inside is waited for; one that comes while it is held waits. */
struct visitor {
	struct bf_virtq *vq;
	bool came_back;
};

static void *visit(void *opaque)
{
	struct visitor *visitor = opaque;

	bf_virtq_has_work(visitor->vq);
	__atomic_store_n(&visitor->came_back, true, __ATOMIC_RELEASE);
	return NULL;
}

static void *hold_it(void *opaque)
{
	struct visitor *visitor = opaque;

	bf_virtq_hold(&visitor->vq, 1);
	__atomic_store_n(&visitor->came_back, true, __ATOMIC_RELEASE);
	return NULL;
}

static void each_waits_for_the_other(void **state)
{
	struct fixture f;
	struct visitor visitor = { 0 };
	pthread_t thread;

	(void)state;
	open_fixture(&f, 0);
	visitor.vq = f.vq;
	bf_virtq_hold(&f.vq, 1);
	assert_int_equal(pthread_create(&thread, NULL, visit, &visitor), 0);
	usleep(30000);
	assert_false(__atomic_load_n(&visitor.came_back, __ATOMIC_ACQUIRE));
	bf_virtq_release(&f.vq, 1);
	pthread_join(thread, NULL);
	assert_true(visitor.came_back);

	visitor.came_back = false;
	bf_virtq_enter(f.vq);
	assert_int_equal(pthread_create(&thread, NULL, hold_it, &visitor), 0);
	usleep(30000);
	assert_false(__atomic_load_n(&visitor.came_back, __ATOMIC_ACQUIRE));
	bf_virtq_leave(f.vq);
	pthread_join(thread, NULL);
	assert_true(visitor.came_back);
	bf_virtq_release(&f.vq, 1);
	close_fixture(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(split_in_batches),
		cmocka_unit_test(packed_in_batches),
		cmocka_unit_test(one_by_one),
		cmocka_unit_test(each_waits_for_the_other),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
