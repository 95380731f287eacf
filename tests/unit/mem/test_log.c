/* SPDX-License-Identifier: BSD-3-Clause */
/* The dirty log: which bits are set, that others are not touched, and that none is lost to the front end. */
#include "../support.h"

#include <pthread.h>
#include <stdbool.h>

#include "lib/mem/log.h"

#define PAGE 4096ull

static uint8_t *view(int fd, size_t size)
{
	uint8_t *bits = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	assert_ptr_not_equal(bits, MAP_FAILED);
	return bits;
}

static void refuses(void **state)
{
	unsigned fds = count_fds();
	int fd = make_memfd("bf-log", 8192, 0);
	struct bf_dirty_log *log = (void *)&fd;

	(void)state;
	assert_int_equal(bf_dirty_log_new(fd, 0, 0, &log), -EINVAL);
	assert_int_equal(bf_dirty_log_new(fd, UINT64_MAX, 2, &log), -EINVAL);
	assert_int_equal(bf_dirty_log_new(fd, 0, 8193, &log), -ENXIO);
	assert_int_equal(bf_dirty_log_new(fd, 8192, 1, &log), -ENXIO);
	assert_int_equal(bf_dirty_log_new(fd, 1ull << 62, 1ull << 61, &log), -ENXIO);
	assert_int_equal(bf_dirty_log_new(-1, 0, 1, &log), -EBADF);
	assert_ptr_equal(log, &fd);
	assert_int_equal(bf_dirty_log_new(fd, 5000, 8192 - 5000, &log), 0);
	close(fd);
	assert_int_equal(bf_dirty_log_size(log), 8192 - 5000);
	bf_dirty_log_ref(log);
	bf_dirty_log_unref(log);
	assert_int_equal(count_mappings("bf-log"), 1);
	bf_dirty_log_unref(log);
	bf_dirty_log_unref(NULL);
	assert_int_equal(count_mappings("bf-log"), 0);
	assert_int_equal(count_fds(), fds);
}

/* @offset is of no page; around the log lie other bytes of the file. */
static void sets_the_bits_of_the_pages(void **state)
{
	enum { OFFSET = 777, SIZE = 40, PAGES = SIZE * 8 };
	int fd = make_memfd("bf-log", 4096, 0);
	uint8_t *bits = view(fd, 4096), expected[4096];
	struct bf_dirty_log *log;

	(void)state;
	srand(3);
	assert_int_equal(bf_dirty_log_new(fd, OFFSET, SIZE, &log), 0);
	for (unsigned round = 0; round < 20000; round++) {
		uint64_t gpa = (uint64_t)rand() % ((PAGES + 20) * PAGE);
		uint64_t len = (uint64_t)rand() % (rand() % 2 ? 3 * PAGE : 60 * PAGE);

		if (rand() % 4 == 0)
			gpa &= ~(PAGE - 1);
		if (rand() % 4 == 0)
			len &= ~(PAGE - 1);
		memset(bits, 0, 4096);
		memset(expected, 0, sizeof(expected));
		/* What was set stays. */
		bits[OFFSET + 3] = expected[OFFSET + 3] = 0x10;
		for (uint64_t page = 0; len && page < PAGES; page++)
			if (page >= gpa / PAGE && page <= (gpa + len - 1) / PAGE)
				expected[OFFSET + page / 8] |= (uint8_t)(1u << page % 8);
		bf_dirty_log_mark(log, gpa, len);
		assert_memory_equal(bits, expected, 4096);
	}
	/* Numbers without sense end. */
	memset(bits, 0, 4096);
	bf_dirty_log_mark(log, UINT64_MAX, UINT64_MAX);
	bf_dirty_log_mark(log, UINT64_MAX, 1);
	bf_dirty_log_mark(log, PAGES * PAGE, UINT64_MAX);
	bf_dirty_log_mark(log, 0, 0);
	memset(expected, 0, sizeof(expected));
	assert_memory_equal(bits, expected, 4096);
	bf_dirty_log_mark(log, (PAGES - 1) * PAGE, UINT64_MAX);
	expected[OFFSET + SIZE - 1] = 0x80;
	assert_memory_equal(bits, expected, 4096);
	bf_dirty_log_mark(log, 0, UINT64_MAX);
	memset(expected + OFFSET, 0xff, SIZE);
	assert_memory_equal(bits, expected, 4096);
	munmap(bits, 4096);
	close(fd);
	bf_dirty_log_unref(log);
}

/*
 * Queues on two threads, each with a page of its own in the same byte of the log. Each takes its bit away
 * itself, as the front end would, and then marks it: it must be there.
 */
