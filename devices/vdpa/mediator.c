/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Mediated split rings (virtio 1.2, 2.7). Control context. Owns a position in four rings, and none
 * of the memory. Makes no system call and never looks at descriptors or buffers: ids pass through,
 * and the device checks them against the guest's table, which it reads itself.
 *
 * Positions
 *
 * "fed" is the guest's available index up to which entries were copied, "drained" the guest's used
 * index that was published. The device's indices are these minus base. Always
 *	0 <= fed - drained <= size		(mod 65536)
 * so a guest that is ahead of what it got back by more than the ring, or that took entries back,
 * and a device that returned more than it got, are told from honest ones by one comparison each.
 * That difference is also what bounds every loop here, whatever the two others write meanwhile.
 *
 * Why no notification is lost
 *
 * feed() asks for the next kick, and only then looks; it leaves when a look found nothing. The
 * driver publishes its index, and only then looks whether a kick is asked for (2.7.13.4.1). Between
 * the two steps each side has a full barrier, so at least one sees the other. drain() does the same
 * toward the device with interrupts. The two halves that tell, RING and CALL, are the other side of
 * that bargain: publish, full barrier, look whether it is wanted. The loops ask once more after they
 * published last, and that barrier serves for both.
 */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mediator.h"

#define MAX_SIZE 32768
/* virtio 1.2, 2.7.6 and 2.7.8: avail.flags VIRTQ_AVAIL_F_NO_INTERRUPT, used.flags NO_NOTIFY. */
#define FLAG_QUIET 1

/* Little-endian, shared. The event words follow the rings: events() below. */
struct avail_ring {
	uint16_t flags, idx, id[];
};

struct used_ring {
	uint16_t flags, idx;
	struct used_entry {
		uint32_t id, len;
	} entry[];
};

struct mediator {
	uint16_t size, base, fed, drained;
	bool event_idx, may_go_direct, broken;
	struct avail_ring *guest_avail, *shadow_avail;
	struct used_ring *guest_used, *shadow_used;
};

size_t mediator_avail_size(uint16_t size)
{
	return 6 + 2 * (size_t)size;
}

size_t mediator_used_size(uint16_t size)
{
	return 6 + 8 * (size_t)size;
}

static uint16_t load(const uint16_t *word)
{
	return le16toh(__atomic_load_n(word, __ATOMIC_RELAXED));
}

static void store(uint16_t *word, uint16_t value)
{
	__atomic_store_n(word, htole16(value), __ATOMIC_RELAXED);
}

/* Partner: publish() of whoever writes this index. What it covers is visible after. */
static uint16_t load_index(const uint16_t *word)
{
	return le16toh(__atomic_load_n(word, __ATOMIC_ACQUIRE));
}

/* Partner: the acquiring load of the guest's driver, or of the device. */
static void publish(uint16_t *word, uint16_t value)
{
	__atomic_store_n(word, htole16(value), __ATOMIC_RELEASE);
}

/* used_event, and avail_event: which entry shall be told. */
static uint16_t *used_event(struct mediator *m, struct avail_ring *avail)
{
	return &avail->id[m->size];
}

static uint16_t *avail_event(struct mediator *m, struct used_ring *used)
{
	return (uint16_t *)&used->entry[m->size];
}

int mediator_new(const struct mediator_setup *setup, struct mediator **out)
{
	struct mediator *m;

	if (!setup->size || setup->size > MAX_SIZE || setup->size & (setup->size - 1) ||
	    !setup->base)
		return -EINVAL;
	if ((uintptr_t)setup->guest_avail % 2 || (uintptr_t)setup->guest_used % 4 ||
	    (uintptr_t)setup->shadow_avail % 2 || (uintptr_t)setup->shadow_used % 4)
		return -EINVAL;
	m = malloc(sizeof(*m));
	if (!m)
		return -ENOMEM;
	*m = (struct mediator){ .size = setup->size,
				.base = setup->base,
				.fed = setup->base,
				.drained = setup->base,
				.event_idx = setup->event_idx,
				.may_go_direct = setup->may_go_direct,
				.guest_avail = setup->guest_avail,
				.guest_used = setup->guest_used,
				.shadow_avail = setup->shadow_avail,
				.shadow_used = setup->shadow_used };
	memset(m->shadow_avail, 0, mediator_avail_size(m->size));
	memset(m->shadow_used, 0, mediator_used_size(m->size));
	/* The device that served the ring before may have asked for silence. */
	store(&m->guest_used->flags, 0);
	*out = m;
	return 0;
}

void mediator_free(struct mediator *m)
{
	free(m);
}

