/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The block device: what makes a vhost-user device a disk. Contexts as in vhost_user_device.h.
 *
 * Passes through what the back end says of its disk; only the number of queues in the configuration
 * space is ours, since the guest sets up as many as it reads there.
 *
 * Reconnection has to be asked for. A disk whose back end died may have lost writes that it had
 * acknowledged and not yet flushed, and may not be the same disk when it comes back; the guest could
 * not tell. Who knows the back end better says reconnect=on.
 */
#include "device_blk.h"

#include <endian.h>
#include <stddef.h>
#include <string.h>

#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>

#include "vhost_user_internal.h"

#define PCI_CLASS_STORAGE_OTHER 0x018000

/* Up to the fields of write zeroes: what every back end of today has. */
#define CONFIG_SIZE 60

#define BIT(nr) (1ull << (nr))

/*
 * Not: BARRIER and SCSI of the legacy interface (SCSI commands from the guest were a hole more than
 * once); SECURE_ERASE and what came later, whose fields lie beyond CONFIG_SIZE.
 */
#define FEATURES                                                                               \
	(BIT(VIRTIO_BLK_F_SIZE_MAX) | BIT(VIRTIO_BLK_F_SEG_MAX) | BIT(VIRTIO_BLK_F_GEOMETRY) | \
	 BIT(VIRTIO_BLK_F_RO) | BIT(VIRTIO_BLK_F_BLK_SIZE) | BIT(VIRTIO_BLK_F_FLUSH) |         \
	 BIT(VIRTIO_BLK_F_TOPOLOGY) | BIT(VIRTIO_BLK_F_CONFIG_WCE) | BIT(VIRTIO_BLK_F_MQ) |    \
	 BIT(VIRTIO_BLK_F_DISCARD) | BIT(VIRTIO_BLK_F_WRITE_ZEROES))

/* While no back end says anything the guest goes on reading what the last one said. */
static void config(struct vhost_user_device *device, const uint8_t *theirs, uint8_t *shown)
{
	uint16_t nr_queues = htole16((uint16_t)device->options.nr_queues);

	if (!theirs)
		return;
	memcpy(shown, theirs, CONFIG_SIZE);
	memcpy(shown + offsetof(struct virtio_blk_config, num_queues), &nr_queues,
	       sizeof(nr_queues));
}

static int set_num_queues(const char *key, const char *value, struct vhost_user_options *o,
			  const struct vhost_user_sentence *said)
{
	return vhost_user_option_number(key, value, 1, BF_MAX_QUEUES, &o->nr_queues, said);
}

static const struct vhost_user_key keys[] = { { "num-queues", set_num_queues } };

static const struct vhost_user_kind_ops ops = { .config = config };

const struct vhost_user_kind device_blk_kind = {
	.name = "blk",
	.device_id = VIRTIO_ID_BLOCK,
	.pci_class = PCI_CLASS_STORAGE_OTHER,
	.features = FEATURES,
	.config_size = CONFIG_SIZE,
	.config_asked = CONFIG_SIZE,
	.needs_config = true,
	.exact = true,
	.default_queues = 1,
	.queues_key = "num-queues",
	.keys = keys,
	.nr_keys = 1,
	.ops = &ops,
};
