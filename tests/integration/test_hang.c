/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A device that stops answering, and one that dies while it is waited for. What the front end
 * promises: -ETIMEDOUT at the time that was configured, -ENOTCONN at once.
 */
#include "../unit/support.h"

#include <pthread.h>
#include <signal.h>
#include <time.h>

#include "echo_driver.h"

#define LATE 1500 /* ms that a busy machine may add */

struct fixture {
	unsigned fds;
	struct echo_device dev;
	struct bf_driver *drv;
};

static struct fixture f;

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void meet(unsigned timeout_ms)
{
	static const struct echo_config device = { .nr_queues = 2, .doorbell = true };

	f.fds = count_fds();
	echo_device_start(&f.dev, &device);
	f.drv = echo_connect(&f.dev.fd,
			     (struct bf_driver_config){ .nr_queues = 2, .timeout_ms = timeout_ms });
	assert_int_equal(echo_dispatch_for(f.drv, 50), 0);
	assert_int_equal(echo_once(f.drv, 0, 5000), 0);
}

static void part(void)
{
	bf_driver_free(f.drv);
	kill(f.dev.pid, SIGKILL);
	assert_int_equal(echo_device_end(&f.dev, NULL), SIGKILL);
	assert_int_equal(count_fds(), f.fds);
}

static void a_stopped_device_times_out(void **state)
{
	struct bf_doorbell_state doorbell;
	int64_t began, took;

	(void)state;
	meet(400);
	kill(f.dev.pid, SIGSTOP);
	began = now_ms();
	assert_int_equal(bf_driver_stop(f.drv), -ETIMEDOUT);
	took = now_ms() - began;
	assert_in_range(took, 399, 400 + LATE);
	assert_non_null(strstr(bf_frontend_error(bf_driver_frontend(f.drv)), "within 400 ms"));
	/* The connection is over, with its doorbells. */
	assert_int_equal(bf_driver_start(f.drv), -ENOTCONN);
	bf_frontend_doorbell_state(bf_driver_frontend(f.drv), 0, &doorbell);
	assert_false(doorbell.mapped);
	part();
}

static void every_wait_ends(void **state)
{
	struct bf_frontend *fe;
	uint8_t config[4];
	int64_t began;

	(void)state;
	meet(200);
	fe = bf_driver_frontend(f.drv);
	kill(f.dev.pid, SIGSTOP);
	began = now_ms();
	assert_int_equal(bf_frontend_get_config(fe, 0, config, sizeof(config)), -ETIMEDOUT);
	assert_in_range(now_ms() - began, 199, 200 + LATE);
	/* What is told from dispatch, once. */
	assert_int_equal(bf_driver_dispatch(f.drv), -ETIMEDOUT);
	assert_int_equal(bf_driver_dispatch(f.drv), 0);
	assert_int_equal(bf_frontend_get_config(fe, 0, config, sizeof(config)), -ENOTCONN);
	part();
}

static void *kill_later(void *opaque)
{
	usleep(200000);
	kill(*(pid_t *)opaque, SIGKILL);
	return NULL;
}

static void a_device_killed_while_waited_for(void **state)
{
	pthread_t killer;
	int64_t began, took;

	(void)state;
	meet(20000);
	kill(f.dev.pid, SIGSTOP);
	assert_int_equal(pthread_create(&killer, NULL, kill_later, &f.dev.pid), 0);
	began = now_ms();
	assert_int_equal(bf_driver_stop(f.drv), -ENOTCONN);
	took = now_ms() - began;
	assert_in_range(took, 190, 200 + LATE);
	pthread_join(killer, NULL);
	part();
}

/* The kill comes first here: no call may take its time for what is known already. */
static void a_device_killed_before(void **state)
{
	int64_t began;

	(void)state;
	meet(20000);
	kill(f.dev.pid, SIGKILL);
	began = now_ms();
	assert_int_equal(bf_driver_stop(f.drv), -ENOTCONN);
	assert_in_range(now_ms() - began, 0, LATE);
	part();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_stopped_device_times_out),
		cmocka_unit_test(every_wait_ends),
		cmocka_unit_test(a_device_killed_while_waited_for),
		cmocka_unit_test(a_device_killed_before),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
