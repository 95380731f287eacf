/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What is counted for each queue. Written by the queue's thread; those of drops by others too. Control
 * reads them at any time: relaxed atomics, a torn set is possible.
 */
#ifndef NET_COUNTERS_H
#define NET_COUNTERS_H

#include "header.h"

struct net_counters {
	uint64_t packets, bytes; /* passed on */
	uint64_t drops[NET_NR_DROPS];
};

/* One writer. */
static inline void net_count(struct net_counters *counters, uint64_t packets, uint64_t bytes)
{
	__atomic_store_n(&counters->packets, counters->packets + packets, __ATOMIC_RELAXED);
	__atomic_store_n(&counters->bytes, counters->bytes + bytes, __ATOMIC_RELAXED);
}

/* Any thread: packets are dropped rarely. */
static inline void net_count_drops(struct net_counters *counters, enum net_drop why, uint64_t nr)
{
	__atomic_fetch_add(&counters->drops[why], nr, __ATOMIC_RELAXED);
}

#endif
