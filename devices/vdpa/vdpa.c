/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The life of belfry-vdpa's device: taken, served, given back; and its own events.
 *
 * Control context. Owns the VFIO device, the relay, the back end, and an epoll set of what does not
 * come over the socket: configuration changes, the kernel's wish to have the device back, the end
 * of settling, kicks and interrupts of mediated queues.
 */
#include "vdpa_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <linux/virtio_ids.h>

#include "devices/common/log.h"

#define MAX_EVENTS 16

int vdpa_watch(struct vdpa *v, int fd, enum vdpa_event_source source, unsigned queue)
{
	/* A kick eventfd is another process's too: an edge for each kick, whatever is left in it. */
	struct epoll_event event = { .events = EPOLLIN | (source == EVENT_KICK ? EPOLLET : 0),
				     .data.u64 = (uint64_t)source << 32 | queue };

	return epoll_ctl(v->epoll_fd, EPOLL_CTL_ADD, fd, &event) ? -errno : 0;
}

void vdpa_unwatch(struct vdpa *v, int fd)
{
	epoll_ctl(v->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

static void take(int fd)
{
	uint64_t value;

	/* Empty: it was taken already. */
	if (read(fd, &value, sizeof(value)) < 0)
		return;
}

static int get_config(void *opaque, uint32_t offset, void *data, uint32_t len)
{
	const struct vdpa *v = opaque;

	return virtio_pci_config_read(v->pci, offset, data, len);
}

static int set_config(void *opaque, uint32_t offset, const void *data, uint32_t len, bool migration)
{
	const struct vdpa *v = opaque;

	(void)migration;
	return virtio_pci_config_write(v->pci, offset, data, len);
}

static const struct bf_backend_ops backend_ops = {
	.get_config = get_config,
	.set_config = set_config,
	.set_features = vdpa_on_set_features,
	.doorbell_answered = vdpa_on_doorbell_answered,
	.disconnected = vdpa_on_disconnected,
};

static uint16_t largest_queue(const struct vdpa *v)
{
	uint16_t size = BF_MAX_QUEUE_SIZE, one, power = 1;

	for (unsigned i = 0; i < v->kind.nr_queues; i++) {
		one = virtio_pci_queue_max_size(v->pci, i);
		size = one < size ? one : size;
	}
	while (power <= size / 2)
		power = (uint16_t)(power * 2);
	return size ? power : 0;
}

static int make_backend(struct vdpa *v, const struct vdpa_config *config)
{
	uint32_t config_size = virtio_pci_config_size(v->pci);
	struct bf_backend_config be = {
		.ops = &backend_ops,
		.offload = &vdpa_offload_ops,
		.opaque = v,
		.name = config->bdf,
		.nr_queues = v->kind.nr_queues,
		.max_queue_size = largest_queue(v),
		.config_size = config_size < BF_CONFIG_MAX ? config_size : BF_CONFIG_MAX,
		.features = v->kind.features,
		.protocol_features = bf_backend_supported_protocol_features(),
		.log = log_sink(),
	};
	int ret;

	if (!be.max_queue_size) {
		log_error("%s: expected %u usable queues, found one without entries", config->bdf,
			  v->kind.nr_queues);
		return -ENODEV;
	}
	/* QEMU 7.1 to 8.0 crash when a net back end offers it. */
	if (v->kind.device_id == VIRTIO_ID_NET && !config->offer_config)
		be.protocol_features &= ~bf_bit(BF_PROTOCOL_F_CONFIG);
	ret = bf_backend_new(&be, &v->be);
	if (ret)
		log_error("cannot make a back end: %s", strerror(-ret));
	return ret;
}

static int make_queues(struct vdpa *v)
{
	v->queues = calloc(v->kind.nr_queues, sizeof(*v->queues));
	if (!v->queues)
		return -ENOMEM;
	for (unsigned i = 0; i < v->kind.nr_queues; i++)
		v->queues[i].irq_fd = v->queues[i].watched_fd = -1;
	return 0;
}

static int open_device(struct vdpa *v, const char *bdf)
{
	int ret = vfio_open(bdf, &v->vfio);

	if (ret)
		return ret;
	v->dma.vfio = v->vfio;
	ret = virtio_pci_new(v->vfio, &v->pci);
	if (!ret)
		ret = kind_of(v->pci, vfio_nr_vectors(v->vfio), &v->kind);
	if (!ret)
		ret = make_queues(v);
	return ret;
}

static int make_event_fds(struct vdpa *v)
{
	v->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	v->config_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	v->request_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	v->settle_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (v->epoll_fd < 0 || v->config_fd < 0 || v->request_fd < 0 || v->settle_fd < 0)
		return -errno;
	return 0;
}

static int make_events(struct vdpa *v)
{
	int ret = make_event_fds(v);

	if (!ret)
		ret = vdpa_watch(v, v->config_fd, EVENT_CONFIG, 0);
	if (!ret)
		ret = vdpa_watch(v, v->request_fd, EVENT_REQUEST, 0);
	if (!ret)
		ret = vdpa_watch(v, v->settle_fd, EVENT_SETTLE, 0);
	if (!ret)
		ret = vfio_irq_enable(v->vfio);
	if (!ret)
		ret = vfio_irq_set(v->vfio, VDPA_CONFIG_VECTOR, v->config_fd);
	if (!ret)
		ret = vfio_set_request_fd(v->vfio, v->request_fd);
	if (ret)
		log_error("cannot receive the device's events: %s", strerror(-ret));
	return ret;
}

int vdpa_new(const struct vdpa_config *config, struct vdpa **out)
{
	struct vdpa *v = calloc(1, sizeof(*v));
	int ret;

	if (!v)
		return -ENOMEM;
	v->epoll_fd = v->config_fd = v->request_fd = v->settle_fd = -1;
	ret = open_device(v, config->bdf);
	if (!ret)
		ret = make_events(v);
	if (!ret)
		ret = relay_new(v->pci, v->kind.nr_queues, &v->relay);
	if (!ret)
		ret = make_backend(v, config);
	if (ret) {
		vdpa_free(v);
		return ret;
	}
	log_info("%s is a %s device with %u queues", config->bdf, v->kind.name, v->kind.nr_queues);
	*out = v;
	return 0;
}

static void close_fd(int fd)
{
	if (fd >= 0)
		close(fd);
}

void vdpa_free(struct vdpa *v)
{
	if (!v)
		return;
	bf_backend_free(v->be);
	relay_free(v->relay);
	virtio_pci_free(v->pci);
	vfio_close(v->vfio);
	close_fd(v->settle_fd);
	close_fd(v->request_fd);
	close_fd(v->config_fd);
	close_fd(v->epoll_fd);
	free(v->dma.regions);
	free(v->queues);
	free(v);
}

struct bf_backend *vdpa_backend(struct vdpa *v)
{
	return v->be;
}

int vdpa_event_fd(const struct vdpa *v)
{
	return v->epoll_fd;
}

/* Also how a device says that it has broken down. */
static void on_config(struct vdpa *v)
{
	take(v->config_fd);
	if (v->running && (virtio_pci_status(v->pci) & VIRTIO_CONFIG_S_NEEDS_RESET)) {
		log_error("the device reports an error (DEVICE_NEEDS_RESET); ending the connection, "
			  "so that the front end sets it up anew");
		bf_backend_detach(v->be);
		vdpa_on_disconnected(v, -EIO);
		return;
	}
	bf_backend_config_changed(v->be);
}

/* False: the end. */
static bool handle(struct vdpa *v, enum vdpa_event_source source, unsigned queue)
{
	switch (source) {
	case EVENT_CONFIG:
		on_config(v);
		return true;
	case EVENT_REQUEST:
		log_info("the kernel wants %s back (unbind or unplug): giving it up",
			 vfio_name(v->vfio));
		return false;
	case EVENT_SETTLE:
		take(v->settle_fd);
		vdpa_on_settled(v);
		return true;
	default:
		vdpa_mediated_event(v, queue);
		return true;
	}
}

bool vdpa_event(void *opaque)
{
	struct vdpa *v = opaque;
	struct epoll_event events[MAX_EVENTS];
	int nr = epoll_wait(v->epoll_fd, events, MAX_EVENTS, 0);

	for (int i = 0; i < nr; i++)
		if (!handle(v, (enum vdpa_event_source)(events[i].data.u64 >> 32),
			    (unsigned)(events[i].data.u64 & UINT32_MAX)))
			return false;
	return true;
}
