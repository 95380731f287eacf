/* SPDX-License-Identifier: BSD-3-Clause */
/* What drivers did to other network cards, once each: the name of a test is the row of docs/safety.md. */
#include "../unit/support.h"

#include <linux/virtio_config.h>
#include <linux/virtio_net.h>

#include "devices/net/rx.h"
#include "devices/net/tx.h"
#include "tests/fuzz/guest.h"

#define HOST_ALL                                                                                   \
	(bf_bit(VIRTIO_F_VERSION_1) | bf_bit(VIRTIO_NET_F_CSUM) | bf_bit(VIRTIO_NET_F_HOST_TSO4) | \
	 bf_bit(VIRTIO_NET_F_HOST_TSO6) | bf_bit(VIRTIO_NET_F_HOST_ECN) | bf_bit(NET_F_HOST_USO))

/* A chain of pieces of @cut bytes, each an allocation of its own; @header and then zeroes. */
struct made {
	struct iovec pieces[128], kept[128];
	struct bf_chain chain;
	struct net_packet packet;
	bool opened;
};

static struct net_tx tx;

static void open_chain(struct made *m, uint64_t features, const void *header, size_t len,
		       size_t cut)
{
	unsigned nr = 0;

	for (size_t at = 0; at < len; at += cut, nr++) {
		size_t now = len - at < cut ? len - at : cut;

		m->pieces[nr] = (struct iovec){ calloc(1, now), now };
		assert_non_null(m->pieces[nr].iov_base);
		for (size_t b = 0; b < now && at + b < NET_HDR_LEN; b++)
			((uint8_t *)m->pieces[nr].iov_base)[b] = ((const uint8_t *)header)[at + b];
	}
	memcpy(m->kept, m->pieces, sizeof(m->kept));
	m->chain = (struct bf_chain){ .iov = m->pieces, .nr_out = (uint16_t)nr, .out_len = len };
	net_tx_start(&tx, NULL, features);
	memset(tx.counters.drops, 0, sizeof(tx.counters.drops));
	m->opened = net_tx_open(&tx, &m->chain, &m->packet);
}

static void done(struct made *m)
{
	for (unsigned i = 0; i < m->chain.nr_out; i++)
		free(m->kept[i].iov_base);
}

static void cve_2022_2132_chain_no_longer_than_its_header(void **state)
{
	const struct virtio_net_hdr_v1 header = { 0 };
	struct made m;

	(void)state;
	for (size_t len = 1; len < NET_HDR_LEN + NET_ETH_LEN; len++) {
		for (size_t cut = 1; cut <= len; cut++) {
			open_chain(&m, HOST_ALL, &header, len, cut);
			assert_false(m.opened);
			assert_int_equal(tx.counters.drops[NET_DROP_SHORT], 1);
			done(&m);
		}
	}
	/* None at all: a chain with nothing to read. */
	m.chain = (struct bf_chain){ .iov = m.pieces };
	net_tx_start(&tx, NULL, HOST_ALL);
	assert_false(net_tx_open(&tx, &m.chain, &m.packet));
}

static void cve_2022_2132_header_spread_over_descriptors(void **state)
{
	const struct virtio_net_hdr_v1 header = { .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
						  .csum_start = 34,
						  .csum_offset = 6 };
	struct made m;

	(void)state;
	for (size_t cut = 1; cut <= 40; cut++) {
		uint64_t sum = 0;

		open_chain(&m, HOST_ALL, &header, NET_HDR_LEN + 60, cut);
		assert_true(m.opened);
		assert_int_equal(m.packet.meta.csum_start, 34);
		assert_int_equal(m.packet.meta.csum_offset, 6);
		assert_int_equal(m.packet.len, 60);
		for (unsigned i = 0; i < m.packet.nr_iov; i++)
			sum += m.packet.iov[i].iov_len;
		assert_int_equal(sum, 60);
		done(&m);
	}
}

