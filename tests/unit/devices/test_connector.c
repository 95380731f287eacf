/* SPDX-License-Identifier: BSD-3-Clause */
/* --client: when a path is tried, how often, and what becomes of the interval. */
#include "../support.h"

#include <poll.h>
#include <stdbool.h>
#include <sys/un.h>
#include <time.h>

#include <belfry/socket.h>

#include "devices/common/connector.h"

static char folder[] = "/tmp/belfry-connector-XXXXXX";
static char path[64];

static unsigned elapsed_ms(const struct timespec *since)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (unsigned)((now.tv_sec - since->tv_sec) * 1000 +
			  (now.tv_nsec - since->tv_nsec) / 1000000);
}

static bool is_due(const struct connector *connector, int timeout_ms)
{
	struct pollfd fd = { .fd = connector->timer_fd, .events = POLLIN };

	return poll(&fd, 1, timeout_ms) == 1;
}

/* Sleep until the next try is due; it is not before @ms, less what this program was late. */
static void wait_for_try(const struct connector *connector, unsigned ms)
{
	struct timespec since;

	clock_gettime(CLOCK_MONOTONIC, &since);
	assert_true(is_due(connector, 5000));
	assert_true(elapsed_ms(&since) + 50 >= ms);
}

static void test_intervals(void **state)
{
	static const unsigned waits[] = { 100, 200, 400, 800, 1000 };
	struct connector connector = CONNECTOR_NONE;
	unsigned fds = count_fds(), i;

	(void)state;
	assert_false(connector_is_open(&connector));
	assert_int_equal(connector_open(&connector, path), 0);
	assert_true(connector_is_open(&connector));
	assert_true(is_due(&connector, 1000));
	assert_int_equal(connector_try(&connector), -ENOENT);
	for (i = 0; i < sizeof(waits) / sizeof(waits[0]); i++) {
		assert_false(is_due(&connector, 0));
		assert_int_equal(connector_try(&connector), -EAGAIN); /* not due: nothing is done */
		wait_for_try(&connector, waits[i]);
		assert_int_equal(connector_try(&connector), -ENOENT);
	}
	connector_close(&connector);
	connector_close(&connector);
	assert_int_equal(count_fds(), fds);
}

static int connect_now(struct connector *connector)
{
	int fd;

	assert_true(is_due(connector, 5000));
	fd = connector_try(connector);
	assert_true(fd >= 0);
	assert_false(is_due(connector, 150)); /* connected: no more tries */
	return fd;
}

/* Somebody who takes connections and drops them must not be met in a loop. */
static void test_dropped(void **state)
{
	struct connector connector = CONNECTOR_NONE;
	int listen_fd = bf_socket_listen(path, 0600), i;

	(void)state;
	assert_true(listen_fd >= 0);
	assert_int_equal(connector_open(&connector, path), 0);
	for (i = 0; i < 3; i++) {
		close(connect_now(&connector));
		connector_ended(&connector);
		wait_for_try(&connector, 100u << i);
	}
	/* One that lasted begins anew. */
	close(connect_now(&connector));
	connector.connected_at -= CONNECTOR_LAST_MS;
	connector_ended(&connector);
	assert_int_equal(connector.wait_ms, 2 * CONNECTOR_FIRST_MS);
	wait_for_try(&connector, CONNECTOR_FIRST_MS);
	connector_close(&connector);
	close(listen_fd);
	unlink(path);
}

static void test_long_path(void **state)
{
	struct connector connector = CONNECTOR_NONE;
	char name[sizeof(((struct sockaddr_un *)0)->sun_path) + 1];

	(void)state;
	memset(name, 'x', sizeof(name));
	name[sizeof(name) - 1] = '\0';
	assert_int_equal(connector_open(&connector, name), -ENAMETOOLONG);
	assert_false(connector_is_open(&connector));
	name[sizeof(name) - 2] = '\0';
	assert_int_equal(connector_open(&connector, name), 0);
	connector_close(&connector);
}

static int set_up(void **state)
{
	(void)state;
	if (!mkdtemp(folder))
		return -1;
	snprintf(path, sizeof(path), "%s/s", folder);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	return rmdir(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_intervals),
		cmocka_unit_test(test_dropped),
		cmocka_unit_test(test_long_path),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
