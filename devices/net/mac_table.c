/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The table of a learning switch: buckets of a few places. Address and port are one 64-bit word, so that a
 * look-up needs no lock and never sees half an entry; changes are made under one. Any thread.
 */
#include "mac_table.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

int mac_table_init(struct mac_table *table)
{
	if (getrandom(&table->seed, sizeof(table->seed), 0) != sizeof(table->seed))
		return -EIO;
	pthread_mutex_init(&table->lock, NULL);
	return 0;
}

void mac_table_done(struct mac_table *table)
{
	pthread_mutex_destroy(&table->lock);
}

uint64_t mac_read(const uint8_t *mac)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < 6; i++)
		value = value << 8 | mac[i];
	return value;
}

static unsigned bucket_of(const struct mac_table *table, uint64_t mac)
{
	uint64_t h = (mac ^ table->seed) * 0x9e3779b97f4a7c15u;

	h ^= h >> 32;
	h *= 0xd6e8feb86659fd93u;
	return (unsigned)(h >> 54) % MAC_BUCKETS;
}

static uint64_t word_of(uint64_t mac, unsigned port)
{
	return mac << 16 | (port + 1);
}

static unsigned port_of(uint64_t word)
{
	return (unsigned)(word & 0xffff) - 1;
}

static bool is_old(const struct mac_entry *entry, uint32_t now)
{
	/* Signed: another thread may have read the clock a moment later. */
	return (int32_t)(now - atomic_load_explicit(&entry->seen, memory_order_relaxed)) >
	       (int32_t)MAC_AGE;
}

static struct mac_entry *find(const struct mac_table *table, uint64_t mac)
{
	const struct mac_entry *bucket = table->entries[bucket_of(table, mac)];

	for (unsigned i = 0; i < MAC_WAYS; i++) {
		uint64_t word = atomic_load_explicit(&bucket[i].word, memory_order_relaxed);

		if (word && word >> 16 == mac)
			return (struct mac_entry *)(uintptr_t)&bucket[i];
	}
	return NULL;
}

static void set(struct mac_table *table, struct mac_entry *entry, uint64_t word, uint32_t now)
{
	uint64_t before = atomic_load_explicit(&entry->word, memory_order_relaxed);

	if (before)
		table->nr[port_of(before)]--;
	if (word)
		table->nr[port_of(word)]++;
	atomic_store_explicit(&entry->seen, now, memory_order_relaxed);
	atomic_store_explicit(&entry->word, word, memory_order_relaxed);
}

/* A place for an address of @port: free, else forgotten, else its own oldest. NULL: there is none. */
static struct mac_entry *place(struct mac_table *table, uint64_t mac, unsigned port, uint32_t now)
{
	struct mac_entry *bucket = table->entries[bucket_of(table, mac)];
	bool full = table->nr[port] >= MAC_PER_PORT;
	struct mac_entry *own = NULL;

	for (unsigned i = 0; i < MAC_WAYS; i++) {
		uint64_t word = atomic_load_explicit(&bucket[i].word, memory_order_relaxed);

		if (!full && (!word || is_old(&bucket[i], now)))
			return &bucket[i];
		if (word && port_of(word) == port &&
		    (!own || now - atomic_load(&bucket[i].seen) > now - atomic_load(&own->seen)))
			own = &bucket[i];
	}
	return own;
}

static void learn_new(struct mac_table *table, uint64_t mac, unsigned port, uint32_t now)
{
	struct mac_entry *entry;

	pthread_mutex_lock(&table->lock);
	entry = find(table, mac);
	/* It has moved: to another machine, perhaps. That is what addresses do. */
	if (!entry)
		entry = place(table, mac, port, now);
	else if (table->nr[port] >= MAC_PER_PORT)
		entry = NULL;
	if (entry)
		set(table, entry, word_of(mac, port), now);
	pthread_mutex_unlock(&table->lock);
}

void mac_table_learn(struct mac_table *table, uint64_t mac, unsigned port, uint32_t now)
{
	struct mac_entry *entry;

	if (mac_is_group(mac) || !mac)
		return;
	entry = find(table, mac);
	if (!entry || port_of(atomic_load_explicit(&entry->word, memory_order_relaxed)) != port) {
		learn_new(table, mac, port, now);
	} else if (atomic_load_explicit(&entry->seen, memory_order_relaxed) != now) {
		atomic_store_explicit(&entry->seen, now, memory_order_relaxed);
	}
}

int mac_table_find(const struct mac_table *table, uint64_t mac, uint32_t now)
{
	const struct mac_entry *entry = find(table, mac);
	uint64_t word;

	if (!entry || is_old(entry, now))
		return MAC_NOWHERE;
	/* The place may have got another address meanwhile. */
	word = atomic_load_explicit(&entry->word, memory_order_relaxed);
	return word && word >> 16 == mac ? (int)port_of(word) : MAC_NOWHERE;
}

void mac_table_flush(struct mac_table *table, unsigned port)
{
	pthread_mutex_lock(&table->lock);
	for (unsigned i = 0; i < MAC_BUCKETS; i++) {
		for (unsigned j = 0; j < MAC_WAYS; j++) {
			struct mac_entry *entry = &table->entries[i][j];
			uint64_t word = atomic_load_explicit(&entry->word, memory_order_relaxed);

			if (word && port_of(word) == port)
				set(table, entry, 0, 0);
		}
	}
	pthread_mutex_unlock(&table->lock);
}
