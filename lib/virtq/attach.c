/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Where a ring lies: its parts found in guest memory, its positions taken over.
 *
 * Control context, at a start or while the queue is held. Ring addresses and the base come from the
 * front end and are not trusted. Each part is translated at its full length, once; from then on it is
 * used without a check, and the map of memory is held for as long. Finding touches no virtqueue, so a
 * failure leaves it as it was.
 */
#include "virtq.h"

#include <errno.h>
#include <linux/virtio_config.h>

#include "../base/check.h"
#include "../base/shared.h"

static int fail(int error, const char **why, const char *phrase)
{
	if (why)
		*why = phrase;
	return error;
}

struct part {
	uint64_t address, len;
	unsigned align, perm;
	const char *outside, *misaligned;
};

/*
 * A part that is not one piece of the IOTLB. What is not there at all may come (virtio's driver maps a
 * ring before it says where it is, but the front end tells only who asks).
 */
static int ask_for(const struct bf_space *space, const struct part *part, uint64_t *missing,
		   const char **why)
{
	struct iovec pieces[64];
	unsigned hint = 0;
	uint64_t address = part->address;

	if (bf_space_iov(space, part->address, part->len, part->perm, pieces, 64, &hint,
			 &address) != -EFAULT)
		return fail(-EFAULT, why, "a part of the ring is scattered over memory");
	if (missing)
		*missing = address;
	return fail(-EAGAIN, why, "a part of the ring is not in the IOTLB");
}

/*
 * Alignment is checked on the host address: that is the one that is dereferenced, and a region may
 * lie at any address of ours.
 */
static int translate(const struct bf_memory *memory, const struct bf_virtq_extras *extras,
		     const struct part *part, void **hva, uint64_t *missing, const char **why)
{
	void *found;

	if (extras->iotlb) {
		const struct bf_space *space = bf_iotlb_space(extras->iotlb);

		found = bf_space_translate(space, part->address, part->len, part->perm, NULL);
		if (!found)
			return ask_for(space, part, missing, why);
	} else {
		found = extras->ring_gpa ? bf_memory_from_gpa(memory, part->address, part->len)
					 : bf_memory_from_uva(memory, part->address, part->len);
		if (!found)
			return fail(-EFAULT, why, part->outside);
	}
	if ((uintptr_t)found & (part->align - 1))
		return fail(-EINVAL, why, part->misaligned);
	*hva = found;
	return 0;
}

static int translate_all(const struct bf_virtq_setup *setup, const struct bf_virtq_extras *extras,
			 const struct part wanted[3], struct bf_ring_parts *parts,
			 uint64_t *missing, const char **why)
{
	struct bf_ring_parts found;

	for (unsigned i = 0; i < 3; i++) {
		int ret = translate(setup->memory, extras, &wanted[i], &found.hva[i], missing, why);

		if (ret)
			return ret;
	}
	*parts = found;
	return 0;
}

static int find_split(const struct bf_virtq_setup *setup, const struct bf_virtq_extras *extras,
		      struct bf_ring_parts *parts, uint64_t *missing, const char **why)
{
	const struct part wanted[3] = {
		{ setup->desc_uva, bf_desc_size(setup->size), BF_RING_DESC_ALIGN, BF_PERM_READ,
		  "descriptor table outside guest memory",
		  "descriptor table not aligned to 16 bytes" },
		{ setup->avail_uva, bf_avail_size(setup->size), BF_RING_AVAIL_ALIGN, BF_PERM_READ,
		  "available ring outside guest memory", "available ring not aligned to 2 bytes" },
		{ setup->used_uva, bf_used_size(setup->size), BF_RING_USED_ALIGN, BF_PERM_WRITE,
		  "used ring outside guest memory", "used ring not aligned to 4 bytes" },
	};

	if (!bf_is_power_of_two(setup->size) || setup->size > 32768)
		return fail(-EINVAL, why, "the ring size is not a power of two up to 32768");
	return translate_all(setup, extras, wanted, parts, missing, why);
}

/* Both positions inside the ring, and the used one at most a turn behind. */
static bool packed_base_ok(uint16_t avail, uint16_t used, unsigned size)
{
	return bf_packed_idx(avail) < size && bf_packed_idx(used) < size &&
	       bf_packed_distance(used, avail, size) <= size;
}

static int find_packed(const struct bf_virtq_setup *setup, const struct bf_virtq_extras *extras,
		       struct bf_ring_parts *parts, uint64_t *missing, const char **why)
{
	const struct part wanted[3] = {
		{ setup->desc_uva, bf_packed_ring_size(setup->size), BF_PACKED_RING_ALIGN,
		  BF_PERM_READ | BF_PERM_WRITE, "descriptor ring outside guest memory",
		  "descriptor ring not aligned to 16 bytes" },
		{ setup->avail_uva, sizeof(struct bf_packed_event), BF_PACKED_EVENT_ALIGN,
		  BF_PERM_READ, "driver event area outside guest memory",
		  "driver event area not aligned to 4 bytes" },
		{ setup->used_uva, sizeof(struct bf_packed_event), BF_PACKED_EVENT_ALIGN,
		  BF_PERM_WRITE, "device event area outside guest memory",
		  "device event area not aligned to 4 bytes" },
	};

	if (!setup->size || setup->size > BF_PACKED_MAX)
		return fail(-EINVAL, why, "the ring size is not between 1 and 32768");
	if (!packed_base_ok((uint16_t)setup->base, (uint16_t)(setup->base >> 16), setup->size))
		return fail(-EINVAL, why,
			    "the base is not a position in the packed ring: index and wrap counter "
			    "of the available side in bits 0-15, of the used side in bits 16-31");
	return translate_all(setup, extras, wanted, parts, missing, why);
}

int bf_attach_find(const struct bf_virtq_setup *setup, const struct bf_virtq_extras *extras,
		   struct bf_ring_parts *parts, uint64_t *missing, const char **why)
{
	if ((setup->features >> VIRTIO_F_RING_PACKED) & 1)
		return find_packed(setup, extras, parts, missing, why);
	return find_split(setup, extras, parts, missing, why);
}

void bf_attach_parts(struct bf_virtq *vq, const struct bf_ring_parts *parts)
{
	void *const *hva = parts->hva;

	if (vq->format == &bf_packed_format) {
		vq->ring = hva[0];
		vq->driver_event = hva[1];
		vq->device_event = hva[2];
		return;
	}
	vq->desc = hva[0];
	vq->avail = hva[1];
	vq->used = hva[2];
	vq->used_event = bf_used_event(hva[1], vq->size);
	vq->avail_event = bf_avail_event(hva[2], vq->size);
}

void bf_attach_positions(struct bf_virtq *vq, uint32_t base)
{
	vq->next_avail = (uint16_t)base;
	if (vq->format == &bf_packed_format) {
		vq->next_used = vq->published_used = (uint16_t)(base >> 16);
		vq->first_flags = 0;
		return;
	}
	vq->seen_avail = vq->next_avail;
	/* The driver knows the used index from memory; nothing else remembers it across a stop. */
	vq->next_used = vq->published_used = bf_load16(&vq->used->idx);
	/* With an event index the driver does not look at it; what was left there must not stay. */
	bf_store16(&vq->used->flags, 0);
}
