/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Collecting the elements of a chain: what the split and the packed walk share.
 *
 * Queue context, hot. The format reads a descriptor once, and hands its copy in here; how one
 * descriptor leads to the next, and what bounds the walk, is the format's.
 */
#ifndef VIRTQ_WALK_H
#define VIRTQ_WALK_H

#include "request.h"

/* What all descriptors have, in private memory and host byte order. */
struct bf_element {
	uint64_t gpa;
	uint32_t len;
	uint16_t flags;
};

struct bf_walk {
	struct bf_virtq *vq;
	struct iovec *iov;
	unsigned max_iov;
	unsigned nr_iov;
	unsigned nr_out;
	uint64_t out_len, in_len;
	bool writing; /* a writable element was seen */
};

/*
 * @chain lends its iov; the rest of it is written by bf_walk_end(), if the walk comes that far. A walk that
 * does not is dropped by the beginning of the next one.
 */
void bf_walk_begin(struct bf_walk *walk, struct bf_virtq *vq, const struct bf_chain *chain);
/*
 * 0; -EAGAIN: not now, and nothing is wrong (an address that is not in the IOTLB yet, no room to
 * remember what is to be logged, or iov_rest): the walk is dropped, and pop says that there is none;
 * or the error that broke the ring.
 */
int bf_walk_add(struct bf_walk *walk, const struct bf_element *element);
void bf_walk_end(const struct bf_walk *walk, uint16_t head, struct bf_chain *chain);

/* Descriptors in guest memory, in at most two pieces. */
struct bf_table {
	struct iovec part[2];
	unsigned nr; /* descriptors */
};

#define BF_TABLE_ENTRY 16u /* bytes of a descriptor, in both formats */
/*
 * A table may be as long as the ring, and drivers of small rings make it longer: Linux asks only the
 * device's own limit (seg_max). So many are always accepted.
 */
#define BF_TABLE_LONG 1024u

/* The indirect table that @element refers to: as bf_walk_add(). */
int bf_table_open(struct bf_virtq *vq, const struct bf_element *element, struct bf_table *table);
/* Copy descriptor @i, below table->nr, out to @raw: BF_TABLE_ENTRY bytes. */
void bf_table_read(const struct bf_table *table, unsigned i, void *raw);

/*
 * The short way's: the table that an indirect descriptor refers to, if it is one that is allowed and lies
 * wholly in @span. How many descriptors it has, and where; 0: bf_table_open() says what is the matter.
 */
static inline unsigned bf_table_in_span(const struct bf_virtq *vq, const struct bf_span *span,
					const struct bf_element *element, const uint8_t **table)
{
	unsigned nr = element->len / BF_TABLE_ENTRY;
	uint64_t offset;

	if (!vq->indirect || (element->flags & VRING_DESC_F_NEXT) ||
	    element->len % BF_TABLE_ENTRY || (nr > BF_TABLE_LONG && nr > vq->size) ||
	    !bf_in_span(span, element->gpa, element->len, 0 /* to be read */, &offset))
		return 0;
	*table = span->hva + offset;
	return nr;
}

/* split.c, for requests that are given again: add what hangs on @head, below size. As bf_walk_add(). */
int bf_split_follow(struct bf_walk *walk, unsigned head);
/* packed.c, likewise: the table that @indirect refers to. */
int bf_packed_follow_table(struct bf_walk *walk, const struct bf_element *indirect);

#endif
