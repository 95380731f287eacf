/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The network device: queue pairs are the back end's, everything around them is served here: address,
 * link status, announcements, the control queue. Contexts as in vhost_user_device.h.
 *
 * All pairs that the driver sets up are started with the device; the first is enabled, the others
 * when the driver asks for them by the control queue. The control queue comes after the pairs that
 * the driver knows of (virtio 1.2, 5.1.2): after all with VIRTIO_NET_F_MQ, after the first without.
 *
 * The link is up while a back end is connected, can serve the queues and, if it says so itself, has a
 * link. After a reconnection the guest announces itself, since switches may have learnt that it is elsewhere.
 */
#include "device_net.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include <linux/virtio_ids.h>
#include <linux/virtio_net.h>

#include "net_ctrl.h"
#include "net_ctrl_queue.h"
#include "vhost_user_internal.h"

#define PCI_CLASS_NETWORK_ETHERNET 0x020000

#define MAC_LEN   6
#define MAX_PAIRS (BF_MAX_QUEUES / 2)
#define MIN_MTU   68 /* 5.1.4.1 */

/* Shown: up to the MTU. Asked for: the address and the status, which every back end has. */
#define CONFIG_SIZE  (offsetof(struct virtio_net_config, mtu) + sizeof(uint16_t))
#define CONFIG_ASKED (offsetof(struct virtio_net_config, status) + sizeof(uint16_t))

#define BIT(nr) (1ull << (nr))

#define F_GUEST_USO4 54 /* not in the headers of every supported system */
#define F_GUEST_USO6 55
#define F_HOST_USO   56

/*
 * The data path's, the back end's to offer. Not: CTRL_GUEST_OFFLOADS, RSS, HASH_REPORT and
 * notification coalescing, whose commands nobody could tell the back end.
 */
#define DATA_FEATURES                                                                         \
	(BIT(VIRTIO_NET_F_CSUM) | BIT(VIRTIO_NET_F_GUEST_CSUM) | BIT(VIRTIO_NET_F_GUEST_TSO4) | \
	 BIT(VIRTIO_NET_F_GUEST_TSO6) | BIT(VIRTIO_NET_F_GUEST_ECN) |                         \
	 BIT(VIRTIO_NET_F_GUEST_UFO) | BIT(VIRTIO_NET_F_HOST_TSO4) |                          \
	 BIT(VIRTIO_NET_F_HOST_TSO6) | BIT(VIRTIO_NET_F_HOST_ECN) |                           \
	 BIT(VIRTIO_NET_F_HOST_UFO) | BIT(VIRTIO_NET_F_MRG_RXBUF) | BIT(F_GUEST_USO4) |       \
	 BIT(F_GUEST_USO6) | BIT(F_HOST_USO))

/* Served here alone. MQ and MTU are too, but a back end that offers them is told. */
#define KEPT_FEATURES                                                                          \
	(BIT(VIRTIO_NET_F_MAC) | BIT(VIRTIO_NET_F_STATUS) | BIT(VIRTIO_NET_F_CTRL_VQ) |        \
	 BIT(VIRTIO_NET_F_CTRL_RX) | BIT(VIRTIO_NET_F_CTRL_RX_EXTRA) |                         \
	 BIT(VIRTIO_NET_F_CTRL_MAC_ADDR) | BIT(VIRTIO_NET_F_GUEST_ANNOUNCE))

struct device_net {
	uint8_t mac[MAC_LEN]; /* what a reset goes back to */
	bool link;            /* of the back end, as far as it says */
	struct net_ctrl ctrl;
	struct net_ctrl_queue *queue;
};

static struct device_net *net_of(const struct vhost_user_device *device)
{
	return device->model;
}

static unsigned nr_pairs(const struct vhost_user_device *device)
{
	return device->options.nr_queues / 2;
}

static bool accepted(const struct vhost_user_device *device, unsigned bit)
{
	return bf_has(device->vdev.driver_features, bit);
}

static uint64_t features(struct vhost_user_device *device)
{
	uint64_t offered = KEPT_FEATURES;

	if (nr_pairs(device) > 1)
		offered |= BIT(VIRTIO_NET_F_MQ);
	if (device->options.net.mtu)
		offered |= BIT(VIRTIO_NET_F_MTU);
	return offered;
}

static bool link_of(const struct vhost_user_device *device, const uint8_t *theirs)
{
	uint16_t status;

	if (!theirs || !bf_has(bf_frontend_features(device->frontend), VIRTIO_NET_F_STATUS))
		return true;
	memcpy(&status, theirs + offsetof(struct virtio_net_config, status), sizeof(status));
	return le16toh(status) & VIRTIO_NET_S_LINK_UP;
}

