/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The block device: what makes a vhost-user device a disk. Contexts as in vhost_user_device.h.
 *
 * Passes through what the back end says of its disk; only the number of queues in the configuration
 * space is ours, since the guest sets up as many as it reads there.
 */
#include "device_blk.h"

#include <endian.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>

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

struct device_blk {
	struct vhost_user_device *vhost_user;
};

static void adjust_config(uint8_t *config, unsigned nr_queues)
{
	uint16_t value = htole16((uint16_t)nr_queues);

	memcpy(config + offsetof(struct virtio_blk_config, num_queues), &value, sizeof(value));
}

static const struct vhost_user_kind kind = {
	.name = "blk",
	.device_id = VIRTIO_ID_BLOCK,
	.pci_class = PCI_CLASS_STORAGE_OTHER,
	.features = FEATURES,
	.config_size = CONFIG_SIZE,
	.adjust_config = adjust_config,
};

int device_blk_parse(const char *args, struct device_blk_options *o, char *err, size_t err_len)
{
	if (!strncmp(args, "blk,", 4))
		args += 4;
	return vhost_user_options_parse(args, &o->vhost_user, err, err_len);
}

int device_blk_new(struct vm *vm, struct pci_bus *bus, struct event_loop *loop,
		   const struct device_blk_options *o, struct device_blk **out)
{
	struct device_blk *blk = calloc(1, sizeof(*blk));
	int err;

	if (!blk)
		return -ENOMEM;
	err = vhost_user_device_new(vm, bus, loop, &kind, &o->vhost_user, &blk->vhost_user);
	if (err) {
		free(blk);
		return err;
	}
	*out = blk;
	return 0;
}

void device_blk_reset(struct device_blk *blk)
{
	vhost_user_device_reset(blk->vhost_user);
}

void device_blk_free(struct device_blk *blk)
{
	if (!blk)
		return;
	vhost_user_device_free(blk->vhost_user);
	free(blk);
}

json_t *device_blk_stats(struct device_blk *blk)
{
	return vhost_user_device_stats(blk->vhost_user);
}
