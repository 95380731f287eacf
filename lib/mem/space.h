/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An address space as a device sees it: spans of addresses, each with where it is in this process.
 *
 * Two things are one: guest memory by guest-physical address (struct bf_memory has it), and what an
 * IOMMU lets the device see (struct bf_iotlb_table has it). Rings are walked in either without knowing
 * which. Read on queue contexts; who may change one, and when, is its owner's to say.
 */
#ifndef MEM_SPACE_H
#define MEM_SPACE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define BF_PERM_READ  1u /* by the device; the values of bf_iotlb.perm */
#define BF_PERM_WRITE 2u

/* What a lookup touches, and nothing else. */
struct bf_span {
	uint64_t start;
	uint64_t size;
	uint8_t *hva;
	uint64_t gpa; /* of start, for the dirty log */
	uint32_t perm;
};

/* Spans are sorted, do not overlap, are not empty and do not wrap. */
struct bf_space {
	const struct bf_span *spans; /* [nr] */
	unsigned nr;
};

/* The span that @start lies in, or NULL. */
const struct bf_span *bf_space_find(const struct bf_space *space, uint64_t start);

/*
 * All of [start, start + len) as one piece of our memory, or NULL: it may cross spans that touch, on
 * both sides. A length of zero still needs a valid address. *@gpa (may be NULL) is the one of @start.
 */
void *bf_space_translate(const struct bf_space *space, uint64_t start, uint64_t len, unsigned perm,
			 uint64_t *gpa);

/* bf_space_iov(), when the hint did not say it all. */
int bf_space_iov_search(const struct bf_space *space, uint64_t start, uint64_t len, unsigned perm,
			struct iovec *iov, unsigned nr_iov, unsigned *hint, uint64_t *missing);

/*
 * Translate a range that may cross spans that touch. @iov: [@nr_iov] receives the pieces. How many;
 * -EFAULT when some byte is in no span or lacks @perm (*@missing, which may be NULL, is the first
 * one's address); -E2BIG when @nr_iov is too small. An empty range gives -EFAULT or one empty piece.
 * *@hint: a span index to try first, moved on; any value is safe.
 */
static inline int bf_space_iov(const struct bf_space *space, uint64_t start, uint64_t len,
			       unsigned perm, struct iovec *iov, unsigned nr_iov, unsigned *hint,
			       uint64_t *missing)
{
	unsigned i = *hint;

	if (__builtin_expect(i < space->nr && nr_iov, 1)) {
		const struct bf_span *span = &space->spans[i];
		/* Below the span this is larger than any size: spans do not wrap. */
		uint64_t offset = start - span->start;

		if (__builtin_expect(offset < span->size && len <= span->size - offset &&
					     !(perm & ~span->perm),
				     1)) {
			*iov = (struct iovec){ span->hva + offset, (size_t)len };
			return 1;
		}
	}
	return bf_space_iov_search(space, start, len, perm, iov, nr_iov, hint, missing);
}

#endif
