/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * lib/proto/codec.c and messages.def: the table is complete, and every request is refused with every
 * wrong size, flag and number of descriptors, and without its agreement.
 */
#include "../support.h"

#include <linux/virtio_config.h>
#include <linux/virtio_net.h>

#include "proto/message.h"

/* Everything that can be agreed at once (postcopy and memory slots exclude one another). */
static struct bf_agreed everything(void)
{
	return (struct bf_agreed){
		.protocol_offered = true,
		.protocol_acknowledged = true,
		.features = bf_bit(VIRTIO_F_ACCESS_PLATFORM) | bf_bit(VIRTIO_NET_F_MTU),
		.protocol_features = (bf_bit(BF_PROTOCOL_F_NR) - 1) & ~bf_bit(BF_PROTOCOL_F_XEN_MMAP),
	};
}

static struct bf_agreed agreed_for(enum bf_channel_kind channel, uint32_t request)
{
	struct bf_agreed agreed = everything();

	if (bf_msg_desc(channel, request)->gate == BF_GATE_POSTCOPY)
		agreed.protocol_features &= ~bf_bit(BF_PROTOCOL_F_CONFIGURE_MEM_SLOTS);
	return agreed;
}

/* A message that is right, for any request. */
static void make_right(enum bf_channel_kind channel, uint32_t request, struct bf_msg *msg)
{
	const struct bf_msg_desc *desc = bf_msg_desc(channel, request);
	static const uint32_t sizes[] = {
		[BF_PAYLOAD_NONE] = 0,      [BF_PAYLOAD_U64] = 8,
		[BF_PAYLOAD_VRING_FD] = 8,  [BF_PAYLOAD_STATE] = 8,
		[BF_PAYLOAD_ADDR] = 40,     [BF_PAYLOAD_TABLE] = 8 + 2 * 32,
		[BF_PAYLOAD_REG] = 40,      [BF_PAYLOAD_LOG] = 16,
		[BF_PAYLOAD_LOG_REPLY] = 8, [BF_PAYLOAD_IOTLB] = 32,
		[BF_PAYLOAD_CONFIG] = 12 + 60, [BF_PAYLOAD_INFLIGHT] = 24,
		[BF_PAYLOAD_AREA] = 24,     [BF_PAYLOAD_SESSION] = 632,
		[BF_PAYLOAD_UUID] = 16,     [BF_PAYLOAD_DEVICE_STATE] = 8,
		[BF_PAYLOAD_SHMEM_CONFIG] = 2056, [BF_PAYLOAD_SHMEM_MAP] = 40,
		[BF_PAYLOAD_INFLIGHT_ASK] = 24,
	};

	bf_msg_init(msg, request, 0);
	msg->hdr.size = sizes[desc->payload];
	msg->nr_fds = desc->min_fds;
	switch (desc->payload) {
	case BF_PAYLOAD_TABLE:
		msg->payload.table.nr = 2;
		msg->nr_fds = 2;
		break;
	case BF_PAYLOAD_CONFIG:
		msg->payload.config.size = 60;
		break;
	case BF_PAYLOAD_VRING_FD:
	case BF_PAYLOAD_AREA:
	case BF_PAYLOAD_LOG:
		msg->nr_fds = 1;
		break;
	default:
		break;
	}
}

static bool device_only(enum bf_channel_kind channel, uint32_t request)
{
	return bf_msg_desc(channel, request)->gate == BF_GATE_DEVICE;
}

#define FOR_EACH_REQUEST(channel, request)                                                         \
	for (int channel = BF_CHANNEL_MAIN; channel <= BF_CHANNEL_BACK; channel++)                 \
		for (uint32_t request = 1; request < bf_msg_end(channel); request++)

static void table_is_complete(void **state)
{
	(void)state;
	assert_int_equal(bf_msg_end(BF_CHANNEL_MAIN), 46);
	assert_int_equal(bf_msg_end(BF_CHANNEL_BACK), 11);
	FOR_EACH_REQUEST(channel, request)
		assert_non_null(bf_msg_desc(channel, request));
	assert_null(bf_msg_desc(BF_CHANNEL_MAIN, 0));
	assert_null(bf_msg_desc(BF_CHANNEL_MAIN, 46));
	assert_null(bf_msg_desc(BF_CHANNEL_BACK, 11));
	assert_null(bf_msg_desc(BF_CHANNEL_MAIN, UINT32_MAX));
	assert_string_equal(bf_msg_name(BF_CHANNEL_MAIN, 45), "GET_VRING_BASE_SKIP_DRAIN");
	assert_string_equal(bf_msg_name(BF_CHANNEL_BACK, 3), "VRING_HOST_NOTIFIER_MSG");
	for (unsigned bit = 0; bit < BF_PROTOCOL_F_NR; bit++)
		assert_non_null(bf_protocol_feature_name(bit));
	assert_null(bf_protocol_feature_name(BF_PROTOCOL_F_NR));
}

