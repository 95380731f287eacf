/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The device side of a virtqueue, from the inside.
 *
 * Control makes it and starts and stops it (this header); between start and stop it belongs to the
 * queue context, which uses belfry/virtq.h. The ring itself is guest memory: nothing read from it
 * is kept but as a checked copy.
 */
#ifndef VIRTQ_VIRTQ_H
#define VIRTQ_VIRTQ_H

#include <stdbool.h>
#include <stdint.h>

#include <belfry/memory.h>
#include <belfry/virtq.h>

#include "ring.h"

struct bf_virtq {
	/* Hot: one cache line, all that a request needs besides the ring. */
	const struct bf_desc *desc;
	const struct bf_avail *avail;
	struct bf_used *used;
	struct bf_memory *memory; /* counted */
	uint64_t *in_flight;      /* bitmap of heads: popped, not yet pushed */
	int broken;               /* 0 or the negative errno */
	uint16_t size;
	uint16_t next_avail;     /* next entry of the avail ring to take */
	uint16_t seen_avail;     /* the driver's index, checked copy: entries before it are there */
	uint16_t next_used;      /* next entry of the used ring to fill */
	uint16_t published_used; /* the index as the driver sees it */
	uint16_t nr_in_flight;
	uint16_t told_event; /* with event_idx: what avail_event says */
	bool event_idx;
	bool indirect;
	bool kicks_wanted; /* what we last told the driver */
	bool call_due;     /* signal with the next notify, whatever the driver says */

	struct bf_virtq_counters counters;
	const bf_le16 *used_event; /* in the driver area: when it wants to be called */
	bf_le16 *avail_event;      /* in the device area: when we want to be kicked */

	/* Cold. */
	int kick_fd, call_fd, err_fd; /* borrowed from the vring; -1: none */
	unsigned queue;
	bool running;
	char reason[160];
} __attribute__((aligned(64)));

/*
 * What a start needs. Addresses are user addresses of the front end. Descriptors are borrowed until
 * bf_virtq_stop().
 */
struct bf_virtq_setup {
	struct bf_memory *memory; /* not NULL; a reference is taken */
	uint16_t size;            /* power of two, not zero */
	uint16_t base; /* position in the avail ring; the used index is read from memory */
	uint64_t desc_uva, avail_uva, used_uva;
	uint64_t features; /* accepted by the driver */
	int kick_fd, call_fd, err_fd;
};

/* Control. @vq is zeroed memory that is aligned as its type. */
void bf_virtq_init(struct bf_virtq *vq, unsigned queue);
/*
 * Translate the ring and make it ready, notifications wanted. 0; -EINVAL bad size or alignment;
 * -EFAULT a part of the ring that is not wholly in one region; -ENOMEM. @why (if not NULL) gets a
 * phrase on failure. Counters go on from where they were; an earlier break is forgotten.
 */
int bf_virtq_start(struct bf_virtq *vq, const struct bf_virtq_setup *setup, const char **why);
/* Let go of the ring and the memory. next_avail stays readable: it is the base of the next start.
 */
void bf_virtq_stop(struct bf_virtq *vq);

/* Queue. Mark broken, once: keep a sentence, signal the error eventfd. Returns @error. */
int bf_virtq_break(struct bf_virtq *vq, int error, const char *format, ...)
	__attribute__((format(printf, 3, 4), cold));

/* Queue. Follow the chain from @head (below size) into @chain. 1, or what bf_virtq_pop() says. */
int bf_virtq_walk(struct bf_virtq *vq, uint16_t head, struct bf_chain *chain);

/*
 * Queue. Look for entries beyond next_avail. 1 there are some (seen_avail moved), 0 none, -EBADMSG.
 * When the driver is to kick us for the next entry, none means that it will.
 */
int bf_virtq_look(struct bf_virtq *vq);

/* One writer; a reader on another thread sees an old value or a new one. */
static inline void bf_count(uint64_t *counter, uint64_t n)
{
	__atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

#endif
