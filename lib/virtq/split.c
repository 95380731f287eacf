/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The split virtqueue, device side (virtio 1.2, 2.7): its two index rings, its chains, its events.
 *
 * Queue context, hot. No lock, no allocation, no system call. Entries of the avail ring are read
 * once each; a head is an index only after it was compared with the size. What is pushed lies in
 * the used ring at once, but the driver may look at it only after publish() has moved the index.
 *
 * "The short way". Nearly all requests lie in the region that the last one was in, every piece wholly. A
 * batch of those is taken in one loop; the first one that is anything else, or wrong, ends the loop, and is
 * looked at again, from the beginning, by a walk, which knows what to do, or what to say. Both ways check the
 * same things, each on a copy of its own.
 */
#include "request.h"

#include <errno.h>

#include "../base/shared.h"
#include "walk.h"

/* The driver's index, taken over if it is possible: at most a ring's worth ahead of us. */
static int take_index(struct bf_virtq *vq)
{
	/* Acquire: entries up to it were written before. Partner: the driver's write barrier. */
	uint16_t idx = bf_load16_acquire(&vq->avail->idx);
	uint16_t ahead = (uint16_t)(idx - vq->next_avail);

	if (ahead > vq->size)
		return bf_virtq_break(
			vq, -EBADMSG,
			"available index %u is %u ahead of %u, the ring has %u entries", idx, ahead,
			vq->next_avail, vq->size);
	vq->seen_avail = idx;
	return ahead != 0;
}

/* "Kick me for the entry at next_avail." */
static void tell_event(struct bf_virtq *vq)
{
	vq->told_event = vq->next_avail;
	bf_store16(vq->avail_event, vq->next_avail);
	if (__builtin_expect(!!vq->dirty, 0))
		bf_dirty_used(vq, (uintptr_t)vq->avail_event - (uintptr_t)vq->used,
			      sizeof(bf_le16));
}

/*
 * Look for entries beyond next_avail. 1 there are some (seen_avail moved), 0 none, -EBADMSG. When the
 * driver is to kick us for the next entry, none means that it will.
 */
static int look(struct bf_virtq *vq)
{
	int ret = take_index(vq);

	if (ret || !vq->event_idx || !vq->kicks_wanted || vq->told_event == vq->next_avail)
		return ret;
	/*
	 * With an event index "notify me" holds for one entry only, so it has to follow us while
	 * notifications are on. What was added between the two looks would not be kicked for.
	 */
	tell_event(vq);
	bf_barrier(); /* partner: the driver's, between its index and reading avail_event */
	return take_index(vq);
}

static struct bf_element decode(const struct bf_desc *raw)
{
	return (struct bf_element){ bf_from_le64(raw->addr), bf_from_le32(raw->len),
				    bf_from_le16(raw->flags) };
}

/* Follow the links from @head, below size; at most one of them leads into an indirect table. */
int bf_split_follow(struct bf_walk *walk, unsigned head)
{
	struct bf_virtq *vq = walk->vq;
	struct bf_table table = {
		.part = { { (void *)(uintptr_t)vq->desc, bf_desc_size(vq->size) } },
		.nr = vq->size,
	};
	unsigned i = head, steps = 0;
	bool inside = false;
	int ret;

	for (;;) {
		struct bf_element element;
		struct bf_desc raw;

		if (steps++ == table.nr)
			return bf_virtq_break(vq, -ELOOP, "chain of more than %u descriptors",
					      table.nr);
		bf_table_read(&table, i, &raw);
		element = decode(&raw);
		if (element.flags & VRING_DESC_F_INDIRECT) {
			if (inside)
				return bf_virtq_break(
					vq, -EBADMSG,
					"indirect descriptor inside an indirect table");
			ret = bf_table_open(vq, &element, &table);
			if (ret)
				return ret;
			/* The table's own bound now; entered once, so the sum is bounded too. */
			inside = true;
			steps = 0;
			i = 0;
			continue;
		}
		ret = bf_walk_add(walk, &element);
		if (ret)
			return ret;
		if (!(element.flags & VRING_DESC_F_NEXT))
			return 0;
		i = bf_from_le16(raw.next);
		if (i >= table.nr)
			return bf_virtq_break(vq, -EBADMSG,
					      "next descriptor is %u, the table has %u", i,
					      table.nr);
	}
}

static uint16_t avail_head(const struct bf_virtq *vq, uint16_t position)
{
	return bf_load16(&vq->avail->ring[position & (vq->size - 1)]);
}

/* Descriptors that a batch will want, one in four: a line has four, and drivers mostly use them in order. */
static void prefetch(const struct bf_virtq *vq, unsigned nr)
{
	for (unsigned i = 4; i < nr; i += 4) {
		uint16_t head = avail_head(vq, (uint16_t)(vq->next_avail + i));

		__builtin_prefetch(&vq->desc[head & (vq->size - 1)]);
	}
}

/*
 * The short way, of requests of one descriptor. How many, of at most @nr that are there and as many in @iov.
 */
