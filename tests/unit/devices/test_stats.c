/* SPDX-License-Identifier: BSD-3-Clause */
/* The --stats file: always whole, whoever reads it while it is replaced. */
#include "../support.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/stat.h>

#include "devices/common/stats.h"

static char folder[] = "/tmp/belfry-stats-XXXXXX";
static char path[64];
static atomic_bool ending;

static json_t *sample(unsigned n)
{
	const struct stats_queue queue = {
		.queue = 1,
		.counters = { .requests = n, .kicks = n, .errors = n },
		.wakeups = n,
		.doorbell = DOORBELL_MAPPED,
	};
	json_t *queues = json_array();

	json_array_append_new(queues, stats_queue_json(&queue));
	return json_pack("{s:o}", "queues", queues);
}

static void *read_again_and_again(void *arg)
{
	intptr_t bad = 0;

	(void)arg;
	while (!atomic_load(&ending)) {
		json_t *root = json_load_file(path, 0, NULL);
		json_t *queue = json_array_get(json_object_get(root, "queues"), 0);

		if (!root || json_integer_value(json_object_get(queue, "requests")) !=
				     json_integer_value(json_object_get(queue, "wakeups")))
			bad++;
		json_decref(root);
	}
	return (void *)bad;
}

static void test_whole(void **state)
{
	pthread_t reader;
	unsigned i;
	void *bad;

	(void)state;
	assert_int_equal(stats_write(path, sample(0)), 0);
	assert_int_equal(pthread_create(&reader, NULL, read_again_and_again, NULL), 0);
	for (i = 1; i < 2000; i++)
		assert_int_equal(stats_write(path, sample(i)), 0);
	atomic_store(&ending, true);
	pthread_join(reader, &bad);
	assert_null(bad);
}

static void test_fields(void **state)
{
	json_t *root, *queue;

	(void)state;
	assert_int_equal(stats_write(path, sample(7)), 0);
	root = json_load_file(path, 0, NULL);
	queue = json_array_get(json_object_get(root, "queues"), 0);
	assert_int_equal(json_integer_value(json_object_get(queue, "queue")), 1);
	assert_int_equal(json_integer_value(json_object_get(queue, "kicks")), 7);
	assert_int_equal(json_integer_value(json_object_get(queue, "doorbells")), 0);
	assert_string_equal(json_string_value(json_object_get(queue, "doorbell")), "mapped");
	json_decref(root);
}

static void test_failure(void **state)
{
	(void)state;
	assert_int_equal(stats_write("/nonexistent/folder/x", sample(1)), -ENOENT);
	assert_int_equal(stats_write(path, NULL), -ENOMEM);
	/* A folder cannot be replaced, and nothing stays behind. */
	assert_true(stats_write(folder, sample(1)) < 0);
}

static void test_difference(void **state)
{
	const struct bf_virtq_counters before = { .requests = 5, .calls = 1 };
	const struct bf_virtq_counters now = { .requests = 9, .calls = 1, .kicks = 2 };
	struct bf_virtq_counters total = { .requests = 100, .calls = 100 };

	(void)state;
	stats_counters_add(&total, &now, &before);
	assert_int_equal(total.requests, 104);
	assert_int_equal(total.calls, 100);
	assert_int_equal(total.kicks, 2);
}

static int set_up(void **state)
{
	(void)state;
	if (!mkdtemp(folder))
		return -1;
	snprintf(path, sizeof(path), "%s/stats.json", folder);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	unlink(path);
	return rmdir(folder); /* fails if a temporary file was left */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_whole),
		cmocka_unit_test(test_fields),
		cmocka_unit_test(test_failure),
		cmocka_unit_test(test_difference),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
