/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The disk. Control context throughout: owns the back end, the queues, their workers and the doorbell
 * pages, and hands a virtqueue to a worker in vring_start until vring_stop. Touches no ring and no guest
 * memory itself.
 */
#include <endian.h>
#include <errno.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"
#include "devices/common/log.h"
#include "devices/common/postcopy.h"
#include "devices/common/publish.h"
#include "devices/common/stats.h"
#include "devices/common/worker.h"
#include "queue.h"

/* Not in the headers of every supported system. */
#define F_NOTIFICATION_DATA 38
#ifndef VIRTIO_F_RING_RESET
#define VIRTIO_F_RING_RESET 40
#endif

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
	enum worker_mode notify;
	struct publisher publisher;
	unsigned nr_ended; /* connections */
	unsigned nr_threads;
	struct worker **workers; /* [nr_threads], made when the first queue needs it */
	unsigned nr_queues;
	struct blk_queue *queues[]; /* [nr_queues] */
};

static uint64_t offered_features(const struct blk_device_config *config)
{
	uint64_t features = bf_bit(VIRTIO_F_VERSION_1) | bf_bit(VIRTIO_F_ACCESS_PLATFORM) |
			    bf_bit(VIRTIO_F_RING_PACKED) | bf_bit(VIRTIO_F_RING_RESET) |
			    bf_bit(F_NOTIFICATION_DATA) | bf_bit(VIRTIO_RING_F_INDIRECT_DESC) |
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

/* Who serves @queue. 0 or negative errno, and then it is said. */
static int worker_for(struct blk_device *device, unsigned queue, struct worker **worker)
{
	unsigned idx = queue % device->nr_threads;
	int ret = 0;

	if (!device->workers[idx])
		ret = worker_new(device->notify, "queue", idx, &device->workers[idx]);
	if (ret)
		log_error("queue %u: no thread to serve it: %s", queue, strerror(-ret));
	*worker = device->workers[idx];
	return ret;
}

static int vring_start(void *opaque, unsigned queue, struct bf_virtq *vq)
{
	struct blk_device *device = opaque;
	uint32_t *word = publisher_word(&device->publisher, queue);
	struct worker *worker;
	int ret = worker_for(device, queue, &worker);

	if (!ret)
		ret = blk_queue_start(device->queues[queue], worker, vq, word);
	if (!ret)
		blk_queue_set_doorbell(
			device->queues[queue],
			publisher_offer(&device->publisher, device->be, queue, word));
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

	if (published)
		blk_queue_set_doorbell(device->queues[queue],
				       publisher_answered(&device->publisher, queue, result));
}

static void disconnected(void *opaque, int error)
{
	struct blk_device *device = opaque;

	(void)error; /* the main loop says it */
	publisher_disconnected(&device->publisher);
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
		.protocol_features = postcopy_protocol_features(config->postcopy),
		.log = log_sink(),
	};

	return bf_backend_new(&backend_config, &device->be);
}

static struct blk_device *allocate(const struct blk_device_config *config)
{
	struct blk_device *dev;

	dev = calloc(1, sizeof(*dev) + config->nr_queues * sizeof(dev->queues[0]));
	if (!dev)
		return NULL;
	dev->nr_threads =
		config->nr_threads < config->nr_queues ? config->nr_threads : config->nr_queues;
	dev->workers = calloc(dev->nr_threads, sizeof(*dev->workers));
	if (!dev->workers) {
		free(dev);
		return NULL;
	}
	publisher_init(&dev->publisher, config->nr_queues, config->notify == WORKER_DOORBELL);
	return dev;
}

static void describe(struct blk_device *dev, const struct blk_device_config *config)
{
	dev->notify = config->notify;
	dev->disk.nr_sectors = config->image->nr_sectors;
	dev->disk.read_only = config->image->read_only;
	memcpy(dev->disk.serial, config->serial, strnlen(config->serial, BLK_ID_SIZE));
	dev->env = (struct blk_queue_env){ .disk = &dev->disk,
					   .image_fd = config->image->fd,
					   .io_kind = config->io_kind };
	fill_config(dev, config);
}

int blk_device_new(const struct blk_device_config *config, struct blk_device **device)
{
	struct blk_device *dev = allocate(config);
	int ret = 0;

	if (!dev) {
		log_error("out of memory");
		return -ENOMEM;
	}
	describe(dev, config);
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
	for (i = 0; i < device->nr_threads; i++)
		worker_free(device->workers[i]);
	free(device->workers);
	for (i = 0; i < device->nr_queues; i++)
		blk_queue_free(device->queues[i]);
	publisher_done(&device->publisher);
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
