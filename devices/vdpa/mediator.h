/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A mediated ring: how a hardware device goes on with a split ring that is not at its beginning.
 *
 * A virtio-pci device starts every queue at index 0, and nothing in its interface moves it. After
 * this program was restarted under a running guest the guest's ring is at N. So the device gets an
 * available and a used ring of ours ("shadow"), whose index is the guest's minus N; descriptors and
 * buffers stay the guest's, and the device reads them by DMA as ever. Entries of the available ring
 * are copied when the guest kicks, entries of the used ring when the device interrupts.
 *
 * This costs the direct doorbell and the direct interrupt. It ends by itself: when the guest's index
 * comes to 0 (mod 65536) nothing more is fed until the device has returned everything, and then the
 * queue can be handed to the device as a fresh one.
 *
 * Pure: no system call, no device. Control context. The rings are the guest's to write: each index
 * is read once, and one that jumped more than the ring breaks the queue.
 */
#ifndef VDPA_MEDIATOR_H
#define VDPA_MEDIATOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mediator;

/* What there is to do now. Bits. */
enum mediator_todo {
	MEDIATOR_RING = 1,   /* ring the device's doorbell */
	MEDIATOR_CALL = 2,   /* signal the guest's call eventfd */
	/* The guest's ring is at 0 and the device has nothing: hand it over, and ring the device once,
	 * since entries may wait there. Said until it is done. */
	MEDIATOR_DIRECT = 4,
};

struct mediator_setup {
	uint16_t size; /* power of two */
	uint16_t base; /* the guest's next available index, and what it got back: N; not 0 */
	bool event_idx;
	bool may_go_direct; /* false: never hold back at 0 */
	/* The guest's rings in this process: [6 + 2 * size] and [6 + 8 * size] bytes. */
	void *guest_avail, *guest_used;
	/* Ours: of the same sizes, mapped for DMA by the caller. Cleared by mediator_new(). */
	void *shadow_avail, *shadow_used;
};

size_t mediator_avail_size(uint16_t size);
size_t mediator_used_size(uint16_t size);

/* Call mediator_feed() once afterwards: the guest may be ahead already. -EINVAL, -ENOMEM. */
int mediator_new(const struct mediator_setup *setup, struct mediator **out);
void mediator_free(struct mediator *mediator);

/* The guest kicked, or may have. Todo bits, or -EPROTO, for good: an index made no sense. */
int mediator_feed(struct mediator *mediator);
/* The device interrupted, or may have. Todo bits, or -EPROTO, likewise. */
int mediator_drain(struct mediator *mediator);
/* Where the guest's ring stands: its used index. */
uint16_t mediator_base(const struct mediator *mediator);

#endif