static void right_ones_pass(void **state)
{
	(void)state;
	FOR_EACH_REQUEST(channel, request) {
		struct bf_agreed agreed = agreed_for(channel, request);
		struct bf_msg msg;
		int expected = device_only(channel, request) ? -EOPNOTSUPP : 0;

		make_right(channel, request, &msg);
		assert_int_equal(bf_request_check(channel, &msg, &agreed, NULL), expected);
		msg.hdr.flags |= BF_FLAGS_NEED_REPLY;
		assert_int_equal(bf_request_check(channel, &msg, &agreed, NULL), expected);
	}
}

static bool size_may_vary(const struct bf_msg_desc *desc, uint32_t size)
{
	return desc->payload == BF_PAYLOAD_SESSION ? size >= 8 && size <= 4096 :
	       desc->payload == BF_PAYLOAD_INFLIGHT ? size == 20 || size == 24 :
	       desc->payload == BF_PAYLOAD_INFLIGHT_ASK ? !size || size == 20 || size == 24 :
							 false;
}

static void every_wrong_size_is_refused(void **state)
{
	unsigned cells = 0;

	(void)state;
	FOR_EACH_REQUEST(channel, request) {
		const struct bf_msg_desc *desc = bf_msg_desc(channel, request);
		struct bf_agreed agreed = agreed_for(channel, request);
		struct bf_msg msg;
		uint32_t right;

		make_right(channel, request, &msg);
		right = msg.hdr.size;
		for (uint32_t size = 0; size <= 700; size++) {
			if (size == right || size_may_vary(desc, size))
				continue;
			msg.hdr.size = size;
			assert_int_equal(bf_request_check(channel, &msg, &agreed, NULL), -EBADMSG);
			cells++;
		}
	}
	assert_true(cells > 35000);
}

static void every_wrong_number_of_fds_is_refused(void **state)
{
	(void)state;
	FOR_EACH_REQUEST(channel, request) {
		struct bf_agreed agreed = agreed_for(channel, request);
		struct bf_msg msg;
		unsigned right;

		make_right(channel, request, &msg);
		right = msg.nr_fds;
		for (unsigned nr = 0; nr <= BF_MAX_FDS; nr++) {
			bool tolerated = channel == BF_CHANNEL_MAIN &&
					 request == BF_FE_REM_MEM_REG && nr <= 1;

			if (nr == right || tolerated)
				continue;
			msg.nr_fds = nr;
			assert_int_equal(bf_request_check(channel, &msg, &agreed, NULL), -EBADF);
		}
	}
}

static void descriptors_follow_the_content(void **state)
{
	struct bf_agreed agreed = everything();
	struct bf_msg msg;

	(void)state;
	make_right(BF_CHANNEL_MAIN, BF_FE_SET_VRING_KICK, &msg);
	msg.payload.u64 = 3 | BF_VRING_NOFD;
	assert_int_equal(bf_request_check(BF_CHANNEL_MAIN, &msg, &agreed, NULL), -EBADF);
	msg.nr_fds = 0;
	assert_int_equal(bf_request_check(BF_CHANNEL_MAIN, &msg, &agreed, NULL), 0);
	msg.payload.u64 = 3;
	assert_int_equal(bf_request_check(BF_CHANNEL_MAIN, &msg, &agreed, NULL), -EBADF);

	make_right(BF_CHANNEL_BACK, BF_BE_VRING_HOST_NOTIFIER_MSG, &msg);
	msg.payload.area.index = BF_VRING_NOFD;
	assert_int_equal(bf_request_check(BF_CHANNEL_BACK, &msg, &agreed, NULL), -EBADF);
	msg.nr_fds = 0;
	assert_int_equal(bf_request_check(BF_CHANNEL_BACK, &msg, &agreed, NULL), 0);

	make_right(BF_CHANNEL_MAIN, BF_FE_SET_MEM_TABLE, &msg);
	msg.payload.table.nr = 9;
	msg.hdr.size = bf_table_wire_size(9);
	assert_int_equal(bf_request_check(BF_CHANNEL_MAIN, &msg, &agreed, NULL), -EBADMSG);
	msg.payload.table.nr = UINT32_MAX;
	assert_int_equal(bf_request_check(BF_CHANNEL_MAIN, &msg, &agreed, NULL), -EBADMSG);

	make_right(BF_CHANNEL_MAIN, BF_FE_GET_CONFIG, &msg);
	msg.payload.config.size = BF_CONFIG_MAX + 1;
	msg.hdr.size = bf_config_wire_size(BF_CONFIG_MAX + 1);
	assert_int_equal(bf_request_check(BF_CHANNEL_MAIN, &msg, &agreed, NULL), -EBADMSG);
	msg.payload.config.size = 61;
	msg.hdr.size = bf_config_wire_size(60);
	assert_int_equal(bf_request_check(BF_CHANNEL_MAIN, &msg, &agreed, NULL), -EBADMSG);
}

