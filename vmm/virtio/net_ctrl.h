/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The commands of a network device's control queue (virtio 1.2, 5.1.6.5): parsed, checked, and
 * carried out on a structure. Pure but for the one operation that leads outside.
 *
 * Nothing here filters packets: the data path is the back end's, and vhost-user has no message for
 * filters. Filters of a virtio network device are best effort (5.1.6.5.2), so a device that passes
 * more than was asked for is one that a driver has to cope with.
 */
#ifndef VMM_NET_CTRL_H
#define VMM_NET_CTRL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

/* What the driver has asked for. */
struct net_ctrl {
	uint8_t mac[6];
	unsigned nr_pairs; /* in use */
	bool promisc, allmulti, alluni, nomulti, nouni, nobcast;
	uint32_t nr_unicast, nr_multicast; /* addresses in its filter table */
	bool announce;                     /* VIRTIO_NET_S_ANNOUNCE is shown */
	uint64_t nr_commands, nr_refused;
};

struct net_ctrl_limits {
	uint64_t features; /* accepted by the driver */
	unsigned max_pairs;
	/* Have @nr queue pairs enabled, and no more. Non-zero: it did not work. */
	int (*set_pairs)(void *opaque, unsigned nr);
	void *opaque;
};

/*
 * Carry out the command in @iov[@nr], memory of the guest: every byte is read once. VIRTIO_NET_OK;
 * VIRTIO_NET_ERR and nothing changed, for a command that is unknown, not negotiated, out of range,
 * or not of exactly its length.
 */
uint8_t net_ctrl_run(struct net_ctrl *ctrl, const struct net_ctrl_limits *limits,
		     const struct iovec *iov, unsigned nr);

/* As after a reset of the device. */
void net_ctrl_reset(struct net_ctrl *ctrl, const uint8_t mac[6]);

#endif
