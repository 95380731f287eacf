/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Packets that wait: for a guest that has no buffers at the moment, for another thread. Bounded bytes,
 * first in first out; any thread puts, one takes.
 */
#ifndef NET_BACKLOG_H
#define NET_BACKLOG_H

#include <pthread.h>
#include <stdatomic.h>

#include "header.h"

/* About 16 of the largest packets, or 1,300 of 1,500 bytes. */
#define BACKLOG_BYTES (2u << 20)

struct net_backlog {
	uint8_t *base;         /* [BACKLOG_BYTES]; touched as far as it is used */
	pthread_mutex_t lock;  /* of those who put */
	atomic_bool open;      /* changed under the lock; a look at it is a hint */
	_Atomic uint64_t head; /* bytes put, ever */
	_Atomic uint64_t tail; /* bytes taken, ever: written by who takes */
};

/* 0 or negative errno. */
int net_backlog_init(struct net_backlog *backlog);
/* Of initialised or zeroed. */
void net_backlog_done(struct net_backlog *backlog);

/* Control: take packets; refuse them, and forget those that wait. Nobody takes at the moment. */
void net_backlog_open(struct net_backlog *backlog);
void net_backlog_close(struct net_backlog *backlog);
static inline bool net_backlog_is_open(const struct net_backlog *backlog)
{
	return atomic_load_explicit(&backlog->open, memory_order_relaxed);
}

/* Any thread. A copy of it. False: no room, or closed. */
bool net_backlog_put(struct net_backlog *backlog, const struct net_packet *packet);

/*
 * As net_backlog_put(), of what net_offload() makes of the packet for a
 * receiver that accepted @features. @scratch: [NET_PACKET_MAX], the caller's. How many did not fit
 * (packets or segments); 0 is success. -EBADMSG: it cannot be taken apart.
 */
int net_backlog_put_as(struct net_backlog *backlog, const struct net_packet *packet,
		       uint64_t features, uint8_t *scratch);

/* A look at memory. Any thread. */
static inline bool net_backlog_empty(const struct net_backlog *backlog)
{
	return atomic_load_explicit(&backlog->head, memory_order_acquire) ==
	       atomic_load_explicit(&backlog->tail, memory_order_relaxed);
}

/* Who takes. The oldest packet, which stays until net_backlog_drop(). *@iov: its one piece. */
bool net_backlog_peek(const struct net_backlog *backlog, struct net_packet *packet,
		      struct iovec *iov);
void net_backlog_drop(struct net_backlog *backlog);

#endif
