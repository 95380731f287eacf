/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The life of a back-end program, with a device that does nothing but have events: in a process of
 * its own for each test, since signals and exit status are what it is about.
 */
#include "../support.h"

#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <belfry/socket.h>

#include "devices/common/program.h"

static char folder[] = "/tmp/belfry-life-XXXXXX";
static char socket_path[64], stats_path[64];

/* Bytes that the parent writes are events of the device: 'q' asks for it back, 'd' ends the
 * connection, 'e' is nothing. Each is answered. */
struct life {
	pid_t pid;
	int event_fd, answer_fd, ready_fd, err;
};

struct fake {
	struct bf_backend *be;
	int event_fd, answer_fd;
};

static int start_vring(void *opaque, unsigned queue, struct bf_virtq *vq)
{
	(void)opaque;
	(void)queue;
	(void)vq;
	return 0;
}

static void stop_vring(void *opaque, unsigned queue)
{
	(void)opaque;
	(void)queue;
}

static json_t *no_stats(void *opaque)
{
	(void)opaque;
	return json_object();
}

static bool take_event(void *opaque)
{
	const struct fake *fake = opaque;
	char byte = 0;

	if (read(fake->event_fd, &byte, 1) != 1)
		_exit(99);
	if (byte == 'd')
		bf_backend_detach(fake->be);
	if (write(fake->answer_fd, &byte, 1) != 1)
		_exit(99);
	return byte != 'q';
}

static int live(struct program_options *opt, struct fake *fake)
{
	static const struct bf_backend_ops ops = { .vring_start = start_vring,
						   .vring_stop = stop_vring };
	const struct bf_backend_config config = { .ops = &ops, .name = "test", .nr_queues = 1 };
	struct program program = { .opt = opt,
				   .stats = no_stats,
				   .device_event = take_event,
				   .device_fd = fake->event_fd,
				   .opaque = fake };
	int status;

	program_start("test");
	status = program_check(opt);
	if (status || bf_backend_new(&config, &program.be))
		return status;
	fake->be = program.be;
	status = program_run(&program);
	bf_backend_free(program.be);
	return status;
}

static void start(struct life *life, bool client, bool one_off)
{
	int event[2], answer[2], ready[2];
	char byte;

	assert_int_equal(pipe(event) | pipe(answer) | pipe(ready), 0);
	*life = (struct life){ .event_fd = event[1],
			       .answer_fd = answer[0],
			       .ready_fd = ready[0],
			       .err = make_memfd("err", 0, 0) };
	life->pid = fork();
	assert_true(life->pid >= 0);
	if (!life->pid) {
		struct program_options opt = PROGRAM_OPTIONS_DEFAULT;
		struct fake fake = { .event_fd = event[0], .answer_fd = answer[1] };

		opt.socket_path = socket_path;
		opt.client = client;
		opt.one_off = one_off;
		opt.ready_fd = ready[1];
		opt.stats = stats_path;
		dup2(life->err, 2);
		alarm(20);
		_exit(live(&opt, &fake));
	}
	close(event[0]);
	close(answer[1]);
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
}

/* The exit status. @text: what was said; at least 4096 bytes. */
static int finish(struct life *life, char *text)
{
	ssize_t nr;
	int status;

	assert_int_equal(waitpid(life->pid, &status, 0), life->pid);
	assert_true(WIFEXITED(status));
	nr = pread(life->err, text, 4095, 0);
	assert_true(nr >= 0);
	text[nr] = '\0';
	close(life->event_fd);
	close(life->answer_fd);
	close(life->ready_fd);
	close(life->err);
	unlink(stats_path);
	return WEXITSTATUS(status);
}

static void send_event(struct life *life, char byte)
{
	char answer = 0;

	assert_int_equal(write(life->event_fd, &byte, 1), 1);
	assert_int_equal(read(life->answer_fd, &answer, 1), 1);
	assert_int_equal(answer, byte);
}

static unsigned count(const char *text, const char *part)
{
	unsigned nr = 0;

	while ((text = strstr(text, part))) {
		text++;
		nr++;
	}
	return nr;
}

static bool wait_readable(int fd, int timeout_ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, timeout_ms) == 1;
}

static bool exists(const char *path)
{
	struct stat st;

	return !lstat(path, &st);
}

static void wait_for_file(const char *path)
{
	int i;

	for (i = 0; i < 1000 && !exists(path); i++)
		usleep(5000);
	assert_true(exists(path));
}

static int accept_one(int listen_fd)
{
	int fd;

	assert_true(wait_readable(listen_fd, 5000));
	fd = bf_socket_accept(listen_fd);
	assert_true(fd >= 0);
	return fd;
}

