/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A device with 256 queues, each with a doorbell, is set up in a few round trips. A proxy between
 * the two sides passes on what the front end says only when it has been quiet for a while: if it were
 * to wait after each message, or each queue, there would be hundreds of rounds.
 */
#include "../unit/support.h"

#include <sys/resource.h>

#include "echo_driver.h"
#include "proxy.h"

#define QUEUES 256
#define QUIET  150 /* ms; a front end that works is never quiet for so long */

static unsigned fds_before;

static int set_up(void **state)
{
	struct rlimit limit;

	(void)state;
	/* Two eventfds a queue, each a second time in the proxy. */
	if (getrlimit(RLIMIT_NOFILE, &limit))
		return -1;
	if (limit.rlim_cur < 4096)
		limit.rlim_cur = limit.rlim_max < 4096 ? limit.rlim_max : 4096;
	fds_before = count_fds();
	return setrlimit(RLIMIT_NOFILE, &limit);
}

static unsigned mapped(struct bf_driver *drv)
{
	struct bf_doorbell_state doorbell;
	unsigned nr = 0;

	for (unsigned i = 0; i < QUEUES; i++) {
		bf_frontend_doorbell_state(bf_driver_frontend(drv), i, &doorbell);
		nr += doorbell.mapped;
	}
	return nr;
}

static void assert_between(const char *what, unsigned value, unsigned least, unsigned most)
{
	print_message("# %s: %u\n", what, value);
	if (value < least || value > most)
		fail_msg("%s: expected %u to %u, got %u", what, least, most, value);
}

static void a_few_round_trips(void **state)
{
	const struct echo_config device = { .nr_queues = QUEUES, .doorbell = true, .idle = true };
	struct proxy proxy = { .hold_ms = QUIET };
	unsigned rounds, messages;
	struct echo_device dev;
	struct echo_report last;
	struct bf_driver *drv;

	(void)state;
	echo_device_start(&dev, &device);
	dev.fd = proxy_start(&proxy, dev.fd);
	drv = echo_connect(&dev.fd, (struct bf_driver_config){ .nr_queues = QUEUES,
							       .queue_size = 16,
							       .timeout_ms = 30000 });
	/*
	 * Handshake 3, status and features 4, memory 1 and the queues 1: one message kind each for
	 * size, position, addresses, call, error, kick and enable.
	 */
	rounds = proxy.nr_rounds;
	messages = proxy.nr_messages;
	assert_between("round trips to set everything up", rounds, 4, 10);
	assert_between("messages to set everything up", messages, 7 * QUEUES, 7 * QUEUES + 24);

	for (unsigned i = 0; i < 100 && mapped(drv) < QUEUES; i++)
		assert_int_equal(echo_dispatch_for(drv, 20), 0);
	assert_between("doorbells mapped", mapped(drv), QUEUES, QUEUES);
	assert_between("messages of the back end", proxy.nr_back_messages, QUEUES, QUEUES);

	assert_int_equal(bf_driver_stop(drv), 0);
	assert_between("round trips to stop", proxy.nr_rounds - rounds, 1, 1);
	assert_between("messages to stop", proxy.nr_messages - messages, QUEUES, QUEUES);
	assert_int_equal(mapped(drv), 0);
	rounds = proxy.nr_rounds;
	assert_int_equal(bf_driver_start(drv), 0);
	assert_between("round trips to start", proxy.nr_rounds - rounds, 1, 1);

	bf_driver_free(drv);
	assert_int_equal(echo_device_end(&dev, &last), 0);
	proxy_stop(&proxy);
	assert_int_equal(last.nr_left_fds, 0);
	assert_int_equal(last.nr_left_mappings, 0);
	assert_int_equal(count_fds(), fds_before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(a_few_round_trips, set_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
