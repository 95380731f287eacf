/* SPDX-License-Identifier: BSD-3-Clause */
/**
 * belfry/driver.h - the driver side of virtqueues: a guest without a guest.
 *
 * A user-space virtio driver over the front-end library: it owns shareable memory, negotiates, starts
 * the queues, and rings the device's doorbell with one plain store when the back end has given one.
 * For testing, measuring and using back ends without a VMM.
 *
 * Context: everything named bf_driver_* belongs to the control context of its front end, except the
 * calls marked "queue": those belong to one thread per queue, which may be another than control's.
 * While queue threads run, control must keep calling bf_frontend_dispatch() (or bf_driver_dispatch(),
 * the same).
 *
 * Where a doorbell is rung: the notification of queue q is two bytes, its number, at the first byte of the
 * page. Back ends of this library's devices look at a second place too when the page is memory, which
 * they poll: 64 * (q % 64) bytes into it, so that the words of many queues do not all fall into the same
 * set of a cache. With bf_driver_config.stagger_doorbells a page of memory is rung there. A back end that
 * knows only the first place would never hear it. A page of a device is always rung at its first byte.
 */
#ifndef BELFRY_DRIVER_H
#define BELFRY_DRIVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include <belfry/frontend.h>

#ifdef __cplusplus
extern "C" {
#endif

struct bf_driver;

struct bf_driver_config {
	const char *name;         /* tag in messages; copied */
	unsigned nr_queues;       /* to start; at least 1 */
	uint16_t queue_size;      /* power of two, or any up to 32768 of a packed ring; 0: 256 */
	/* Virtio features to accept if offered; VERSION_1 is always asked for. Of those of the ring the
	 * driver knows RING_PACKED, IN_ORDER, EVENT_IDX and INDIRECT_DESC; others are left out. */
	uint64_t features;
	uint64_t memory_size;     /* bytes for buffers, beyond the rings; rounded up to pages */
	bool no_doorbell;         /* do not agree to HOST_NOTIFIER: ring by eventfd */
	bool stagger_doorbells;   /* see "Where a doorbell is rung" */
	unsigned timeout_ms;      /* as in bf_frontend_config */
	struct bf_log log;
};

/**
 * bf_driver_new - connect to a device and start its queues (waits).
 * @fd: connected socket, owned from here on, also on failure.
 * @error, @error_len: receives a sentence on failure. Errors as bf_frontend_attach(),
 * bf_frontend_start_vrings(); -ENOTSUP if the device is not VERSION_1.
 */
int bf_driver_new(const struct bf_driver_config *config, int fd, struct bf_driver **drv,
		  char *error, size_t error_len);
/** Stops the queues (waits, unless the connection is gone), frees. NULL is fine. */
void bf_driver_free(struct bf_driver *drv);

/** Its front end: config space, features, doorbell state, dispatch fd. Borrowed. */
struct bf_frontend *bf_driver_frontend(struct bf_driver *drv);
int bf_driver_dispatch(struct bf_driver *drv);
/** What the driver accepted. */
uint64_t bf_driver_features(const struct bf_driver *drv);

/** Stop all queues (waits) and start them again from where they stood, e.g. to test it. */
int bf_driver_stop(struct bf_driver *drv);
int bf_driver_start(struct bf_driver *drv);

/**
 * Buffer memory that the device can reach, zeroed. @align: power of two. Never freed one by one.
 * NULL when memory_size is used up.
 */
void *bf_driver_alloc(struct bf_driver *drv, size_t len, size_t align);

/**
 * bf_driver_add - queue: put a request into the ring; not visible before bf_driver_kick().
 * @iov: [@nr_out + @nr_in], pieces of bf_driver_alloc() memory; first those the device reads.
 * @cookie: given back by bf_driver_get(); not NULL.
 * 0; -ENOSPC the ring is full; -EINVAL no pieces, or one outside the memory.
 */
int bf_driver_add(struct bf_driver *drv, unsigned queue, const struct iovec *iov, unsigned nr_out,
		  unsigned nr_in, void *cookie);
/**
 * bf_driver_kick - queue: publish what was added and ring the device if it wants to be rung: one
 * store into its doorbell page, or a write to the kick eventfd. Returns true if it was rung.
 */
bool bf_driver_kick(struct bf_driver *drv, unsigned queue);
/**
 * bf_driver_ring - queue: ring whether or not it wants to be. For measuring and testing.
 */
void bf_driver_ring(struct bf_driver *drv, unsigned queue);
/**
 * bf_driver_get - queue: take a finished request. Its cookie and *@len bytes written, or NULL when
 * none is there. A device that gives back what it does not hold marks the queue broken.
 */
void *bf_driver_get(struct bf_driver *drv, unsigned queue, uint32_t *len);
/**
 * bf_driver_wait - queue: sleep until something is finished. 1 yes, 0 @timeout_ms went by
 * (-1: forever), or -EPIPE the queue is broken.
 */
int bf_driver_wait(struct bf_driver *drv, unsigned queue, int timeout_ms);
int bf_driver_broken(const struct bf_driver *drv, unsigned queue);

struct bf_driver_counters {
	uint64_t added;
	uint64_t doorbells;   /* stores into a doorbell page */
	uint64_t kicks;       /* writes to the kick eventfd */
	uint64_t suppressed;  /* the device did not want to be rung */
	uint64_t wakeups;     /* returns from sleeping */
	uint64_t finished;
};
/** The counters of @queue, readable at any time while the driver lives. */
const struct bf_driver_counters *bf_driver_counters(const struct bf_driver *drv, unsigned queue);

#ifdef __cplusplus
}
#endif
#endif
