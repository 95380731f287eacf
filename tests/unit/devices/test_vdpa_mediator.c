/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Mediated rings under random schedules and hostile hands. Everybody does something only when
 * notified as the rules say: a notification that is lost is a standstill, and found.
 */
#include "fake_mediated.h"

/* The ring is the device's own from here on: at the beginning, as for a fresh one. */
static void go_direct(struct world *w)
{
	assert_int_equal(w->device.nr_held, 0);
	assert_int_equal(mediator_base(w->mediator), 0);
	mediator_free(w->mediator);
	w->mediator = NULL;
	w->device.rings = &w->rings;
	w->device.avail_seen = w->device.used_idx = 0;
	w->doorbell = true;
	w->nr_direct++;
}

static void todo(struct world *w, int bits)
{
	assert_true(bits >= 0);
	w->doorbell |= !!(bits & MEDIATOR_RING);
	w->call |= !!(bits & MEDIATOR_CALL);
	if (bits & MEDIATOR_DIRECT)
		go_direct(w);
}

/* Whoever was notified acts. False: nobody was. */
static bool deliver(struct world *w, unsigned which)
{
	bool *const lines[] = { &w->kick, &w->call, &w->doorbell, &w->interrupt };

	if (!*lines[which])
		return false;
	*lines[which] = false;
	if (which == 1)
		guest_collect(&w->guest);
	else if (which == 2)
		device_fetch(&w->device);
	else if (!w->mediator && which == 0)
		w->doorbell = true;
	else if (!w->mediator)
		w->call = true;
	else
		todo(w, which ? mediator_drain(w->mediator) : mediator_feed(w->mediator));
	return true;
}

static void step(struct world *w, uint32_t random)
{
	unsigned nr = 1 + (random >> 4) % 7;

	switch (random % 6) {
	case 4:
		w->kick |= guest_submit(&w->guest, nr);
		break;
	case 5:
		w->interrupt |= device_return(&w->device, nr);
		break;
	default:
		deliver(w, random % 6);
	}
}

/* All come to rest: nothing may be left on the way. */
static void settle(struct world *w)
{
	unsigned which;
	bool moved;

	do {
		for (moved = false, which = 0; which < 4; which++)
			moved |= deliver(w, which);
		if (w->device.nr_held) {
			w->interrupt |= device_return(&w->device, w->device.size);
			moved = true;
		}
	} while (moved);
	assert_int_equal(w->guest.finished, w->guest.made);
	assert_int_equal(w->guest.nr_busy, 0);
	assert_int_equal(w->device.next_token, w->guest.made);
	if (w->mediator)
		assert_int_equal(mediator_base(w->mediator), w->guest.used_seen);
}

static void run(const struct params *p, uint32_t requests)
{
	struct world *w = world_new(p);
	uint32_t seed = p->seed + 2;

	while (w->guest.made < requests) {
		step(w, random_next(&seed));
		if (random_next(&seed) % 1000 == 0)
			settle(w);
	}
	settle(w);
	/* Once around, and exactly once. */
	assert_int_equal(w->nr_direct, p->may_go_direct && requests > 65536u - p->base);
	assert_int_equal(!w->mediator, w->nr_direct);
	world_free(w);
}

static void test_schedules(void **state)
{
	static const uint16_t bases[] = { 1, 0x7fff, 0xfffe, 0xffff, 0x0100 };
	static const unsigned sizes[] = { 1, 2, 16, 256 };
	unsigned base, size, flags;

	(void)state;
	for (base = 0; base < sizeof(bases) / sizeof(bases[0]); base++) {
		for (size = 0; size < sizeof(sizes) / sizeof(sizes[0]); size++) {
			for (flags = 0; flags < 4; flags++) {
				const struct params p = { .size = sizes[size],
							  .base = bases[base],
							  .event_idx = flags & 1,
							  .may_go_direct = flags & 2,
							  .seed = base * 100 + size * 10 + flags };

				run(&p, 70000);
			}
		}
	}
}

