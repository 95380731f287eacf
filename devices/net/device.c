/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The network card. Control context throughout: owns the back end, the queue pairs, the port and the
 * doorbell pages. Virtqueues go to the workers in vring_start until vring_stop; touches no ring and no
 * packet itself.
 *
 * vhost-user leaves the control queue, the link and the guest's address to the front end (QEMU, belfry-vmm): a
 * back end offers what belongs to the data path, and MQ, MTU and GUEST_ANNOUNCE, which front ends offer their
 * guests only if the back end does.
 */
#include <endian.h>
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"
#include "devices/common/log.h"
#include "devices/common/postcopy.h"
#include "devices/common/publish.h"
#include "pair.h"

/* Front ends ask for the length of their own, perhaps newer, structure. */
#define CONFIG_SIZE 256

/* virtio 1.2, 5.1.4.1 */
#define MTU_MIN 68
#define MTU_MAX 65535

/* Not in the headers of every supported system. */
#define F_NOTIFICATION_DATA 38
#define F_RING_RESET        40

struct net_device {
	struct bf_backend *be;
	struct net_port *port;
	struct publisher publisher;
	unsigned mtu_max; /* that NET_SET_MTU may ask for */
	uint8_t config[CONFIG_SIZE];
	unsigned nr_ended; /* connections */
	unsigned nr_pairs;
	struct net_pair *pairs;
};

static uint64_t offered_features(const struct net_device_config *config)
{
	uint64_t features = bf_bit(VIRTIO_F_VERSION_1) | bf_bit(VIRTIO_F_ACCESS_PLATFORM) |
			    bf_bit(VIRTIO_F_RING_PACKED) | bf_bit(VIRTIO_F_IN_ORDER) |
			    bf_bit(F_NOTIFICATION_DATA) | bf_bit(F_RING_RESET) |
			    bf_bit(VIRTIO_RING_F_INDIRECT_DESC) | bf_bit(VIRTIO_RING_F_EVENT_IDX) |
			    bf_bit(VIRTIO_NET_F_MRG_RXBUF) | bf_bit(VIRTIO_NET_F_GUEST_ANNOUNCE);

	if (config->nr_pairs > 1)
		features |= bf_bit(VIRTIO_NET_F_MQ);
	/* The value is the front end's, unless it reads our configuration space. */
	if (!config->offer_config || config->mtu)
		features |= bf_bit(VIRTIO_NET_F_MTU);
	if (config->offer_config)
		features |= bf_bit(VIRTIO_NET_F_STATUS);
	if (config->offer_config && config->has_mac)
		features |= bf_bit(VIRTIO_NET_F_MAC);
	return features | config->port->features;
}

static void fill_config(struct net_device *device, const struct net_device_config *config)
{
	struct virtio_net_config fields = {
		.status = htole16(VIRTIO_NET_S_LINK_UP),
		.max_virtqueue_pairs = htole16((uint16_t)config->nr_pairs),
		.mtu = htole16((uint16_t)config->mtu),
	};

	_Static_assert(sizeof(fields) <= CONFIG_SIZE, "config space is too small");
	memcpy(fields.mac, config->mac, sizeof(fields.mac));
	memcpy(device->config, &fields, sizeof(fields));
}

static int get_config(void *opaque, uint32_t offset, void *data, uint32_t len)
{
	const struct net_device *device = opaque;

	memcpy(data, device->config + offset, len);
	return 0;
}

static int set_features(void *opaque, uint64_t features)
{
	struct net_device *device = opaque;

	if (device->port->ops->features)
		device->port->ops->features(device->port, features);
	return 0;
}

static int set_mtu(void *opaque, uint16_t mtu)
{
	const struct net_device *device = opaque;

	if (mtu >= MTU_MIN && mtu <= device->mtu_max)
		return 0;
	log_warn("front end wants an MTU of %u: expected %u to %u", mtu, MTU_MIN, device->mtu_max);
	return -EINVAL;
}

/* RFC 903, request reverse: "I am here", from the guest that has moved, for switches on the way. */
static int send_rarp(void *opaque, const uint8_t mac[6])
{
	static const uint8_t arp[] = { 0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3 };
	struct net_device *device = opaque;
	uint8_t frame[60] = { 0 };

	memset(frame, 0xff, NET_MAC_LEN);
	memcpy(frame + 6, mac, NET_MAC_LEN);
	memcpy(frame + 12, arp, sizeof(arp));
	memcpy(frame + 22, mac, NET_MAC_LEN); /* sender */
	memcpy(frame + 32, mac, NET_MAC_LEN); /* target: itself */
	if (device->port->ops->inject)
		device->port->ops->inject(device->port, frame, sizeof(frame));
	return 0;
}

