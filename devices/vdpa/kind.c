/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The types of virtio devices, as far as a relay has to know them. Control context.
 *
 * Only net has a queue that is not the guest's: its control queue, which the front end serves, while
 * the device's own is driven by this program.
 */
#include "kind.h"

#include <endian.h>
#include <errno.h>
#include <stddef.h>

#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_net.h>

#include <belfry/protocol.h>

#include "devices/common/log.h"

#define F_NOTIFICATION_DATA      38
#define F_NOTIF_CONFIG_DATA      39
#define F_ADMIN_VQ               41
#define NET_F_NOTF_COAL          53
#define NET_F_VQ_NOTF_COAL       52
#define NET_F_GUEST_HDRLEN       59
#define NET_F_OUT_NET_HEADER     54
#define NET_F_RSS_CONTEXT        51

const char *kind_name(unsigned device_id)
{
	static const char *const names[] = {
		[VIRTIO_ID_NET] = "net",       [VIRTIO_ID_BLOCK] = "block",
		[VIRTIO_ID_CONSOLE] = "console", [VIRTIO_ID_RNG] = "rng",
		[VIRTIO_ID_BALLOON] = "balloon", [VIRTIO_ID_SCSI] = "scsi",
		[VIRTIO_ID_9P] = "9p",         [VIRTIO_ID_RPROC_SERIAL] = "rproc-serial",
		[VIRTIO_ID_CAIF] = "caif",     [VIRTIO_ID_GPU] = "gpu",
		[VIRTIO_ID_INPUT] = "input",   [VIRTIO_ID_VSOCK] = "vsock",
		[VIRTIO_ID_CRYPTO] = "crypto", [VIRTIO_ID_FS] = "fs",
	};

	return device_id < sizeof(names) / sizeof(names[0]) ? names[device_id] : NULL;
}

/*
 * Between platform and device, not the guest's: its addresses are translated by our DMA map, and the
 * order of its stores is that of this machine either way.
 */
static uint64_t platform_features(void)
{
	return bf_bit(VIRTIO_F_ACCESS_PLATFORM) | bf_bit(VIRTIO_F_ORDER_PLATFORM);
}

/*
 * Never the guest's. A relayed kick carries no data, so notifications must not either. Administration
 * and virtual functions belong to the host.
 */
static uint64_t withheld_features(void)
{
	return platform_features() | bf_bit(F_NOTIFICATION_DATA) | bf_bit(F_NOTIF_CONFIG_DATA) |
	       bf_bit(F_ADMIN_VQ) | bf_bit(VIRTIO_F_SR_IOV);
}

/* What a net device does on commands of its control queue, which is not the guest's. */
static uint64_t ctrl_features(void)
{
	return bf_bit(VIRTIO_NET_F_CTRL_VQ) | bf_bit(VIRTIO_NET_F_CTRL_RX) |
	       bf_bit(VIRTIO_NET_F_CTRL_VLAN) | bf_bit(VIRTIO_NET_F_CTRL_RX_EXTRA) |
	       bf_bit(VIRTIO_NET_F_CTRL_MAC_ADDR) | bf_bit(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) |
	       bf_bit(VIRTIO_NET_F_GUEST_ANNOUNCE) | bf_bit(VIRTIO_NET_F_RSS) |
	       bf_bit(VIRTIO_NET_F_HASH_REPORT) | bf_bit(NET_F_NOTF_COAL) |
	       bf_bit(NET_F_VQ_NOTF_COAL) | bf_bit(NET_F_RSS_CONTEXT) |
	       bf_bit(VIRTIO_NET_F_STANDBY);
}

static unsigned net_pairs(const struct virtio_pci *vp)
{
	uint16_t pairs;
	uint64_t both = bf_bit(VIRTIO_NET_F_MQ) | bf_bit(VIRTIO_NET_F_CTRL_VQ);

	if ((virtio_pci_features(vp) & both) != both ||
	    virtio_pci_config_read(vp, offsetof(struct virtio_net_config, max_virtqueue_pairs),
				   &pairs, sizeof(pairs)))
		return 1;
	pairs = le16toh(pairs);
	return pairs ? pairs : 1;
}

static unsigned data_queues(const struct virtio_pci *vp)
{
	unsigned all = virtio_pci_nr_queues(vp), data = all;

	if (virtio_pci_device_id(vp) == VIRTIO_ID_NET && data > 2 * net_pairs(vp))
		data = 2 * net_pairs(vp);
	return data;
}

int kind_of(const struct virtio_pci *vp, unsigned nr_vectors, struct kind *kind)
{
	unsigned id = virtio_pci_device_id(vp);
	bool net = id == VIRTIO_ID_NET;
	unsigned queues = data_queues(vp);
	unsigned limit = nr_vectors - 1; /* one is for configuration changes */

	if (limit > BF_MAX_QUEUES)
		limit = BF_MAX_QUEUES;
	if (queues > limit) {
		log_warn("the device has %u data queues and %u MSI-X vectors: offering %u queues",
			 queues, nr_vectors, limit);
		queues = limit;
	}
	if (net)
		queues &= ~1u;
	if (!queues) {
		log_error("expected a device with %s and an MSI-X vector for each, found %u queues "
			  "and %u vectors",
			  net ? "a receive and a transmit queue" : "a queue",
			  virtio_pci_nr_queues(vp), nr_vectors);
		return -ENODEV;
	}
	kind->device_id = id;
	kind->name = kind_name(id) ? kind_name(id) : "virtio";
	kind->nr_queues = queues;
	kind->ordered = net;
	kind->queues_by_pair = net;
	kind->features = virtio_pci_features(vp) & ~withheld_features();
	if (net)
		kind->features &= ~ctrl_features();
	if (net && queues == 2)
		kind->features &= ~bf_bit(VIRTIO_NET_F_MQ);
	return 0;
}

/*
 * RING_RESET is accepted for our own use: to stop one queue without the others, which the driver
 * need not know. The control queue is only for the number of pairs.
 */
uint64_t kind_device_features(const struct kind *kind, uint64_t offered, uint64_t driver)
{
	uint64_t ours = platform_features() | bf_bit(VIRTIO_F_RING_RESET);

	if (kind->queues_by_pair && bf_has(driver, VIRTIO_NET_F_MQ))
		ours |= bf_bit(VIRTIO_NET_F_CTRL_VQ);
	return driver | (offered & ours);
}

/* Virtio 1.2, 5.1.2: the control queue comes after all pairs that MQ makes possible. */
unsigned kind_ctrl_queue(const struct kind *kind, const struct virtio_pci *vp, uint64_t features)
{
	if (!kind->queues_by_pair || !bf_has(features, VIRTIO_NET_F_MQ) ||
	    !bf_has(features, VIRTIO_NET_F_CTRL_VQ))
		return KIND_NO_QUEUE;
	return 2 * net_pairs(vp);
}

unsigned kind_full_set(const struct kind *kind, uint64_t driver)
{
	bool several;

	if (kind->device_id == VIRTIO_ID_NET) {
		several = bf_has(driver, VIRTIO_NET_F_MQ);
		return several ? kind->nr_queues : 2;
	}
	if (kind->device_id == VIRTIO_ID_BLOCK && !bf_has(driver, VIRTIO_BLK_F_MQ))
		return 1;
	return kind->nr_queues;
}