uint16_t mediator_base(const struct mediator *m)
{
	return m->drained;
}

/* virtio 1.2, 2.7.7.1: did the move from @before to @now pass what is to be told? */
static bool passed(uint16_t event, uint16_t now, uint16_t before)
{
	return (uint16_t)(now - event - 1) < (uint16_t)(now - before);
}

/* After the barrier of an ask() that followed the publication of @now. */
static bool is_wanted(const struct mediator *m, const uint16_t *flags, const uint16_t *event,
		      uint16_t now, uint16_t before)
{
	if (now == before)
		return false;
	if (m->event_idx)
		return passed(load(event), now, before);
	return !(load(flags) & FLAG_QUIET);
}

/* Nothing was fed beyond 0, and all that was fed is back. */
static int direct(const struct mediator *m)
{
	return m->may_go_direct && !m->fed && !m->drained ? MEDIATOR_DIRECT : 0;
}

/* Without event indices nothing has to be asked for: the flags are 0 for good. */
static void ask(const struct mediator *m, uint16_t *event, uint16_t idx)
{
	if (m->event_idx)
		store(event, idx);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* How many entries the guest has for the device, without those that wait for going direct. */
static int look_at_guest(const struct mediator *m)
{
	uint16_t in_flight = m->fed - m->drained;
	uint16_t nr = load_index(&m->guest_avail->idx) - m->fed;
	uint16_t nr_to_0 = -m->fed;

	if (nr > m->size - in_flight)
		return -EPROTO;
	/* base is not 0, so fed is 0 only after the guest's index came around to it. */
	return m->may_go_direct && nr > nr_to_0 ? nr_to_0 : nr;
}

static void copy_avail(struct mediator *m, unsigned nr)
{
	uint16_t mask = m->size - 1;

	for (; nr; nr--, m->fed++)
		store(&m->shadow_avail->id[(uint16_t)(m->fed - m->base) & mask],
		      load(&m->guest_avail->id[m->fed & mask]));
	publish(&m->shadow_avail->idx, m->fed - m->base);
}

int mediator_feed(struct mediator *m)
{
	uint16_t before = m->fed - m->base;
	int nr, todo = 0;

	if (m->broken)
		return -EPROTO;
	do {
		ask(m, avail_event(m, m->guest_used), m->fed);
		nr = look_at_guest(m);
		if (nr > 0)
			copy_avail(m, (unsigned)nr);
	} while (nr > 0);
	if (nr < 0) {
		m->broken = true;
		return nr;
	}
	if (is_wanted(m, &m->shadow_used->flags, avail_event(m, m->shadow_used), m->fed - m->base,
		      before))
		todo |= MEDIATOR_RING;
	return todo | direct(m);
}

static int look_at_device(const struct mediator *m)
{
	uint16_t in_flight = m->fed - m->drained;
	uint16_t nr = load_index(&m->shadow_used->idx) - (uint16_t)(m->drained - m->base);

	return nr > in_flight ? -EPROTO : nr;
}

/* An id outside the ring is not passed on: nothing of it was ever in the guest's table. */
static int copy_used(struct mediator *m, unsigned nr)
{
	uint16_t mask = m->size - 1, idx = m->drained;

	for (; nr; nr--, idx++) {
		const struct used_entry *from =
			&m->shadow_used->entry[(uint16_t)(idx - m->base) & mask];
		struct used_entry *to = &m->guest_used->entry[idx & mask];
		uint32_t id = __atomic_load_n(&from->id, __ATOMIC_RELAXED);

		if (le32toh(id) >= m->size)
			return -EPROTO;
		__atomic_store_n(&to->id, id, __ATOMIC_RELAXED);
		__atomic_store_n(&to->len, __atomic_load_n(&from->len, __ATOMIC_RELAXED),
				 __ATOMIC_RELAXED);
	}
	m->drained = idx;
	publish(&m->guest_used->idx, idx);
	return 0;
}

int mediator_drain(struct mediator *m)
{
	uint16_t before = m->drained;
	int nr, ret = 0, todo = 0;

	if (m->broken)
		return -EPROTO;
	do {
		ask(m, used_event(m, m->shadow_avail), m->drained - m->base);
		nr = look_at_device(m);
		if (nr > 0)
			ret = copy_used(m, (unsigned)nr);
	} while (nr > 0 && !ret);
	if (nr < 0 || ret) {
		m->broken = true;
		return -EPROTO;
	}
	if (is_wanted(m, &m->guest_avail->flags, used_event(m, m->guest_avail), m->drained, before))
		todo |= MEDIATOR_CALL;
	return todo | direct(m);
}
