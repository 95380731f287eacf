/* SPDX-License-Identifier: BSD-3-Clause */
/* How a front end gets a back end into each state. */
#include "states.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PLAIN  bf_bit(VIRTIO_F_VERSION_1)
#define PACKED bf_bit(VIRTIO_F_RING_PACKED)

static void agree(struct conn *conn, uint64_t features, uint64_t without)
{
	conn_say(conn, BF_FE_GET_PROTOCOL_FEATURES, BF_FLAGS_VERSION, NULL, 0, NULL, 0);
	conn_pump(conn);
	conn_say_u64(conn, BF_FE_SET_PROTOCOL_FEATURES, conn->last_reply & ~without);
	conn_say_u64(conn, BF_FE_SET_FEATURES, features | ACK_BIT);
}

/* Those that change what other messages mean. */
#define SPECIAL                                                                             \
	(bf_bit(BF_PROTOCOL_F_INBAND_NOTIFICATIONS) | bf_bit(BF_PROTOCOL_F_GPA_ADDRESSES) | \
	 bf_bit(BF_PROTOCOL_F_PAGEFAULT))

static void back_channel(struct conn *conn)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair))
		return;
	conn_say(conn, BF_FE_SET_BACKEND_REQ_FD, BF_FLAGS_VERSION, NULL, 0, &pair[1], 1);
	conn->back = pair[0];
	close(pair[1]);
}

static void memory_at(struct conn *conn, uint64_t uva)
{
	const struct bf_mem_table table = { .nr = 1, .regions = { { GPA, MEMORY_SIZE, uva, 0 } } };

	conn_say(conn, BF_FE_SET_MEM_TABLE, BF_FLAGS_VERSION, &table, 40, &conn_fds.memory, 1);
}

static void ring(struct conn *conn, uint32_t queue, uint64_t start)
{
	const uint64_t page = start + 4096ull * queue;
	const struct bf_vring_addr addr = {
		.index = queue, .desc = page, .avail = page + 1024, .used = page + 2048
	};

	conn_say_state(conn, BF_FE_SET_VRING_NUM, queue, RING_SIZE);
	conn_say_state(conn, BF_FE_SET_VRING_BASE, queue, conn->packed ? 0x80008000u : 0);
	conn_say(conn, BF_FE_SET_VRING_ADDR, BF_FLAGS_VERSION, &addr, sizeof(addr), NULL, 0);
	conn_say_fd(conn, BF_FE_SET_VRING_CALL, queue, conn_fds.event);
}

static void run(struct conn *conn, uint32_t queue)
{
	conn_say_fd(conn, BF_FE_SET_VRING_KICK, queue, conn_fds.event);
	conn_say_state(conn, BF_FE_SET_VRING_ENABLE, queue, 1);
}

static void run_all(struct conn *conn, uint64_t start)
{
	for (uint32_t q = 0; q < QUEUES; q += QUEUES - 1) {
		ring(conn, q, start);
		run(conn, q);
	}
}

static void fresh(struct conn *conn)
{
	(void)conn;
}

static void features_set(struct conn *conn)
{
	conn_say_u64(conn, BF_FE_SET_FEATURES, PLAIN | ACK_BIT);
}

static void agreed(struct conn *conn)
{
	agree(conn, PLAIN | bf_bit(VIRTIO_NET_F_MTU), SPECIAL);
	back_channel(conn);
}

static void memory(struct conn *conn)
{
	agreed(conn);
	memory_at(conn, UVA);
}

static void slots(struct conn *conn)
{
	agreed(conn);
	for (uint64_t i = 0; i < 2; i++) {
		const uint64_t half = MEMORY_SIZE / 2;
		const struct bf_mem_reg reg = { .region = { GPA + i * half, half, UVA + i * half,
							    i * half } };

		conn_say(conn, BF_FE_ADD_MEM_REG, BF_FLAGS_VERSION, &reg, sizeof(reg),
			 &conn_fds.memory, 1);
	}
	run_all(conn, UVA);
}

