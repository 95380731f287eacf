/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Commands of the control queue (virtio 1.2, 5.1.6.5): a buffer the device reads, class, command
 * and data, and one byte that it writes. Control context; waits, but about a second at most.
 *
 * The driver's half of a ring with one chain in flight. The rings and the answer are written by the
 * device: each is read once, and an answer that is not to our one question breaks the queue.
 */
#include <endian.h>
#include <errno.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <string.h>
#include <time.h>

#include "ctrl_queue.h"

#define MAX_SIZE 64 /* the rings of so many entries fit the first page */

/* On the second page. */
#define ANSWER   4096
#define QUESTION (ANSWER + 64)

#define WAIT_NS 1000000000ll

/* Offsets in memory; a packed ring's event structures take the places of the split rings. */
static uint64_t driver_at(const struct ctrl_queue *ctrl)
{
	return 16ull * ctrl->size;
}

static uint64_t device_at(const struct ctrl_queue *ctrl)
{
	uint64_t at = driver_at(ctrl) + 6 + 2ull * ctrl->size;

	return (at + 15) / 16 * 16;
}

static uint16_t largest_size(uint16_t max)
{
	uint16_t size = MAX_SIZE;

	while (size > max)
		size /= 2;
	return size;
}

static void *at(const struct ctrl_queue *ctrl, uint64_t offset)
{
	return ctrl->memory + offset;
}

/* The answer is looked for, not waited for. */
static void want_no_interrupts(struct ctrl_queue *ctrl)
{
	if (ctrl->packed) {
		struct vring_packed_desc_event *event = at(ctrl, driver_at(ctrl));

		event->flags = htole16(VRING_PACKED_EVENT_FLAG_DISABLE);
	} else {
		struct vring_avail *avail = at(ctrl, driver_at(ctrl));

		avail->flags = htole16(VRING_AVAIL_F_NO_INTERRUPT);
	}
}

int ctrl_queue_start(struct ctrl_queue *ctrl, struct virtio_pci *vp, unsigned queue, bool packed,
		     void *memory, uint64_t iova)
{
	struct ctrl_queue started = {
		.vp = vp,
		.queue = queue,
		.packed = packed,
		.size = largest_size(virtio_pci_queue_max_size(vp, queue)),
		.wrap = true,
		.memory = memory,
		.iova = iova,
	};
	struct virtio_pci_queue_setup setup = {
		.queue = queue,
		.size = started.size,
		.vector = VIRTIO_PCI_NO_VECTOR,
		.desc_iova = iova,
		.driver_iova = iova + driver_at(&started),
		.device_iova = iova + device_at(&started),
	};
	int ret;

	if (started.size < 2)
		return -EINVAL;
	memset(memory, 0, CTRL_QUEUE_MEMORY);
	want_no_interrupts(&started);
	ret = virtio_pci_queue_start(vp, &setup);
	if (!ret)
		*ctrl = started;
	return ret;
}

static void put_split(struct ctrl_queue *ctrl, uint32_t len)
{
	struct vring_avail *avail = at(ctrl, driver_at(ctrl));
	struct vring_desc *desc = at(ctrl, 0);

	desc[0] = (struct vring_desc){ .addr = htole64(ctrl->iova + QUESTION),
				       .len = htole32(len),
				       .flags = htole16(VRING_DESC_F_NEXT),
				       .next = htole16(1) };
	desc[1] = (struct vring_desc){ .addr = htole64(ctrl->iova + ANSWER),
				       .len = htole32(1),
				       .flags = htole16(VRING_DESC_F_WRITE) };
	avail->ring[ctrl->next % ctrl->size] = 0;
	/* Partner: the device reads the index before the entry (2.7.13). */
	__atomic_store_n(&avail->idx, htole16((uint16_t)(ctrl->next + 1)), __ATOMIC_RELEASE);
}

/* 1: answered, 0: not yet. */
static int look_split(struct ctrl_queue *ctrl)
{
	const struct vring_used *used = at(ctrl, device_at(ctrl));
	uint16_t idx = le16toh(__atomic_load_n(&used->idx, __ATOMIC_ACQUIRE));
	const vring_used_elem_t *elem = &used->ring[ctrl->next % ctrl->size];

	if (idx == ctrl->next)
		return 0;
	ctrl->next++;
	if (idx != ctrl->next || __atomic_load_n(&elem->id, __ATOMIC_RELAXED) != 0 ||
	    le32toh(__atomic_load_n(&elem->len, __ATOMIC_RELAXED)) > 1)
		return -EBADMSG;
	return 1;
}

