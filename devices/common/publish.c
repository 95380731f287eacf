/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Offering doorbell pages. Control context. Owns the pages; touches no ring. A queue whose page is not
 * taken is served by its eventfd, and that is said once for a connection.
 */
#include <errno.h>
#include <string.h>

#include "log.h"
#include "publish.h"

void publisher_init(struct publisher *publisher, unsigned nr_queues, bool wanted)
{
	*publisher = (struct publisher){ .wanted = wanted,
					 .nr_queues = nr_queues,
					 .pages = DOORBELL_PAGES_NONE };
}

void publisher_done(struct publisher *publisher)
{
	doorbell_pages_done(&publisher->pages);
}

uint32_t *publisher_word(struct publisher *publisher, unsigned queue)
{
	uint32_t *word;
	int ret;

	if (!publisher->wanted)
		return NULL;
	if (!doorbell_pages_exist(&publisher->pages)) {
		ret = doorbell_pages_init(&publisher->pages, publisher->nr_queues);
		if (ret) {
			log_warn("no doorbell pages: %s; queues are served by eventfd",
				 strerror(-ret));
			return NULL;
		}
	}
	word = doorbell_word(&publisher->pages, queue);
	doorbell_reset(word);
	return word;
}

enum stats_doorbell publisher_offer(struct publisher *publisher, struct bf_backend *be,
				    unsigned queue, const uint32_t *word)
{
	int ret;

	if (!publisher->wanted)
		return DOORBELL_OFF;
	if (!word)
		return DOORBELL_REFUSED;
	publisher->offering = queue;
	publisher->state = DOORBELL_PENDING;
	ret = bf_backend_publish_doorbell(be, queue, publisher->pages.fd,
					  doorbell_offset(&publisher->pages, queue));
	/* A front end that acknowledges nothing has answered by now. */
	if (!ret)
		return publisher->state;
	if (ret != -EOPNOTSUPP) {
		log_warn("queue %u: doorbell page not offered: %s; served by eventfd", queue,
			 strerror(-ret));
	} else if (!publisher->unknown_said) {
		log_warn("front end does not know doorbell pages (HOST_NOTIFIER was not agreed): "
			 "all queues served by eventfd");
		publisher->unknown_said = true;
	}
	return DOORBELL_REFUSED;
}

enum stats_doorbell publisher_answered(struct publisher *publisher, unsigned queue, int result)
{
	if (queue == publisher->offering)
		publisher->state = result ? DOORBELL_REFUSED : DOORBELL_MAPPED;
	if (!result) {
		log_info("queue %u: doorbell page mapped", queue);
		return DOORBELL_MAPPED;
	}
	log_warn("queue %u: front end refused the doorbell page%s: served by eventfd", queue,
		 publisher->refusal_said ? "" : " (QEMU: page-per-vq=on is needed)");
	publisher->refusal_said = true;
	return DOORBELL_REFUSED;
}

void publisher_disconnected(struct publisher *publisher)
{
	doorbell_pages_done(&publisher->pages);
	publisher->unknown_said = false;
	publisher->refusal_said = false;
}