static unsigned __attribute__((noinline))
pop_plain(struct bf_virtq *vq, struct bf_chain *chains, unsigned nr, struct iovec *iov)
{
	const struct bf_span span = bf_virtq_span(vq);
	const struct bf_desc *table = vq->desc;
	const bf_le16 *ring = vq->avail->ring;
	uint32_t *in_flight = vq->in_flight;
	unsigned i, size = vq->size, position = vq->next_avail;

	for (i = 0; i < nr; i++) {
		uint16_t head = bf_load16(&ring[(position + i) & (size - 1)]);
		uint64_t address, rest;

		if (__builtin_expect(head >= size || in_flight[head], 0))
			break;
		address = bf_load64(&table[head].addr);
		rest = bf_load64((const bf_le64 *)(const void *)&table[head].len);
		if ((rest >> 32) & (VRING_DESC_F_NEXT | VRING_DESC_F_INDIRECT))
			break;
		if (!bf_plain_chain(&span, address, (uint32_t)rest, (unsigned)(rest >> 32), head,
				    &chains[i], &iov[i]))
			break;
		in_flight[head] = 1;
	}
	vq->next_avail = (uint16_t)(vq->next_avail + i);
	return bf_virtq_taken_shortly(vq, chains, i);
}

/* The descriptors that hang on @head, or are in the indirect table that it refers to. */
static bool __attribute__((noinline))
short_chain(const struct bf_virtq *vq, const struct bf_span *span, uint16_t head,
	    struct bf_chain *chain, struct iovec *iov, unsigned nr_iov)
{
	const uint8_t *table = (const void *)vq->desc;
	struct bf_chain own = { .iov = iov };
	const struct bf_span in = *span;
	unsigned i = head, nr = vq->size;
	struct bf_element first;
	struct bf_desc raw;

	bf_copy_in(&raw, &vq->desc[head], sizeof(raw));
	first = decode(&raw);
	if (first.flags & VRING_DESC_F_INDIRECT) {
		nr = bf_table_in_span(vq, &in, &first, &table);
		i = 0;
	}
	for (unsigned steps = 0; steps < nr; steps++) {
		unsigned flags;

		bf_copy_in(&raw, table + (size_t)i * BF_TABLE_ENTRY, sizeof(raw));
		flags = bf_from_le16(raw.flags);
		if ((flags & VRING_DESC_F_INDIRECT) ||
		    !bf_short_add(&own, &in, nr_iov, bf_from_le64(raw.addr), bf_from_le32(raw.len),
				  flags))
			return false;
		if (!(flags & VRING_DESC_F_NEXT)) {
			bf_short_end(&own, head, chain);
			return true;
		}
		i = bf_from_le16(raw.next);
		if (i >= nr)
			return false;
	}
	return false;
}

/* The short way, of requests of several. How many; *@used moves on over their pieces in @iov. */
static unsigned __attribute__((noinline))
pop_linked(struct bf_virtq *vq, struct bf_chain *chains, unsigned nr, struct iovec *iov,
	   unsigned nr_iov, unsigned *used)
{
	const struct bf_span span = bf_virtq_span(vq);
	unsigned i;

	for (i = 0; i < nr && *used < nr_iov; i++) {
		uint16_t head = avail_head(vq, (uint16_t)(vq->next_avail + i));

		if (__builtin_expect(head >= vq->size || vq->in_flight[head], 0) ||
		    !short_chain(vq, &span, head, &chains[i], iov + *used, nr_iov - *used))
			break;
		vq->in_flight[head] = 1;
		*used += chains[i].nr_iov;
	}
	vq->next_avail = (uint16_t)(vq->next_avail + i);
	return bf_virtq_taken_shortly(vq, chains, i);
}

/* One request, whatever it is: 1, 0 not now, or the error that broke the ring. */
static int pop_chain(struct bf_virtq *vq, struct bf_chain *chain)
{
	uint16_t head = avail_head(vq, vq->next_avail);
	struct bf_walk walk;
	int ret;

	if (head >= vq->size)
		return bf_virtq_break(vq, -EBADMSG,
				      "available entry names descriptor %u, the ring has %u", head,
				      vq->size);
	bf_walk_begin(&walk, vq, chain);
	ret = bf_split_follow(&walk, head);
	if (ret)
		return ret == -EAGAIN ? 0 : ret;
	ret = bf_virtq_take(vq, head, 1);
	if (ret < 0)
		return ret;
	bf_walk_end(&walk, head, chain);
	chain->nr_iov = walk.nr_iov;
	bf_virtq_taken(vq, chain, vq->next_avail, 1);
	vq->next_avail++;
	return 1;
}

static int pop(struct bf_virtq *vq, struct bf_chain *chains, unsigned nr, struct iovec *iov,
	       unsigned nr_iov)
{
	bool shortly = !bf_virtq_recorded(vq);
	unsigned taken = 0, used = 0, ready = (uint16_t)(vq->seen_avail - vq->next_avail);
	int ret;

	if (ready < nr) {
		ret = ready ? take_index(vq) : look(vq);
		if (ret <= 0)
			return ret;
		ready = (uint16_t)(vq->seen_avail - vq->next_avail);
	}
	if (nr > ready)
		nr = ready;
	prefetch(vq, nr);
	while (taken < nr) {
		if (shortly)
			taken += bf_pop_shortly(vq, chains + taken, nr - taken, iov, nr_iov, &used,
						pop_plain, pop_linked);
		if (taken == nr || (used == nr_iov && taken))
			break;
		chains[taken].iov = iov + used;
		chains[taken].nr_iov = nr_iov - used;
		vq->iov_rest = used;
		ret = pop_chain(vq, &chains[taken]);
		if (ret <= 0)
			return taken ? (int)taken : ret;
		used += chains[taken].nr_iov;
		taken++;
	}
	return (int)taken;
}

