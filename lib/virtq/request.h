/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A request between pop and push: what is remembered of it, and where its life is told to those who keep
 * a record (in-flight region, dirty log).
 *
 * Queue context, hot. bf_virtq.in_flight has a word for each name that a request can have: how many
 * entries of the ring it takes, in the lowest 16 bits, and the flags below. The records cost a ring that
 * has none one branch for a batch, or for a chain.
 */
#ifndef VIRTQ_REQUEST_H
#define VIRTQ_REQUEST_H

#include <assert.h>

#include "dirty.h"
#include "inflight.h"
#include "virtq.h"

#define BF_TAKEN_ENTRIES  0xffffu
#define BF_TAKEN_OLD      (1u << 16) /* taken before the last bf_virtq_mark_old() */
#define BF_TAKEN_WRITABLE (1u << 17) /* has a piece to write; set with in_order only */

/* Does anybody keep a record? Then nothing goes the short way. */
static inline bool bf_virtq_recorded(const struct bf_virtq *vq)
{
	return __builtin_expect(vq->inflight || vq->dirty, 0);
}

/* The span that a plain request may lie in; nothing if the hint is stale. */
static inline struct bf_span bf_virtq_span(const struct bf_virtq *vq)
{
	return vq->hint < vq->space.nr ? vq->space.spans[vq->hint] : (struct bf_span){ 0 };
}

_Static_assert(BF_PERM_READ == 1 && BF_PERM_WRITE == 2, "bf_in_span() shifts them");

/*
 * The short way's translation: is a buffer, which is not empty, wholly in @span, and may be used so? Its
 * offset there. @flags are a descriptor's.
 */
static inline __attribute__((always_inline)) bool bf_in_span(const struct bf_span *span,
							     uint64_t address, uint32_t len,
							     unsigned flags, uint64_t *offset)
{
	unsigned writable = (flags / VRING_DESC_F_WRITE) & 1;

	*offset = address - span->start; /* huge when it is before the span */
	/* len - 1 is huge when there is none. */
	return __builtin_expect(*offset < span->size, 1) &&
	       __builtin_expect((uint64_t)len - 1 < span->size - *offset, 1) &&
	       __builtin_expect((span->perm >> writable) & 1, 1);
}

/*
 * A request of one piece that lies wholly in @span: fill in @chain and @piece, or return false, and it
 * has to go through a walk. @flags are a descriptor's, without NEXT and INDIRECT.
 */
static inline __attribute__((always_inline)) bool bf_plain_chain(const struct bf_span *span,
								 uint64_t address, uint32_t len,
								 unsigned flags, uint16_t head,
								 struct bf_chain *chain,
								 struct iovec *piece)
{
	uint64_t offset;

	if (!bf_in_span(span, address, len, flags, &offset))
		return false;
	piece->iov_base = span->hva + offset;
	piece->iov_len = len;
	chain->iov = piece;
	chain->nr_iov = 1;
	chain->head = head;
	/* A queue's requests go one way, mostly: a branch, not arithmetic. */
	if (flags & VRING_DESC_F_WRITE) {
		chain->nr_out = 0;
		chain->nr_in = 1;
		chain->out_len = 0;
		chain->in_len = len;
	} else {
		chain->nr_out = 1;
		chain->nr_in = 0;
		chain->out_len = len;
		chain->in_len = 0;
	}
	return true;
}

/*
 * A request of several pieces that lie wholly in @span, one by one as they come: at most @max of them. False:
 * it has to go through a walk. @chain is the caller's own, so that it stays in registers.
 */
static inline __attribute__((always_inline)) bool bf_short_add(struct bf_chain *chain,
							       const struct bf_span *span,
							       unsigned max, uint64_t address,
							       uint32_t len, unsigned flags)
{
	uint64_t offset;

	if (chain->nr_iov == max || !bf_in_span(span, address, len, flags, &offset))
		return false;
	chain->iov[chain->nr_iov++] = (struct iovec){ span->hva + offset, len };
	if (flags & VRING_DESC_F_WRITE) {
		chain->in_len += len;
		return true;
	}
	chain->nr_out = (uint16_t)chain->nr_iov;
	chain->out_len += len;
	return !chain->in_len; /* nothing to read comes behind what is to be written */
}

