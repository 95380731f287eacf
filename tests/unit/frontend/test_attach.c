/* SPDX-License-Identifier: BSD-3-Clause */
/* lib/frontend/negotiate.c, frontend.c, wait.c: what is agreed, in how many round trips, the end.
 */
#include "fake_backend.h"

#include <poll.h>
#include <time.h>

struct fixture {
	unsigned fds_before;
	struct fake fake;
	struct front front;
};

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	f->fds_before = count_fds();
	fake_init(&f->fake);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	bf_frontend_free(f->front.fe);
	fake_stop(&f->fake);
	assert_int_equal(count_fds(), f->fds_before);
	free(f);
	return 0;
}

static int attach(struct fixture *f, uint64_t protocol_features)
{
	if (!f->front.fe)
		front_init(&f->front, &f->fake, protocol_features, 2000);
	fake_start(&f->fake);
	return bf_frontend_attach(f->front.fe, f->fake.peer_fd);
}

static void everything_is_agreed(void **state)
{
	struct fixture *f = *state;

	f->fake.hold_ms = 30;
	assert_int_equal(attach(f, 0), 0);
	assert_true(bf_frontend_attached(f->front.fe));
	assert_int_equal(f->fake.rounds, 3);
	assert_int_equal(bf_frontend_protocol_features(f->front.fe),
			 bf_frontend_supported_protocol_features());
	assert_int_equal(f->fake.acked_protocol, bf_frontend_supported_protocol_features());
	assert_int_equal(bf_frontend_features(f->front.fe), bf_bit(32) | bf_bit(34) | bf_bit(9));
	assert_int_equal(bf_frontend_max_queues(f->front.fe), 4);
	assert_true(f->fake.back_fd >= 0);
	/* An acknowledgement of the message that brings acknowledgements is never asked for. */
	assert_false(fake_nth(&f->fake, BF_FE_SET_PROTOCOL_FEATURES, 0)->flags &
		     BF_FLAGS_NEED_REPLY);
	assert_true(fake_nth(&f->fake, BF_FE_SET_BACKEND_REQ_FD, 0)->flags & BF_FLAGS_NEED_REPLY);
}

static void a_plain_back_end_has_no_protocol_features(void **state)
{
	struct fixture *f = *state;

	f->fake.features &= ~bf_bit(BF_VHOST_USER_F_PROTOCOL_FEATURES);
	assert_int_equal(attach(f, 0), 0);
	assert_int_equal(fake_count(&f->fake, BF_FE_GET_PROTOCOL_FEATURES), 0);
	assert_int_equal(bf_frontend_protocol_features(f->front.fe), 0);
	assert_int_equal(bf_frontend_max_queues(f->front.fe), BF_MAX_QUEUES);
	assert_int_equal(bf_frontend_set_features(f->front.fe, DRIVER_FEATURES), 0);
	/* Bit 30 was not offered, so it is not acknowledged. */
	assert_int_equal(fake_nth(&f->fake, BF_FE_SET_FEATURES, 0)->u64, DRIVER_FEATURES);
	assert_int_equal(bf_frontend_get_status(f->front.fe), -EOPNOTSUPP);
	assert_int_equal(bf_frontend_set_status(f->front.fe, 1), 0);
	assert_int_equal(bf_frontend_reset_device(f->front.fe), -EOPNOTSUPP);
}

static void the_mask_limits_what_is_agreed(void **state)
{
	struct fixture *f = *state;
	uint64_t mask =
		bf_frontend_supported_protocol_features() & ~bf_bit(BF_PROTOCOL_F_HOST_NOTIFIER);
	struct bf_doorbell_state doorbell;

	assert_int_equal(attach(f, mask | bf_bit(BF_PROTOCOL_F_XEN_MMAP)), 0);
	assert_int_equal(bf_frontend_protocol_features(f->front.fe), mask);
	bf_frontend_doorbell_state(f->front.fe, 3, &doorbell);
	assert_non_null(strstr(doorbell.reason, "our side"));
}

