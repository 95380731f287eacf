/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The driver side of a split virtqueue (virtio 1.2, 2.7): what a guest's driver does.
 *
 * Belongs to one queue thread. The device is not trusted: which descriptors are free, how a chain is
 * linked and what is outstanding is kept privately; from shared memory only the used ring is read, each
 * field once. What contradicts the private state marks the ring broken.
 */
#ifndef VIRTQ_DRIVER_RING_H
#define VIRTQ_DRIVER_RING_H

#include <stdbool.h>
#include <stdint.h>

#include "ring.h"

/* The most pieces of a request that go into an indirect table. */
#define BF_DRIVER_INDIRECT 8

/* One piece of a request, already translated. */
struct bf_piece {
	uint64_t gpa;
	uint32_t len;
};

/* Private knowledge of one descriptor; of a chain's head: the request. */
struct bf_driver_slot {
	void *cookie;  /* of an outstanding head; else NULL */
	uint16_t next; /* in the chain, or in the free list */
	uint16_t nr;   /* of a head: descriptors of its chain */
};

struct bf_driver_ring {
	/* Hot. */
	struct bf_desc *desc;
	struct bf_avail *avail;
	struct bf_used *used;
	struct bf_driver_slot *slots;
	uint16_t size;
	uint16_t free_head, nr_free;
	uint16_t avail_idx;     /* of what was added */
	uint16_t published_idx; /* of what the device may see */
	uint16_t last_used;
	bool event_idx;
	int broken; /* 0 or negative errno */

	struct bf_desc *indirect; /* [size][BF_DRIVER_INDIRECT], or NULL */
	uint64_t indirect_gpa;
};

/* Offsets of the parts in one block of shared memory, and its size in bytes. */
struct bf_driver_layout {
	uint64_t desc, avail, used, indirect, size;
};
void bf_driver_ring_layout(uint16_t size, struct bf_driver_layout *layout);

/* @base: zeroed shared memory of layout.size bytes, that the device sees at @gpa. 0 or -ENOMEM. */
int bf_driver_ring_init(struct bf_driver_ring *ring, uint16_t size, void *base, uint64_t gpa,
			bool event_idx, bool indirect);
void bf_driver_ring_done(struct bf_driver_ring *ring);

/* 0, or -ENOSPC; @cookie must not be NULL, @nr_out + @nr_in at least 1. */
int bf_driver_ring_add(struct bf_driver_ring *ring, const struct bf_piece *pieces, unsigned nr_out,
		       unsigned nr_in, void *cookie);
/* Make everything added visible; does the device want to be told? */
bool bf_driver_ring_publish(struct bf_driver_ring *ring);
/* A finished request's cookie, or NULL. */
void *bf_driver_ring_get(struct bf_driver_ring *ring, uint32_t *len);
/* Ask for a call at the next completion (or not). True: there is something finished already. */
bool bf_driver_ring_want_calls(struct bf_driver_ring *ring, bool on);

#endif
