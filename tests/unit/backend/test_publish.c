/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Doorbell pages and the back-end channel: what is sent, when the answer counts, and that a kick
 * that fell in between is made up for.
 */
#include "fake_frontend.h"

#define NOTIFIER BF_BE_VRING_HOST_NOTIFIER_MSG

struct notifier {
	struct bf_header hdr;
	struct bf_vring_area area;
	int fd; /* -1: none came */
};

/* The next request on the back-end channel; -EAGAIN if there is none. */
static int next_request(struct peer *peer, struct notifier *request)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov[2] = { { &request->hdr, sizeof(request->hdr) },
				{ &request->area, sizeof(request->area) } };
	struct msghdr hdr = { .msg_iov = iov,
			      .msg_iovlen = 2,
			      .msg_control = control.bytes,
			      .msg_controllen = sizeof(control.bytes) };
	struct cmsghdr *cmsg;
	ssize_t got = recvmsg(peer->back, &hdr, MSG_CMSG_CLOEXEC);

	if (got < 0)
		return -errno;
	assert_int_equal(got, sizeof(request->hdr) + sizeof(request->area));
	assert_int_equal(request->hdr.request, NOTIFIER);
	cmsg = CMSG_FIRSTHDR(&hdr);
	request->fd = -1;
	if (cmsg)
		memcpy(&request->fd, CMSG_DATA(cmsg), sizeof(int));
	return 0;
}

static void answer(struct peer *peer, uint32_t request, uint64_t value)
{
	send_message(peer->back, request, BF_FLAGS_VERSION | BF_FLAGS_REPLY, &value, sizeof(value),
		     NULL, 0);
}

/* A ready front end, a running queue 0, and the page of a device. */
static void begin(struct peer *peer, int *page, int *kick)
{
	*page = make_memfd("bf-page", 8192, 0);
	peer_ready(peer);
	peer->publish_fd = *page;
	start(peer, 0, kick);
	assert_int_equal(peer->publish_ret, 0);
}

static void end(struct peer *peer, int page, int kick)
{
	peer_done(peer);
	close(page);
	close(kick);
}

static void publishes_and_is_answered(void **state)
{
	struct leaks before = leaks_now();
	struct notifier request;
	struct peer peer;
	int page, kick;

	(void)state;
	begin(&peer, &page, &kick);
	assert_int_equal(next_request(&peer, &request), 0);
	assert_int_equal(request.hdr.flags, NEED_REPLY);
	assert_int_equal(request.area.index, 0);
	assert_int_equal(request.area.size, sysconf(_SC_PAGESIZE));
	assert_int_equal(request.area.offset, 0);
	assert_true(request.fd >= 0);
	close(request.fd);
	/* No answer yet: no result, and no kick made up. */
	assert_int_equal(bf_backend_dispatch(peer.be), 0);
	assert_int_equal(peer.results, 0);
	assert_int_equal(signals(kick), 0);

	answer(&peer, NOTIFIER, 0);
	assert_int_equal(bf_backend_dispatch(peer.be), 0);
	assert_int_equal(peer.results, 1);
	assert_int_equal(peer.last_result, 0);
	assert_int_equal(signals(kick), 1);

	/* Another page instead, which is refused: also then a kick may have been missed. */
	assert_int_equal(bf_backend_publish_doorbell(peer.be, 0, page, 4096), 0);
	assert_int_equal(next_request(&peer, &request), 0);
	assert_int_equal(request.area.offset, 4096);
	close(request.fd);
	answer(&peer, NOTIFIER, 1);
	assert_int_equal(bf_backend_dispatch(peer.be), 0);
	assert_int_equal(peer.results, 2);
	assert_int_equal(peer.last_result, -EREMOTEIO);
	assert_true(peer.last_published);
	assert_int_equal(signals(kick), 1);

	assert_int_equal(bf_backend_withdraw_doorbell(peer.be, 0), 0);
	assert_int_equal(next_request(&peer, &request), 0);
	assert_int_equal(request.area.index, BF_VRING_NOFD);
	assert_int_equal(request.fd, -1);
	answer(&peer, NOTIFIER, 0);
	assert_int_equal(bf_backend_dispatch(peer.be), 0);
	assert_int_equal(peer.results, 3);
	assert_false(peer.last_published);
	assert_int_equal(signals(kick), 1);
	end(&peer, page, kick);
	assert_no_leaks(before, "publish");
}

