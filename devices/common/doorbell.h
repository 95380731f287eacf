/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Polled doorbell pages: one page of a memfd per queue, which the guest's notifications are stored
 * into and a queue thread watches. See doorbell.c for the rules.
 */
#ifndef COMMON_DOORBELL_H
#define COMMON_DOORBELL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a page holds while nobody has rung. No notification looks like it: queue 65535 does not
 * exist. */
#define DOORBELL_SILENT 0xffffffffu

struct doorbell_pages {
	int fd;
	unsigned nr;
	size_t page_size;
	unsigned char *base;
};

/*
 * Where the library's own driver rings queue q: this many bytes times q % 64 into the page. Others
 * ring at offset 0. See doorbell_table.h.
 */
#define DOORBELL_STRIDE 64u

#define DOORBELL_PAGES_NONE \
	{                   \
		.fd = -1    \
	}

/* Control. One page each for @nr queues, sealed, silent. 0 or negative errno. */
int doorbell_pages_init(struct doorbell_pages *pages, unsigned nr);
/* Control. No thread may watch a page any more. Of initialised or NONE; leaves NONE. */
void doorbell_pages_done(struct doorbell_pages *pages);
static inline bool doorbell_pages_exist(const struct doorbell_pages *pages)
{
	return pages->base != NULL;
}
/* Where in the file the page of @queue is. */
uint64_t doorbell_offset(const struct doorbell_pages *pages, unsigned queue);
/* The first word of @queue's page: what most drivers store its notifications to. */
uint32_t *doorbell_word(const struct doorbell_pages *pages, unsigned queue);
/* The other place, with @word the first of the page. For every 64th queue it is the same. */
static inline uint32_t *doorbell_staggered(uint32_t *word, unsigned queue)
{
	return word + queue % 64 * (DOORBELL_STRIDE / sizeof(*word));
}

/* Control: silence the page that @word is the first of, before it is published anew. */
void doorbell_reset(uint32_t *word);

/*
 * Queue: has it been rung? If so it is silent again, and the caller must now look at the ring.
 */
static inline bool doorbell_take(uint32_t *word)
{
	if (__builtin_expect(__atomic_load_n(word, __ATOMIC_RELAXED) == DOORBELL_SILENT, 1))
		return false;
	return __atomic_exchange_n(word, DOORBELL_SILENT, __ATOMIC_SEQ_CST) != DOORBELL_SILENT;
}

#endif
