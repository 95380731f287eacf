/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * From elements of a chain to pieces of our own memory; indirect tables.
 *
 * Queue context, hot. "Walking a chain": each descriptor is copied out of guest memory once, the
 * copy is checked, and only the copy is used: the driver may change descriptors and indirect tables
 * while we read. Every step is bounded: no more descriptors than the ring has (virtio 1.2, 2.7.5.2
 * and 2.8.17), or than the indirect table. A buffer may cross regions that touch; each piece is
 * translated with its length. Must not write guest memory.
 */
#include "walk.h"

#include <errno.h>

#include "../base/shared.h"
#include "dirty.h"

_Static_assert(sizeof(struct bf_desc) == BF_TABLE_ENTRY, "split descriptor");
_Static_assert(sizeof(struct bf_packed_desc) == BF_TABLE_ENTRY, "packed descriptor");

/*
 * @address is not there, or not for @perm. Without an IOTLB that is the driver's fault. With one, the front
 * end is asked through control, and nothing is popped until it has answered.
 */
static int __attribute__((cold, noinline))
absent(struct bf_virtq *vq, uint64_t address, unsigned perm, const struct bf_element *element,
       const char *what)
{
	if (!vq->iotlb)
		return bf_virtq_break(vq, -EFAULT, "%s at 0x%llx, %u bytes, is not in guest memory",
				      what, (unsigned long long)element->gpa, element->len);
	vq->missing_iova = address;
	vq->missing_perm = perm;
	vq->waiting = true;
	bf_virtq_post(vq, BF_POST_MISS);
	return -EAGAIN;
}

void bf_walk_begin(struct bf_walk *walk, struct bf_virtq *vq, const struct bf_chain *chain)
{
	*walk = (struct bf_walk){
		.vq = vq,
		.iov = chain->iov,
		/* struct bf_chain counts in 16 bits. */
		.max_iov = chain->nr_iov < UINT16_MAX ? chain->nr_iov : UINT16_MAX,
	};
	if (__builtin_expect(!!vq->dirty, 0))
		bf_dirty_begin(vq);
}

/* Also an empty buffer is at an address, and the address is checked; it makes no piece. */
static int add_empty(struct bf_virtq *vq, const struct bf_element *element, unsigned perm)
{
	if (bf_space_translate(&vq->space, element->gpa, 0, perm, NULL))
		return 0;
	return absent(vq, element->gpa, perm, element, "buffer");
}

int bf_walk_add(struct bf_walk *walk, const struct bf_element *element)
{
	struct bf_virtq *vq = walk->vq;
	bool writable = element->flags & VRING_DESC_F_WRITE;
	unsigned perm = writable ? BF_PERM_WRITE : BF_PERM_READ;
	uint64_t missing = element->gpa;
	int pieces;

	if (!writable && walk->writing)
		return bf_virtq_break(vq, -EBADMSG, "readable descriptor behind a writable one");
	walk->writing = writable;
	if (!element->len)
		return add_empty(vq, element, perm);
	pieces =
		bf_space_iov(&vq->space, element->gpa, element->len, perm, walk->iov + walk->nr_iov,
			     walk->max_iov - walk->nr_iov, &vq->hint, &missing);
	if (pieces == -E2BIG && vq->iov_rest)
		return -EAGAIN;
	if (pieces == -E2BIG)
		return bf_virtq_break(vq, -E2BIG, "request of more than %u pieces", walk->max_iov);
	if (pieces < 0)
		return absent(vq, missing, perm, element, "buffer");
	walk->nr_iov += (unsigned)pieces;
	if (!writable) {
		walk->nr_out = walk->nr_iov;
		walk->out_len += element->len;
		return 0;
	}
	walk->in_len += element->len;
	if (__builtin_expect(!!vq->dirty, 0) && !bf_dirty_element(vq, element->gpa, element->len))
		return -EAGAIN;
	return 0;
}

void bf_walk_end(const struct bf_walk *walk, uint16_t head, struct bf_chain *chain)
{
	chain->head = head;
	chain->nr_out = (uint16_t)walk->nr_out;
	chain->nr_in = (uint16_t)(walk->nr_iov - walk->nr_out);
	chain->out_len = walk->out_len;
	chain->in_len = walk->in_len;
}

/* 2.7.5.3 and 2.8.7: what a descriptor that refers to an indirect table must look like. */
int bf_table_open(struct bf_virtq *vq, const struct bf_element *element, struct bf_table *table)
{
	unsigned nr = element->len / BF_TABLE_ENTRY;
	uint64_t missing = element->gpa;
	int pieces;

	if (!vq->indirect)
		return bf_virtq_break(vq, -EBADMSG, "indirect descriptor, which was not agreed");
	if (element->flags & VRING_DESC_F_NEXT)
		return bf_virtq_break(vq, -EBADMSG, "indirect descriptor that has a next one");
	if (!nr || element->len % BF_TABLE_ENTRY)
		return bf_virtq_break(vq, -EBADMSG,
				      "indirect table of %u bytes, not a multiple of 16",
				      element->len);
	if (nr > BF_TABLE_LONG && nr > vq->size)
		return bf_virtq_break(vq, -ELOOP,
				      "indirect table of %u descriptors, the ring has %u", nr,
				      vq->size);
	pieces = bf_space_iov(&vq->space, element->gpa, element->len, BF_PERM_READ, table->part, 2,
			      &vq->hint, &missing);
	if (pieces == -E2BIG)
		return bf_virtq_break(vq, -EFAULT,
				      "indirect table at 0x%llx in more than two pieces",
				      (unsigned long long)element->gpa);
	if (pieces < 0)
		return absent(vq, missing, BF_PERM_READ, element, "indirect table");
	table->nr = nr;
	return 0;
}

/* A descriptor may straddle the two pieces of a table. */
void bf_table_read(const struct bf_table *table, unsigned i, void *raw)
{
	size_t offset = (size_t)i * BF_TABLE_ENTRY, first = table->part[0].iov_len;
	const char *a = table->part[0].iov_base, *b = table->part[1].iov_base;

	if (offset + BF_TABLE_ENTRY <= first) {
		bf_copy_in(raw, a + offset, BF_TABLE_ENTRY);
	} else if (offset >= first) {
		bf_copy_in(raw, b + (offset - first), BF_TABLE_ENTRY);
	} else {
		size_t head = first - offset;

		bf_copy_in(raw, a + offset, head);
		bf_copy_in((char *)raw + head, b, BF_TABLE_ENTRY - head);
	}
}
