/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Transmit and receive queues of a network card on a ring made by hand. Guest memory and ring are those of the
 * virtqueue tests.
 */
#ifndef TESTS_DEVICES_NET_RING_H
#define TESTS_DEVICES_NET_RING_H

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

static inline void open_ring(uint64_t features, bool polled)
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

static inline int close_ring(void **state)
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
static inline unsigned add_chain(uint64_t gpa, const uint32_t *lens, uint16_t flags)
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

static inline void add_buffers(unsigned nr, uint32_t len)
{
	for (unsigned i = 0; i < nr; i++) {
		const uint32_t lens[] = { len, 0 };

		add_chain(BUFFER + 0x400 * (next_desc % SIZE), lens, WRITE);
	}
}

/* The next used entry: its head, and the length. */
static inline unsigned used(uint32_t *len)
{
	volatile uint32_t *elem = used_elem(&fake, used_seen);

	assert_true(used_seen != fake.used[1]);
	used_seen++;
	*len = elem[1];
	return elem[0];
}

static inline bool nothing_used(void)
{
	return used_seen == fake.used[1];
}

/* Packets whose bytes say which packet it is and where. */
static inline struct net_packet *packet_of(unsigned nr, uint32_t len)
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
static inline void expect_packet(unsigned nr, uint32_t len, uint32_t each, unsigned hdr_len)
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

static inline enum net_rx_result deliver(unsigned nr, uint32_t len)
{
	return net_rx_deliver(rx, packet_of(nr, len), scratch);
}

#endif