static void rings(struct conn *conn)
{
	memory(conn);
	ring(conn, 0, UVA);
	ring(conn, QUEUES - 1, UVA);
}

static void running(struct conn *conn)
{
	memory(conn);
	run_all(conn, UVA);
}

static void running_packed(struct conn *conn)
{
	agree(conn, PLAIN | PACKED, SPECIAL);
	back_channel(conn);
	memory_at(conn, UVA);
	run_all(conn, UVA);
}

static void doorbells(struct conn *conn)
{
	conn->publish_fd = conn_fds.page;
	running(conn);
}

/* A front end without protocol features: SET_FEATURES starts every ring that is set up. */
static void old_front_end(struct conn *conn)
{
	conn_say_u64(conn, BF_FE_SET_FEATURES, PLAIN);
	memory_at(conn, UVA);
	ring(conn, 0, UVA);
	conn_say_fd(conn, BF_FE_SET_VRING_KICK, 0, conn_fds.event);
	ring(conn, QUEUES - 1, UVA);
	conn_say_fd(conn, BF_FE_SET_VRING_KICK, QUEUES - 1, conn_fds.event);
}

static void disabled(struct conn *conn)
{
	running(conn);
	for (uint32_t q = 0; q < QUEUES; q += QUEUES - 1)
		conn_say_state(conn, BF_FE_SET_VRING_ENABLE, q, 0);
}

static void stop_all(struct conn *conn, uint32_t request)
{
	for (uint32_t q = 0; q < QUEUES; q += QUEUES - 1)
		conn_say_state(conn, request, q, 0);
}

static void stopped(struct conn *conn)
{
	running(conn);
	stop_all(conn, BF_FE_GET_VRING_BASE);
}

static void suspended(struct conn *conn)
{
	running(conn);
	stop_all(conn, BF_FE_GET_VRING_BASE_SKIP_DRAIN);
}

static void was_reset(struct conn *conn)
{
	running(conn);
	conn_say(conn, BF_FE_RESET_DEVICE, BF_FLAGS_VERSION, NULL, 0, NULL, 0);
}

static void status_ok(struct conn *conn)
{
	running(conn);
	conn_say_u64(conn, BF_FE_SET_STATUS, 0xf);
}

/* One bit for each 4 KiB of the highest address, as front ends do it. */
#define LOG_SIZE ((GPA + MEMORY_SIZE) / 4096 / 8)

static void log_on(struct conn *conn)
{
	const struct bf_log_area area = { LOG_SIZE, MEMORY_SIZE - LOG_SIZE };

	running(conn);
	conn_say(conn, BF_FE_SET_LOG_BASE, BF_FLAGS_VERSION, &area, sizeof(area), &conn_fds.memory,
		 1);
	conn_say(conn, BF_FE_SET_LOG_FD, BF_FLAGS_VERSION, NULL, 0, &conn_fds.event, 1);
	conn_say_u64(conn, BF_FE_SET_FEATURES,
		     PLAIN | bf_bit(VIRTIO_NET_F_MTU) | ACK_BIT | bf_bit(BF_VHOST_F_LOG_ALL));
}

static void in_flight(struct conn *conn, uint64_t features)
{
	const struct bf_inflight wanted = { .nr_queues = QUEUES, .queue_size = RING_SIZE };
	const struct bf_inflight brought = { .mmap_size = 16384,
					     .mmap_offset = 131072,
					     .nr_queues = QUEUES,
					     .queue_size = RING_SIZE };

	agree(conn, features, SPECIAL);
	back_channel(conn);
	memory_at(conn, UVA);
	memset(conn_memory + 131072, 0, 16384);
	conn_say(conn, BF_FE_GET_INFLIGHT_FD, BF_FLAGS_VERSION, &wanted, sizeof(wanted), NULL, 0);
	conn_say(conn, BF_FE_SET_INFLIGHT_FD, BF_FLAGS_VERSION, &brought, sizeof(brought),
		 &conn_fds.memory, 1);
	run_all(conn, UVA);
}

