/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Workers with several queues: nothing is lost, whichever way notifications come, while queues and
 * doorbell pages come and go.
 */
#include "worker_rig.h"

static void test_load_eventfd(void **state)
{
	struct load a = { 0 }, b = { .bursts = 1 };
	uint64_t wakeups = 0, kicks = 0, notified = 0;
	unsigned i;

	(void)state;
	make_rig(WORKER_EVENTFD, 6);
	add_all(0);
	start_load(&a, 0, 3, 25000);
	start_load(&b, 3, 3, 10000);
	end_load(&a);
	end_load(&b);
	check_done();
	usleep(20000);
	for (i = 0; i < rig.nr; i++) {
		wakeups += __atomic_load_n(&rig.queues[i].wq.wakeups, __ATOMIC_RELAXED);
		kicks += counter(&rig.queues[i], kicks);
		notified += rig.queues[i].notified;
	}
	assert_int_equal(kicks, notified);
	assert_in_range(wakeups, 1, kicks);
	drop_rig();
}

static void test_load_mixed(void **state)
{
	static const enum how ways[] = { BY_PAGE, BY_KICK, BY_STAGGERED, BY_PAGE_32 };
	struct load a = { 0 }, b = { .bursts = 1 };
	unsigned i;

	(void)state;
	make_rig(WORKER_DOORBELL, 8);
	add_all(1);
	for (i = 0; i < rig.nr; i++)
		use(i, ways[i % 4]);
	start_load(&a, 0, 4, 25000);
	start_load(&b, 4, 4, 10000);
	end_load(&a);
	end_load(&b);
	check_done();
	for (i = 0; i < rig.nr; i++) {
		uint64_t kicks = counter(&rig.queues[i], kicks);
		uint64_t doorbells = counter(&rig.queues[i], doorbells);

		assert_true((ways[i % 4] == BY_KICK ? kicks : doorbells) > 0);
		assert_int_equal(ways[i % 4] == BY_KICK ? doorbells : kicks, 0);
	}
	drop_rig();
}

/* Nobody is notified of anything, and no driver notifies. */
static void test_load_poll(void **state)
{
	struct load a = { 0 };
	unsigned i;

	(void)state;
	make_rig(WORKER_POLL, 3);
	add_all(0);
	for (i = 0; i < rig.nr; i++) {
		use(i, BY_NOTHING);
		__atomic_store_n((uint16_t *)&used(&rig.queues[i])->ring[SIZE], 0x8000,
				 __ATOMIC_RELAXED);
	}
	start_load(&a, 0, 3, 10000);
	end_load(&a);
	check_done();
	for (i = 0; i < rig.nr; i++)
		assert_int_equal(counter(&rig.queues[i], doorbells), 0);
	drop_rig();
}

/* No kick eventfd: the driver has no way to notify, the ring is polled, in every mode. */
static void test_no_kick(void **state)
{
	struct load a = { 0 };

	(void)state;
	make_rig(WORKER_EVENTFD, 2);
	bf_virtq_stop(rig.queues[1].wq.vq);
	start_queue(&rig.queues[1], -1);
	use(1, BY_NOTHING);
	add_all(0);
	start_load(&a, 0, 2, 10000);
	end_load(&a);
	check_done();
	drop_rig();
}

/* Queues leave in the middle, come back on the other worker, and so do their doorbells. */
static void add_and_remove(enum worker_mode mode, enum how how)
{
	struct load a = { 0 }, b = { 0 };
	unsigned i, turn;

	make_rig(mode, 4);
	add_all(0);
	for (i = 0; i < rig.nr; i++)
		use(i, how);
	start_load(&a, 0, 2, 20000);
	start_load(&b, 2, 2, 20000);
	for (turn = 1; turn < 300; turn++) {
		struct queue *q = &rig.queues[turn % 3];

		worker_remove(&q->wq, finish);
		worker_poke(&q->wq); /* of one that is not there: no effect */
		assert_int_equal(worker_add(rig.workers[turn % 2], &q->wq), 0);
		if (how == BY_PAGE || turn % 2)
			worker_set_doorbell(&q->wq,
					    how == BY_PAGE ? DOORBELL_MAPPED : DOORBELL_REFUSED);
		usleep(turn % 7 * 20);
	}
	end_load(&a);
	end_load(&b);
	check_done();
	drop_rig();
}

