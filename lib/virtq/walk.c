/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Descriptor chains, from a head to pieces of our own memory; indirect tables included.
 *
 * Queue context, hot. "Walking a chain": each descriptor is copied out of guest memory once, the
 * copy is checked, and only the copy is used: the driver may change descriptors and indirect tables
 * while we read. Every step is bounded: no more descriptors than the ring has
 * (virtio 1.2, 2.7.5.2), or than the indirect table. A buffer may cross regions that touch; each
 * piece is translated with its length. Must not write guest memory.
 */
#include "virtq.h"

#include <errno.h>

#include "../base/shared.h"

/* A descriptor in private memory and host byte order. */
struct copy {
	uint64_t gpa;
	uint32_t len;
	uint16_t flags;
	uint16_t next;
};

/* The table that is being walked: the ring's own, or an indirect one in at most two pieces. */
struct table {
	struct iovec part[2];
	unsigned nr; /* descriptors */
	bool indirect;
};

struct walk {
	struct bf_virtq *vq;
	struct iovec *iov;
	unsigned max_iov;
	unsigned nr_iov;
	unsigned nr_out;
	uint64_t out_len, in_len;
	bool writing; /* a writable descriptor was seen */
};

/* @i < table->nr. A descriptor may straddle the two pieces of a table. */
static struct copy read_desc(const struct table *table, unsigned i)
{
	size_t offset = i * sizeof(struct bf_desc), first = table->part[0].iov_len;
	struct bf_desc raw;

	if (offset + sizeof(raw) <= first) {
		bf_copy_in(&raw, (const char *)table->part[0].iov_base + offset, sizeof(raw));
	} else if (offset >= first) {
		bf_copy_in(&raw, (const char *)table->part[1].iov_base + (offset - first),
			   sizeof(raw));
	} else {
		size_t head = first - offset;

		bf_copy_in(&raw, (const char *)table->part[0].iov_base + offset, head);
		bf_copy_in((char *)&raw + head, table->part[1].iov_base, sizeof(raw) - head);
	}
	return (struct copy){ bf_from_le64(raw.addr), bf_from_le32(raw.len),
			      bf_from_le16(raw.flags), bf_from_le16(raw.next) };
}

/* 2.7.5.3: what a descriptor that refers to an indirect table must look like. */
static int enter_indirect(struct bf_virtq *vq, const struct copy *desc, struct table *table)
{
	unsigned nr = desc->len / sizeof(struct bf_desc);
	int parts;

	if (!vq->indirect)
		return bf_virtq_break(vq, -EBADMSG, "indirect descriptor, which was not agreed");
	if (table->indirect)
		return bf_virtq_break(vq, -EBADMSG, "indirect descriptor inside an indirect table");
	if (desc->flags & VRING_DESC_F_NEXT)
		return bf_virtq_break(vq, -EBADMSG, "indirect descriptor that has a next one");
	if (!nr || desc->len % sizeof(struct bf_desc))
		return bf_virtq_break(vq, -EBADMSG,
				      "indirect table of %u bytes, not a multiple of 16",
				      desc->len);
	if (nr > vq->size)
		return bf_virtq_break(vq, -ELOOP,
				      "indirect table of %u descriptors, the ring has %u", nr,
				      vq->size);
	parts = bf_memory_iov(vq->memory, desc->gpa, desc->len, table->part, 2);
	if (parts < 0)
		return bf_virtq_break(vq, -EFAULT,
				      "indirect table at 0x%llx, %u bytes, is not in guest memory",
				      (unsigned long long)desc->gpa, desc->len);
	table->nr = nr;
	table->indirect = true;
	return 0;
}

static int add_buffer(struct walk *walk, const struct copy *desc)
{
	bool writable = desc->flags & VRING_DESC_F_WRITE;
	int pieces;

	if (!writable && walk->writing)
		return bf_virtq_break(walk->vq, -EBADMSG,
				      "readable descriptor behind a writable one");
	walk->writing = writable;
	/* Also an empty buffer is at an address, and the address is checked; it makes no piece. */
	if (!desc->len) {
		if (!bf_memory_from_gpa(walk->vq->memory, desc->gpa, 0))
			return bf_virtq_break(walk->vq, -EFAULT,
					      "empty buffer at 0x%llx is not in guest memory",
					      (unsigned long long)desc->gpa);
		return 0;
	}
	pieces = bf_memory_iov(walk->vq->memory, desc->gpa, desc->len, walk->iov + walk->nr_iov,
			       walk->max_iov - walk->nr_iov);
	if (pieces == -E2BIG)
		return bf_virtq_break(walk->vq, -E2BIG, "request of more than %u pieces",
				      walk->max_iov);
	if (pieces < 0)
		return bf_virtq_break(walk->vq, pieces,
				      "buffer at 0x%llx, %u bytes, is not in guest memory",
				      (unsigned long long)desc->gpa, desc->len);
	walk->nr_iov += (unsigned)pieces;
	if (writable) {
		walk->in_len += desc->len;
	} else {
		walk->nr_out = walk->nr_iov;
		walk->out_len += desc->len;
	}
	return 0;
}

/* Follow the descriptors; @walk collects what they say. */
static int follow(struct walk *walk, unsigned head)
{
	struct bf_virtq *vq = walk->vq;
	struct table table = {
		.part = { { (void *)(uintptr_t)vq->desc, bf_desc_size(vq->size) } },
		.nr = vq->size,
	};
	unsigned i = head, steps = 0, limit = vq->size;
	struct copy desc;
	int ret;

	for (;;) {
		if (steps++ == limit)
			return bf_virtq_break(vq, -ELOOP, "chain of more than %u descriptors",
					      limit);
		desc = read_desc(&table, i);
		if (desc.flags & VRING_DESC_F_INDIRECT) {
			ret = enter_indirect(vq, &desc, &table);
			if (ret)
				return ret;
			/* The table's own bound now; entered once, so the sum is bounded too. */
			limit = table.nr;
			steps = 0;
			i = 0;
			continue;
		}
		ret = add_buffer(walk, &desc);
		if (ret)
			return ret;
		if (!(desc.flags & VRING_DESC_F_NEXT))
			return 0;
		i = desc.next;
		if (i >= table.nr)
			return bf_virtq_break(vq, -EBADMSG,
					      "next descriptor is %u, the table has %u", i,
					      table.nr);
	}
}

int bf_virtq_walk(struct bf_virtq *vq, uint16_t head, struct bf_chain *chain)
{
	struct walk walk = {
		.vq = vq,
		.iov = chain->iov,
		/* struct bf_chain counts in 16 bits. */
		.max_iov = chain->nr_iov < UINT16_MAX ? chain->nr_iov : UINT16_MAX,
	};
	int ret;

	ret = follow(&walk, head);
	if (ret)
		return ret;
	chain->head = head;
	chain->nr_out = (uint16_t)walk.nr_out;
	chain->nr_in = (uint16_t)(walk.nr_iov - walk.nr_out);
	chain->out_len = walk.out_len;
	chain->in_len = walk.in_len;
	return 1;
}
