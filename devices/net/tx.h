/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * From the guest: a batch of chains taken from a transmit queue, each opened into a packet. Queue
 * context, hot. Chains are given back in the order in which they came.
 */
#ifndef NET_TX_H
#define NET_TX_H

#include <belfry/virtq.h>

#include "counters.h"

#define TX_BATCH 32
/* Pieces of a batch; and what one chain may have, with a header of ours, for writev(). */
#define TX_PIECES 1000

struct net_tx {
	struct bf_virtq *vq; /* NULL: not running */
	uint64_t features;   /* of the driver, as is hdr_len */
	unsigned hdr_len;
	bool headers; /* they may say something: the driver accepted offloads. Else they are not read */
	bool active; /* queue context: it has been served since it was started */
	struct net_counters counters;
	struct bf_chain chains[TX_BATCH];
	struct bf_done done[TX_BATCH];
	struct iovec iov[TX_PIECES];
};

/* Control: before the queue starts. */
void net_tx_start(struct net_tx *tx, struct bf_virtq *vq, uint64_t features);

/* Up to @nr, at most TX_BATCH; 0 also when the ring is broken. */
unsigned net_tx_pop(struct net_tx *tx, unsigned nr);
/* A batch is taken and given back, counted as dropped in @counters. How many. */
unsigned net_tx_discard(struct net_tx *tx, struct net_counters *counters, enum net_drop why);
/*
 * For those who will read the @nr packets: have them on their way. The driver's CPU has written them, and
 * fetching takes longer than all that is done with them.
 */
void net_tx_prefetch(const struct net_tx *tx, unsigned nr);
/* All that can be said of a chain without reading it. False: not a packet, and counted. */
bool net_tx_size_ok(struct net_tx *tx, const struct bf_chain *chain);

/*
 * Give back the first @sent of the @taken that were popped, and put the others back into the ring. Tells
 * the driver. @packets, @bytes: of those that were passed on.
 */
void net_tx_finish(struct net_tx *tx, unsigned sent, unsigned taken, uint64_t packets,
		   uint64_t bytes);

/* The general way of net_tx_open(). */
bool net_tx_open_slow(struct net_tx *tx, struct bf_chain *chain, struct net_packet *packet);

/*
 * Copy the header out of the chain, check it, and leave the packet: pieces of the chain, cut behind the
 * header in place. False: dropped, and counted.
 */
static inline bool net_tx_open(struct net_tx *tx, struct bf_chain *chain, struct net_packet *packet)
{
	struct virtio_net_hdr_v1 raw = { 0 };
	struct iovec *first = chain->iov;
	unsigned hdr_len = tx->hdr_len;

	/* Header and Ethernet header in the first piece, nothing to write: nearly all there are. */
	if (__builtin_expect(!chain->nr_out || chain->nr_in ||
				     first->iov_len < hdr_len + NET_ETH_LEN ||
				     chain->out_len > hdr_len + NET_PACKET_MAX,
			     0))
		return net_tx_open_slow(tx, chain, packet);
	if (tx->headers)
		net_read(&raw, first->iov_base, NET_HDR_LEN_SHORT);
	packet->len = (uint32_t)(chain->out_len - hdr_len);
	packet->iov = first;
	packet->nr_iov = chain->nr_out;
	first->iov_base = (uint8_t *)first->iov_base + hdr_len;
	first->iov_len -= hdr_len;
	if (__builtin_expect(!net_meta_read(&raw, packet->len, tx->features, &packet->meta), 0)) {
		net_count_drops(&tx->counters, NET_DROP_HEADER, 1);
		return false;
	}
	return true;
}

/* A packet of one piece about which its header says nothing. */
struct net_plain {
	const uint8_t *data;
	uint32_t len;
};

/*
 * net_tx_open() for plain packets only, which are nearly all in a benchmark. False: it may be any other. The
 * two bytes that say whether a header says anything are read once; of one that does not, nothing else is.
 */
static inline bool net_tx_plain(const struct net_tx *tx, const struct bf_chain *chain,
				struct net_plain *plain)
{
	const struct iovec *first = chain->iov;
	uint16_t says = 0;

	if (__builtin_expect(chain->nr_out != 1 || chain->nr_in ||
				     first->iov_len - tx->hdr_len - NET_ETH_LEN >
					     NET_PACKET_MAX - NET_ETH_LEN,
			     0))
		return false;
	if (tx->headers)
		memcpy(&says, first->iov_base, sizeof(says));
	plain->data = (const uint8_t *)first->iov_base + tx->hdr_len;
	plain->len = (uint32_t)first->iov_len - tx->hdr_len;
	return __builtin_expect(!says, 1);
}

#endif
