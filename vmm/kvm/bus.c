/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Dispatch of guest accesses to the region they fall into.
 *
 * Any thread. No lock is held while a region's ops run, so that these may add, move and remove
 * regions (a BAR write does). What is under way is kept in a list instead: every dispatch is a
 * record on its own stack, and bus_del() waits until no other thread has one for its region.
 *
 * Whoever calls bus_del() must not hold a lock that the region's ops take.
 */
#include "bus.h"

#include <errno.h>
#include <string.h>

struct bus_dispatch {
	const struct bus_region *region;
	pthread_t thread;
	struct bus_dispatch *next;
};

void bus_init(struct bus *bus)
{
	pthread_mutex_init(&bus->lock, NULL);
	pthread_cond_init(&bus->idle, NULL);
	bus->head = NULL;
	bus->running = NULL;
}

static bool overlaps(const struct bus_region *a, const struct bus_region *b)
{
	return a->base <= b->base ? b->base - a->base < a->size : a->base - b->base < b->size;
}

int bus_add(struct bus *bus, struct bus_region *region)
{
	struct bus_region **at;
	int rc = 0;

	if (!region->size || region->base > UINT64_MAX - (region->size - 1))
		return -EINVAL;

	pthread_mutex_lock(&bus->lock);
	for (at = &bus->head; *at && (*at)->base < region->base; at = &(*at)->next)
		if (overlaps(*at, region))
			rc = -EEXIST;
	if (*at && overlaps(*at, region))
		rc = -EEXIST;
	if (!rc) {
		region->next = *at;
		*at = region;
	}
	pthread_mutex_unlock(&bus->lock);
	return rc;
}

static bool runs_elsewhere(const struct bus *bus, const struct bus_region *region)
{
	const struct bus_dispatch *d;

	for (d = bus->running; d; d = d->next)
		if (d->region == region && !pthread_equal(d->thread, pthread_self()))
			return true;
	return false;
}

void bus_del(struct bus *bus, struct bus_region *region)
{
	struct bus_region **at;

	pthread_mutex_lock(&bus->lock);
	for (at = &bus->head; *at; at = &(*at)->next) {
		if (*at == region) {
			*at = region->next;
			region->next = NULL;
			break;
		}
	}
	while (runs_elsewhere(bus, region))
		pthread_cond_wait(&bus->idle, &bus->lock);
	pthread_mutex_unlock(&bus->lock);
}

/*
 * Begin a dispatch: the region that holds all of [address, address + len), or NULL. The record is
 * entered under the same lock that found the region, so bus_del() cannot miss it.
 */
static const struct bus_region *enter(struct bus *bus, struct bus_dispatch *d, uint64_t address,
				      unsigned len)
{
	const struct bus_region *r;

	pthread_mutex_lock(&bus->lock);
	for (r = bus->head; r && r->base <= address; r = r->next)
		if (address - r->base < r->size)
			break;
	if (r && (r->base > address || len > r->size - (address - r->base)))
		r = NULL;
	if (r) {
		d->region = r;
		d->thread = pthread_self();
		d->next = bus->running;
		bus->running = d;
	}
	pthread_mutex_unlock(&bus->lock);
	return r;
}

static void leave(struct bus *bus, struct bus_dispatch *d)
{
	struct bus_dispatch **at;

	pthread_mutex_lock(&bus->lock);
	for (at = &bus->running; *at != d; at = &(*at)->next)
		;
	*at = d->next;
	pthread_cond_broadcast(&bus->idle);
	pthread_mutex_unlock(&bus->lock);
}

/* An access that crosses a page arrives in odd pieces; ops are promised 1, 2, 4 or 8 bytes. */
static bool is_plain_len(unsigned len)
{
	return len == 1 || len == 2 || len == 4 || len == 8;
}

bool bus_read(struct bus *bus, uint64_t address, void *data, unsigned len)
{
	const struct bus_region *r;
	struct bus_dispatch d;
	bool claimed = true;
	unsigned i;

	if (!is_plain_len(len)) {
		for (i = 0; i < len; i++)
			claimed &= bus_read(bus, address + i, (uint8_t *)data + i, 1);
		return claimed;
	}
	memset(data, 0xff, len);
	r = enter(bus, &d, address, len);
	if (!r)
		return false;
	if (r->ops->read)
		r->ops->read(r->opaque, address - r->base, data, len);
	leave(bus, &d);
	return true;
}

bool bus_write(struct bus *bus, uint64_t address, const void *data, unsigned len)
{
	const struct bus_region *r;
	struct bus_dispatch d;
	bool claimed = true;
	unsigned i;

	if (!is_plain_len(len)) {
		for (i = 0; i < len; i++)
			claimed &= bus_write(bus, address + i, (const uint8_t *)data + i, 1);
		return claimed;
	}
	r = enter(bus, &d, address, len);
	if (!r)
		return false;
	if (r->ops->write)
		r->ops->write(r->opaque, address - r->base, data, len);
	leave(bus, &d);
	return true;
}