static void refuses_what_makes_no_sense(void **state)
{
	struct peer peer;
	int page, kick;

	(void)state;
	begin(&peer, &page, &kick);
	assert_int_equal(bf_backend_publish_doorbell(peer.be, 0, page, 100), -EINVAL);
	assert_int_equal(bf_backend_publish_doorbell(peer.be, 0, -1, 0), -EINVAL);
	assert_int_equal(bf_backend_publish_doorbell(peer.be, 1, page, 0), -EINVAL);
	assert_int_equal(bf_backend_publish_doorbell(peer.be, QUEUES, page, 0), -EINVAL);
	assert_int_equal(bf_backend_publish_doorbell(peer.be, 256, page, 0), -EINVAL);
	assert_int_equal(bf_backend_withdraw_doorbell(peer.be, 1), -EINVAL);
	bf_backend_detach(peer.be);
	assert_int_equal(bf_backend_publish_doorbell(peer.be, 0, page, 0), -ENOTCONN);
	assert_int_equal(bf_backend_config_changed(peer.be), -ENOTCONN);
	end(&peer, page, kick);
}

/* All queues are on their way together; answers come in the order of the requests. */
static void queues_are_pipelined(void **state)
{
	struct notifier request;
	struct peer peer;
	int page, kick;

	(void)state;
	begin(&peer, &page, &kick);
	for (unsigned i = 1; i < QUEUES; i++)
		start(&peer, i, NULL);
	for (unsigned i = 0; i < QUEUES; i++) {
		assert_int_equal(next_request(&peer, &request), 0);
		assert_int_equal(request.area.index, i);
		close(request.fd);
	}
	for (unsigned i = 0; i < QUEUES; i++)
		answer(&peer, NOTIFIER, i == 2);
	assert_int_equal(bf_backend_dispatch(peer.be), 0);
	assert_int_equal(peer.results, QUEUES);
	assert_int_equal(peer.last_queue, QUEUES - 1);
	end(&peer, page, kick);
}

/* The front end may ask while it owes an answer: nothing nests, nothing waits. */
static void late_answers_are_dropped(void **state)
{
	struct notifier request;
	struct peer peer;
	int page, kick;

	(void)state;
	begin(&peer, &page, &kick);
	assert_int_equal(get_base(&peer, 0), 0);
	answer(&peer, NOTIFIER, 0);
	assert_int_equal(bf_backend_dispatch(peer.be), 0);
	assert_int_equal(peer.results, 0);
	close(kick);

	/* Stopped and started again in between: only the second answer is about this run. */
	assert_int_equal(next_request(&peer, &request), 0);
	close(request.fd);
	start(&peer, 0, &kick);
	assert_int_equal(get_base(&peer, 0), 0);
	close(kick);
	start(&peer, 0, &kick);
	answer(&peer, NOTIFIER, 0);
	assert_int_equal(bf_backend_dispatch(peer.be), 0);
	assert_int_equal(peer.results, 0);
	assert_int_equal(signals(kick), 0);
	answer(&peer, NOTIFIER, 1);
	assert_int_equal(bf_backend_dispatch(peer.be), 0);
	assert_int_equal(peer.results, 1);
	assert_int_equal(peer.last_result, -EREMOTEIO);
	assert_int_equal(signals(kick), 1);
	end(&peer, page, kick);
}

/* Another kick eventfd: for that one a queue thread is stopped and started. */
static void restart(struct peer *peer)
{
	unsigned stops = peer->stops;

	assert_int_equal(say_eventfd(peer, BF_FE_SET_VRING_KICK, 0, NULL), ACCEPTED);
	assert_int_equal(peer->stops, stops + 1);
}

