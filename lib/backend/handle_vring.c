/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Handlers: vrings. Every setter may come any number of times, and replaces what was there.
 *
 * Control context. Size, addresses and position of a running ring are frozen: a change is refused. A
 * call or error eventfd is exchanged while the queue is held, which its thread does not notice. A kick
 * eventfd is in the thread's own epoll set: for that one the ring is stopped and started. Every queue
 * index goes through bf_find_vring() in the width of the wire.
 */
#include "change.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <sys/eventfd.h>

#include "../base/check.h"
#include "../base/fd.h"
#include "../virtq/hold.h"

struct bf_vring *bf_find_vring(struct bf_backend *be, const struct bf_msg *msg, uint64_t index)
{
	if (index < be->nr_queues)
		return &be->vrings[index];
	bf_report_error(&be->report, -EINVAL, "%s: queue %llu, the device has %u",
			bf_msg_name(BF_CHANNEL_MAIN, msg->hdr.request), (unsigned long long)index,
			be->nr_queues);
	return NULL;
}

static int busy(struct bf_backend *be, const struct bf_msg *msg, unsigned index)
{
	return bf_report_error(&be->report, -EBUSY,
			       "%s: queue %u is running; stop it first (GET_VRING_BASE)",
			       bf_msg_name(BF_CHANNEL_MAIN, msg->hdr.request), index);
}

static bool packed(const struct bf_backend *be)
{
	return bf_has(be->agreed.features, VIRTIO_F_RING_PACKED);
}

/* "Queue Size value does not have to be a power of 2" (virtio 1.2, 2.8.10.1), unless split. */
static bool size_ok(const struct bf_backend *be, uint32_t num)
{
	return num && num <= be->max_queue_size && (packed(be) || bf_is_power_of_two(num));
}

int bf_handle_set_vring_num(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply)
{
	uint32_t index = msg->payload.state.index, num = msg->payload.state.num;
	struct bf_vring *vring = bf_find_vring(be, msg, index);

	(void)reply;
	if (!vring)
		return -EINVAL;
	if (!size_ok(be, num))
		return bf_report_error(
			&be->report, -EINVAL,
			"SET_VRING_NUM: queue %u of %u entries; expected %s up to %u", index, num,
			packed(be) ? "1" : "a power of two", be->max_queue_size);
	if (vring->running && num != vring->num)
		return busy(be, msg, index);
	vring->num = (uint16_t)num;
	return bf_vring_start(be, index);
}

static bool same_rings(const struct bf_vring_addr *a, const struct bf_vring_addr *b)
{
	return a->desc == b->desc && a->avail == b->avail && a->used == b->used;
}

int bf_handle_set_vring_addr(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply)
{
	const struct bf_vring_addr *addr = &msg->payload.addr;
	struct bf_vring *vring = bf_find_vring(be, msg, addr->index);

	(void)reply;
	if (!vring)
		return -EINVAL;
	if (addr->flags & ~(uint32_t)bf_bit(BF_VRING_F_LOG))
		return bf_report_error(&be->report, -EINVAL,
				       "SET_VRING_ADDR: queue %u: unknown flags 0x%x", addr->index,
				       addr->flags);
	/* On a running ring it comes again to turn the log flag on and off, and for nothing else.
	 */
	if (vring->running && !same_rings(addr, &vring->addr))
		return busy(be, msg, addr->index);
	vring->addr = *addr;
	vring->addressed = true;
	if (vring->running)
		return bf_log_readdress(be, addr->index);
	return bf_vring_start(be, addr->index);
}

int bf_handle_set_vring_base(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply)
{
	uint32_t index = msg->payload.state.index, base = msg->payload.state.num;
	struct bf_vring *vring = bf_find_vring(be, msg, index);

	(void)reply;
	if (!vring)
		return -EINVAL;
	if (base > UINT16_MAX && !packed(be))
		return bf_report_error(
			&be->report, -EINVAL,
			"SET_VRING_BASE: queue %u: %u; a split ring's position has 16 "
			"bits",
			index, base);
	if (vring->running)
		return busy(be, msg, index);
	/*
	 * DPDK's virtio_user names the available half only, "0, wrap 1". Taken by its word, with "0, wrap 0"
	 * as the used half, all entries of a ring that has just been made would be in flight.
	 */
	if (packed(be) && base == (BF_VIRTQ_PACKED_BASE & UINT16_MAX))
		base = BF_VIRTQ_PACKED_BASE;
	vring->base = base;
	vring->based = true;
	return 0;
}

/* Stops the ring and nothing else: it stays enabled, and its position is kept. May come twice. */
static int get_vring_base(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply,
			  bool suspend)
{
	uint32_t index = msg->payload.state.index;
	struct bf_vring *vring = bf_find_vring(be, msg, index);

	if (!vring)
		return -EINVAL;
	if (suspend)
		bf_vring_suspend(be, index);
	bf_vring_unstart(be, index);
	bf_msg_set_state(reply, index, bf_vring_base(be, index));
	return 0;
}

/* A number in the request: some front ends ask like this that requests in flight stay so. */
int bf_handle_get_vring_base(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply)
{
	bool agreed = bf_has(be->agreed.protocol_features, BF_PROTOCOL_F_GET_VRING_BASE_INFLIGHT);

	return get_vring_base(be, msg, reply, agreed && msg->payload.state.num);
}

int bf_handle_get_vring_base_skip_drain(struct bf_backend *be, struct bf_msg *msg,
					struct bf_msg *reply)
{
	return get_vring_base(be, msg, reply, true);
}

/* The queue of a message with an eventfd, and the eventfd made safe to use, still in the message.
 */
