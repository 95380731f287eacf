/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A packed ring between two threads. Here the barriers have partners; in the model they have none.
 *
 * First each question of "who wakes whom" by itself, both sides at the same moment, many times over:
 * at least one of them must see the other. Then the two together, each of which sleeps when it has
 * nothing to do: no wake-up is lost, no request is lost, doubled or torn.
 */
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <time.h>

#include "fake_packed.h"

#define SIZE     5
#define REQUESTS 20000u
#define ROUNDS   60000u

static void full_barrier(void)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* Two threads that do one thing each at the same moment, ROUNDS times or for some seconds. */
struct duel {
	struct fake_packed p;
	bool event_idx;
	/* The device's half: does it know of what the driver did, or made sure that it hears of it? */
	bool (*device)(struct duel *duel);
	unsigned met; /* by both together */
	bool over;
	bool device_knows;
};

/* Wait for the other one; then a little longer, so that it is not always the same one that is first. */
static void meet(struct duel *duel, unsigned *rounds, unsigned jitter)
{
	unsigned spins = 0;

	__atomic_fetch_add(&duel->met, 1, __ATOMIC_SEQ_CST);
	*rounds += 2;
	while (__atomic_load_n(&duel->met, __ATOMIC_SEQ_CST) < *rounds)
		if (++spins % 4096 == 0)
			sched_yield();
	for (volatile unsigned i = 0; i < jitter; i++)
		;
}

static void *duel_device(void *opaque)
{
	struct duel *duel = opaque;
	unsigned rounds = 0;

	for (unsigned i = 0; !duel->over; i++) {
		meet(duel, &rounds, i % 7);
		duel->device_knows = duel->device(duel);
		meet(duel, &rounds, 0);
		meet(duel, &rounds, 0); /* the driver's turn to tidy up */
	}
	return NULL;
}

/* @prepare and @tidy run with the ring at rest; @driver is the driver's half, as the device's. */
static void fight(bool event_idx, bool (*device)(struct duel *duel), void (*prepare)(struct duel *),
		  bool (*driver)(struct duel *), void (*tidy)(struct duel *))
{
	struct duel duel = { .event_idx = event_idx, .device = device };
	unsigned rounds = 0, missed = 0;
	time_t deadline = time(NULL) + 3; /* a busy machine is no failure */
	pthread_t thread;

	packed_init(&duel.p, SIZE, event_idx ? EVENT_IDX : 0);
	prepare(&duel);
	assert_int_equal(pthread_create(&thread, NULL, duel_device, &duel), 0);
	for (unsigned i = 0; !duel.over; i++) {
		bool driver_knows;

		meet(&duel, &rounds, i / 7 % 7);
		driver_knows = driver(&duel);
		meet(&duel, &rounds, 0);
		missed += !driver_knows && !duel.device_knows;
		tidy(&duel);
		prepare(&duel);
		duel.over = i + 1 == ROUNDS || time(NULL) > deadline;
		meet(&duel, &rounds, 0);
	}
	pthread_join(thread, NULL);
	fake_done(&duel.p.fake);
	assert_int_equal(missed, 0);
}

static void answer_all(struct duel *duel)
{
	struct iovec iov[1];
	struct bf_chain chain = { .iov = iov, .nr_iov = 1 };

	while (bf_virtq_pop(duel->p.fake.vq, &chain) == 1)
		bf_virtq_push(duel->p.fake.vq, chain.head, 0);
	assert_int_equal(bf_virtq_broken(duel->p.fake.vq, NULL), 0);
}

/* A completion against a driver that asks to be called. */
static void one_request_and_no_calls(struct duel *duel)
{
	struct iovec iov[1];
	struct bf_chain chain = { .iov = iov, .nr_iov = 1 };

	duel->p.driver->flags = DISABLE;
	put(&duel->p, 0, 1, 0, 0);
	assert_int_equal(bf_virtq_pop(duel->p.fake.vq, &chain), 1);
	bf_virtq_push(duel->p.fake.vq, 0, 0);
}

static bool complete(struct duel *duel)
{
	return bf_virtq_notify(duel->p.fake.vq);
}

