/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Translation of guest-physical and user addresses: the only way from a number that a peer wrote to
 * a pointer.
 *
 * Hot; any context. Always translates an address together with a length, never an address alone: a
 * buffer that begins inside a region says nothing about where it ends. Must not allocate or log.
 */
#include "map.h"

#include <errno.h>

/* The span that @start lies in, or NULL. */
static const struct bf_span *find(const struct bf_span *spans, unsigned nr, uint64_t start)
{
	unsigned low = 0, high = nr;

	/* Invariant: spans below @low begin at or before @start, spans from @high on after it. */
	while (low < high) {
		unsigned middle = low + (high - low) / 2;

		if (spans[middle].start <= start)
			low = middle + 1;
		else
			high = middle;
	}
	if (!low || start - spans[low - 1].start >= spans[low - 1].size)
		return NULL;
	return &spans[low - 1];
}

static void *translate(const struct bf_span *spans, unsigned nr, uint64_t start, uint64_t len)
{
	const struct bf_span *span = find(spans, nr, start);

	if (!span || len > span->size - (start - span->start))
		return NULL;
	return span->hva + (start - span->start);
}

void *bf_memory_from_gpa(const struct bf_memory *map, uint64_t gpa, uint64_t len)
{
	return translate(map->by_gpa, map->nr, gpa, len);
}

void *bf_memory_from_uva(const struct bf_memory *map, uint64_t uva, uint64_t len)
{
	return translate(map->by_uva, map->nr, uva, len);
}

int bf_memory_uva_to_gpa(const struct bf_memory *map, uint64_t uva, uint64_t len, uint64_t *gpa)
{
	for (unsigned i = 0; i < map->nr; i++) {
		const struct bf_memory_region *region = &map->mappings[i]->region;
		uint64_t offset = uva - region->uva;

		if (uva < region->uva || offset >= region->size)
			continue;
		if (len > region->size - offset)
			return -EFAULT;
		*gpa = region->gpa + offset;
		return 0;
	}
	return -EFAULT;
}

int bf_memory_iov(const struct bf_memory *map, uint64_t gpa, uint64_t len, struct iovec *iov,
		  unsigned nr_iov)
{
	const struct bf_span *span = find(map->by_gpa, map->nr, gpa);
	const struct bf_span *end = map->by_gpa + map->nr;
	unsigned nr = 0;

	if (!span)
		return -EFAULT;
	for (;;) {
		uint64_t offset = gpa - span->start;
		uint64_t piece = len < span->size - offset ? len : span->size - offset;

		if (nr == nr_iov)
			return -E2BIG;
		iov[nr++] = (struct iovec){ span->hva + offset, (size_t)piece };
		len -= piece;
		if (!len)
			return (int)nr;
		/* The next byte, if memory has it, is the first of the next region. No region
		 * wraps. */
		gpa += piece;
		if (++span == end || span->start != gpa)
			return -EFAULT;
	}
}