/* The device sees its own ring begin at 0, and interrupts at each entry, whatever the guest wants. */
static void test_shadow(void **state)
{
	static const struct params p = { .size = 16, .base = 0x7fff, .event_idx = true };
	struct world *w = world_new(&p);

	(void)state;
	assert_false(
		guest_submit(&w->guest, 3)); /* the event is an old one: why feed comes first */
	assert_int_equal(mediator_feed(w->mediator), MEDIATOR_RING);
	assert_int_equal(mediator_feed(w->mediator), 0);
	assert_int_equal(w->shadow.avail[0], 0);
	assert_int_equal(w->shadow.avail[1], 3);
	assert_true(guest_submit(&w->guest, 1));
	assert_int_equal(mediator_feed(w->mediator), 0); /* the device has not asked again */
	device_fetch(&w->device);
	put(&w->rings.avail[2 + p.size], 0x7fff + 2); /* the guest: tell me of the third */
	assert_true(device_return(&w->device, 1));
	assert_int_equal(mediator_drain(w->mediator), 0);
	assert_true(device_return(&w->device, 1));
	assert_int_equal(mediator_drain(w->mediator), 0);
	assert_int_equal(mediator_base(w->mediator), 0x8001);
	assert_true(device_return(&w->device, 1));
	assert_int_equal(mediator_drain(w->mediator), MEDIATOR_CALL);
	world_free(w);
}

/* Without event indices: flags on both sides. */
static void test_flags(void **state)
{
	static const struct params p = { .size = 16, .base = 5 };
	struct world *w = world_new(&p);

	(void)state;
	assert_true(guest_submit(&w->guest, 1)); /* the old silence is gone */
	assert_int_equal(mediator_feed(w->mediator), MEDIATOR_RING);
	put(used_flags(&w->shadow), 1);
	guest_submit(&w->guest, 1);
	assert_int_equal(mediator_feed(w->mediator), 0);
	assert_int_equal(w->shadow.avail[1], 2);
	device_fetch(&w->device);
	put(&w->rings.avail[0], 1);
	assert_true(device_return(&w->device, 1));
	assert_int_equal(mediator_drain(w->mediator), 0);
	put(&w->rings.avail[0], 0);
	assert_true(device_return(&w->device, 1));
	assert_int_equal(mediator_drain(w->mediator), MEDIATOR_CALL);
	assert_int_equal(mediator_drain(w->mediator), 0);
	world_free(w);
}

/* At 0 nothing more is fed until everything is back, and then it is the device's. */
static void test_going_direct(void **state)
{
	static const struct params p = { .size = 8, .base = 0xfffe, .may_go_direct = true };
	struct world *w = world_new(&p);

	(void)state;
	guest_submit(&w->guest, 5);
	assert_int_equal(mediator_feed(w->mediator), MEDIATOR_RING);
	assert_int_equal(w->shadow.avail[1], 2);
	assert_int_equal(mediator_feed(w->mediator), 0);
	device_fetch(&w->device);
	device_return(&w->device, 1);
	assert_int_equal(mediator_drain(w->mediator), MEDIATOR_CALL);
	device_return(&w->device, 1);
	assert_int_equal(mediator_drain(w->mediator), MEDIATOR_CALL | MEDIATOR_DIRECT);
	/* It stays true until somebody acts on it, and nothing is fed meanwhile. */
	guest_submit(&w->guest, 2);
	assert_int_equal(mediator_feed(w->mediator), MEDIATOR_DIRECT);
	assert_int_equal(w->shadow.avail[1], 2);
	go_direct(w);
	settle(w);
	assert_int_equal(w->guest.made, 7);
	world_free(w);
}

/* An index of the guest that cannot be: nothing is fed, and the queue stays broken. */
static void test_hostile_guest(void **state)
{
	static const int jumps[] = { 9, 6, -1, -3, -4, 0x7fff, 0x8000 };
	unsigned i;

	(void)state;
	for (i = 0; i < sizeof(jumps) / sizeof(jumps[0]); i++) {
		const struct params p = {
			.size = 8, .base = 0xfffc, .event_idx = i & 1, .may_go_direct = i & 2
		};
		struct world *w = world_new(&p);

		guest_submit(&w->guest, 4);
		assert_true(mediator_feed(w->mediator) >= 0);
		device_fetch(&w->device);
		device_return(&w->device, 1); /* room for five */
		assert_true(mediator_drain(w->mediator) >= 0);
		put(&w->rings.avail[1], (uint16_t)jumps[i]); /* 0 is where it stands */
		assert_int_equal(mediator_feed(w->mediator), -EPROTO);
		assert_int_equal(w->shadow.avail[1], 4);
		put(&w->rings.avail[1], 0);
		assert_int_equal(mediator_feed(w->mediator), -EPROTO);
		assert_int_equal(mediator_drain(w->mediator), -EPROTO);
		assert_int_equal(mediator_base(w->mediator), 0xfffd);
		world_free(w);
	}
}

