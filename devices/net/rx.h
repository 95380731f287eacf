/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * To the guest: packets into the buffers of a receive queue.
 *
 * Buffers are popped some at a time, kept while one call of the worker lasts (the stock), and what is
 * left of them is put back at its end. A packet that finds no buffers waits in the backlog; nothing
 * overtakes it. Queue context of the receive queue, except net_rx_queue() and the backlog.
 */
#ifndef NET_RX_H
#define NET_RX_H

#include <belfry/virtq.h>

#include "backlog.h"
#include "counters.h"

/* Buffers of the stock, which bounds those of one packet: any driver's are larger than 1/128 of it. */
#define RX_STOCK  128
#define RX_PIECES 1024
#define RX_BATCH  64

enum net_rx_result {
	NET_RX_DONE,
	NET_RX_NO_ROOM, /* nothing has happened; the driver kicks when there are more buffers */
	NET_RX_DROPPED, /* and counted */
};

struct net_rx {
	struct bf_virtq *vq; /* NULL: not running */
	uint64_t features;   /* of the driver, as are the next two; atomic, others look at it */
	unsigned hdr_len;
	bool mergeable;
	bool polled;  /* the ring is looked at anyway: the driver is never asked for kicks */
	bool active;  /* it has been served since it was started */
	bool starved; /* the last packet found no room, and the driver is to kick */
	bool kicks;   /* what the driver was told last */
	bool broken;
	bool touched; /* net_rx_end() is due */
	/* Started, but not to be given anything: vq is NULL, the backlog closed. Control writes. */
	atomic_bool disabled;
	/* Of chains: popped, and the first that is not used. What is in front of it is in done. */
	unsigned nr_stock, next;
	uint64_t packets, bytes; /* not counted yet */
	struct net_backlog backlog;
	struct net_counters counters;
	struct bf_chain chains[RX_STOCK];
	struct bf_done done[RX_STOCK];
	struct iovec iov[RX_PIECES];
};

/* Control: before the queue starts; and after it was stopped, when nobody else has it. */
void net_rx_start(struct net_rx *rx, struct bf_virtq *vq, uint64_t features, bool polled);
void net_rx_stop(struct net_rx *rx);

/* Into the ring, whatever waits in the backlog. Its metadata must be accepted by the driver. */
enum net_rx_result net_rx_put(struct net_rx *rx, const struct net_packet *packet);

/*
 * Put a plain packet of one piece into the next buffer of the stock, if it is one that has room. False:
 * net_rx_put() may be able to. Counting is the caller's: net_rx_counted().
 */
static inline bool net_rx_put_plain(struct net_rx *rx, const uint8_t *data, uint32_t len)
{
	static const struct virtio_net_hdr_v1 one = { .num_buffers = NET_LE16(1) };
	const struct bf_chain *chain = &rx->chains[rx->next];
	uint8_t *to;

	if (__builtin_expect(rx->next == rx->nr_stock || chain->nr_out || !chain->nr_in ||
				     rx->hdr_len != NET_HDR_LEN ||
				     chain->iov->iov_len < NET_HDR_LEN + (size_t)len,
			     0))
		return false;
	to = chain->iov->iov_base;
	memcpy(to, &one, NET_HDR_LEN);
	net_copy(to + NET_HDR_LEN, data, len);
	rx->done[rx->next++] = (struct bf_done){ chain->head, NET_HDR_LEN + len };
	return true;
}

static inline void net_rx_counted(struct net_rx *rx, uint64_t packets, uint64_t bytes)
{
	rx->packets += packets;
	rx->bytes += bytes;
}

/* Push, put back, notify. */
void net_rx_end(struct net_rx *rx);
/* Have @nr buffers popped, if they are there. */
void net_rx_stock(struct net_rx *rx, unsigned nr);

/*
 * Queue context: behind what waits, into the ring if possible, else into the backlog; converted to what the
 * driver accepts. DONE or DROPPED. @scratch: [NET_PACKET_MAX].
 */
enum net_rx_result net_rx_deliver(struct net_rx *rx, const struct net_packet *packet,
				  uint8_t *scratch);
/* Any thread: the same by the backlog alone. Poke the queue afterwards. */
enum net_rx_result net_rx_queue(struct net_rx *rx, const struct net_packet *packet,
				uint8_t *scratch);
/* Queue context: from the backlog into the ring. True: something went. */
bool net_rx_drain(struct net_rx *rx);

#endif