static void host_notifier_needs_its_companions(void **state)
{
	const unsigned without[] = { BF_PROTOCOL_F_BACKEND_REQ, BF_PROTOCOL_F_BACKEND_SEND_FD };
	struct fixture *f = *state;

	for (unsigned i = 0; i < 2; i++) {
		f->fake.protocol_features =
			bf_frontend_supported_protocol_features() & ~bf_bit(without[i]);
		assert_int_equal(attach(f, 0), 0);
		assert_false(bf_has(bf_frontend_protocol_features(f->front.fe),
				    BF_PROTOCOL_F_HOST_NOTIFIER));
		bf_frontend_detach(f->front.fe);
		fake_stop(&f->fake);
	}
}

static void no_doorbell_operation_no_host_notifier(void **state)
{
	const struct bf_frontend_config config = { .name = "bare" };
	struct fixture *f = *state;

	assert_int_equal(bf_frontend_new(&config, &f->front.fe), 0);
	assert_int_equal(attach(f, 0), 0);
	assert_false(bf_has(f->fake.acked_protocol, BF_PROTOCOL_F_HOST_NOTIFIER));
}

static void features_outside_the_offer_are_refused(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(attach(f, 0), 0);
	assert_int_equal(bf_frontend_set_features(f->front.fe, DRIVER_FEATURES | bf_bit(5)),
			 -EINVAL);
	/* Offered on the wire, but not for the driver. */
	assert_int_equal(bf_frontend_set_features(f->front.fe, bf_bit(33)), -EINVAL);
	assert_int_equal(bf_frontend_set_features(f->front.fe, bf_bit(26)), -EINVAL);
	assert_int_equal(bf_frontend_set_features(f->front.fe, bf_bit(30)), -EINVAL);
	assert_int_equal(fake_count(&f->fake, BF_FE_SET_FEATURES), 0);
	assert_int_equal(bf_frontend_set_features(f->front.fe, DRIVER_FEATURES), 0);
	assert_int_equal(fake_nth(&f->fake, BF_FE_SET_FEATURES, 0)->u64,
			 DRIVER_FEATURES | bf_bit(BF_VHOST_USER_F_PROTOCOL_FEATURES));
}

static void queue_numbers_are_bounded(void **state)
{
	static const struct {
		uint64_t answer;
		int ret;
		unsigned nr;
	} cases[] = {
		{ 0, -EPROTO, 0 },      { 1, 0, 1 },       { 256, 0, 256 },
		{ 257, 0, 256 },        { 65535, 0, 256 }, { UINT64_MAX, 0, 256 },
		{ 1ull << 32, 0, 256 },
	};
	struct fixture *f = *state;

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		f->fake.nr_queues = cases[i].answer;
		assert_int_equal(attach(f, 0), cases[i].ret);
		assert_int_equal(bf_frontend_max_queues(f->front.fe), cases[i].nr);
		bf_frontend_detach(f->front.fe);
		fake_stop(&f->fake);
	}
}

/* Without acknowledgements a last question makes sure that all was seen. */
static void a_barrier_stands_in_for_acknowledgements(void **state)
{
	struct fixture *f = *state;
	unsigned nr;

	f->fake.protocol_features &= ~bf_bit(BF_PROTOCOL_F_REPLY_ACK);
	assert_int_equal(attach(f, 0), 0);
	nr = fake_count(&f->fake, BF_FE_GET_FEATURES);
	assert_int_equal(bf_frontend_set_features(f->front.fe, DRIVER_FEATURES), 0);
	assert_int_equal(fake_count(&f->fake, BF_FE_SET_FEATURES), 1);
	assert_int_equal(fake_count(&f->fake, BF_FE_GET_FEATURES), nr + 1);
	assert_false(fake_nth(&f->fake, BF_FE_SET_FEATURES, 0)->flags & BF_FLAGS_NEED_REPLY);
}

