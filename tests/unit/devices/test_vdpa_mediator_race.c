/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A mediated ring with guest, mediator and device each in a thread of its own: the barriers. A
 * notification is a line that is up or down; one that is lost leaves all three waiting, which the
 * mediator's thread sees after a while.
 */
#include "fake_mediated.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>

struct race {
	struct world *w;
	atomic_bool kick, call, doorbell, interrupt, over;
	uint32_t requests;
};

static void *guest_thread(void *opaque)
{
	struct race *race = opaque;
	struct guest *g = &race->w->guest;

	while (g->finished < race->requests && !race->over) {
		uint32_t left = race->requests - g->made;
		unsigned nr = 1 + random_next(&g->seed) % 3;

		if (g->nr_busy < g->size && left) {
			if (guest_submit(g, nr < left ? nr : left))
				race->kick = true;
		} else if (!atomic_exchange(&race->call, false)) {
			sched_yield();
		} else {
			guest_collect(g);
		}
	}
	race->over = true;
	return NULL;
}

static void *device_thread(void *opaque)
{
	struct race *race = opaque;
	struct device *d = &race->w->device;

	while (!race->over) {
		if (atomic_exchange(&race->doorbell, false))
			device_fetch(d);
		else if (!d->nr_held)
			sched_yield();
		if (d->nr_held && device_return(d, 1 + random_next(&d->seed) % 3))
			race->interrupt = true;
	}
	return NULL;
}

static void act(struct race *race, int bits)
{
	assert_true(bits >= 0);
	if (bits & MEDIATOR_RING)
		race->doorbell = true;
	if (bits & MEDIATOR_CALL)
		race->call = true;
}

static void mediate(struct race *race)
{
	time_t deadline = time(NULL) + 30;

	race->kick = true;
	while (!race->over) {
		bool idle = true;

		if (atomic_exchange(&race->kick, false)) {
			act(race, mediator_feed(race->w->mediator));
			idle = false;
		}
		if (atomic_exchange(&race->interrupt, false)) {
			act(race, mediator_drain(race->w->mediator));
			idle = false;
		}
		if (idle)
			sched_yield();
		if (idle && time(NULL) > deadline)
			race->over = true;
	}
}

static void test_threads(void **state)
{
	unsigned event_idx;

	(void)state;
	for (event_idx = 0; event_idx < 2; event_idx++) {
		const struct params p = { .size = 4, .base = 0xfff0, .event_idx = event_idx };
		struct race race = { .w = world_new(&p), .requests = 100000 };
		pthread_t guest, device;

		assert_int_equal(pthread_create(&guest, NULL, guest_thread, &race), 0);
		assert_int_equal(pthread_create(&device, NULL, device_thread, &race), 0);
		mediate(&race);
		pthread_join(guest, NULL);
		pthread_join(device, NULL);
		assert_int_equal(race.w->guest.finished, race.requests);
		world_free(race.w);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
