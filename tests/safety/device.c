/* SPDX-License-Identifier: BSD-3-Clause */
/* A device that has every operation, and does its work when it is told to. One thread. */
#include "device.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void (*device_enter)(void);
void (*device_leave)(void);

static void enter(void)
{
	if (device_enter)
		device_enter();
}

static void leave(void)
{
	if (device_leave)
		device_leave();
}

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "the library broke a promise to the device: %s\n", what);
	abort();
}

static int vring_start(void *opaque, unsigned queue, struct bf_virtq *vq)
{
	struct conn *conn = opaque;

	must(queue < QUEUES && !conn->vq[queue], "vring_start of a running queue");
	must(conn->kind != CONN_EVERYTHING || conn->about_to_start == queue + 1,
	     "vring_enable right before vring_start");
	conn->about_to_start = 0;
	conn->vq[queue] = vq;
	/* Refused for lack of something: the queue is served by its eventfd then. */
	if (conn->publish_fd >= 0)
		bf_backend_publish_doorbell(conn->be, queue, conn->publish_fd, 0);
	return 0;
}

static void vring_stop(void *opaque, unsigned queue)
{
	struct conn *conn = opaque;

	must(queue < QUEUES && conn->vq[queue], "vring_stop of a stopped queue");
	conn->vq[queue] = NULL;
}

static int vring_enable(void *opaque, unsigned queue, bool enabled)
{
	struct conn *conn = opaque;

	must(queue < QUEUES && !conn->about_to_start, "vring_enable without a vring");
	must(!conn->vq[queue] || conn->enabled[queue] != enabled, "vring_enable without a change");
	if (!conn->vq[queue])
		conn->about_to_start = queue + 1;
	conn->enabled[queue] = enabled;
	return 0;
}

static bool inside(uint32_t offset, uint32_t len)
{
	return len && len <= CONFIG_SIZE && offset <= CONFIG_SIZE - len;
}

static int get_config(void *opaque, uint32_t offset, void *data, uint32_t len)
{
	(void)opaque;
	must(inside(offset, len), "config range");
	memset(data, 0x5a, len);
	return 0;
}

static int set_config(void *opaque, uint32_t offset, const void *data, uint32_t len, bool migration)
{
	static volatile uint8_t sum;

	(void)opaque;
	(void)migration;
	must(inside(offset, len), "config range");
	for (uint32_t i = 0; i < len; i++)
		sum = (uint8_t)(sum + ((const uint8_t *)data)[i]);
	return 0;
}

static int set_mtu(void *opaque, uint16_t mtu)
{
	(void)opaque;
	return mtu >= 68 ? 0 : -EINVAL;
}

static int send_rarp(void *opaque, const uint8_t mac[6])
{
	(void)opaque;
	return mac[0] & 1 ? -EINVAL : 0;
}

static int set_gpu_socket(void *opaque, int fd)
{
	(void)opaque;
	close(fd);
	return 0;
}

static int create_session(void *opaque, const void *session, size_t len, uint64_t *id)
{
	const uint8_t *bytes = session;

	(void)opaque;
	must(len <= BF_CONFIG_MAX, "session length");
	*id = 1;
	for (size_t i = 0; i < len; i++)
		*id += bytes[i];
	return *id % 7 ? 0 : -EINVAL;
}

static int close_session(void *opaque, uint64_t id)
{
	(void)opaque;
	return id ? 0 : -ENOENT;
}

static int get_shared_object(void *opaque, const uint8_t uuid[16])
{
	(void)opaque;
	return uuid[0] ? -ENOENT : conn_fds.memory;
}

static int device_state(void *opaque, bool load, int fd, int *other_fd)
{
	(void)opaque;
	(void)load;
	*other_fd = -1;
	close(fd);
	return 0;
}

static int check_device_state(void *opaque)
{
	(void)opaque;
	return 0;
}

static void disconnected(void *opaque, int error)
{
	struct conn *conn = opaque;

	(void)error;
	for (unsigned i = 0; i < QUEUES; i++)
		must(!conn->vq[i] && !conn->offloaded[i], "a queue that runs after the end");
	must(!conn->about_to_start, "vring_enable without a start");
	conn->ended = true;
}

#define OPERATIONS                                                                      \
	.vring_start = vring_start, .vring_stop = vring_stop, .get_config = get_config, \
	.set_config = set_config, .set_mtu = set_mtu, .send_rarp = send_rarp,           \
	.set_gpu_socket = set_gpu_socket, .create_session = create_session,             \
	.close_session = close_session, .get_shared_object = get_shared_object,         \
	.device_state = device_state, .check_device_state = check_device_state,         \
	.disconnected = disconnected

static const struct bf_backend_ops ops = { OPERATIONS };
/* One that is given disabled vrings too. */
static const struct bf_backend_ops enable_ops = { OPERATIONS, .vring_enable = vring_enable };

