/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The in-flight region as a message: made, brought back, and what a successor does with it. What is
 * stored there, store by store, is tested in tests/unit/virtq.
 */
#include "load.h"

#include <linux/virtio_config.h>

#define PACKED_FEATURES (LOAD_FEATURES | bf_bit(VIRTIO_F_RING_PACKED))

/* The reply to GET_INFLIGHT_FD; the descriptor, or -1 none came. */
static int get_inflight(struct peer *peer, uint16_t queues, uint16_t size, uint32_t wire,
			struct bf_inflight *inflight)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	struct bf_header hdr;
	struct iovec iov = { &hdr, sizeof(hdr) };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control.bytes,
			      .msg_controllen = sizeof(control.bytes) };
	struct cmsghdr *cmsg;
	int fd = -1;

	*inflight = (struct bf_inflight){ .nr_queues = queues, .queue_size = size };
	send_message(peer->fd, BF_FE_GET_INFLIGHT_FD, BF_FLAGS_VERSION, inflight, wire, NULL, 0);
	assert_int_equal(bf_backend_dispatch(peer->be), 0);
	assert_int_equal(recvmsg(peer->fd, &msg, MSG_CMSG_CLOEXEC), sizeof(hdr));
	assert_int_equal(hdr.request, BF_FE_GET_INFLIGHT_FD);
	/* Who did not say for what gets everything, and the padding. */
	wire = wire ? wire : (uint32_t)sizeof(*inflight);
	assert_int_equal(hdr.size, wire);
	assert_int_equal(read(peer->fd, inflight, wire), wire);
	cmsg = CMSG_FIRSTHDR(&msg);
	if (cmsg)
		memcpy(&fd, CMSG_DATA(cmsg), sizeof(fd));
	assert_int_equal(fd >= 0, inflight->mmap_size != 0);
	return fd;
}

static int set_inflight(struct peer *peer, const struct bf_inflight *inflight, int fd)
{
	return say(peer, BF_FE_SET_INFLIGHT_FD, inflight, sizeof(*inflight), &fd, 1);
}

static void agreed(struct echo *echo, struct guest *guest)
{
	struct peer *peer = &echo->peer;

	say_u64(peer, BF_FE_SET_PROTOCOL_FEATURES, get_u64(peer, BF_FE_GET_PROTOCOL_FEATURES));
	assert_int_equal(say_u64(peer, BF_FE_SET_FEATURES, LOAD_FEATURES | ACK_BIT), ACCEPTED);
	assert_int_equal(say_memory(peer, guest->fd, MEMORY_SIZE), ACCEPTED);
}

static int pop(struct echo *echo)
{
	struct iovec iov[8];
	struct bf_chain chain = { .iov = iov, .nr_iov = 8 };
	int ret = bf_virtq_pop(echo->peer.vq[0], &chain);

	return ret == 1 ? chain.head : -1;
}

static void push(struct echo *echo, uint16_t head)
{
	bf_virtq_push(echo->peer.vq[0], head, 64);
	bf_virtq_notify(echo->peer.vq[0]);
}

/* Three taken, one given back, and the connection is gone: the other two come again, then the next. */
static void a_successor_finishes(void **state)
{
	struct leaks before = leaks_now();
	struct bf_inflight inflight;
	struct guest guest;
	struct echo echo;
	struct peer *peer = &echo.peer;
	int kick, fd, first;

	(void)state;
	echo_init(&echo, false, LOAD_FEATURES, 0);
	guest_init(&guest);
	assert_int_equal(say_memory(peer, guest.fd, MEMORY_SIZE), ACCEPTED);
	fd = get_inflight(peer, QUEUES, LOAD_RING, sizeof(inflight), &inflight);
	assert_true(fd >= 0);
	assert_int_equal(inflight.nr_queues, QUEUES);
	assert_int_equal(inflight.queue_size, LOAD_RING);
	assert_int_equal(inflight.mmap_offset, 0);
	assert_true(inflight.mmap_size >= QUEUES * LOAD_RING * 16);
	assert_int_equal(set_inflight(peer, &inflight, fd), ACCEPTED);
	assert_int_equal(echo_ring(&echo, 0, LOAD_RING, UVA, &kick), ACCEPTED);
	for (uint16_t i = 0; i < 3; i++)
		guest_offer_in(&guest, 0, LOAD_RING, (uint16_t)(10 + i), GPA + LOAD_DATA, 64);
	for (int i = 0; i < 3; i++)
		assert_int_equal(pop(&echo), 10 + i);
	push(&echo, 11);
	close(peer->fd);
	bf_backend_dispatch(peer->be);
	assert_int_equal(peer->ended, 1);
	close(kick);

	for (unsigned again = 0; again < 2; again++) {
		peer_connect(peer);
		agreed(&echo, &guest);
		assert_int_equal(set_inflight(peer, &inflight, fd), ACCEPTED);
		/* The base that the front end believes in is the region's to know. */
		assert_int_equal(echo_ring(&echo, 0, LOAD_RING, UVA, &kick), ACCEPTED);
		first = pop(&echo);
		assert_int_equal(first, 10);
		assert_int_equal(pop(&echo), 12);
		assert_int_equal(pop(&echo), -1);
		if (again)
			break;
		/* Once more, and nothing was given back in between. */
		close(peer->fd);
		bf_backend_dispatch(peer->be);
		close(kick);
	}
	push(&echo, 12);
	push(&echo, 10);
	assert_int_equal(guest_used(&guest, 0)[1], 3);
	guest_offer_in(&guest, 0, LOAD_RING, 5, GPA + LOAD_DATA, 64);
	assert_int_equal(pop(&echo), 5);
	push(&echo, 5);
	close(kick);
	close(fd);
	peer_done(peer);
	guest_done(&guest);
	assert_no_leaks(before, "in-flight region over three connections");
}

