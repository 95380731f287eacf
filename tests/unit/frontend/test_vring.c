/* SPDX-License-Identifier: BSD-3-Clause */
/* lib/frontend/vring.c: order, addresses, pipelining, and what a refused start leaves behind. */
#include "fake_backend.h"

#include <sys/resource.h>

#include "base/fd.h"

struct fixture {
	unsigned fds_before;
	struct fake fake;
	struct front front;
	struct guest guest;
};

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	f->fds_before = count_fds();
	guest_init(&f->guest, 4 << 20);
	fake_init(&f->fake);
	f->fake.nr_queues = 256;
	front_init(&f->front, &f->fake, 0, 3000);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	bf_frontend_free(f->front.fe);
	fake_stop(&f->fake);
	guest_done(&f->guest);
	assert_int_equal(count_fds(), f->fds_before);
	free(f);
	return 0;
}

static void ready(struct fixture *f)
{
	fake_start(&f->fake);
	assert_int_equal(bf_frontend_attach(f->front.fe, f->fake.peer_fd), 0);
	assert_int_equal(bf_frontend_set_features(f->front.fe, bf_frontend_features(f->front.fe) &
								       DRIVER_FEATURES),
			 0);
	assert_int_equal(bf_frontend_set_memory(f->front.fe, &f->guest.region, 1), 1);
}

static void messages_come_in_the_order_of_the_protocol(void **state)
{
	static const uint32_t order[] = {
		BF_FE_SET_VRING_NUM,    BF_FE_SET_VRING_BASE, BF_FE_SET_VRING_ADDR,
		BF_FE_SET_VRING_CALL,   BF_FE_SET_VRING_ERR,  BF_FE_SET_VRING_KICK,
		BF_FE_SET_VRING_ENABLE,
	};
	struct fixture *f = *state;
	struct bf_vring_setup vring = guest_vring(&f->guest, 2);
	uint64_t uva = (uintptr_t)f->guest.region.hva + 2 * 0x3000;
	unsigned before;

	ready(f);
	vring.base = 77;
	before = f->fake.nr_seen;
	assert_int_equal(bf_frontend_start_vrings(f->front.fe, &vring, 1), 0);
	assert_int_equal(f->fake.nr_seen, before + 7);
	for (unsigned i = 0; i < 7; i++) {
		assert_int_equal(f->fake.seen[before + i].request, order[i]);
		assert_true(f->fake.seen[before + i].flags & BF_FLAGS_NEED_REPLY);
	}
	assert_int_equal(f->fake.seen[before].u64, 2 | 256ull << 32);
	assert_int_equal(f->fake.seen[before + 1].u64, 2 | 77ull << 32);
	/* index and flags, then desc, used, avail, log: the order of the wire */
	assert_int_equal(f->fake.seen[before + 2].words[0], 2);
	assert_int_equal(f->fake.seen[before + 2].words[1], uva);
	assert_int_equal(f->fake.seen[before + 2].words[2], uva + 0x2000);
	assert_int_equal(f->fake.seen[before + 2].words[3], uva + 0x1000);
	assert_int_equal(f->fake.seen[before + 3].nr_fds, 1);
	assert_int_equal(f->fake.seen[before + 4].u64, 2 | BF_VRING_NOFD);
	assert_int_equal(f->fake.seen[before + 4].nr_fds, 0);
	assert_int_equal(f->fake.seen[before + 5].nr_fds, 1);
	assert_int_equal(f->fake.seen[before + 6].u64, 2 | 1ull << 32);
	assert_int_equal(bf_eventfd_drain(f->guest.kick_fd), 1);
}

static void without_bit_30_there_is_no_enable(void **state)
{
	struct fixture *f = *state;
	struct bf_vring_setup vring = guest_vring(&f->guest, 0);

	f->fake.features &= ~bf_bit(BF_VHOST_USER_F_PROTOCOL_FEATURES);
	ready(f);
	assert_int_equal(bf_frontend_start_vrings(f->front.fe, &vring, 1), 0);
	assert_int_equal(fake_count(&f->fake, BF_FE_SET_VRING_ENABLE), 0);
	assert_int_equal(fake_count(&f->fake, BF_FE_SET_VRING_KICK), 1);
}