static bool ask_for_call(struct duel *duel)
{
	/* The request was the one before where the driver stands. */
	struct place place = { (duel->p.next.idx + SIZE - 1) % SIZE,
			       duel->p.next.wrap != (duel->p.next.idx == 0) };

	duel->p.driver->position = encode(place);
	__atomic_store_n(&duel->p.driver->flags, duel->event_idx ? DESC : ENABLE, __ATOMIC_RELEASE);
	full_barrier(); /* partner: in bf_virtq_notify() */
	return is_used(&duel->p, place);
}

static void nothing(struct duel *duel)
{
	(void)duel;
}

static void no_call_is_missed(void **state)
{
	(void)state;
	for (int event_idx = 0; event_idx < 2; event_idx++)
		fight(event_idx, complete, one_request_and_no_calls, ask_for_call, nothing);
}

/* A new request against a device that asks for kicks. */
static void no_kicks(struct duel *duel)
{
	bf_virtq_want_kicks(duel->p.fake.vq, false);
}

static bool ask_for_kick(struct duel *duel)
{
	return bf_virtq_want_kicks(duel->p.fake.vq, true);
}

static bool request(struct duel *duel)
{
	struct place before = duel->p.next;

	put(&duel->p, 0, 1, 0, 0);
	full_barrier(); /* partner: in bf_virtq_want_kicks(), and behind moving the event */
	return tell(&duel->p, duel->p.device, before, 1, duel->event_idx);
}

static void answer_and_notify(struct duel *duel)
{
	answer_all(duel);
	bf_virtq_notify(duel->p.fake.vq);
}

static void no_kick_is_missed(void **state)
{
	(void)state;
	for (int event_idx = 0; event_idx < 2; event_idx++)
		fight(event_idx, ask_for_kick, no_kicks, request, answer_and_notify);
}

/* A new request against a device that looks, finds nothing, and has kicks on all the time. */
static bool look(struct duel *duel)
{
	struct iovec iov[1];
	struct bf_chain chain = { .iov = iov, .nr_iov = 1 };

	if (bf_virtq_pop(duel->p.fake.vq, &chain) != 1)
		return false;
	bf_virtq_push(duel->p.fake.vq, chain.head, 0);
	return true;
}

/* Such that the event is behind: one request was taken without looking for another. */
static void event_behind(struct duel *duel)
{
	put(&duel->p, 0, 1, 0, 0);
	assert_true(look(duel));
	bf_virtq_notify(duel->p.fake.vq);
}

static void no_look_is_in_vain(void **state)
{
	(void)state;
	fight(true, look, event_behind, request, answer_and_notify);
}

struct pair {
	struct fake_packed p;
	bool event_idx;
	bool always_on; /* the device leaves kicks on: an empty look is a promise of one */
	uint64_t driver_sleeps, device_sleeps;
};

/* False: nobody woke us. On a busy machine a wake-up takes long, but not that long. */
static bool sleep_on(int fd)
{
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };

	if (poll(&poll_fd, 1, 20000) != 1)
		return false;
	signals(fd);
	return true;
}

/* Takes, answers a few at a time in the wrong order, sleeps. Its answer is what it read. */
static void *device(void *opaque)
{
	struct pair *pair = opaque;
	struct bf_virtq *vq = pair->p.fake.vq;
	uint32_t answered = 0;

	while (answered < REQUESTS) {
		uint32_t words[SIZE];
		uint16_t heads[SIZE];
		unsigned nr = 0;

		for (;;) {
			struct iovec iov[2];
			struct bf_chain chain = { .iov = iov, .nr_iov = 2 };
			int ret = bf_virtq_pop(vq, &chain);

			if (ret < 0)
				return (void *)"the ring broke";
			if (!ret)
				break;
			heads[nr] = chain.head;
			memcpy(&words[nr++], iov[0].iov_base, sizeof(words[0]));
		}
		answered += nr;
		for (unsigned i = nr; i; i--)
			bf_virtq_push(vq, heads[i - 1], words[i - 1]);
		bf_virtq_notify(vq);
		if (nr) {
			if (!pair->always_on)
				bf_virtq_want_kicks(vq, false);
			continue;
		}
		if (!pair->always_on && bf_virtq_want_kicks(vq, true))
			continue;
		pair->device_sleeps++;
		if (answered < REQUESTS && !sleep_on(pair->p.fake.kick_fd))
			return (void *)"the device was not woken";
	}
	return NULL;
}

