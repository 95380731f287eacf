/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The ring of a network device's control queue, which the VMM serves itself.
 *
 * Context: the device's lock. The driver's notifications are an eventfd on the event loop; there is
 * no doorbell for this queue.
 */
#ifndef VMM_NET_CTRL_QUEUE_H
#define VMM_NET_CTRL_QUEUE_H

#include <pthread.h>

#include "../base/event_loop.h"
#include "../kvm/vm.h"
#include "virtio.h"

struct iovec;
struct net_ctrl_queue;

struct net_ctrl_queue_config {
	struct vm *vm;
	struct event_loop *loop;
	pthread_mutex_t *lock; /* the device's */
	/* A command in pieces of guest memory; the answer's byte. */
	uint8_t (*command)(void *opaque, const struct iovec *iov, unsigned nr);
	/* The driver broke the rules of the ring; @why is borrowed. The queue is dead. */
	void (*broken)(void *opaque, const char *why);
	void *opaque;
};

int net_ctrl_queue_new(const struct net_ctrl_queue_config *config, struct net_ctrl_queue **out);
/* On the event loop's thread. NULL is fine. */
void net_ctrl_queue_free(struct net_ctrl_queue *ctrl);

/* Serve the queue as the driver has set it up, from its beginning. Negative errno. */
int net_ctrl_queue_start(struct net_ctrl_queue *ctrl, const struct virtio_queue *q,
			 uint64_t features);
/* Idempotent. No command is carried out any more. */
void net_ctrl_queue_stop(struct net_ctrl_queue *ctrl);

#endif