static void cve_2024_11614_checksum_beyond_the_packet(void **state)
{
	static const uint16_t at[][3] = {
		/* start, offset, good with 100 bytes */
		{ 34, 6, 1 },     { 34, 64, 1 },    { 34, 65, 0 },     { 98, 0, 1 },
		{ 99, 0, 0 },     { 100, 0, 0 },    { 98, 0xffff, 0 }, { 0xffff, 0xffff, 0 },
		{ 0xffff, 0, 0 }, { 0xffff, 1, 0 }, { 34, 0xffde, 0 }, { 13, 6, 0 }
	};
	struct made m;

	(void)state;
	for (unsigned i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
		const struct virtio_net_hdr_v1 header = { .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
							  .csum_start = at[i][0],
							  .csum_offset = at[i][1] };

		open_chain(&m, HOST_ALL, &header, NET_HDR_LEN + 100, i % 2 ? 200 : 7);
		if (m.opened != at[i][2])
			fail_msg("start %u, offset %u: %s", at[i][0], at[i][1],
				 m.opened ? "passed on" : "dropped");
		if (!m.opened)
			assert_int_equal(tx.counters.drops[NET_DROP_HEADER], 1);
		done(&m);
	}
}

static void dpdk_segmentation_that_does_not_fit(void **state)
{
	static const struct virtio_net_hdr_v1 headers[] = {
		{ .flags = 1,
		  .gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
		  .gso_size = 0,
		  .csum_start = 34,
		  .csum_offset = 16 },
		{ .flags = 0,
		  .gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
		  .gso_size = 100,
		  .csum_start = 34,
		  .csum_offset = 16 },
		{ .flags = 1, .gso_type = 2, .gso_size = 100, .csum_start = 34, .csum_offset = 16 },
		{ .flags = 1,
		  .gso_type = VIRTIO_NET_HDR_GSO_UDP,
		  .gso_size = 100,
		  .csum_start = 34,
		  .csum_offset = 6 },
		{ .flags = 1,
		  .gso_type = 0x7f,
		  .gso_size = 100,
		  .csum_start = 34,
		  .csum_offset = 16 },
		{ .flags = 1,
		  .gso_type = NET_GSO_UDP_L4 | VIRTIO_NET_HDR_GSO_ECN,
		  .gso_size = 100,
		  .csum_start = 34,
		  .csum_offset = 6 },
		{ .flags = 1,
		  .gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
		  .gso_size = 100,
		  .csum_start = 0xfff0,
		  .csum_offset = 16 },
	};
	struct made m;

	(void)state;
	for (unsigned i = 0; i < sizeof(headers) / sizeof(headers[0]); i++) {
		open_chain(&m, HOST_ALL, &headers[i], NET_HDR_LEN + 1000, 300);
		if (m.opened)
			fail_msg("header %u was passed on", i);
		done(&m);
	}
}

/* The header is as long as the features say, and what lies in it is not more than that. */
static void cve_2023_6693_header_length_by_features(void **state)
{
	static const struct {
		uint64_t features;
		unsigned len;
	} rows[] = {
		{ 0, 10 },
		{ (1ull << VIRTIO_F_VERSION_1), 12 },
		{ (1ull << VIRTIO_NET_F_MRG_RXBUF), 12 },
		/* HASH_REPORT would make it 20: it is not served, whoever sets it. */
		{ (1ull << VIRTIO_F_VERSION_1) | (1ull << 57), 12 },
		{ (1ull << 57), 10 },
	};
	const struct virtio_net_hdr_v1 header = { 0 };
	struct made m;

	(void)state;
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		for (size_t cut = 1; cut < 30; cut++) {
			open_chain(&m, rows[i].features, &header, rows[i].len + NET_ETH_LEN, cut);
			assert_true(m.opened);
			assert_int_equal(m.packet.len, NET_ETH_LEN);
			done(&m);
			open_chain(&m, rows[i].features, &header, rows[i].len + NET_ETH_LEN - 1,
				   cut);
			assert_false(m.opened);
			done(&m);
		}
	}
}

static struct guest guest;

struct raw_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};

