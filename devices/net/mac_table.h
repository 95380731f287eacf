/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which address is behind which port: the memory of a learning switch. Any thread looks up without a lock;
 * learning something new takes one.
 *
 * Bounded: so many addresses in all, so many for each port. What a port learns never pushes out what
 * another has taught, unless that is old; so a guest that invents addresses harms only itself.
 */
#ifndef NET_MAC_TABLE_H
#define NET_MAC_TABLE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define MAC_BUCKETS  1024u
#define MAC_WAYS     8u
#define MAC_PER_PORT 256u
#define MAC_PORTS    64u
#define MAC_AGE      300u /* seconds, as IEEE 802.1D recommends */
#define MAC_NOWHERE  (-1)

struct mac_entry {
	_Atomic uint64_t word; /* address in bits 16-63, port plus one in 0-15; 0: free */
	_Atomic uint32_t seen; /* seconds */
};

struct mac_table {
	struct mac_entry entries[MAC_BUCKETS][MAC_WAYS];
	uint64_t seed; /* so that nobody can choose addresses of one bucket */
	pthread_mutex_t lock;
	unsigned nr[MAC_PORTS];
};

/* Zeroed memory. 0 or negative errno. */
int mac_table_init(struct mac_table *table);
void mac_table_done(struct mac_table *table);

/* An address as a number. */
uint64_t mac_read(const uint8_t *mac);
/* Multicast and broadcast. */
static inline bool mac_is_group(uint64_t mac)
{
	return mac >> 40 & 1;
}

/* @now: seconds, any origin. @mac came from @port: group addresses and zero are not learned. */
void mac_table_learn(struct mac_table *table, uint64_t mac, unsigned port, uint32_t now);
/* The port, or MAC_NOWHERE. */
int mac_table_find(const struct mac_table *table, uint64_t mac, uint32_t now);
/* Forget what is behind @port. */
void mac_table_flush(struct mac_table *table, unsigned port);

#endif
