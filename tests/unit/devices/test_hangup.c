/* SPDX-License-Identifier: BSD-3-Clause */
/* The thread that sees a front end go: it says so once, or not at all when it is stopped before. */
#include "../support.h"

#include <poll.h>
#include <stdatomic.h>

#include "devices/common/hangup.h"

static void gone(void *opaque)
{
	atomic_fetch_add((atomic_uint *)opaque, 1);
}

static void make_pair(int pair[2])
{
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
}

static void sees_the_end(void **state)
{
	struct hangup hangup = HANGUP_NONE;
	unsigned before = count_fds();
	atomic_uint nr = 0;
	int pair[2];

	(void)state;
	make_pair(pair);
	assert_int_equal(hangup_start(&hangup, pair[0], gone, &nr), 0);
	/* Messages are not its business, and what is unread does not hide the end. */
	assert_int_equal(write(pair[1], "message", 7), 7);
	poll(NULL, 0, 50);
	assert_int_equal(nr, 0);
	close(pair[1]);
	for (unsigned i = 0; i < 500 && !nr; i++)
		poll(NULL, 0, 10);
	assert_int_equal(nr, 1);
	close(pair[0]);
	hangup_stop(&hangup);
	hangup_stop(&hangup);
	assert_int_equal(nr, 1);
	assert_int_equal(count_fds(), before);
}

/* The connection ends when the owner closes it: the thread's descriptor goes with it. */
static void is_stopped_before(void **state)
{
	struct hangup hangup = HANGUP_NONE;
	unsigned before = count_fds();
	atomic_uint nr = 0;
	int pair[2];
	char byte;

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		make_pair(pair);
		assert_int_equal(hangup_start(&hangup, pair[0], gone, &nr), 0);
		close(pair[0]);
		hangup_stop(&hangup);
		assert_int_equal(read(pair[1], &byte, 1), 0);
		close(pair[1]);
	}
	assert_int_equal(nr, 0);
	assert_int_equal(count_fds(), before);
}

static void cannot_watch(void **state)
{
	struct hangup hangup = HANGUP_NONE;
	unsigned before = count_fds();
	atomic_uint nr = 0;

	(void)state;
	assert_int_equal(hangup_start(&hangup, -1, gone, &nr), -EBADF);
	hangup_stop(&hangup);
	assert_int_equal(nr, 0);
	assert_int_equal(count_fds(), before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sees_the_end),
		cmocka_unit_test(is_stopped_before),
		cmocka_unit_test(cannot_watch),
	};

	return cmocka_run_group_tests_name("hangup", tests, NULL, NULL);
}