static void in_flight_split(struct conn *conn)
{
	in_flight(conn, PLAIN);
}

static void in_flight_packed(struct conn *conn)
{
	in_flight(conn, PLAIN | PACKED);
}

static void iommu_waiting(struct conn *conn)
{
	agree(conn, PLAIN | bf_bit(VIRTIO_F_ACCESS_PLATFORM), SPECIAL);
	back_channel(conn);
	memory_at(conn, UVA);
	run_all(conn, IOVA);
}

static void iommu(struct conn *conn)
{
	const struct bf_iotlb rings_too = {
		.iova = IOVA, .size = MEMORY_SIZE, .uva = UVA, .perm = 3, .type = BF_IOTLB_UPDATE
	};
	const struct bf_iotlb buffers = {
		.iova = GPA, .size = MEMORY_SIZE, .uva = UVA, .perm = 3, .type = BF_IOTLB_UPDATE
	};

	iommu_waiting(conn);
	conn_say(conn, BF_FE_IOTLB_MSG, BF_FLAGS_VERSION, &rings_too, sizeof(rings_too), NULL, 0);
	conn_say(conn, BF_FE_IOTLB_MSG, BF_FLAGS_VERSION, &buffers, sizeof(buffers), NULL, 0);
}

static void state_transfer(struct conn *conn)
{
	const struct bf_device_state load = { .direction = 1, .phase = 0 };

	stopped(conn);
	conn_say(conn, BF_FE_SET_DEVICE_STATE_FD, BF_FLAGS_VERSION, &load, sizeof(load),
		 &conn_fds.pipe, 1);
}

static void in_band(struct conn *conn)
{
	agree(conn, PLAIN, bf_bit(BF_PROTOCOL_F_GPA_ADDRESSES) | bf_bit(BF_PROTOCOL_F_PAGEFAULT));
	back_channel(conn);
	memory_at(conn, UVA);
	for (uint32_t q = 0; q < QUEUES; q += QUEUES - 1) {
		ring(conn, q, UVA);
		conn_say_state(conn, BF_FE_VRING_KICK, q, 0);
		conn_say_state(conn, BF_FE_SET_VRING_ENABLE, q, 1);
	}
}

static void physical_addresses(struct conn *conn)
{
	agree(conn, PLAIN,
	      bf_bit(BF_PROTOCOL_F_INBAND_NOTIFICATIONS) | bf_bit(BF_PROTOCOL_F_PAGEFAULT));
	back_channel(conn);
	memory_at(conn, GPA);
	run_all(conn, GPA);
}

