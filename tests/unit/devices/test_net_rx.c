/* SPDX-License-Identifier: BSD-3-Clause */
/* How packets fill the buffers of a receive queue: many, few, none, and wrong ones. */
#include "net_ring.h"

static void test_num_buffers(void **state)
{
	static const uint32_t lens[] = { 60, 100 - 12, 101 - 12, 200 - 12, 201 - 12, 1500 };

	(void)state;
	open_ring(V1 | MRG, true);
	add_buffers(40, 100);
	for (unsigned i = 0; i < 6; i++)
		assert_int_equal(deliver(i, lens[i]), NET_RX_DONE);
	assert_true(nothing_used());
	net_rx_end(rx);
	for (unsigned i = 0; i < 6; i++)
		expect_packet(i, lens[i], 100, 12);
	assert_true(nothing_used());
	assert_int_equal(rx->counters.packets, 6);
	assert_int_equal(bf_virtq_in_flight(fake.vq), 0);
}

/* Not mergeable: one buffer each, and what is larger is lost alone. */
static void one_buffer(uint64_t features, unsigned hdr_len)
{
	open_ring(features, true);
	add_buffers(3, 200);
	assert_int_equal(deliver(0, 60), NET_RX_DONE);
	assert_int_equal(deliver(1, 201 - hdr_len), NET_RX_DROPPED);
	assert_int_equal(deliver(2, 200 - hdr_len), NET_RX_DONE);
	net_rx_end(rx);
	expect_packet(0, 60, 200, hdr_len);
	expect_packet(2, 200 - hdr_len, 200, hdr_len);
	assert_true(nothing_used());
	assert_int_equal(rx->counters.drops[NET_DROP_SIZE], 1);
}

static void test_not_mergeable(void **state)
{
	(void)state;
	one_buffer(V1, 12);
}

static void test_legacy(void **state)
{
	(void)state;
	one_buffer(0, 10);
}

/* Buffers come one by one; every packet arrives, whole, once, in order. @event: only what is kicked for. */
static void too_few(uint64_t features)
{
	unsigned made = 0, seen = 0, round;
	uint16_t offered = 0;

	open_ring(features, false);
	for (round = 0; round < 4000 && seen < 40; round++) {
		uint32_t len = 60 + made * 97 % 1400;
		bool kick;

		/* In bursts, between which all buffers that are left lie there unused. */
		if (made < 40 && (made % 8 || seen == made))
			assert_int_equal(deliver(made++, len), NET_RX_DONE);
		net_rx_end(rx);
		/* The driver adds a buffer in most rounds, and kicks if that is wanted. */
		if (round % 3 && (uint16_t)(offered - used_seen) < SIZE) {
			next_desc = next_desc % SIZE; /* used in order */
			add_buffers(1, 300);
			offered++;
			kick = features & EVENT ? *avail_event(&fake) == (uint16_t)(offered - 1)
						: !(fake.used[0] & 1);
			if (kick || seen + 1 < made) {
				/* With packets waiting it must have been wanted. */
				if (!net_backlog_empty(&rx->backlog))
					assert_true(kick);
				rx->starved = false;
				net_rx_drain(rx);
				net_rx_end(rx);
			}
		}
		while (!nothing_used()) {
			expect_packet(seen, 60 + seen * 97 % 1400, 300, 12);
			seen++;
		}
		assert_int_equal(bf_virtq_in_flight(fake.vq), 0);
	}
	assert_int_equal(seen, 40);
}

static void test_too_few(void **state)
{
	(void)state;
	too_few(V1 | MRG);
}

static void test_too_few_event(void **state)
{
	(void)state;
	too_few(V1 | MRG | EVENT);
}

/* Buffers that the driver adds while it is asked for kicks: one in each call, as long as there are some. */
static unsigned nr_late;
bool __real_bf_virtq_want_kicks(struct bf_virtq *vq, bool on);
bool __wrap_bf_virtq_want_kicks(struct bf_virtq *vq, bool on);

bool __wrap_bf_virtq_want_kicks(struct bf_virtq *vq, bool on)
{
	if (on && nr_late) {
		nr_late--;
		add_buffers(1, 100);
	}
	return __real_bf_virtq_want_kicks(vq, on);
}

/* None of those is kicked for, and they are not enough: the next one must be. */
static void test_late_buffers(void **state)
{
	(void)state;
	open_ring(V1 | MRG | EVENT, false);
	add_buffers(2, 100);
	nr_late = 3;
	assert_int_equal(deliver(0, 600 - 12), NET_RX_DONE);
	net_rx_end(rx);
	assert_int_equal(nr_late, 0);
	assert_false(net_backlog_empty(&rx->backlog));
	assert_int_equal(*avail_event(&fake), 5);
	add_buffers(1, 100);
	rx->starved = false;
	assert_true(net_rx_drain(rx));
	net_rx_end(rx);
	expect_packet(0, 600 - 12, 100, 12);
}

