/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * lib/proto/channel.c over a socket pair: framing at every split, descriptors and their owners,
 * output that the socket does not take, replies matched in order, hostile bytes.
 */
#include "../support.h"

#include <poll.h>
#include <sys/uio.h>

#include "base/report.h"
#include "proto/channel.h"

struct fixture {
	struct bf_channel a, b; /* a asks, b answers */
	struct bf_report report;
	struct bf_agreed agreed;
	unsigned fds_before;
};

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	int pair[2];

	assert_non_null(f);
	f->fds_before = count_fds();
	f->agreed.protocol_features = bf_bit(BF_PROTOCOL_F_REPLY_ACK);
	bf_report_init(&f->report, NULL, "test", "");
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(bf_channel_init(&f->a, pair[0], BF_CHANNEL_MAIN, &f->report, &f->agreed), 0);
	assert_int_equal(bf_channel_init(&f->b, pair[1], BF_CHANNEL_MAIN, &f->report, &f->agreed), 0);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	bf_channel_done(&f->a, -ECANCELED);
	bf_channel_done(&f->b, -ECANCELED);
	bf_channel_done(&f->b, -ECANCELED);
	assert_int_equal(count_fds(), f->fds_before);
	free(f);
	return 0;
}

static void send_raw(int fd, const void *bytes, size_t len, unsigned nr_fds)
{
	char control[CMSG_SPACE(16 * sizeof(int))] __attribute__((aligned(8))) = { 0 };
	struct iovec iov = { (void *)bytes, len };
	struct msghdr hdr = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (nr_fds) {
		struct cmsghdr *cmsg = (struct cmsghdr *)control;

		hdr.msg_control = control;
		hdr.msg_controllen = CMSG_SPACE(nr_fds * sizeof(int));
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(nr_fds * sizeof(int)); /* all of them fd 0 */
	}
	assert_int_equal(sendmsg(fd, &hdr, 0), len);
}

/* SET_FEATURES as bytes on the wire: in memory there is padding between header and payload. */
static const struct __attribute__((packed)) {
	struct bf_header hdr;
	uint64_t value;
} set_features = { { BF_FE_SET_FEATURES, BF_FLAGS_VERSION, 8 }, 0x0123456789abcdefull };

static void one_byte_at_a_time(void **state)
{
	struct fixture *f = *state;
	struct bf_msg got;

	for (size_t i = 0; i < 20; i++) {
		assert_int_equal(bf_channel_receive(&f->b, &got), 0);
		send_raw(f->a.fd, (const char *)&set_features + i, 1, i == 0);
	}
	assert_int_equal(bf_channel_receive(&f->b, &got), 1);
	assert_int_equal(got.hdr.size, 8);
	assert_true(got.payload.u64 == 0x0123456789abcdefull);
	assert_int_equal(got.nr_fds, 1);
	bf_msg_close_fds(&got);
	assert_int_equal(bf_channel_receive(&f->b, &got), 0);
}

static void descriptors_stay_with_their_message(void **state)
{
	struct fixture *f = *state;
	struct bf_msg msg, got;

	/* Written back to back before anything is read. */
	for (unsigned i = 0; i < 5; i++) {
		bf_msg_init(&msg, BF_FE_SET_VRING_KICK, 0);
		bf_msg_set_u64(&msg, i);
		for (unsigned n = 0; n < i; n++)
			bf_msg_lend_fd(&msg, 0);
		assert_int_equal(bf_channel_send(&f->a, &msg), 0);
	}
	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(bf_channel_receive(&f->b, &got), 1);
		assert_int_equal(got.payload.u64, i);
		assert_int_equal(got.nr_fds, i);
		if (i == 3) {
			int fd = bf_msg_take_fd(&got, 1);

			assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
			bf_msg_close_fds(&got);
			assert_true(fcntl(fd, F_GETFD) >= 0);
			close(fd);
		}
		bf_msg_close_fds(&got);
	}
}

static void too_many_descriptors(void **state)
{
	struct fixture *f = *state;
	const struct bf_header hdr = { BF_FE_GET_FEATURES, BF_FLAGS_VERSION, 0 };
	struct bf_msg got;

	send_raw(f->a.fd, &hdr, sizeof(hdr), 9);
	assert_int_equal(bf_channel_receive(&f->b, &got), -EPROTO);
	assert_non_null(strstr(f->report.error, "file descriptors"));
}

