/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A back end that lies: every wrong reply at every request, with the error it must give, on both
 * channels. After each the descriptors of this process are counted.
 */
#include "fake_backend.h"

static int error_of(int ret)
{
	return ret < 0 ? ret : 0;
}

/* Everything a VMM does, in order; ends with the first error. */
static int whole_life(struct front *front, struct guest *guest)
{
	struct bf_vring_setup vrings[2] = { guest_vring(guest, 0), guest_vring(guest, 1) };
	const unsigned queues[] = { 0, 1 };
	uint32_t bases[2];
	uint8_t config[16];
	int ret = bf_frontend_attach(front->fe, front->fake->peer_fd);

	if (!ret)
		ret = bf_frontend_get_config(front->fe, 0, config, sizeof(config));
	if (!ret)
		ret = bf_frontend_set_config(front->fe, 0, config, sizeof(config));
	if (!ret)
		ret = bf_frontend_set_status(front->fe, 3);
	if (!ret)
		ret = bf_frontend_set_features(front->fe, DRIVER_FEATURES);
	if (!ret)
		ret = error_of(bf_frontend_get_status(front->fe));
	if (!ret)
		ret = error_of(bf_frontend_set_memory(front->fe, &guest->region, 1));
	if (!ret)
		ret = bf_frontend_start_vrings(front->fe, vrings, 2);
	if (!ret)
		ret = bf_frontend_stop_vrings(front->fe, queues, 2, bases);
	if (!ret)
		ret = bf_frontend_reset_device(front->fe);
	return ret;
}

static void one_life(uint64_t protocol_features, uint32_t request, enum misdeed misdeed, int nth,
		     int expected)
{
	unsigned before = count_fds();
	struct guest guest;
	struct front front;
	struct fake *fake = calloc(1, sizeof(*fake));
	int ret;

	assert_non_null(fake);
	fake_init(fake);
	fake->protocol_features &= protocol_features;
	fake->bad_request = request;
	fake->misdeed = misdeed;
	fake->bad_nr = nth;
	fake_start(fake);
	guest_init(&guest, 1 << 20);
	front_init(&front, fake, 0, 500);
	ret = whole_life(&front, &guest);
	if (!ret)
		ret = front_dispatch(&front); /* what came too late for the calls */
	if (ret != expected)
		fail_msg("request %u, misdeed %d: %d expected, got %d (%s)", request, misdeed,
			 expected, ret, bf_frontend_error(front.fe));
	if (expected)
		assert_string_not_equal(bf_frontend_error(front.fe), "");
	if (expected == -EREMOTEIO || expected == 0)
		assert_true(bf_frontend_attached(front.fe));
	else
		assert_false(bf_frontend_attached(front.fe));
	bf_frontend_free(front.fe);
	fake_stop(fake);
	guest_done(&guest);
	free(fake);
	assert_int_equal(count_fds(), before);
}

static const uint32_t u64_replies[] = {
	BF_FE_GET_FEATURES,  BF_FE_GET_PROTOCOL_FEATURES,
	BF_FE_GET_QUEUE_NUM, BF_FE_GET_MAX_MEM_SLOTS,
	BF_FE_GET_STATUS,
};

static const uint32_t acknowledged[] = {
	BF_FE_SET_BACKEND_REQ_FD, BF_FE_SET_FEATURES,  BF_FE_SET_CONFIG,     BF_FE_SET_STATUS,
	BF_FE_ADD_MEM_REG,        BF_FE_SET_VRING_NUM, BF_FE_SET_VRING_BASE, BF_FE_SET_VRING_ADDR,
	BF_FE_SET_VRING_CALL,     BF_FE_SET_VRING_ERR, BF_FE_SET_VRING_KICK, BF_FE_SET_VRING_ENABLE,
	BF_FE_RESET_DEVICE,
};

