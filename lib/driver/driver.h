/* SPDX-License-Identifier: BSD-3-Clause */
/* The user-space driver from the inside: its memory, its queues, their doorbells. */
#ifndef DRIVER_DRIVER_H
#define DRIVER_DRIVER_H

#include <belfry/driver.h>
#include <belfry/virtq.h>

#include "../virtq/driver_ring.h"

/*
 * The doorbell of a queue as its thread sees it: a page that control may take away at any moment.
 * See "Withdrawing a doorbell from a thread" in doorbell.c.
 */
struct bf_ringer {
	uint16_t *word; /* in the page; NULL: ring by eventfd. Written by control */
	uint32_t turn;  /* odd: the queue thread may hold @word. Written by the queue thread */
};

/* Control. base/fence.h is registered before. */
void bf_ringer_map(struct bf_ringer *ringer, void *word);
void bf_ringer_unmap(struct bf_ringer *ringer);
/* Queue. One store of @value; false when there is no page and nothing was stored. */
bool bf_ringer_ring(struct bf_ringer *ringer, uint16_t value);

struct bf_driver_queue {
	struct bf_driver_ring ring;
	struct bf_ringer ringer;
	struct bf_driver_counters counters;
	uint16_t idx;
	int kick_fd, call_fd;
	uint64_t ring_gpa; /* of the ring's block */
	uint32_t base;     /* where the device stands when it is stopped */
} __attribute__((aligned(64)));

struct bf_driver {
	struct bf_frontend *fe;
	struct bf_driver_queue *queues;
	unsigned nr_queues;
	uint16_t queue_size;
	uint64_t features;
	bool started;
	bool stagger_doorbells;

	/* Shared memory: rings first, then what bf_driver_alloc() hands out. */
	int memfd;
	uint8_t *memory;
	uint64_t memory_size;
	uint64_t allocated;
};

/* Where the shared memory lies for the device. Not 0, so that a null address is never valid. */
#define BF_DRIVER_GPA 0x100000ull

/* belfry/driver.h, "Where a doorbell is rung". */
#define BF_DRIVER_DOORBELL_STRIDE 64u

#endif