static void descriptors_in_the_body(void **state)
{
	struct fixture *f = *state;
	struct bf_msg got;

	send_raw(f->a.fd, &set_features, 14, 0);
	send_raw(f->a.fd, (const char *)&set_features + 14, 6, 2);
	assert_int_equal(bf_channel_receive(&f->b, &got), -EPROTO);
}

static void bad_headers(void **state)
{
	struct fixture *f = *state;
	const struct bf_header huge = { 1, BF_FLAGS_VERSION, UINT32_MAX };
	struct bf_msg got;

	send_raw(f->a.fd, &huge, sizeof(huge), 1);
	assert_int_equal(bf_channel_receive(&f->b, &got), -EPROTO);
	assert_non_null(strstr(f->report.error, "size 4294967295"));
}

static void other_version(void **state)
{
	struct fixture *f = *state;
	const struct bf_header hdr = { 1, 2, 0 };
	struct bf_msg got;

	send_raw(f->a.fd, &hdr, sizeof(hdr), 0);
	assert_int_equal(bf_channel_receive(&f->b, &got), -EPROTONOSUPPORT);
}

static void ends(void **state)
{
	struct fixture *f = *state;
	struct bf_msg got;

	bf_channel_done(&f->a, 0);
	assert_int_equal(bf_channel_receive(&f->b, &got), -ECONNRESET);
	assert_int_equal(bf_channel_receive(&f->a, &got), -ENOTCONN);
}

static void end_inside_a_message(void **state)
{
	struct fixture *f = *state;
	struct bf_msg got;

	send_raw(f->a.fd, &set_features, 17, 3);
	bf_channel_done(&f->a, 0);
	assert_int_equal(bf_channel_receive(&f->b, &got), -EPROTO);
	assert_non_null(strstr(f->report.error, "5 of 8"));
}

static void output_waits_and_keeps_order(void **state)
{
	struct fixture *f = *state;
	enum { NR = 1000 };
	struct bf_msg msg, got;
	unsigned received = 0;

	for (unsigned i = 0; i < NR; i++) {
		bf_msg_init(&msg, BF_FE_SET_CONFIG, 0);
		msg.payload.config = (struct bf_config){ .offset = i, .size = 1000 };
		msg.hdr.size = bf_config_wire_size(1000);
		bf_msg_lend_fd(&msg, 0);
		assert_int_equal(bf_channel_send(&f->a, &msg), 0);
	}
	assert_true(bf_channel_wants_write(&f->a));
	while (received < NR) {
		int ret = bf_channel_receive(&f->b, &got);

		assert_in_range(ret, 0, 1);
		if (!ret) {
			ret = bf_channel_flush(&f->a);
			assert_true(ret == 0 || ret == -EAGAIN);
			continue;
		}
		assert_int_equal(got.payload.config.offset, received);
		assert_int_equal(got.nr_fds, 1);
		bf_msg_close_fds(&got);
		received++;
	}
	assert_false(bf_channel_wants_write(&f->a));
	assert_int_equal(f->a.out_bytes, 0);
}

static void a_peer_that_does_not_read(void **state)
{
	struct fixture *f = *state;
	struct bf_msg msg;
	int ret = 0;

	bf_msg_init(&msg, BF_FE_SET_CONFIG, 0);
	msg.payload.config.size = BF_CONFIG_MAX;
	msg.hdr.size = bf_config_wire_size(BF_CONFIG_MAX);
	for (unsigned i = 0; !ret && i < 10000; i++)
		ret = bf_channel_send(&f->a, &msg);
	assert_int_equal(ret, -ENOBUFS);
}

struct answer {
	unsigned calls;
	int result;
	uint64_t value;
	unsigned order;
};
static unsigned order;

static void note(void *opaque, int result, struct bf_msg *reply)
{
	struct answer *answer = opaque;

	answer->calls++;
	answer->result = result;
	answer->value = reply ? reply->payload.u64 : 0;
	answer->order = ++order;
}

static void ask(struct bf_channel *channel, uint32_t request, struct answer *answer)
{
	struct bf_msg msg;

	bf_msg_init(&msg, request, 0);
	if (request == BF_FE_SET_FEATURES)
		bf_msg_set_u64(&msg, 0);
	assert_int_equal(bf_channel_ask(channel, &msg, note, answer), 0);
}

