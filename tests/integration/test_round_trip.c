/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Library against library, two processes: 100,000 requests over one queue and over eight, with and
 * without indirect descriptors and the event index, split and packed and in order, by eventfd and by
 * doorbell, with the queues
 * stopped and started under way. And what is left when one side goes.
 */
#include "../unit/support.h"

#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <signal.h>

#include "echo_driver.h"

#define REQUESTS 100000
#define PATIENCE 10000
#define RESTARTS 10

struct mode {
	unsigned nr_queues;
	bool indirect, event_idx, doorbell, packed, in_order;
};

struct fixture {
	unsigned fds, mappings;
	struct echo_device dev;
	struct bf_driver *drv;
};

static struct fixture f;

static int set_up(void **state)
{
	(void)state;
	memset(&f, 0, sizeof(f));
	f.fds = count_fds();
	f.mappings = count_mappings(ECHO_MAPPINGS);
	return 0;
}

static void assert_nothing_left(void)
{
	assert_int_equal(count_fds(), f.fds);
	assert_int_equal(count_mappings(ECHO_MAPPINGS), f.mappings);
}

/* Both sides go in peace, and neither has anything left. */
static void part(struct echo_report *last)
{
	bf_driver_free(f.drv);
	assert_int_equal(echo_device_end(&f.dev, last), 0);
	assert_int_equal(last->end_error, 0);
	assert_int_equal(last->nr_left_fds, 0);
	assert_int_equal(last->nr_left_mappings, 0);
	assert_nothing_left();
}

static void meet(const struct echo_config *device, struct bf_driver_config driver)
{
	echo_device_start(&f.dev, device);
	driver.nr_queues = device->nr_queues;
	f.drv = echo_connect(&f.dev.fd, driver);
}

static void stop_and_start(struct echo_worker *workers, unsigned nr)
{
	for (unsigned i = 0; i < RESTARTS; i++) {
		assert_int_equal(echo_dispatch_for(f.drv, 10), 0);
		assert_int_equal(bf_driver_stop(f.drv), 0);
		assert_int_equal(bf_driver_start(f.drv), 0);
	}
	assert_int_equal(echo_workers_finish(f.drv, workers, nr), 0);
}

static void round_trips(void **state)
{
	const struct mode *mode = *state;
	const struct echo_config device = {
		.nr_queues = mode->nr_queues,
		.doorbell = mode->doorbell,
		.suppress = !mode->doorbell,
	};
	const struct bf_driver_config driver = {
		/* A packed ring need not have a power of two. */
		.queue_size = mode->packed ? 60 : 64,
		.features = (mode->packed ? bf_bit(VIRTIO_F_RING_PACKED) : 0) |
			    (mode->in_order ? bf_bit(VIRTIO_F_IN_ORDER) : 0) |
			    (mode->indirect ? bf_bit(VIRTIO_RING_F_INDIRECT_DESC) : 0) |
			    (mode->event_idx ? bf_bit(VIRTIO_RING_F_EVENT_IDX) : 0),
	};
	struct echo_worker workers[8] = { 0 };
	struct bf_driver_counters sum = { 0 };
	struct echo_report last;
	unsigned long done = 0;

	meet(&device, driver);
	assert_int_equal(bf_has(bf_driver_features(f.drv), VIRTIO_RING_F_EVENT_IDX),
			 mode->event_idx);
	assert_int_equal(bf_has(bf_driver_features(f.drv), VIRTIO_F_RING_PACKED), mode->packed);
	for (unsigned i = 0; i < mode->nr_queues; i++) {
		workers[i] = (struct echo_worker){
			.drv = f.drv,
			.queue = i,
			.depth = 16,
			.nr = REQUESTS / mode->nr_queues,
			.patience_ms = PATIENCE,
		};
		echo_worker_start(&workers[i]);
	}
	stop_and_start(workers, mode->nr_queues);
	for (unsigned i = 0; i < mode->nr_queues; i++) {
		const struct bf_driver_counters *c = bf_driver_counters(f.drv, i);

		assert_string_equal(workers[i].failure, "");
		assert_int_equal(c->added, c->finished);
		done += workers[i].done;
		sum.doorbells += c->doorbells;
		sum.kicks += c->kicks;
	}
	part(&last);
	assert_int_equal(done, REQUESTS);
	assert_int_equal(last.requests, REQUESTS);
	/* Each way was really used. */
	assert_int_equal(sum.doorbells > 0, mode->doorbell);
	assert_int_equal(last.doorbells > 0, mode->doorbell);
	assert_true(sum.kicks > 0 || mode->doorbell);
	assert_int_equal(last.mapped >= mode->nr_queues, mode->doorbell);
}

