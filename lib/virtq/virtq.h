/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The device side of a virtqueue, from the inside.
 *
 * Control makes it and starts and stops it; between start and stop it belongs to the queue context,
 * which uses belfry/virtq.h. The ring itself is guest memory: nothing read from it is kept but as a
 * checked copy.
 *
 * What the two formats have in common is in virtq.c (life), request.c (what is in flight), walk.c
 * (chains) and notify.c (who wakes whom); each calls the format, chosen at start, where they differ.
 */
#ifndef VIRTQ_VIRTQ_H
#define VIRTQ_VIRTQ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <belfry/memory.h>
#include <belfry/virtq.h>

#include "../mem/iotlb.h"
#include "../mem/log.h"
#include "../mem/space.h"
#include "packed_ring.h"
#include "ring.h"

struct bf_inflight_queue; /* inflight.h */
struct bf_dirty;          /* dirty.h */

/* What a virtqueue wants of control (bf_virtq_post()): bits of bf_virtq.posted. */
enum bf_virtq_post {
	BF_POST_MISS = 1, /* bf_virtq.missing_iova is not in the IOTLB */
	BF_POST_CALL = 2, /* in-band: call the driver */
	BF_POST_BROKEN =
		4, /* the ring was found broken: error eventfd or in-band message, NEEDS_RESET */
	BF_POST_DRAINED = 8, /* bf_virtq_drained() is true now */
};

/* What a connection gives a vring beyond the public setup. All zero (post_fd -1) for none. */
struct bf_virtq_extras {
	const struct bf_iotlb_table
		*iotlb;           /* addresses are I/O virtual ones; NULL: guest-physical */
	bool ring_gpa;            /* ring addresses are guest-physical, not user addresses */
	struct bf_dirty_log *log; /* NULL: not logging; counted by @vq while it is used */
	bool log_used;            /* the used ring is logged, at: */
	uint64_t log_used_gpa;
	int log_fd;             /* signalled when something was logged; -1; borrowed */
	bool in_band;           /* no call eventfd: post BF_POST_CALL instead */
	int post_fd;            /* eventfd of control's; -1: nobody listens; borrowed */
	void *inflight;         /* this queue's part of the region, or NULL */
	uint16_t inflight_size; /* entries that it has room for */
};

/* What split and packed rings do differently. Queue context, hot; called once for a batch. */
struct bf_virtq_format {
	/*
	 * As bf_virtq_pop_batch(), of a ring that is not broken. Names in chains[].iov and nr_iov the
	 * pieces of each.
	 */
	int (*pop)(struct bf_virtq *vq, struct bf_chain *chains, unsigned nr, struct iovec *iov,
		   unsigned nr_iov);
	/* The position goes back over the newest request, of @entries. */
	void (*unpop)(struct bf_virtq *vq, unsigned entries);
	/* Fill used entries, and take the requests out of in_flight. Not yet visible. */
	void (*push)(struct bf_virtq *vq, const struct bf_done *done, unsigned nr);
	/* Make visible what lies between published_used and next_used, which are not equal. */
	void (*publish)(struct bf_virtq *vq);
	/* Does the driver want to be called for what lies between @before and next_used? */
	bool (*wants_call)(const struct bf_virtq *vq, uint16_t before);
	bool (*has_work)(const struct bf_virtq *vq);
	/* Store what we want of the driver. The barrier behind it is the caller's. */
	void (*ask_for_kicks)(struct bf_virtq *vq, bool on);
};

extern const struct bf_virtq_format bf_split_format, bf_packed_format;

/* A position is an index that runs freely (split), or what packed_ring.h says of positions. */
struct bf_virtq {
	/* Hot: one cache line. */
	const struct bf_virtq_format *format;
	union {
		const struct bf_desc *desc;
		struct bf_packed_desc *ring;
	};
	union {
		const struct bf_avail *avail;
		const struct bf_packed_event *driver_event; /* when it wants to be called */
	};
	union {
		struct bf_used *used;
		struct bf_packed_event *device_event; /* when we want to be kicked */
	};
	struct bf_space space; /* what descriptors' addresses mean */
	uint32_t *in_flight;   /* by head or buffer id: see request.h; 0: not in flight */
	uint16_t size;
	uint16_t next_avail; /* position of the next request to take */
	union {
		uint16_t seen_avail;  /* split: the driver's index, checked copy */
		uint16_t first_flags; /* packed: of the first used descriptor, held back */
	};
	uint16_t next_used;      /* position of the next used entry to fill */
	uint16_t published_used; /* the same as the driver sees it */
	uint16_t told_event;     /* with event_idx: the position that we want a kick for */
	bool event_idx;
	bool indirect;
	bool kicks_wanted; /* what we last told the driver */
	bool call_due;     /* signal with the next notify, whatever the driver says */

