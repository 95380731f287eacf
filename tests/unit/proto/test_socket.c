/* SPDX-License-Identifier: BSD-3-Clause */
/* lib/proto/socket.c: a stale socket is replaced, a live one or a file never. */
#include "../support.h"

#include <sys/stat.h>

#include <belfry/socket.h>

static char path[64];

static int set_up(void **state)
{
	(void)state;
	snprintf(path, sizeof(path), "/tmp/belfry-test-%d.sock", getpid());
	unlink(path);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	unlink(path);
	return 0;
}

static void listen_connect_accept(void **state)
{
	unsigned before = count_fds();
	int listener = bf_socket_listen(path, 0660), client, server;
	struct stat st;

	(void)state;
	assert_true(listener >= 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0660);
	client = bf_socket_connect(path);
	server = bf_socket_accept(listener);
	assert_true(client >= 0 && server >= 0);
	assert_int_equal(fcntl(server, F_GETFD), FD_CLOEXEC);
	assert_int_equal(write(client, "x", 1), 1);
	assert_int_equal(bf_socket_listen(path, 0600), -EADDRINUSE);
	close(server);
	close(client);
	close(listener);
	assert_int_equal(bf_socket_connect(path), -ECONNREFUSED);
	listener = bf_socket_listen(path, 0600);
	assert_true(listener >= 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	close(listener);
	assert_int_equal(count_fds(), before);
}

static void not_a_socket(void **state)
{
	int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

	(void)state;
	close(fd);
	assert_int_equal(bf_socket_listen(path, 0600), -ENOTSOCK);
	assert_int_equal(access(path, F_OK), 0);
}

static void bad_paths(void **state)
{
	char longest[200];

	(void)state;
	memset(longest, 'x', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	assert_int_equal(bf_socket_connect(longest), -ENAMETOOLONG);
	assert_int_equal(bf_socket_listen(longest, 0600), -ENAMETOOLONG);
	assert_int_equal(bf_socket_connect(""), -ENOENT);
	assert_int_equal(bf_socket_connect(path), -ENOENT);
	assert_int_equal(bf_socket_listen("/nonexistent/dir/s", 0600), -ENOENT);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(listen_connect_accept),
		TEST(not_a_socket),
		TEST(bad_paths),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
