/* SPDX-License-Identifier: BSD-3-Clause */
/* Polled doorbell pages: every kind of store is seen, and none is lost in a race. */
#include "../support.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "devices/common/doorbell.h"
#include "devices/common/spin.h"

#define RINGS 300000

static void test_pages(void **state)
{
	struct doorbell_pages pages = DOORBELL_PAGES_NONE;
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	int fd;

	(void)state;
	assert_false(doorbell_pages_exist(&pages));
	assert_int_equal(doorbell_pages_init(&pages, 3), 0);
	fd = pages.fd;
	assert_true(doorbell_pages_exist(&pages));
	assert_int_equal(doorbell_offset(&pages, 2), 2 * page);
	assert_ptr_equal(doorbell_word(&pages, 1), pages.base + page);
	assert_int_equal(fcntl(fd, F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
	assert_int_equal(ftruncate(fd, 0), -1);
	assert_int_equal(ftruncate(fd, (off_t)(4 * page)), -1);
	doorbell_pages_done(&pages);
	doorbell_pages_done(&pages);
	assert_int_equal(fcntl(fd, F_GETFD), -1);
}

static void test_stores(void **state)
{
	struct doorbell_pages pages;
	unsigned queue;

	(void)state;
	assert_int_equal(doorbell_pages_init(&pages, 256), 0);
	for (queue = 0; queue < 256; queue++) {
		uint32_t *word = doorbell_word(&pages, queue);

		assert_false(doorbell_take(word));
		__atomic_store_n((uint16_t *)word, (uint16_t)queue, __ATOMIC_RELAXED);
		assert_true(doorbell_take(word));
		assert_false(doorbell_take(word));
		/* NOTIFICATION_DATA: index and position, the position may be anything. */
		__atomic_store_n(word, queue | 0xffff0000u, __ATOMIC_RELAXED);
		assert_true(doorbell_take(word));
		__atomic_store_n((uint16_t *)word, 7, __ATOMIC_RELAXED);
		doorbell_reset(word);
		assert_false(doorbell_take(word));
	}
	doorbell_pages_done(&pages);
}

struct race {
	uint32_t *word;
	atomic_uint avail; /* stands for the ring's index */
	atomic_uint seen;
};

/* One request at a time: a lost ring stops it for good. */
static void *ring(void *arg)
{
	struct race *race = arg;
	unsigned i;

	for (i = 1; i <= RINGS; i++) {
		atomic_store_explicit(&race->avail, i, memory_order_release);
		__atomic_store_n((uint16_t *)race->word, 0, __ATOMIC_SEQ_CST);
		/* Every other time do not wait, so that rings meet the reset. */
		while (i % 2 && atomic_load_explicit(&race->seen, memory_order_acquire) < i)
			sched_yield();
	}
	return NULL;
}

static void test_race(void **state)
{
	struct race race = { 0 };
	struct doorbell_pages pages;
	struct spin spin;
	pthread_t thread;
	unsigned seen = 0, idle = 0;

	(void)state;
	assert_int_equal(doorbell_pages_init(&pages, 1), 0);
	race.word = doorbell_word(&pages, 0);
	assert_int_equal(pthread_create(&thread, NULL, ring, &race), 0);
	spin_begin(&spin);
	while (seen < RINGS) {
		if (!doorbell_take(race.word)) {
			spin_wait(&spin);
			if (++idle % 64 == 0)
				sched_yield();
			assert_true(idle < 400000000u); /* lost */
			continue;
		}
		idle = 0;
		spin_worked(&spin);
		seen = atomic_load_explicit(&race.avail, memory_order_acquire);
		atomic_store_explicit(&race.seen, seen, memory_order_release);
	}
	spin_end(&spin);
	pthread_join(thread, NULL);
	doorbell_pages_done(&pages);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pages),
		cmocka_unit_test(test_stores),
		cmocka_unit_test(test_race),
	};

	alarm(50);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