/* Stopped behind the front end's back, and not published again: taken back. */
static void a_page_nobody_looks_at_is_withdrawn(void **state)
{
	struct notifier request;
	struct peer peer;
	int page, kick;

	(void)state;
	begin(&peer, &page, &kick);
	assert_int_equal(next_request(&peer, &request), 0);
	close(request.fd);
	answer(&peer, NOTIFIER, 0);
	bf_backend_dispatch(peer.be);
	/* A change of memory is none of its business. */
	assert_int_equal(say_memory(&peer, -1, MEMORY_SIZE), ACCEPTED);
	assert_int_equal(next_request(&peer, &request), -EAGAIN);
	/* Published again at each start: it is replaced. */
	restart(&peer);
	assert_int_equal(next_request(&peer, &request), 0);
	assert_true(request.fd >= 0);
	close(request.fd);
	answer(&peer, NOTIFIER, 0);
	assert_int_equal(next_request(&peer, &request), -EAGAIN);

	peer.publish_fd = -1;
	restart(&peer);
	assert_int_equal(next_request(&peer, &request), 0);
	assert_int_equal(request.area.index, BF_VRING_NOFD);
	answer(&peer, NOTIFIER, 0);
	/* Not twice, and not after a stop that the front end asked for. */
	restart(&peer);
	assert_int_equal(next_request(&peer, &request), -EAGAIN);
	end(&peer, page, kick);
}

static void only_if_agreed(void **state)
{
	const uint64_t all = bf_backend_supported_protocol_features();
	const unsigned needed[] = { BF_PROTOCOL_F_HOST_NOTIFIER, BF_PROTOCOL_F_BACKEND_SEND_FD,
				    BF_PROTOCOL_F_BACKEND_REQ };
	int page = make_memfd("bf-page", 4096, 0);

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		struct peer peer;

		peer_init(&peer, i < 3 ? all & ~bf_bit(needed[i]) : all);
		agree(&peer);
		if (i < 2)
			open_back(&peer);
		assert_int_equal(say_memory(&peer, -1, MEMORY_SIZE), ACCEPTED);
		peer.publish_fd = page;
		start(&peer, 0, NULL);
		assert_int_equal(peer.publish_ret, -EOPNOTSUPP);
		peer_done(&peer);
	}
	close(page);
}

/* Without acknowledgements there is no answer to wait for. */
static void without_reply_ack(void **state)
{
	const uint64_t without =
		OFFERED & ~bf_bit(BF_PROTOCOL_F_REPLY_ACK);
	struct notifier request;
	struct peer peer;
	int page, kick;

	(void)state;
	page = make_memfd("bf-page", 4096, 0);
	peer_ready(&peer);
	peer.publish_fd = page;
	set_up(&peer, 0);
	assert_int_equal(say_eventfd(&peer, BF_FE_SET_VRING_KICK, 0, &kick), ACCEPTED);
	assert_int_equal(say_u64(&peer, BF_FE_SET_PROTOCOL_FEATURES, without), SILENT);
	assert_int_equal(say_state(&peer, BF_FE_SET_VRING_ENABLE, 0, 1), SILENT);
	assert_true(peer.running[0]);
	assert_int_equal(peer.publish_ret, 0);
	assert_int_equal(peer.results, 1);
	assert_int_equal(peer.last_result, 0);
	assert_int_equal(signals(kick), 1);
	assert_int_equal(next_request(&peer, &request), 0);
	assert_int_equal(request.hdr.flags, BF_FLAGS_VERSION);
	close(request.fd);
	end(&peer, page, kick);
}

/* The front end closes the channel: what was asked fails, the connection goes on. */
static void the_channel_goes_away(void **state)
{
	struct peer peer;
	int page, kick;

	(void)state;
	begin(&peer, &page, &kick);
	close(peer.back);
	peer.back = -1;
	assert_int_equal(bf_backend_dispatch(peer.be), 0);
	assert_true(bf_backend_attached(peer.be));
	assert_int_equal(peer.results, 1);
	assert_int_equal(peer.last_result, -ECONNRESET);
	assert_int_equal(signals(kick), 1);
	assert_int_equal(bf_backend_publish_doorbell(peer.be, 0, page, 0), -EOPNOTSUPP);
	assert_true(peer.running[0]);
	/* A new one: it works again. */
	open_back(&peer);
	assert_int_equal(bf_backend_publish_doorbell(peer.be, 0, page, 0), 0);
	/* And one in its place: the same. */
	open_back(&peer);
	assert_int_equal(peer.results, 2);
	assert_int_equal(bf_backend_publish_doorbell(peer.be, 0, page, 0), 0);
	end(&peer, page, kick);
}