static void pipelined_replies(void **state)
{
	struct fixture *f = *state;
	struct answer answers[3] = { 0 };
	struct bf_msg msg, reply;

	ask(&f->a, BF_FE_GET_FEATURES, &answers[0]);
	ask(&f->a, BF_FE_SET_FEATURES, &answers[1]);
	ask(&f->a, BF_FE_SET_OWNER, &answers[2]);
	assert_int_equal(f->a.nr_pending, 3);

	assert_int_equal(bf_channel_receive(&f->b, &msg), 1);
	bf_msg_init(&reply, 0, 0);
	bf_msg_set_u64(&reply, 77);
	assert_int_equal(bf_channel_reply(&f->b, &msg, &reply), 0);
	assert_int_equal(bf_channel_receive(&f->b, &msg), 1);
	assert_true(msg.hdr.flags & BF_FLAGS_NEED_REPLY);
	assert_int_equal(bf_channel_acknowledge(&f->b, &msg, -EINVAL), 0);
	assert_int_equal(bf_channel_receive(&f->b, &msg), 1);
	assert_int_equal(bf_channel_acknowledge(&f->b, &msg, 0), 0);

	assert_int_equal(bf_channel_dispatch_replies(&f->a), 0);
	assert_int_equal(answers[0].result, 0);
	assert_int_equal(answers[0].value, 77);
	assert_int_equal(answers[1].result, -EREMOTEIO);
	assert_int_equal(answers[2].result, 0);
	assert_true(answers[0].order < answers[1].order && answers[1].order < answers[2].order);
	assert_int_equal(f->a.nr_pending, 0);
}

static void without_reply_ack_nothing_is_awaited(void **state)
{
	struct fixture *f = *state;
	struct answer answer = { 0 };
	struct bf_msg msg;

	f->agreed.protocol_features = 0;
	ask(&f->a, BF_FE_SET_OWNER, &answer);
	assert_int_equal(answer.calls, 1);
	assert_int_equal(answer.result, 0);
	assert_int_equal(bf_channel_receive(&f->b, &msg), 1);
	assert_false(msg.hdr.flags & BF_FLAGS_NEED_REPLY);
	assert_int_equal(bf_channel_acknowledge(&f->b, &msg, 0), 0);
	assert_int_equal(bf_channel_receive(&f->a, &msg), 0);
}

static void wrong_reply(void **state)
{
	struct fixture *f = *state;
	struct answer answer = { 0 };
	struct bf_msg reply;

	ask(&f->a, BF_FE_GET_FEATURES, &answer);
	bf_msg_init(&reply, BF_FE_GET_QUEUE_NUM, BF_FLAGS_REPLY);
	bf_msg_set_u64(&reply, 1);
	bf_msg_lend_fd(&reply, 0);
	assert_int_equal(bf_channel_send(&f->b, &reply), 0);
	assert_int_equal(bf_channel_dispatch_replies(&f->a), -EPROTO);
	assert_int_equal(answer.calls, 0);
	bf_channel_done(&f->a, -EPROTO);
	assert_int_equal(answer.calls, 1);
	assert_int_equal(answer.result, -EPROTO);
}

static void reply_to_nothing(void **state)
{
	struct fixture *f = *state;
	struct bf_msg reply;

	bf_msg_init(&reply, BF_FE_SET_OWNER, BF_FLAGS_REPLY);
	bf_msg_set_u64(&reply, 0);
	assert_int_equal(bf_channel_send(&f->b, &reply), 0);
	assert_int_equal(bf_channel_dispatch_replies(&f->a), -EPROTO);
	assert_non_null(strstr(f->report.error, "nobody asked"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(one_byte_at_a_time),
		TEST(descriptors_stay_with_their_message),
		TEST(too_many_descriptors),
		TEST(descriptors_in_the_body),
		TEST(bad_headers),
		TEST(other_version),
		TEST(ends),
		TEST(end_inside_a_message),
		TEST(output_waits_and_keeps_order),
		TEST(a_peer_that_does_not_read),
		TEST(pipelined_replies),
		TEST(without_reply_ack_nothing_is_awaited),
		TEST(wrong_reply),
		TEST(reply_to_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
