/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The packed virtqueue, device side (virtio 1.2, 2.8): one ring for both directions.
 *
 * Queue context, hot. No lock, no allocation, no system call. The driver makes descriptors available
 * in ring order, at next_avail; we give buffers back in the order of their completion, at next_used,
 * each in one descriptor that stands for as many as the buffer took, so that both sides know where
 * the next one will be. How many that are we remember ourselves (request.c): the ring is not asked
 * again. There is a "short way", as in split.c.
 *
 * "Whose descriptor is it?" All descriptors from published_used on until next_avail are ours, however
 * they are flagged; the driver has not seen them used. That makes at most one turn: next_avail is
 * let go ahead only over what is left of it, so a driver that lies about its flags finds the ring
 * broken, and next_used, which never passes next_avail, never reaches what it has not published.
 *
 * "A batch becomes visible at once." The driver polls one place, the descriptor at its own position
 * (2.8.2), so the used descriptors behind it may be written in any order. Only the first one's flags
 * are held back until publish(): a request in several buffers is never seen in part (2.8.9).
 */
#include "request.h"

#include <errno.h>

#include "../base/shared.h"
#include "walk.h"

/* 2.8.1: available in this turn, which is AVAIL as our wrap counter and USED as its inverse. */
static bool has_work(const struct bf_virtq *vq)
{
	/*
	 * Acquire: the descriptor's other fields, and the rest of its chain, were written before.
	 * Partner: the driver's write barrier before the flags of a chain's first descriptor
	 * (2.8.21.1).
	 */
	uint16_t flags = bf_load16_acquire(&vq->ring[bf_packed_idx(vq->next_avail)].flags);
	bool wrap = bf_packed_wrap(vq->next_avail);

	return !!(flags & BF_PACKED_AVAIL) == wrap && !!(flags & BF_PACKED_USED) != wrap;
}

/* "Kick me for the descriptor at next_avail." */
static void tell_event(struct bf_virtq *vq)
{
	vq->told_event = vq->next_avail;
	bf_store16(&vq->device_event->position, vq->next_avail);
	if (__builtin_expect(!!vq->dirty, 0))
		bf_dirty_used(vq, 0, sizeof(*vq->device_event));
}

/*
 * The next descriptor is not available. When the driver is to kick us for a certain descriptor, make
 * it this one: "notify me" holds for one only, so it has to follow us while notifications are on.
 * What became available before the driver could see that would not be kicked for.
 */
static bool look_again(struct bf_virtq *vq)
{
	if (!vq->event_idx || !vq->kicks_wanted || vq->told_event == vq->next_avail)
		return false;
	tell_event(vq);
	bf_barrier(); /* partner: the driver's, between its flags and reading our event area */
	return has_work(vq);
}

static struct bf_element decode(const struct bf_packed_desc *raw)
{
	return (struct bf_element){ bf_from_le64(raw->addr), bf_from_le32(raw->len),
				    bf_from_le16(raw->flags) };
}

/* 2.8.7: all entries in order; of their flags only "writable" is valid, the rest is ignored. */
int bf_packed_follow_table(struct bf_walk *walk, const struct bf_element *indirect)
{
	struct bf_table table;
	int ret = bf_table_open(walk->vq, indirect, &table);

	for (unsigned i = 0; !ret && i < table.nr; i++) {
		struct bf_element element;
		struct bf_packed_desc raw;

		bf_table_read(&table, i, &raw);
		element = decode(&raw);
		ret = bf_walk_add(walk, &element);
	}
	return ret;
}

/* How many descriptors the driver can have made available, from next_avail on: file comment. */
static unsigned room(const struct bf_virtq *vq)
{
	return vq->size - bf_packed_distance(vq->published_used, vq->next_avail, vq->size);
}

/*
 * Read the chain at next_avail. How many descriptors it has, or the error that broke the ring. @id is
 * from the last one (2.8.6), and not checked.
 *
 * The first one's flags are read a second time here. What the first reading decided, that the driver
 * had finished writing, the second one cannot take back, and all the rest is taken from the copy.
 */