/* A packet for which the whole ring is too small does not wait for ever. */
static void test_never_enough(void **state)
{
	(void)state;
	open_ring(V1 | MRG, false);
	add_buffers(SIZE, 100);
	assert_int_equal(deliver(0, SIZE * 100), NET_RX_DROPPED);
	assert_int_equal(deliver(1, SIZE * 100 - 12), NET_RX_DONE);
	net_rx_end(rx);
	expect_packet(1, SIZE * 100 - 12, 100, 12);
	assert_int_equal(rx->counters.drops[NET_DROP_SIZE], 1);
}

/* Buffers without room for a header go back empty; those the device may not write are no buffers. */
static void test_bad_buffers(void **state)
{
	static const uint32_t small[] = { 11, 0 }, good[] = { 1, 1, 9, 5, 400, 0 };
	uint32_t len;

	(void)state;
	open_ring(V1 | MRG, true);
	add_chain(BUFFER, small, WRITE);
	add_chain(BUFFER, small, WRITE);
	add_chain(BUFFER + 0x800, (const uint32_t[]){ 500, 0 }, 0);
	add_chain(BUFFER + 0x400 * next_desc, good, WRITE);
	assert_int_equal(deliver(5, 200), NET_RX_DONE);
	net_rx_end(rx);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(used(&len), i);
		assert_int_equal(len, 0);
	}
	assert_int_equal(rx->counters.drops[NET_DROP_CHAIN], 3);
	expect_packet(5, 200, 416, 12);
}

/* A guest that never gives a buffer: its backlog fills up, and that is all. */
static void test_bounded(void **state)
{
	unsigned dropped = 0;

	(void)state;
	open_ring(V1 | MRG, false);
	for (unsigned i = 0; i < 4000; i++)
		dropped += deliver(i, 1500) == NET_RX_DROPPED;
	net_rx_end(rx);
	assert_true(dropped > 2000 && dropped < 3000);
	assert_int_equal(rx->counters.drops[NET_DROP_ROOM], dropped);
}

/* A broken ring loses packets and harms nobody. */
static void test_broken(void **state)
{
	(void)state;
	open_ring(V1 | MRG, false);
	offer(&fake, SIZE + 3);
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(deliver(i, 1500), NET_RX_DROPPED);
	net_rx_end(rx);
	assert_int_equal(bf_virtq_broken(fake.vq, NULL), -EBADMSG);
}

/* What the driver does not take is done here; what it takes is passed on as it is. */
static void test_offloads(void **state)
{
	struct net_packet packet;
	uint8_t bytes[100] = { [12] = 8, [14] = 0x45, [23] = 17 };
	struct iovec iov = { bytes, sizeof(bytes) };
	struct virtio_net_hdr_v1 raw;
	uint32_t len;

	(void)state;
	open_ring(V1 | MRG, true);
	add_buffers(10, 500);
	packet = (struct net_packet){
		.meta = { .flags = 1,
			  .gso_type = 5,
			  .gso_size = 20,
			  .csum_start = 34,
			  .csum_offset = 6 },
		.len = sizeof(bytes),
		.nr_iov = 1,
		.iov = &iov,
	};
	assert_int_equal(net_rx_deliver(rx, &packet, scratch), NET_RX_DONE);
	rx->features = ~0ull;
	assert_int_equal(net_rx_deliver(rx, &packet, scratch), NET_RX_DONE);
	net_rx_end(rx);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(used(&len), i);
		assert_int_equal(len, 12 + 42 + (i < 2 ? 20 : 18));
		memcpy(&raw, at(&fake, BUFFER + 0x400 * i), sizeof(raw));
		assert_int_equal(raw.flags | raw.gso_type, 0);
		assert_int_equal(raw.num_buffers, 1);
	}
	assert_int_equal(used(&len), 3);
	assert_int_equal(len, 112);
	memcpy(&raw, at(&fake, BUFFER + 0x400 * 3), sizeof(raw));
	assert_int_equal(raw.flags, 1);
	assert_int_equal(raw.gso_type, 5);
	assert_int_equal(raw.gso_size, 20);
	assert_int_equal(raw.csum_start, 34);
	assert_int_equal(raw.csum_offset, 6);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_num_buffers, close_ring),
		cmocka_unit_test_teardown(test_not_mergeable, close_ring),
		cmocka_unit_test_teardown(test_legacy, close_ring),
		cmocka_unit_test_teardown(test_too_few, close_ring),
		cmocka_unit_test_teardown(test_too_few_event, close_ring),
		cmocka_unit_test_teardown(test_late_buffers, close_ring),
		cmocka_unit_test_teardown(test_never_enough, close_ring),
		cmocka_unit_test_teardown(test_bad_buffers, close_ring),
		cmocka_unit_test_teardown(test_bounded, close_ring),
		cmocka_unit_test_teardown(test_broken, close_ring),
		cmocka_unit_test_teardown(test_offloads, close_ring),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