static void pairs_are_enabled_and_disabled_while_they_run(void **state)
{
	struct fixture *f = *state;
	struct bf_vring_setup vrings[4];
	const unsigned queues[] = { 2, 3 }, stopped = 7, none = 256;
	unsigned before;

	ready(f);
	for (unsigned i = 0; i < 4; i++) {
		vrings[i] = guest_vring(&f->guest, i);
		vrings[i].disabled = i >= 2;
	}
	assert_int_equal(bf_frontend_start_vrings(f->front.fe, vrings, 4), 0);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(fake_nth(&f->fake, BF_FE_SET_VRING_ENABLE, i)->u64,
				 i | (i < 2 ? 1ull : 0) << 32);
	assert_true(fake_nth(&f->fake, BF_FE_SET_VRING_KICK, 1) <
		    fake_nth(&f->fake, BF_FE_SET_VRING_ENABLE, 1));
	assert_true(fake_nth(&f->fake, BF_FE_SET_VRING_KICK, 2) >
		    fake_nth(&f->fake, BF_FE_SET_VRING_ENABLE, 2));
	assert_int_equal(bf_frontend_enable_vrings(f->front.fe, queues, 2, true), 0);
	assert_int_equal(fake_nth(&f->fake, BF_FE_SET_VRING_ENABLE, 4)->u64, 2 | 1ull << 32);
	assert_int_equal(fake_nth(&f->fake, BF_FE_SET_VRING_ENABLE, 5)->u64, 3 | 1ull << 32);
	assert_int_equal(bf_frontend_enable_vrings(f->front.fe, queues, 2, false), 0);
	assert_int_equal(fake_nth(&f->fake, BF_FE_SET_VRING_ENABLE, 7)->u64, 3);
	assert_true(fake_nth(&f->fake, BF_FE_SET_VRING_ENABLE, 7)->flags & BF_FLAGS_NEED_REPLY);
	before = f->fake.nr_seen;
	assert_int_equal(bf_frontend_enable_vrings(f->front.fe, &stopped, 1, true), -EINVAL);
	assert_int_equal(bf_frontend_enable_vrings(f->front.fe, &none, 1, true), -EINVAL);
	assert_int_equal(bf_frontend_enable_vrings(f->front.fe, &stopped, 0, true), 0);
	assert_int_equal(f->fake.nr_seen, before);
	bf_frontend_detach(f->front.fe);
	assert_int_equal(bf_frontend_enable_vrings(f->front.fe, queues, 2, true), -ENOTCONN);
}

static void without_bit_30_nothing_can_be_disabled(void **state)
{
	struct fixture *f = *state;
	struct bf_vring_setup vring = guest_vring(&f->guest, 0);
	const unsigned queue = 0;

	f->fake.features &= ~bf_bit(BF_VHOST_USER_F_PROTOCOL_FEATURES);
	ready(f);
	assert_int_equal(bf_frontend_start_vrings(f->front.fe, &vring, 1), 0);
	assert_int_equal(bf_frontend_enable_vrings(f->front.fe, &queue, 1, true), 0);
	assert_int_equal(bf_frontend_enable_vrings(f->front.fe, &queue, 1, false), -EOPNOTSUPP);
	assert_int_equal(fake_count(&f->fake, BF_FE_SET_VRING_ENABLE), 0);
}

static void many_queues_start_and_stop_in_one_round_trip_each(void **state)
{
	struct fixture *f = *state;
	struct bf_vring_setup vrings[64];
	unsigned queues[64], before;
	uint32_t bases[64];

	f->fake.hold_ms = 20;
	f->fake.vring_base = 0xabcd;
	ready(f);
	for (unsigned i = 0; i < 64; i++) {
		vrings[i] = guest_vring(&f->guest, i);
		queues[i] = i;
	}
	before = f->fake.rounds;
	assert_int_equal(bf_frontend_start_vrings(f->front.fe, vrings, 64), 0);
	assert_in_range(f->fake.rounds - before, 1, 3);
	assert_int_equal(fake_count(&f->fake, BF_FE_SET_VRING_ENABLE), 64);
	before = f->fake.rounds;
	assert_int_equal(bf_frontend_stop_vrings(f->front.fe, queues, 64, bases), 0);
	assert_in_range(f->fake.rounds - before, 1, 3);
	for (unsigned i = 0; i < 64; i++)
		assert_int_equal(bases[i], 0xabcd);
}

/* A socket that is full must not make the front end keep hundreds of duplicates of eventfds. */
static void all_queues_start_within_the_limit_of_descriptors(void **state)
{
	struct fixture *f = *state;
	struct bf_vring_setup vrings[256];
	struct rlimit limit, low;

	/* One by one the fake takes long enough for the socket to fill. */
	ready(f);
	for (unsigned i = 0; i < 256; i++)
		vrings[i] = guest_vring(&f->guest, i);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	low = limit;
	low.rlim_cur = 64;
	f->fake.hold_ms = 5;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
	assert_int_equal(bf_frontend_start_vrings(f->front.fe, vrings, 256), 0);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	assert_int_equal(fake_count(&f->fake, BF_FE_SET_VRING_KICK), 256);
}

