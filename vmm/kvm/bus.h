/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An address space of the guest (ports, or memory-mapped I/O) as a sorted set of regions.
 *
 * Any vCPU thread dispatches; add, move and remove come from whoever changes the guest's address
 * map (a BAR write runs on a vCPU thread too). The bus has a lock of its own. bus_del() returns
 * only when no dispatch of that region is running any more, except one on the calling thread.
 */
#ifndef VMM_BUS_H
#define VMM_BUS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct bus_region;

struct bus_ops {
	/* Both run on a vCPU thread. @len is 1, 2, 4 or 8; @offset + @len lies in the region. */
	void (*read)(void *opaque, uint64_t offset, void *data, unsigned len);
	void (*write)(void *opaque, uint64_t offset, const void *data, unsigned len);
};

struct bus_region {
	uint64_t base;
	uint64_t size;
	const struct bus_ops *ops;
	void *opaque;
	const char *name;
	struct bus_region *next; /* owned by the bus */
};

struct bus_dispatch;

struct bus {
	pthread_mutex_t lock; /* not held while a region's ops run */
	pthread_cond_t idle;
	struct bus_region *head;      /* sorted by base, no overlaps */
	struct bus_dispatch *running; /* the calls into regions that are under way */
};

void bus_init(struct bus *bus);
/* 0, or -EEXIST when it would overlap another region. The caller keeps the memory. */
int bus_add(struct bus *bus, struct bus_region *region);
void bus_del(struct bus *bus, struct bus_region *region);
/* Unclaimed reads give all ones, unclaimed writes go nowhere; false is returned for both. */
bool bus_read(struct bus *bus, uint64_t address, void *data, unsigned len);
bool bus_write(struct bus *bus, uint64_t address, const void *data, unsigned len);

#endif
