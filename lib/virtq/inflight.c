/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * In-flight tracking: what split and packed rings have in common.
 *
 * Queue context, but attach and detach. A request is recorded when it is taken. When it is pushed, only its
 * name is kept, and the region hears of it just before the batch is published: so a request may be taken
 * between a push and its notify, which the specification's list of steps for packed rings has no room for.
 * Must not read the region while the ring runs.
 */
#include "inflight.h"

#include <errno.h>
#include <stdlib.h>

#include "inflight_queue.h"

static bool is_packed(const struct bf_virtq *vq)
{
	return vq->format == &bf_packed_format;
}

static void free_queue(struct bf_inflight_queue *queue)
{
	free(queue->batch);
	free(queue->again);
	free(queue->is_again);
	free(queue->next);
	free(queue->of_id);
	free(queue->copy);
	free(queue);
}

static int compare_age(const void *a, const void *b)
{
	const struct bf_again *x = a, *y = b;

	if (x->counter != y->counter)
		return x->counter < y->counter ? -1 : 1;
	/* Two of an age is not ours: any order will do, but always the same. */
	return (x->head > y->head) - (x->head < y->head);
}

int bf_inflight_attach(struct bf_virtq *vq, void *part, uint16_t entries, const char **why)
{
	struct bf_inflight_queue *queue;
	int ret = -ENOMEM;

	bf_inflight_detach(vq);
	if (entries < vq->size) {
		if (why)
			*why = "the in-flight region has fewer entries than the ring";
		return -EINVAL;
	}
	queue = calloc(1, sizeof(*queue));
	if (!queue)
		goto no_memory;
	queue->batch = calloc(vq->size, sizeof(*queue->batch));
	queue->again = calloc(vq->size, sizeof(*queue->again));
	queue->is_again = calloc(vq->size, sizeof(*queue->is_again));
	if (!queue->batch || !queue->again || !queue->is_again)
		goto free_queue;
	queue->split = part;
	ret = is_packed(vq) ? bf_inflight_packed_recover(vq, queue, entries, why)
			    : bf_inflight_split_recover(vq, queue, entries, why);
	if (ret == -EINVAL) {
		free_queue(queue);
		return ret;
	}
	if (ret)
		goto free_queue;
	qsort(queue->again, queue->nr_again, sizeof(*queue->again), compare_age);
	if (queue->nr_again)
		queue->counter = queue->again[queue->nr_again - 1].counter + 1;
	vq->inflight = queue;
	return 0;

free_queue:
	free_queue(queue);
no_memory:
	if (why)
		*why = "out of memory";
	return ret;
}

void bf_inflight_detach(struct bf_virtq *vq)
{
	if (!vq->inflight)
		return;
	free_queue(vq->inflight);
	vq->inflight = NULL;
}

unsigned bf_inflight_nr_again(const struct bf_virtq *vq)
{
	return vq->inflight->nr_again - vq->inflight->next_again;
}

int bf_inflight_pop_again(struct bf_virtq *vq, struct bf_chain *chain)
{
	struct bf_inflight_queue *queue = vq->inflight;
	const struct bf_again *again = &queue->again[queue->next_again];
	unsigned entries = 1;
	struct bf_walk walk;
	int ret;

	if (queue->next_again == queue->nr_again)
		return 0;
	bf_walk_begin(&walk, vq, chain);
	if (is_packed(vq)) {
		entries = queue->of_id[again->head].nr;
		ret = bf_inflight_packed_walk(&walk, queue, again);
	} else {
		ret = bf_split_follow(&walk, again->head);
	}
	if (ret)
		return ret == -EAGAIN ? 0 : ret;
	ret = bf_virtq_take(vq, again->head, entries);
	if (ret < 0)
		return ret;
	bf_walk_end(&walk, again->head, chain);
	queue->is_again[again->head] = true;
	queue->next_again++;
	return 1;
}

void bf_inflight_unpop_again(struct bf_virtq *vq, uint16_t head)
{
	struct bf_inflight_queue *queue = vq->inflight;

	/* The last that was given goes back first, so it is the one before next_again. */
	(void)head;
	queue->is_again[queue->again[--queue->next_again].head] = false;
}

bool bf_inflight_is_again(const struct bf_virtq *vq, uint16_t head)
{
	return vq->inflight->is_again[head];
}

void bf_inflight_taken(struct bf_virtq *vq, uint16_t head, uint16_t position, unsigned entries)
{
	TRACK_POINT();
	if (is_packed(vq))
		bf_inflight_packed_taken(vq, vq->inflight, head, position, entries);
	else
		bf_inflight_split_taken(vq->inflight, head);
	TRACK_POINT();
}

void bf_inflight_untaken(struct bf_virtq *vq, uint16_t head)
{
	TRACK_POINT();
	if (is_packed(vq))
		bf_inflight_packed_untaken(vq->inflight, head);
	else
		bf_inflight_split_untaken(vq->inflight, head);
	TRACK_POINT();
}

void bf_inflight_pushed(struct bf_virtq *vq, uint16_t head)
{
	struct bf_inflight_queue *queue = vq->inflight;

	TRACK_POINT();
	queue->batch[queue->nr_batch++] = head;
	queue->is_again[head] = false;
}

void bf_inflight_before_publish(struct bf_virtq *vq)
{
	TRACK_POINT();
	if (is_packed(vq))
		bf_inflight_packed_before_publish(vq->inflight, vq->next_used);
	else
		bf_inflight_split_before_publish(vq->inflight);
	TRACK_POINT();
}

void bf_inflight_after_publish(struct bf_virtq *vq)
{
	TRACK_POINT();
	if (is_packed(vq))
		bf_inflight_packed_after_publish(vq->inflight, vq->next_used);
	else
		bf_inflight_split_after_publish(vq->inflight, vq->next_used);
	vq->inflight->nr_batch = 0;
	TRACK_POINT();
}
