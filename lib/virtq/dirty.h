/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a migration must copy again because the device wrote it.
 *
 * Queue context, except attach and detach (control, while held or stopped). Pages are marked after they
 * were written and before the driver can see the request as used: the front end may take a bit away and
 * copy the page at any moment. So what a request may write is remembered from pop to push, in a pool
 * made at attach: nothing allocates in between.
 */
#ifndef VIRTQ_DIRTY_H
#define VIRTQ_DIRTY_H

#include "virtq.h"

/*
 * 0 or -ENOMEM, and nothing has changed. Takes a reference on extras->log. Attached already: another log takes
 * its place, and what requests in flight may write is still known.
 */
int bf_dirty_attach(struct bf_virtq *vq, const struct bf_virtq_extras *extras);
void bf_dirty_detach(struct bf_virtq *vq);

/*
 * A walk begins (and one that became nothing is forgotten); a writable element of it was seen; it became a
 * request.
 * bf_dirty_element() returns false when the pool is used up: there is no request now, and there will be
 * one when others have been pushed (never with none in flight: the pool holds the longest).
 */
void bf_dirty_begin(struct bf_virtq *vq);
bool bf_dirty_element(struct bf_virtq *vq, uint64_t address, uint32_t len);
void bf_dirty_taken(struct bf_virtq *vq, uint16_t head);

/* The request is pushed, @head written: mark all that it may have written. Also for unpop: no mark. */
void bf_dirty_pushed(struct bf_virtq *vq, uint16_t head);
void bf_dirty_unpopped(struct bf_virtq *vq, uint16_t head);
/*
 * The device wrote [offset, offset + len) of the used ring (split) or its event area; or, of a packed ring,
 * of the descriptor ring, whose guest-physical address is known from attach.
 */
void bf_dirty_used(struct bf_virtq *vq, uint64_t offset, uint64_t len);
void bf_dirty_ring(struct bf_virtq *vq, uint64_t offset, uint64_t len);
/* After what was logged became visible: signal the log eventfd, if there is one. */
void bf_dirty_signal(struct bf_virtq *vq);

#endif
