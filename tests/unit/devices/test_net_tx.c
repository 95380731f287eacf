/* SPDX-License-Identifier: BSD-3-Clause */
/* How chains of a transmit queue become packets: of every shape, and what is no packet. */
#include "net_ring.h"

/* Transmit chains of every shape: expected bytes of the packet, or why it is dropped. */
static void check_tx(unsigned hdr_len)
{
	static const struct {
		uint32_t lens[20];
		uint16_t flags;
		int drop; /* -1: a packet */
	} cases[] = {
		{ { 500 }, 0, -1 },
		{ { 12, 488 }, 0, -1 },
		{ { 10, 490 }, 0, -1 },
		{ { 11, 489 }, 0, -1 },
		{ { 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 486 }, 0, -1 },
		{ { 5, 5, 5, 485 }, 0, -1 },
		{ { 26 }, 0, -1 },
		{ { 12, 14 }, 0, -1 },
		{ { 12, 1, 13 }, 0, -1 },
		/* CVE-2022-2132: no longer than the header, in one piece or in several. */
		{ { 10 }, 0, NET_DROP_SHORT },
		{ { 1 }, 0, NET_DROP_SHORT },
		{ { 6, 4 }, 0, NET_DROP_SHORT },
		{ { 10, 13 }, 0, NET_DROP_SHORT },
		{ { 23 }, 0, NET_DROP_SHORT },
		{ { 30000, 30000, 10000 }, 0, NET_DROP_LONG },
		{ { 500 }, WRITE, NET_DROP_CHAIN },
	};
	unsigned i, nr = sizeof(cases) / sizeof(cases[0]);

	for (i = 0; i < nr; i++) {
		uint8_t *memory = at(&fake, 0);
		uint64_t drops[NET_NR_DROPS];
		struct net_packet packet;
		struct net_plain plain;
		bool opened, simple;
		uint32_t len = 0;

		for (unsigned b = 0; b < 500; b++)
			memory[b] = b < hdr_len ? 0 : (uint8_t)(b * 3);
		memory[2] = 0xff; /* a field that says nothing here */
		next_desc = 0;
		add_chain(0, cases[i].lens, cases[i].flags);
		memcpy(drops, tx->counters.drops, sizeof(drops));
		assert_int_equal(net_tx_pop(tx, TX_BATCH), 1);
		simple = net_tx_plain(tx, &tx->chains[0], &plain);
		opened = net_tx_open(tx, &tx->chains[0], &packet);
		assert_int_equal(simple, opened && packet.nr_iov == 1 && !cases[i].lens[1]);
		if (simple) {
			assert_ptr_equal(plain.data, packet.iov->iov_base);
			assert_int_equal(plain.len, packet.len);
		}
		if (opened != (cases[i].drop < 0))
			fail_msg("case %u: opened %d", i, opened);
		for (const uint32_t *l = cases[i].lens; *l; l++)
			len += *l;
		if (opened) {
			assert_int_equal(packet.len, len - hdr_len);
			net_gather(scratch, packet.iov, packet.nr_iov, 0, packet.len);
			assert_memory_equal(scratch, memory + hdr_len, packet.len);
			len = 0;
			for (unsigned p = 0; p < packet.nr_iov; p++)
				len += packet.iov[p].iov_len;
			assert_int_equal(len, packet.len);
			assert_true(packet.iov->iov_len > 0);
		} else {
			drops[cases[i].drop]++;
		}
		assert_memory_equal(drops, tx->counters.drops, sizeof(drops));
		net_tx_finish(tx, 1, 1, opened, packet.len);
		assert_int_equal(used(&len), 0);
		assert_int_equal(len, 0);
	}
}

static void test_tx_shapes(void **state)
{
	(void)state;
	open_ring(V1, true);
	check_tx(12);
}

static void test_tx_shapes_legacy(void **state)
{
	(void)state;
	open_ring(0, true);
	check_tx(10);
}

/* A header spread over pieces is the same header; a hostile one is dropped, and the next goes on. */
static void test_tx_header(void **state)
{
	static const uint32_t cuts[][4] = { { 100 }, { 12, 88 }, { 7, 93 }, { 1, 6, 93 } };
	uint8_t *memory;

	(void)state;
	open_ring(V1 | (1ull << VIRTIO_NET_F_CSUM), true);
	memory = at(&fake, 0);
	for (unsigned i = 0; i < 4; i++) {
		for (unsigned bad = 0; bad < 2; bad++) {
			struct net_packet packet;
			struct net_plain plain;
			uint32_t len;

			memset(memory, 0, 100);
			memory[0] = 1;
			memory[6] = 40;                           /* csum_start */
			memory[8] = (uint8_t)(88 - 40 - 2 + bad); /* csum_offset */
			next_desc = 0;
			add_chain(0, cuts[i], 0);
			assert_int_equal(net_tx_pop(tx, TX_BATCH), 1);
			assert_false(net_tx_plain(tx, &tx->chains[0], &plain));
			assert_int_equal(net_tx_open(tx, &tx->chains[0], &packet), !bad);
			if (!bad) {
				assert_int_equal(packet.meta.csum_start, 40);
				assert_int_equal(packet.meta.csum_offset, 46);
			}
			net_tx_finish(tx, 1, 1, 0, 0);
			used(&len);
		}
	}
	assert_int_equal(tx->counters.drops[NET_DROP_HEADER], 4);
}

/* Something to write behind something to read: not the shape of a packet. */
static void test_tx_direction(void **state)
{
	struct net_packet packet;
	struct net_plain plain;

	(void)state;
	open_ring(V1, true);
	set_desc(&fake, 0, 0, 500, NEXT, 1);
	set_desc(&fake, 1, 0x1000, 100, WRITE, 0);
	offer(&fake, 0);
	assert_int_equal(net_tx_pop(tx, TX_BATCH), 1);
	assert_false(net_tx_plain(tx, &tx->chains[0], &plain));
	assert_false(net_tx_open(tx, &tx->chains[0], &packet));
	assert_int_equal(tx->counters.drops[NET_DROP_CHAIN], 1);
	net_tx_finish(tx, 1, 1, 0, 0);
}

/* What could not be sent is there again. */
static void test_tx_put_back(void **state)
{
	static const uint32_t lens[] = { 100, 0 };
	uint32_t len;

	(void)state;
	open_ring(V1, true);
	for (unsigned i = 0; i < 10; i++)
		add_chain(0x1000 * i, lens, 0);
	assert_int_equal(net_tx_pop(tx, TX_BATCH), 10);
	net_tx_finish(tx, 4, 10, 4, 400);
	assert_int_equal(bf_virtq_in_flight(fake.vq), 0);
	assert_int_equal(net_tx_pop(tx, 3), 3);
	assert_int_equal(tx->chains[0].head, 4);
	net_tx_finish(tx, 0, 3, 0, 0);
	assert_int_equal(net_tx_pop(tx, TX_BATCH), 6);
	assert_int_equal(tx->chains[0].head, 4);
	net_tx_finish(tx, 6, 6, 6, 600);
	for (unsigned i = 0; i < 10; i++)
		assert_int_equal(used(&len), i);
	assert_true(nothing_used());
	assert_int_equal(tx->counters.packets, 10);
	assert_int_equal(tx->counters.bytes, 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_tx_shapes, close_ring),
		cmocka_unit_test_teardown(test_tx_shapes_legacy, close_ring),
		cmocka_unit_test_teardown(test_tx_header, close_ring),
		cmocka_unit_test_teardown(test_tx_direction, close_ring),
		cmocka_unit_test_teardown(test_tx_put_back, close_ring),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
