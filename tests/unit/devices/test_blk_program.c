/* SPDX-License-Identifier: BSD-3-Clause */
/* The command line of belfry-blk as its users meet it: the program itself is run. */
#include "../support.h"

#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

static char folder[] = "/tmp/belfry-program-XXXXXX";
static char image[64], socket_option[96], image_option[96], socket_path[64], stats_option[96];

struct result {
	int status;
	char out[2048], err[4096];
};

static void slurp(int fd, char *text, size_t len)
{
	ssize_t nr = pread(fd, text, len - 1, 0);

	assert_true(nr >= 0);
	text[nr] = '\0';
	close(fd);
}

static pid_t start(const char *const words[], int out, int err)
{
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid)
		return pid;
	dup2(out, 1);
	dup2(err, 2);
	alarm(20);
	execv(BELFRY_BLK, (char **)words);
	_exit(127);
}

static void run(struct result *r, const char *const words[])
{
	int out = make_memfd("out", 0, 0), err = make_memfd("err", 0, 0);
	pid_t pid = start(words, out, err);
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	r->status = WEXITSTATUS(status);
	slurp(out, r->out, sizeof(r->out));
	slurp(err, r->err, sizeof(r->err));
}

#define RUN(r, ...) run((r), (const char *const[]){ "belfry-blk", ##__VA_ARGS__, NULL })

static bool exists(const char *path)
{
	struct stat st;

	return !lstat(path, &st);
}

static void test_capabilities(void **state)
{
	static const char expected[] =
		"{\"type\": \"block\", \"features\": [\"read-only\", \"blk-file\"]}\n";
	struct result r;

	(void)state;
	RUN(&r, "--print-capabilities");
	assert_int_equal(r.status, 0);
	assert_string_equal(r.out, expected);
	RUN(&r, "--bogus", "--num-queues=x", "left", "--fd=1", socket_option, "--blk-file=/nope",
	    "--print-capabilities", "--io=what");
	assert_int_equal(r.status, 0);
	assert_string_equal(r.out, expected);
	assert_string_equal(r.err, "");
	assert_false(exists(socket_path));
}

static void test_usage(void **state)
{
	struct result r;

	(void)state;
	RUN(&r);
	assert_int_equal(r.status, 2);
	assert_non_null(strstr(r.err, "--socket-path=PATH"));
	RUN(&r, socket_option, "--fd=0", image_option);
	assert_int_equal(r.status, 2);
	assert_non_null(strstr(r.err, "more than one"));
	RUN(&r, "--client", "--fd=0", image_option);
	assert_int_equal(r.status, 2);
	assert_non_null(strstr(r.err, "--client: expected --socket-path=PATH"));
	RUN(&r, "--client", image_option);
	assert_int_equal(r.status, 2);
	RUN(&r, socket_option);
	assert_int_equal(r.status, 2);
	assert_non_null(strstr(r.err, "--blk-file=PATH"));
	RUN(&r, socket_option, image_option, "--queue-size=100");
	assert_int_equal(r.status, 2);
	assert_non_null(strstr(r.err, "power of two, found 100"));
	RUN(&r, socket_option, image_option, "--null=1G");
	assert_int_equal(r.status, 2);
	assert_non_null(strstr(r.err, "found both"));
	RUN(&r, socket_option, "--null=1X");
	assert_int_equal(r.status, 2);
	assert_non_null(strstr(r.err, "found \"1X\""));
	RUN(&r, socket_option, image_option, "--num-threads=0");
	assert_int_equal(r.status, 2);
	RUN(&r, socket_option, image_option, "--queue-size=65536");
	assert_int_equal(r.status, 2);
	RUN(&r, socket_option, image_option, "--num-queues=257");
	assert_int_equal(r.status, 2);
	RUN(&r, socket_option, image_option, "--serial=123456789012345678901");
	assert_int_equal(r.status, 2);
	RUN(&r, socket_option, image_option, "--ready-fd=99");
	assert_int_equal(r.status, 2);
	assert_non_null(strstr(r.err, "--ready-fd=99"));
	RUN(&r, socket_option, image_option, "more");
	assert_int_equal(r.status, 2);
	assert_false(exists(socket_path));
}

