/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The in-flight region: what a back end remembers outside of itself about requests that it has taken
 * and not given back, so that its successor can finish them ("Inflight I/O tracking").
 *
 * This is the region as a whole: its size, its file, its mapping, and the part of each queue with the
 * layouts of split and packed queues. What is stored there, in which order, and what is made of it
 * after a crash is lib/virtq/inflight_*.c. Control context. Nothing in the region is trusted: the front
 * end keeps it, and can write it.
 */
#ifndef MEM_INFLIGHT_H
#define MEM_INFLIGHT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BF_INFLIGHT_VERSION 1
#define BF_INFLIGHT_ALIGN   64u

/* Fields are in native byte order, as the specification has them. */
struct bf_inflight_split_desc {
	uint8_t inflight;
	uint8_t padding[5];
	uint16_t next; /* in the list of the last batch */
	uint64_t counter;
};

struct bf_inflight_split {
	uint64_t features;
	uint16_t version; /* 0: fresh */
	uint16_t desc_num;
	uint16_t last_batch_head;
	uint16_t used_idx;
	struct bf_inflight_split_desc desc[];
};

struct bf_inflight_packed_desc {
	uint8_t inflight;
	uint8_t padding;
	uint16_t next;
	uint16_t last;
	uint16_t num;
	uint64_t counter;
	uint16_t id;
	uint16_t flags;
	uint32_t len;
	uint64_t addr;
};

struct bf_inflight_packed {
	uint64_t features;
	uint16_t version;
	uint16_t desc_num;
	uint16_t free_head;
	uint16_t old_free_head;
	uint16_t used_idx;
	uint16_t old_used_idx;
	uint8_t used_wrap_counter;
	uint8_t old_used_wrap_counter;
	uint8_t padding[7];
	struct bf_inflight_packed_desc desc[];
};

_Static_assert(sizeof(struct bf_inflight_split_desc) == 16, "split descriptor state");
_Static_assert(sizeof(struct bf_inflight_split) == 16, "split queue region");
_Static_assert(sizeof(struct bf_inflight_packed_desc) == 32, "packed descriptor state");
_Static_assert(offsetof(struct bf_inflight_packed, desc) == 32, "packed queue region");

struct bf_inflight_region;

/* Bytes of one queue's part, a multiple of BF_INFLIGHT_ALIGN. */
uint64_t bf_inflight_queue_size(bool packed, uint16_t queue_size);

/*
 * A new, zeroed region in a sealed memfd. @fd: owned by the region, borrowed to the caller for sending.
 * -EINVAL no queues or entries; -ENOMEM; errno of memfd_create(), ftruncate(), mmap().
 */
int bf_inflight_new(bool packed, uint16_t nr_queues, uint16_t queue_size,
		    struct bf_inflight_region **region);
int bf_inflight_fd(const struct bf_inflight_region *region);
uint64_t bf_inflight_size(const struct bf_inflight_region *region);
/*
 * Map what the front end brought back. @fd: borrowed. -EINVAL the sizes contradict one another; -ENXIO
 * the file is too short; -ENOMEM; mmap()'s errno. Whether it was made for split or packed rings is what
 * the features said, so @packed is the caller's.
 */
int bf_inflight_map(int fd, uint64_t mmap_size, uint64_t mmap_offset, bool packed, uint16_t nr_queues,
		    uint16_t queue_size, struct bf_inflight_region **region);
void bf_inflight_free(struct bf_inflight_region *region);

bool bf_inflight_is_packed(const struct bf_inflight_region *region);
/* The part of @queue, for rings of up to the region's queue size, or NULL: no such queue in it. */
void *bf_inflight_queue(const struct bf_inflight_region *region, unsigned queue, uint16_t *queue_size);

#endif