static void unpop(struct bf_virtq *vq, unsigned entries)
{
	vq->next_avail = (uint16_t)(vq->next_avail - entries);
}

/* The next used entry; @skip more become used with it. */
static void fill_used(struct bf_virtq *vq, const struct bf_done *done, unsigned skip)
{
	const struct bf_used_elem elem = { bf_to_le32(done->head), bf_to_le32(done->len) };

	memcpy(&vq->used->ring[vq->next_used & (vq->size - 1)], &elem, sizeof(elem));
	vq->next_used = (uint16_t)(vq->next_used + 1 + skip);
}

/*
 * 2.7.9: one entry, for the last of several, stands where the first one's would; the others count as
 * written in full, which is right of those that have nothing to write.
 */
static unsigned push_in_order(struct bf_virtq *vq, const struct bf_done *done, unsigned nr)
{
	uint32_t *in_flight = vq->in_flight;
	unsigned out = vq->order_out, old = 0, skip = 0;

	for (unsigned i = 0; i < nr; i++) {
		uint32_t taken = bf_virtq_give(in_flight, vq->size, done[i].head);

		old += !!(taken & BF_TAKEN_OLD);
		bf_order_remove(vq, &out, done[i].head);
		if (!(taken & BF_TAKEN_WRITABLE) && i + 1 < nr) {
			skip++;
			continue;
		}
		fill_used(vq, &done[i], skip);
		skip = 0;
	}
	vq->order_out = (uint16_t)out;
	return old;
}

static unsigned push_any_order(struct bf_virtq *vq, const struct bf_done *done, unsigned nr)
{
	struct bf_used_elem *ring = vq->used->ring;
	uint32_t *in_flight = vq->in_flight;
	unsigned position = vq->next_used, size = vq->size;
	unsigned old = 0;

	for (unsigned i = 0; i < nr; i++) {
		const struct bf_used_elem elem = { bf_to_le32(done[i].head),
						   bf_to_le32(done[i].len) };

		old += bf_virtq_give(in_flight, size, done[i].head) >> 16;
		memcpy(&ring[position++ & (size - 1)], &elem, sizeof(elem));
	}
	vq->next_used = (uint16_t)position;
	return old;
}

static void push(struct bf_virtq *vq, const struct bf_done *done, unsigned nr)
{
	unsigned old = vq->in_order ? push_in_order(vq, done, nr) : push_any_order(vq, done, nr);

	bf_virtq_gone(vq, nr, old);
}

/* Entries from @from on until @to were written. */
static void log_used(struct bf_virtq *vq, uint16_t from, uint16_t to)
{
	unsigned first = from & (vq->size - 1), nr = (uint16_t)(to - from);
	unsigned until_end = nr < vq->size - first ? nr : vq->size - first;
	uint64_t ring = offsetof(struct bf_used, ring), entry = sizeof(struct bf_used_elem);

	bf_dirty_used(vq, 0, ring);
	bf_dirty_used(vq, ring + first * entry, until_end * entry);
	bf_dirty_used(vq, ring, (nr - until_end) * entry);
}

static void publish(struct bf_virtq *vq)
{
	/* Release: entries before index. Partner: the driver's read barrier behind loading it. */
	bf_store16_release(&vq->used->idx, vq->next_used);
	if (__builtin_expect(!!vq->dirty, 0))
		log_used(vq, vq->published_used, vq->next_used);
}

static bool wants_call(const struct bf_virtq *vq, uint16_t before)
{
	if (vq->event_idx)
		return bf_ring_passes(bf_load16(vq->used_event), vq->next_used, before);
	return !(bf_load16(&vq->avail->flags) & VRING_AVAIL_F_NO_INTERRUPT);
}

static bool has_work(const struct bf_virtq *vq)
{
	return bf_load16_acquire(&vq->avail->idx) != vq->next_avail;
}

static void ask_for_kicks(struct bf_virtq *vq, bool on)
{
	if (!vq->event_idx) {
		bf_store16(&vq->used->flags, on ? 0 : VRING_USED_F_NO_NOTIFY);
		if (__builtin_expect(!!vq->dirty, 0))
			bf_dirty_used(vq, 0, sizeof(bf_le16));
	} else if (on) {
		tell_event(vq);
	}
	/* Off needs no store with an event index: it is left behind, and not passed again. */
}

const struct bf_virtq_format bf_split_format = {
	.pop = pop,
	.unpop = unpop,
	.push = push,
	.publish = publish,
	.wants_call = wants_call,
	.has_work = has_work,
	.ask_for_kicks = ask_for_kicks,
};
