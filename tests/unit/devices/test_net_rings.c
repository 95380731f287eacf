/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Transmit and receive queues of a network card on a ring made by hand: how chains become packets and packets
 * fill buffers. Guest memory and ring are those of the virtqueue tests.
 */
#include "../virtq/fake_driver.h"

#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdbool.h>

#include "devices/net/rx.h"
#include "devices/net/tx.h"

#define SIZE   64
#define BUFFER 0x1000ull /* of the guest */
#define V1     (1ull << VIRTIO_F_VERSION_1)
#define MRG    (1ull << VIRTIO_NET_F_MRG_RXBUF)
#define EVENT  (1ull << VIRTIO_RING_F_EVENT_IDX)

static struct fake fake;
static struct net_rx *rx;
static struct net_tx *tx;
static uint16_t used_seen;
static unsigned next_desc;
static uint8_t scratch[NET_PACKET_MAX];

static void open_ring(uint64_t features, bool polled)
{
	fake_init(&fake, SIZE, 0, features);
	used_seen = 0;
	next_desc = 0;
	rx = calloc(1, sizeof(*rx));
	tx = calloc(1, sizeof(*tx));
	assert_int_equal(net_backlog_init(&rx->backlog), 0);
	net_rx_start(rx, fake.vq, features, polled);
	net_tx_start(tx, fake.vq, features);
}

static int close_ring(void **state)
{
	(void)state;
	net_rx_stop(rx);
	net_backlog_done(&rx->backlog);
	free(rx);
	free(tx);
	fake_done(&fake);
	return 0;
}

/* A chain of pieces one behind the other from @gpa on, whose lengths end with 0. Returns its head. */
static unsigned add_chain(uint64_t gpa, const uint32_t *lens, uint16_t flags)
{
	unsigned head = next_desc;

	for (; *lens; gpa += *lens++) {
		bool last = !lens[1];

		set_desc(&fake, next_desc, gpa, *lens, (uint16_t)(flags | (last ? 0 : NEXT)),
			 (uint16_t)(next_desc + 1));
		next_desc = next_desc + 1;
	}
	assert_true(next_desc <= SIZE);
	offer(&fake, (uint16_t)head);
	return head;
}

static void add_buffers(unsigned nr, uint32_t len)
{
	for (unsigned i = 0; i < nr; i++) {
		const uint32_t lens[] = { len, 0 };

		add_chain(BUFFER + 0x400 * (next_desc % SIZE), lens, WRITE);
	}
}

/* The next used entry: its head, and the length. */
static unsigned used(uint32_t *len)
{
	volatile uint32_t *elem = used_elem(&fake, used_seen);

	assert_true(used_seen != fake.used[1]);
	used_seen++;
	*len = elem[1];
	return elem[0];
}

static bool nothing_used(void)
{
	return used_seen == fake.used[1];
}

/* Packets whose bytes say which packet it is and where. */
static struct net_packet *packet_of(unsigned nr, uint32_t len)
{
	static uint8_t bytes[NET_PACKET_MAX];
	static struct iovec iov[2];
	static struct net_packet packet;

	for (uint32_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)(nr * 7 + i + i / 256);
	iov[0] = (struct iovec){ bytes, len / 3 };
	iov[1] = (struct iovec){ bytes + len / 3, len - len / 3 };
	packet = (struct net_packet){ .len = len, .nr_iov = 2, .iov = iov };
	return &packet;
}

/* Take a packet out of used buffers of @each bytes, all of which its header names. */
static void expect_packet(unsigned nr, uint32_t len, uint32_t each, unsigned hdr_len)
{
	struct net_packet *packet = packet_of(nr, len);
	uint32_t total = len + hdr_len, got = 0, now;
	unsigned buffers = (total + each - 1) / each;
	static uint8_t all[NET_PACKET_MAX + 64];
	struct virtio_net_hdr_v1 raw;

	for (unsigned i = 0; i < buffers; i++) {
		unsigned head = used(&now);

		assert_int_equal(now, i + 1 < buffers ? each : total - got);
		memcpy(all + got, at(&fake, BUFFER + 0x400 * head), now);
		got += now;
	}
	memcpy(&raw, all, sizeof(raw));
	if (hdr_len == 12)
		assert_int_equal(raw.num_buffers, buffers);
	assert_int_equal(raw.flags, 0);
	net_gather(scratch, packet->iov, 2, 0, len);
	assert_memory_equal(all + hdr_len, scratch, len);
}

static enum net_rx_result deliver(unsigned nr, uint32_t len)
{
	return net_rx_deliver(rx, packet_of(nr, len), scratch);
}

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

		if (made < 40)
			assert_int_equal(deliver(made++, len), NET_RX_DONE);
		net_rx_end(rx);
		/* The driver adds a buffer in most rounds, and kicks if that is wanted. */
		if (round % 3 && (uint16_t)(offered - used_seen) < SIZE) {
			next_desc = next_desc % SIZE; /* used in order */
			add_buffers(1, 300);
			offered++;
			kick = features & EVENT ? *avail_event(&fake) == (uint16_t)(offered - 1) :
						  !(fake.used[0] & 1);
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
		.meta = { .flags = 1, .gso_type = 5, .gso_size = 20, .csum_start = 34, .csum_offset = 6 },
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
		bool opened;
		uint32_t len = 0;

		for (unsigned b = 0; b < 500; b++)
			memory[b] = b < hdr_len ? 0 : (uint8_t)(b * 3);
		memory[2] = 0xff; /* a field that says nothing here */
		next_desc = 0;
		add_chain(0, cases[i].lens, cases[i].flags);
		memcpy(drops, tx->counters.drops, sizeof(drops));
		assert_int_equal(net_tx_pop(tx, TX_BATCH), 1);
		opened = net_tx_open(tx, &tx->chains[0], &packet);
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
			uint32_t len;

			memset(memory, 0, 100);
			memory[0] = 1;
			memory[6] = 40;                           /* csum_start */
			memory[8] = (uint8_t)(88 - 40 - 2 + bad); /* csum_offset */
			next_desc = 0;
			add_chain(0, cuts[i], 0);
			assert_int_equal(net_tx_pop(tx, TX_BATCH), 1);
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
		cmocka_unit_test_teardown(test_num_buffers, close_ring),
		cmocka_unit_test_teardown(test_not_mergeable, close_ring),
		cmocka_unit_test_teardown(test_legacy, close_ring),
		cmocka_unit_test_teardown(test_too_few, close_ring),
		cmocka_unit_test_teardown(test_too_few_event, close_ring),
		cmocka_unit_test_teardown(test_never_enough, close_ring),
		cmocka_unit_test_teardown(test_bad_buffers, close_ring),
		cmocka_unit_test_teardown(test_bounded, close_ring),
		cmocka_unit_test_teardown(test_broken, close_ring),
		cmocka_unit_test_teardown(test_offloads, close_ring),
		cmocka_unit_test_teardown(test_tx_shapes, close_ring),
		cmocka_unit_test_teardown(test_tx_shapes_legacy, close_ring),
		cmocka_unit_test_teardown(test_tx_header, close_ring),
		cmocka_unit_test_teardown(test_tx_put_back, close_ring),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
