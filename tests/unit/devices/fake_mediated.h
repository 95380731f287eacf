/* SPDX-License-Identifier: BSD-3-Clause */
/* A guest, a mediator and a device, with a line for each notification between them. */
#ifndef TESTS_DEVICES_FAKE_MEDIATED_H
#define TESTS_DEVICES_FAKE_MEDIATED_H

#include "fake_split.h"

#include "devices/vdpa/mediator.h"

struct world {
	struct rings rings, shadow;
	struct guest guest;
	struct device device;
	struct mediator *mediator; /* NULL: direct */
	bool kick, call, doorbell, interrupt;
	unsigned nr_direct;
};

struct params {
	unsigned size;
	uint16_t base;
	bool event_idx, may_go_direct;
	uint32_t seed;
};

static inline struct world *world_new(const struct params *p)
{
	struct world *w = calloc(1, sizeof(*w));
	const struct mediator_setup setup = { .size = (uint16_t)p->size,
					      .base = p->base,
					      .event_idx = p->event_idx,
					      .may_go_direct = p->may_go_direct,
					      .guest_avail = w->rings.avail,
					      .guest_used = w->rings.used,
					      .shadow_avail = w->shadow.avail,
					      .shadow_used = w->shadow.used };

	memset(&w->shadow, 0xa5, sizeof(w->shadow)); /* the mediator clears what it uses */
	w->guest = (struct guest){ .rings = &w->rings,
				   .size = p->size,
				   .event_idx = p->event_idx,
				   .avail_idx = p->base,
				   .used_seen = p->base,
				   .seed = p->seed };
	w->device = (struct device){ .rings = &w->shadow,
				     .guest = &w->guest,
				     .size = p->size,
				     .event_idx = p->event_idx,
				     .seed = p->seed + 1 };
	/* What the device of before left behind: silence asked for, and an old event. */
	put(&w->rings.avail[1], p->base);
	put(&w->rings.avail[2 + p->size], p->base);
	put(used_idx(&w->rings), p->base);
	put(used_flags(&w->rings), 1);
	put(avail_event(&w->rings, p->size), p->base - 1000);
	assert_int_equal(mediator_new(&setup, &w->mediator), 0);
	assert_int_equal(mediator_base(w->mediator), p->base);
	w->kick = true; /* whoever starts a ring looks at it once */
	return w;
}

static inline void world_free(struct world *w)
{
	mediator_free(w->mediator);
	free(w);
}

#endif