static int follow(struct bf_walk *walk, uint16_t *id)
{
	struct bf_virtq *vq = walk->vq;
	unsigned left = room(vq);
	uint16_t position = vq->next_avail;
	int ret;

	if (!left)
		return bf_virtq_break(
			vq, -EBADMSG,
			"descriptor %u made available before it was used, all %u are taken",
			bf_packed_idx(position), vq->size);
	for (unsigned nr = 1; nr <= left; nr++) {
		struct bf_element element;
		struct bf_packed_desc raw;

		bf_copy_in(&raw, &vq->ring[bf_packed_idx(position)], sizeof(raw));
		element = decode(&raw);
		*id = bf_from_le16(raw.id);
		/* 2.8.19: a list is all direct, or one indirect descriptor. */
		if (element.flags & VRING_DESC_F_INDIRECT) {
			if (nr > 1)
				return bf_virtq_break(vq, -EBADMSG,
						      "indirect descriptor inside a chain");
			ret = bf_packed_follow_table(walk, &element);
			return ret ? ret : 1;
		}
		ret = bf_walk_add(walk, &element);
		if (ret)
			return ret;
		if (!(element.flags & VRING_DESC_F_NEXT))
			return (int)nr;
		position = bf_packed_advance(position, 1, vq->size);
	}
	return bf_virtq_break(vq, -ELOOP,
			      "chain of more than the %u descriptors that are left of %u", left,
			      vq->size);
}

/* The short way, of requests of one descriptor. How many, of at most @nr, with as many in @iov. */
static unsigned __attribute__((noinline))
pop_plain(struct bf_virtq *vq, struct bf_chain *chains, unsigned nr, struct iovec *iov)
{
	const struct bf_span span = bf_virtq_span(vq);
	const struct bf_packed_desc *ring = vq->ring;
	uint32_t *in_flight = vq->in_flight;
	unsigned i, size = vq->size, idx = bf_packed_idx(vq->next_avail);
	unsigned wrap = vq->next_avail & BF_PACKED_WRAP, left = room(vq);
	unsigned expected = wrap ? BF_PACKED_AVAIL : BF_PACKED_USED;

	if (nr > left)
		nr = left;
	for (i = 0; i < nr; i++) {
		const struct bf_packed_desc *desc = &ring[idx];
		/* Acquire: as in has_work(). */
		unsigned flags = bf_load16_acquire(&desc->flags);
		uint64_t address, rest;
		uint16_t id;

		if ((flags & (BF_PACKED_AVAIL | BF_PACKED_USED | VRING_DESC_F_NEXT |
			      VRING_DESC_F_INDIRECT)) != expected)
			break;
		address = bf_load64(&desc->addr);
		rest = bf_load64((const bf_le64 *)(const void *)&desc->len);
		id = (uint16_t)(rest >> 32);
		if (__builtin_expect(id >= size || in_flight[id], 0))
			break;
		if (!bf_plain_chain(&span, address, (uint32_t)rest, flags, id, &chains[i], &iov[i]))
			break;
		in_flight[id] = 1;
		if (++idx == size) {
			idx = 0;
			wrap ^= BF_PACKED_WRAP;
			expected ^= BF_PACKED_AVAIL | BF_PACKED_USED;
		}
	}
	vq->next_avail = (uint16_t)(idx | wrap);
	return bf_virtq_taken_shortly(vq, chains, i);
}

/* The short way, of a request in an indirect table: what its one descriptor says. */
static inline __attribute__((always_inline)) bool short_table(const struct bf_virtq *vq,
							      const struct bf_span *span,
							      const struct bf_element *indirect,
							      struct bf_chain *chain,
							      unsigned nr_iov)
{
	const uint8_t *table = NULL;
	unsigned nr = bf_table_in_span(vq, span, indirect, &table);

	for (unsigned i = 0; i < nr; i++) {
		struct bf_packed_desc raw;
		struct bf_element element;

		bf_copy_in(&raw, table + (size_t)i * BF_TABLE_ENTRY, sizeof(raw));
		element = decode(&raw);
		if (!bf_short_add(chain, span, nr_iov, element.gpa, element.len, element.flags))
			return false;
	}
	return nr;
}

/* The descriptors at next_avail: how many they are, or 0. */
static unsigned __attribute__((noinline))
short_chain(const struct bf_virtq *vq, const struct bf_span *span, struct bf_chain *chain,
	    struct iovec *iov, unsigned nr_iov)
{
	unsigned idx = bf_packed_idx(vq->next_avail), left = room(vq);
	struct bf_chain own = { .iov = iov };
	const struct bf_span in = *span;

	for (unsigned nr = 1; nr <= left; nr++) {
		struct bf_packed_desc raw;
		struct bf_element element;
		bool table;

		bf_copy_in(&raw, &vq->ring[idx], sizeof(raw));
		element = decode(&raw);
		table = element.flags & VRING_DESC_F_INDIRECT;
		if (table ? nr > 1 || !short_table(vq, &in, &element, &own, nr_iov)
			  : !bf_short_add(&own, &in, nr_iov, element.gpa, element.len,
					  element.flags))
			return 0;
		if (table || !(element.flags & VRING_DESC_F_NEXT)) {
			bf_short_end(&own, bf_from_le16(raw.id), chain);
			return nr;
		}
		if (++idx == vq->size)
			idx = 0;
	}
	return 0;
}