/* Not everywhere may a process ask for it. */
static bool has_userfaultfd(void)
{
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

static void postcopy(struct conn *conn)
{
	agree(conn, PLAIN,
	      bf_bit(BF_PROTOCOL_F_INBAND_NOTIFICATIONS) | bf_bit(BF_PROTOCOL_F_GPA_ADDRESSES) |
		      bf_bit(BF_PROTOCOL_F_CONFIGURE_MEM_SLOTS));
	back_channel(conn);
	if (has_userfaultfd())
		conn_say(conn, BF_FE_POSTCOPY_ADVISE, BF_FLAGS_VERSION, NULL, 0, NULL, 0);
}

static void hostile_ring(struct conn *conn)
{
	running(conn);
	conn_pump(conn);
	for (unsigned q = 0; q < QUEUES; q++)
		*(uint16_t *)(void *)(conn_memory + 4096u * q + 1024 + 2) = 0x7777;
	conn_turn(conn);
}

static bool any(const struct conn *conn)
{
	return bf_backend_attached(conn->be);
}

static bool nothing_runs(const struct conn *conn)
{
	return any(conn) && !conn->vq[0] && !conn->vq[QUEUES - 1];
}

static bool both_run(const struct conn *conn)
{
	return any(conn) && conn->vq[0] && conn->vq[QUEUES - 1] && conn->popped == 4 &&
	       !bf_virtq_broken(conn->vq[0], NULL);
}

static bool both_disabled(const struct conn *conn)
{
	return both_run(conn) && !conn->enabled[0] && !conn->enabled[QUEUES - 1];
}

static bool log_runs(const struct conn *conn)
{
	/* All bits are LOG_ALL's and the features' that the front end said last. */
	return both_run(conn);
}

static bool doorbells_run(const struct conn *conn)
{
	return both_run(conn) && conn->asked >= 2;
}

static bool both_broken(const struct conn *conn)
{
	return any(conn) && conn->vq[0] && bf_virtq_broken(conn->vq[0], NULL) < 0;
}

static bool both_offloaded(const struct conn *conn)
{
	return any(conn) && conn->offloaded[0] && conn->offloaded[QUEUES - 1];
}

const struct state states[] = {
	{ "fresh", CONN_DEFAULT, false, fresh, nothing_runs },
	{ "features set", CONN_DEFAULT, false, features_set, nothing_runs },
	{ "agreed", CONN_EVERYTHING, false, agreed, nothing_runs },
	{ "memory", CONN_EVERYTHING, false, memory, nothing_runs },
	{ "memory slots, running", CONN_DEFAULT, false, slots, both_run },
	{ "rings set up", CONN_EVERYTHING, false, rings, nothing_runs },
	{ "running", CONN_DEFAULT, false, running, both_run },
	{ "running, everything named", CONN_EVERYTHING, false, running, both_run },
	{ "running, packed", CONN_EVERYTHING, true, running_packed, both_run },
	{ "running, with doorbells", CONN_DEFAULT, false, doorbells, doorbells_run },
	{ "old front end", CONN_DEFAULT, false, old_front_end, both_run },
	{ "disabled", CONN_EVERYTHING, false, disabled, both_disabled },
	{ "stopped", CONN_EVERYTHING, false, stopped, nothing_runs },
	{ "suspended without draining", CONN_EVERYTHING, false, suspended, nothing_runs },
	{ "reset", CONN_EVERYTHING, false, was_reset, nothing_runs },
	{ "status set", CONN_EVERYTHING, false, status_ok, both_run },
	{ "logging", CONN_EVERYTHING, false, log_on, log_runs },
	{ "in-flight region, split", CONN_EVERYTHING, false, in_flight_split, both_run },
	{ "in-flight region, packed", CONN_EVERYTHING, true, in_flight_packed, both_run },
	{ "IOMMU, translations missing", CONN_EVERYTHING, false, iommu_waiting, nothing_runs },
	{ "IOMMU, running", CONN_EVERYTHING, false, iommu, both_run },
	{ "device state", CONN_EVERYTHING, false, state_transfer, nothing_runs },
	{ "in-band notifications", CONN_EVERYTHING, false, in_band, both_run },
	{ "guest-physical ring addresses", CONN_EVERYTHING, false, physical_addresses, both_run },
	{ "postcopy", CONN_POSTCOPY, false, postcopy, any },
	{ "broken rings", CONN_DEFAULT, false, hostile_ring, both_broken },
	{ "offload, running", CONN_OFFLOAD, false, running, both_offloaded },
};
const unsigned nr_states = sizeof(states) / sizeof(states[0]);

const struct state *state_named(const char *name)
{
	for (unsigned i = 0; i < nr_states; i++)
		if (!strcmp(states[i].name, name))
			return &states[i];
	fprintf(stderr, "no state \"%s\"\n", name);
	abort();
}

bool state_open(const struct state *state, struct conn *conn)
{
	conn_fill_rings(state->packed);
	if (!conn_open(conn, state->kind))
		return false;
	conn->packed = state->packed;
	state->enter(conn);
	conn_pump(conn);
	conn_turn(conn);
	conn_pump(conn);
	return state->reached(conn);
}
