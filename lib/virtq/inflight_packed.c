/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * In-flight tracking of a packed ring ("Inflight I/O tracking", QueueRegionPacked).
 *
 * Queue context, but recovery (control). Used descriptors overwrite available ones, so the region has copies
 * of all descriptors of a request, in entries of a list of its own: free entries hang on free_head, a
 * request's on its first entry. old_free_head, and old_used_idx with its wrap counter, are where these stood
 * when all was right; a successor goes back to them, unless it finds the batch published.
 *
 * "One store, one decision." A request is in flight from the store to old_free_head on. A batch is given back
 * by the store to the flags of its first descriptor, which is the ring's own. The index and wrap counter, and
 * their old ones, lie in one aligned word, and change by one store: half of a position is no position.
 *
 * "What a dead process left in the ring." Used descriptors of a batch, but for the first one's flags, are
 * written before it is published (packed.c). If it never was, they must not stay: the successor gives the
 * requests back in another order, perhaps, and the driver would find the old ones behind its own.
 *
 * "Where the ring stands." Descriptors between the used position and the next available one all belong to
 * requests in flight: the used position and their number together are the available one.
 */
#include "inflight_queue.h"

#include <errno.h>
#include <stdlib.h>

#include "../base/shared.h"

/* used_idx, old_used_idx, their wrap counters, and two bytes of padding. */
union positions {
	struct {
		uint16_t used_idx, old_used_idx;
		uint8_t used_wrap, old_used_wrap;
		uint8_t padding[2];
	};
	uint64_t word;
};

_Static_assert(offsetof(struct bf_inflight_packed, used_idx) == 16, "an aligned word");
_Static_assert(offsetof(struct bf_inflight_packed, old_used_wrap_counter) == 21, "and in it");

static void store_positions(struct bf_inflight_packed *region, uint16_t used, uint16_t old)
{
	union positions positions = { { (uint16_t)bf_packed_idx(used),
					(uint16_t)bf_packed_idx(old),
					bf_packed_wrap(used),
					bf_packed_wrap(old),
					{ 0, 0 } } };
	uint64_t *word = (void *)&region->used_idx;

	TRACK(*word, positions.word);
}

static void copy_descriptor(struct bf_inflight_packed_desc *entry,
			    const struct bf_packed_desc *desc, uint16_t id)
{
	struct bf_packed_desc raw;

	bf_copy_in(&raw, desc, sizeof(raw));
	TRACK(entry->addr, bf_from_le64(raw.addr));
	TRACK(entry->len, bf_from_le32(raw.len));
	TRACK(entry->flags, bf_from_le16(raw.flags));
	TRACK(entry->id, id);
}

void bf_inflight_packed_taken(const struct bf_virtq *vq, struct bf_inflight_queue *queue,
			      uint16_t id, uint16_t position, unsigned entries)
{
	struct bf_inflight_packed *region = queue->packed;
	uint16_t first = queue->free_head, last = first, next = first;
	struct bf_inflight_packed_desc *head = &region->desc[first];

	TRACK(head->num, 0);
	TRACK(head->counter, queue->counter);
	queue->counter++;
	TRACK(head->inflight, 1);
	for (unsigned i = 0; i < entries; i++) {
		last = next;
		copy_descriptor(&region->desc[last], &vq->ring[bf_packed_idx(position)], id);
		next = queue->next[last];
		position = bf_packed_advance(position, 1, vq->size);
	}
	TRACK(head->last, last);
	TRACK(head->num, (uint16_t)entries);
	TRACK(region->free_head, next);
	/* The request is ours from here on. */
	TRACK(region->old_free_head, next);
	queue->free_head = next;
	queue->of_id[id] = (struct bf_inflight_entries){ first, last, (uint16_t)entries };
}

void bf_inflight_packed_untaken(struct bf_inflight_queue *queue, uint16_t id)
{
	const struct bf_inflight_entries entries = queue->of_id[id];
	struct bf_inflight_packed *region = queue->packed;

	TRACK(region->desc[entries.last].next, queue->free_head);
	TRACK(region->free_head, entries.first);
	/* It never was ours from here on; a mark on a free entry says nothing. */
	TRACK(region->old_free_head, entries.first);
	TRACK(region->desc[entries.first].inflight, 0);
	queue->next[entries.last] = queue->free_head;
	queue->free_head = entries.first;
}

void bf_inflight_packed_before_publish(struct bf_inflight_queue *queue, uint16_t used)
{
	struct bf_inflight_packed *region = queue->packed;

	for (unsigned i = 0; i < queue->nr_batch; i++) {
		const struct bf_inflight_entries entries = queue->of_id[queue->batch[i]];

		TRACK(region->desc[entries.last].next, queue->free_head);
		TRACK(region->free_head, entries.first);
		queue->next[entries.last] = queue->free_head;
		queue->free_head = entries.first;
	}
	store_positions(region, used, queue->used);
}

