/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * In-flight tracking of a split ring ("Inflight I/O tracking", QueueRegionSplit).
 *
 * Queue context, but recovery (control). What is in flight is marked head by head. Used entries become
 * visible by one store to the used index, and the marks of the batch are taken away after it: in between
 * they are wrong, and the batch, a list of heads, says which. The region's used_idx tells how many of the
 * list were in doubt: it follows when the marks are right.
 *
 * "Where the ring stands." Nobody keeps the next available index for us. All entries before it have been
 * used or are in flight, so it is the used index and the number of those together.
 */
#include "inflight_queue.h"

#include <errno.h>
#include <stdlib.h>

#include "../base/shared.h"

void bf_inflight_split_taken(struct bf_inflight_queue *queue, uint16_t head)
{
	struct bf_inflight_split_desc *desc = &queue->split->desc[head];

	TRACK(desc->counter, queue->counter);
	queue->counter++;
	/* The request is ours from here on. */
	TRACK(desc->inflight, 1);
}

void bf_inflight_split_untaken(struct bf_inflight_queue *queue, uint16_t head)
{
	TRACK(queue->split->desc[head].inflight, 0);
}

void bf_inflight_split_before_publish(struct bf_inflight_queue *queue)
{
	struct bf_inflight_split *region = queue->split;
	uint16_t behind = queue->last_batch_head;

	for (unsigned i = 0; i < queue->nr_batch; i++) {
		uint16_t head = queue->batch[i];

		/* A list as long as the batch; what it hangs on does not matter. */
		TRACK(region->desc[head].next, behind);
		TRACK(region->last_batch_head, head);
		behind = head;
	}
	queue->last_batch_head = behind;
}

void bf_inflight_split_after_publish(struct bf_inflight_queue *queue, uint16_t used_idx)
{
	struct bf_inflight_split *region = queue->split;

	for (unsigned i = 0; i < queue->nr_batch; i++)
		TRACK(region->desc[queue->batch[i]].inflight, 0);
	/* From here on the marks are right without the list. */
	TRACK(region->used_idx, used_idx);
}

static int fail(const char **why, const char *phrase)
{
	if (why)
		*why = phrase;
	return -EINVAL;
}

/* What is read of the region: once. */
struct copy {
	uint16_t version, desc_num, last_batch_head, used_idx;
	unsigned nr_marked;
	struct entry {
		bool marked;
		uint16_t next;
		uint64_t counter;
	} * entries; /* [size] */
};

static int read_region(const struct bf_virtq *vq, const struct bf_inflight_split *region,
		       struct copy *copy)
{
	struct bf_inflight_split header;

	copy->entries = calloc(vq->size, sizeof(*copy->entries));
	if (!copy->entries)
		return -ENOMEM;
	bf_copy_in(&header, region, sizeof(header));
	copy->version = header.version;
	copy->desc_num = header.desc_num;
	copy->last_batch_head = header.last_batch_head;
	copy->used_idx = header.used_idx;
	copy->nr_marked = 0;
	for (unsigned i = 0; i < vq->size; i++) {
		struct bf_inflight_split_desc desc;

		bf_copy_in(&desc, &region->desc[i], sizeof(desc));
		copy->entries[i] = (struct entry){ desc.inflight != 0, desc.next, desc.counter };
		copy->nr_marked += copy->entries[i].marked;
	}
	return 0;
}

/*
 * A region that was never used, or whose queue was. used_idx must be right before the version says that the
 * region is in use: with 0 there, and a ring that does not begin at 0, a successor would take the batch
 * list, which nobody has written, for what was published.
 */
static void begin(struct bf_virtq *vq, struct bf_inflight_split *region, uint16_t entries)
{
	TRACK(region->version, 0);
	for (unsigned i = 0; i < vq->size; i++)
		if (region->desc[i].inflight)
			TRACK(region->desc[i].inflight, 0);
	TRACK(region->used_idx, vq->next_used);
	TRACK(region->last_batch_head, 0);
	TRACK(region->desc_num, entries);
	TRACK(region->version, BF_INFLIGHT_VERSION);
	/*
	 * What is not used and not in flight is nobody's: it is taken, whatever the base says. The base is
	 * a guess when a predecessor died here.
	 */
	vq->next_avail = vq->seen_avail = vq->next_used;
}

/* Take the marks of the last batch away. The list is as long as the batch, or contradicts itself. */
static int finish_batch(const struct bf_virtq *vq, struct bf_inflight_split *region,
			struct copy *copy, uint16_t nr, const char **why)
{
	bool *seen = calloc(vq->size, sizeof(*seen));
	uint16_t head = copy->last_batch_head;
	int ret = 0;

	if (!seen)
		return -ENOMEM;
	for (unsigned i = 0; i < nr && !ret; i++) {
		if (head >= vq->size || seen[head]) {
			ret = fail(why, "the in-flight region's list of the last batch is no list");
			break;
		}
		seen[head] = true;
		head = copy->entries[head].next;
	}
	for (unsigned i = 0; i < vq->size && !ret; i++) {
		if (!seen[i])
			continue;
		copy->entries[i].marked = false;
		TRACK(region->desc[i].inflight, 0);
	}
	free(seen);
	return ret;
}

static int recover(struct bf_virtq *vq, struct bf_inflight_queue *queue, struct copy *copy,
		   uint16_t entries, const char **why)
{
	/* 16 bits: the index wraps. */
	uint16_t in_doubt = (uint16_t)(vq->next_used - copy->used_idx);
	int ret;

	if (copy->version > BF_INFLIGHT_VERSION)
		return fail(why, "the in-flight region is of a version that is not known");
	if (copy->desc_num && copy->version && copy->desc_num < vq->size)
		return fail(why, "the in-flight region was used for a smaller ring");
	/* Nothing in flight, and of another time: the ring was reset, and the region not replaced. */
	if (!copy->version || (in_doubt > vq->size && !copy->nr_marked)) {
		begin(vq, queue->split, entries);
		return 0;
	}
	if (in_doubt > vq->size)
		return fail(why, "the in-flight region does not belong to this ring: their used "
				 "indices are further apart than the ring is long");
	if (in_doubt) {
		ret = finish_batch(vq, queue->split, copy, in_doubt, why);
		if (ret)
			return ret;
		TRACK(queue->split->used_idx, vq->next_used);
	}
	for (unsigned i = 0; i < vq->size; i++)
		if (copy->entries[i].marked)
			queue->again[queue->nr_again++] =
				(struct bf_again){ .counter = copy->entries[i].counter,
						   .head = (uint16_t)i };
	queue->last_batch_head = copy->last_batch_head;
	vq->next_avail = vq->seen_avail = (uint16_t)(vq->next_used + queue->nr_again);
	return 0;
}

int bf_inflight_split_recover(struct bf_virtq *vq, struct bf_inflight_queue *queue,
			      uint16_t entries, const char **why)
{
	struct copy copy;
	int ret = read_region(vq, queue->split, &copy);

	if (ret)
		return ret;
	ret = recover(vq, queue, &copy, entries, why);
	free(copy.entries);
	return ret;
}
