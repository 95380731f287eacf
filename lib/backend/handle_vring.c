/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Handlers: vrings. Every setter may come any number of times, and replaces what was there.
 *
 * Control context. Size, addresses and position of a running ring are frozen: a change is refused.
 * Eventfds are exchanged by stopping the ring, exchanging, and starting it again, or under the eyes
 * of a device that serves its rings. Every queue index goes through find_vring() in the width of the wire.
 */
#include "backend.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <sys/stat.h>

#include "../base/check.h"
#include "../base/fd.h"

static struct bf_vring *find_vring(struct bf_backend *be, const struct bf_msg *msg, uint64_t index)
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
	struct bf_vring *vring = find_vring(be, msg, index);

	(void)reply;
	if (!vring)
		return -EINVAL;
	if (!size_ok(be, num))
		return bf_report_error(&be->report, -EINVAL,
				       "SET_VRING_NUM: queue %u of %u entries; expected %s up to %u",
				       index, num, packed(be) ? "1" : "a power of two",
				       be->max_queue_size);
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
	struct bf_vring *vring = find_vring(be, msg, addr->index);

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
	return bf_vring_start(be, addr->index);
}

int bf_handle_set_vring_base(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply)
{
	uint32_t index = msg->payload.state.index, base = msg->payload.state.num;
	struct bf_vring *vring = find_vring(be, msg, index);

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
	vring->base = base;
	vring->based = true;
	return 0;
}

/* Stops the ring and nothing else: it stays enabled, and its position is kept. May come twice. */
int bf_handle_get_vring_base(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply)
{
	uint32_t index = msg->payload.state.index;
	struct bf_vring *vring = find_vring(be, msg, index);

	if (!vring)
		return -EINVAL;
	bf_vring_unstart(be, index);
	bf_msg_set_state(reply, index, bf_vring_base(be, index));
	return 0;
}

/*
 * Descriptors that are not files of a file system have no type, eventfds among them. A pipe would
 * have one: writing to it when nobody reads kills the process. And a full or empty eventfd must
 * never hold up a queue context.
 */
static int make_safe(int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (st.st_mode & S_IFMT)
		return -EINVAL;
	return bf_fd_set_nonblocking(fd);
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
	if (msg->nr_fds && make_safe(msg->fds[0]) < 0) {
		bf_report_error(&be->report, -EINVAL, "%s: the descriptor is not an eventfd", name);
		return NULL;
	}
	return find_vring(be, msg, value & BF_VRING_IDX_MASK);
}

/* Exchange one of a vring's descriptors; a queue thread is stopped and started for it. */
static int exchange(struct bf_backend *be, struct bf_vring *vring, int *slot, struct bf_msg *msg)
{
	unsigned queue = bf_virtq_queue(&vring->vq);
	int former = *slot, ret;

	if (be->offload && vring->running) {
		*slot = bf_msg_take_fd(msg, 0);
		ret = bf_offload_eventfds(be, queue);
		bf_fd_close(&former);
		return ret;
	}
	bf_vring_stop(be, queue);
	bf_fd_close(slot);
	*slot = bf_msg_take_fd(msg, 0);
	return bf_vring_start(be, queue);
}

/* A ring is started by this message, not by the first signal ("Starting and stopping rings"). */
int bf_handle_set_vring_kick(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply)
{
	struct bf_vring *vring = find_eventfd_vring(be, msg);
	int ret;

	(void)reply;
	if (!vring)
		return -EINVAL;
	vring->started = true;
	ret = exchange(be, vring, &vring->kick_fd, msg);
	bf_backend_release_held(be);
	return ret;
}

int bf_handle_set_vring_call(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply)
{
	struct bf_vring *vring = find_eventfd_vring(be, msg);
	bool was_running;
	int ret;

	(void)reply;
	if (!vring)
		return -EINVAL;
	was_running = vring->running;
	ret = exchange(be, vring, &vring->call_fd, msg);
	/* A signal to the old one may not have been seen any more. */
	if (was_running)
		bf_eventfd_signal(vring->call_fd);
	return ret;
}

int bf_handle_set_vring_err(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply)
{
	struct bf_vring *vring = find_eventfd_vring(be, msg);

	(void)reply;
	return vring ? exchange(be, vring, &vring->err_fd, msg) : -EINVAL;
}

int bf_handle_set_vring_enable(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply)
{
	uint32_t index = msg->payload.state.index, on = msg->payload.state.num;
	struct bf_vring *vring = find_vring(be, msg, index);

	(void)reply;
	if (!vring)
		return -EINVAL;
	if (on > 1)
		return bf_report_error(&be->report, -EINVAL,
				       "SET_VRING_ENABLE: queue %u: %u; expected 0 or 1", index,
				       on);
	return bf_vring_set_enabled(be, index, on);
}