void bf_inflight_packed_after_publish(struct bf_inflight_queue *queue, uint16_t used)
{
	struct bf_inflight_packed *region = queue->packed;

	for (unsigned i = 0; i < queue->nr_batch; i++)
		TRACK(region->desc[queue->of_id[queue->batch[i]].first].inflight, 0);
	/* Positions last: while they differ, what is to be done can be found out again. */
	TRACK(region->old_free_head, queue->free_head);
	store_positions(region, used, used);
	queue->used = used;
}

int bf_inflight_packed_walk(struct bf_walk *walk, const struct bf_inflight_queue *queue,
			    const struct bf_again *again)
{
	unsigned nr = queue->of_id[again->head].nr;
	uint16_t i = again->entry;

	while (nr--) {
		const struct bf_inflight_packed_desc *copy = &queue->copy[i];
		const struct bf_element element = { copy->addr, copy->len, copy->flags };
		int ret;

		if (element.flags & VRING_DESC_F_INDIRECT) {
			if (queue->of_id[again->head].nr > 1)
				return bf_virtq_break(
					walk->vq, -EBADMSG,
					"indirect descriptor inside a chain that was in flight");
			return bf_packed_follow_table(walk, &element);
		}
		ret = bf_walk_add(walk, &element);
		if (ret)
			return ret;
		i = copy->next;
	}
	return 0;
}

static int fail(const char **why, const char *phrase)
{
	if (why)
		*why = phrase;
	return -EINVAL;
}

/* An unused region: every entry free, in order, and the positions those of the ring. */
static void begin(struct bf_virtq *vq, struct bf_inflight_queue *queue)
{
	struct bf_inflight_packed *region = queue->packed;

	TRACK(region->version, 0);
	for (unsigned i = 0; i < queue->entries; i++) {
		TRACK(region->desc[i].inflight, 0);
		TRACK(region->desc[i].next, (uint16_t)(i + 1));
		queue->next[i] = (uint16_t)(i + 1);
	}
	TRACK(region->free_head, 0);
	TRACK(region->old_free_head, 0);
	store_positions(region, vq->next_used, vq->next_used);
	TRACK(region->desc_num, queue->entries);
	TRACK(region->version, BF_INFLIGHT_VERSION);
	queue->free_head = 0;
	queue->used = vq->next_used;
}

/* What recovery makes of the region, before it changes anything. */
struct findings {
	uint16_t free_head, used; /* after the batch in doubt was taken for given, or not */
	unsigned nr_descriptors;  /* in flight */
	/* [entries] */
	enum entry_use { LOST, FREE, BUSY } * use;
};

/* Is the descriptor at @position what a driver makes available in that turn? */
static bool is_available(const struct bf_virtq *vq, uint16_t position)
{
	uint16_t flags = bf_load16(&vq->ring[bf_packed_idx(position)].flags);
	bool wrap = bf_packed_wrap(position);

	return !!(flags & BF_PACKED_AVAIL) == wrap && !!(flags & BF_PACKED_USED) != wrap;
}

static uint16_t make_position(uint16_t idx, uint8_t wrap)
{
	return (uint16_t)((idx & (BF_PACKED_WRAP - 1)) | (wrap ? BF_PACKED_WRAP : 0));
}

/* Was the last batch published? It was if the driver does not see its first descriptor as ours any more. */
static int decide(const struct bf_virtq *vq, const struct bf_inflight_packed *header,
		  struct findings *findings, const char **why)
{
	uint16_t used = make_position(header->used_idx, header->used_wrap_counter);
	uint16_t old = make_position(header->old_used_idx, header->old_used_wrap_counter);

	if (header->used_idx >= vq->size || header->old_used_idx >= vq->size)
		return fail(why, "the in-flight region's used index is not in the ring");
	findings->used = old;
	findings->free_head = header->old_free_head;
	if (used != old && !is_available(vq, old)) {
		findings->used = used;
		findings->free_head = header->free_head;
	}
	return 0;
}

/* Follow the free list. It is as long as the region at the most, or it has a loop. */
static int find_free(const struct bf_inflight_queue *queue, struct findings *findings,
		     const char **why)
{
	uint16_t i = findings->free_head;

	while (i < queue->entries) {
		if (findings->use[i] == FREE)
			return fail(why, "the in-flight region's list of free entries has a loop");
		findings->use[i] = FREE;
		i = queue->copy[i].next;
	}
	if (i > queue->entries)
		return fail(why, "the in-flight region's list of free entries leads out of it");
	return 0;
}

/* A request that begins at entry @first: its entries are its own, and its name nobody else's. */
static int find_request(struct bf_virtq *vq, struct bf_inflight_queue *queue, uint16_t first,
			struct findings *findings, const char **why)
{
	const struct bf_inflight_packed_desc *head = &queue->copy[first];
	uint16_t i = first, last = first, id;

