/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * lib/virtq/driver_ring.c against a device of a few lines: random schedules over many turns of the
 * 16-bit indices, both ways of notifying, and a device that lies (robustness HB-4).
 */
#include "../support.h"

#include "base/shared.h"
#include "virtq/driver_ring.h"

#define SIZE 16
#define GPA  0x100000ull

struct fixture {
	struct bf_driver_ring ring;
	uint8_t *memory;
	uint16_t device_avail, device_used; /* the device's own positions */
};

static struct fixture *make(bool event_idx, bool indirect)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct bf_driver_layout layout;
	uint64_t features;

	bf_driver_ring_layout(SIZE, false, &layout);
	assert_int_equal(layout.size % 4096, 0);
	f->memory = aligned_alloc(4096, layout.size);
	memset(f->memory, 0, layout.size);
	features = (event_idx ? 1ull << VIRTIO_RING_F_EVENT_IDX : 0) |
		   (indirect ? 1ull << VIRTIO_RING_F_INDIRECT_DESC : 0);
	assert_int_equal(bf_driver_ring_init(&f->ring, SIZE, f->memory, GPA, features), 0);
	return f;
}

static void drop(struct fixture *f)
{
	bf_driver_ring_done(&f->ring);
	free(f->memory);
	free(f);
}

/* The device: takes one head, or -1. */
static int device_pop(struct fixture *f)
{
	if (f->device_avail == bf_load16(&f->ring.avail->idx))
		return -1;
	return bf_load16(&f->ring.avail->ring[f->device_avail++ % SIZE]);
}

static void device_push(struct fixture *f, uint32_t id, uint32_t len)
{
	f->ring.used->ring[f->device_used % SIZE] = (struct bf_used_elem){ bf_to_le32(id),
									  bf_to_le32(len) };
	bf_store16(&f->ring.used->idx, ++f->device_used);
}

/* Descriptors of a chain; checks that writable ones follow readable ones. */
static unsigned device_walk(struct fixture *f, uint16_t head, unsigned *nr_in)
{
	const struct bf_desc *table = f->ring.desc;
	uint16_t at = head;
	unsigned nr = 0;

	if (bf_load16(&table[at].flags) & VRING_DESC_F_INDIRECT) {
		uint64_t gpa = bf_from_le64(table[at].addr);

		table = (const void *)(f->memory + (gpa - GPA));
		at = 0;
	}
	*nr_in = 0;
	for (;;) {
		uint16_t flags = bf_load16(&table[at].flags);

		nr++;
		if (flags & VRING_DESC_F_WRITE)
			++*nr_in;
		else
			assert_int_equal(*nr_in, 0);
		assert_true(nr <= SIZE);
		if (!(flags & VRING_DESC_F_NEXT))
			return nr;
		at = bf_load16(&table[at].next);
	}
}

static void random_schedule(bool event_idx, bool indirect)
{
	struct fixture *f = make(event_idx, indirect);
	unsigned char outstanding[400000 / 8] = { 0 };
	int held[SIZE], nr_held = 0;
	uintptr_t next = 1, got = 0;
	unsigned seed = 12345;

	while (got < 200000) {
		struct bf_piece pieces[4] = { { GPA, 16 }, { GPA + 64, 4096 }, { GPA, 1 }, { GPA, 1 } };
		unsigned nr = 1 + (unsigned)rand_r(&seed) % 4;
		unsigned nr_out = (unsigned)rand_r(&seed) % (nr + 1), nr_in;
		uint32_t len = 0;
		void *cookie;
		int head;

		switch (rand_r(&seed) % 4) {
		case 0:
			if (bf_driver_ring_add(&f->ring, pieces, nr_out, nr - nr_out, (void *)next) == 0) {
				outstanding[next / 8] |= (unsigned char)(1 << next % 8);
				next++;
			}
			break;
		case 1:
			bf_driver_ring_publish(&f->ring);
			break;
		case 2:
			head = device_pop(f);
			if (head >= 0) {
				assert_in_range(device_walk(f, (uint16_t)head, &nr_in), 1, 4);
				held[nr_held++] = head;
			}
			break;
		case 3: /* gives back any of those it holds */
			if (nr_held) {
				int i = rand_r(&seed) % nr_held;

				device_push(f, (uint32_t)held[i], (uint32_t)held[i] + 100);
				held[i] = held[--nr_held];
			}
			break;
		}
		cookie = bf_driver_ring_get(&f->ring, &len);
		if (cookie) {
			uintptr_t which = (uintptr_t)cookie;

			assert_true(outstanding[which / 8] & 1 << which % 8);
			outstanding[which / 8] &= (unsigned char)~(1 << which % 8);
			assert_in_range(len, 100, 100 + SIZE);
			got++;
		}
		assert_int_equal(f->ring.broken, 0);
	}
	drop(f);
}

