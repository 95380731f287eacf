/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The driver side of a virtqueue (virtio 1.2, 2.7 and 2.8): what a guest's driver does.
 *
 * Belongs to one queue thread. The device is not trusted: which descriptors are free, how a chain is
 * linked and what is outstanding is kept privately; from shared memory only what is used is read, each
 * field once. What contradicts the private state marks the ring broken. Split and packed rings are
 * driver_split.c and driver_packed.c; which one is chosen at the beginning.
 *
 * "In order". With VIRTIO_F_IN_ORDER the device gives requests back in the order in which it got them,
 * and may name only the last of several: names are given out in a circle, so the ones before it are
 * known.
 */
#ifndef VIRTQ_DRIVER_RING_H
#define VIRTQ_DRIVER_RING_H

#include <stdbool.h>
#include <stdint.h>

#include "packed_ring.h"
#include "ring.h"

/* The most pieces of a request that go into an indirect table. */
#define BF_DRIVER_INDIRECT 8

/* One piece of a request, already translated. */
struct bf_piece {
	uint64_t gpa;
	uint32_t len;
};

/* Private knowledge of a descriptor of a split ring, and of a request by its head or buffer id. */
struct bf_driver_slot {
	void *cookie;    /* of an outstanding request; else NULL */
	uint16_t next;   /* in the chain, or in the free list */
	uint16_t nr;     /* of a request: its descriptors */
	uint32_t in_len; /* of a request: what the device may write */
};

struct bf_driver_ring;

struct bf_driver_format {
	void (*add)(struct bf_driver_ring *ring, uint16_t name, const struct bf_piece *pieces,
		    unsigned nr_out, unsigned nr);
	/* One descriptor, that refers to a table. */
	void (*add_table)(struct bf_driver_ring *ring, uint16_t name, const struct bf_piece *table);
	void (*publish)(struct bf_driver_ring *ring);
	/* Of what was published from @before on. */
	bool (*wants_kick)(const struct bf_driver_ring *ring, uint16_t before);
	/* Something used? 1, its name and length; 0; or -EPIPE, that cannot be. */
	int (*look)(const struct bf_driver_ring *ring, uint32_t *name, uint32_t *len);
	/* A request of @nr descriptors was taken back. */
	void (*advance)(struct bf_driver_ring *ring, unsigned nr);
	void (*ask_for_calls)(struct bf_driver_ring *ring, bool on);
};

extern const struct bf_driver_format bf_driver_split, bf_driver_packed;

/* Positions are as in virtq.h: free-running indices, or an index with a wrap counter. */
struct bf_driver_ring {
	/* Hot. */
	const struct bf_driver_format *format;
	union {
		struct bf_desc *desc;
		struct bf_packed_desc *ring;
	};
	union {
		struct bf_avail *avail;
		struct bf_packed_event *driver_event;
	};
	union {
		struct bf_used *used;
		struct bf_packed_event *device_event;
	};
	struct bf_driver_slot *slots;
	uint16_t size;
	uint16_t free_head, nr_free; /* names, and descriptors */
	uint16_t avail_idx;          /* position of what is added next */
	uint16_t published_idx;      /* of what the device may see */
	uint16_t last_used;
	uint16_t first_flags; /* packed: of the descriptor at published_idx, held back */
	bool event_idx;
	bool in_order;
	int broken; /* 0 or negative errno */

	/* In order. */
	bool in_batch;   /* the device has named batch_last, and all until then are finished */
	uint16_t oldest; /* name of the oldest outstanding request */
	uint16_t batch_last;
	uint32_t batch_len;

	struct bf_desc *indirect; /* [size][BF_DRIVER_INDIRECT], or NULL; same size when packed */
	uint64_t indirect_gpa;
};

/* Offsets of the parts in one block of shared memory, and its size in bytes. */
struct bf_driver_layout {
	uint64_t desc, avail, used, indirect, size;
};
void bf_driver_ring_layout(uint16_t size, bool packed, struct bf_driver_layout *layout);

/*
 * @base: zeroed shared memory of layout.size bytes, that the device sees at @gpa. @features: of them
 * RING_PACKED, EVENT_IDX, INDIRECT_DESC and IN_ORDER are looked at. @size: a power of two, unless packed.
 * 0 or -ENOMEM.
 */
int bf_driver_ring_init(struct bf_driver_ring *ring, uint16_t size, void *base, uint64_t gpa,
			uint64_t features);
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