static void test_add_remove_eventfd(void **state)
{
	(void)state;
	add_and_remove(WORKER_EVENTFD, BY_KICK);
}

static void test_add_remove_doorbell(void **state)
{
	(void)state;
	add_and_remove(WORKER_DOORBELL, BY_PAGE);
}

/*
 * The driver rings here and there: another driver is started, or the front end takes the page away and
 * says nothing, and kicks come by eventfd. Now and then it does say so.
 */
static void test_withdrawn(void **state)
{
	static const enum how ways[] = { BY_KICK, BY_STAGGERED, BY_PAGE };
	struct load a = { .bursts = 1 };
	struct queue *q;
	unsigned turn;

	(void)state;
	make_rig(WORKER_DOORBELL, 2);
	q = &rig.queues[1];
	add_all(0);
	use(1, BY_PAGE);
	start_load(&a, 1, 1, 20000);
	for (turn = 0; turn < 150; turn++) {
		atomic_store(&q->how, ways[turn % 3]);
		usleep(100);
		if (turn % 30)
			continue;
		/* Nobody stores into a page that is withdrawn. */
		atomic_store(&q->how, BY_KICK);
		usleep(1000);
		worker_set_doorbell(&q->wq, DOORBELL_REFUSED);
		usleep(100);
		worker_set_doorbell(&q->wq, DOORBELL_MAPPED);
	}
	end_load(&a);
	check_done();
	drop_rig();
}

/* Up to the time that a worker takes to come to rest, and a little more. */
static void wait_a_moment(unsigned *seed)
{
	unsigned i;

	*seed = *seed * 1664525 + 1013904223;
	for (i = (*seed >> 16) % 2048; i; i--)
		spin_pause();
}

static void give_way(unsigned looks)
{
	if (looks < 500)
		spin_pause();
	else
		sched_yield();
}

/* One request at a time, each at another moment of the way from the last one to sleep. */
static void test_falling_asleep(void **state)
{
	struct queue *q;
	unsigned i, looks, seed = 3;
	double limit;

	(void)state;
	make_rig(WORKER_EVENTFD, 1);
	q = &rig.queues[0];
	add_all(0);
	q->to_do = 6000;
	for (i = 0; i < q->to_do; i++) {
		wait_a_moment(&seed);
		submit(q, 1);
		limit = seconds() + LIMIT_S;
		for (looks = 0; !collect(q); looks++) {
			give_way(looks);
			if (looks > 1000 && seconds() > limit)
				fail_msg("request %u is lost", i);
		}
	}
	check_done();
	drop_rig();
}

/*
 * A driver that adds a request just after a look at the ring, without notifying, since nobody asked for
 * that: once after each of the looks, the last one before the queue settles included. It runs on the
 * worker, in a callback between two looks.
 */
static unsigned looks_since, add_after = 1;
static atomic_uint nr_added;

static bool add_in_between(struct worker_queue *wq)
{
	struct queue *q = (struct queue *)wq;

	if (collect(q))
		looks_since = 0;
	if (++looks_since != add_after || left(q) == 0)
		return false;
	submit(q, 1);
	looks_since = 0;
	add_after = add_after % 200 + 1;
	atomic_fetch_add(&nr_added, 1);
	return false;
}

