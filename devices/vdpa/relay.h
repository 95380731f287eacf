/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The relay: a thread that rings the device for every kick that comes by eventfd.
 *
 * It is there for every queue from start to stop, whether or not the guest has the doorbell: a kick
 * may come this way at any time (host-notifier rules in docs/architecture.md). It sleeps while the
 * doorbells are used.
 */
#ifndef VDPA_RELAY_H
#define VDPA_RELAY_H

#include <stdint.h>

#include "virtio_pci.h"

struct relay;

int relay_new(const struct virtio_pci *vp, unsigned nr_queues, struct relay **out);
/* Ends the thread. NULL is fine. */
void relay_free(struct relay *relay);

/*
 * Control. The queue is started in the device. @kick_fd is borrowed until relay_remove(), which
 * returns when the thread has let go of fd and doorbell. -EBUSY: the queue has one already; -EPERM,
 * -EBADF, -EEXIST: a descriptor that cannot be waited for.
 */
int relay_add(struct relay *relay, unsigned queue, int kick_fd);
/* Nothing, if it has none. */
void relay_remove(struct relay *relay, unsigned queue);

/* Kicks relayed so far (sum of what the eventfd added up), and times that the thread woke. */
uint64_t relay_kicks(const struct relay *relay, unsigned queue);
uint64_t relay_wakeups(const struct relay *relay);

#endif
