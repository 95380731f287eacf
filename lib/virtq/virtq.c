/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Life of a virtqueue, device side: start, stop, breaking, and what can be asked about it.
 *
 * Start and stop run on the control context while no queue context has the virtqueue; the rest on
 * the queue context. Must not trust anything in the ring, and must not own a descriptor.
 */
#include "virtq.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "../base/check.h"
#include "../base/fd.h"
#include "../base/shared.h"

void bf_virtq_init(struct bf_virtq *vq, unsigned queue)
{
	vq->queue = queue;
	vq->kick_fd = -1;
	vq->call_fd = -1;
	vq->err_fd = -1;
}

/*
 * A part of the ring at its full length. Alignment is checked on the host address: that is the one
 * that is dereferenced, and a region may lie at any address of ours.
 */
static int translate_part(const struct bf_virtq_setup *setup, uint64_t uva, uint64_t len,
			  unsigned align, void **hva)
{
	void *found = bf_memory_from_uva(setup->memory, uva, len);

	if (!found)
		return -EFAULT;
	if ((uintptr_t)found & (align - 1))
		return -EINVAL;
	*hva = found;
	return 0;
}

static int fail(int error, const char **why, const char *phrase)
{
	if (why)
		*why = phrase;
	return error;
}

static const char *part_phrase(int error, const char *outside, const char *misaligned)
{
	return error == -EFAULT ? outside : misaligned;
}

/* From here on the driver is to notify us: the device looks at the ring once, and may sleep then.
 */
static void ask_for_kicks(struct bf_virtq *vq)
{
	bf_store16(&vq->used->flags, 0);
	/* Without the feature the field is not there: it may be the driver's own memory. */
	if (vq->event_idx)
		bf_store16(vq->avail_event, vq->next_avail);
	vq->told_event = vq->next_avail;
	vq->kicks_wanted = true;
	bf_barrier(); /* partner: the driver's, between its index and reading the two above */
}

int bf_virtq_start(struct bf_virtq *vq, const struct bf_virtq_setup *setup, const char **why)
{
	void *desc, *avail, *used;
	uint64_t *in_flight;
	int ret;

	if (!bf_is_power_of_two(setup->size) || setup->size > 32768)
		return fail(-EINVAL, why, "the ring size is not a power of two up to 32768");
	ret = translate_part(setup, setup->desc_uva, bf_desc_size(setup->size), BF_RING_DESC_ALIGN,
			     &desc);
	if (ret)
		return fail(ret, why,
			    part_phrase(ret, "descriptor table outside guest memory",
					"descriptor table not aligned to 16 bytes"));
	ret = translate_part(setup, setup->avail_uva, bf_avail_size(setup->size),
			     BF_RING_AVAIL_ALIGN, &avail);
	if (ret)
		return fail(ret, why,
			    part_phrase(ret, "available ring outside guest memory",
					"available ring not aligned to 2 bytes"));
	ret = translate_part(setup, setup->used_uva, bf_used_size(setup->size), BF_RING_USED_ALIGN,
			     &used);
	if (ret)
		return fail(ret, why,
			    part_phrase(ret, "used ring outside guest memory",
					"used ring not aligned to 4 bytes"));
	in_flight = calloc((setup->size + 63u) / 64, sizeof(*in_flight));
	if (!in_flight)
		return fail(-ENOMEM, why, "out of memory");

	vq->desc = desc;
	vq->avail = avail;
	vq->used = used;
	vq->used_event = bf_used_event(avail, setup->size);
	vq->avail_event = bf_avail_event(used, setup->size);
	vq->memory = bf_memory_ref(setup->memory);
	vq->in_flight = in_flight;
	vq->nr_in_flight = 0;
	vq->broken = 0;
	vq->size = setup->size;
	vq->next_avail = vq->seen_avail = setup->base;
	/* The driver knows the used index from memory; nothing else remembers it across a stop. */
	vq->next_used = vq->published_used = bf_load16(&vq->used->idx);
	vq->event_idx = (setup->features >> VIRTIO_RING_F_EVENT_IDX) & 1;
	vq->indirect = (setup->features >> VIRTIO_RING_F_INDIRECT_DESC) & 1;
	/* What the driver was last told is not known any more: tell it once too often. */
	vq->call_due = true;
	vq->kick_fd = setup->kick_fd;
	vq->call_fd = setup->call_fd;
	vq->err_fd = setup->err_fd;
	vq->running = true;
	ask_for_kicks(vq);
	return 0;
}

void bf_virtq_stop(struct bf_virtq *vq)
{
	if (!vq->running)
		return;
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