struct driver {
	uint32_t sent, got;
	struct place seen;
	uint32_t word[SIZE]; /* by id; 0: free */
	uint16_t descs[SIZE];
	unsigned nr_free;
};

/* A request whose first four bytes are its number, in one descriptor or in two. */
static bool send_one(struct pair *pair, struct driver *driver)
{
	struct fake_packed *p = &pair->p;
	struct place before = p->next, second = p->next;
	unsigned nr = 1 + driver->sent % 2;
	uint16_t id = 0;

	if (driver->sent == REQUESTS || nr > driver->nr_free)
		return false;
	while (driver->word[id])
		id++;
	driver->word[id] = ++driver->sent;
	driver->descs[id] = (uint16_t)nr;
	driver->nr_free -= nr;
	memcpy(at(&p->fake, id * 64ull), &driver->word[id], sizeof(driver->word[id]));
	step(p, &second);
	if (nr == 2) { /* the second one first: it may not be missing when the first is seen */
		p->next = second;
		put(p, 4096 + id * 64ull, 8, WRITE, id);
		second = p->next;
		p->next = before;
	}
	put(p, id * 64ull, 8, nr == 2 ? NEXT : 0, id);
	p->next = second;
	full_barrier(); /* partner: in bf_virtq_want_kicks(), and behind moving the event */
	if (tell(p, p->device, before, nr, pair->event_idx))
		assert_int_equal(write(p->fake.kick_fd, &(uint64_t){ 1 }, 8), 8);
	return true;
}

static bool get_one(struct pair *pair, struct driver *driver)
{
	const struct raw_packed *desc = &pair->p.ring[driver->seen.idx];
	uint16_t id;

	if (!is_used(&pair->p, driver->seen))
		return false;
	id = desc->id;
	assert_true(id < SIZE);
	assert_int_not_equal(driver->word[id], 0);
	assert_int_equal(desc->len, driver->word[id]);
	driver->word[id] = 0;
	driver->nr_free += driver->descs[id];
	for (unsigned i = driver->descs[id]; i; i--)
		step(&pair->p, &driver->seen);
	driver->got++;
	return true;
}

static void drive(struct pair *pair)
{
	struct driver driver = { .seen = pair->p.next, .nr_free = SIZE };

	while (driver.got < REQUESTS) {
		bool busy = false;

		while (send_one(pair, &driver))
			busy = true;
		__atomic_store_n(&pair->p.driver->flags, DISABLE, __ATOMIC_RELAXED);
		while (get_one(pair, &driver))
			busy = true;
		if (busy)
			continue;
		__atomic_store_n(&pair->p.driver->position, encode(driver.seen),
				 __ATOMIC_RELAXED);
		__atomic_store_n(&pair->p.driver->flags, pair->event_idx ? DESC : ENABLE,
				 __ATOMIC_RELEASE);
		full_barrier(); /* partner: in bf_virtq_notify() */
		if (is_used(&pair->p, driver.seen))
			continue;
		pair->driver_sleeps++;
		assert_true(sleep_on(pair->p.fake.call_fd));
	}
}

static void nobody_sleeps_for_ever(void **state)
{
	(void)state;
	for (int mode = 0; mode < 4; mode++) {
		struct pair pair = { .event_idx = mode & 1, .always_on = mode & 2 };
		void *complaint;
		pthread_t thread;

		packed_init(&pair.p, SIZE, pair.event_idx ? EVENT_IDX : 0);
		assert_int_equal(pthread_create(&thread, NULL, device, &pair), 0);
		drive(&pair);
		pthread_join(thread, &complaint);
		if (complaint)
			fail_msg("%s", (const char *)complaint);
		assert_int_equal(bf_virtq_counters(pair.p.fake.vq)->requests, REQUESTS);
		/* Else nothing was tried here. */
		assert_true(pair.driver_sleeps + pair.device_sleeps > 10);
		fake_done(&pair.p.fake);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_call_is_missed),
		cmocka_unit_test(no_kick_is_missed),
		cmocka_unit_test(no_look_is_in_vain),
		cmocka_unit_test(nobody_sleeps_for_ever),
	};

	return cmocka_run_group_tests_name("packed_threads", tests, NULL, NULL);
}
