/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Life of a virtqueue, device side: start, stop, breaking, and what can be asked about it.
 *
 * Start and stop run on the control context while no queue context has the virtqueue, changes of a
 * running one (move, eventfds, answers) while control holds it; the rest on the queue context. Must not
 * trust anything in the ring, and must not own a descriptor.
 */
#include "virtq.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/fd.h"
#include "../base/fence.h"
#include "../mem/map.h"
#include "dirty.h"
#include "hold.h"
#include "inflight.h"

void bf_virtq_init(struct bf_virtq *vq, unsigned queue)
{
	vq->queue = queue;
	vq->format = &bf_split_format;
	vq->kick_fd = -1;
	vq->call_fd = -1;
	vq->err_fd = -1;
	vq->post_fd = -1;
	bf_fence_register();
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

static const struct bf_virtq_extras no_extras = { .log_fd = -1, .post_fd = -1 };

int bf_virtq_start(struct bf_virtq *vq, const struct bf_virtq_setup *setup, const char **why)
{
	return bf_virtq_start_with(vq, setup, &no_extras, NULL, why);
}

/* What is private for each request: two arrays in one allocation. */
static int make_room(struct bf_virtq *vq)
{
	size_t word = sizeof(*vq->in_flight) + (vq->in_order ? sizeof(*vq->order) : 0);

	vq->in_flight = calloc(vq->size, word);
	if (!vq->in_flight)
		return -ENOMEM;
	vq->order = vq->in_order ? (void *)(vq->in_flight + vq->size) : NULL;
	vq->order_in = vq->order_out = 0;
	return 0;
}

/* The address space that descriptors are in. */
static void see(struct bf_virtq *vq, struct bf_memory *memory, const struct bf_virtq_extras *extras)
{
	vq->memory = bf_memory_ref(memory);
	vq->iotlb = extras->iotlb != NULL;
	vq->space = extras->iotlb ? *bf_iotlb_space(extras->iotlb) : memory->gpa_space;
	vq->hint = 0;
}

static void begin(struct bf_virtq *vq, const struct bf_virtq_setup *setup,
		  const struct bf_virtq_extras *extras)
{
	uint64_t features = setup->features;

	vq->format = (features >> VIRTIO_F_RING_PACKED) & 1 ? &bf_packed_format : &bf_split_format;
	vq->size = setup->size;
	vq->event_idx = (features >> VIRTIO_RING_F_EVENT_IDX) & 1;
	vq->indirect = (features >> VIRTIO_RING_F_INDIRECT_DESC) & 1;
	vq->in_order = (features >> VIRTIO_F_IN_ORDER) & 1;
	vq->nr_in_flight = vq->nr_old = 0;
	vq->broken = 0;
	vq->waiting = false;
	vq->inflight = NULL;
	vq->dirty = NULL;
	/* What the driver was last told is not known any more: tell it once too often. */
	vq->call_due = true;
	vq->kick_fd = setup->kick_fd;
	vq->call_fd = setup->call_fd;
	vq->err_fd = setup->err_fd;
	vq->post_fd = extras->post_fd;
	vq->in_band = extras->in_band;
	__atomic_store_n(&vq->posted, 0, __ATOMIC_RELAXED);
}

static int attach_records(struct bf_virtq *vq, const struct bf_virtq_extras *extras,
			  const char **why)
{
	int ret;

	if (extras->inflight) {
		ret = bf_inflight_attach(vq, extras->inflight, extras->inflight_size, why);
		if (ret)
			return ret;
	}
	if (!extras->log)
		return 0;
	ret = bf_dirty_attach(vq, extras);
	if (!ret)
		return 0;
	if (why)
		*why = "out of memory";
	if (vq->inflight)
		bf_inflight_detach(vq);
	return ret;
}

int bf_virtq_start_with(struct bf_virtq *vq, const struct bf_virtq_setup *setup,
			const struct bf_virtq_extras *extras, uint64_t *missing, const char **why)
{
	const struct bf_virtq before = *vq;
	struct bf_ring_parts parts;
	int ret = bf_attach_find(setup, extras, &parts, missing, why);

	if (ret)
		return ret;
	begin(vq, setup, extras);
	ret = make_room(vq);
	if (ret) {
		if (why)
			*why = "out of memory";
		goto as_before;
	}
	see(vq, setup->memory, extras);
	bf_attach_parts(vq, &parts);
	bf_attach_positions(vq, setup->base);
	ret = attach_records(vq, extras, why);
	if (ret)
		goto forget_memory;
	vq->running = true;
	/* From here on it is to notify us: the device looks at the ring once, and may sleep then. */
	bf_virtq_want_kicks(vq, true);
	return 0;

forget_memory:
	bf_memory_unref(vq->memory);
	free(vq->in_flight);
as_before:
	*vq = before;
	return ret;
}

int bf_virtq_move(struct bf_virtq *vq, const struct bf_virtq_setup *setup,
		  const struct bf_virtq_extras *extras, const char **why)
{
	struct bf_memory *old = vq->memory;
	struct bf_virtq_setup same = *setup;
	struct bf_ring_parts parts;
	int ret;

	/* It is the same ring: what it is like was checked when it began. */
	same.size = vq->size;
	same.base = bf_virtq_base(vq);
	ret = bf_attach_find(&same, extras, &parts, NULL, why);
	if (ret)
		return -EFAULT;
	if (extras->log) {
		/* What is in flight stays remembered. */
		ret = bf_dirty_attach(vq, extras);
		if (ret) {
			if (why)
				*why = "out of memory";
			return ret;
		}
	} else if (vq->dirty) {
		bf_dirty_detach(vq);
	}
	see(vq, setup->memory, extras);
	bf_memory_unref(old);
	bf_attach_parts(vq, &parts);
	return 0;
}

void bf_virtq_set_eventfds(struct bf_virtq *vq, int kick_fd, int call_fd, int err_fd)
{
	bool called_elsewhere = call_fd != vq->call_fd;

	/* The device may be reading it, and it changes only while the ring is stopped. */
	if (vq->kick_fd != kick_fd)
		vq->kick_fd = kick_fd;
	vq->call_fd = call_fd;
	vq->err_fd = err_fd;
	/* A call to the old one may not have been seen. */
	if (called_elsewhere && call_fd >= 0)
		bf_eventfd_signal(call_fd);
}

void bf_virtq_post(struct bf_virtq *vq, unsigned what)
{
	/* Release: what belongs to it (missing_iova, reason). Partner: bf_virtq_take_posted(). */
	if (!__atomic_fetch_or(&vq->posted, what, __ATOMIC_ACQ_REL))
		bf_eventfd_signal(vq->post_fd);
}

unsigned bf_virtq_take_posted(struct bf_virtq *vq)
{
	return __atomic_exchange_n(&vq->posted, 0, __ATOMIC_ACQ_REL);
}

void bf_virtq_miss_answered(struct bf_virtq *vq, int error)
{
	/* An answer to a question of before a stop. */
	if (!vq->waiting)
		return;
	vq->waiting = false;
	if (error && !vq->broken)
		bf_virtq_break(vq, error,
			       "address 0x%llx is not in the IOTLB, and the front end refuses it",
			       (unsigned long long)vq->missing_iova);
}

void bf_virtq_stop(struct bf_virtq *vq)
{
	if (!vq->running)
		return;
	/* What was given back must not be lost, nor lie half visible in a packed ring. No queue context
	 * has it, so nobody enters; control may even hold it. */
	bf_virtq_flush(vq);
	if (vq->dirty)
		bf_dirty_detach(vq);
	if (vq->inflight)
		bf_inflight_detach(vq);
	vq->running = false;
	free(vq->in_flight);
	vq->in_flight = NULL;
	vq->order = NULL;
	vq->waiting = false;
	vq->nr_old = 0;
	vq->space = (struct bf_space){ 0 };
	vq->desc = NULL;
	vq->avail = NULL;
	vq->used = NULL;
	vq->used_event = NULL;
	vq->avail_event = NULL;
	vq->kick_fd = vq->call_fd = vq->err_fd = vq->post_fd = -1;
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
	bf_virtq_post(vq, BF_POST_BROKEN);
	return error;
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