	/* Hot: the next line. */
	bool inside; /* the queue context is in a call: written by it, read by control (hold.h) */
	bool held;   /* control wants it out: written by control */
	bool in_order;
	bool iotlb;   /* space is an IOTLB's: what it does not have may come yet */
	bool waiting; /* for the IOTLB: nothing is popped, and there is no work */
	/* The walk's array of pieces was used in part by others of the batch: a chain that does not fit
	 * into what is left waits for the next one. */
	bool iov_rest;
	int broken; /* 0 or the negative errno */
	unsigned nr_in_flight;
	unsigned nr_old;                    /* of them, BF_TAKEN_OLD; atomic */
	unsigned hint;                      /* for bf_space_iov() */
	struct bf_memory *memory;           /* counted */
	struct bf_inflight_queue *inflight; /* NULL: not tracked */
	struct bf_dirty *dirty;             /* NULL: not logged */
	struct bf_virtq_counters counters;

	/* With in_order: heads in flight, oldest at order_out; a ring of size entries, private. */
	uint16_t *order;
	uint16_t order_in, order_out;

	/* Split only. */
	const bf_le16 *used_event; /* in the driver area: when it wants to be called */
	bf_le16 *avail_event;      /* in the device area: when we want to be kicked */

	/* Cold. */
	int kick_fd, call_fd, err_fd; /* borrowed from the vring; -1: none */
	int post_fd;
	bool in_band;
	unsigned posted;       /* enum bf_virtq_post; atomic */
	uint64_t missing_iova; /* with BF_POST_MISS: of the first byte, and how it was to be used */
	unsigned missing_perm;
	unsigned queue;
	bool running;
	char reason[160];
} __attribute__((aligned(64)));

/* Queue. Tell control. A store, and a write to an eventfd when control has not been told already. */
void bf_virtq_post(struct bf_virtq *vq, unsigned what);
/* Control. Take what was posted. */
unsigned bf_virtq_take_posted(struct bf_virtq *vq);
/*
 * Control, while held: the miss has been answered, or never will be (@error negative: the ring breaks).
 * The caller signals the kick eventfd afterwards.
 */
void bf_virtq_miss_answered(struct bf_virtq *vq, int error);

/*
 * As bf_virtq_start(), on a connection. -EAGAIN: a part of the ring is not in the IOTLB yet; *@missing is
 * the first address that is not (ask for it, and try again when something was told).
 */
int bf_virtq_start_with(struct bf_virtq *vq, const struct bf_virtq_setup *setup,
			const struct bf_virtq_extras *extras, uint64_t *missing, const char **why);

/* Control. @vq is zeroed memory that is aligned as its type; bf_virtq_new() for one inside another. */
void bf_virtq_init(struct bf_virtq *vq, unsigned queue);

/* Where the three parts of a ring are, in the order of bf_virtq_setup. */
struct bf_ring_parts {
	void *hva[3];
};

/*
 * Control, attach.c. Find the parts of a ring; -EINVAL, -EFAULT as bf_virtq_start(), -EAGAIN as
 * bf_virtq_start_with(). Then: have @vq use them; and the positions that a start begins with.
 */
int bf_attach_find(const struct bf_virtq_setup *setup, const struct bf_virtq_extras *extras,
		   struct bf_ring_parts *parts, uint64_t *missing, const char **why);
void bf_attach_parts(struct bf_virtq *vq, const struct bf_ring_parts *parts);
void bf_attach_positions(struct bf_virtq *vq, uint32_t base);

/* Queue. Mark broken, once: keep a sentence, signal the error eventfd. Returns @error. */
int bf_virtq_break(struct bf_virtq *vq, int error, const char *format, ...)
	__attribute__((format(printf, 3, 4), cold));

/* Queue, inside. As bf_virtq_notify(). */
bool bf_virtq_flush(struct bf_virtq *vq);

/*
 * Queue. A request becomes ours: @head, from the driver, is bounded and may not be in flight
 * already; it occupies @entries of the ring. 1, or -EBADMSG and the ring is broken.
 */
int bf_virtq_take(struct bf_virtq *vq, uint16_t head, unsigned entries);

/* One writer; a reader on another thread sees an old value or a new one. */
static inline void bf_count(uint64_t *counter, uint64_t n)
{
	__atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

#endif