static void staggered_doorbells(void **state)
{
	const struct echo_config device = { .nr_queues = 3, .doorbell = true, .staggered = true };
	struct echo_report last;

	(void)state;
	meet(&device, (struct bf_driver_config){ .stagger_doorbells = true });
	for (unsigned i = 0; i < 3; i++)
		for (unsigned n = 0; n < 5; n++)
			assert_int_equal(echo_once(f.drv, i, PATIENCE), 0);
	part(&last);
	assert_true(last.doorbells >= 3);
}

static void a_driver_without_doorbells(void **state)
{
	const struct echo_config device = { .nr_queues = 1, .doorbell = true };
	struct bf_doorbell_state doorbell;
	struct echo_report last;

	(void)state;
	meet(&device, (struct bf_driver_config){ .no_doorbell = true });
	assert_int_equal(echo_once(f.drv, 0, PATIENCE), 0);
	bf_frontend_doorbell_state(bf_driver_frontend(f.drv), 0, &doorbell);
	assert_false(doorbell.mapped);
	assert_non_null(strstr(doorbell.reason, "not agreed"));
	part(&last);
	assert_int_equal(last.mapped, 0);
}

/* The process of the device is killed in the middle: the driver hears of it and is left with nothing. */
static void the_device_dies(void **state)
{
	const struct echo_config device = { .nr_queues = 2, .doorbell = true };
	struct bf_doorbell_state doorbell;

	(void)state;
	meet(&device, (struct bf_driver_config){ 0 });
	assert_int_equal(echo_dispatch_for(f.drv, 100), 0);
	assert_int_equal(echo_once(f.drv, 1, PATIENCE), 0);
	bf_frontend_doorbell_state(bf_driver_frontend(f.drv), 1, &doorbell);
	assert_true(doorbell.mapped);
	kill(f.dev.pid, SIGKILL);
	assert_int_equal(echo_dispatch_for(f.drv, 500), -ENOTCONN);
	bf_frontend_doorbell_state(bf_driver_frontend(f.drv), 1, &doorbell);
	assert_false(doorbell.mapped);
	assert_int_equal(doorbell.nr_withdrawn, 1);
	assert_string_not_equal(doorbell.reason, "");
	/* Ringing goes nowhere, and harms nobody. */
	bf_driver_ring(f.drv, 1);
	assert_int_equal(bf_driver_wait(f.drv, 1, 1), 0);
	assert_int_equal(bf_driver_stop(f.drv), -ENOTCONN);
	assert_int_equal(bf_driver_start(f.drv), -ENOTCONN);
	bf_driver_free(f.drv);
	assert_int_equal(echo_device_end(&f.dev, NULL), SIGKILL);
	assert_nothing_left();
}

/* The other way round: the socket closes while requests are on their way. */
static void the_driver_leaves(void **state)
{
	const struct echo_config device = { .nr_queues = 4, .doorbell = true };
	struct echo_report last;

	(void)state;
	meet(&device, (struct bf_driver_config){ .queue_size = 8 });
	assert_int_equal(echo_once(f.drv, 3, PATIENCE), 0);
	bf_frontend_detach(bf_driver_frontend(f.drv));
	part(&last);
}

int main(void)
{
	static struct mode modes[21] = {
		[16] = { .nr_queues = 1, .packed = true },
		[17] = { .nr_queues = 2, .packed = true, .event_idx = true },
		[18] = { .nr_queues = 1, .packed = true, .indirect = true, .doorbell = true },
		[19] = { .nr_queues = 1, .packed = true, .event_idx = true, .in_order = true },
		[20] = { .nr_queues = 1, .indirect = true, .event_idx = true, .in_order = true },
	};
	static char names[21][64];
	struct CMUnitTest tests[25];

	for (unsigned i = 0; i < 21; i++) {
		if (i < 16)
			modes[i] = (struct mode){ .nr_queues = i & 8 ? 8 : 1,
						  .indirect = i & 1,
						  .event_idx = i & 2,
						  .doorbell = i & 4 };
		snprintf(names[i], sizeof(names[i]), "%u queues%s%s%s%s, %s", modes[i].nr_queues,
			 modes[i].packed ? ", packed" : "", modes[i].in_order ? ", in order" : "",
			 modes[i].indirect ? ", indirect" : "",
			 modes[i].event_idx ? ", event index" : "",
			 modes[i].doorbell ? "doorbell" : "eventfd");
		tests[i] = (struct CMUnitTest){ names[i], round_trips, set_up, NULL, &modes[i] };
	}
	tests[21] = (struct CMUnitTest)cmocka_unit_test_setup(a_driver_without_doorbells, set_up);
	tests[22] = (struct CMUnitTest)cmocka_unit_test_setup(the_device_dies, set_up);
	tests[23] = (struct CMUnitTest)cmocka_unit_test_setup(the_driver_leaves, set_up);
	tests[24] = (struct CMUnitTest)cmocka_unit_test_setup(staggered_doorbells, set_up);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
