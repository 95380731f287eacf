/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Changes under running queues: one way for guest memory, IOTLB, dirty log and eventfds.
 *
 *	bf_change_begin()	the queues that run are held: no thread is inside a virtqueue
 *	...			change what they use; bf_change_move() if that is an address space
 *	bf_change_end()		they go on, with the new; what was popped before still uses the old
 *	bf_change_settle()	wait until that has been given back, if something old goes away;
 *				stop the queues that did not
 *	...			only now may the old go, and the front end be answered
 *	bf_change_restart()	start again those that were stopped
 *
 * Control context. Nothing between begin and end may wait or fail half-way: threads spin meanwhile.
 */
#ifndef BACKEND_CHANGE_H
#define BACKEND_CHANGE_H

#include "backend.h"

struct bf_change {
	unsigned nr;
	bool drains;
	struct bf_virtq *vqs[BF_MAX_QUEUES];
	bool lost[BF_MAX_QUEUES];    /* its ring is not there any more */
	bool stopped[BF_MAX_QUEUES]; /* by bf_change_settle() */
};

void bf_change_begin(struct bf_backend *be, struct bf_change *change);
void bf_change_begin_one(struct bf_backend *be, unsigned queue, struct bf_change *change);
/* The address space has changed: find each ring in it. Those that are not there are lost. */
void bf_change_move(struct bf_backend *be, struct bf_change *change);
/* @drain: something goes away that requests popped before may use. */
void bf_change_end(struct bf_change *change, bool drain);
/* Stop the lost ones. If they drain, wait for the others, at most BF_DRAIN_MS, and stop the rest. */
void bf_change_settle(struct bf_backend *be, struct bf_change *change);
/* The first error of a queue that does not start again; one that waits for the IOTLB is none. */
int bf_change_restart(struct bf_backend *be, struct bf_change *change);

#endif