/* The short way, of requests of several. How many; *@used moves on over their pieces in @iov. */
static unsigned __attribute__((noinline))
pop_linked(struct bf_virtq *vq, struct bf_chain *chains, unsigned nr, struct iovec *iov,
	   unsigned nr_iov, unsigned *used)
{
	const struct bf_span span = bf_virtq_span(vq);
	unsigned i;

	for (i = 0; i < nr && *used < nr_iov && has_work(vq); i++) {
		unsigned entries = short_chain(vq, &span, &chains[i], iov + *used, nr_iov - *used);
		uint16_t id;

		if (!entries)
			break;
		id = chains[i].head;
		if (__builtin_expect(id >= vq->size || vq->in_flight[id], 0))
			break;
		vq->in_flight[id] = entries;
		vq->next_avail = bf_packed_advance(vq->next_avail, entries, vq->size);
		*used += chains[i].nr_iov;
	}
	return bf_virtq_taken_shortly(vq, chains, i);
}

/* One request, whatever it is: 1, 0 there is none, or the error that broke the ring. */
static int pop_chain(struct bf_virtq *vq, struct bf_chain *chain)
{
	struct bf_walk walk;
	uint16_t id = 0;
	int nr, ret;

	bf_walk_begin(&walk, vq, chain);
	nr = follow(&walk, &id);
	if (nr < 0)
		return nr == -EAGAIN ? 0 : nr;
	ret = bf_virtq_take(vq, id, (unsigned)nr);
	if (ret < 0)
		return ret;
	bf_walk_end(&walk, id, chain);
	chain->nr_iov = walk.nr_iov;
	bf_virtq_taken(vq, chain, vq->next_avail, (unsigned)nr);
	vq->next_avail = bf_packed_advance(vq->next_avail, (unsigned)nr, vq->size);
	return 1;
}

static int pop(struct bf_virtq *vq, struct bf_chain *chains, unsigned nr, struct iovec *iov,
	       unsigned nr_iov)
{
	bool shortly = !bf_virtq_recorded(vq);
	unsigned taken = 0, used = 0;

	for (;;) {
		int ret;

		if (shortly)
			taken += bf_pop_shortly(vq, chains + taken, nr - taken, iov, nr_iov, &used,
						pop_plain, pop_linked);
		if (taken == nr || (taken && (used == nr_iov || !has_work(vq))))
			return (int)taken;
		if (!taken && !has_work(vq) && !look_again(vq))
			return 0;
		chains[taken].iov = iov + used;
		chains[taken].nr_iov = nr_iov - used;
		vq->iov_rest = used;
		ret = pop_chain(vq, &chains[taken]);
		if (ret <= 0)
			return taken ? (int)taken : ret;
		used += chains[taken].nr_iov;
		if (++taken == nr)
			return (int)taken;
	}
}

static void unpop(struct bf_virtq *vq, unsigned entries)
{
	unsigned idx = bf_packed_idx(vq->next_avail), wrap = vq->next_avail & BF_PACKED_WRAP;

	if (idx < entries) {
		idx += vq->size;
		wrap ^= BF_PACKED_WRAP;
	}
	vq->next_avail = (uint16_t)((idx - entries) | wrap);
}

/* 2.8.3: flags of a used descriptor; one of them says that the length counts. */
static unsigned used_flags(unsigned wrap, uint32_t len)
{
	return (wrap ? BF_PACKED_AVAIL | BF_PACKED_USED : 0u) | (len ? VRING_DESC_F_WRITE : 0u);
}

static void store_used(struct bf_packed_desc *desc, const struct bf_done *done, unsigned wrap)
{
	uint64_t flags = used_flags(wrap, done->len);

	bf_store64((bf_le64 *)(void *)&desc->len,
		   done->len | (uint64_t)done->head << 32 | flags << 48);
}

/* A used descriptor at next_used. @entries: to the next one. */
static void fill_used(struct bf_virtq *vq, const struct bf_done *done, unsigned entries)
{
	struct bf_packed_desc *desc = &vq->ring[bf_packed_idx(vq->next_used)];
	unsigned wrap = vq->next_used & BF_PACKED_WRAP;

	if (vq->next_used == vq->published_used) {
		desc->id = bf_to_le16(done->head);
		desc->len = bf_to_le32(done->len);
		vq->first_flags = (uint16_t)used_flags(wrap, done->len);
	} else {
		store_used(desc, done, wrap);
	}
	vq->next_used = bf_packed_advance(vq->next_used, entries, vq->size);
}

/*
 * 2.8.8: one descriptor, for the last of several, stands where the first one's would; the others count as
 * written in full, which is right of those that have nothing to write.
 */
