/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a virtqueue writes, remembered from pop to push and marked in the dirty log then.
 *
 * Queue context, hot while a migration runs. What is marked is a superset: every writable piece of a
 * request, whether the device came that far or not. Guest-physical addresses are kept, not those of the
 * descriptor: an IOTLB entry may be gone by the time of the push. Must not allocate but at attach.
 *
 * "The pool." Ranges are nodes of one array, linked into a list for each request, and one of free nodes.
 * Node 0 is the end of every list. Nodes that were never used are not touched: the array is as long as the
 * longest request, which hardly ever comes.
 */
#include "dirty.h"

#include <errno.h>
#include <stdlib.h>

#include "../base/fd.h"
#include "../mem/map.h"

/* A request has at most 65,535 pieces (struct bf_chain), each in one span: a node each at the most. */
#define POOL 65536u

struct node {
	uint64_t gpa;
	uint64_t len;
	uint32_t next;
};

struct bf_dirty {
	struct bf_dirty_log *log; /* counted */
	struct node *nodes;       /* [POOL] */
	uint32_t free;            /* list of nodes that were used before */
	uint32_t fresh;           /* nodes from here on never were */
	uint32_t current;         /* list of the walk that is going on, latest first */
	unsigned hint;            /* of spans */
	bool log_used;
	bool logged; /* since the last signal */
	uint64_t used_gpa;
	int log_fd; /* borrowed */
	/* Where the ring was last found: of this map, [ring_start, + ring_size) is at ring_gpa. */
	const struct bf_memory *ring_memory;
	const uint8_t *ring_start;
	uint64_t ring_size, ring_gpa;
	uint32_t first[]; /* by head: its list */
};

void bf_dirty_detach(struct bf_virtq *vq)
{
	struct bf_dirty *dirty = vq->dirty;

	if (!dirty)
		return;
	vq->dirty = NULL;
	bf_dirty_log_unref(dirty->log);
	free(dirty->nodes);
	free(dirty);
}

static void mark(struct bf_dirty *dirty, uint64_t gpa, uint64_t len)
{
	bf_dirty_log_mark(dirty->log, gpa, len);
	dirty->logged = true;
}

static void release(struct bf_dirty *dirty, uint32_t i)
{
	while (i) {
		struct node *node = &dirty->nodes[i];
		uint32_t next = node->next;

		node->next = dirty->free;
		dirty->free = i;
		i = next;
	}
}

void bf_dirty_begin(struct bf_virtq *vq)
{
	release(vq->dirty, vq->dirty->current);
	vq->dirty->current = 0;
}

/* Remember [gpa, gpa + len) for the walk that is going on. False: the pool is used up. */
static bool remember(struct bf_dirty *dirty, uint64_t gpa, uint64_t len)
{
	struct node *node = &dirty->nodes[dirty->current];
	uint32_t i = dirty->free;

	if (dirty->current && node->gpa + node->len == gpa) {
		node->len += len;
		return true;
	}
	if (i)
		dirty->free = dirty->nodes[i].next;
	else if (dirty->fresh < POOL)
		i = dirty->fresh++;
	else
		return false;
	dirty->nodes[i] = (struct node){ gpa, len, dirty->current };
	dirty->current = i;
	return true;
}

bool bf_dirty_element(struct bf_virtq *vq, uint64_t address, uint32_t len)
{
	const struct bf_space *space = &vq->space;
	struct bf_dirty *dirty = vq->dirty;
	uint64_t left = len;

	/* The walk has just translated all of it; each turn is another span. */
	while (left) {
		const struct bf_span *span =
			dirty->hint < space->nr ? &space->spans[dirty->hint] : NULL;
		uint64_t piece;

		if (!span || address - span->start >= span->size) {
			span = bf_space_find(space, address);
			if (!span)
				return true;
			dirty->hint = (unsigned)(span - space->spans);
		}
		piece = span->size - (address - span->start);
		if (piece > left)
			piece = left;
		if (!remember(dirty, span->gpa + (address - span->start), piece))
			return false;
		address += piece;
		left -= piece;
	}
	return true;
}

void bf_dirty_taken(struct bf_virtq *vq, uint16_t head)
{
	vq->dirty->first[head] = vq->dirty->current;
	vq->dirty->current = 0;
}

void bf_dirty_pushed(struct bf_virtq *vq, uint16_t head)
{
	struct bf_dirty *dirty = vq->dirty;

	for (uint32_t i = dirty->first[head]; i; i = dirty->nodes[i].next)
		mark(dirty, dirty->nodes[i].gpa, dirty->nodes[i].len);
	bf_dirty_unpopped(vq, head);
}