static int vring_start(void *opaque, unsigned queue, struct bf_virtq *vq)
{
	struct net_device *device = opaque;
	struct net_pair *pair = &device->pairs[queue / 2];
	uint32_t *word = publisher_word(&device->publisher, queue);
	int ret = net_pair_start(pair, queue, vq, word, bf_backend_features(device->be));

	if (!ret)
		net_pair_set_doorbell(pair, queue,
				      publisher_offer(&device->publisher, device->be, queue, word));
	return ret;
}

static void vring_stop(void *opaque, unsigned queue)
{
	struct net_device *device = opaque;

	net_pair_stop(&device->pairs[queue / 2], queue);
}

/* "The back-end must process the ring without causing any side effects." */
static int vring_enable(void *opaque, unsigned queue, bool enabled)
{
	struct net_device *device = opaque;

	return net_pair_enable(&device->pairs[queue / 2], queue, enabled);
}

static void doorbell_answered(void *opaque, unsigned queue, bool published, int result)
{
	struct net_device *device = opaque;

	if (published)
		net_pair_set_doorbell(&device->pairs[queue / 2], queue,
				      publisher_answered(&device->publisher, queue, result));
}

static void disconnected(void *opaque, int error)
{
	struct net_device *device = opaque;

	(void)error; /* the main loop says it */
	publisher_disconnected(&device->publisher);
	set_features(device, 0);
	device->nr_ended++;
}

#define OPERATIONS                                                                          \
	.vring_start = vring_start, .vring_stop = vring_stop, .vring_enable = vring_enable, \
	.set_features = set_features, .set_mtu = set_mtu, .send_rarp = send_rarp,           \
	.doorbell_answered = doorbell_answered, .disconnected = disconnected

/* QEMU 7.1 to 8.0 crash when a network card has a configuration space. */
static const struct bf_backend_ops ops = { OPERATIONS };
static const struct bf_backend_ops ops_with_config = { OPERATIONS, .get_config = get_config };

static int make_backend(struct net_device *device, const struct net_device_config *config)
{
	const struct bf_backend_config backend_config = {
		.ops = config->offer_config ? &ops_with_config : &ops,
		.opaque = device,
		.name = config->name,
		.nr_queues = 2 * config->nr_pairs,
		.max_queue_size = config->queue_size,
		.config_size = config->offer_config ? CONFIG_SIZE : 0,
		.features = offered_features(config),
		.protocol_features = postcopy_protocol_features(config->postcopy),
		.log = log_sink(),
	};

	return bf_backend_new(&backend_config, &device->be);
}

static int make_pairs(struct net_device *device, const struct net_device_config *config)
{
	int ret = 0;

	device->pairs = aligned_alloc(64, config->nr_pairs * sizeof(*device->pairs));
	if (!device->pairs)
		return -ENOMEM;
	memset(device->pairs, 0, config->nr_pairs * sizeof(*device->pairs));
	device->nr_pairs = config->nr_pairs;
	for (unsigned i = 0; i < config->nr_pairs && !ret; i++) {
		unsigned worker = (config->first_worker + i) % config->nr_workers;

		ret = net_pair_init(&device->pairs[i], i, device->port, config->workers[worker],
				    config->polled);
	}
	device->port->pairs = device->pairs;
	device->port->nr_pairs = config->nr_pairs;
	if (!ret && device->port->ops->begin)
		ret = device->port->ops->begin(device->port);
	return ret;
}

int net_device_new(const struct net_device_config *config, struct net_device **device)
{
	struct net_device *dev = calloc(1, sizeof(*dev));
	int ret;

	if (!dev) {
		config->port->ops->free(config->port);
		log_error("out of memory");
		return -ENOMEM;
	}
	dev->port = config->port;
	dev->mtu_max = config->mtu ? config->mtu : MTU_MAX;
	publisher_init(&dev->publisher, 2 * config->nr_pairs, config->doorbells);
	fill_config(dev, config);
	ret = make_pairs(dev, config);
	if (!ret)
		ret = make_backend(dev, config);
	if (ret) {
		log_error("cannot make the device: %s", strerror(-ret));
		net_device_free(dev);
		return ret;
	}
	*device = dev;
	return 0;
}

void net_device_free(struct net_device *device)
{
	if (!device)
		return;
	bf_backend_free(device->be);
	device->port->ops->free(device->port);
	for (unsigned i = 0; i < device->nr_pairs; i++)
		net_pair_done(&device->pairs[i]);
	free(device->pairs);
	publisher_done(&device->publisher);
	free(device);
}

struct bf_backend *net_device_backend(struct net_device *device)
{
	return device->be;
}

json_t *net_device_stats(const struct net_device *device)
{
	json_t *queues = json_array();

	for (unsigned i = 0; i < device->nr_pairs; i++) {
		if (!net_pair_stats(&device->pairs[i], queues)) {
			json_decref(queues);
			return NULL;
		}
	}
	return json_pack("{s:s, s:b, s:I, s:o}", "port", device->port->ops->name, "connected",
			 bf_backend_attached(device->be), "ended", (json_int_t)device->nr_ended,
			 "queues", queues);
}
