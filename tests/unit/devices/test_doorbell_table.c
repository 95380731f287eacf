/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The table of doorbells: whoever rings is heard once, wherever in the page, whoever comes and goes.
 */
#include "../support.h"

#include <stdbool.h>

#include "devices/common/doorbell_table.h"

#define NR 130

static struct doorbell_pages pages;
static struct doorbell_table table;
static struct doorbell_watch watches[NR];
static bool present[NR];

static int set_up(void **state)
{
	(void)state;
	table = (struct doorbell_table){ 0 };
	memset(watches, 0, sizeof(watches));
	memset(present, 0, sizeof(present));
	return doorbell_pages_init(&pages, NR) || doorbell_table_reserve(&table, NR);
}

static int tear_down(void **state)
{
	(void)state;
	doorbell_table_done(&table);
	doorbell_pages_done(&pages);
	return 0;
}

static uint32_t *place_of(unsigned queue, bool staggered)
{
	uint32_t *word = doorbell_word(&pages, queue);

	return staggered ? doorbell_staggered(word, queue) : word;
}

static void ring(unsigned queue, bool staggered)
{
	__atomic_store_n((uint16_t *)place_of(queue, staggered), (uint16_t)queue, __ATOMIC_RELEASE);
}

static void add(unsigned queue)
{
	doorbell_table_add(&table, &watches[queue], doorbell_word(&pages, queue), queue);
	present[queue] = true;
}

/* Who rang, in one scan: each of them once, and all are silent then. */
static void expect(bool others, const unsigned *queues, unsigned nr)
{
	struct doorbell_watch *watch;
	unsigned place = 0, heard = 0, i;

	while ((watch = others ? doorbell_table_scan_others(&table, &place)
			       : doorbell_table_scan(&table, &place))) {
		for (i = 0; i < nr && watch != &watches[queues[i]]; i++)
			;
		assert_in_range(i, 0, nr - 1);
		heard++;
	}
	assert_int_equal(heard, nr);
}

#define EXPECT(...)                                                         \
	do {                                                                \
		const unsigned queues_[] = { __VA_ARGS__ };                 \
		expect(false, queues_, sizeof(queues_) / sizeof(*queues_)); \
	} while (0)

static void test_both_places(void **state)
{
	(void)state;
	add(0);
	add(5);
	add(70);
	assert_int_equal(table.nr, 5); /* of queue 0 both are the same */
	assert_int_equal((char *)place_of(70, true) - (char *)place_of(70, false), 384);
	ring(0, true);
	ring(70, false);
	EXPECT(0, 70);
	assert_int_equal(table.nr, 4);
	ring(5, true);
	EXPECT(5);
	assert_int_equal(table.nr, 3);
	ring(5, true);
	ring(70, false);
	EXPECT(5, 70);
	expect(false, NULL, 0);
	expect(true, NULL, 0);
}

/* Another driver, that rings elsewhere: heard in the slow rounds once, and in the quick ones then. */
static void test_change_of_place(void **state)
{
	const unsigned seven[] = { 7 };

	(void)state;
	add(7);
	add(8);
	ring(7, false);
	EXPECT(7);
	ring(7, true);
	expect(false, NULL, 0);
	expect(true, seven, 1);
	expect(true, NULL, 0);
	ring(7, true);
	EXPECT(7);
	ring(7, false);
	expect(false, NULL, 0);
	expect(true, seven, 1);
	ring(8, true);
	EXPECT(8);
	doorbell_table_remove(&table, &watches[7]);
	doorbell_table_remove(&table, &watches[7]);
	assert_int_equal(table.nr, 1);
	ring(7, true);
	ring(7, false);
	expect(false, NULL, 0);
	expect(true, NULL, 0);
}

/* Adding, removing and ringing in random order, beside a list of who must be heard. */
static void test_random(void **state)
{
	unsigned rung[NR], nr_rung, turn, i, seed = 7;
	struct doorbell_watch *watch;

	(void)state;
	for (turn = 0; turn < 20000; turn++) {
		nr_rung = 0;
		for (i = 0; i < NR; i++) {
			seed = seed * 1664525 + 1013904223;
			if ((seed >> 24) < 8 && present[i]) {
				doorbell_table_remove(&table, &watches[i]);
				present[i] = false;
			} else if ((seed >> 24) < 16 && !present[i]) {
				doorbell_reset(doorbell_word(&pages, i));
				add(i);
			} else if ((seed >> 24) < 24 && present[i]) {
				ring(i, seed >> 23 & 1);
				rung[nr_rung++] = i;
			}
		}
		for (i = 0; i < 2 * NR + 2; i++) {
			unsigned place = 0, j;

			watch = i < NR + 1 ? doorbell_table_scan(&table, &place)
					   : doorbell_table_scan_others(&table, &place);
			for (j = 0; watch && j < nr_rung && watch != &watches[rung[j]]; j++)
				;
			if (!watch)
				continue;
			assert_true(j < nr_rung);
			rung[j] = rung[--nr_rung];
		}
		assert_int_equal(nr_rung, 0);
	}
}

/* A whole page is silenced, whoever rang where. */
static void test_reset(void **state)
{
	(void)state;
	ring(9, false);
	ring(9, true);
	doorbell_reset(doorbell_word(&pages, 9));
	add(9);
	expect(false, NULL, 0);
	expect(true, NULL, 0);
}

int main(void)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_both_places),
		TEST(test_change_of_place),
		TEST(test_random),
		TEST(test_reset),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