/* A receive ring of @nr buffers of @len bytes. */
static void make_rx(struct net_rx *rx, unsigned nr, uint32_t len, uint64_t features)
{
	struct raw_desc *desc = (struct raw_desc *)(void *)guest.ring;
	uint16_t *avail = (uint16_t *)(void *)(guest.ring + DRIVER - RING);

	memset(guest.ring, 0, MEMORY_END - RING);
	memset(guest.low, 0xcc, FIRST_END);
	for (uint16_t i = 0; i < nr; i++) {
		desc[i] = (struct raw_desc){ 4096u * i, len, 2, 0 };
		avail[2 + i] = i;
	}
	avail[1] = (uint16_t)nr;
	assert_true(guest_start(&guest, 8, 0, bf_bit(VIRTIO_F_VERSION_1)));
	assert_int_equal(net_backlog_init(&rx->backlog), 0);
	net_rx_start(rx, guest.vq, features, false);
}

static uint16_t used_idx(void)
{
	return ((uint16_t *)(void *)(guest.ring + DEVICE - RING))[1];
}

static uint32_t used_len(unsigned i)
{
	return ((uint32_t *)(void *)(guest.ring + DEVICE - RING + 4))[2 * i + 1];
}

/*
 * num_buffers lies in a buffer that the driver has back as soon as the used index moves: it is written
 * before. And the used lengths are what was written (CVE-2024-8612).
 */
static void cve_2021_3748_num_buffers_before_the_buffers_go(void **state)
{
	static struct net_rx rx;
	uint8_t bytes[150];
	struct iovec iov = { bytes, sizeof(bytes) };
	struct net_packet packet = { .len = sizeof(bytes), .nr_iov = 1, .iov = &iov };
	uint64_t written = 0;
	uint16_t num_buffers;

	(void)state;
	memset(bytes, 0x42, sizeof(bytes));
	make_rx(&rx, 4, 64, bf_bit(VIRTIO_F_VERSION_1) | bf_bit(VIRTIO_NET_F_MRG_RXBUF));
	assert_int_equal(net_rx_put(&rx, &packet), NET_RX_DONE);
	memcpy(&num_buffers, guest.low + 10, 2);
	assert_int_equal(num_buffers, 3); /* 162 bytes into buffers of 64 */
	assert_int_equal(used_idx(), 0);
	net_rx_end(&rx);
	assert_int_equal(used_idx(), 3);
	for (unsigned i = 0; i < 3; i++)
		written += used_len(i);
	assert_int_equal(written, NET_HDR_LEN + sizeof(bytes));
	assert_int_equal(used_len(2), 162 - 128);
	/* The rest of the last buffer is the driver's still. */
	assert_int_equal(guest.low[2 * 4096 + 162 - 128], 0xcc);
	net_rx_stop(&rx);
	net_backlog_done(&rx.backlog);
	bf_virtq_stop(guest.vq);
}

static void cve_2015_7295_packet_larger_than_the_buffers(void **state)
{
	static struct net_rx rx;
	static uint8_t bytes[8000];
	struct iovec iov = { bytes, sizeof(bytes) };
	struct net_packet packet = { .len = sizeof(bytes), .nr_iov = 1, .iov = &iov };

	(void)state;
	memset(bytes, 0x42, sizeof(bytes));
	make_rx(&rx, 4, 64, bf_bit(VIRTIO_F_VERSION_1)); /* not mergeable */
	assert_int_equal(net_rx_put(&rx, &packet), NET_RX_DROPPED);
	net_rx_end(&rx);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(guest.low[4096 * i + 64], 0xcc);
	net_rx_stop(&rx);
	net_backlog_done(&rx.backlog);
	bf_virtq_stop(guest.vq);
	make_rx(&rx, 4, 64, bf_bit(VIRTIO_F_VERSION_1) | bf_bit(VIRTIO_NET_F_MRG_RXBUF));
	assert_int_not_equal(net_rx_put(&rx, &packet), NET_RX_DONE);
	net_rx_end(&rx);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(guest.low[4096 * i + 64], 0xcc);
	net_rx_stop(&rx);
	net_backlog_done(&rx.backlog);
	bf_virtq_stop(guest.vq);
}