static void xen_regions_are_longer(void **state)
{
	struct bf_agreed agreed = everything();
	struct bf_msg msg;

	(void)state;
	agreed.protocol_features |= bf_bit(BF_PROTOCOL_F_XEN_MMAP);
	make_right(BF_CHANNEL_MAIN, BF_FE_SET_MEM_TABLE, &msg);
	assert_int_equal(bf_request_check(BF_CHANNEL_MAIN, &msg, &agreed, NULL), -EBADMSG);
	msg.hdr.size = 8 + 2 * sizeof(struct bf_xen_region);
	assert_int_equal(bf_request_check(BF_CHANNEL_MAIN, &msg, &agreed, NULL), 0);
	make_right(BF_CHANNEL_MAIN, BF_FE_ADD_MEM_REG, &msg);
	msg.hdr.size = sizeof(struct bf_xen_reg);
	assert_int_equal(bf_request_check(BF_CHANNEL_MAIN, &msg, &agreed, NULL), 0);
}

static void nothing_passes_without_its_agreement(void **state)
{
	const struct bf_agreed nothing = { 0 };

	(void)state;
	FOR_EACH_REQUEST(channel, request) {
		const struct bf_msg_desc *desc = bf_msg_desc(channel, request);
		struct bf_msg msg;
		int expected = desc->gate == BF_GATE_NONE ? 0 : -EOPNOTSUPP;

		make_right(channel, request, &msg);
		if (desc->payload == BF_PAYLOAD_LOG) { /* without LOG_SHMFD: a bare u64 */
			msg.hdr.size = 8;
			msg.nr_fds = 0;
		}
		assert_int_equal(bf_request_check(channel, &msg, &nothing, NULL), expected);
	}
}

static void gates(void **state)
{
	struct bf_agreed agreed = everything();
	struct bf_msg msg;

	(void)state;
	make_right(BF_CHANNEL_MAIN, BF_FE_POSTCOPY_ADVISE, &msg);
	assert_int_equal(bf_request_check(BF_CHANNEL_MAIN, &msg, &agreed, NULL), -EOPNOTSUPP);

	make_right(BF_CHANNEL_MAIN, BF_FE_NET_SET_MTU, &msg);
	assert_int_equal(bf_request_check(BF_CHANNEL_MAIN, &msg, &agreed, NULL), 0);
	/* QEMU sends it before SET_FEATURES, so that the virtio feature cannot be asked for here. */
	agreed.features = 0;
	assert_int_equal(bf_request_check(BF_CHANNEL_MAIN, &msg, &agreed, NULL), 0);
	agreed.protocol_features &= ~bf_bit(BF_PROTOCOL_F_MTU);
	assert_int_equal(bf_request_check(BF_CHANNEL_MAIN, &msg, &agreed, NULL), -EOPNOTSUPP);

	/* A.5 rule 4: offered is enough to ask, enabling needs the acknowledgement. */
	agreed = (struct bf_agreed){ .protocol_offered = true };
	make_right(BF_CHANNEL_MAIN, BF_FE_GET_PROTOCOL_FEATURES, &msg);
	assert_int_equal(bf_request_check(BF_CHANNEL_MAIN, &msg, &agreed, NULL), 0);
	make_right(BF_CHANNEL_MAIN, BF_FE_SET_VRING_ENABLE, &msg);
	assert_int_equal(bf_request_check(BF_CHANNEL_MAIN, &msg, &agreed, NULL), -EOPNOTSUPP);
}

static void headers(void **state)
{
	const char *why = NULL;

	(void)state;
	for (uint32_t version = 0; version < 4; version++) {
		struct bf_header hdr = { 1, version, 0 };

		assert_int_equal(bf_header_check(&hdr, &why), version == 1 ? 0 : -EPROTONOSUPPORT);
	}
	assert_int_equal(bf_header_check(&(struct bf_header){ 1, 1, BF_PAYLOAD_MAX }, &why), 0);
	assert_int_equal(bf_header_check(&(struct bf_header){ 1, 1, BF_PAYLOAD_MAX + 1 }, &why), -EBADMSG);
	assert_int_equal(bf_header_check(&(struct bf_header){ 1, 1, UINT32_MAX }, &why), -EBADMSG);
	assert_non_null(why);
}