static int offload_start(void *opaque, unsigned queue, const struct bf_offload_vring *vring)
{
	struct conn *conn = opaque;
	const struct bf_memory *memory = bf_backend_memory(conn->be);

	must(queue < QUEUES && !conn->offloaded[queue], "start of a running queue");
	must(vring->size && bf_memory_from_gpa(memory, vring->desc_gpa, 16u * vring->size),
	     "a ring outside of memory");
	conn->offloaded[queue] = true;
	return 0;
}

static uint32_t offload_stop(void *opaque, unsigned queue)
{
	struct conn *conn = opaque;

	must(queue < QUEUES && conn->offloaded[queue], "stop of a stopped queue");
	conn->offloaded[queue] = false;
	return 0x80008000u & (conn->packed ? ~0u : 0);
}

static int offload_eventfds(void *opaque, unsigned queue, const struct bf_offload_vring *vring)
{
	struct conn *conn = opaque;

	(void)vring;
	must(queue < QUEUES && conn->offloaded[queue], "eventfds of a stopped queue");
	return 0;
}

static int offload_memory(void *opaque, const struct bf_memory *memory)
{
	(void)opaque;
	(void)memory;
	return 0;
}

static const struct bf_offload_ops offload = {
	.vring_start = offload_start,
	.vring_stop = offload_stop,
	.vring_eventfds = offload_eventfds,
	.memory = offload_memory,
};

#define FEATURES                                                                 \
	(bf_bit(VIRTIO_F_VERSION_1) | bf_bit(VIRTIO_F_RING_PACKED) |             \
	 bf_bit(VIRTIO_RING_F_EVENT_IDX) | bf_bit(VIRTIO_RING_F_INDIRECT_DESC) | \
	 bf_bit(VIRTIO_F_IN_ORDER) | bf_bit(VIRTIO_NET_F_MTU))

/* All but XEN_MMAP, which the library does not serve. */
#define EVERYTHING (bf_bit(BF_PROTOCOL_F_NR) - 1 - bf_bit(BF_PROTOCOL_F_XEN_MMAP))

int device_new(struct conn *conn)
{
	static const uint64_t shmem[] = { 65536, 0, 4096 };
	struct bf_backend_config config = {
		.ops = &ops,
		.opaque = conn,
		.name = "test",
		.nr_queues = QUEUES,
		.max_queue_size = 1024,
		.config_size = CONFIG_SIZE,
		.features = FEATURES | bf_bit(VIRTIO_F_ACCESS_PLATFORM),
		.shmem_sizes = shmem,
		.nr_shmem = 3,
	};
	int ret;

	if (conn->kind == CONN_EVERYTHING) {
		config.protocol_features = EVERYTHING & ~bf_bit(BF_PROTOCOL_F_PAGEFAULT);
		config.ops = &enable_ops;
	}
	if (conn->kind == CONN_POSTCOPY)
		config.protocol_features = EVERYTHING;
	if (conn->kind == CONN_OFFLOAD) {
		config.offload = &offload;
		config.features = FEATURES;
	}
	enter();
	ret = bf_backend_new(&config, &conn->be);
	leave();
	return ret;
}

int device_attach(struct conn *conn, int fd)
{
	int ret;

	enter();
	ret = bf_backend_attach(conn->be, fd);
	leave();
	return ret;
}

int device_dispatch(struct conn *conn)
{
	int ret;

	enter();
	ret = bf_backend_dispatch(conn->be);
	leave();
	return ret;
}

void device_free(struct conn *conn)
{
	enter();
	bf_backend_free(conn->be);
	leave();
	conn->be = NULL;
}

/* Read what is to be read and write what is to be written, every byte. */
static uint32_t work(const struct bf_chain *chain)
{
	static volatile uint8_t sum;
	uint64_t written = 0;

	for (unsigned i = 0; i < chain->nr_out; i++)
		for (size_t b = 0; b < chain->iov[i].iov_len; b += 64)
			sum = (uint8_t)(sum + ((volatile uint8_t *)chain->iov[i].iov_base)[b]);
	for (unsigned i = chain->nr_out; i < (unsigned)chain->nr_out + chain->nr_in; i++) {
		for (size_t b = 0; b < chain->iov[i].iov_len; b += 64)
			((volatile uint8_t *)chain->iov[i].iov_base)[b] = 0x77;
		written += chain->iov[i].iov_len;
	}
	return (uint32_t)written;
}

void conn_turn(struct conn *conn)
{
	enter();
	for (unsigned q = 0; q < QUEUES; q++) {
		struct bf_virtq *vq = conn->vq[q];
		struct bf_chain chains[4];
		struct iovec iov[32];
		int nr;

		if (!vq)
			continue;
		bf_virtq_drain_kick(vq);
		for (unsigned i = 0;
		     i < 64 && (nr = bf_virtq_pop_batch(vq, chains, 4, iov, 32)) > 0; i++) {
			struct bf_done done[4];

			for (int k = 0; k < nr; k++)
				done[k] = (struct bf_done){ chains[k].head, work(&chains[k]) };
			bf_virtq_push_batch(vq, done, (unsigned)nr);
			conn->popped += (unsigned)nr;
			conn->pushed += (unsigned)nr;
		}
		bf_virtq_notify(vq);
		bf_virtq_want_kicks(vq, true);
	}
	leave();
}