static void impossible_rings_are_refused_before_anything_is_sent(void **state)
{
	struct fixture *f = *state;
	const uint64_t end = GUEST_GPA + (4 << 20);
	struct bf_vring_setup bad[14];
	struct bf_vring_setup twice[2];
	unsigned before;

	f->fake.nr_queues = 4;
	for (unsigned i = 0; i < 14; i++)
		bad[i] = guest_vring(&f->guest, 1);
	bad[0].queue = 4;
	bad[1].queue = 256;
	bad[2].size = 0;
	bad[3].size = 255;
	bad[4].size = 65535;
	bad[5].desc_gpa = GUEST_GPA - 16;
	bad[6].desc_gpa = end - 16 * 256 + 16; /* one descriptor outside */
	bad[7].avail_gpa = end - (6 + 2 * 256) + 2;
	bad[8].used_gpa = end - (6 + 8 * 256) + 2; /* both outside and unaligned */
	bad[9].used_gpa = UINT64_MAX - 3;
	bad[10].desc_gpa += 8;
	bad[11].base = 0x10000;
	bad[12].kick_fd = -1;
	bad[13].used_gpa = (end - (6 + 8 * 256) + 4) & ~3ull;
	ready(f);
	before = f->fake.nr_seen;
	for (unsigned i = 0; i < 14; i++) {
		assert_int_equal(bf_frontend_start_vrings(f->front.fe, &bad[i], 1), -EINVAL);
		assert_string_not_equal(bf_frontend_error(f->front.fe), "");
	}
	twice[0] = twice[1] = guest_vring(&f->guest, 1);
	assert_int_equal(bf_frontend_start_vrings(f->front.fe, twice, 2), -EINVAL);
	assert_int_equal(f->fake.nr_seen, before);
	/* The very last bytes are fine. */
	twice[0].desc_gpa = end - 16 * 256;
	assert_int_equal(bf_frontend_start_vrings(f->front.fe, twice, 1), 0);
	assert_int_equal(bf_frontend_start_vrings(f->front.fe, twice, 1), -EBUSY);
}

static void packed_rings_have_other_shapes(void **state)
{
	struct fixture *f = *state;
	struct bf_vring_setup vring = guest_vring(&f->guest, 1);
	const unsigned queue = 1;
	uint32_t base = 0;

	f->fake.vring_base = 0x80017fff;
	ready(f);
	vring.size = 255;
	vring.base = 0x80018001;
	vring.used_gpa = GUEST_GPA + (4 << 20) - 4;
	assert_int_equal(bf_frontend_start_vrings(f->front.fe, &vring, 1), -EINVAL);
	assert_int_equal(bf_frontend_set_features(f->front.fe, DRIVER_FEATURES | bf_bit(34)), 0);
	assert_int_equal(bf_frontend_start_vrings(f->front.fe, &vring, 1), 0);
	assert_int_equal(fake_nth(&f->fake, BF_FE_SET_VRING_BASE, 0)->u64, 1 | 0x80018001ull << 32);
	assert_int_equal(bf_frontend_stop_vrings(f->front.fe, &queue, 1, &base), 0);
	assert_int_equal(base, 0x80017fff);
}

static void features_come_before_vrings(void **state)
{
	struct fixture *f = *state;
	struct bf_vring_setup vring = guest_vring(&f->guest, 0);

	fake_start(&f->fake);
	assert_int_equal(bf_frontend_start_vrings(f->front.fe, &vring, 1), -ENOTCONN);
	assert_int_equal(bf_frontend_attach(f->front.fe, f->fake.peer_fd), 0);
	assert_int_equal(bf_frontend_set_memory(f->front.fe, &f->guest.region, 1), 1);
	assert_int_equal(bf_frontend_start_vrings(f->front.fe, &vring, 1), -EINVAL);
}

static void a_refused_start_is_taken_back(void **state)
{
	struct fixture *f = *state;
	struct bf_vring_setup vrings[3];

	f->fake.bad_request = BF_FE_SET_VRING_KICK;
	f->fake.misdeed = FAILURE;
	f->fake.bad_nr = 1;
	ready(f);
	for (unsigned i = 0; i < 3; i++)
		vrings[i] = guest_vring(&f->guest, i + 5);
	assert_int_equal(bf_frontend_start_vrings(f->front.fe, vrings, 3), -EREMOTEIO);
	assert_string_equal(bf_frontend_error(f->front.fe),
			    "the back end refused SET_VRING_KICK of queue 6");
	assert_int_equal(fake_count(&f->fake, BF_FE_GET_VRING_BASE), 3);
	assert_int_equal(bf_eventfd_drain(f->guest.kick_fd), 0);
	assert_int_equal(bf_frontend_start_vrings(f->front.fe, vrings, 3), 0);
}

