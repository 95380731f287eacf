/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * --sink: packets are copied out of the guest's memory, as any device would, counted, and dropped. --drop:
 * they are not even read, so that no line of them has to come to this CPU. Nothing is ever received. For
 * measurement. Worker context, but new and free.
 */
#include <errno.h>
#include <stdlib.h>

#include "pair.h"

/* Where packets go: one behind the other, from the start again at its end, like a card's memory. */
#define SINK_BYTES (64u << 10)

struct sink {
	struct net_port port;
	uint8_t *memory[256]; /* by pair */
};

static void take(const struct net_packet *packet, uint8_t *to)
{
	for (unsigned i = 0; i < packet->nr_iov; i++) {
		net_copy(to, packet->iov[i].iov_base, packet->iov[i].iov_len);
		to += packet->iov[i].iov_len;
	}
}

static bool copy_all(struct net_port *port, struct net_pair *pair)
{
	uint8_t *memory = ((struct sink *)port)->memory[pair->idx];
	struct net_tx *tx = &pair->tx;
	unsigned i, nr = net_tx_pop(tx, TX_BATCH);
	uint64_t packets = 0, bytes = 0;
	size_t at = 0;

	net_tx_prefetch(tx, nr);
	for (i = 0; i < nr; i++) {
		struct net_packet packet;
		struct net_plain plain;

		if (net_tx_plain(tx, &tx->chains[i], &plain)) {
			net_copy(memory + at, plain.data, plain.len);
			packet.len = plain.len;
		} else if (net_tx_open(tx, &tx->chains[i], &packet)) {
			take(&packet, memory + at);
		} else {
			continue;
		}
		at += packet.len;
		at = at > SINK_BYTES ? 0 : at;
		packets++;
		bytes += packet.len;
	}
	net_tx_finish(tx, nr, nr, packets, bytes);
	return nr;
}

static bool drop_all(struct net_port *port, struct net_pair *pair)
{
	struct net_tx *tx = &pair->tx;
	unsigned i, nr = net_tx_pop(tx, TX_BATCH);
	uint64_t packets = 0, bytes = 0;

	(void)port;
	for (i = 0; i < nr; i++) {
		if (!net_tx_size_ok(tx, &tx->chains[i]))
			continue;
		packets++;
		bytes += tx->chains[i].out_len - tx->hdr_len;
	}
	net_tx_finish(tx, nr, nr, packets, bytes);
	return nr;
}

static void free_sink(struct net_port *port)
{
	struct sink *sink = (void *)port;

	if (!sink)
		return;
	for (unsigned i = 0; i < 256; i++)
		free(sink->memory[i]);
	free(sink);
}

static const struct net_port_ops copying = { .name = "sink",
					     .transmit = copy_all,
					     .free = free_sink };
static const struct net_port_ops dropping = { .name = "drop",
					      .transmit = drop_all,
					      .free = free_sink };

int port_sink_new(unsigned nr_pairs, bool copy, struct net_port **port)
{
	struct sink *sink = calloc(1, sizeof(*sink));

	if (!sink)
		return -ENOMEM;
	sink->port.ops = copy ? &copying : &dropping;
	sink->port.features = NET_F_HOST_OFFLOADS;
	for (unsigned i = 0; copy && i < nr_pairs; i++) {
		sink->memory[i] = malloc(SINK_BYTES + NET_PACKET_MAX);
		if (!sink->memory[i]) {
			free_sink(&sink->port);
			return -ENOMEM;
		}
	}
	*port = &sink->port;
	return 0;
}