struct queue {
	pthread_t thread;
	struct bf_dirty_log *log;
	uint8_t *bits;
	const struct queue *other;
	unsigned page, turns, lost;
};

/* Until both have run at the same time for long enough: between two turns of the one the other had one. */
static void *mark_and_clear(void *arg)
{
	struct queue *queue = arg;
	uint8_t bit = (uint8_t)(1u << queue->page);
	unsigned together = 0, seen = 0;

	while (together < 200000 && queue->turns < 2000000) {
		unsigned turns = __atomic_load_n(&queue->other->turns, __ATOMIC_RELAXED);

		together += turns != seen;
		seen = turns;
		bf_dirty_log_mark(queue->log, queue->page * PAGE, 1);
		/* In order, so that the load is of memory and not of a store that is on its way. */
		__atomic_add_fetch(&queue->turns, 1, __ATOMIC_SEQ_CST);
		queue->lost += !(__atomic_load_n(queue->bits, __ATOMIC_RELAXED) & bit);
		__atomic_fetch_and(queue->bits, (uint8_t)~bit, __ATOMIC_RELAXED);
	}
	return NULL;
}

static void two_queues_share_a_byte(void **state)
{
	int fd = make_memfd("bf-log", 4096, 0);
	struct queue queues[2] = { { .page = 2 }, { .page = 5 } };
	uint8_t *bits = view(fd, 4096);
	struct bf_dirty_log *log;

	(void)state;
	assert_int_equal(bf_dirty_log_new(fd, 0, 1, &log), 0);
	for (unsigned i = 0; i < 2; i++) {
		queues[i].log = log;
		queues[i].bits = bits;
		queues[i].other = &queues[!i];
		assert_int_equal(
			pthread_create(&queues[i].thread, NULL, mark_and_clear, &queues[i]), 0);
	}
	for (unsigned i = 0; i < 2; i++)
		pthread_join(queues[i].thread, NULL);
	assert_int_equal(queues[0].lost + queues[1].lost, 0);
	munmap(bits, 4096);
	close(fd);
	bf_dirty_log_unref(log);
}

/*
 * A device writes pages and marks them; the front end takes bits and copies pages. When the device has
 * stopped and the front end looks a last time, its copy is what the device wrote.
 */
#define NR_PAGES 24u
#define WRITES   300000u

static unsigned pages[NR_PAGES], copies[NR_PAGES];
static bool device_done;

static void *device(void *arg)
{
	for (unsigned i = 1; i <= WRITES; i++) {
		unsigned page = (i * 7) % NR_PAGES;

		__atomic_store_n(&pages[page], i, __ATOMIC_RELAXED);
		bf_dirty_log_mark(arg, page * PAGE, 1);
	}
	__atomic_store_n(&device_done, true, __ATOMIC_RELEASE);
	return NULL;
}

static unsigned copy_dirty(uint8_t *bits)
{
	unsigned nr = 0;

	for (unsigned byte = 0; byte < NR_PAGES / 8; byte++) {
		unsigned dirty = __atomic_exchange_n(&bits[byte], 0, __ATOMIC_ACQ_REL);

		for (unsigned bit = 0; bit < 8; bit++) {
			unsigned page = byte * 8 + bit;

			if (!(dirty & 1u << bit))
				continue;
			copies[page] = __atomic_load_n(&pages[page], __ATOMIC_RELAXED);
			nr++;
		}
	}
	return nr;
}

static void loses_no_page_to_a_front_end_that_clears(void **state)
{
	int fd = make_memfd("bf-log", 4096, 0);
	uint8_t *bits = view(fd, 4096);
	struct bf_dirty_log *log;
	unsigned long copied = 0;
	pthread_t thread;

	(void)state;
	assert_int_equal(bf_dirty_log_new(fd, 0, NR_PAGES / 8, &log), 0);
	assert_int_equal(pthread_create(&thread, NULL, device, log), 0);
	while (!__atomic_load_n(&device_done, __ATOMIC_ACQUIRE))
		copied += copy_dirty(bits);
	pthread_join(thread, NULL);
	copied += copy_dirty(bits);
	assert_true(copied >= NR_PAGES);
	for (unsigned page = 0; page < NR_PAGES; page++)
		assert_int_equal(copies[page], pages[page]);
	munmap(bits, 4096);
	close(fd);
	bf_dirty_log_unref(log);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(refuses),
		cmocka_unit_test(sets_the_bits_of_the_pages),
		cmocka_unit_test(two_queues_share_a_byte),
		cmocka_unit_test(loses_no_page_to_a_front_end_that_clears),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