static struct bf_vring *find_eventfd_vring(struct bf_backend *be, struct bf_msg *msg)
{
	uint64_t value = msg->payload.u64;
	const char *name = bf_msg_name(BF_CHANNEL_MAIN, msg->hdr.request);

	if (value & ~(BF_VRING_IDX_MASK | BF_VRING_NOFD)) {
		bf_report_error(&be->report, -EINVAL,
				"%s: 0x%llx; expected a queue number and the no-descriptor bit",
				name, (unsigned long long)value);
		return NULL;
	}
	if (msg->nr_fds && bf_vring_check_eventfd(msg->fds[0]) < 0) {
		bf_report_error(&be->report, -EINVAL, "%s: the descriptor is not an eventfd", name);
		return NULL;
	}
	return bf_find_vring(be, msg, value & BF_VRING_IDX_MASK);
}

static bool in_band(const struct bf_backend *be)
{
	return bf_has(be->agreed.protocol_features, BF_PROTOCOL_F_INBAND_NOTIFICATIONS);
}

/* @fd: owned. Stops and starts a queue thread; a device that serves its rings is told. */
static int exchange(struct bf_backend *be, struct bf_vring *vring, int *slot, int fd)
{
	unsigned queue = bf_virtq_queue(&vring->vq);
	int former = *slot, ret;

	if (be->offload && vring->running) {
		*slot = fd;
		ret = bf_offload_eventfds(be, queue);
		bf_fd_close(&former);
		return ret;
	}
	/* One that waits for the IOTLB goes on waiting: what it asked for is not asked for again. */
	if (vring->running)
		bf_vring_stop(be, queue);
	bf_fd_close(slot);
	*slot = fd;
	return bf_vring_start(be, queue);
}

/* The same for a descriptor that only lib/virtq uses. The driver is called once, by the new one. */
static int exchange_held(struct bf_backend *be, struct bf_vring *vring, int *slot, int fd)
{
	struct bf_change change;
	int former = *slot;

	/* In-band notification comes and goes with the call eventfd: that is decided at a start. */
	if (be->offload || !vring->running || in_band(be))
		return exchange(be, vring, slot, fd);
	*slot = fd;
	bf_change_begin_one(be, bf_virtq_queue(&vring->vq), &change);
	bf_virtq_set_eventfds(&vring->vq, vring->kick_fd, vring->call_fd, vring->err_fd);
	bf_change_end(&change, false);
	bf_fd_close(&former);
	return 0;
}

static int make_kick(struct bf_backend *be, struct bf_vring *vring)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	if (fd < 0)
		return bf_report_error(&be->report, -errno, "queue %u: no eventfd for its kicks",
				       bf_virtq_queue(&vring->vq));
	return fd;
}

/*
 * A ring is started by this message, not by the first signal ("Starting and stopping rings"). Without a
 * descriptor the device polls, or is kicked in-band: then by an eventfd of our own.
 */
int bf_handle_set_vring_kick(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply)
{
	struct bf_vring *vring = find_eventfd_vring(be, msg);
	int ret, fd;

	(void)reply;
	if (!vring)
		return -EINVAL;
	fd = bf_msg_take_fd(msg, 0);
	if (fd < 0 && in_band(be)) {
		fd = make_kick(be, vring);
		if (fd < 0)
			return fd;
	}
	vring->started = true;
	ret = exchange(be, vring, &vring->kick_fd, fd);
	bf_backend_release_held(be);
	return ret;
}

/* In-band: a kick, which starts the ring if that has not been done. */
int bf_handle_vring_kick(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply)
{
	struct bf_vring *vring = bf_find_vring(be, msg, msg->payload.state.index);
	int ret = 0;

	(void)reply;
	if (!vring)
		return -EINVAL;
	if (vring->kick_fd < 0) {
		int fd = make_kick(be, vring);

		if (fd < 0)
			return fd;
		ret = exchange(be, vring, &vring->kick_fd, fd);
	}
	if (!vring->started) {
		vring->started = true;
		ret = bf_vring_start(be, msg->payload.state.index);
		bf_backend_release_held(be);
	}
	bf_eventfd_signal(vring->kick_fd);
	return ret;
}

int bf_handle_set_vring_call(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply)
{
	struct bf_vring *vring = find_eventfd_vring(be, msg);

	(void)reply;
	if (!vring)
		return -EINVAL;
	if (!vring->running)
		return exchange(be, vring, &vring->call_fd, bf_msg_take_fd(msg, 0));
	/* A signal to the old one may not have been seen any more. */
	if (be->offload || in_band(be)) {
		int ret = exchange(be, vring, &vring->call_fd, bf_msg_take_fd(msg, 0));

		bf_eventfd_signal(vring->call_fd);
		return ret;
	}
	return exchange_held(be, vring, &vring->call_fd, bf_msg_take_fd(msg, 0));
}

int bf_handle_set_vring_err(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply)
{
	struct bf_vring *vring = find_eventfd_vring(be, msg);

	(void)reply;
	return vring ? exchange_held(be, vring, &vring->err_fd, bf_msg_take_fd(msg, 0)) : -EINVAL;
}

int bf_handle_set_vring_enable(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply)
{
	uint32_t index = msg->payload.state.index, on = msg->payload.state.num;
	struct bf_vring *vring = bf_find_vring(be, msg, index);

	(void)reply;
	if (!vring)
		return -EINVAL;
	if (on > 1)
		return bf_report_error(&be->report, -EINVAL,
				       "SET_VRING_ENABLE: queue %u: %u; expected 0 or 1", index,
				       on);
	return bf_vring_set_enabled(be, index, on);
}