/* Without draining: what is in flight is the region's; by either of the two messages. */
static void suspended_without_draining(void **state)
{
	struct bf_inflight inflight;
	struct guest guest;
	struct echo echo;
	struct peer *peer = &echo.peer;
	int kick, fd;

	(void)state;
	echo_init(&echo, false, LOAD_FEATURES, 0);
	guest_init(&guest);
	assert_int_equal(say_memory(peer, guest.fd, MEMORY_SIZE), ACCEPTED);
	/* Without a region nothing remembers them: the device is to drain. */
	assert_int_equal(echo_ring(&echo, 0, LOAD_RING, UVA, &kick), ACCEPTED);
	send_message(peer->fd, BF_FE_GET_VRING_BASE_SKIP_DRAIN, BF_FLAGS_VERSION,
		     &(struct bf_vring_state){ 0, 0 }, 8, NULL, 0);
	bf_backend_dispatch(peer->be);
	assert_int_equal(read_reply(peer->fd, BF_FE_GET_VRING_BASE_SKIP_DRAIN,
				    &(struct bf_vring_state){ 0 }, 8),
			 8);
	assert_int_equal(echo.suspends, 0);
	assert_int_equal(peer->stops, 1);
	close(kick);

	fd = get_inflight(peer, QUEUES, LOAD_RING, sizeof(inflight), &inflight);
	assert_int_equal(set_inflight(peer, &inflight, fd), ACCEPTED);
	close(fd);
	for (unsigned way = 0; way < 3; way++) {
		struct bf_vring_state ask = { 0, way == 1 };
		uint32_t request = way ? BF_FE_GET_VRING_BASE : BF_FE_GET_VRING_BASE_SKIP_DRAIN;

		assert_int_equal(echo_ring(&echo, 0, LOAD_RING, UVA, &kick), ACCEPTED);
		if (!way)
			guest_offer_in(&guest, 0, LOAD_RING, 7, GPA + LOAD_DATA, 64);
		assert_int_equal(pop(&echo), 7);
		if (way == 2)
			push(&echo, 7);
		send_message(peer->fd, request, BF_FLAGS_VERSION, &ask, sizeof(ask), NULL, 0);
		assert_int_equal(bf_backend_dispatch(peer->be), 0);
		assert_int_equal(read_reply(peer->fd, request, &ask, sizeof(ask)), sizeof(ask));
		assert_int_equal(ask.num, 1);
		/* The last one drained. */
		assert_int_equal(echo.suspends, way == 0 ? 1 : 2);
		close(kick);
	}
	assert_int_equal(guest_used(&guest, 0)[1], 1);
	peer_done(peer);
	guest_done(&guest);
}

