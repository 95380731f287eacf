/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Where a device's packets go to and come from. One port for each device; what is called per packet is
 * inside it, here are calls for batches only.
 */
#ifndef NET_PORT_H
#define NET_PORT_H

#include "header.h"

struct net_pair;
struct net_port;

struct net_port_ops {
	const char *name;
	/*
	 * Worker: take a batch of packets from the pair's transmit queue. True: there was something. What
	 * cannot go on now for want of the pair's own receive buffers: see net_pair.stalled.
	 */
	bool (*transmit)(struct net_port *port, struct net_pair *pair);
	/* Worker: a batch of what has come in, to the pair. True: there was something. NULL: all comes by backlogs. */
	bool (*receive)(struct net_port *port, struct net_pair *pair);
	/* Control: the receive queue of @pair starts, or has stopped. May be NULL. */
	void (*live)(struct net_port *port, struct net_pair *pair, bool on);
	/* Control: the pairs are there. 0 or negative errno. May be NULL. */
	int (*begin)(struct net_port *port);
	/* Control: the driver accepts these; the queues are not running. May be NULL. */
	void (*features)(struct net_port *port, uint64_t features);
	/* Control: send this frame, on behalf of the guest. May be NULL. */
	void (*inject)(struct net_port *port, const void *frame, uint32_t len);
	/* Control: no queue is running. NULL is fine for the port. */
	void (*free)(struct net_port *port);
};

/* Embedded in each kind of port. */
struct net_port {
	const struct net_port_ops *ops;
	uint64_t features;      /* offloads that it can take and give: VIRTIO_NET_F_* */
	struct net_pair *pairs; /* of its device */
	unsigned nr_pairs;
};

/* Each: 0 and *@port, or negative errno, and then it is said why. */
int port_loopback_new(struct net_port **port);
/* @copy: packets are copied out of the guest's memory; else they are not even read. */
int port_sink_new(unsigned nr_pairs, bool copy, struct net_port **port);

/* @name: of the interface, existing or not. @queues: IFF_MULTI_QUEUE if more than one. */
int port_tap_new(const char *name, unsigned queues, struct net_port **port);

/* @forwards: [@nr], "tcp::8022-:22"; @mtu: 0 for Ethernet's. */
int port_slirp_new(const char *const *forwards, unsigned nr, unsigned mtu, struct net_port **port);

/* One switch of a process, and its ports, at most PORT_SWITCH_MAX. Free it after them. */
#define PORT_SWITCH_MAX 64
struct net_switch;
int net_switch_new(struct net_switch **sw);
int port_switch_new(struct net_switch *sw, struct net_port **port);
void net_switch_free(struct net_switch *sw);

#endif
