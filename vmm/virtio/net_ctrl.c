/* SPDX-License-Identifier: BSD-3-Clause */
/* The commands of the control queue; see net_ctrl.h. On whatever context owns the structure. */
#include "net_ctrl.h"

#include <endian.h>
#include <stddef.h>
#include <string.h>

#include <linux/virtio_net.h>

#define MAC_LEN 6

/* What is left of a command that lies in pieces. */
struct reader {
	const struct iovec *iov;
	unsigned nr;
	size_t at; /* in iov[0] */
	uint64_t left;
};

static void reader_init(struct reader *r, const struct iovec *iov, unsigned nr)
{
	unsigned i;

	*r = (struct reader){ .iov = iov, .nr = nr };
	for (i = 0; i < nr; i++)
		r->left += iov[i].iov_len;
}

/* Go on by @len bytes, copied to @to unless it is NULL. False, and nothing done: there are not as many. */
static bool take(struct reader *r, void *to, uint64_t len)
{
	uint8_t *out = to;

	if (len > r->left)
		return false;
	r->left -= len;
	while (len) {
		size_t here = r->iov->iov_len - r->at;
		size_t n = here < len ? here : (size_t)len;

		if (out) {
			memcpy(out, (const uint8_t *)r->iov->iov_base + r->at, n);
			out += n;
		}
		len -= n;
		r->at += n;
		if (r->at == r->iov->iov_len) {
			r->iov++;
			r->at = 0;
		}
	}
	return true;
}

static bool take_all(struct reader *r, void *to, uint64_t len)
{
	return r->left == len && take(r, to, len);
}

static bool has(const struct net_ctrl_limits *limits, unsigned bit)
{
	return limits->features >> bit & 1;
}

static bool rx_mode(struct net_ctrl *ctrl, const struct net_ctrl_limits *limits, uint8_t cmd,
		    struct reader *r)
{
	bool *const flags[] = { &ctrl->promisc, &ctrl->allmulti, &ctrl->alluni,
				&ctrl->nomulti, &ctrl->nouni,    &ctrl->nobcast };
	unsigned feature = cmd <= VIRTIO_NET_CTRL_RX_ALLMULTI ? VIRTIO_NET_F_CTRL_RX :
								VIRTIO_NET_F_CTRL_RX_EXTRA;
	uint8_t on;

	if (cmd >= sizeof(flags) / sizeof(flags[0]) || !has(limits, feature) ||
	    !take_all(r, &on, sizeof(on)))
		return false;
	*flags[cmd] = on;
	return true;
}

/* The addresses themselves are nobody's concern here; that there are as many as it says is. */
static bool take_table(struct reader *r, uint32_t *nr)
{
	uint32_t entries;

	if (!take(r, &entries, sizeof(entries)))
		return false;
	*nr = le32toh(entries);
	return take(r, NULL, (uint64_t)*nr * MAC_LEN);
}

static bool set_table(struct net_ctrl *ctrl, struct reader *r)
{
	uint32_t nr_unicast, nr_multicast;

	if (!take_table(r, &nr_unicast) || !take_table(r, &nr_multicast) || r->left)
		return false;
	ctrl->nr_unicast = nr_unicast;
	ctrl->nr_multicast = nr_multicast;
	return true;
}

static bool set_address(struct net_ctrl *ctrl, struct reader *r)
{
	uint8_t mac[MAC_LEN];

	/* An address of a group is nobody's own. */
	if (!take_all(r, mac, sizeof(mac)) || mac[0] & 1)
		return false;
	memcpy(ctrl->mac, mac, sizeof(mac));
	return true;
}

static bool address(struct net_ctrl *ctrl, const struct net_ctrl_limits *limits, uint8_t cmd,
		    struct reader *r)
{
	switch (cmd) {
	case VIRTIO_NET_CTRL_MAC_TABLE_SET:
		return has(limits, VIRTIO_NET_F_CTRL_RX) && set_table(ctrl, r);
	case VIRTIO_NET_CTRL_MAC_ADDR_SET:
		return has(limits, VIRTIO_NET_F_CTRL_MAC_ADDR) && set_address(ctrl, r);
	default:
		return false;
	}
}

static bool announced(struct net_ctrl *ctrl, const struct net_ctrl_limits *limits, uint8_t cmd,
		      const struct reader *r)
{
	if (cmd != VIRTIO_NET_CTRL_ANNOUNCE_ACK || !has(limits, VIRTIO_NET_F_GUEST_ANNOUNCE) ||
	    r->left)
		return false;
	ctrl->announce = false;
	return true;
}

static bool set_pairs(struct net_ctrl *ctrl, const struct net_ctrl_limits *limits, uint8_t cmd,
		      struct reader *r)
{
	uint16_t wire;
	unsigned nr;

	if (cmd != VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET || !has(limits, VIRTIO_NET_F_MQ) ||
	    !take_all(r, &wire, sizeof(wire)))
		return false;
	nr = le16toh(wire);
	if (nr < VIRTIO_NET_CTRL_MQ_VQ_PAIRS_MIN || nr > limits->max_pairs ||
	    limits->set_pairs(limits->opaque, nr))
		return false;
	ctrl->nr_pairs = nr;
	return true;
}

static bool run(struct net_ctrl *ctrl, const struct net_ctrl_limits *limits, struct reader *r)
{
	struct virtio_net_ctrl_hdr hdr;

	if (!take(r, &hdr, sizeof(hdr)))
		return false;
	switch (hdr.class) {
	case VIRTIO_NET_CTRL_RX:
		return rx_mode(ctrl, limits, hdr.cmd, r);
	case VIRTIO_NET_CTRL_MAC:
		return address(ctrl, limits, hdr.cmd, r);
	case VIRTIO_NET_CTRL_ANNOUNCE:
		return announced(ctrl, limits, hdr.cmd, r);
	case VIRTIO_NET_CTRL_MQ:
		return set_pairs(ctrl, limits, hdr.cmd, r);
	default:
		return false;
	}
}

uint8_t net_ctrl_run(struct net_ctrl *ctrl, const struct net_ctrl_limits *limits,
		     const struct iovec *iov, unsigned nr)
{
	struct reader r;
	bool ok;

	reader_init(&r, iov, nr);
	ok = run(ctrl, limits, &r);
	ctrl->nr_commands++;
	ctrl->nr_refused += !ok;
	return ok ? VIRTIO_NET_OK : VIRTIO_NET_ERR;
}

void net_ctrl_reset(struct net_ctrl *ctrl, const uint8_t mac[6])
{
	*ctrl = (struct net_ctrl){ .nr_pairs = 1,
				   .nr_commands = ctrl->nr_commands,
				   .nr_refused = ctrl->nr_refused };
	memcpy(ctrl->mac, mac, sizeof(ctrl->mac));
}
