/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Transmit queues: taking chains and giving them back. Queue context; no lock, no allocation. Everything
 * in a chain is the guest's: its header is copied out once, and only the copy is looked at.
 */
#include "tx.h"

void net_tx_start(struct net_tx *tx, struct bf_virtq *vq, uint64_t features)
{
	tx->vq = vq;
	tx->features = features;
	tx->hdr_len = net_header_len(features);
	tx->headers = features & NET_F_HOST_OFFLOADS;
}

unsigned net_tx_pop(struct net_tx *tx, unsigned nr)
{
	int ret = bf_virtq_pop_batch(tx->vq, tx->chains, nr, tx->iov, TX_PIECES);

	if (ret <= 0)
		return 0; /* broken: the library says it, and so does the worker */
	for (int i = 0; i < ret; i++)
		tx->done[i] = (struct bf_done){ .head = tx->chains[i].head };
	return (unsigned)ret;
}

void net_tx_prefetch(const struct net_tx *tx, unsigned nr)
{
	unsigned skip = tx->headers ? 0 : tx->hdr_len;

	for (unsigned i = 0; i < nr; i++)
		if (tx->chains[i].nr_out)
			__builtin_prefetch((uint8_t *)tx->chains[i].iov->iov_base + skip);
}

void net_tx_finish(struct net_tx *tx, unsigned sent, unsigned taken, uint64_t packets,
		   uint64_t bytes)
{
	uint16_t heads[TX_BATCH];

	for (unsigned i = sent; i < taken; i++)
		heads[i - sent] = tx->chains[i].head;
	if (taken > sent)
		bf_virtq_unpop(tx->vq, heads, taken - sent);
	if (!sent)
		return;
	bf_virtq_push_batch(tx->vq, tx->done, sent);
	bf_virtq_notify(tx->vq);
	net_count(&tx->counters, packets, bytes);
}

unsigned net_tx_discard(struct net_tx *tx, struct net_counters *counters, enum net_drop why)
{
	unsigned nr = net_tx_pop(tx, TX_BATCH);

	net_count_drops(counters, why, nr);
	net_tx_finish(tx, nr, nr, 0, 0);
	return nr;
}

static bool drop(struct net_tx *tx, enum net_drop why)
{
	net_count_drops(&tx->counters, why, 1);
	return false;
}

/* Skip @len bytes, which are there. */
static void skip(struct net_packet *packet, size_t len)
{
	while (len >= packet->iov->iov_len) {
		len -= packet->iov->iov_len;
		packet->iov++;
		packet->nr_iov--;
	}
	packet->iov->iov_base = (uint8_t *)packet->iov->iov_base + len;
	packet->iov->iov_len -= len;
}

bool net_tx_size_ok(struct net_tx *tx, const struct bf_chain *chain)
{
	if (chain->nr_in)
		return drop(tx, NET_DROP_CHAIN);
	if (chain->out_len < tx->hdr_len + NET_ETH_LEN)
		return drop(tx, NET_DROP_SHORT);
	if (chain->out_len > tx->hdr_len + NET_PACKET_MAX)
		return drop(tx, NET_DROP_LONG);
	return true;
}

bool net_tx_open_slow(struct net_tx *tx, struct bf_chain *chain, struct net_packet *packet)
{
	struct virtio_net_hdr_v1 raw = { 0 };

	if (!net_tx_size_ok(tx, chain))
		return false;
	if (tx->headers)
		net_gather(&raw, chain->iov, chain->nr_out, 0, NET_HDR_LEN_SHORT);
	*packet = (struct net_packet){ .len = (uint32_t)(chain->out_len - tx->hdr_len),
				       .iov = chain->iov,
				       .nr_iov = chain->nr_out };
	skip(packet, tx->hdr_len);
	if (!net_meta_read(&raw, packet->len, tx->features, &packet->meta))
		return drop(tx, NET_DROP_HEADER);
	return true;
}
