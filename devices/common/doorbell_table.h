/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The doorbells that one thread watches: a dense table of words, scanned without a branch taken while
 * nobody rings. Queue context, but reserve and done (before the first, after the last use).
 *
 * Two places to ring
 *
 * A driver stores to offset 0 of the page. If all do, the words of all queues have the same offset in
 * their pages and compete for the few cache lines of one set: from some hundred queues on each look
 * costs a miss. A driver that can choose, as the library's own does, stores queue q's notification at
 * DOORBELL_STRIDE * (q % 64). Nobody says beforehand which it is: both words are scanned until the first
 * ring is heard; from then on the one that rang is scanned, and the other looked at only now and then,
 * for a guest that starts another driver.
 */
#ifndef COMMON_DOORBELL_TABLE_H
#define COMMON_DOORBELL_TABLE_H

#include "doorbell.h"

/* Of one queue; embedded in it. */
struct doorbell_watch {
	uint32_t *words[2]; /* at offset 0, and staggered; NULL when that is the same */
	unsigned at[2];     /* place in the table, from 1; 0: not scanned */
};

struct doorbell_table {
	uint32_t **words;               /* [nr], hot */
	struct doorbell_watch **owners; /* [nr] */
	unsigned nr;
};

/* Room for @nr watches. 0 or -ENOMEM, and then the table is as it was. */
int doorbell_table_reserve(struct doorbell_table *table, unsigned nr);
void doorbell_table_done(struct doorbell_table *table);

/* @word: of its page (doorbell_word()). There is room. */
void doorbell_table_add(struct doorbell_table *table, struct doorbell_watch *watch, uint32_t *word,
			unsigned queue);
/* Not in it: no effect. */
void doorbell_table_remove(struct doorbell_table *table, struct doorbell_watch *watch);

/* The word at @place was seen rung: silence it, and scan only this one of its queue from now on. */
struct doorbell_watch *doorbell_table_heard(struct doorbell_table *table, unsigned place);

/*
 * The next queue that rang, from place *@place on, and *@place behind it; it is silent again, and the
 * caller must now look at its ring. NULL: none to the end. Start at 0, to the end, again and again: none
 * is passed over for good.
 */
static inline struct doorbell_watch *doorbell_table_scan(struct doorbell_table *table,
							 unsigned *place)
{
	uint32_t *const *words = table->words;
	unsigned i = *place, nr = table->nr;

	for (; i < nr; i++) {
		if (__builtin_expect(__atomic_load_n(words[i], __ATOMIC_RELAXED) != DOORBELL_SILENT,
				     0)) {
			*place = i + 1;
			return doorbell_table_heard(table, i);
		}
	}
	*place = i;
	return NULL;
}

/* The same for the words that are not scanned. */
struct doorbell_watch *doorbell_table_scan_others(struct doorbell_table *table, unsigned *place);

#endif