static const struct {
	enum misdeed misdeed;
	int expected;
} misdeeds[] = {
	{ WRONG_REQUEST, -EPROTO },
	{ NO_REPLY_FLAG, -EPROTO },
	{ EXTRA_FLAG, -EPROTO },
	{ VERSION_0, -EPROTONOSUPPORT },
	{ VERSION_2, -EPROTONOSUPPORT },
	{ SIZE_0, -EPROTO },
	{ SIZE_4, -EPROTO },
	{ SIZE_9, -EPROTO },
	{ SIZE_HUGE, -EPROTO },
	{ ONE_FD, -EPROTO },
	{ NINE_FDS, -EPROTO },
	{ TWICE, -EPROTO },
	{ CLOSE, -ENOTCONN },
	{ CLOSE_IN_HEADER, -EPROTO },
	{ CLOSE_IN_BODY, -EPROTO },
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void every_wrong_reply_at_every_question(void **state)
{
	(void)state;
	for (unsigned r = 0; r < COUNT(u64_replies); r++) {
		for (unsigned m = 0; m < COUNT(misdeeds); m++)
			one_life(UINT64_MAX, u64_replies[r], misdeeds[m].misdeed, 0,
				 misdeeds[m].expected);
	}
}

static void every_wrong_acknowledgement(void **state)
{
	(void)state;
	for (unsigned r = 0; r < COUNT(acknowledged); r++) {
		for (unsigned m = 0; m < COUNT(misdeeds); m++)
			one_life(UINT64_MAX, acknowledged[r], misdeeds[m].misdeed, 0,
				 misdeeds[m].expected);
	}
	one_life(~bf_bit(BF_PROTOCOL_F_CONFIGURE_MEM_SLOTS), BF_FE_SET_MEM_TABLE, SIZE_4, 0,
		 -EPROTO);
}

static void a_refusal_leaves_the_connection(void **state)
{
	(void)state;
	for (unsigned r = 1; r < COUNT(acknowledged); r++)
		one_life(UINT64_MAX, acknowledged[r], FAILURE, 0, -EREMOTEIO);
	one_life(~bf_bit(BF_PROTOCOL_F_CONFIGURE_MEM_SLOTS), BF_FE_SET_MEM_TABLE, FAILURE, 0,
		 -EREMOTEIO);
	one_life(UINT64_MAX, BF_FE_SET_VRING_KICK, FAILURE, 1, -EREMOTEIO);
}

static void a_reply_that_does_not_come(void **state)
{
	(void)state;
	one_life(UINT64_MAX, BF_FE_GET_FEATURES, SILENT, 0, -ETIMEDOUT);
	one_life(UINT64_MAX, BF_FE_GET_QUEUE_NUM, SLOW, 0, -ETIMEDOUT);
	one_life(UINT64_MAX, BF_FE_SET_VRING_KICK, SILENT, 1, -EPROTO); /* the next one is there */
	one_life(UINT64_MAX, BF_FE_SET_VRING_ENABLE, SILENT, 1, -ETIMEDOUT);
	one_life(UINT64_MAX, BF_FE_GET_VRING_BASE, SILENT, 1, -ETIMEDOUT);
	one_life(UINT64_MAX, BF_FE_GET_CONFIG, SLOW, 0, -ETIMEDOUT);
}

static void replies_whose_content_is_wrong(void **state)
{
	(void)state;
	one_life(UINT64_MAX, BF_FE_GET_CONFIG, CONFIG_OFFSET, 0, -EPROTO);
	one_life(UINT64_MAX, BF_FE_GET_CONFIG, CONFIG_SIZE, 0, -EPROTO);
	one_life(UINT64_MAX, BF_FE_GET_CONFIG, CONFIG_EMPTY, 0, -EREMOTEIO);
	one_life(UINT64_MAX, BF_FE_GET_CONFIG, SIZE_9, 0, -EPROTO);
	one_life(UINT64_MAX, BF_FE_GET_VRING_BASE, BASE_INDEX, 1, -EPROTO);
	one_life(UINT64_MAX, BF_FE_GET_VRING_BASE, BASE_RANGE, 0, -EPROTO);
	one_life(UINT64_MAX, BF_FE_GET_VRING_BASE, SIZE_4, 0, -EPROTO);
	one_life(UINT64_MAX, BF_FE_GET_FEATURES, NO_MISDEED, 0, 0);
}

struct attached {
	unsigned fds_before;
	struct fake fake;
	struct front front;
};

static int set_up(void **state)
{
	struct attached *a = calloc(1, sizeof(*a));

	assert_non_null(a);
	a->fds_before = count_fds();
	fake_init(&a->fake);
	fake_start(&a->fake);
	front_init(&a->front, &a->fake, 0, 500);
	assert_int_equal(bf_frontend_attach(a->front.fe, a->fake.peer_fd), 0);
	*state = a;
	return 0;
}

static int tear_down(void **state)
{
	struct attached *a = *state;

	bf_frontend_free(a->front.fe);
	fake_stop(&a->fake);
	assert_int_equal(count_fds(), a->fds_before);
	free(a);
	return 0;
}

static void an_unasked_reply_ends_the_connection(void **state)
{
	const uint32_t reply[] = { BF_FE_SET_FEATURES, BF_FLAGS_VERSION | BF_FLAGS_REPLY, 8, 0, 0 };
	struct attached *a = *state;

	send_bytes(a->fake.fd, reply, sizeof(reply), NULL, 0);
	assert_int_equal(front_dispatch(&a->front), -EPROTO);
	assert_int_equal(a->front.nr_lost, 1);
	assert_non_null(strstr(bf_frontend_error(a->front.fe), "nobody asked"));
}

#define REQUEST (BF_FLAGS_VERSION | BF_FLAGS_NEED_REPLY)

/* Refused with an acknowledgement; the connection goes on. */
static void wrong_requests_on_the_back_end_channel_are_refused(void **state)
{
	static const struct {
		uint32_t request, size;
		unsigned nr_fds;
	} cases[] = {
		{ BF_BE_IOTLB_MSG, 32, 0 },
		{ BF_BE_CONFIG_CHANGE_MSG, 8, 0 },
		{ BF_BE_CONFIG_CHANGE_MSG, 0, 1 },
		{ BF_BE_VRING_HOST_NOTIFIER_MSG, 16, 0 },
		{ BF_BE_VRING_HOST_NOTIFIER_MSG, 16, 1 },
		{ BF_BE_VRING_HOST_NOTIFIER_MSG, 32, 8 },
		{ BF_BE_VRING_CALL, 8, 0 },
		{ BF_BE_VRING_ERR, 8, 0 },
		{ BF_BE_SHARED_OBJECT_ADD, 16, 0 },
		{ BF_BE_SHARED_OBJECT_REMOVE, 16, 0 },
		{ BF_BE_SHMEM_MAP, 40, 1 },
		{ BF_BE_SHMEM_UNMAP, 40, 0 },
	};
	struct attached *a = *state;
	const uint8_t payload[64] = { 0 };
	int fds[8];

	for (unsigned i = 0; i < 8; i++)
		fds[i] = a->fake.fd;
	for (unsigned i = 0; i < COUNT(cases); i++) {
		fake_back_send(&a->fake, cases[i].request, REQUEST, payload, cases[i].size, fds,
			       cases[i].nr_fds);
		assert_int_equal(front_dispatch(&a->front), 0);
		assert_int_equal(fake_back_ack(&a->fake), 1);
	}
	/* Ids that do not exist have no reply either. */
	fake_back_send(&a->fake, 0, REQUEST, NULL, 0, NULL, 0);
	fake_back_send(&a->fake, 11, REQUEST, payload, 8, fds, 2);
	fake_back_send(&a->fake, UINT32_MAX, REQUEST, payload, 8, NULL, 0);
	fake_back_send(&a->fake, BF_BE_CONFIG_CHANGE_MSG, REQUEST, NULL, 0, NULL, 0);
	assert_int_equal(front_dispatch(&a->front), 0);
	assert_int_equal(fake_back_ack(&a->fake), 0);
	assert_int_equal(a->front.nr_config, 1);
	assert_true(bf_frontend_attached(a->front.fe));
}

static void a_broken_stream_on_the_back_end_channel(void **state)
{
	static const struct {
		uint32_t hdr[3];
		size_t len;
		unsigned nr_fds;
		int expected;
	} cases[] = {
		{ { BF_BE_CONFIG_CHANGE_MSG, 0, 0 }, 12, 0, -EPROTONOSUPPORT },
		{ { BF_BE_CONFIG_CHANGE_MSG, 2, 0 }, 12, 0, -EPROTONOSUPPORT },
		{ { BF_BE_CONFIG_CHANGE_MSG, 1, UINT32_MAX }, 12, 0, -EPROTO },
		{ { BF_BE_CONFIG_CHANGE_MSG, 1, 0 }, 12, 9, -EPROTO },
	};
	struct attached *a = *state;
	int fds[9];

	for (unsigned i = 0; i < COUNT(cases); i++) {
		for (unsigned n = 0; n < 9; n++)
			fds[n] = a->fake.fd;
		send_bytes(a->fake.back_fd, cases[i].hdr, cases[i].len, fds, cases[i].nr_fds);
		assert_int_equal(front_dispatch(&a->front), cases[i].expected);
		assert_false(bf_frontend_attached(a->front.fe));
		fake_stop(&a->fake);
		fake_start(&a->fake);
		assert_int_equal(bf_frontend_attach(a->front.fe, a->fake.peer_fd), 0);
	}
}

static void the_back_end_may_close_its_channel_alone(void **state)
{
	struct attached *a = *state;

	close(a->fake.back_fd);
	a->fake.back_fd = -1;
	assert_int_equal(front_dispatch(&a->front), 0);
	assert_true(bf_frontend_attached(a->front.fe));
	assert_int_equal(bf_frontend_get_status(a->front.fe), 0xf);
}

/* It asks for acknowledgements and never reads them: bounded, and the end of that connection. */
static void acknowledgements_that_nobody_reads(void **state)
{
	struct attached *a = *state;
	int ret = 0;

	for (unsigned i = 0; !ret && i < 400000; i++) {
		fake_back_send(&a->fake, BF_BE_CONFIG_CHANGE_MSG, REQUEST, NULL, 0, NULL, 0);
		ret = bf_frontend_dispatch(a->front.fe);
	}
	assert_int_equal(ret, -ENOBUFS);
	assert_false(bf_frontend_attached(a->front.fe));
}

/* A stream of requests on one channel must not keep a call from its reply, or from its time limit.
 */
static void *flood(void *opaque)
{
	struct attached *a = opaque;
	uint32_t hdr[3] = { BF_BE_CONFIG_CHANGE_MSG, BF_FLAGS_VERSION, 0 };

	while (send(a->fake.back_fd, hdr, sizeof(hdr), MSG_NOSIGNAL) == sizeof(hdr))
		;
	return NULL;
}

static void a_flood_starves_nothing(void **state)
{
	struct attached *a = *state;
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, flood, a), 0);
	for (unsigned i = 0; i < 50; i++)
		assert_int_equal(bf_frontend_get_status(a->front.fe), 0xf);
	a->fake.bad_request = BF_FE_SET_STATUS;
	a->fake.misdeed = SILENT;
	assert_int_equal(bf_frontend_set_status(a->front.fe, 7), -ETIMEDOUT);
	pthread_join(thread, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_wrong_reply_at_every_question),
		cmocka_unit_test(every_wrong_acknowledgement),
		cmocka_unit_test(a_refusal_leaves_the_connection),
		cmocka_unit_test(a_reply_that_does_not_come),
		cmocka_unit_test(replies_whose_content_is_wrong),
		cmocka_unit_test_setup_teardown(an_unasked_reply_ends_the_connection, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(wrong_requests_on_the_back_end_channel_are_refused,
						set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_broken_stream_on_the_back_end_channel, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(the_back_end_may_close_its_channel_alone, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(acknowledgements_that_nobody_reads, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(a_flood_starves_nothing, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
