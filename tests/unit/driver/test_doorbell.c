/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * lib/driver/doorbell.c: a thread rings without pause while control maps a page and takes it away.
 * Once it is taken away, nothing may be stored into it any more, or the store would hit whatever is
 * mapped there next.
 */
#include "../support.h"

#include <pthread.h>
#include <sched.h>

#include "base/fence.h"
#include "driver/driver.h"

#define ROUNDS 5000
#define GONE   0xdead

struct thread {
	struct bf_ringer ringer;
	uint64_t stores;
	bool stop;
};

static void *ring(void *opaque)
{
	struct thread *t = opaque;

	while (!__atomic_load_n(&t->stop, __ATOMIC_RELAXED))
		if (bf_ringer_ring(&t->ringer, 7))
			__atomic_store_n(&t->stores, t->stores + 1, __ATOMIC_RELAXED);
	return NULL;
}

static void swap_under_a_ringing_thread(void)
{
	struct thread t = { 0 };
	uint16_t page = 0;
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, ring, &t), 0);
	for (unsigned i = 0; i < ROUNDS; i++) {
		uint64_t before = __atomic_load_n(&t.stores, __ATOMIC_RELAXED);

		bf_ringer_map(&t.ringer, &page);
		while (__atomic_load_n(&t.stores, __ATOMIC_RELAXED) < before + i % 3)
			sched_yield();
		bf_ringer_unmap(&t.ringer);
		__atomic_store_n(&page, GONE, __ATOMIC_SEQ_CST);
		for (unsigned spin = 0; spin < 50; spin++)
			assert_int_equal(__atomic_load_n(&page, __ATOMIC_SEQ_CST), GONE);
	}
	__atomic_store_n(&t.stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	assert_true(t.stores >= ROUNDS);
	assert_int_equal(t.ringer.turn % 2, 0);
}

static void *unmap(void *opaque)
{
	struct thread *t = opaque;

	bf_ringer_unmap(&t->ringer);
	__atomic_store_n(&t->stop, true, __ATOMIC_RELEASE);
	return NULL;
}

/* A thread that was scheduled out between loading the address and storing: control waits for it. */
static void waits_for_a_thread_inside(void **state)
{
	struct thread t = { .ringer.turn = 1 };
	pthread_t thread;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, unmap, &t), 0);
	usleep(50000);
	assert_false(__atomic_load_n(&t.stop, __ATOMIC_ACQUIRE));
	__atomic_store_n(&t.ringer.turn, 2, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
	assert_true(t.stop);
}

static void with_membarrier(void **state)
{
	(void)state;
	bf_fence_register();
	swap_under_a_ringing_thread();
}

static void with_fences(void **state)
{
	bool before = bf_fence_both;

	(void)state;
	bf_fence_both = true;
	swap_under_a_ringing_thread();
	bf_fence_both = before;
}

static void stores_the_value(void **state)
{
	uint16_t page = 0xffff;
	struct bf_ringer ringer = { 0 };

	(void)state;
	assert_false(bf_ringer_ring(&ringer, 3));
	bf_ringer_map(&ringer, &page);
	assert_true(bf_ringer_ring(&ringer, 3));
	assert_int_equal(page, 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(stores_the_value),
		cmocka_unit_test(waits_for_a_thread_inside),
		cmocka_unit_test(with_membarrier),
		cmocka_unit_test(with_fences),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