static void counts_that_may_not_be(void **state)
{
	const uint16_t bad[][2] = { { 0, 8 },     { 1, 0 },    { QUEUES + 1, 8 },
				    { 65535, 8 }, { 1, 1025 }, { 65535, 65535 } };
	struct bf_inflight inflight, good;
	struct leaks before;
	struct echo echo;
	struct peer *peer = &echo.peer;
	int fd, small = make_memfd("bf-small", 4096, 0);

	(void)state;
	echo_init(&echo, false, LOAD_FEATURES, 0);
	before = leaks_now();
	fd = get_inflight(peer, QUEUES, 1024, 20, &good);
	assert_true(fd >= 0);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(
			get_inflight(peer, bad[i][0], bad[i][1], sizeof(inflight), &inflight), -1);
		inflight = good;
		inflight.nr_queues = bad[i][0];
		inflight.queue_size = bad[i][1];
		assert_int_equal(set_inflight(peer, &inflight, fd), REFUSED);
	}
	/* Sizes that the counts contradict, and files that are shorter. */
	inflight = good;
	inflight.mmap_size = 64;
	assert_int_equal(set_inflight(peer, &inflight, fd), REFUSED);
	inflight.mmap_size = UINT64_MAX;
	assert_int_equal(set_inflight(peer, &inflight, fd), REFUSED);
	inflight = good;
	inflight.mmap_offset = UINT64_MAX - 64;
	assert_int_equal(set_inflight(peer, &inflight, fd), REFUSED);
	assert_int_equal(set_inflight(peer, &good, small), REFUSED);
	close(fd);
	assert_no_leaks(before, "in-flight messages that are refused");
	/* CVE-2020-10726: asked for a thousand times. */
	for (unsigned i = 0; i < 1000; i++) {
		fd = get_inflight(peer, QUEUES, 1024, sizeof(inflight), &inflight);
		close(fd);
	}
	assert_no_leaks(before, "GET_INFLIGHT_FD a thousand times");
	fd = get_inflight(peer, QUEUES, 1024, sizeof(inflight), &inflight);
	for (unsigned i = 0; i < 1000; i++)
		assert_int_equal(set_inflight(peer, &inflight, fd), ACCEPTED);
	close(fd);
	assert_int_equal(leaks_now().fds, before.fds);
	assert_int_equal(count_mappings("memfd:belfry-inflight"), 1);
	peer_done(peer);
	assert_int_equal(count_mappings("memfd:belfry-inflight"), 0);
	close(small);
}

/* As early vhost front ends in Rust asked: for everything there is, and of use like any other. */
static void asked_for_without_counts(void **state)
{
	struct bf_inflight inflight;
	struct guest guest;
	struct echo echo;
	struct peer *peer = &echo.peer;
	int kick, fd;

	(void)state;
	echo_init(&echo, false, LOAD_FEATURES, 0);
	guest_init(&guest);
	assert_int_equal(say_memory(peer, guest.fd, MEMORY_SIZE), ACCEPTED);
	fd = get_inflight(peer, 77, 77, 0, &inflight);
	assert_true(fd >= 0);
	assert_int_equal(inflight.nr_queues, QUEUES);
	assert_int_equal(inflight.queue_size, 1024);
	assert_true(inflight.mmap_size >= QUEUES * 1024 * 16);
	assert_int_equal(set_inflight(peer, &inflight, fd), ACCEPTED);
	assert_int_equal(echo_ring(&echo, 0, LOAD_RING, UVA, &kick), ACCEPTED);
	guest_offer_in(&guest, 0, LOAD_RING, 9, GPA + LOAD_DATA, 64);
	assert_int_equal(pop(&echo), 9);
	push(&echo, 9);
	/* What is brought back has to have its counts. */
	assert_int_equal(say(peer, BF_FE_SET_INFLIGHT_FD, NULL, 0, &fd, 1), CLOSED);
	close(kick);
	close(fd);
	peer_done(peer);
	guest_done(&guest);
}

/* A region of one format, rings of the other; a region with too few entries or queues. */
static void a_region_for_another_ring(void **state)
{
	struct bf_inflight inflight;
	struct guest guest;
	struct echo echo;
	struct peer *peer = &echo.peer;
	int kick, fd;

	(void)state;
	echo_init(&echo, false, PACKED_FEATURES, 0);
	guest_init(&guest);
	assert_int_equal(say_memory(peer, guest.fd, MEMORY_SIZE), ACCEPTED);
	fd = get_inflight(peer, 1, 32, sizeof(inflight), &inflight);
	assert_int_equal(set_inflight(peer, &inflight, fd), ACCEPTED);
	assert_int_equal(say_u64(peer, BF_FE_SET_FEATURES, LOAD_FEATURES | ACK_BIT), ACCEPTED);
	assert_int_equal(echo_ring(&echo, 0, 32, UVA, &kick), REFUSED);
	assert_non_null(strstr(bf_backend_error(peer->be), "packed"));
	get_base(peer, 0);
	close(kick);
	/* Set again, it is read as of split rings. */
	assert_int_equal(set_inflight(peer, &inflight, fd), ACCEPTED);
	assert_int_equal(echo_ring(&echo, 0, LOAD_RING, UVA, &kick), REFUSED);
	get_base(peer, 0);
	close(kick);
	assert_int_equal(echo_ring(&echo, 0, 32, UVA, &kick), ACCEPTED);
	close(kick);
	/* No part for this one: it is not tracked. */
	assert_int_equal(echo_ring(&echo, 1, LOAD_RING, UVA, &kick), ACCEPTED);
	assert_true(peer->running[0] && peer->running[1]);
	close(kick);
	close(fd);
	peer_done(peer);
	guest_done(&guest);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_successor_finishes),
		cmocka_unit_test(suspended_without_draining),
		cmocka_unit_test(counts_that_may_not_be),
		cmocka_unit_test(asked_for_without_counts),
		cmocka_unit_test(a_region_for_another_ring),
	};

	return cmocka_run_group_tests_name("inflight", tests, NULL, NULL);
}
