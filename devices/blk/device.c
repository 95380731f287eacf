/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The disk. Control context throughout: owns the back end, the queues and the doorbell pages, and
 * hands a virtqueue to its queue thread in vring_start until vring_stop. Touches no ring and no
 * guest memory itself.
 */
#include <endian.h>
#include <errno.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"
#include "devices/common/doorbell.h"
#include "devices/common/log.h"
#include "devices/common/stats.h"
#include "queue.h"

/*
 * Front ends ask for the length of their own, perhaps newer, structure. Fields whose feature is not
 * offered read as zero, as do those not known here.
 */
#define CONFIG_SIZE 256

struct blk_device {
	struct bf_backend *be;
	struct blk_disk disk;
	struct blk_queue_env env;
	uint8_t config[CONFIG_SIZE];
	bool doorbells;
	bool no_doorbells_said; /* once per connection */
	bool refusal_said;
	struct doorbell_pages pages;
	unsigned nr_ended; /* connections */
	unsigned nr_queues;
	struct blk_queue *queues[]; /* [nr_queues] */
};

static uint64_t offered_features(const struct blk_device_config *config)
{
	uint64_t features = bf_bit(VIRTIO_F_VERSION_1) | bf_bit(VIRTIO_RING_F_INDIRECT_DESC) |
			    bf_bit(VIRTIO_RING_F_EVENT_IDX) | bf_bit(VIRTIO_BLK_F_SEG_MAX) |
			    bf_bit(VIRTIO_BLK_F_BLK_SIZE) | bf_bit(VIRTIO_BLK_F_TOPOLOGY) |
			    bf_bit(VIRTIO_BLK_F_FLUSH) | bf_bit(VIRTIO_BLK_F_MQ);

	if (config->image->read_only)
		features |= bf_bit(VIRTIO_BLK_F_RO);
	return features;
}

static unsigned log2_of(uint32_t power)
{
	return (unsigned)__builtin_ctz(power);
}

/* Two descriptors are for header and status. */
static uint32_t seg_max(unsigned queue_size)
{
	return queue_size - 2 < BLK_SEG_MAX ? queue_size - 2 : BLK_SEG_MAX;
}

static void fill_config(struct blk_device *device, const struct blk_device_config *config)
{
	const struct blk_image *image = config->image;
	uint32_t physical = image->physical_size / BLK_SECTOR_SIZE;
	struct virtio_blk_config fields = {
		.capacity = htole64(image->nr_sectors),
		.seg_max = htole32(seg_max(config->queue_size)),
		.blk_size = htole32(BLK_SECTOR_SIZE),
		.physical_block_exp = (uint8_t)log2_of(physical),
		.min_io_size = htole16((uint16_t)physical),
		.opt_io_size = htole32(image->optimal_size / BLK_SECTOR_SIZE),
		.num_queues = htole16((uint16_t)config->nr_queues),
	};

	_Static_assert(sizeof(fields) <= CONFIG_SIZE, "config space is too small");
	memcpy(device->config, &fields, sizeof(fields));
}

static int get_config(void *opaque, uint32_t offset, void *data, uint32_t len)
{
	struct blk_device *device = opaque;

	memcpy(data, device->config + offset, len);
	return 0;
}

static int set_features(void *opaque, uint64_t features)
{
	struct blk_device *device = opaque;

	/* virtio 1.2, 5.2.6.2: who cannot flush must be able to rely on a finished write. */
	device->env.durable_writes = !bf_has(features, VIRTIO_BLK_F_FLUSH);
	return 0;
}

/* The word for @queue to watch, or NULL if there is none. */
static uint32_t *doorbell_for(struct blk_device *device, unsigned queue)
{
	uint32_t *word;
	int ret;

	if (!device->doorbells)
		return NULL;
	if (!doorbell_pages_exist(&device->pages)) {
		ret = doorbell_pages_init(&device->pages, device->nr_queues);
		if (ret) {
			log_warn("no doorbell pages: %s; queues are served by eventfd",
				 strerror(-ret));
			return NULL;
		}
	}
	word = doorbell_word(&device->pages, queue);
	doorbell_reset(word);
	return word;
}

static void publish(struct blk_device *device, unsigned queue)
{
	int ret = bf_backend_publish_doorbell(device->be, queue, device->pages.fd,
					      doorbell_offset(&device->pages, queue));

	if (!ret)
		return;
	blk_queue_set_doorbell(device->queues[queue], DOORBELL_REFUSED);
	if (ret == -EOPNOTSUPP && !device->no_doorbells_said) {
		log_warn("front end does not know doorbell pages (HOST_NOTIFIER was not agreed): "
			 "all queues served by eventfd");
		device->no_doorbells_said = true;
	} else if (ret != -EOPNOTSUPP) {
		log_warn("queue %u: doorbell page not offered: %s; served by eventfd", queue,
			 strerror(-ret));
	}
}

