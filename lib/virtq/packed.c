/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The packed virtqueue, device side (virtio 1.2, 2.8): one ring for both directions.
 *
 * Queue context, hot. No lock, no allocation, no system call. The driver makes descriptors available
 * in ring order, at next_avail; we give buffers back in the order of their completion, at next_used,
 * each in one descriptor that stands for as many as the buffer took, so that both sides know where
 * the next one will be. How many that are we remember ourselves (request.c): the ring is not asked
 * again.
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
#include "virtq.h"

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

/*
 * The next descriptor is not available. When the driver is to kick us for a certain descriptor, make
 * it this one: "notify me" holds for one only, so it has to follow us while notifications are on.
 * What became available before the driver could see that would not be kicked for.
 */
static bool look_again(struct bf_virtq *vq)
{
	if (!vq->event_idx || !vq->kicks_wanted || vq->told_event == vq->next_avail)
		return false;
	vq->told_event = vq->next_avail;
	bf_store16(&vq->device_event->position, vq->next_avail);
	bf_barrier(); /* partner: the driver's, between its flags and reading our event area */
	return has_work(vq);
}

static struct bf_element decode(const struct bf_packed_desc *raw)
{
	return (struct bf_element){ bf_from_le64(raw->addr), bf_from_le32(raw->len),
				    bf_from_le16(raw->flags) };
}

/* 2.8.7: all entries in order; of their flags only "writable" is valid, the rest is ignored. */
static int follow_table(struct bf_walk *walk, const struct bf_element *indirect)
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
	unsigned left = vq->size - bf_packed_distance(vq->published_used, vq->next_avail, vq->size);
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
			ret = follow_table(walk, &element);
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

static int pop(struct bf_virtq *vq, struct bf_chain *chain)
{
	struct bf_walk walk;
	uint16_t id = 0;
	int nr, ret;

	if (!has_work(vq) && !look_again(vq))
		return 0;
	bf_walk_begin(&walk, vq, chain);
	nr = follow(&walk, &id);
	if (nr < 0)
		return nr;
	ret = bf_virtq_take(vq, id, (unsigned)nr);
	if (ret < 0)
		return ret;
	bf_walk_end(&walk, id, chain);
	vq->next_avail = bf_packed_advance(vq->next_avail, (unsigned)nr, vq->size);
	return 1;
}

static void push(struct bf_virtq *vq, uint16_t id, uint32_t len, unsigned entries)
{
	struct bf_packed_desc *desc = &vq->ring[bf_packed_idx(vq->next_used)];
	uint16_t flags = bf_packed_wrap(vq->next_used) ? BF_PACKED_AVAIL | BF_PACKED_USED : 0;

	/* 2.8.3: in a used descriptor the flag says that the length counts. */
	if (len)
		flags |= VRING_DESC_F_WRITE;
	desc->id = bf_to_le16(id);
	desc->len = bf_to_le32(len);
	if (vq->next_used == vq->published_used)
		vq->first_flags = flags;
	else
		bf_store16(&desc->flags, flags);
	vq->next_used = bf_packed_advance(vq->next_used, entries, vq->size);
}

static void publish(struct bf_virtq *vq)
{
	/*
	 * Release: the whole batch before its first flags. Partner: the driver's read barrier
	 * behind loading the flags (2.8.22).
	 */
	bf_store16_release(&vq->ring[bf_packed_idx(vq->published_used)].flags, vq->first_flags);
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
	if (on && vq->event_idx) {
		vq->told_event = vq->next_avail;
		bf_store16(&vq->device_event->position, vq->next_avail);
	}
	/* Release: position before flags. Partner: the driver reads both, in one piece or the flags
	 * first. */
	bf_store16_release(&vq->device_event->flags, flags);
}

const struct bf_virtq_format bf_packed_format = {
	.pop = pop,
	.push = push,
	.publish = publish,
	.wants_call = wants_call,
	.has_work = has_work,
	.ask_for_kicks = ask_for_kicks,
};
