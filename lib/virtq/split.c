/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The split virtqueue, device side (virtio 1.2, 2.7): its two index rings, its chains, its events.
 *
 * Queue context, hot. No lock, no allocation, no system call. Entries of the avail ring are read
 * once each; a head is an index only after it was compared with the size. What is pushed lies in
 * the used ring at once, but the driver may look at it only after publish() has moved the index.
 */
#include "virtq.h"

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
	vq->told_event = vq->next_avail;
	bf_store16(vq->avail_event, vq->next_avail);
	bf_barrier(); /* partner: the driver's, between its index and reading avail_event */
	return take_index(vq);
}

/* Follow the links from @head, below size; at most one of them leads into an indirect table. */
static int follow(struct bf_walk *walk, unsigned head)
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
		element = (struct bf_element){ bf_from_le64(raw.addr), bf_from_le32(raw.len),
					       bf_from_le16(raw.flags) };
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

static int pop(struct bf_virtq *vq, struct bf_chain *chain)
{
	struct bf_walk walk;
	uint16_t head;
	int ret;

	if (vq->seen_avail == vq->next_avail) {
		ret = look(vq);
		if (ret <= 0)
			return ret;
	}
	head = bf_load16(&vq->avail->ring[vq->next_avail & (vq->size - 1)]);
	if (head >= vq->size)
		return bf_virtq_break(vq, -EBADMSG,
				      "available entry names descriptor %u, the ring has %u", head,
				      vq->size);
	bf_walk_begin(&walk, vq, chain);
	ret = follow(&walk, head);
	if (ret)
		return ret;
	ret = bf_virtq_take(vq, head, 1);
	if (ret < 0)
		return ret;
	bf_walk_end(&walk, head, chain);
	vq->next_avail++;
	return 1;
}

static void push(struct bf_virtq *vq, uint16_t head, uint32_t len, unsigned entries)
{
	struct bf_used_elem *elem = &vq->used->ring[vq->next_used & (vq->size - 1)];

	elem->id = bf_to_le32(head);
	elem->len = bf_to_le32(len);
	vq->next_used = (uint16_t)(vq->next_used + entries);
}

static void publish(struct bf_virtq *vq)
{
	/* Release: entries before index. Partner: the driver's read barrier behind loading it. */
	bf_store16_release(&vq->used->idx, vq->next_used);
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
	} else if (on) {
		vq->told_event = vq->next_avail;
		bf_store16(vq->avail_event, vq->next_avail);
	}
	/* Off needs no store with an event index: it is left behind, and not passed again. */
}

const struct bf_virtq_format bf_split_format = {
	.pop = pop,
	.push = push,
	.publish = publish,
	.wants_call = wants_call,
	.has_work = has_work,
	.ask_for_kicks = ask_for_kicks,
};
