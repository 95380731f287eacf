/* SPDX-License-Identifier: BSD-3-Clause */
/* The memory of the switch: learning, moving, aging, its bounds, and what a hostile port can do to others. */
#include "../support.h"

#include <stdbool.h>

#include "devices/net/mac_table.h"

static struct mac_table *table;

static int set_up(void **state)
{
	(void)state;
	table = calloc(1, sizeof(*table));
	return mac_table_init(table);
}

static int tear_down(void **state)
{
	(void)state;
	mac_table_done(table);
	free(table);
	return 0;
}

static uint64_t mac(unsigned port, unsigned i)
{
	return 0x020000000000ull + port * 0x1000000ull + i;
}

static void test_learning(void **state)
{
	static const uint8_t bytes[] = { 0x52, 0x54, 0, 0x12, 0x34, 0x56 };

	(void)state;
	assert_true(mac_read(bytes) == 0x525400123456);
	assert_int_equal(mac_table_find(table, mac(1, 1), 10), MAC_NOWHERE);
	mac_table_learn(table, mac(1, 1), 1, 10);
	mac_table_learn(table, mac(0, 1), 0, 10);
	mac_table_learn(table, mac(63, 1), 63, 10);
	assert_int_equal(mac_table_find(table, mac(1, 1), 10), 1);
	assert_int_equal(mac_table_find(table, mac(0, 1), 10), 0);
	assert_int_equal(mac_table_find(table, mac(63, 1), 10), 63);
	assert_int_equal(mac_table_find(table, mac(1, 2), 10), MAC_NOWHERE);
	/* It moves. */
	mac_table_learn(table, mac(1, 1), 5, 11);
	assert_int_equal(mac_table_find(table, mac(1, 1), 11), 5);
	assert_int_equal(table->nr[1], 0);
	assert_int_equal(table->nr[5], 1);
	/* Nobody's. */
	mac_table_learn(table, 0xffffffffffff, 1, 10);
	mac_table_learn(table, 0x010000000000, 1, 10);
	mac_table_learn(table, 0, 1, 10);
	assert_int_equal(mac_table_find(table, 0xffffffffffff, 10), MAC_NOWHERE);
	assert_int_equal(mac_table_find(table, 0x010000000000, 10), MAC_NOWHERE);
	assert_int_equal(mac_table_find(table, 0, 10), MAC_NOWHERE);
	assert_true(mac_is_group(0x010000000000));
	assert_false(mac_is_group(0x020000000000));
}

static void test_aging(void **state)
{
	(void)state;
	mac_table_learn(table, mac(1, 1), 1, 1000);
	assert_int_equal(mac_table_find(table, mac(1, 1), 1000 + MAC_AGE), 1);
	assert_int_equal(mac_table_find(table, mac(1, 1), 1001 + MAC_AGE), MAC_NOWHERE);
	/* Another thread's clock, a second behind. */
	assert_int_equal(mac_table_find(table, mac(1, 1), 999), 1);
	mac_table_learn(table, mac(1, 1), 1, 1200);
	assert_int_equal(mac_table_find(table, mac(1, 1), 1200 + MAC_AGE), 1);
	/* The counter of seconds comes round. */
	mac_table_learn(table, mac(1, 2), 1, UINT32_MAX - 5);
	assert_int_equal(mac_table_find(table, mac(1, 2), 10), 1);
}

static void test_flush(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 100; i++) {
		mac_table_learn(table, mac(1, i), 1, 10);
		mac_table_learn(table, mac(2, i), 2, 10);
	}
	mac_table_flush(table, 1);
	assert_int_equal(table->nr[1], 0);
	for (unsigned i = 0; i < 100; i++) {
		assert_int_equal(mac_table_find(table, mac(1, i), 10), MAC_NOWHERE);
		assert_int_equal(mac_table_find(table, mac(2, i), 10), 2);
	}
}

/* One port invents a million addresses: the others' stay, and it has its share at most. */
static void test_hostile(void **state)
{
	unsigned i, found = 0;

	(void)state;
	for (i = 0; i < 40; i++)
		mac_table_learn(table, mac(i, 7), i, 10);
	for (i = 0; i < 1000000; i++)
		mac_table_learn(table, mac(50, i), 50, 10 + i % 200);
	assert_true(table->nr[50] <= MAC_PER_PORT);
	for (i = 0; i < 40; i++)
		assert_int_equal(mac_table_find(table, mac(i, 7), 210), (int)i);
	for (i = 0; i < 1000000; i++)
		found += mac_table_find(table, mac(50, i), 210) == 50;
	assert_int_equal(found, table->nr[50]);
	assert_true(found > MAC_PER_PORT / 2);
	/* Others' addresses: no more of them than its share either. */
	for (i = 0; i < 1000; i++) {
		mac_table_learn(table, mac(2, 1000 + i), 2 + i % 40, 211);
		mac_table_learn(table, mac(2, 1000 + i), 50, 211);
	}
	assert_true(table->nr[50] <= MAC_PER_PORT);
	/* An honest newcomer still finds a place. */
	mac_table_learn(table, mac(60, 1), 60, 212);
	assert_int_equal(mac_table_find(table, mac(60, 1), 212), 60);
}

static void *learn_much(void *opaque)
{
	unsigned port = (unsigned)(uintptr_t)opaque;

	for (unsigned i = 0; i < 100000; i++) {
		int found;

		mac_table_learn(table, mac(0, i % 400), port, i / 1000);
		found = mac_table_find(table, mac(0, (i + 7) % 400), i / 1000);
		if (found != MAC_NOWHERE && found != 1 && found != 2)
			return (void *)1;
	}
	return NULL;
}

static void test_threads(void **state)
{
	pthread_t threads[2];
	void *wrong;

	(void)state;
	for (uintptr_t i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, learn_much, (void *)(i + 1)), 0);
	for (unsigned i = 0; i < 2; i++) {
		pthread_join(threads[i], &wrong);
		assert_null(wrong);
	}
	assert_true(table->nr[1] + table->nr[2] <= 400);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_learning, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_aging, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_flush, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_hostile, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_threads, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
