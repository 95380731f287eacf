/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The user-space driver's life: memory, negotiation, queues. Control context.
 *
 * It composes the front end with driver-side rings and is the smallest "VMM": guest memory is one
 * sealed memfd, a doorbell's notify slot is a pointer.
 */
#include "driver.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../base/check.h"
#include "../base/fd.h"
#include "../base/fence.h"
#include "../frontend/frontend.h"

#define DEFAULT_QUEUE_SIZE 256

/* Features of the ring that lib/virtq/driver_*.c know. A device type's own (0..23, 50..) pass through. */
#define RING_FEATURES                                                            \
	(bf_bit(VIRTIO_RING_F_INDIRECT_DESC) | bf_bit(VIRTIO_RING_F_EVENT_IDX) | \
	 bf_bit(VIRTIO_F_VERSION_1) | bf_bit(VIRTIO_F_RING_PACKED) | bf_bit(VIRTIO_F_IN_ORDER))
#define DEVICE_FEATURES ((bf_bit(24) - 1) | ~(bf_bit(50) - 1))

static int map_doorbell(void *opaque, unsigned queue, void *page)
{
	struct bf_driver *drv = opaque;

	unsigned offset = 0;

	if (queue >= drv->nr_queues)
		return -EINVAL;
	if (drv->stagger_doorbells && bf_fe_doorbell_is_memory(drv->fe, queue))
		offset = queue % 64 * BF_DRIVER_DOORBELL_STRIDE;
	bf_ringer_map(&drv->queues[queue].ringer, (uint8_t *)page + offset);
	return 0;
}

static void unmap_doorbell(void *opaque, unsigned queue)
{
	struct bf_driver *drv = opaque;

	bf_ringer_unmap(&drv->queues[queue].ringer);
}

static const struct bf_frontend_ops with_doorbell = {
	.doorbell_map = map_doorbell,
	.doorbell_unmap = unmap_doorbell,
};

static void layout_of(const struct bf_driver *drv, struct bf_driver_layout *layout)
{
	bf_driver_ring_layout(drv->queue_size, bf_has(drv->features, VIRTIO_F_RING_PACKED), layout);
}