	if (!head->num || head->num > vq->size - findings->nr_descriptors)
		return fail(why, "the in-flight region has more descriptors in flight than the "
				 "ring has");
	for (unsigned n = 0; n < head->num; n++) {
		if (i >= queue->entries || findings->use[i] != LOST)
			return fail(why, "a request in the in-flight region has entries that are "
					 "not its own");
		findings->use[i] = BUSY;
		last = i;
		i = queue->copy[i].next;
	}
	id = queue->copy[last].id;
	if (id >= vq->size || queue->of_id[id].nr)
		return fail(why, "a request in the in-flight region has no name of its own");
	findings->nr_descriptors += head->num;
	queue->of_id[id] = (struct bf_inflight_entries){ first, last, head->num };
	queue->again[queue->nr_again++] =
		(struct bf_again){ .counter = head->counter, .head = id, .entry = first };
	return 0;
}

static int find_requests(struct bf_virtq *vq, struct bf_inflight_queue *queue,
			 struct findings *findings, const char **why)
{
	int ret = 0;

	for (unsigned i = 0; i < queue->entries && !ret; i++)
		if (findings->use[i] == LOST && queue->copy[i].inflight)
			ret = find_request(vq, queue, (uint16_t)i, findings, why);
	return ret;
}

/* Descriptors that look used, and whose use was never published, look available again. */
static void restore_ring(struct bf_virtq *vq, const struct findings *findings)
{
	uint16_t position = findings->used;

	for (unsigned i = 0; i < findings->nr_descriptors; i++) {
		bf_le16 *flags = &vq->ring[bf_packed_idx(position)].flags;
		unsigned value = bf_packed_wrap(position) ? BF_PACKED_AVAIL : BF_PACKED_USED;

		if (!is_available(vq, position))
			TRACK(flags->raw, bf_to_le16((uint16_t)value).raw);
		position = bf_packed_advance(position, 1, vq->size);
	}
}

/* Entries that are neither free nor of a request: another implementation's loss, and no longer. */
static void collect_lost(struct bf_inflight_queue *queue, const struct findings *findings)
{
	struct bf_inflight_packed *region = queue->packed;
	uint16_t free_head = findings->free_head;

	for (unsigned i = 0; i < queue->entries; i++) {
		if (findings->use[i] != LOST)
			continue;
		TRACK(region->desc[i].inflight, 0);
		TRACK(region->desc[i].next, free_head);
		queue->next[i] = free_head;
		free_head = (uint16_t)i;
	}
	queue->free_head = free_head;
	if (free_head == findings->free_head)
		return;
	TRACK(region->free_head, free_head);
	TRACK(region->old_free_head, free_head);
}

/*
 * Every prefix of these stores leads a successor to the same findings: the decision is made by the first
 * ones, and as long as they are not complete, the ring's flags make it again.
 */
static void repair(struct bf_virtq *vq, struct bf_inflight_queue *queue,
		   const struct findings *findings)
{
	struct bf_inflight_packed *region = queue->packed;

	TRACK(region->free_head, findings->free_head);
	TRACK(region->old_free_head, findings->free_head);
	store_positions(region, findings->used, findings->used);
	restore_ring(vq, findings);
	for (unsigned i = 0; i < queue->entries; i++) {
		queue->next[i] = queue->copy[i].next;
		if (findings->use[i] == FREE && queue->copy[i].inflight)
			TRACK(region->desc[i].inflight, 0);
	}
	collect_lost(queue, findings);
	queue->used = findings->used;
	vq->next_used = vq->published_used = findings->used;
	vq->next_avail = bf_packed_advance(findings->used, findings->nr_descriptors, vq->size);
}

static int recover(struct bf_virtq *vq, struct bf_inflight_queue *queue,
		   const struct bf_inflight_packed *header, const char **why)
{
	struct findings findings = { .use = calloc(queue->entries, sizeof(*findings.use)) };
	int ret = -ENOMEM;

	if (!findings.use)
		return ret;
	for (unsigned i = 0; i < queue->entries; i++)
		bf_copy_in(&queue->copy[i], &queue->packed->desc[i], sizeof(queue->copy[i]));
	ret = decide(vq, header, &findings, why);
	if (!ret)
		ret = find_free(queue, &findings, why);
	if (!ret)
		ret = find_requests(vq, queue, &findings, why);
	if (!ret)
		repair(vq, queue, &findings);
	free(findings.use);
	return ret;
}

int bf_inflight_packed_recover(struct bf_virtq *vq, struct bf_inflight_queue *queue,
			       uint16_t entries, const char **why)
{
	struct bf_inflight_packed header;

	bf_copy_in(&header, queue->packed, sizeof(header));
	if (header.version > BF_INFLIGHT_VERSION)
		return fail(why, "the in-flight region is of a version that is not known");
	/* What its lists were made for may be less than there is room for. */
	queue->entries = entries;
	if (header.version && header.desc_num && header.desc_num < entries)
		queue->entries = header.desc_num;
	if (queue->entries < vq->size)
		return fail(why, "the in-flight region was used for a smaller ring");

	queue->next = calloc(queue->entries, sizeof(*queue->next));
	queue->of_id = calloc(vq->size, sizeof(*queue->of_id));
	queue->copy = calloc(queue->entries, sizeof(*queue->copy));
	if (!queue->next || !queue->of_id || !queue->copy)
		return -ENOMEM;
	if (header.version)
		return recover(vq, queue, &header, why);
	begin(vq, queue);
	return 0;
}
