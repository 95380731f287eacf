/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * --switch: a learning switch between the devices of this process. Worker context, but new, free, live and
 * inject.
 *
 * Between two queues of one worker a packet is copied once, from guest to guest. A queue of another worker
 * gets it by its backlog, and so does one whose driver has no buffers at the moment: bounded, and
 * what is too much is dropped there, so that a guest that does not receive costs the others nothing. A
 * sender is never held up.
 *
 * A flow stays in order: it is in one transmit queue, and goes to one receive queue, of the same number
 * where there is one.
 */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "mac_table.h"
#include "pair.h"

struct switch_port {
	struct net_port port;
	struct net_switch *sw;
	unsigned idx;
};

struct net_switch {
	struct mac_table table;
	unsigned nr;
	struct switch_port *ports[PORT_SWITCH_MAX]; /* [nr]; all are there before any queue runs */
};

_Static_assert(PORT_SWITCH_MAX <= MAC_PORTS, "addresses of a port cannot be told");

static uint32_t seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return (uint32_t)now.tv_sec;
}

/* Queues that were given packets in this batch. */
struct touched {
	struct net_pair *pairs[PORT_SWITCH_MAX];
	unsigned nr;
};

/* Where packets of transmit queue @idx go. NULL: nothing receives there. */
static struct net_pair *target(struct switch_port *to, unsigned idx)
{
	struct net_pair *pair = &to->port.pairs[idx % to->port.nr_pairs];

	if (net_backlog_is_open(&pair->rx.backlog))
		return pair;
	pair = &to->port.pairs[0];
	return net_backlog_is_open(&pair->rx.backlog) ? pair : NULL;
}

static void deliver(struct net_pair *from, struct switch_port *to, const struct net_packet *packet,
		    struct touched *touched)
{
	struct net_pair *pair = target(to, from->idx);

	if (!pair) {
		pair = to->port.pairs;
		if (atomic_load(&pair->rx.disabled))
			net_count_drops(&pair->rx.counters, NET_DROP_DISABLED, 1);
		return;
	}
	if (pair->worker != from->worker || !pair->rx.active) {
		net_rx_queue(&pair->rx, packet, from->scratch);
		worker_poke(&pair->rx_queue);
		return;
	}
	if (!pair->rx.touched)
		touched->pairs[touched->nr++] = pair;
	/* Also when the packet only waits: the queue is looked after at the end of the batch. */
	pair->rx.touched = true;
	net_rx_deliver(&pair->rx, packet, from->scratch);
}

static void flood(struct net_pair *from, struct switch_port *port, const struct net_packet *packet,
		  struct touched *touched)
{
	struct net_switch *sw = port->sw;

	for (unsigned i = 0; i < sw->nr; i++)
		if (sw->ports[i] != port)
			deliver(from, sw->ports[i], packet, touched);
}

static void forward(struct net_pair *from, struct switch_port *port,
		    const struct net_packet *packet, uint32_t now, struct touched *touched)
{
	struct net_switch *sw = port->sw;
	uint8_t macs[2 * NET_MAC_LEN];
	int to = MAC_NOWHERE;
	uint64_t destination;

	net_gather(macs, packet->iov, packet->nr_iov, 0, sizeof(macs));
	destination = mac_read(macs);
	mac_table_learn(&sw->table, mac_read(macs + NET_MAC_LEN), port->idx, now);
	if (!mac_is_group(destination))
		to = mac_table_find(&sw->table, destination, now);
	if (to == MAC_NOWHERE)
		flood(from, port, packet, touched);
	else if ((unsigned)to != port->idx)
		deliver(from, sw->ports[to], packet, touched);
	else
		net_count_drops(&from->tx.counters, NET_DROP_PORT, 1); /* to itself */
}

static bool transmit(struct net_port *port, struct net_pair *pair)
{
	struct touched touched = { .nr = 0 };
	struct net_tx *tx = &pair->tx;
	unsigned i, nr = net_tx_pop(tx, TX_BATCH);
	uint64_t packets = 0, bytes = 0;
	uint32_t now = nr ? seconds() : 0;

	net_tx_prefetch(tx, nr);
	for (i = 0; i < nr; i++) {
		struct net_packet packet;

		if (!net_tx_open(tx, &tx->chains[i], &packet))
			continue;
		forward(pair, (void *)port, &packet, now, &touched);
		packets++;
		bytes += packet.len;
	}
	for (i = 0; i < touched.nr; i++)
		net_rx_end(&touched.pairs[i]->rx);
	net_tx_finish(tx, nr, nr, packets, bytes);
	return nr;
}

/* The first queue has stopped: a reset, or the end of the guest. */
static void live(struct net_port *port, struct net_pair *pair, bool on)
{
	struct switch_port *sp = (void *)port;

	if (!on && !pair->idx)
		mac_table_flush(&sp->sw->table, sp->idx);
}

static void inject(struct net_port *port, const void *frame, uint32_t len)
{
	struct switch_port *sp = (void *)port;
	struct iovec iov = { (void *)(uintptr_t)frame, len };
	struct net_packet packet = { .len = len, .nr_iov = 1, .iov = &iov };
	struct net_switch *sw = sp->sw;

	mac_table_learn(&sw->table, mac_read((const uint8_t *)frame + NET_MAC_LEN), sp->idx,
			seconds());
	for (unsigned i = 0; i < sw->nr; i++) {
		struct net_pair *to = sw->ports[i] == sp ? NULL : target(sw->ports[i], 0);

		if (!to)
			continue;
		net_rx_queue(&to->rx, &packet, NULL); /* plain: nothing to convert */
		worker_poke(&to->rx_queue);
	}
}

static void free_port(struct net_port *port)
{
	free(port);
}

static const struct net_port_ops ops = {
	.name = "switch",
	.transmit = transmit,
	.live = live,
	.inject = inject,
	.free = free_port,
};

int net_switch_new(struct net_switch **sw)
{
	struct net_switch *s = calloc(1, sizeof(*s));
	int ret = s ? mac_table_init(&s->table) : -ENOMEM;

	if (ret)
		free(s);
	else
		*sw = s;
	return ret;
}

void net_switch_free(struct net_switch *sw)
{
	if (!sw)
		return;
	mac_table_done(&sw->table);
	free(sw);
}

int port_switch_new(struct net_switch *sw, struct net_port **port)
{
	struct switch_port *sp;

	if (sw->nr == PORT_SWITCH_MAX)
		return -E2BIG;
	sp = calloc(1, sizeof(*sp));
	if (!sp)
		return -ENOMEM;
	sp->port.ops = &ops;
	sp->port.features = NET_F_HOST_OFFLOADS | NET_F_GUEST_OFFLOADS;
	sp->sw = sw;
	sp->idx = sw->nr;
	sw->ports[sw->nr++] = sp;
	*port = &sp->port;
	return 0;
}