void bf_dirty_unpopped(struct bf_virtq *vq, uint16_t head)
{
	release(vq->dirty, vq->dirty->first[head]);
	vq->dirty->first[head] = 0;
}

/* The region of guest memory that @hva, of the ring, lies in; remembered. False: in none. */
static bool find_ring(struct bf_dirty *dirty, const struct bf_memory *memory, const uint8_t *hva)
{
	if (dirty->ring_memory == memory &&
	    (uintptr_t)hva - (uintptr_t)dirty->ring_start < dirty->ring_size)
		return true;
	for (unsigned i = 0; i < memory->nr; i++) {
		const struct bf_span *span = &memory->by_gpa[i];

		if ((uintptr_t)hva - (uintptr_t)span->hva >= span->size)
			continue;
		dirty->ring_memory = memory;
		dirty->ring_start = span->hva;
		dirty->ring_size = span->size;
		dirty->ring_gpa = span->gpa;
		return true;
	}
	return false;
}

/* The device wrote [hva, hva + len) of the ring. It may lie in regions that only our mapping joins. */
static void mark_ours(struct bf_virtq *vq, const void *start, uint64_t len)
{
	struct bf_dirty *dirty = vq->dirty;
	const uint8_t *hva = start;

	while (len && find_ring(dirty, vq->memory, hva)) {
		uint64_t offset = (uintptr_t)hva - (uintptr_t)dirty->ring_start;
		uint64_t piece = dirty->ring_size - offset;

		if (piece > len)
			piece = len;
		mark(dirty, dirty->ring_gpa + offset, piece);
		hva += piece;
		len -= piece;
	}
}

void bf_dirty_used(struct bf_virtq *vq, uint64_t offset, uint64_t len)
{
	struct bf_dirty *dirty = vq->dirty;

	if (dirty->log_used && offset <= UINT64_MAX - dirty->used_gpa)
		mark(dirty, dirty->used_gpa + offset, len);
	/* Of a packed ring the front end need not say where the area is to be logged. */
	if (vq->format == &bf_packed_format)
		mark_ours(vq, (const uint8_t *)vq->device_event + offset, len);
}

void bf_dirty_ring(struct bf_virtq *vq, uint64_t offset, uint64_t len)
{
	mark_ours(vq, (const uint8_t *)vq->ring + offset, len);
}

void bf_dirty_signal(struct bf_virtq *vq)
{
	struct bf_dirty *dirty = vq->dirty;

	if (!dirty->logged)
		return;
	dirty->logged = false;
	bf_eventfd_signal(dirty->log_fd);
}

static int make(struct bf_virtq *vq)
{
	struct bf_dirty *dirty = calloc(1, sizeof(*dirty) + vq->size * sizeof(dirty->first[0]));

	if (!dirty)
		return -ENOMEM;
	dirty->nodes = calloc(POOL, sizeof(*dirty->nodes));
	if (!dirty->nodes) {
		free(dirty);
		return -ENOMEM;
	}
	dirty->fresh = 1;
	vq->dirty = dirty;
	return 0;
}

/* What the start wrote, or a recovery of requests in flight, was before there was a log. */
static void mark_all_used(struct bf_virtq *vq)
{
	if (vq->format == &bf_packed_format) {
		bf_dirty_ring(vq, 0, bf_packed_ring_size(vq->size));
		bf_dirty_used(vq, 0, sizeof(struct bf_packed_event));
	} else {
		bf_dirty_used(vq, 0, bf_used_size(vq->size));
	}
}

int bf_dirty_attach(struct bf_virtq *vq, const struct bf_virtq_extras *extras)
{
	struct bf_dirty_log *old = vq->dirty ? vq->dirty->log : NULL;
	bool first = !vq->dirty;
	struct bf_dirty *dirty;
	int ret = first ? make(vq) : 0;

	if (ret)
		return ret;
	/* A log in place of another: what is remembered of requests in flight stays. */
	dirty = vq->dirty;
	dirty->log = bf_dirty_log_ref(extras->log);
	bf_dirty_log_unref(old);
	dirty->log_used = extras->log_used;
	dirty->used_gpa = extras->log_used_gpa;
	dirty->log_fd = extras->log_fd;
	dirty->ring_memory = NULL;
	if (first)
		mark_all_used(vq);
	return 0;
}
