/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * No notification is lost while a doorbell comes and goes.
 *
 * The device registers a page, replaces it, withdraws it, 10,000 times each, while a driver's thread
 * does one request after the other and rings once for each. The device looks at its ring only when it
 * is notified, and a page that it does not look at is deaf (echo_queue.c). So a notification that
 * goes astray leaves a request undone, and after two seconds that fails the test.
 *
 * With acknowledgements the back end's own signal after each answer is what keeps a notification
 * between registration and arming from being lost. Without them that signal comes before the front
 * end has done anything, and the front end's signal after each withdrawal has to. So both are run.
 *
 * The third run rings all the time: for a page that is unmapped while the driver's thread may still
 * store into it.
 */
#include "../unit/support.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "echo_driver.h"

#define CYCLES   10000
#define PATIENCE 2000

static void shake(const struct echo_config *device, bool storm, struct echo_report *last)
{
	struct echo_worker worker = { .depth = 1, .patience_ms = PATIENCE, .storm = storm };
	struct bf_doorbell_state doorbell;
	struct echo_device dev;
	struct bf_driver *drv;
	const struct bf_driver_counters *c;

	echo_device_start(&dev, device);
	drv = echo_connect(&dev.fd, (struct bf_driver_config){ .nr_queues = 1 });
	worker.drv = drv;
	worker.until = &dev.report->cycles;
	worker.target = device->cycles;
	echo_worker_start(&worker);
	assert_int_equal(echo_workers_finish(drv, &worker, 1), 0);
	if (worker.failure[0])
		fail_msg("%s (%u cycles done)", worker.failure, atomic_load(&dev.report->cycles));
	c = bf_driver_counters(drv, 0);
	assert_int_equal(c->suppressed, 0);
	if (!storm)
		assert_int_equal(c->doorbells + c->kicks, worker.done);
	/* Both ways were taken, so there was something to lose. */
	assert_true(c->doorbells > device->cycles / 10);
	assert_true(c->kicks > device->cycles / 10);
	echo_dispatch_for(drv, 50);
	bf_frontend_doorbell_state(bf_driver_frontend(drv), 0, &doorbell);
	assert_int_equal(doorbell.nr_mapped, 2 * device->cycles);
	assert_int_equal(doorbell.nr_withdrawn, 2 * device->cycles);
	assert_int_equal(doorbell.nr_refused, 0);
	print_message("# %lu requests, %lu by doorbell, %lu by eventfd\n", worker.done,
		      (unsigned long)c->doorbells, (unsigned long)c->kicks);
	bf_driver_free(drv);
	assert_int_equal(echo_device_end(&dev, last), 0);
}

struct run {
	struct echo_config device;
	bool storm;
};

static void shake_and_count(const struct run *run)
{
	unsigned fds = count_fds(), mappings = count_mappings(ECHO_MAPPINGS);
	struct echo_report last;

	shake(&run->device, run->storm, &last);
	assert_int_equal(last.nr_left_fds, 0);
	assert_int_equal(last.nr_left_mappings, 0);
	assert_int_equal(count_fds(), fds);
	assert_int_equal(count_mappings(ECHO_MAPPINGS), mappings);
}

/* The driver has a process of its own too: a store into a page that is gone ends it. */
static void in_a_process(void **state)
{
	int status = 0;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		signal(SIGSEGV, SIG_DFL);
		signal(SIGBUS, SIG_DFL);
		/* A failed assertion ends this process, instead of going on to the next test. */
		setenv("CMOCKA_TEST_ABORT", "1", 1);
		shake_and_count(*state);
		fflush(NULL);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT)
		fail_msg("the driver's process failed, as it said above");
	if (WIFSIGNALED(status))
		fail_msg("the driver died of signal %d (%s): a page was unmapped under its store",
			 WTERMSIG(status), strsignal(WTERMSIG(status)));
	assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
	static struct run acknowledged = { .device = { .nr_queues = 1, .cycles = CYCLES } };
	static struct run silent = {
		.device = { .nr_queues = 1,
			    .cycles = CYCLES / 2,
			    .not_protocol_features = 1 << BF_PROTOCOL_F_REPLY_ACK },
	};
	static struct run storm = {
		.device = { .nr_queues = 1, .cycles = CYCLES / 10 },
		.storm = true,
	};
	const struct CMUnitTest tests[] = {
		{ "registered, replaced, withdrawn", in_a_process, NULL, NULL, &acknowledged },
		{ "without acknowledgements", in_a_process, NULL, NULL, &silent },
		{ "ringing all the time", in_a_process, NULL, NULL, &storm },
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
