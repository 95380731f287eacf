/* SPDX-License-Identifier: BSD-3-Clause */
/* lib/base: descriptors have one owner; eventfds add up; checked ranges. */
#include "../support.h"

#include <sys/eventfd.h>

#include "base/check.h"
#include "base/fd.h"

static void close_leaves_minus_one(void **state)
{
	unsigned before = count_fds();
	int fd = dup(0), copy, taken;

	(void)state;
	copy = bf_fd_dup(fd);
	assert_true(copy > fd);
	assert_int_equal(fcntl(copy, F_GETFD), FD_CLOEXEC);
	bf_fd_close(&fd);
	bf_fd_close(&fd);
	assert_int_equal(fd, -1);
	taken = bf_fd_take(&copy);
	assert_true(taken >= 0);
	assert_int_equal(copy, -1);
	assert_int_equal(bf_fd_dup(-1), -EBADF);
	close(taken);
	assert_int_equal(count_fds(), before);
}

static void eventfd_adds_up(void **state)
{
	int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);

	(void)state;
	assert_int_equal(bf_eventfd_drain(fd), 0);
	bf_eventfd_signal(fd);
	bf_eventfd_signal(fd);
	assert_int_equal(bf_eventfd_drain(fd), 2);
	assert_int_equal(bf_eventfd_drain(fd), 0);
	assert_int_equal(bf_eventfd_drain(-1), 0);
	bf_eventfd_signal(-1);
	/* The flag belongs to the open file, which a peer shares. */
	assert_int_equal(fcntl(fd, F_SETFL, 0), 0);
	assert_int_equal(bf_eventfd_drain(fd), 0);
	bf_eventfd_signal(fd);
	assert_int_equal(bf_eventfd_drain(fd), 1);
	close(fd);
}

static void ranges(void **state)
{
	(void)state;
	assert_true(bf_range_ok(0, 10, 10));
	assert_true(bf_range_ok(10, 0, 10));
	assert_false(bf_range_ok(10, 1, 10));
	assert_false(bf_range_ok(11, 0, 10));
	assert_false(bf_range_ok(UINT64_MAX, 2, UINT64_MAX));
	assert_false(bf_range_ok(2, UINT64_MAX, 10));
	assert_true(bf_no_wrap(UINT64_MAX - 4096, 4096));
	assert_false(bf_no_wrap(UINT64_MAX - 4095, 4096));
	assert_true(bf_overlap(0, 10, 9, 1));
	assert_false(bf_overlap(0, 10, 10, 5));
	assert_true(bf_is_power_of_two(32768));
	assert_false(bf_is_power_of_two(0));
	assert_false(bf_is_power_of_two(24));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(close_leaves_minus_one),
		cmocka_unit_test(eventfd_adds_up),
		cmocka_unit_test(ranges),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
