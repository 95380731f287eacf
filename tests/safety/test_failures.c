/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Every allocation and every system call of a connection's life fails once: the back end on its way into
 * each state and out again, and the front end from its start to its end. What follows a failure goes on as
 * if nothing had been, as a peer does that does not know. After each life nothing is left.
 */
#include "../unit/support.h"

#include <linux/virtio_config.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>

#include <belfry/frontend.h>

#include "device.h"
#include "fail.h"
#include "states.h"

static struct conn_left clean;

static void check_nothing_left(const char *where, unsigned nth)
{
	struct conn_left left = conn_left();

	if (left.fds != clean.fds || left.mappings != clean.mappings || fail_alive())
		fail_msg(
			"%s, call %u (%s) failed: %d descriptors, %d mappings, %u allocations are left",
			where, nth, fail_what() ? fail_what() : "none", (int)(left.fds - clean.fds),
			(int)(left.mappings - clean.mappings), fail_alive());
}

/* One life. Returns what was made to fail. */
static const char *live(const struct state *state, unsigned nth)
{
	struct conn conn;
	const char *failed;

	fail_at(nth);
	state_open(state, &conn);
	conn_turn(&conn);
	if (conn.be)
		conn_pump(&conn);
	/* Whoever ends a connection says why, also when there is no memory. */
	if (conn.ended && strlen(bf_backend_error(conn.be)) < 10)
		fail_msg("%s, call %u (%s): no sentence: \"%s\"", state->name, nth, fail_what(),
			 bf_backend_error(conn.be));
	conn_close(&conn, nth % 2);
	failed = fail_what();
	check_nothing_left(state->name, nth);
	return failed;
}

static void back_end(void **data)
{
	unsigned lives = 0;

	(void)data;
	device_enter = fail_arm;
	device_leave = fail_disarm;
	for (unsigned s = 0; s < nr_states; s++) {
		unsigned nth = 1;

		assert_null(live(&states[s], 0));
		while (live(&states[s], nth))
			nth++;
		/* A life without anything that can fail would be one that never began. */
		assert_true(nth > 5);
		lives += nth;
	}
	device_enter = device_leave = NULL;
	print_message("# %u lives in %u states\n", lives, nr_states);
}

/* The other side of the front end: a back end on a thread of its own. */
struct other {
	struct conn conn;
	bool stop;
};

static void *serve(void *opaque)
{
	struct other *other = opaque;

	while (!__atomic_load_n(&other->stop, __ATOMIC_ACQUIRE)) {
		struct pollfd ready = { .fd = bf_backend_fd(other->conn.be), .events = POLLIN };

		if (poll(&ready, 1, 1) == 1)
			device_dispatch(&other->conn);
		conn_turn(&other->conn);
	}
	return NULL;
}

static int map_doorbell(void *opaque, unsigned queue, void *page)
{
	(void)queue;
	(void)page;
	++*(unsigned *)opaque;
	return 0;
}

static void unmap_doorbell(void *opaque, unsigned queue)
{
	(void)opaque;
	(void)queue;
}

static const struct bf_frontend_ops ops = { .doorbell_map = map_doorbell,
					    .doorbell_unmap = unmap_doorbell };

/* The first error of a life, and what was said of it. */
static void step(struct bf_frontend *fe, int ret, int *first)
{
	if (ret >= 0 || *first)
		return;
	*first = ret;
	if (strlen(bf_frontend_error(fe)) < 10)
		fail_msg("call %u (%s) failed: %d, and no sentence: \"%s\"", fail_count(),
			 fail_what(), ret, bf_frontend_error(fe));
}

/* Each step is taken, whatever became of the one before. */
static int front_end_life(struct bf_frontend *fe, int fd, int kick)
{
	const struct bf_memory_region region = {
		.gpa = GPA, .size = MEMORY_SIZE, .hva = conn_memory, .fd = conn_fds.memory
	};
	struct bf_vring_setup vrings[2];
	unsigned queues[2] = { 0, QUEUES - 1 };
	uint8_t config[8];
	uint32_t bases[2];
	int first = 0;

	step(fe, bf_frontend_attach(fe, fd), &first);
	step(fe, bf_frontend_set_features(fe, bf_bit(VIRTIO_F_VERSION_1)), &first);
	step(fe, bf_frontend_set_memory(fe, &region, 1), &first);
	for (unsigned i = 0; i < 2; i++) {
		const uint64_t page = GPA + 4096u * queues[i];

		vrings[i] = (struct bf_vring_setup){ .queue = queues[i],
						     .size = RING_SIZE,
						     .desc_gpa = page,
						     .avail_gpa = page + 1024,
						     .used_gpa = page + 2048,
						     .kick_fd = kick,
						     .call_fd = conn_fds.event,
						     .err_fd = -1 };
	}
	step(fe, bf_frontend_start_vrings(fe, vrings, 2), &first);
	step(fe, bf_frontend_get_config(fe, 0, config, sizeof(config)), &first);
	step(fe, bf_frontend_dispatch(fe), &first);
	step(fe, bf_frontend_stop_vrings(fe, queues, 2, bases), &first);
	step(fe, bf_frontend_set_status(fe, 0), &first);
	return first;
}

static const char *front_end_lives(unsigned nth, unsigned *doorbells, int *failures)
{
	const struct bf_frontend_config config = {
		.ops = &ops, .opaque = doorbells, .name = "test", .timeout_ms = 3000
	};
	struct other other = { .stop = false };
	struct bf_frontend *fe = NULL;
	pthread_t thread;
	int pair[2];

	conn_fill_rings(false);
	assert_true(conn_open(&other.conn, CONN_DEFAULT));
	other.conn.publish_fd = conn_fds.page;
	pair[1] = other.conn.fd;
	other.conn.fd = -1;
	assert_int_equal(pthread_create(&thread, NULL, serve, &other), 0);

	fail_at(nth);
	fail_arm();
	if (!bf_frontend_new(&config, &fe)) {
		*failures = front_end_life(fe, pair[1], conn_fds.event);
	} else {
		close(pair[1]);
		*failures = -ENOMEM;
	}
	bf_frontend_free(fe);
	fail_disarm();

	__atomic_store_n(&other.stop, true, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
	conn_close(&other.conn, false);
	check_nothing_left("front end", nth);
	return fail_what();
}

static void front_end(void **data)
{
	unsigned nth = 1, doorbells = 0, failed = 0;
	int failures;

	(void)data;
	assert_null(front_end_lives(0, &doorbells, &failures));
	assert_int_equal(failures, 0);
	/* The life has doorbells in it. */
	assert_int_equal(doorbells, 2);
	while (front_end_lives(nth, &doorbells, &failures)) {
		failed += failures < 0;
		nth++;
	}
	assert_true(nth > 20);
	print_message("# %u lives of a front end, %u of them failed visibly\n", nth, failed);
	assert_true(failed > nth / 4);
}

static int setup(void **data)
{
	(void)data;
	conn_setup();
	clean = conn_left();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(back_end),
		cmocka_unit_test(front_end),
	};

	return cmocka_run_group_tests_name("failures", tests, setup, NULL);
}