/* Events are served with and without a front end, and "give it back" is a clean end. */
static void test_device_events(void **state)
{
	char text[4096];
	struct life life;
	int fd;

	(void)state;
	start(&life, false, false);
	send_event(&life, 'e');
	fd = bf_socket_connect(socket_path);
	assert_true(fd >= 0);
	send_event(&life, 'e');
	send_event(&life, 'e');
	send_event(&life, 'q');
	assert_int_equal(finish(&life, text), 0);
	assert_true(wait_readable(fd, 0)); /* hung up */
	assert_false(exists(socket_path));
	close(fd);
	start(&life, false, false);
	send_event(&life, 'q');
	assert_int_equal(finish(&life, text), 0);
	assert_false(exists(socket_path));
}

/* A device that gives a connection up: the next one is served, or it was the only one. */
static void test_device_detaches(void **state)
{
	int listen_fd = bf_socket_listen(socket_path, 0600), fd, i;
	char text[4096];
	struct life life;

	(void)state;
	assert_true(listen_fd >= 0);
	start(&life, true, false);
	for (i = 0; i < 2; i++) {
		fd = accept_one(listen_fd);
		send_event(&life, 'd');
		assert_true(wait_readable(fd, 1000)); /* hung up */
		close(fd);
	}
	kill(life.pid, SIGTERM);
	assert_int_equal(finish(&life, text), 0);
	close(listen_fd);
	listen_fd = bf_socket_listen(socket_path, 0600); /* without what still waited there */
	start(&life, true, true);
	fd = accept_one(listen_fd);
	send_event(&life, 'd');
	assert_int_equal(finish(&life, text), 1);
	close(fd);
	close(listen_fd);
	unlink(socket_path);
}

/* Signals and the device are served while nobody listens, and the processor is left alone. */
static void test_client_waits(void **state)
{
	struct rusage before, after;
	char text[4096];
	struct life life;

	(void)state;
	getrusage(RUSAGE_CHILDREN, &before);
	start(&life, true, false);
	unlink(stats_path);
	kill(life.pid, SIGUSR1);
	wait_for_file(stats_path);
	send_event(&life, 'e');
	usleep(1200000);
	kill(life.pid, SIGTERM);
	assert_int_equal(finish(&life, text), 0);
	assert_int_equal(count(text, "nobody listens on"), 1);
	assert_null(strstr(text, "listening on"));
	assert_false(exists(socket_path));
	getrusage(RUSAGE_CHILDREN, &after);
	assert_true(after.ru_nvcsw - before.ru_nvcsw < 100);
}

/* It comes when somebody listens, and comes again when that ended. The path is not its own. */
static void test_client_comes_again(void **state)
{
	char text[4096];
	struct life life;
	int listen_fd, fd;

	(void)state;
	start(&life, true, false);
	usleep(50000);
	listen_fd = bf_socket_listen(socket_path, 0600);
	assert_true(listen_fd >= 0);
	fd = accept_one(listen_fd);
	assert_false(wait_readable(listen_fd, 300)); /* one at a time */
	send_event(&life, 'e');
	close(fd);
	fd = accept_one(listen_fd);
	/* Now the front end goes away altogether, and another one comes. */
	close(listen_fd);
	close(fd);
	usleep(700000); /* the third try after short connections is 400 ms away */
	listen_fd = bf_socket_listen(socket_path, 0600);
	assert_true(listen_fd >= 0);
	fd = accept_one(listen_fd);
	kill(life.pid, SIGTERM);
	assert_int_equal(finish(&life, text), 0);
	assert_int_equal(count(text, "front end connected"), 3);
	assert_int_equal(count(text, "nobody listens on"), 2);
	assert_true(exists(socket_path));
	close(fd);
	close(listen_fd);
	unlink(socket_path);
}

static void test_client_one_off(void **state)
{
	int listen_fd = bf_socket_listen(socket_path, 0600);
	char text[4096];
	struct life life;

	(void)state;
	assert_true(listen_fd >= 0);
	start(&life, true, true);
	close(accept_one(listen_fd));
	assert_int_equal(finish(&life, text), 0);
	assert_false(wait_readable(listen_fd, 0));
	close(listen_fd);
	unlink(socket_path);
}

static int set_up(void **state)
{
	(void)state;
	if (!mkdtemp(folder))
		return -1;
	snprintf(socket_path, sizeof(socket_path), "%s/s", folder);
	snprintf(stats_path, sizeof(stats_path), "%s/stats.json", folder);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	return rmdir(folder); /* fails if anything was left behind */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_device_events),  cmocka_unit_test(test_device_detaches),
		cmocka_unit_test(test_client_waits),   cmocka_unit_test(test_client_comes_again),
		cmocka_unit_test(test_client_one_off),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
