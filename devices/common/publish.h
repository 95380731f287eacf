/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The doorbell pages of a device with queue threads: made, offered to the front end, and what it said.
 * Control context throughout. Which queue watches which page is the device's business.
 */
#ifndef COMMON_PUBLISH_H
#define COMMON_PUBLISH_H

#include <belfry/backend.h>

#include "doorbell.h"
#include "stats.h"

struct publisher {
	bool wanted; /* --notify=doorbell */
	unsigned nr_queues;
	struct doorbell_pages pages;
	bool unknown_said, refusal_said; /* once per connection */
	unsigned offering;               /* the queue offered last, and what became of it */
	enum stats_doorbell state;
};

void publisher_init(struct publisher *publisher, unsigned nr_queues, bool wanted);
/* No thread may watch a page any more. */
void publisher_done(struct publisher *publisher);

/* In vring_start, first: the silenced word for @queue to watch, or NULL if there is none. */
uint32_t *publisher_word(struct publisher *publisher, unsigned queue);
/*
 * In vring_start, when a thread has the queue: offer the page, if there is one (@word). What the queue's
 * doorbell state is from here on; problems are logged.
 */
enum stats_doorbell publisher_offer(struct publisher *publisher, struct bf_backend *be,
				    unsigned queue, const uint32_t *word);
/* In doorbell_answered, if it was @published: the state. */
enum stats_doorbell publisher_answered(struct publisher *publisher, unsigned queue, int result);
/* In disconnected: the old front end may still hold the pages, so that the next gets others. */
void publisher_disconnected(struct publisher *publisher);

#endif
