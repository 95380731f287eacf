/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * --loopback: what a guest sends comes back to it, from its transmit buffer into its receive buffer by one
 * copy. For measurement. Worker context. Nothing is dropped for want of receive buffers: transmit waits. It
 * does not wait for a receive queue that is disabled.
 */
#include <errno.h>
#include <stdlib.h>

#include "pair.h"

/* Any packet. False: no receive buffers. Offloads that the guest does not take back are done by the backlog. */
static bool turn(struct net_pair *pair, const struct net_packet *packet)
{
	struct net_rx *rx = &pair->rx;

	if (net_meta_accepted(&packet->meta, rx->features))
		return net_rx_put(rx, packet) != NET_RX_NO_ROOM;
	net_rx_queue(rx, packet, pair->scratch);
	net_rx_drain(rx);
	return true;
}

static bool transmit(struct net_port *port, struct net_pair *pair)
{
	struct net_tx *tx = &pair->tx;
	struct net_rx *rx = &pair->rx;
	uint64_t packets = 0, bytes = 0, plain_packets = 0, plain_bytes = 0;
	unsigned i, nr;

	(void)port;
	/* Without a receive queue, as while both are stopped, transmit waits too. */
	if (!rx->active) {
		/* It is switched off, perhaps for good: the guest shall have its buffers back. */
		if (atomic_load(&rx->disabled))
			return net_tx_discard(tx, &rx->counters, NET_DROP_DISABLED);
		net_pair_stall(pair);
		return false;
	}
	/* What went through the backlog comes first. */
	if (!net_backlog_empty(&rx->backlog)) {
		net_rx_drain(rx);
		if (!net_backlog_empty(&rx->backlog)) {
			net_rx_end(rx);
			net_pair_stall(pair);
			return false;
		}
	}
	nr = net_tx_pop(tx, TX_BATCH);
	net_tx_prefetch(tx, nr);
	net_rx_stock(rx, nr);
	for (i = 0; i < nr && net_backlog_empty(&rx->backlog); i++) {
		struct net_packet packet;
		struct net_plain plain;

		if (net_tx_plain(tx, &tx->chains[i], &plain) &&
		    net_rx_put_plain(rx, plain.data, plain.len)) {
			plain_packets++;
			plain_bytes += plain.len;
			continue;
		}
		if (!net_tx_open(tx, &tx->chains[i], &packet))
			continue;
		if (!turn(pair, &packet)) {
			net_pair_stall(pair);
			break;
		}
		packets++;
		bytes += packet.len;
	}
	net_rx_counted(rx, plain_packets, plain_bytes);
	net_rx_end(rx);
	net_tx_finish(tx, i, nr, packets + plain_packets, bytes + plain_bytes);
	return i;
}

static void free_loopback(struct net_port *port)
{
	free(port);
}

static const struct net_port_ops ops = {
	.name = "loopback",
	.transmit = transmit,
	.free = free_loopback,
};

int port_loopback_new(struct net_port **port)
{
	struct net_port *loopback = calloc(1, sizeof(*loopback));

	if (!loopback)
		return -ENOMEM;
	loopback->ops = &ops;
	loopback->features = NET_F_HOST_OFFLOADS | NET_F_GUEST_OFFLOADS;
	*port = loopback;
	return 0;
}
