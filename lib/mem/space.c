/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Looking up addresses in a space: the only way from a number that a peer wrote to a pointer.
 *
 * Hot, when a hint misses; any context. Always translates an address together with a length, never an
 * address alone: a buffer that begins inside a span says nothing about where it ends. Must not allocate
 * or log.
 */
#include "space.h"

#include <errno.h>

const struct bf_span *bf_space_find(const struct bf_space *space, uint64_t start)
{
	const struct bf_span *spans = space->spans;
	unsigned low = 0, high = space->nr;

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

/* The span behind @span, if it begins where that one ends. No span wraps, so an end of 0 is the top. */
static const struct bf_span *next_touching(const struct bf_space *space, const struct bf_span *span)
{
	uint64_t end = span->start + span->size;

	if (++span == space->spans + space->nr || span->start != end)
		return NULL;
	return span;
}

void *bf_space_translate(const struct bf_space *space, uint64_t start, uint64_t len, unsigned perm,
			 uint64_t *gpa)
{
	const struct bf_span *first = bf_space_find(space, start), *span = first;
	uint64_t offset, left;

	if (!span || (perm & ~span->perm))
		return NULL;
	offset = start - span->start;
	left = span->size - offset;
	while (len > left) {
		const struct bf_span *next = next_touching(space, span);

		if (!next || next->hva != span->hva + span->size || (perm & ~next->perm))
			return NULL;
		len -= left;
		left = next->size;
		span = next;
	}
	if (gpa)
		*gpa = first->gpa + offset;
	return first->hva + offset;
}

static int absent(uint64_t address, uint64_t *missing)
{
	if (missing)
		*missing = address;
	return -EFAULT;
}

int bf_space_iov_search(const struct bf_space *space, uint64_t start, uint64_t len, unsigned perm,
			struct iovec *iov, unsigned nr_iov, unsigned *hint, uint64_t *missing)
{
	const struct bf_span *span = bf_space_find(space, start);
	unsigned nr = 0;

	if (!span)
		return absent(start, missing);
	*hint = (unsigned)(span - space->spans);
	for (;;) {
		uint64_t offset = start - span->start;
		uint64_t piece = len < span->size - offset ? len : span->size - offset;

		if (perm & ~span->perm)
			return absent(start, missing);
		if (nr == nr_iov)
			return -E2BIG;
		iov[nr++] = (struct iovec){ span->hva + offset, (size_t)piece };
		len -= piece;
		if (!len)
			return (int)nr;
		/* The next byte, if there is one, is the first of the next span. */
		start += piece;
		span = next_touching(space, span);
		if (!span)
			return absent(start, missing);
	}
}
