/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Who is in the table of doorbells, and which of a queue's two words is scanned. Queue context; the
 * words themselves are rung by anybody. The scan is in the header.
 */
#include <errno.h>
#include <stdlib.h>

#include "doorbell_table.h"

int doorbell_table_reserve(struct doorbell_table *table, unsigned nr)
{
	uint32_t **words = realloc(table->words, 2 * nr * sizeof(*words));
	struct doorbell_watch **owners;

	if (!words)
		return -ENOMEM;
	table->words = words;
	owners = realloc(table->owners, 2 * nr * sizeof(*owners));
	if (!owners)
		return -ENOMEM;
	table->owners = owners;
	return 0;
}

void doorbell_table_done(struct doorbell_table *table)
{
	free(table->words);
	free(table->owners);
	*table = (struct doorbell_table){ 0 };
}

static void put(struct doorbell_table *table, unsigned place, struct doorbell_watch *watch,
		unsigned which)
{
	table->words[place] = watch->words[which];
	table->owners[place] = watch;
	watch->at[which] = place + 1;
}

/* Which word of its owner is at @place. */
static unsigned which_at(const struct doorbell_table *table, unsigned place)
{
	return table->owners[place]->at[1] == place + 1;
}

static void drop(struct doorbell_table *table, struct doorbell_watch *watch, unsigned which)
{
	unsigned place = watch->at[which], last = table->nr;

	if (!place)
		return;
	watch->at[which] = 0;
	table->nr--;
	if (place != last)
		put(table, place - 1, table->owners[last - 1], which_at(table, last - 1));
}

void doorbell_table_add(struct doorbell_table *table, struct doorbell_watch *watch, uint32_t *word,
			unsigned queue)
{
	uint32_t *staggered = doorbell_staggered(word, queue);

	*watch = (struct doorbell_watch){ .words = { word, staggered == word ? NULL : staggered } };
	put(table, table->nr++, watch, 0);
	if (watch->words[1])
		put(table, table->nr++, watch, 1);
}

void doorbell_table_remove(struct doorbell_table *table, struct doorbell_watch *watch)
{
	drop(table, watch, 0);
	drop(table, watch, 1);
}

struct doorbell_watch *doorbell_table_heard(struct doorbell_table *table, unsigned place)
{
	struct doorbell_watch *watch = table->owners[place];
	unsigned which = which_at(table, place);

	doorbell_take(watch->words[which]);
	drop(table, watch, !which);
	return watch;
}

struct doorbell_watch *doorbell_table_scan_others(struct doorbell_table *table, unsigned *place)
{
	for (; *place < table->nr; ++*place) {
		struct doorbell_watch *watch = table->owners[*place];
		unsigned other = !which_at(table, *place);

		if (watch->at[other] || !watch->words[other] || !doorbell_take(watch->words[other]))
			continue;
		watch->at[!other] = 0;
		put(table, *place, watch, other);
		++*place;
		return watch;
	}
	return NULL;
}
