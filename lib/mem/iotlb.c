/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The IOTLB: entries of the front end's, kept as the spans that queues look addresses up in.
 *
 * Control context, while it holds every virtqueue that looks at it. One array of spans, sorted, and beside
 * it the user address and age of each. An entry that covers several regions of memory is several spans, and
 * spans that touch and agree are one: how the front end cut it does not matter, an invalidation may cut
 * anywhere. Everything is checked, and there is room, before anything is changed.
 */
#include "iotlb.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../base/check.h"
#include "map.h"

/* What control knows of a span beside it. */
struct origin {
	uint64_t uva;
	uint64_t age;
};

/* One change adds the pieces of one entry, and one more where it splits another. */
#define CAPACITY (BF_IOTLB_MAX + BF_MAX_REGIONS + 1)

struct bf_iotlb_table {
	struct bf_space space; /* of spans */
	uint64_t clock;
	struct bf_span spans[CAPACITY];
	struct origin origins[CAPACITY];
};

/* A range in pieces, each in one region of memory. */
struct pieces {
	unsigned nr;
	struct bf_span spans[BF_MAX_REGIONS];
	uint64_t uva[BF_MAX_REGIONS];
};

struct bf_iotlb_table *bf_iotlb_new(void)
{
	struct bf_iotlb_table *iotlb = malloc(sizeof(*iotlb));

	if (!iotlb)
		return NULL;
	iotlb->space = (struct bf_space){ iotlb->spans, 0 };
	iotlb->clock = 0;
	return iotlb;
}

void bf_iotlb_free(struct bf_iotlb_table *iotlb)
{
	free(iotlb);
}

const struct bf_space *bf_iotlb_space(const struct bf_iotlb_table *iotlb)
{
	return &iotlb->space;
}

void bf_iotlb_clear(struct bf_iotlb_table *iotlb)
{
	iotlb->space.nr = 0;
}

/*
 * Where [uva, uva + size) is in @memory. Parts that are nowhere are left out; false if there were any.
 * Regions of user addresses do not overlap, so there are no more pieces than regions.
 */
static bool cut(const struct bf_memory *memory, uint64_t iova, uint64_t size, uint64_t uva,
		unsigned perm, struct pieces *pieces)
{
	uint64_t found = 0;

	pieces->nr = 0;
	for (unsigned i = 0; i < memory->nr; i++) {
		const struct bf_span *region = &memory->by_uva[i];
		uint64_t first = uva > region->start ? uva : region->start;
		uint64_t last = uva + (size - 1), region_last = region->start + (region->size - 1);
		uint64_t skip, len;

		if (last > region_last)
			last = region_last;
		if (first > last)
			continue;
		skip = first - region->start;
		len = last - first + 1;
		pieces->spans[pieces->nr] =
			(struct bf_span){ iova + (first - uva), len, region->hva + skip,
					  region->gpa + skip, perm };
		pieces->uva[pieces->nr++] = first;
		found += len;
	}
	return found == size;
}

static void move(struct bf_iotlb_table *iotlb, unsigned to, unsigned from)
{
	unsigned tail = iotlb->space.nr - from;

	memmove(&iotlb->spans[to], &iotlb->spans[from], tail * sizeof(*iotlb->spans));
	memmove(&iotlb->origins[to], &iotlb->origins[from], tail * sizeof(*iotlb->origins));
	iotlb->space.nr = to + tail;
}