/* Readable buffers in a receive ring, and too short for a header: nothing is written to them. */
static void cve_2014_0150_receive_buffers_that_are_none(void **state)
{
	static struct net_rx rx;
	uint8_t bytes[64] = { 0 };
	struct iovec iov = { bytes, sizeof(bytes) };
	struct net_packet packet = { .len = sizeof(bytes), .nr_iov = 1, .iov = &iov };
	struct raw_desc *desc = (struct raw_desc *)(void *)guest.ring;

	(void)state;
	make_rx(&rx, 4, 1024, bf_bit(VIRTIO_F_VERSION_1) | bf_bit(VIRTIO_NET_F_MRG_RXBUF));
	/* To be read, then to be written; too short; to be read only; and a good one. */
	desc[0].flags = 1;
	desc[0].next = 4;
	desc[4] = (struct raw_desc){ 4096 * 4, 1024, 2, 0 };
	desc[1].len = 5;
	desc[2].flags = 0;
	assert_int_equal(net_rx_put(&rx, &packet), NET_RX_DONE);
	net_rx_end(&rx);
	assert_int_equal(guest.low[0], 0xcc);
	assert_int_equal(guest.low[4096 + 5], 0xcc);
	assert_int_equal(guest.low[2 * 4096], 0xcc);
	assert_int_equal(guest.low[3 * 4096 + 10], 1); /* num_buffers */
	assert_int_equal(used_idx(), 4);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(used_len(i), 0);
	net_rx_stop(&rx);
	net_backlog_done(&rx.backlog);
	bf_virtq_stop(guest.vq);
}

/* What is dropped is given back: otherwise the queue would be empty one day. */
static void cve_2022_26354_a_dropped_packet_is_given_back(void **state)
{
	struct raw_desc *desc = (struct raw_desc *)(void *)guest.ring;
	uint16_t *avail = (uint16_t *)(void *)(guest.ring + DRIVER - RING);
	struct net_packet packet;
	unsigned nr;

	(void)state;
	memset(guest.ring, 0, MEMORY_END - RING);
	for (uint16_t i = 0; i < 8; i++) {
		desc[i] = (struct raw_desc){ 4096u * i, i % 2 ? 5 : 100, 0, 0 };
		avail[2 + i] = i;
	}
	avail[1] = 8;
	assert_true(guest_start(&guest, 8, 0, bf_bit(VIRTIO_F_VERSION_1)));
	net_tx_start(&tx, guest.vq, bf_bit(VIRTIO_F_VERSION_1));
	memset(guest.low, 0, FIRST_END);
	nr = net_tx_pop(&tx, 8);
	assert_int_equal(nr, 8);
	for (unsigned i = 0; i < nr; i++)
		assert_int_equal(net_tx_open(&tx, &tx.chains[i], &packet), i % 2 == 0);
	net_tx_finish(&tx, nr, nr, 4, 4 * 88);
	assert_int_equal(used_idx(), 8);
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(used_len(i), 0);
	assert_int_equal(bf_virtq_in_flight(guest.vq), 0);
	bf_virtq_stop(guest.vq);
}

static int setup(void **state)
{
	(void)state;
	guest_init(&guest);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cve_2022_2132_chain_no_longer_than_its_header),
		cmocka_unit_test(cve_2022_2132_header_spread_over_descriptors),
		cmocka_unit_test(cve_2024_11614_checksum_beyond_the_packet),
		cmocka_unit_test(dpdk_segmentation_that_does_not_fit),
		cmocka_unit_test(cve_2023_6693_header_length_by_features),
		cmocka_unit_test(cve_2021_3748_num_buffers_before_the_buffers_go),
		cmocka_unit_test(cve_2015_7295_packet_larger_than_the_buffers),
		cmocka_unit_test(cve_2014_0150_receive_buffers_that_are_none),
		cmocka_unit_test(cve_2022_26354_a_dropped_packet_is_given_back),
	};

	return cmocka_run_group_tests_name("rows_net", tests, setup, NULL);
}