/* 2.8.1: available is the wrap counter in one bit, and not in the other. */
static uint16_t available(bool wrap)
{
	return wrap ? 1u << VRING_PACKED_DESC_F_AVAIL : 1u << VRING_PACKED_DESC_F_USED;
}

static void put_packed(struct ctrl_queue *ctrl, uint32_t len)
{
	struct vring_packed_desc *desc = at(ctrl, 0), *first = &desc[ctrl->next];
	/* The size is even, so that a chain of two never goes round the end. */
	struct vring_packed_desc *second = first + 1;

	first->addr = htole64(ctrl->iova + QUESTION);
	first->len = htole32(len);
	first->id = 0;
	second->addr = htole64(ctrl->iova + ANSWER);
	second->len = htole32(1);
	second->id = 0;
	second->flags = htole16(VRING_DESC_F_WRITE | available(ctrl->wrap));
	/* The first makes the whole chain available (2.8.14). */
	__atomic_store_n(&first->flags, htole16(VRING_DESC_F_NEXT | available(ctrl->wrap)),
			 __ATOMIC_RELEASE);
}

static int look_packed(struct ctrl_queue *ctrl)
{
	const struct vring_packed_desc *desc = at(ctrl, 16ull * ctrl->next);
	uint16_t flags = le16toh(__atomic_load_n(&desc->flags, __ATOMIC_ACQUIRE));
	bool avail = flags & 1u << VRING_PACKED_DESC_F_AVAIL;
	bool used = flags & 1u << VRING_PACKED_DESC_F_USED;

	if (avail != ctrl->wrap || used != ctrl->wrap)
		return 0;
	ctrl->next = (uint16_t)(ctrl->next + 2);
	if (ctrl->next == ctrl->size) {
		ctrl->next = 0;
		ctrl->wrap = !ctrl->wrap;
	}
	if (__atomic_load_n(&desc->id, __ATOMIC_RELAXED) != 0)
		return -EBADMSG;
	/* 2.8.15: the length is set only if something was written; it was, at most one byte. */
	return le32toh(__atomic_load_n(&desc->len, __ATOMIC_RELAXED)) > 1 ? -EBADMSG : 1;
}

static int look(struct ctrl_queue *ctrl)
{
	return ctrl->packed ? look_packed(ctrl) : look_split(ctrl);
}

static long long now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ll + now.tv_nsec;
}

static int wait_for_answer(struct ctrl_queue *ctrl)
{
	struct timespec pause = { .tv_nsec = 5000 };
	long long end = now_ns() + WAIT_NS;
	int ret;

	for (;;) {
		bool late = now_ns() >= end;

		ret = look(ctrl);
		if (ret)
			return ret < 0 ? ret : 0;
		if (late)
			return -ETIMEDOUT;
		nanosleep(&pause, NULL);
		if (pause.tv_nsec < 1000000)
			pause.tv_nsec *= 2;
	}
}

static int read_answer(const struct ctrl_queue *ctrl)
{
	switch (__atomic_load_n(ctrl->memory + ANSWER, __ATOMIC_RELAXED)) {
	case VIRTIO_NET_OK:
		return 0;
	case VIRTIO_NET_ERR:
		return -EREMOTEIO;
	}
	return -EBADMSG;
}

int ctrl_queue_command(struct ctrl_queue *ctrl, uint8_t class, uint8_t command, const void *data,
		       uint32_t len)
{
	struct virtio_net_ctrl_hdr head = { .class = class, .cmd = command };
	int ret;

	if (ctrl->broken)
		return -ETIMEDOUT;
	if (len > CTRL_QUEUE_DATA)
		return -EMSGSIZE;
	memcpy(at(ctrl, QUESTION), &head, sizeof(head));
	if (len)
		memcpy(ctrl->memory + QUESTION + sizeof(head), data, len);
	ctrl->memory[ANSWER] = 0xff; /* neither OK nor an error */
	if (ctrl->packed)
		put_packed(ctrl, (uint32_t)sizeof(head) + len);
	else
		put_split(ctrl, (uint32_t)sizeof(head) + len);
	virtio_pci_ring(ctrl->vp, ctrl->queue);
	ret = wait_for_answer(ctrl);
	ctrl->broken = ret != 0;
	return ret ? ret : read_answer(ctrl);
}

int ctrl_queue_set_pairs(struct ctrl_queue *ctrl, uint16_t pairs)
{
	struct virtio_net_ctrl_mq mq = { .virtqueue_pairs = htole16(pairs) };

	return ctrl_queue_command(ctrl, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, &mq,
				  sizeof(mq));
}