static unsigned push_in_order(struct bf_virtq *vq, const struct bf_done *done, unsigned nr)
{
	uint32_t *in_flight = vq->in_flight;
	unsigned out = vq->order_out, old = 0, entries = 0;

	for (unsigned i = 0; i < nr; i++) {
		uint32_t taken = bf_virtq_give(in_flight, vq->size, done[i].head);

		old += !!(taken & BF_TAKEN_OLD);
		bf_order_remove(vq, &out, done[i].head);
		entries += taken & BF_TAKEN_ENTRIES;
		if (!(taken & BF_TAKEN_WRITABLE) && i + 1 < nr)
			continue;
		fill_used(vq, &done[i], entries);
		entries = 0;
	}
	vq->order_out = (uint16_t)out;
	return old;
}

static unsigned push_any_order(struct bf_virtq *vq, const struct bf_done *done, unsigned nr)
{
	uint32_t *in_flight = vq->in_flight;
	unsigned idx, wrap, size = vq->size;
	uint32_t taken = bf_virtq_give(in_flight, size, done->head);
	unsigned old = taken >> 16;

	/* The first one may be the one whose flags are held back; none behind it is. */
	fill_used(vq, done, taken & BF_TAKEN_ENTRIES);
	idx = bf_packed_idx(vq->next_used);
	wrap = vq->next_used & BF_PACKED_WRAP;
	for (unsigned i = 1; i < nr; i++) {
		taken = bf_virtq_give(in_flight, size, done[i].head);
		old += taken >> 16;
		store_used(&vq->ring[idx], &done[i], wrap);
		idx += taken & BF_TAKEN_ENTRIES;
		if (idx >= size) {
			idx -= size;
			wrap ^= BF_PACKED_WRAP;
		}
	}
	vq->next_used = (uint16_t)(idx | wrap);
	return old;
}

static void push(struct bf_virtq *vq, const struct bf_done *done, unsigned nr)
{
	unsigned old = vq->in_order ? push_in_order(vq, done, nr) : push_any_order(vq, done, nr);

	bf_virtq_gone(vq, nr, old);
}

/* Descriptors from @from on until @to were written, some of them. */
static void log_ring(struct bf_virtq *vq, uint16_t from, uint16_t to)
{
	unsigned first = bf_packed_idx(from), nr = bf_packed_distance(from, to, vq->size);
	unsigned until_end = nr < vq->size - first ? nr : vq->size - first;
	uint64_t entry = sizeof(struct bf_packed_desc);

	bf_dirty_ring(vq, first * entry, until_end * entry);
	bf_dirty_ring(vq, 0, (nr - until_end) * entry);
}

static void publish(struct bf_virtq *vq)
{
	/*
	 * Release: the whole batch before its first flags. Partner: the driver's read barrier
	 * behind loading the flags (2.8.22).
	 */
	bf_store16_release(&vq->ring[bf_packed_idx(vq->published_used)].flags, vq->first_flags);
	if (__builtin_expect(!!vq->dirty, 0))
		log_ring(vq, vq->published_used, vq->next_used);
}

static bool wants_call(const struct bf_virtq *vq, uint16_t before)
{
	/* Acquire: the position is older than the flags that give it a meaning. Partner: the
	 * driver's write barrier between the two. */
	uint16_t flags = bf_load16_acquire(&vq->driver_event->flags) & BF_PACKED_EVENT_FLAGS;
	uint16_t event;

	if (flags == VRING_PACKED_EVENT_FLAG_DISABLE)
		return false;
	/* What is not valid counts as "enable": a call too many costs only time. */
	if (flags != VRING_PACKED_EVENT_FLAG_DESC || !vq->event_idx)
		return true;
	event = bf_load16(&vq->driver_event->position);
	if (bf_packed_idx(event) >= vq->size)
		return true;
	return bf_packed_passes(event, vq->next_used, before, vq->size);
}

static void ask_for_kicks(struct bf_virtq *vq, bool on)
{
	uint16_t flags = VRING_PACKED_EVENT_FLAG_DISABLE;

	if (on)
		flags = vq->event_idx ? VRING_PACKED_EVENT_FLAG_DESC
				      : VRING_PACKED_EVENT_FLAG_ENABLE;
	if (on && vq->event_idx)
		tell_event(vq);
	/* Release: position before flags. Partner: the driver reads both, in one piece or the flags
	 * first. */
	bf_store16_release(&vq->device_event->flags, flags);
	if (__builtin_expect(!!vq->dirty, 0))
		bf_dirty_used(vq, 0, sizeof(*vq->device_event));
}

const struct bf_virtq_format bf_packed_format = {
	.pop = pop,
	.unpop = unpop,
	.push = push,
	.publish = publish,
	.wants_call = wants_call,
	.has_work = has_work,
	.ask_for_kicks = ask_for_kicks,
};