/* The first span that ends behind @start, or their number. */
static unsigned first_behind(const struct bf_iotlb_table *iotlb, uint64_t start)
{
	unsigned low = 0, high = iotlb->space.nr;

	while (low < high) {
		unsigned middle = low + (high - low) / 2;
		const struct bf_span *span = &iotlb->spans[middle];

		if (span->start + (span->size - 1) < start)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Take the first @len bytes away from span @i. */
static void behead(struct bf_iotlb_table *iotlb, unsigned i, uint64_t len)
{
	struct bf_span *span = &iotlb->spans[i];

	span->start += len;
	span->size -= len;
	span->hva += len;
	span->gpa += len;
	iotlb->origins[i].uva += len;
}

/* Nothing of [iova, last] is left. Where the first span behind it is. */
static unsigned remove_range(struct bf_iotlb_table *iotlb, uint64_t iova, uint64_t last)
{
	unsigned i = first_behind(iotlb, iova), end;

	if (i < iotlb->space.nr && iotlb->spans[i].start < iova) {
		struct bf_span *span = &iotlb->spans[i];
		uint64_t keep = iova - span->start;

		if (span->start + (span->size - 1) > last) {
			/* In the midst of one: both ends stay. */
			move(iotlb, i + 1, i);
			span->size = keep;
			behead(iotlb, i + 1, last - iotlb->spans[i + 1].start + 1);
			return i + 1;
		}
		span->size = keep;
		i++;
	}
	for (end = i; end < iotlb->space.nr; end++) {
		const struct bf_span *span = &iotlb->spans[end];

		if (span->start > last)
			break;
		if (span->start + (span->size - 1) > last) {
			behead(iotlb, end, last - span->start + 1);
			break;
		}
	}
	move(iotlb, i, end);
	return i;
}

/* Make one of span @i and the next, if in every respect the one goes on where the other ends. */
static bool merge(struct bf_iotlb_table *iotlb, unsigned i)
{
	struct bf_span *a = &iotlb->spans[i], *b = a + 1;
	struct origin *from_a = &iotlb->origins[i], *from_b = from_a + 1;

	if (i + 1 >= iotlb->space.nr || a->start + a->size != b->start ||
	    a->hva + a->size != b->hva || a->gpa + a->size != b->gpa ||
	    from_a->uva + a->size != from_b->uva || a->perm != b->perm)
		return false;
	a->size += b->size;
	if (from_a->age < from_b->age)
		from_a->age = from_b->age;
	move(iotlb, i + 1, i + 2);
	return true;
}

static void evict_oldest(struct bf_iotlb_table *iotlb)
{
	unsigned oldest = 0;

	for (unsigned i = 1; i < iotlb->space.nr; i++)
		if (iotlb->origins[i].age < iotlb->origins[oldest].age)
			oldest = i;
	move(iotlb, oldest, oldest + 1);
}

/* @pieces lie in [iova, last], in the order of user addresses, which is that of theirs. */
static void replace(struct bf_iotlb_table *iotlb, uint64_t iova, uint64_t last,
		    const struct pieces *pieces, uint64_t age)
{
	unsigned at = remove_range(iotlb, iova, last), i;

	move(iotlb, at + pieces->nr, at);
	for (unsigned p = 0; p < pieces->nr; p++) {
		iotlb->spans[at + p] = pieces->spans[p];
		iotlb->origins[at + p] = (struct origin){ pieces->uva[p], age };
	}
	/* From the last border to the first, so that what is still to be looked at stays in place. */
	for (i = at + pieces->nr; i-- > at;)
		(void)merge(iotlb, i);
	if (at)
		(void)merge(iotlb, at - 1);
	while (iotlb->space.nr > BF_IOTLB_MAX)
		evict_oldest(iotlb);
}

int bf_iotlb_update(struct bf_iotlb_table *iotlb, const struct bf_memory *memory, uint64_t iova,
		    uint64_t size, uint64_t uva, unsigned perm)
{
	struct pieces pieces;

	if (!size || !bf_no_wrap(iova, size - 1) || !bf_no_wrap(uva, size - 1) || !perm ||
	    (perm & ~(BF_PERM_READ | BF_PERM_WRITE)))
		return -EINVAL;
	if (!cut(memory, iova, size, uva, perm, &pieces))
		return -EFAULT;
	replace(iotlb, iova, iova + (size - 1), &pieces, ++iotlb->clock);
	return 0;
}

int bf_iotlb_invalidate(struct bf_iotlb_table *iotlb, uint64_t iova, uint64_t size)
{
	if (!size || !bf_no_wrap(iova, size - 1))
		return -EINVAL;
	(void)remove_range(iotlb, iova, iova + (size - 1));
	while (iotlb->space.nr > BF_IOTLB_MAX)
		evict_oldest(iotlb);
	return 0;
}

int bf_iotlb_remap(struct bf_iotlb_table *iotlb, const struct bf_memory *memory)
{
	struct bf_iotlb_table *old = malloc(sizeof(*old));

	if (!old)
		return -ENOMEM;
	memcpy(old, iotlb, sizeof(*old));
	iotlb->space.nr = 0;
	for (unsigned i = 0; memory && i < old->space.nr; i++) {
		const struct bf_span *span = &old->spans[i];
		struct pieces pieces;

		(void)cut(memory, span->start, span->size, old->origins[i].uva, span->perm,
			  &pieces);
		replace(iotlb, span->start, span->start + (span->size - 1), &pieces,
			old->origins[i].age);
	}
	free(old);
	return 0;
}