static void config(struct vhost_user_device *device, const uint8_t *theirs, uint8_t *shown)
{
	struct device_net *net = net_of(device);
	struct virtio_net_config c = { .mtu = htole16(device->options.net.mtu) };
	uint16_t status;

	net->link = device->connected && device->state != VHOST_USER_NEEDS_RESET &&
		    link_of(device, theirs);
	status = net->link ? VIRTIO_NET_S_LINK_UP : 0;
	if (net->ctrl.announce)
		status |= VIRTIO_NET_S_ANNOUNCE;
	memcpy(c.mac, net->ctrl.mac, sizeof(c.mac));
	c.status = htole16(status);
	c.max_virtqueue_pairs = htole16((uint16_t)nr_pairs(device));
	memcpy(shown, &c, CONFIG_SIZE);
}

static void connection(struct vhost_user_device *device, bool up)
{
	net_of(device)->ctrl.announce = up && device->state == VHOST_USER_RUNNING &&
					accepted(device, VIRTIO_NET_F_GUEST_ANNOUNCE);
	vhost_user_rebuild_config(device);
	vhost_user_config_interrupt(device);
}

static int own_queue(struct vhost_user_device *device)
{
	if (!accepted(device, VIRTIO_NET_F_CTRL_VQ))
		return -1;
	return accepted(device, VIRTIO_NET_F_MQ) ? (int)device->options.nr_queues : 2;
}

static int own_start(struct vhost_user_device *device, unsigned queue)
{
	return net_ctrl_queue_start(net_of(device)->queue, &device->vdev.queues[queue],
				    device->vdev.driver_features);
}

static void own_stop(struct vhost_user_device *device)
{
	net_ctrl_queue_stop(net_of(device)->queue);
}

static bool enabled(struct vhost_user_device *device, unsigned queue)
{
	return queue < 2 * net_of(device)->ctrl.nr_pairs;
}

static void reset(struct vhost_user_device *device)
{
	struct device_net *net = net_of(device);

	net_ctrl_reset(&net->ctrl, net->mac);
	vhost_user_rebuild_config(device);
}

/* Those that go first: what could not be enabled is not used yet. */
static int set_pairs(void *opaque, unsigned nr)
{
	struct vhost_user_device *device = opaque;
	unsigned before = net_of(device)->ctrl.nr_pairs;

	if (nr < before)
		return vhost_user_enable_queues(device, 2 * nr, 2 * before, false);
	return vhost_user_enable_queues(device, 2 * before, 2 * nr, true);
}

static uint8_t command(void *opaque, const struct iovec *iov, unsigned nr)
{
	struct vhost_user_device *device = opaque;
	const struct net_ctrl_limits limits = { .features = device->vdev.driver_features,
						.max_pairs = nr_pairs(device),
						.set_pairs = set_pairs,
						.opaque = device };
	uint8_t answer = net_ctrl_run(&net_of(device)->ctrl, &limits, iov, nr);

	/* The address, and whether an announcement is due. */
	vhost_user_rebuild_config(device);
	return answer;
}

static void broken(void *opaque, const char *why)
{
	struct vhost_user_device *device = opaque;

	report_limited(&device->limit, "%s: control queue: %s", device->name, why);
	vhost_user_needs_reset(device);
}

static int random_mac(uint8_t mac[MAC_LEN])
{
	if (getrandom(mac, MAC_LEN, 0) != MAC_LEN)
		return -errno;
	mac[0] = (uint8_t)((mac[0] & ~1u) | 2); /* one station's, locally administered */
	return 0;
}

/* The one that was given; else the back end's, since hardware may filter by it; else any. */
static int choose_mac(struct vhost_user_device *device, uint8_t mac[MAC_LEN])
{
	uint8_t theirs[CONFIG_ASKED];

	if (device->options.net.has_mac) {
		memcpy(mac, device->options.net.mac, MAC_LEN);
		return 0;
	}
	if (bf_has(bf_frontend_features(device->frontend), VIRTIO_NET_F_MAC) &&
	    !bf_frontend_get_config(device->frontend, 0, theirs, sizeof(theirs)) &&
	    !(theirs[0] & 1)) {
		memcpy(mac, theirs, MAC_LEN);
		return 0;
	}
	return random_mac(mac);
}