static void test_between_looks(void **state)
{
	static const struct worker_ops sneaking = { .serve = serve, .ready = add_in_between };
	struct queue *q = &rig.queues[0];
	uint64_t one = 1;
	uint64_t served, before = 0;
	unsigned stuck = 0;

	(void)state;
	make_rig(WORKER_EVENTFD, 1);
	q->wq.ops = &sneaking;
	q->to_do = 1000;
	add_all(0);
	while ((served = counter(q, requests)) < q->to_do) {
		unsigned added = atomic_load(&nr_added);

		usleep(200);
		/* At rest, with nothing in the ring: on with it. Anything else is lost in the end. */
		if (served == added && atomic_load(&nr_added) == added)
			assert_int_equal(write(q->kick_fd, &one, 8), 8);
		stuck = served == before ? stuck + 1 : 0;
		assert_true(stuck < 50000);
		before = served;
	}
	drop_rig();
}

/* What was told by a poke is seen, whether the worker sleeps, spins or is just falling asleep. */
static void poke(enum worker_mode mode)
{
	struct queue *q;
	double limit;
	unsigned i, looks, seed = 5;

	make_rig(mode, 3);
	add_all(0);
	use(2, mode == WORKER_EVENTFD ? BY_KICK : BY_PAGE);
	for (i = 1; i <= 6000; i++) {
		q = &rig.queues[i % 2];
		atomic_store(&q->asked, i);
		worker_poke(&q->wq);
		if (i % 16 > 12)
			continue;
		limit = seconds() + LIMIT_S;
		for (looks = 0; atomic_load(&q->seen) != i; looks++) {
			give_way(looks);
			if (looks > 1000 && seconds() > limit)
				fail_msg("poke %u is lost", i);
		}
		wait_a_moment(&seed);
	}
	drop_rig();
}

static void test_poke_asleep(void **state)
{
	(void)state;
	poke(WORKER_EVENTFD);
}

static void test_poke_spinning(void **state)
{
	(void)state;
	poke(WORKER_DOORBELL);
}

static void wait_source(struct queue *q, unsigned nr)
{
	double limit = seconds() + LIMIT_S;

	while (atomic_load(&q->from_source) != nr) {
		sched_yield();
		if (seconds() > limit)
			fail_msg("%u of %u heard", atomic_load(&q->from_source), nr);
	}
}

static void source(enum worker_mode mode)
{
	uint64_t one = 1;
	struct queue *q;
	unsigned i, served;

	make_rig(mode, 2);
	q = &rig.queues[1];
	q->wq.source_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	add_all(0);
	use(0, mode == WORKER_EVENTFD ? BY_KICK : BY_PAGE);
	for (i = 1; i <= 2000; i++) {
		assert_int_equal(write(q->wq.source_fd, &one, 8), 8);
		if (i % 4 == 0)
			wait_source(q, i);
		if (i % 400 == 0)
			usleep(100);
	}
	/* At rest it is not served: nothing keeps the thread busy. */
	usleep(20000);
	served = atomic_load(&q->served);
	usleep(20000);
	assert_int_equal(atomic_load(&q->served), served);
	worker_remove(&q->wq, NULL);
	close(q->wq.source_fd);
	drop_rig();
}

static void test_source_asleep(void **state)
{
	(void)state;
	source(WORKER_EVENTFD);
}

static void test_source_spinning(void **state)
{
	(void)state;
	source(WORKER_DOORBELL);
}

static double cpu_seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* A queue that is broken, by its ring or by its kick descriptor, costs nothing and harms nobody. */
static void broken(enum worker_mode mode, bool kick)
{
	struct load a = { 0 };
	struct queue *q;
	int pipe_fds[2];
	uint64_t one = 1;
	double before;

	make_rig(mode, 2);
	q = &rig.queues[1];
	assert_int_equal(pipe2(pipe_fds, O_NONBLOCK | O_CLOEXEC), 0);
	if (kick) {
		bf_virtq_stop(q->wq.vq);
		start_queue(q, pipe_fds[0]);
	}
	add_all(0);
	if (mode == WORKER_DOORBELL)
		use(1, BY_PAGE);
	close(pipe_fds[1]); /* readable from now on, for ever */
	if (!kick) {
		__atomic_store_n(&avail(q)->idx, 0x7000, __ATOMIC_RELEASE);
		atomic_store(&q->how, BY_PAGE);
		notify(q);
		assert_int_equal(write(q->kick_fd, &one, 8), 8);
	}
	start_load(&a, 0, 1, 10000);
	end_load(&a);
	usleep(1000);
	before = cpu_seconds();
	notify(q);
	assert_int_equal(write(q->kick_fd, &one, 8), 8);
	usleep(100000);
	assert_true(cpu_seconds() - before < 0.05);
	worker_remove(&q->wq, NULL);
	assert_true(q->wq.broken);
	close(pipe_fds[0]);
	drop_rig();
}