static int vring_start(void *opaque, unsigned queue, struct bf_virtq *vq)
{
	struct blk_device *device = opaque;
	uint32_t *word = doorbell_for(device, queue);
	int ret = blk_queue_start(device->queues[queue], vq, word);

	if (!ret && word)
		publish(device, queue);
	else if (!ret && device->doorbells)
		blk_queue_set_doorbell(device->queues[queue], DOORBELL_REFUSED);
	return ret;
}

static void vring_stop(void *opaque, unsigned queue)
{
	struct blk_device *device = opaque;

	blk_queue_stop(device->queues[queue]);
}

static void doorbell_answered(void *opaque, unsigned queue, bool published, int result)
{
	struct blk_device *device = opaque;

	if (!published)
		return;
	blk_queue_set_doorbell(device->queues[queue], result ? DOORBELL_REFUSED : DOORBELL_MAPPED);
	if (!result) {
		log_info("queue %u: doorbell page mapped", queue);
		return;
	}
	log_warn("queue %u: front end refused the doorbell page%s: served by eventfd", queue,
		 device->refusal_said ? "" : " (QEMU: page-per-vq=on is needed)");
	device->refusal_said = true;
}

static void disconnected(void *opaque, int error)
{
	struct blk_device *device = opaque;

	(void)error; /* the main loop says it */
	/* The old front end may still hold the pages, see doorbell.c. */
	doorbell_pages_done(&device->pages);
	device->no_doorbells_said = false;
	device->refusal_said = false;
	device->nr_ended++;
}

static const struct bf_backend_ops backend_ops = {
	.vring_start = vring_start,
	.vring_stop = vring_stop,
	.get_config = get_config,
	.set_features = set_features,
	.doorbell_answered = doorbell_answered,
	.disconnected = disconnected,
};

static int make_backend(struct blk_device *device, const struct blk_device_config *config)
{
	const struct bf_backend_config backend_config = {
		.ops = &backend_ops,
		.opaque = device,
		.name = "blk",
		.nr_queues = config->nr_queues,
		.max_queue_size = config->queue_size,
		.config_size = CONFIG_SIZE,
		.features = offered_features(config),
		.log = log_sink(),
	};

	return bf_backend_new(&backend_config, &device->be);
}

int blk_device_new(const struct blk_device_config *config, struct blk_device **device)
{
	struct blk_device *dev;
	int ret = 0;

	dev = calloc(1, sizeof(*dev) + config->nr_queues * sizeof(dev->queues[0]));
	if (!dev) {
		log_error("out of memory");
		return -ENOMEM;
	}
	dev->pages = (struct doorbell_pages)DOORBELL_PAGES_NONE;
	dev->doorbells = config->doorbells;
	dev->disk.nr_sectors = config->image->nr_sectors;
	dev->disk.read_only = config->image->read_only;
	memcpy(dev->disk.serial, config->serial, strnlen(config->serial, BLK_ID_SIZE));
	dev->env = (struct blk_queue_env){ .disk = &dev->disk,
					   .image_fd = config->image->fd,
					   .io_kind = config->io_kind };
	fill_config(dev, config);
	while (!ret && dev->nr_queues < config->nr_queues) {
		ret = blk_queue_new(&dev->env, dev->nr_queues, &dev->queues[dev->nr_queues]);
		dev->nr_queues += !ret;
	}
	if (!ret)
		ret = make_backend(dev, config);
	if (ret) {
		log_error("cannot make the device: %s", strerror(-ret));
		blk_device_free(dev);
		return ret;
	}
	*device = dev;
	return 0;
}

void blk_device_free(struct blk_device *device)
{
	unsigned i;

	if (!device)
		return;
	bf_backend_free(device->be);
	for (i = 0; i < device->nr_queues; i++)
		blk_queue_free(device->queues[i]);
	doorbell_pages_done(&device->pages);
	free(device);
}

struct bf_backend *blk_device_backend(struct blk_device *device)
{
	return device->be;
}

json_t *blk_device_stats(void *opaque)
{
	struct blk_device *device = opaque;
	json_t *queues = json_array();
	struct stats_queue stats;
	unsigned i;

	for (i = 0; i < device->nr_queues; i++) {
		blk_queue_stats(device->queues[i], &stats);
		if (json_array_append_new(queues, stats_queue_json(&stats))) {
			json_decref(queues);
			return NULL;
		}
	}
	return json_pack("{s:s, s:s, s:b, s:I, s:o}", "program", "belfry-blk", "version",
			 BELFRY_VERSION, "connected", bf_backend_attached(device->be), "ended",
			 (json_int_t)device->nr_ended, "queues", queues);
}