static void answers_that_make_no_sense(void **state)
{
	struct leaks before = leaks_now();

	(void)state;
	for (unsigned i = 0; i < 5; i++) {
		const uint64_t values[2] = { 0 };
		struct peer peer;
		int page, kick;

		begin(&peer, &page, &kick);
		switch (i) {
		case 0: /* to another request */
			answer(&peer, BF_BE_CONFIG_CHANGE_MSG, 0);
			break;
		case 1: /* not a reply */
			send_message(peer.back, NOTIFIER, BF_FLAGS_VERSION, values, 8, NULL, 0);
			break;
		case 2: /* size */
			send_message(peer.back, NOTIFIER, 5, values, 16, NULL, 0);
			break;
		case 3: /* nobody asked */
			answer(&peer, NOTIFIER, 0);
			answer(&peer, NOTIFIER, 0);
			break;
		case 4: /* a descriptor */
			send_message(peer.back, NOTIFIER, 5, values, 8, &page, 1);
			break;
		}
		assert_int_equal(bf_backend_dispatch(peer.be), -EPROTO);
		assert_int_equal(peer.ended, 1);
		assert_int_equal(peer.end_error, -EPROTO);
		end(&peer, page, kick);
	}
	assert_no_leaks(before, "bad answers");
}

/* CVE-2019-14818's kin: stop and start for ever, and never answer. */
static void a_front_end_that_never_answers(void **state)
{
	struct notifier request;
	struct peer peer;
	int page, kick;

	(void)state;
	begin(&peer, &page, &kick);
	for (unsigned i = 0; i < 2000; i++) {
		while (next_request(&peer, &request) == 0)
			close(request.fd);
		assert_int_equal(say_state(&peer, BF_FE_SET_VRING_ENABLE, 0, 0), ACCEPTED);
		assert_int_equal(say_state(&peer, BF_FE_SET_VRING_ENABLE, 0, 1), ACCEPTED);
	}
	assert_int_equal(peer.publish_ret, -ENOBUFS);
	end(&peer, page, kick);
}

static bool told_of_config(struct peer *peer)
{
	struct bf_header hdr;
	ssize_t got = read(peer->back, &hdr, sizeof(hdr));

	if (got < 0)
		return false;
	assert_int_equal(got, sizeof(hdr));
	assert_int_equal(hdr.request, BF_BE_CONFIG_CHANGE_MSG);
	assert_int_equal(hdr.size, 0);
	answer(peer, BF_BE_CONFIG_CHANGE_MSG, 0);
	assert_int_equal(bf_backend_dispatch(peer->be), 0);
	return true;
}

/* While all rings are stopped the front end is left alone. */
static void config_changes(void **state)
{
	struct peer peer;

	(void)state;
	peer_init(&peer, 0);
	agree(&peer);
	assert_int_equal(bf_backend_config_changed(peer.be), -EOPNOTSUPP);
	open_back(&peer);
	assert_int_equal(say_memory(&peer, -1, MEMORY_SIZE), ACCEPTED);
	assert_int_equal(bf_backend_config_changed(peer.be), 0);
	assert_int_equal(bf_backend_config_changed(peer.be), 0);
	assert_false(told_of_config(&peer));
	start(&peer, 0, NULL);
	assert_true(told_of_config(&peer));
	assert_false(told_of_config(&peer));
	assert_int_equal(bf_backend_config_changed(peer.be), 0);
	assert_true(told_of_config(&peer));
	peer_done(&peer);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(publishes_and_is_answered),
		cmocka_unit_test(refuses_what_makes_no_sense),
		cmocka_unit_test(queues_are_pipelined),
		cmocka_unit_test(late_answers_are_dropped),
		cmocka_unit_test(a_page_nobody_looks_at_is_withdrawn),
		cmocka_unit_test(only_if_agreed),
		cmocka_unit_test(without_reply_ack),
		cmocka_unit_test(the_channel_goes_away),
		cmocka_unit_test(answers_that_make_no_sense),
		cmocka_unit_test(a_front_end_that_never_answers),
		cmocka_unit_test(config_changes),
	};

	return cmocka_run_group_tests_name("publish", tests, NULL, NULL);
}