static int make_memory(struct bf_driver *drv, uint64_t buffers)
{
	struct bf_driver_layout layout;
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	void *memory;

	layout_of(drv, &layout);
	drv->allocated = layout.size * drv->nr_queues;
	if (!bf_no_wrap(drv->allocated + page, buffers))
		return -ENOMEM;
	drv->memory_size = (drv->allocated + buffers + page - 1) & ~(page - 1);
	drv->memfd = memfd_create("belfry-driver", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (drv->memfd < 0 || ftruncate(drv->memfd, (off_t)drv->memory_size) < 0 ||
	    fcntl(drv->memfd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return -errno;
	memory = mmap(NULL, drv->memory_size, PROT_READ | PROT_WRITE, MAP_SHARED, drv->memfd, 0);
	if (memory == MAP_FAILED)
		return -errno;
	drv->memory = memory;
	return 0;
}

static int make_queue(struct bf_driver *drv, unsigned i)
{
	struct bf_driver_queue *q = &drv->queues[i];
	struct bf_driver_layout layout;

	layout_of(drv, &layout);
	q->idx = (uint16_t)i;
	q->base = bf_has(drv->features, VIRTIO_F_RING_PACKED) ? BF_VIRTQ_PACKED_BASE : 0;
	q->ring_gpa = BF_DRIVER_GPA + layout.size * i;
	q->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	q->call_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (q->kick_fd < 0 || q->call_fd < 0)
		return -errno;
	return bf_driver_ring_init(&q->ring, drv->queue_size, drv->memory + layout.size * i,
				   q->ring_gpa, drv->features);
}

static int make_queues(struct bf_driver *drv)
{
	bf_fence_register();
	for (unsigned i = 0; i < drv->nr_queues; i++) {
		int ret = make_queue(drv, i);

		if (ret < 0)
			return ret;
	}
	return 0;
}

static int negotiate(struct bf_driver *drv, const struct bf_driver_config *config, char *error,
		     size_t error_len)
{
	uint64_t offered = bf_frontend_features(drv->fe);
	uint64_t wanted = config->features & (RING_FEATURES | DEVICE_FEATURES);

	if (!bf_has(offered, VIRTIO_F_VERSION_1)) {
		snprintf(error, error_len,
			 "the device is legacy only (it offers features 0x%llx, without VERSION_1)",
			 (unsigned long long)offered);
		return -ENOTSUP;
	}
	if (config->nr_queues > bf_frontend_max_queues(drv->fe)) {
		snprintf(error, error_len, "%u queues wanted, the device has %u", config->nr_queues,
			 bf_frontend_max_queues(drv->fe));
		return -EINVAL;
	}
	drv->features = offered & (wanted | bf_bit(VIRTIO_F_VERSION_1));
	if (!bf_is_power_of_two(drv->queue_size) && !bf_has(drv->features, VIRTIO_F_RING_PACKED)) {
		snprintf(
			error, error_len,
			"queues of %u entries need a packed ring, which the device does not offer; "
			"a split ring has a power of two",
			drv->queue_size);
		return -EINVAL;
	}
	return 0;
}

static int announce_memory(struct bf_driver *drv)
{
	const struct bf_memory_region region = {
		.gpa = BF_DRIVER_GPA,
		.size = drv->memory_size,
		.uva = (uintptr_t)drv->memory,
		.hva = drv->memory,
		.fd = drv->memfd,
	};
	int ret = bf_frontend_set_memory(drv->fe, &region, 1);

	return ret < 0 ? ret : 0;
}

/* Virtio 1.2, 3.1.1, as far as a vhost-user back end hears of it. */
static int initialise(struct bf_driver *drv)
{
	const uint8_t known = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;
	int ret = bf_frontend_set_status(drv->fe, known);

	if (!ret)
		ret = bf_frontend_set_features(drv->fe, drv->features);
	if (!ret)
		ret = bf_frontend_set_status(drv->fe, known | VIRTIO_CONFIG_S_FEATURES_OK);
	if (!ret)
		ret = announce_memory(drv);
	if (!ret)
		ret = bf_driver_start(drv);
	if (!ret)
		ret = bf_frontend_set_status(drv->fe, known | VIRTIO_CONFIG_S_FEATURES_OK |
							      VIRTIO_CONFIG_S_DRIVER_OK);
	return ret;
}

static struct bf_driver *allocate(const struct bf_driver_config *config)
{
	struct bf_driver *drv = calloc(1, sizeof(*drv));

	if (!drv)
		return NULL;
	drv->memfd = -1;
	drv->nr_queues = config->nr_queues;
	drv->stagger_doorbells = config->stagger_doorbells;
	drv->queue_size = config->queue_size ? config->queue_size : DEFAULT_QUEUE_SIZE;
	drv->queues = aligned_alloc(64, sizeof(*drv->queues) * config->nr_queues);
	if (!drv->queues) {
		free(drv);
		return NULL;
	}
	memset(drv->queues, 0, sizeof(*drv->queues) * config->nr_queues);
	for (unsigned i = 0; i < config->nr_queues; i++) {
		drv->queues[i].kick_fd = -1;
		drv->queues[i].call_fd = -1;
	}
	return drv;
}

static int bring_up(struct bf_driver *drv, const struct bf_driver_config *config, int fd,
		    char *error, size_t error_len)
{
	int ret = bf_frontend_attach(drv->fe, fd);

	if (!ret)
		ret = negotiate(drv, config, error, error_len);
	if (!ret)
		ret = make_memory(drv, config->memory_size);
	if (!ret)
		ret = make_queues(drv);
	if (!ret)
		ret = initialise(drv);
	if (ret && !error[0])
		snprintf(error, error_len, "%s",
			 bf_frontend_error(drv->fe)[0] ? bf_frontend_error(drv->fe)
						       : strerror(-ret));
	return ret;
}

int bf_driver_new(const struct bf_driver_config *config, int fd, struct bf_driver **out,
		  char *error, size_t error_len)
{
	struct bf_frontend_config fe_config = {
		.ops = config->no_doorbell ? NULL : &with_doorbell,
		.name = config->name,
		.timeout_ms = config->timeout_ms,
		.log = config->log,
	};
	struct bf_driver *drv = NULL;
	char unused[8];
	int ret = -EINVAL;

	if (!error_len) {
		error = unused;
		error_len = sizeof(unused);
	}
	error[0] = '\0';
	if (config->nr_queues < 1 || config->nr_queues > BF_MAX_QUEUES ||
	    config->queue_size > BF_PACKED_MAX ||
	    (!bf_is_power_of_two(config->queue_size) && config->queue_size &&
	     !bf_has(config->features, VIRTIO_F_RING_PACKED)))
		goto close_fd;
	ret = -ENOMEM;
	drv = allocate(config);
	if (!drv)
		goto close_fd;
	fe_config.opaque = drv;
	ret = bf_frontend_new(&fe_config, &drv->fe);
	if (ret < 0)
		goto free_drv;
	ret = bring_up(drv, config, bf_fd_take(&fd), error, error_len);
	if (ret < 0)
		goto free_drv;
	*out = drv;
	return 0;

free_drv:
	bf_driver_free(drv);
close_fd:
	bf_fd_close(&fd);
	if (!error[0])
		snprintf(error, error_len, "%s", strerror(-ret));
	return ret;
}

void bf_driver_free(struct bf_driver *drv)
{
	if (!drv)
		return;
	if (drv->started)
		bf_driver_stop(drv);
	bf_frontend_free(drv->fe);
	for (unsigned i = 0; i < drv->nr_queues; i++) {
		bf_driver_ring_done(&drv->queues[i].ring);
		bf_fd_close(&drv->queues[i].kick_fd);
		bf_fd_close(&drv->queues[i].call_fd);
	}
	if (drv->memory)
		munmap(drv->memory, drv->memory_size);
	bf_fd_close(&drv->memfd);
	free(drv->queues);
	free(drv);
}

int bf_driver_start(struct bf_driver *drv)
{
	struct bf_vring_setup setups[BF_MAX_QUEUES];
	struct bf_driver_layout layout;
	int ret;

	layout_of(drv, &layout);
	for (unsigned i = 0; i < drv->nr_queues; i++) {
		const struct bf_driver_queue *q = &drv->queues[i];

		setups[i] = (struct bf_vring_setup){
			.queue = i,
			.size = drv->queue_size,
			.desc_gpa = q->ring_gpa + layout.desc,
			.avail_gpa = q->ring_gpa + layout.avail,
			.used_gpa = q->ring_gpa + layout.used,
			.base = q->base,
			.kick_fd = q->kick_fd,
			.call_fd = q->call_fd,
			.err_fd = -1,
		};
	}
	ret = bf_frontend_start_vrings(drv->fe, setups, drv->nr_queues);
	drv->started = ret == 0;
	return ret;
}

int bf_driver_stop(struct bf_driver *drv)
{
	unsigned queues[BF_MAX_QUEUES];
	uint32_t bases[BF_MAX_QUEUES];
	int ret;

	for (unsigned i = 0; i < drv->nr_queues; i++)
		queues[i] = i;
	ret = bf_frontend_stop_vrings(drv->fe, queues, drv->nr_queues, bases);
	drv->started = false;
	for (unsigned i = 0; ret == 0 && i < drv->nr_queues; i++)
		drv->queues[i].base = bases[i];
	return ret;
}

struct bf_frontend *bf_driver_frontend(struct bf_driver *drv)
{
	return drv->fe;
}

int bf_driver_dispatch(struct bf_driver *drv)
{
	return bf_frontend_dispatch(drv->fe);
}

uint64_t bf_driver_features(const struct bf_driver *drv)
{
	return drv->features;
}

void *bf_driver_alloc(struct bf_driver *drv, size_t len, size_t align)
{
	uint64_t start = (drv->allocated + align - 1) & ~(uint64_t)(align - 1);

	if (!bf_range_ok(start, len, drv->memory_size))
		return NULL;
	drv->allocated = start + len;
	return drv->memory + start;
}