static int create(struct vhost_user_device *device)
{
	const struct net_ctrl_queue_config queue = { .vm = device->vm,
						     .loop = device->loop,
						     .lock = &device->vdev.lock,
						     .command = command,
						     .broken = broken,
						     .opaque = device };
	struct device_net *net = calloc(1, sizeof(*net));
	int err = net ? choose_mac(device, net->mac) : -ENOMEM;

	if (!err)
		err = net_ctrl_queue_new(&queue, &net->queue);
	if (err) {
		free(net);
		return err;
	}
	net_ctrl_reset(&net->ctrl, net->mac);
	device->model = net;
	return 0;
}

static void destroy(struct vhost_user_device *device)
{
	net_ctrl_queue_free(net_of(device)->queue);
	free(net_of(device));
	device->model = NULL;
}

static void stats(struct vhost_user_device *device, json_t *out)
{
	const struct device_net *net = net_of(device);
	const struct net_ctrl *ctrl = &net->ctrl;
	char mac[3 * MAC_LEN];

	snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", ctrl->mac[0], ctrl->mac[1],
		 ctrl->mac[2], ctrl->mac[3], ctrl->mac[4], ctrl->mac[5]);
	json_object_set_new(out, "link", json_string(net->link ? "up" : "down"));
	json_object_set_new(out, "mac", json_string(mac));
	json_object_set_new(out, "pairs", json_integer(ctrl->nr_pairs));
	json_object_set_new(out, "control",
			    json_pack("{s:i, s:I, s:I, s:b, s:b, s:b}", "queue", own_queue(device),
				      "commands", (json_int_t)ctrl->nr_commands, "refused",
				      (json_int_t)ctrl->nr_refused, "promisc", (int)ctrl->promisc,
				      "allmulti", (int)ctrl->allmulti, "announce",
				      (int)ctrl->announce));
}

static int set_queues(const char *key, const char *value, struct vhost_user_options *o,
		      const struct vhost_user_sentence *said)
{
	unsigned pairs;
	int err = vhost_user_option_number(key, value, 1, MAX_PAIRS, &pairs, said);

	if (!err)
		o->nr_queues = 2 * pairs;
	return err;
}

static int set_mac(const char *key, const char *value, struct vhost_user_options *o,
		   const struct vhost_user_sentence *said)
{
	unsigned b[MAC_LEN], i;
	int end = 0;

	if (sscanf(value, "%2x:%2x:%2x:%2x:%2x:%2x%n", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5],
		   &end) != MAC_LEN ||
	    end != 3 * MAC_LEN - 1 || value[end] || strcspn(value, " +-xX") != (size_t)end)
		return vhost_user_option_refuse(
			said, "%s=%s: expected six bytes as in 52:54:00:12:34:56", key, value);
	if (b[0] & 1)
		return vhost_user_option_refuse(
			said, "%s=%s: this is the address of a group; the first byte must be even",
			key, value);
	for (i = 0; i < MAC_LEN; i++)
		o->net.mac[i] = (uint8_t)b[i];
	o->net.has_mac = true;
	return 0;
}

static int set_mtu(const char *key, const char *value, struct vhost_user_options *o,
		   const struct vhost_user_sentence *said)
{
	unsigned mtu;
	int err = vhost_user_option_number(key, value, MIN_MTU, UINT16_MAX, &mtu, said);

	if (!err)
		o->net.mtu = (uint16_t)mtu;
	return err;
}

static const struct vhost_user_key keys[] = {
	{ "queues", set_queues },
	{ "mac", set_mac },
	{ "mtu", set_mtu },
};

static const struct vhost_user_kind_ops ops = {
	.create = create,
	.destroy = destroy,
	.features = features,
	.config = config,
	.own_queue = own_queue,
	.own_start = own_start,
	.own_stop = own_stop,
	.enabled = enabled,
	.reset = reset,
	.connection = connection,
	.stats = stats,
};

const struct vhost_user_kind device_net_kind = {
	.name = "net",
	.device_id = VIRTIO_ID_NET,
	.pci_class = PCI_CLASS_NETWORK_ETHERNET,
	.features = DATA_FEATURES,
	.kept = KEPT_FEATURES,
	.config_size = CONFIG_SIZE,
	.config_asked = CONFIG_ASKED,
	.reconnect = true,
	.default_queues = 2,
	.nr_own_queues = 1,
	.queues_key = "queues",
	.keys = keys,
	.nr_keys = sizeof(keys) / sizeof(keys[0]),
	.ops = &ops,
};
