/* SPDX-License-Identifier: BSD-3-Clause */
/* See trusting.h. Any context; one thread a device. It looks at nothing that it does not need. */
#include "trusting.h"

#include <belfry/virtq.h>

#include "../lib/base/shared.h"

#define MAX_BATCH 32u

static void fill_piece(const struct trusting *dev, struct iovec *iov, uint64_t gpa, uint32_t len)
{
	*iov = (struct iovec){ dev->base + gpa, len };
}

static void count(struct bf_chain *chain, uint16_t head, struct iovec *iov, unsigned nr,
		  unsigned nr_in)
{
	chain->head = head;
	chain->iov = iov;
	chain->nr_out = nr - nr_in;
	chain->nr_in = nr_in;
}

static unsigned pop_split(struct trusting *dev, struct bf_chain *chains, unsigned nr,
			  struct iovec *iov)
{
	uint16_t left = bf_load16_acquire(&dev->avail->idx) - dev->next_avail;
	unsigned used = 0;

	nr = left < nr ? left : nr;
	for (unsigned i = 0; i < nr; i++) {
		uint16_t mask = dev->size - 1;
		uint16_t head = bf_from_le16(dev->avail->ring[dev->next_avail++ & mask]);
		const struct bf_desc *desc = &dev->desc[head];
		unsigned first = used, nr_in = 0;

		for (;;) {
			uint16_t flags = bf_from_le16(desc->flags);

			fill_piece(dev, &iov[used++], bf_from_le64(desc->addr),
				   bf_from_le32(desc->len));
			nr_in += (flags & VRING_DESC_F_WRITE) != 0;
			if (!(flags & VRING_DESC_F_NEXT))
				break;
			desc = &dev->desc[bf_from_le16(desc->next)];
		}
		count(&chains[i], head, &iov[first], used - first, nr_in);
	}
	return nr;
}

static void push_split(struct trusting *dev, const struct bf_done *done, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++)
		dev->used->ring[dev->next_used++ & (dev->size - 1)] =
			(struct bf_used_elem){ bf_to_le32(done[i].head), bf_to_le32(done[i].len) };
}

static void notify_split(struct trusting *dev)
{
	bf_store16_release(&dev->used->idx, dev->next_used);
	bf_barrier();
	if (!(bf_load16(&dev->avail->flags) & VRING_AVAIL_F_NO_INTERRUPT))
		dev->nr_calls++;
}

unsigned trusting_split(struct trusting *dev, unsigned batch)
{
	struct bf_chain chains[MAX_BATCH];
	struct bf_done done[MAX_BATCH];
	struct iovec iov[64];
	unsigned nr = pop_split(dev, chains, batch, iov);

	if (nr == 0)
		return 0;
	for (unsigned i = 0; i < nr; i++)
		done[i] = (struct bf_done){ chains[i].head, 0 };
	push_split(dev, done, nr);
	notify_split(dev);
	return nr;
}

static uint16_t wrap_bits(bool wrap)
{
	return wrap ? BF_PACKED_AVAIL | BF_PACKED_USED : 0;
}

static bool is_available(const struct trusting *dev, uint16_t flags)
{
	return !!(flags & BF_PACKED_AVAIL) == dev->avail_wrap &&
	       !!(flags & BF_PACKED_USED) != dev->avail_wrap;
}

static unsigned pop_packed(struct trusting *dev, struct bf_chain *chains, unsigned nr,
			   struct iovec *iov, uint16_t *lengths)
{
	unsigned used = 0, i;

	for (i = 0; i < nr; i++) {
		uint16_t flags = bf_load16_acquire(&dev->ring[dev->next_avail].flags), id;
		unsigned first = used, nr_in = 0;

		if (!is_available(dev, flags))
			break;
		for (;;) {
			const struct bf_packed_desc *desc = &dev->ring[dev->next_avail];

			flags = bf_from_le16(desc->flags);
			id = bf_from_le16(desc->id);
			fill_piece(dev, &iov[used++], bf_from_le64(desc->addr),
				   bf_from_le32(desc->len));
			nr_in += (flags & VRING_DESC_F_WRITE) != 0;
			if (++dev->next_avail == dev->size) {
				dev->next_avail = 0;
				dev->avail_wrap = !dev->avail_wrap;
			}
			if (!(flags & VRING_DESC_F_NEXT))
				break;
		}
		lengths[i] = used - first;
		count(&chains[i], id, &iov[first], used - first, nr_in);
	}
	return i;
}

/* The first one last, as virtio 1.2, 2.8.6 has it: the driver sees all of the batch or nothing. */
static void push_packed(struct trusting *dev, const struct bf_done *done, unsigned nr,
			const uint16_t *lengths)
{
	uint16_t first = dev->next_used, first_flags = wrap_bits(dev->used_wrap);

	for (unsigned i = 0; i < nr; i++) {
		struct bf_packed_desc *desc = &dev->ring[dev->next_used];

		desc->id = bf_to_le16(done[i].head);
		desc->len = bf_to_le32(done[i].len);
		if (i > 0)
			bf_store16_release(&desc->flags, wrap_bits(dev->used_wrap));
		dev->next_used += lengths[i];
		if (dev->next_used >= dev->size) {
			dev->next_used -= dev->size;
			dev->used_wrap = !dev->used_wrap;
		}
	}
	bf_store16_release(&dev->ring[first].flags, first_flags);
}

static void notify_packed(struct trusting *dev)
{
	bf_barrier();
	if ((bf_load16(&dev->driver_event->flags) & BF_PACKED_EVENT_FLAGS) !=
	    VRING_PACKED_EVENT_FLAG_DISABLE)
		dev->nr_calls++;
}

unsigned trusting_packed(struct trusting *dev, unsigned batch)
{
	struct bf_chain chains[MAX_BATCH];
	struct bf_done done[MAX_BATCH];
	uint16_t lengths[MAX_BATCH];
	struct iovec iov[64];
	unsigned nr = pop_packed(dev, chains, batch, iov, lengths);

	if (nr == 0)
		return 0;
	for (unsigned i = 0; i < nr; i++)
		done[i] = (struct bf_done){ chains[i].head, 0 };
	push_packed(dev, done, nr, lengths);
	notify_packed(dev);
	return nr;
}
