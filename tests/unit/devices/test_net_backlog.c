/* SPDX-License-Identifier: BSD-3-Clause */
/* Packets that wait: order, contents, bounds, the end of the ring, and two threads that put. */
#include "../support.h"

#include <stdbool.h>

#include "devices/net/backlog.h"

static struct net_backlog backlog;

static int set_up(void **state)
{
	(void)state;
	memset(&backlog, 0, sizeof(backlog));
	if (net_backlog_init(&backlog))
		return -1;
	net_backlog_open(&backlog);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	net_backlog_done(&backlog);
	return 0;
}

/* A packet that says which it is, in two pieces. */
static bool put(unsigned nr, uint32_t len)
{
	static uint8_t bytes[NET_PACKET_MAX];
	struct iovec iov[2] = { { bytes, 4 }, { bytes + 4, len - 4 } };
	struct net_packet packet = {
		.meta.gso_size = (uint16_t)nr, .len = len, .nr_iov = 2, .iov = iov
	};

	memcpy(bytes, &nr, 4);
	memset(bytes + 4, (int)(nr % 251), len - 4);
	return net_backlog_put(&backlog, &packet);
}

static void take(unsigned nr, uint32_t len)
{
	struct net_packet packet;
	struct iovec iov;

	assert_true(net_backlog_peek(&backlog, &packet, &iov));
	assert_int_equal(packet.len, len);
	assert_int_equal(iov.iov_len, len);
	assert_int_equal(packet.meta.gso_size, nr & 0xffff);
	assert_memory_equal(iov.iov_base, &nr, 4);
	assert_int_equal(((uint8_t *)iov.iov_base)[len - 1], nr % 251);
	net_backlog_drop(&backlog);
}

static uint32_t len_of(unsigned nr)
{
	return nr % 9 ? 60 + nr * 37 % 1500 : 60 + nr * 977 % 65000;
}

static void test_order(void **state)
{
	unsigned in = 0, out = 0;

	(void)state;
	while (out < 20000) {
		while (put(in, len_of(in)))
			in++;
		/* Bounded, and not much less than it says. */
		assert_true(in - out > 20);
		for (unsigned i = 0; i < 1 + out % 13 && out < in; i++, out++)
			take(out, len_of(out));
	}
	for (; out < in; out++)
		take(out, len_of(out));
	assert_true(net_backlog_empty(&backlog));
}

static void test_bounds(void **state)
{
	uint64_t bytes = 0;
	unsigned nr = 0;

	(void)state;
	for (; put(nr, NET_PACKET_MAX); nr++)
		bytes += NET_PACKET_MAX;
	assert_true(bytes <= BACKLOG_BYTES && bytes > BACKLOG_BYTES - 2 * (NET_PACKET_MAX + 64));
	take(0, NET_PACKET_MAX);
	assert_true(put(nr, NET_PACKET_MAX - 64));
}

static void test_closed(void **state)
{
	struct net_packet packet;
	struct iovec iov;

	(void)state;
	assert_true(put(1, 100));
	net_backlog_close(&backlog);
	assert_false(put(2, 100));
	assert_false(net_backlog_peek(&backlog, &packet, &iov));
	net_backlog_open(&backlog);
	assert_true(put(3, 100));
	take(3, 100);
}

/* What the receiver does not accept is converted; what cannot be is not put. */
static void test_convert(void **state)
{
	static uint8_t scratch[NET_PACKET_MAX];
	uint8_t bytes[200] = { [12] = 8, [14] = 0x45, [23] = 17 };
	struct iovec iov = { bytes, sizeof(bytes) };
	struct net_packet packet = { .meta = { .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
					       .gso_type = NET_GSO_UDP_L4,
					       .gso_size = 50,
					       .csum_start = 34,
					       .csum_offset = 6 },
				     .len = sizeof(bytes),
				     .nr_iov = 1,
				     .iov = &iov };
	const uint64_t all = ~0ull;

	(void)state;
	assert_int_equal(net_backlog_put_as(&backlog, &packet, all, NULL), 0);
	assert_int_equal(net_backlog_put_as(&backlog, &packet, 0, scratch), 0);
	for (unsigned i = 0; i < 5; i++) {
		struct net_packet got;
		struct iovec piece;

		assert_true(net_backlog_peek(&backlog, &got, &piece));
		assert_int_equal(got.len, i == 0 ? 200 : i < 4 ? 92 : 50);
		assert_int_equal(got.meta.gso_type, i ? 0 : NET_GSO_UDP_L4);
		assert_int_equal(got.meta.flags, i ? 0 : 1);
		net_backlog_drop(&backlog);
	}
	assert_true(net_backlog_empty(&backlog));
	bytes[23] = 6;
	assert_int_equal(net_backlog_put_as(&backlog, &packet, 0, scratch), -EBADMSG);
	bytes[23] = 17;
	while (put(1, 60000))
		;
	while (put(1, 100))
		;
	assert_int_equal(net_backlog_put_as(&backlog, &packet, all, NULL), 1);
	assert_true(net_backlog_put_as(&backlog, &packet, 0, scratch) > 0);
}

#define EACH 100000u

static void *put_many(void *opaque)
{
	uint32_t words[30] = { (uint32_t)(uintptr_t)opaque };
	struct iovec iov = { words, sizeof(words) };
	struct net_packet packet = { .len = sizeof(words), .nr_iov = 1, .iov = &iov };

	for (uint32_t i = 0; i < EACH; i++) {
		words[1] = words[29] = i;
		while (!net_backlog_put(&backlog, &packet))
			usleep(10);
	}
	return NULL;
}

static void test_threads(void **state)
{
	uint32_t next[2] = { 0 };
	pthread_t threads[2];

	(void)state;
	for (uintptr_t i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, put_many, (void *)i), 0);
	while (next[0] + next[1] < 2 * EACH) {
		struct net_packet packet;
		struct iovec iov;
		uint32_t words[30];

		if (!net_backlog_peek(&backlog, &packet, &iov)) {
			usleep(10);
			continue;
		}
		assert_int_equal(packet.len, sizeof(words));
		memcpy(words, iov.iov_base, sizeof(words));
		assert_true(words[0] < 2);
		assert_int_equal(words[1], next[words[0]]);
		assert_int_equal(words[29], next[words[0]]++);
		net_backlog_drop(&backlog);
	}
	for (unsigned i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	assert_true(net_backlog_empty(&backlog));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_order, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_bounds, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_closed, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_convert, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_threads, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
