/* SPDX-License-Identifier: BSD-3-Clause */
/* Sockets of back-end programs: what --fd may be, and which socket file is ours to unlink. */
#include "../support.h"

#include <stdbool.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "devices/common/listener.h"

static char folder[] = "/tmp/belfry-listener-XXXXXX";
static char path[64];

static bool exists(void)
{
	struct stat st;

	return !lstat(path, &st);
}

static int raw_listen(int type)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, type, 0);

	memcpy(address.sun_path, path, strlen(path) + 1);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	if (type == SOCK_STREAM)
		assert_int_equal(listen(fd, 1), 0);
	return fd;
}

static void test_path(void **state)
{
	struct listener listener = LISTENER_NONE, other = LISTENER_NONE;
	unsigned fds = count_fds();
	struct stat st;

	(void)state;
	assert_int_equal(listener_open_path(&listener, path, 0640), 0);
	assert_int_equal(lstat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0640);
	/* A live one is never taken away. */
	assert_int_equal(listener_open_path(&other, path, 0600), -EADDRINUSE);
	assert_true(exists());
	listener_close(&listener);
	assert_false(exists());
	listener_close(&listener);
	assert_int_equal(count_fds(), fds);
}

static void test_path_replaced(void **state)
{
	struct listener listener = LISTENER_NONE;
	int fd;

	(void)state;
	assert_int_equal(listener_open_path(&listener, path, 0600), 0);
	unlink(path);
	fd = raw_listen(SOCK_STREAM);
	listener_close(&listener);
	assert_true(exists());
	close(fd);
	/* Now it is stale. */
	assert_int_equal(listener_open_path(&listener, path, 0600), 0);
	listener_close(&listener);
	assert_false(exists());
}

static void test_not_a_socket(void **state)
{
	struct listener listener = LISTENER_NONE;
	int fd = open(path, O_CREAT | O_WRONLY, 0600);

	(void)state;
	assert_int_equal(listener_open_path(&listener, path, 0600), -ENOTSOCK);
	assert_true(exists());
	assert_true(listener_open_fd(&listener, fd, "--fd=x") < 0);
	close(fd);
	assert_int_equal(listener_open_fd(&listener, fd, "--fd=x"), -EBADF);
	unlink(path);
}

static void test_fd(void **state)
{
	struct listener listener = LISTENER_NONE;
	int pair[2], fd;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	assert_int_equal(listener_open_fd(&listener, pair[0], "--fd=x"), 0);
	assert_int_equal(listener.connected_fd, pair[0]);
	assert_int_equal(listener.listen_fd, -1);
	listener_close(&listener);
	close(pair[1]);

	fd = raw_listen(SOCK_STREAM);
	assert_int_equal(listener_open_fd(&listener, fd, "--fd=x"), 0);
	assert_int_equal(listener.listen_fd, fd);
	assert_int_equal(listener.connected_fd, -1);
	listener_close(&listener);
	assert_true(exists()); /* whoever bound it unlinks it */
	unlink(path);

	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(listener_open_fd(&listener, fd, "--fd=x"), -ENOTCONN);
	close(fd);
	fd = socket(AF_UNIX, SOCK_DGRAM, 0);
	assert_int_equal(listener_open_fd(&listener, fd, "--fd=x"), -EPROTOTYPE);
	close(fd);
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
	unlink(path);
	return rmdir(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_path),
		cmocka_unit_test(test_path_replaced),
		cmocka_unit_test(test_not_a_socket),
		cmocka_unit_test(test_fd),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