static void test_broken(void **state)
{
	(void)state;
	broken(WORKER_EVENTFD, false);
	broken(WORKER_EVENTFD, true);
	broken(WORKER_DOORBELL, false);
	broken(WORKER_DOORBELL, true);
}

/* What a queue has in hand when it leaves is finished on the worker, and given back. */
static void test_finish(void **state)
{
	struct load a = { 0 };
	struct queue *q;
	unsigned turn;

	(void)state;
	make_rig(WORKER_EVENTFD, 1);
	q = &rig.queues[0];
	q->slow = true;
	add_all(0);
	start_load(&a, 0, 1, 2000);
	for (turn = 0; turn < 100; turn++) {
		double limit = seconds() + LIMIT_S;

		while (counter(q, requests) < 20 * (turn + 1)) {
			sched_yield();
			assert_true(seconds() < limit);
		}
		worker_remove(&q->wq, finish);
		assert_int_equal(bf_virtq_in_flight(q->wq.vq), 0);
		if (turn == 99)
			q->slow = false;
		assert_int_equal(worker_add(rig.workers[turn % 2], &q->wq), 0);
	}
	end_load(&a);
	check_done();
	drop_rig();
}

/* A queue that never rests does not keep the others from being heard. */
static void test_busy(void **state)
{
	struct load a = { .bursts = 1 };

	(void)state;
	make_rig(WORKER_EVENTFD, 2);
	rig.queues[0].busy = true;
	add_all(0);
	start_load(&a, 1, 1, 3000);
	end_load(&a);
	check_done();
	drop_rig();
}

/* More queues than a first table has room for, each heard, at both places. */
static void test_many(void **state)
{
	struct load a = { .bursts = 1 }, b = { .bursts = 1 };
	unsigned i;

	(void)state;
	make_rig(WORKER_DOORBELL, MAX_QUEUES);
	add_all(0);
	for (i = 0; i < rig.nr; i++)
		use(i, i % 3 ? BY_STAGGERED : BY_PAGE);
	start_load(&a, 0, rig.nr / 2, 300);
	start_load(&b, rig.nr / 2, rig.nr - rig.nr / 2, 300);
	end_load(&a);
	end_load(&b);
	check_done();
	for (i = 0; i < rig.nr; i++)
		assert_true(counter(&rig.queues[i], doorbells) > 0);
	drop_rig();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_load_eventfd),
		cmocka_unit_test(test_load_mixed),
		cmocka_unit_test(test_load_poll),
		cmocka_unit_test(test_no_kick),
		cmocka_unit_test(test_add_remove_eventfd),
		cmocka_unit_test(test_add_remove_doorbell),
		cmocka_unit_test(test_withdrawn),
		cmocka_unit_test(test_falling_asleep),
		cmocka_unit_test(test_between_looks),
		cmocka_unit_test(test_poke_asleep),
		cmocka_unit_test(test_poke_spinning),
		cmocka_unit_test(test_source_asleep),
		cmocka_unit_test(test_source_spinning),
		cmocka_unit_test(test_broken),
		cmocka_unit_test(test_finish),
		cmocka_unit_test(test_busy),
		cmocka_unit_test(test_many),
	};

	log_set_level(BF_LOG_ERROR);
	alarm(55);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
