/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The ring of the control queue: see net_ctrl_queue.h for the context.
 *
 * The ring engine is the library's, the same that back ends use, so a hostile driver meets the same
 * checks. It sees guest memory through a map of its own. A driver that never stops sending commands
 * gets a batch at a time: the event loop serves others too.
 */
#include "net_ctrl_queue.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <belfry/memory.h>
#include <belfry/virtq.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>

#define BATCH      64
#define MAX_PIECES 64

struct net_ctrl_queue {
	struct net_ctrl_queue_config config;
	struct bf_memory *memory; /* NULL until the first start */
	struct bf_virtq *vq;
	int kick_fd; /* the transport's; -1: stopped */
};

/* Commands do not say how long their answer may be: a byte is what is needed, and all that is written. */
static uint32_t answer(struct net_ctrl_queue *ctrl, const struct bf_chain *chain)
{
	uint8_t status;

	if (!chain->nr_in)
		return 0; /* nobody would hear of it: not carried out either */
	status = ctrl->config.command(ctrl->config.opaque, chain->iov, chain->nr_out);
	*(volatile uint8_t *)chain->iov[chain->nr_out].iov_base = status;
	return sizeof(status);
}

static void serve(struct net_ctrl_queue *ctrl)
{
	struct iovec iov[MAX_PIECES];
	struct bf_chain chain;
	unsigned nr = 0;
	const char *why;
	int ret = 0;

	bf_virtq_drain_kick(ctrl->vq);
	while (nr < BATCH) {
		chain = (struct bf_chain){ .iov = iov, .nr_iov = MAX_PIECES };
		ret = bf_virtq_pop(ctrl->vq, &chain);
		if (ret <= 0)
			break;
		bf_virtq_push(ctrl->vq, chain.head, answer(ctrl, &chain));
		nr++;
	}
	bf_virtq_notify(ctrl->vq);
	if (nr == BATCH)
		eventfd_write(ctrl->kick_fd, 1);
	if (ret < 0) {
		bf_virtq_broken(ctrl->vq, &why);
		event_loop_del(ctrl->config.loop, ctrl->kick_fd);
		ctrl->config.broken(ctrl->config.opaque, why ? why : strerror(-ret));
	}
}

static void on_kick(void *opaque, uint32_t events)
{
	struct net_ctrl_queue *ctrl = opaque;

	(void)events;
	pthread_mutex_lock(ctrl->config.lock);
	/* Stopped by a vCPU while this call was on its way. */
	if (ctrl->kick_fd >= 0)
		serve(ctrl);
	pthread_mutex_unlock(ctrl->config.lock);
}

int net_ctrl_queue_new(const struct net_ctrl_queue_config *config, struct net_ctrl_queue **out)
{
	struct net_ctrl_queue *ctrl = calloc(1, sizeof(*ctrl));

	if (!ctrl)
		return -ENOMEM;
	ctrl->config = *config;
	ctrl->kick_fd = -1;
	ctrl->vq = bf_virtq_new(0);
	if (!ctrl->vq) {
		free(ctrl);
		return -ENOMEM;
	}
	*out = ctrl;
	return 0;
}

void net_ctrl_queue_free(struct net_ctrl_queue *ctrl)
{
	if (!ctrl)
		return;
	net_ctrl_queue_stop(ctrl);
	bf_virtq_free(ctrl->vq);
	bf_memory_unref(ctrl->memory);
	free(ctrl);
}

/* User addresses of this map are guest addresses: the ring is set up as the driver gave it. */
static int map_memory(struct net_ctrl_queue *ctrl)
{
	struct bf_memory_region regions[8];
	const struct vm_ram *ram;
	unsigned nr = vm_ram(ctrl->config.vm, &ram);
	unsigned i, made = 0;
	int err = 0;

	if (nr > sizeof(regions) / sizeof(regions[0]))
		return -E2BIG;
	for (i = 0; i < nr && !err; i++) {
		regions[i] = (struct bf_memory_region){ .gpa = ram[i].gpa,
							.size = ram[i].size,
							.uva = ram[i].gpa,
							.fd = fcntl(ram[i].fd, F_DUPFD_CLOEXEC, 0),
							.fd_offset = ram[i].fd_offset };
		if (regions[i].fd < 0)
			err = -errno;
		else
			made++;
	}
	if (!err)
		err = bf_memory_new(regions, nr, &ctrl->memory);
	for (i = 0; i < made && err; i++)
		close(regions[i].fd);
	return err;
}

int net_ctrl_queue_start(struct net_ctrl_queue *ctrl, const struct virtio_queue *q,
			 uint64_t features)
{
	bool packed = features >> VIRTIO_F_RING_PACKED & 1;
	struct bf_virtq_setup setup = { .size = q->size,
					.base = packed ? BF_VIRTQ_PACKED_BASE : 0,
					.desc_uva = q->desc_gpa,
					.avail_uva = q->driver_gpa,
					.used_uva = q->device_gpa,
					.features = features,
					.kick_fd = q->kick_fd,
					.call_fd = q->call_fd,
					.err_fd = -1 };
	const char *why = "";
	int err = ctrl->memory ? 0 : map_memory(ctrl);

	if (err)
		return err;
	setup.memory = ctrl->memory;
	err = bf_virtq_start(ctrl->vq, &setup, &why);
	if (err) {
		ctrl->config.broken(ctrl->config.opaque, why);
		return err;
	}
	err = event_loop_add(ctrl->config.loop, q->kick_fd, EPOLLIN, on_kick, ctrl);
	if (err) {
		bf_virtq_stop(ctrl->vq);
		return err;
	}
	ctrl->kick_fd = q->kick_fd;
	return 0;
}

void net_ctrl_queue_stop(struct net_ctrl_queue *ctrl)
{
	if (ctrl->kick_fd < 0)
		return;
	event_loop_del(ctrl->config.loop, ctrl->kick_fd);
	ctrl->kick_fd = -1;
	bf_virtq_stop(ctrl->vq);
}