static inline __attribute__((always_inline)) void bf_short_end(const struct bf_chain *own,
							       uint16_t head,
							       struct bf_chain *chain)
{
	*chain = *own;
	chain->head = head;
	chain->nr_in = (uint16_t)(own->nr_iov - own->nr_out);
}

/*
 * The order of pushes is the device's promise when the driver was told of it. @out: order_out, which moves
 * on over @head.
 */
static inline void bf_order_remove(const struct bf_virtq *vq, unsigned *out, uint16_t head)
{
	assert(vq->order[*out] == head);
	*out = *out + 1u == vq->size ? 0 : *out + 1u;
	(void)head;
}

/* Taken, in this order. */
static inline void bf_order_add(struct bf_virtq *vq, const struct bf_chain *chains, unsigned nr)
{
	uint16_t *order = vq->order;
	unsigned in = vq->order_in, size = vq->size;

	for (unsigned i = 0; i < nr; i++) {
		order[in] = chains[i].head;
		in = in + 1 == size ? 0 : in + 1;
		if (chains[i].nr_in)
			vq->in_flight[chains[i].head] |= BF_TAKEN_WRITABLE;
	}
	vq->order_in = (uint16_t)in;
}

/* @nr requests were taken the short way: there are no records. */
static inline unsigned bf_virtq_taken_shortly(struct bf_virtq *vq, const struct bf_chain *chains,
					      unsigned nr)
{
	vq->nr_in_flight += nr;
	if (vq->in_order)
		bf_order_add(vq, chains, nr);
	return nr;
}

/*
 * The short way: requests of one descriptor and of several in turns, until the next one is of neither kind.
 * How many; *@used moves on over their pieces in @iov. @plain: at most @nr, which have place in @iov.
 */
static inline __attribute__((always_inline)) unsigned bf_pop_shortly(
	struct bf_virtq *vq, struct bf_chain *chains, unsigned nr, struct iovec *iov,
	unsigned nr_iov, unsigned *used,
	unsigned (*plain)(struct bf_virtq *vq, struct bf_chain *chains, unsigned nr,
			  struct iovec *iov),
	unsigned (*linked)(struct bf_virtq *vq, struct bf_chain *chains, unsigned nr,
			   struct iovec *iov, unsigned nr_iov, unsigned *used))
{
	unsigned taken = 0, before;

	do {
		unsigned most = nr - taken < nr_iov - *used ? nr - taken : nr_iov - *used;

		before = taken;
		taken += plain(vq, chains + taken, most, iov + *used);
		*used += taken - before;
		if (taken < nr)
			taken += linked(vq, chains + taken, nr - taken, iov, nr_iov, used);
	} while (taken < nr && taken != before);
	return taken;
}

/* @chain was taken from @entries at @position: tell the records. Chains that came by a walk. */
static inline void bf_virtq_taken(struct bf_virtq *vq, const struct bf_chain *chain,
				  uint16_t position, unsigned entries)
{
	if (vq->in_order)
		bf_order_add(vq, chain, 1);
	if (__builtin_expect(!!vq->inflight, 0))
		bf_inflight_taken(vq, chain->head, position, entries);
	if (__builtin_expect(!!vq->dirty, 0))
		bf_dirty_taken(vq, chain->head);
}

/* Not in flight any more. Its entries and flags; the caller counts (bf_virtq_gone()). */
static inline uint32_t bf_virtq_give(uint32_t *in_flight, unsigned size, uint16_t head)
{
	uint32_t taken;

	/* The device's promise, not the driver's: @head came from pop. */
	assert(head < size);
	taken = in_flight[head];
	assert(taken);
	in_flight[head] = 0;
	(void)size;
	return taken;
}

/* Of @nr requests that are gone @old were old. */
static inline void bf_virtq_gone(struct bf_virtq *vq, unsigned nr, unsigned old)
{
	vq->nr_in_flight -= nr;
	if (__builtin_expect(!old, 1))
		return;
	/* Release: the device has done with their pieces. Partner: bf_virtq_drained(). */
	__atomic_store_n(&vq->nr_old, vq->nr_old - old, __ATOMIC_RELEASE);
	if (!vq->nr_old)
		bf_virtq_post(vq, BF_POST_DRAINED);
}

#endif