static void test_failures(void **state)
{
	struct result r;

	(void)state;
	RUN(&r, socket_option, "--blk-file=/nonexistent");
	assert_int_equal(r.status, 1);
	assert_non_null(strstr(r.err, "/nonexistent: cannot use the image"));
	RUN(&r, "--fd=77", image_option);
	assert_int_equal(r.status, 1);
	assert_non_null(strstr(r.err, "--fd=77"));
	RUN(&r, "--fd=1", image_option);
	assert_int_equal(r.status, 1);
	RUN(&r, "--socket-path=/nonexistent/folder/s", image_option);
	assert_int_equal(r.status, 1);
	RUN(&r, socket_option, image_option, "--stats=/nonexistent/folder/s");
	assert_int_equal(r.status, 1);
	assert_non_null(strstr(r.err, "--stats"));
	RUN(&r, "--client", image_option,
	    "--socket-path=/a/path/of/108/bytes/0123456789012345678901234567890123456789"
	    "01234567890123456789012345678901234567890000000");
	assert_int_equal(r.status, 1);
	assert_non_null(strstr(r.err, "at most 107 bytes, found 108"));
	assert_false(exists(socket_path));
	assert_int_equal(truncate(image, 1000), 0);
	RUN(&r, socket_option, image_option);
	assert_int_equal(r.status, 1);
	assert_non_null(strstr(r.err, "multiple of 512"));
	assert_non_null(strstr(r.err, "found 1000 bytes"));
	assert_int_equal(truncate(image, 1 << 20), 0);
}

/* Ready, statistics on demand, and gone with SIGTERM without a trace. */
static void test_life(void **state)
{
	char ready_option[32], stats[96], byte;
	int out = make_memfd("out", 0, 0), err = make_memfd("err", 0, 0), ready[2], status, i;
	const char *const words[] = { "belfry-blk", socket_option,    image_option, ready_option,
				      stats_option, "--num-queues=4", NULL };
	struct stat st;
	pid_t pid;

	(void)state;
	assert_int_equal(pipe(ready), 0);
	snprintf(ready_option, sizeof(ready_option), "--ready-fd=%d", ready[1]);
	snprintf(stats, sizeof(stats), "%s/stats.json", folder);
	pid = start(words, out, err);
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	assert_int_equal(byte, '1');
	assert_int_equal(lstat(socket_path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	unlink(stats);
	kill(pid, SIGUSR1);
	for (i = 0; i < 1000 && !exists(stats); i++)
		usleep(5000);
	assert_true(exists(stats));
	kill(pid, SIGTERM);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	assert_false(exists(socket_path));
	unlink(stats);
	close(ready[0]);
	close(out);
	close(err);
}

/* A connected socket: served, and over when the peer closes it. */
static void test_connected_fd(void **state)
{
	char fd_option[32];
	int out = make_memfd("out", 0, 0), err = make_memfd("err", 0, 0), pair[2], status;
	const char *const words[] = { "belfry-blk", fd_option, image_option, NULL };
	pid_t pid;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	fcntl(pair[0], F_SETFD, FD_CLOEXEC);
	snprintf(fd_option, sizeof(fd_option), "--fd=%d", pair[1]);
	pid = start(words, out, err);
	close(pair[1]);
	close(pair[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	close(out);
	close(err);
}

static int set_up(void **state)
{
	int fd;

	(void)state;
	if (!mkdtemp(folder))
		return -1;
	snprintf(image, sizeof(image), "%s/disk", folder);
	snprintf(socket_path, sizeof(socket_path), "%s/s", folder);
	snprintf(image_option, sizeof(image_option), "--blk-file=%s", image);
	snprintf(socket_option, sizeof(socket_option), "--socket-path=%s", socket_path);
	snprintf(stats_option, sizeof(stats_option), "--stats=%s/stats.json", folder);
	fd = open(image, O_CREAT | O_WRONLY, 0600);
	if (fd < 0 || ftruncate(fd, 1 << 20))
		return -1;
	close(fd);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	unlink(image);
	return rmdir(folder); /* fails if anything was left behind */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_capabilities), cmocka_unit_test(test_usage),
		cmocka_unit_test(test_failures),     cmocka_unit_test(test_life),
		cmocka_unit_test(test_connected_fd),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