static void stopping_what_is_not_started_asks_nothing(void **state)
{
	struct fixture *f = *state;
	struct bf_vring_setup vring = guest_vring(&f->guest, 1);
	const unsigned queues[] = { 0, 1, 2 };
	const unsigned none = 256;
	uint32_t bases[3] = { 9, 9, 9 };

	f->fake.vring_base = 4;
	ready(f);
	assert_int_equal(bf_frontend_stop_vrings(f->front.fe, queues, 3, bases), 0);
	assert_int_equal(fake_count(&f->fake, BF_FE_GET_VRING_BASE), 0);
	assert_int_equal(bases[1], 0);
	assert_int_equal(bf_frontend_start_vrings(f->front.fe, &vring, 1), 0);
	assert_int_equal(bf_frontend_stop_vrings(f->front.fe, queues, 3, bases), 0);
	assert_int_equal(bases[0], 0);
	assert_int_equal(bases[1], 4);
	assert_int_equal(bases[2], 0);
	assert_int_equal(fake_count(&f->fake, BF_FE_GET_VRING_BASE), 1);
	assert_int_equal(bf_frontend_stop_vrings(f->front.fe, &none, 1, NULL), -EINVAL);
}

static void a_reset_stops_first(void **state)
{
	struct fixture *f = *state;
	struct bf_vring_setup vring = guest_vring(&f->guest, 1);

	ready(f);
	assert_int_equal(bf_frontend_start_vrings(f->front.fe, &vring, 1), 0);
	assert_int_equal(bf_frontend_set_status(f->front.fe, 0), 0);
	assert_true(fake_nth(&f->fake, BF_FE_GET_VRING_BASE, 0) <
		    fake_nth(&f->fake, BF_FE_SET_STATUS, 0));
	assert_int_equal(bf_frontend_start_vrings(f->front.fe, &vring, 1), 0);
	assert_int_equal(bf_frontend_reset_device(f->front.fe), 0);
	assert_true(fake_nth(&f->fake, BF_FE_GET_VRING_BASE, 1) <
		    fake_nth(&f->fake, BF_FE_RESET_DEVICE, 0));
	assert_int_equal(bf_frontend_start_vrings(f->front.fe, &vring, 1), 0);
}

static void a_lost_back_end_leaves_vrings_stopped(void **state)
{
	struct fixture *f = *state;
	struct bf_vring_setup vring = guest_vring(&f->guest, 0);
	const unsigned queue = 0;
	uint32_t base = 42;

	ready(f);
	assert_int_equal(bf_frontend_start_vrings(f->front.fe, &vring, 1), 0);
	f->fake.bad_request = BF_FE_GET_VRING_BASE;
	f->fake.misdeed = CLOSE;
	assert_int_equal(bf_frontend_stop_vrings(f->front.fe, &queue, 1, &base), -ENOTCONN);
	assert_int_equal(base, 42);
	assert_int_equal(front_dispatch(&f->front), -ENOTCONN);
	fake_stop(&f->fake);
	f->fake.misdeed = NO_MISDEED;
	ready(f);
	assert_int_equal(bf_frontend_start_vrings(f->front.fe, &vring, 1), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(messages_come_in_the_order_of_the_protocol, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(without_bit_30_there_is_no_enable, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(pairs_are_enabled_and_disabled_while_they_run,
						set_up, tear_down),
		cmocka_unit_test_setup_teardown(without_bit_30_nothing_can_be_disabled, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(many_queues_start_and_stop_in_one_round_trip_each,
						set_up, tear_down),
		cmocka_unit_test_setup_teardown(all_queues_start_within_the_limit_of_descriptors,
						set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			impossible_rings_are_refused_before_anything_is_sent, set_up, tear_down),
		cmocka_unit_test_setup_teardown(packed_rings_have_other_shapes, set_up, tear_down),
		cmocka_unit_test_setup_teardown(features_come_before_vrings, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_refused_start_is_taken_back, set_up, tear_down),
		cmocka_unit_test_setup_teardown(stopping_what_is_not_started_asks_nothing, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(a_reset_stops_first, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_lost_back_end_leaves_vrings_stopped, set_up,
						tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