static void request_flags(void **state)
{
	struct bf_agreed agreed = everything();
	struct bf_msg msg;

	(void)state;
	for (unsigned bit = 2; bit < 32; bit++) {
		make_right(BF_CHANNEL_MAIN, BF_FE_GET_FEATURES, &msg);
		msg.hdr.flags |= 1u << bit;
		assert_int_equal(bf_request_check(BF_CHANNEL_MAIN, &msg, &agreed, NULL),
				 bit == 3 ? 0 : -EBADMSG);
	}
	bf_msg_init(&msg, 46, 0);
	assert_int_equal(bf_request_check(BF_CHANNEL_MAIN, &msg, &agreed, NULL), -ENOMSG);
	bf_msg_init(&msg, 0, 0);
	assert_int_equal(bf_request_check(BF_CHANNEL_BACK, &msg, &agreed, NULL), -ENOMSG);
}

static void replies(void **state)
{
	struct bf_agreed agreed = everything();
	struct bf_msg reply;

	(void)state;
	bf_msg_init(&reply, BF_FE_GET_FEATURES, BF_FLAGS_REPLY);
	bf_msg_set_u64(&reply, 1);
#define CHECK(request) bf_reply_check(BF_CHANNEL_MAIN, request, &reply, &agreed, NULL)
	assert_int_equal(CHECK(BF_FE_GET_FEATURES), 0);
	assert_int_equal(CHECK(BF_FE_GET_QUEUE_NUM), -EBADMSG);
	reply.hdr.flags = BF_FLAGS_VERSION;
	assert_int_equal(CHECK(BF_FE_GET_FEATURES), -EBADMSG);
	reply.hdr.flags = BF_FLAGS_VERSION | BF_FLAGS_REPLY | BF_FLAGS_NEED_REPLY;
	assert_int_equal(CHECK(BF_FE_GET_FEATURES), -EBADMSG);
	reply.hdr.flags = BF_FLAGS_VERSION | BF_FLAGS_REPLY;
	reply.hdr.size = 4;
	assert_int_equal(CHECK(BF_FE_GET_FEATURES), -EBADMSG);
	reply.hdr.size = 8;
	reply.nr_fds = 1;
	assert_int_equal(CHECK(BF_FE_GET_FEATURES), -EBADF);

	/* A.5 rule 8: the reply to SET_LOG_BASE is anything up to a u64. */
	bf_msg_init(&reply, BF_FE_SET_LOG_BASE, BF_FLAGS_REPLY);
	for (uint32_t size = 0; size <= 8; size++) {
		reply.hdr.size = size;
		assert_int_equal(CHECK(BF_FE_SET_LOG_BASE), 0);
	}
	/* "zero-length payload = error" is a legal answer to GET_CONFIG. */
	bf_msg_init(&reply, BF_FE_GET_CONFIG, BF_FLAGS_REPLY);
	assert_int_equal(CHECK(BF_FE_GET_CONFIG), 0);
	reply.hdr.size = 4;
	assert_int_equal(CHECK(BF_FE_GET_CONFIG), -EBADMSG);
#undef CHECK
}

static void who_gets_a_reply(void **state)
{
	struct bf_agreed agreed = { 0 };
	struct bf_header set = { BF_FE_SET_OWNER, BF_FLAGS_VERSION, 0 };
	struct bf_header get = { BF_FE_GET_FEATURES, BF_FLAGS_VERSION, 0 };
	struct bf_header log = { BF_FE_SET_LOG_BASE, BF_FLAGS_VERSION, 16 };

	(void)state;
	assert_true(bf_reply_expected(BF_CHANNEL_MAIN, &get, &agreed));
	set.flags |= BF_FLAGS_NEED_REPLY;
	assert_false(bf_reply_expected(BF_CHANNEL_MAIN, &set, &agreed));
	assert_false(bf_reply_expected(BF_CHANNEL_MAIN, &log, &agreed));
	agreed.protocol_features = bf_bit(BF_PROTOCOL_F_REPLY_ACK);
	assert_true(bf_reply_expected(BF_CHANNEL_MAIN, &set, &agreed));
	set.flags = BF_FLAGS_VERSION;
	assert_false(bf_reply_expected(BF_CHANNEL_MAIN, &set, &agreed));
	agreed.protocol_features = bf_bit(BF_PROTOCOL_F_LOG_SHMFD);
	assert_true(bf_reply_expected(BF_CHANNEL_MAIN, &log, &agreed));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(table_is_complete),
		cmocka_unit_test(right_ones_pass),
		cmocka_unit_test(every_wrong_size_is_refused),
		cmocka_unit_test(every_wrong_number_of_fds_is_refused),
		cmocka_unit_test(descriptors_follow_the_content),
		cmocka_unit_test(xen_regions_are_longer),
		cmocka_unit_test(nothing_passes_without_its_agreement),
		cmocka_unit_test(gates),
		cmocka_unit_test(headers),
		cmocka_unit_test(request_flags),
		cmocka_unit_test(replies),
		cmocka_unit_test(who_gets_a_reply),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
