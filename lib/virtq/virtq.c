/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Life of a virtqueue, device side: start, stop, breaking, and what can be asked about it.
 *
 * Start and stop run on the control context while no queue context has the virtqueue; the rest on
 * the queue context. Must not trust anything in the ring, and must not own a descriptor.
 */
#include "virtq.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/fd.h"

void bf_virtq_init(struct bf_virtq *vq, unsigned queue)
{
	vq->queue = queue;
	vq->format = &bf_split_format;
	vq->kick_fd = -1;
	vq->call_fd = -1;
	vq->err_fd = -1;
}

struct bf_virtq *bf_virtq_new(unsigned queue)
{
	struct bf_virtq *vq = aligned_alloc(_Alignof(struct bf_virtq), sizeof(*vq));

	if (!vq)
		return NULL;
	memset(vq, 0, sizeof(*vq));
	bf_virtq_init(vq, queue);
	return vq;
}

void bf_virtq_free(struct bf_virtq *vq)
{
	if (!vq)
		return;
	bf_virtq_stop(vq);
	free(vq);
}

int bf_virtq_start(struct bf_virtq *vq, const struct bf_virtq_setup *setup, const char **why)
{
	bool packed = (setup->features >> VIRTIO_F_RING_PACKED) & 1;
	/* One more than there can be heads: a size of 0 is for the format to refuse. */
	uint16_t *in_flight = calloc(setup->size + 1u, sizeof(*in_flight));
	int ret;

	if (!in_flight) {
		if (why)
			*why = "out of memory";
		return -ENOMEM;
	}
	ret = packed ? bf_packed_attach(vq, setup, why) : bf_split_attach(vq, setup, why);
	if (ret)
		goto free_in_flight;

	vq->memory = bf_memory_ref(setup->memory);
	vq->in_flight = in_flight;
	vq->nr_in_flight = 0;
	vq->broken = 0;
	vq->size = setup->size;
	vq->event_idx = (setup->features >> VIRTIO_RING_F_EVENT_IDX) & 1;
	vq->indirect = (setup->features >> VIRTIO_RING_F_INDIRECT_DESC) & 1;
	/* What the driver was last told is not known any more: tell it once too often. */
	vq->call_due = true;
	vq->kick_fd = setup->kick_fd;
	vq->call_fd = setup->call_fd;
	vq->err_fd = setup->err_fd;
	vq->running = true;
	/* From here on it is to notify us: the device looks at the ring once, and may sleep then. */
	bf_virtq_want_kicks(vq, true);
	return 0;

free_in_flight:
	free(in_flight);
	return ret;
}

void bf_virtq_stop(struct bf_virtq *vq)
{
	if (!vq->running)
		return;
	/* What was given back must not be lost, nor lie half visible in a packed ring. */
	bf_virtq_notify(vq);
	vq->running = false;
	free(vq->in_flight);
	vq->in_flight = NULL;
	vq->desc = NULL;
	vq->avail = NULL;
	vq->used = NULL;
	vq->used_event = NULL;
	vq->avail_event = NULL;
	vq->kick_fd = vq->call_fd = vq->err_fd = -1;
	bf_memory_unref(vq->memory);
	vq->memory = NULL;
}

uint32_t bf_virtq_base(const struct bf_virtq *vq)
{
	if (vq->format == &bf_packed_format)
		return vq->next_avail | (uint32_t)vq->next_used << 16;
	return vq->next_avail;
}

int bf_virtq_break(struct bf_virtq *vq, int error, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(vq->reason, sizeof(vq->reason), format, args);
	va_end(args);
	vq->broken = error;
	bf_count(&vq->counters.errors, 1);
	bf_eventfd_signal(vq->err_fd);
	return error;
}

int bf_virtq_kick_fd(const struct bf_virtq *vq)
{
	return vq->kick_fd;
}

uint64_t bf_virtq_drain_kick(struct bf_virtq *vq)
{
	uint64_t signals = bf_eventfd_drain(vq->kick_fd);

	bf_count(&vq->counters.kicks, signals);
	return signals;
}

unsigned bf_virtq_queue(const struct bf_virtq *vq)
{
	return vq->queue;
}

unsigned bf_virtq_size(const struct bf_virtq *vq)
{
	return vq->size;
}

unsigned bf_virtq_in_flight(const struct bf_virtq *vq)
{
	return vq->nr_in_flight;
}

int bf_virtq_broken(const struct bf_virtq *vq, const char **reason)
{
	if (reason)
		*reason = vq->broken ? vq->reason : NULL;
	return vq->broken;
}

struct bf_virtq_counters *bf_virtq_counters(struct bf_virtq *vq)
{
	return &vq->counters;
}