/* Half a handshake is none: the next attempt starts afresh, and nobody is told of a loss. */
static void a_refused_handshake_leaves_nothing(void **state)
{
	struct fixture *f = *state;

	f->fake.bad_request = BF_FE_SET_BACKEND_REQ_FD;
	f->fake.misdeed = FAILURE;
	assert_int_equal(attach(f, 0), -EREMOTEIO);
	assert_string_equal(bf_frontend_error(f->front.fe),
			    "the back end refused SET_BACKEND_REQ_FD");
	assert_false(bf_frontend_attached(f->front.fe));
	assert_int_equal(front_dispatch(&f->front), 0);
	assert_int_equal(f->front.nr_lost, 0);
	fake_stop(&f->fake);
	assert_int_equal(attach(f, 0), 0);
}

static void attaching_twice_is_refused(void **state)
{
	struct fixture *f = *state;
	int fds[2];

	assert_int_equal(attach(f, 0), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	assert_int_equal(bf_frontend_attach(f->front.fe, fds[0]), -EALREADY);
	assert_int_equal(fcntl(fds[0], F_GETFD), -1); /* owned, so closed */
	close(fds[1]);
	assert_true(bf_frontend_attached(f->front.fe));
}

static void a_bad_socket_is_an_error(void **state)
{
	struct fixture *f = *state;

	front_init(&f->front, &f->fake, 0, 300);
	assert_int_equal(bf_frontend_attach(f->front.fe, -1), -EBADF);
	assert_true(bf_frontend_attach(f->front.fe, open("/dev/null", O_RDWR | O_CLOEXEC)) < 0);
	assert_false(bf_frontend_attached(f->front.fe));
	assert_string_not_equal(bf_frontend_error(f->front.fe), "");
}

static void losing_the_peer_is_told_once_from_dispatch(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(attach(f, 0), 0);
	fake_stop(&f->fake);
	assert_int_equal(front_dispatch(&f->front), -ENOTCONN);
	assert_int_equal(f->front.nr_lost, 1);
	assert_int_equal(f->front.lost_error, -ENOTCONN);
	assert_false(bf_frontend_attached(f->front.fe));
	assert_int_equal(bf_frontend_features(f->front.fe), 0);
	assert_int_equal(bf_frontend_set_features(f->front.fe, 0), -ENOTCONN);
	assert_int_equal(bf_frontend_dispatch(f->front.fe), 0);
	assert_int_equal(f->front.nr_lost, 1);
	/* And again. */
	assert_int_equal(attach(f, 0), 0);
	assert_int_equal(bf_frontend_set_features(f->front.fe, DRIVER_FEATURES), 0);
}

static void losing_the_peer_in_a_wait_is_told_later(void **state)
{
	struct fixture *f = *state;

	f->fake.bad_request = BF_FE_SET_FEATURES;
	f->fake.misdeed = CLOSE;
	assert_int_equal(attach(f, 0), 0);
	assert_int_equal(bf_frontend_set_features(f->front.fe, 0), -ENOTCONN);
	assert_int_equal(f->front.nr_lost, 0);
	assert_false(bf_frontend_attached(f->front.fe));
	assert_int_equal(front_dispatch(&f->front), -ENOTCONN);
	assert_int_equal(f->front.nr_lost, 1);
}

static void detaching_tells_nobody(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(attach(f, 0), 0);
	bf_frontend_detach(f->front.fe);
	bf_frontend_detach(f->front.fe);
	assert_int_equal(front_dispatch(&f->front), 0);
	assert_int_equal(f->front.nr_lost, 0);
	assert_int_equal(bf_frontend_get_status(f->front.fe), -ENOTCONN);
}

static void free_in_operation(void *opaque, int error)
{
	struct front *front = opaque;

	(void)error;
	bf_frontend_free(front->fe);
	front->fe = NULL;
	front->nr_lost++;
}

static void the_object_may_be_freed_in_disconnected(void **state)
{
	static const struct bf_frontend_ops ops = { .disconnected = free_in_operation };
	struct fixture *f = *state;
	const struct bf_frontend_config config = { .ops = &ops, .opaque = &f->front };
	struct pollfd poll_fd = { .events = POLLIN };

	assert_int_equal(bf_frontend_new(&config, &f->front.fe), 0);
	assert_int_equal(attach(f, 0), 0);
	poll_fd.fd = bf_frontend_fd(f->front.fe);
	fake_stop(&f->fake);
	assert_int_equal(poll(&poll_fd, 1, 2000), 1);
	assert_int_equal(bf_frontend_dispatch(f->front.fe), -ENOTCONN);
	assert_int_equal(f->front.nr_lost, 1);
	assert_null(f->front.fe);
}

static void config_space_and_status(void **state)
{
	struct fixture *f = *state;
	uint8_t bytes[BF_CONFIG_MAX] = { 0 };

	assert_int_equal(attach(f, 0), 0);
	assert_int_equal(bf_frontend_get_config(f->front.fe, 0, bytes, BF_CONFIG_MAX), 0);
	assert_memory_equal(bytes, f->fake.config, BF_CONFIG_MAX);
	assert_int_equal(bf_frontend_get_config(f->front.fe, 3, bytes, 5), 0);
	assert_memory_equal(bytes, f->fake.config + 3, 5);
	assert_int_equal(bf_frontend_get_config(f->front.fe, 0, bytes, BF_CONFIG_MAX + 1), -EINVAL);
	assert_int_equal(bf_frontend_get_config(f->front.fe, 0, bytes, 0), -EINVAL);
	assert_int_equal(bf_frontend_get_config(f->front.fe, UINT32_MAX, bytes, 4), -EINVAL);
	assert_int_equal(bf_frontend_set_config(f->front.fe, 32, "\1", 1), 0);
	assert_int_equal(fake_nth(&f->fake, BF_FE_SET_CONFIG, 0)->u64, 32 | 1ull << 32);
	assert_int_equal(bf_frontend_get_status(f->front.fe), 0xf);
	assert_int_equal(bf_frontend_set_status(f->front.fe, 5), 0);
	assert_int_equal(fake_nth(&f->fake, BF_FE_SET_STATUS, 0)->u64, 5);
	assert_int_equal(bf_frontend_reset_device(f->front.fe), 0);
	assert_int_equal(fake_count(&f->fake, BF_FE_RESET_DEVICE), 1);
}

static void a_storm_of_config_changes_is_one(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(attach(f, 0), 0);
	for (unsigned i = 0; i < 40; i++)
		fake_back_send(&f->fake, BF_BE_CONFIG_CHANGE_MSG, BF_FLAGS_VERSION, NULL, 0, NULL,
			       0);
	/* Inside a wait it is only noted. */
	assert_int_equal(bf_frontend_get_status(f->front.fe), 0xf);
	assert_int_equal(f->front.nr_config, 0);
	assert_int_equal(front_dispatch(&f->front), 0);
	assert_int_equal(f->front.nr_config, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(everything_is_agreed, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_plain_back_end_has_no_protocol_features, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(the_mask_limits_what_is_agreed, set_up, tear_down),
		cmocka_unit_test_setup_teardown(host_notifier_needs_its_companions, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(no_doorbell_operation_no_host_notifier, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(features_outside_the_offer_are_refused, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(queue_numbers_are_bounded, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_barrier_stands_in_for_acknowledgements, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(a_refused_handshake_leaves_nothing, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(attaching_twice_is_refused, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_bad_socket_is_an_error, set_up, tear_down),
		cmocka_unit_test_setup_teardown(losing_the_peer_is_told_once_from_dispatch, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(losing_the_peer_in_a_wait_is_told_later, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(detaching_tells_nobody, set_up, tear_down),
		cmocka_unit_test_setup_teardown(the_object_may_be_freed_in_disconnected, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(config_space_and_status, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_storm_of_config_changes_is_one, set_up,
						tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