static void random_schedules(void **state)
{
	(void)state;
	random_schedule(false, false);
	random_schedule(true, false);
	random_schedule(false, true);
	random_schedule(true, true);
}

static void full_ring(void **state)
{
	struct fixture *f = make(false, false);
	struct bf_piece pieces[3] = { { GPA, 1 }, { GPA, 1 }, { GPA, 1 } };

	(void)state;
	for (unsigned i = 0; i < SIZE / 3; i++)
		assert_int_equal(bf_driver_ring_add(&f->ring, pieces, 1, 2, f), 0);
	assert_int_equal(bf_driver_ring_add(&f->ring, pieces, 1, 2, f), -ENOSPC);
	assert_int_equal(bf_driver_ring_add(&f->ring, pieces, 1, 0, f), 0);
	assert_int_equal(bf_driver_ring_add(&f->ring, pieces, 1, 0, f), -ENOSPC);
	drop(f);
}

static void kick_only_if_wanted(void **state)
{
	struct bf_piece piece = { GPA, 1 };
	struct fixture *f = make(false, false);

	(void)state;
	assert_false(bf_driver_ring_publish(&f->ring));
	bf_driver_ring_add(&f->ring, &piece, 1, 0, f);
	assert_true(bf_driver_ring_publish(&f->ring));
	bf_store16(&f->ring.used->flags, VRING_USED_F_NO_NOTIFY);
	bf_driver_ring_add(&f->ring, &piece, 1, 0, f);
	assert_false(bf_driver_ring_publish(&f->ring));
	drop(f);

	f = make(true, false);
	for (unsigned i = 0; i < 4; i++) { /* avail_event 2: the entry with number 2 is the one */
		bf_store16(bf_avail_event(f->ring.used, SIZE), 2);
		bf_driver_ring_add(&f->ring, &piece, 1, 0, f);
		assert_int_equal(bf_driver_ring_publish(&f->ring), i == 2);
	}
	drop(f);
}

static void calls(void **state)
{
	struct bf_piece piece = { GPA, 1 };
	struct fixture *f = make(true, false);
	uint16_t event;

	(void)state;
	assert_false(bf_driver_ring_want_calls(&f->ring, true));
	assert_int_equal(bf_load16(bf_used_event(f->ring.avail, SIZE)), 0);
	bf_driver_ring_want_calls(&f->ring, false);
	event = bf_load16(bf_used_event(f->ring.avail, SIZE));
	assert_false(bf_ring_passes(event, 5, 0));
	bf_driver_ring_add(&f->ring, &piece, 1, 0, f);
	bf_driver_ring_publish(&f->ring);
	device_push(f, (uint32_t)device_pop(f), 0);
	assert_true(bf_driver_ring_want_calls(&f->ring, true));
	drop(f);
}

static void a_device_that_lies(void **state)
{
	(void)state;
	for (unsigned lie = 0; lie < 6; lie++) {
		struct bf_piece piece = { GPA, 1 };
		struct fixture *f = make(false, false);
		uint32_t head;

		bf_driver_ring_add(&f->ring, &piece, 1, 0, f);
		bf_driver_ring_publish(&f->ring);
		head = (uint32_t)device_pop(f);
		switch (lie) {
		case 0: /* id beyond the ring */
			device_push(f, SIZE, 0);
			break;
		case 1:
			device_push(f, UINT32_MAX, 0);
			break;
		case 2: /* not outstanding */
			device_push(f, head + 1, 0);
			break;
		case 3: /* the same twice */
			device_push(f, head, 0);
			device_push(f, head, 0);
			assert_ptr_equal(bf_driver_ring_get(&f->ring, NULL), f);
			break;
		case 4: /* index too far ahead */
			bf_store16(&f->ring.used->idx, SIZE + 1);
			break;
		case 5: /* index backwards */
			bf_store16(&f->ring.used->idx, 0xffff);
			break;
		}
		assert_null(bf_driver_ring_get(&f->ring, NULL));
		assert_int_equal(f->ring.broken, -EPIPE);
		assert_null(bf_driver_ring_get(&f->ring, NULL));
		drop(f);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_schedules),
		cmocka_unit_test(full_ring),
		cmocka_unit_test(kick_only_if_wanted),
		cmocka_unit_test(calls),
		cmocka_unit_test(a_device_that_lies),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
