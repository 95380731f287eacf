/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The split virtqueue's two index rings, device side: taking requests, giving them back.
 *
 * Queue context, hot. No lock, no allocation, no system call. Entries of the avail ring are read
 * once each; a head is an index only after it was compared with the size. What is pushed lies in
 * the used ring at once, but the driver may look at it only after bf_virtq_notify() has moved the
 * index.
 */
#include "virtq.h"

#include <assert.h>
#include <errno.h>

#include "../base/shared.h"

static bool is_in_flight(const struct bf_virtq *vq, uint16_t head)
{
	return (vq->in_flight[head / 64] >> (head % 64)) & 1;
}

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

int bf_virtq_look(struct bf_virtq *vq)
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

int bf_virtq_pop(struct bf_virtq *vq, struct bf_chain *chain)
{
	uint16_t head;
	int ret;

	if (vq->broken)
		return vq->broken;
	if (vq->seen_avail == vq->next_avail) {
		ret = bf_virtq_look(vq);
		if (ret <= 0)
			return ret;
	}

	head = bf_load16(&vq->avail->ring[vq->next_avail & (vq->size - 1)]);
	if (head >= vq->size)
		return bf_virtq_break(vq, -EBADMSG,
				      "available entry names descriptor %u, the ring has %u", head,
				      vq->size);
	/* The device would work on one request twice, and give back what it does not have. */
	if (is_in_flight(vq, head))
		return bf_virtq_break(vq, -EBADMSG,
				      "descriptor %u made available again while it is in flight",
				      head);
	ret = bf_virtq_walk(vq, head, chain);
	if (ret < 0)
		return ret;

	vq->in_flight[head / 64] |= (uint64_t)1 << (head % 64);
	vq->nr_in_flight++;
	vq->next_avail++;
	bf_count(&vq->counters.requests, 1);
	return 1;
}

void bf_virtq_push(struct bf_virtq *vq, uint16_t head, uint32_t len)
{
	struct bf_used_elem *elem = &vq->used->ring[vq->next_used & (vq->size - 1)];

	/* The device's promise, not the driver's: @head came from pop. */
	assert(head < vq->size && is_in_flight(vq, head));
	vq->in_flight[head / 64] &= ~((uint64_t)1 << (head % 64));
	vq->nr_in_flight--;
	elem->id = bf_to_le32(head);
	elem->len = bf_to_le32(len);
	vq->next_used++;
}