/* An id beyond the ring is the device's business to refuse; the index counts. */
static void test_guest_id_passes(void **state)
{
	static const struct params p = { .size = 8, .base = 1 };
	struct world *w = world_new(&p);

	(void)state;
	put(&w->rings.avail[2 + 1], 0xbeef);
	put(&w->rings.avail[1], 2);
	assert_int_equal(mediator_feed(w->mediator), MEDIATOR_RING);
	assert_int_equal(w->shadow.avail[2], 0xbeef);
	world_free(w);
}

static void test_hostile_device(void **state)
{
	static const uint16_t indices[] = { 4, 9, 0xffff, 0x8000, 0 };
	static const uint32_t ids[] = { 8, 0x10000, 0xffffffff };
	static const struct params p = { .size = 8, .base = 0x7ffe };
	unsigned i;

	(void)state;
	for (i = 0; i < sizeof(indices) / sizeof(indices[0]); i++) {
		struct world *w = world_new(&p);

		guest_submit(&w->guest, 3);
		assert_true(mediator_feed(w->mediator) >= 0);
		put(used_idx(&w->shadow), 1);
		assert_true(mediator_drain(w->mediator) >= 0);
		put(used_idx(&w->shadow), indices[i]);
		assert_int_equal(mediator_drain(w->mediator), -EPROTO);
		assert_int_equal(mediator_feed(w->mediator), -EPROTO);
		assert_int_equal(*used_idx(&w->rings), 0x7fff);
		world_free(w);
	}
	for (i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
		struct world *w = world_new(&p);

		guest_submit(&w->guest, 3);
		assert_true(mediator_feed(w->mediator) >= 0);
		used_entry(&w->shadow, 1)->id = ids[i];
		put(used_idx(&w->shadow), 2);
		assert_int_equal(mediator_drain(w->mediator), -EPROTO);
		assert_int_equal(*used_idx(&w->rings), 0x7ffe);
		world_free(w);
	}
}

static void test_setup(void **state)
{
	static struct rings rings, shadow;
	const struct mediator_setup good = { .size = 16,
					     .base = 1,
					     .guest_avail = rings.avail,
					     .guest_used = rings.used,
					     .shadow_avail = shadow.avail,
					     .shadow_used = shadow.used };
	struct mediator_setup setup = good;
	struct mediator *m = NULL;

	(void)state;
	setup.size = 0;
	assert_int_equal(mediator_new(&setup, &m), -EINVAL);
	setup.size = 48;
	assert_int_equal(mediator_new(&setup, &m), -EINVAL);
	setup = good;
	setup.base = 0;
	assert_int_equal(mediator_new(&setup, &m), -EINVAL);
	setup = good;
	setup.guest_used = (char *)rings.used + 2;
	assert_int_equal(mediator_new(&setup, &m), -EINVAL);
	setup = good;
	setup.guest_avail = (char *)rings.avail + 1;
	assert_int_equal(mediator_new(&setup, &m), -EINVAL);
	assert_null(m);
	mediator_free(NULL);
	assert_int_equal(mediator_avail_size(256), 6 + 2 * 256);
	assert_int_equal(mediator_used_size(256), 6 + 8 * 256);
	assert_int_equal(mediator_used_size(32768), 6 + 8 * 32768);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_setup),          cmocka_unit_test(test_shadow),
		cmocka_unit_test(test_flags),          cmocka_unit_test(test_going_direct),
		cmocka_unit_test(test_hostile_guest),  cmocka_unit_test(test_guest_id_passes),
		cmocka_unit_test(test_hostile_device), cmocka_unit_test(test_schedules),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
