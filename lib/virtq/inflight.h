/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Tracking what is in flight in memory that outlives the process, and what a successor does with it.
 *
 * Queue context, except attach and detach (control). Called by lib/virtq at the four points of a
 * request's life that the specification names; each function stores in the order that makes any prefix of
 * its stores recoverable, which is the whole point of it ("Inflight I/O tracking").
 */
#ifndef VIRTQ_INFLIGHT_H
#define VIRTQ_INFLIGHT_H

#include "../mem/inflight.h"
#include "virtq.h"

/*
 * Control, at a start, after the format's attach: take over the region's part of this queue, recover what
 * a predecessor left (positions of @vq may move), and make the list of requests to give again. 0; -EINVAL
 * the part has too few entries or contradicts itself in a way that cannot be repaired; -ENOMEM.
 */
int bf_inflight_attach(struct bf_virtq *vq, void *part, uint16_t entries, const char **why);
void bf_inflight_detach(struct bf_virtq *vq);

/* The heads to be popped again before the ring is looked at, oldest first: how many are left. */
unsigned bf_inflight_nr_again(const struct bf_virtq *vq);
/* Give the next of them, as the format's pop does: 1, 0 none, or the error that broke the ring. */
int bf_inflight_pop_again(struct bf_virtq *vq, struct bf_chain *chain);
/* It was put back (unpop) after having been given again. */
void bf_inflight_unpop_again(struct bf_virtq *vq, uint16_t head);
/* Is @head one of those that were given again (and not pushed since)? */
bool bf_inflight_is_again(const struct bf_virtq *vq, uint16_t head);

/* A request was taken. Split: its head. Packed: its id, first descriptor's position and how many. */
void bf_inflight_taken(struct bf_virtq *vq, uint16_t head, uint16_t position, unsigned entries);
/* It was put back. */
void bf_inflight_untaken(struct bf_virtq *vq, uint16_t head);
/* A used entry for it was filled, and is not visible yet. */
void bf_inflight_pushed(struct bf_virtq *vq, uint16_t head);
/* Just before, and just after, the store that makes everything pushed visible. */
void bf_inflight_before_publish(struct bf_virtq *vq);
void bf_inflight_after_publish(struct bf_virtq *vq);

#endif
