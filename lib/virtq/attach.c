/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Where a ring lies: its parts found in guest memory, its positions taken over.
 *
 * Control context, at a start. Ring addresses and the base come from the front end and are not
 * trusted. Each part is translated at its full length, once; from then on it is used without a
 * check, and the map of memory is held for as long. Must leave the virtqueue untouched on failure.
 */
#include "virtq.h"

#include <errno.h>

#include "../base/check.h"
#include "../base/shared.h"

static int fail(int error, const char **why, const char *phrase)
{
	if (why)
		*why = phrase;
	return error;
}

struct part {
	uint64_t uva, len;
	unsigned align;
	const char *outside, *misaligned;
};

/*
 * Alignment is checked on the host address: that is the one that is dereferenced, and a region may
 * lie at any address of ours.
 */
static int translate(const struct bf_memory *memory, const struct part *part, void **hva,
		     const char **why)
{
	void *found = bf_memory_from_uva(memory, part->uva, part->len);

	if (!found)
		return fail(-EFAULT, why, part->outside);
	if ((uintptr_t)found & (part->align - 1))
		return fail(-EINVAL, why, part->misaligned);
	*hva = found;
	return 0;
}

static int translate_all(const struct bf_memory *memory, const struct part parts[3], void *hva[3],
			 const char **why)
{
	for (unsigned i = 0; i < 3; i++) {
		int ret = translate(memory, &parts[i], &hva[i], why);

		if (ret)
			return ret;
	}
	return 0;
}

int bf_split_attach(struct bf_virtq *vq, const struct bf_virtq_setup *setup, const char **why)
{
	const struct part parts[3] = {
		{ setup->desc_uva, bf_desc_size(setup->size), BF_RING_DESC_ALIGN,
		  "descriptor table outside guest memory",
		  "descriptor table not aligned to 16 bytes" },
		{ setup->avail_uva, bf_avail_size(setup->size), BF_RING_AVAIL_ALIGN,
		  "available ring outside guest memory", "available ring not aligned to 2 bytes" },
		{ setup->used_uva, bf_used_size(setup->size), BF_RING_USED_ALIGN,
		  "used ring outside guest memory", "used ring not aligned to 4 bytes" },
	};
	void *hva[3];
	int ret;

	if (!bf_is_power_of_two(setup->size) || setup->size > 32768)
		return fail(-EINVAL, why, "the ring size is not a power of two up to 32768");
	ret = translate_all(setup->memory, parts, hva, why);
	if (ret)
		return ret;

	vq->format = &bf_split_format;
	vq->desc = hva[0];
	vq->avail = hva[1];
	vq->used = hva[2];
	vq->used_event = bf_used_event(hva[1], setup->size);
	vq->avail_event = bf_avail_event(hva[2], setup->size);
	vq->next_avail = vq->seen_avail = (uint16_t)setup->base;
	/* The driver knows the used index from memory; nothing else remembers it across a stop. */
	vq->next_used = vq->published_used = bf_load16(&vq->used->idx);
	/* With an event index the driver does not look at it; what was left there must not stay. */
	bf_store16(&vq->used->flags, 0);
	return 0;
}

/* Both positions inside the ring, and the used one at most a turn behind. */
static bool packed_base_ok(uint16_t avail, uint16_t used, unsigned size)
{
	return bf_packed_idx(avail) < size && bf_packed_idx(used) < size &&
	       bf_packed_distance(used, avail, size) <= size;
}

int bf_packed_attach(struct bf_virtq *vq, const struct bf_virtq_setup *setup, const char **why)
{
	const struct part parts[3] = {
		{ setup->desc_uva, bf_packed_ring_size(setup->size), BF_PACKED_RING_ALIGN,
		  "descriptor ring outside guest memory",
		  "descriptor ring not aligned to 16 bytes" },
		{ setup->avail_uva, sizeof(struct bf_packed_event), BF_PACKED_EVENT_ALIGN,
		  "driver event area outside guest memory",
		  "driver event area not aligned to 4 bytes" },
		{ setup->used_uva, sizeof(struct bf_packed_event), BF_PACKED_EVENT_ALIGN,
		  "device event area outside guest memory",
		  "device event area not aligned to 4 bytes" },
	};
	uint16_t avail = (uint16_t)setup->base, used = (uint16_t)(setup->base >> 16);
	void *hva[3];
	int ret;

	if (!setup->size || setup->size > BF_PACKED_MAX)
		return fail(-EINVAL, why, "the ring size is not between 1 and 32768");
	if (!packed_base_ok(avail, used, setup->size))
		return fail(-EINVAL, why,
			    "the base is not a position in the packed ring: index and wrap counter "
			    "of the available side in bits 0-15, of the used side in bits 16-31");
	ret = translate_all(setup->memory, parts, hva, why);
	if (ret)
		return ret;

	vq->format = &bf_packed_format;
	vq->ring = hva[0];
	vq->driver_event = hva[1];
	vq->device_event = hva[2];
	vq->next_avail = avail;
	vq->next_used = vq->published_used = used;
	vq->first_flags = 0;
	return 0;
}
