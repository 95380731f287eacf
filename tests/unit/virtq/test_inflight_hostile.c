/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An in-flight region that the front end has written into: refused with a reason, or bounded; never
 * followed out of its part, never without end. And regions that are no more than old.
 */
#include "fake_packed.h"

#include "lib/virtq/inflight.h"

#define RING    8
#define ENTRIES 16

static struct fake_packed p; /* its fake alone, for a split ring */
static struct fake *fake = &p.fake;
static uint64_t memory_of_part[(32 + ENTRIES * 32 + 64) / 8 + 8];
static struct bf_inflight_split *split;
static struct bf_inflight_packed *packed;
static const char *reason;

static int start(void)
{
	const struct bf_virtq_extras extras = {
		.log_fd = -1, .post_fd = -1, .inflight = split, .inflight_size = ENTRIES
	};

	reason = NULL;
	return bf_virtq_start_with(fake->vq, &fake->setup, &extras, NULL, &reason);
}

static void init_split(uint16_t base)
{
	memset(memory_of_part, 0, sizeof(memory_of_part));
	split = (void *)memory_of_part;
	packed = (void *)memory_of_part;
	fake_init(fake, RING, base, 1ull << VIRTIO_RING_F_INDIRECT_DESC);
	bf_virtq_stop(fake->vq);
	for (uint16_t i = 0; i < RING; i++)
		set_desc(fake, i, 0x1000 + 64u * i, 64, 0, 0);
}

static void init_packed(void)
{
	memset(memory_of_part, 0, sizeof(memory_of_part));
	split = (void *)memory_of_part;
	packed = (void *)memory_of_part;
	packed_init(&p, RING, INDIRECT_DESC);
	bf_virtq_stop(fake->vq);
}

/* A region in use, with nothing in flight. */
static void use_split(void)
{
	assert_int_equal(start(), 0);
	bf_virtq_stop(fake->vq);
	assert_int_equal(split->version, 1);
	assert_int_equal(split->desc_num, ENTRIES);
}

static void use_packed(void)
{
	assert_int_equal(start(), 0);
	bf_virtq_stop(fake->vq);
	assert_int_equal(packed->version, 1);
	assert_int_equal(packed->desc_num, ENTRIES);
	for (unsigned i = 0; i < ENTRIES; i++)
		assert_int_equal(packed->desc[i].next, i + 1);
}

static void refused(void)
{
	assert_int_equal(start(), -EINVAL);
	assert_non_null(reason);
}

/* Pop all that there is: how many, or the error. */
static int pop_all(uint16_t *heads)
{
	struct iovec iov[64];
	int nr = 0;

	for (;;) {
		struct bf_chain chain = { .iov = iov, .nr_iov = 64 };
		int ret = bf_virtq_pop(fake->vq, &chain);

		if (ret < 0)
			return ret;
		if (!ret)
			return nr;
		assert_true(nr < RING);
		heads[nr++] = chain.head;
	}
}

static void split_regions_that_contradict_themselves(void **state)
{
	(void)state;
	init_split(100);
	use_split();
	assert_int_equal(split->used_idx, 100);

	split->version = 2;
	refused();
	split->version = 1;
	split->desc_num = RING - 1;
	refused();
	split->desc_num = ENTRIES;

	/* Further ahead than the ring is long, with something in flight. */
	split->desc[3].inflight = 1;
	split->used_idx = 100 - RING - 1;
	refused();
	split->used_idx = 101;
	refused();
	/* The list of the batch: out of the ring, a loop. */
	split->used_idx = 98;
	split->last_batch_head = RING;
	refused();
	split->last_batch_head = 0xffff;
	refused();
	split->last_batch_head = 5;
	split->desc[5].next = 5;
	refused();
	split->desc[5].next = ENTRIES;
	refused();
	split->desc[5].next = 6;
	assert_int_equal(start(), 0);
	bf_virtq_stop(fake->vq);
	assert_int_equal(split->used_idx, 100);
	/* As it was: refused regions are not changed. */
	assert_int_equal(split->desc[3].inflight, 1);
	fake_done(fake);
}

static void split_requests_are_read_from_the_ring(void **state)
{
	uint16_t heads[RING];

	(void)state;
	init_split(0xffff);
	use_split();
	split->desc[6].inflight = 1;
	split->desc[6].counter = 7;
	split->desc[2].inflight = 0xff; /* not zero is set */
	split->desc[2].counter = UINT64_MAX;
	split->desc[4].inflight = 1;
	split->desc[4].counter = 3;
	split->desc[RING].inflight = 1; /* behind the ring: not looked at */
	/* A new one that is popped behind them. */
	fake->avail[1] = 2; /* 0xffff and 3 */
	offer(fake, 1);
	assert_int_equal(start(), 0);
	assert_true(bf_virtq_has_work(fake->vq));
	assert_int_equal(pop_all(heads), 4);
	assert_int_equal(heads[0], 4);
	assert_int_equal(heads[1], 6);
	assert_int_equal(heads[2], 2);
	assert_int_equal(heads[3], 1);
	for (unsigned i = 0; i < 4; i++)
		bf_virtq_push(fake->vq, heads[i], 0);
	bf_virtq_notify(fake->vq);
	assert_int_equal(fake->used[1], (uint16_t)(0xffff + 4));
	assert_int_equal(split->used_idx, (uint16_t)(0xffff + 4));
	for (unsigned i = 0; i < RING; i++)
		assert_int_equal(split->desc[i].inflight, 0);
	fake_done(fake);
}

/* What was popped again goes through the same checks as what is new. */
static void split_request_that_is_bad_by_now(void **state)
{
	uint16_t heads[RING];

	(void)state;
	init_split(0);
	use_split();
	split->desc[6].inflight = 1;
	set_desc(fake, 6, HOLE, 64, 0, 0);
	assert_int_equal(start(), 0);
	assert_int_equal(pop_all(heads), -EFAULT);
	bf_virtq_stop(fake->vq);
	set_desc(fake, 6, 0, 64, NEXT, 6);
	assert_int_equal(start(), 0);
	assert_int_equal(pop_all(heads), -ELOOP);
	fake_done(fake);
}

/* The ring was reset, and the front end brings the old region: nothing was in flight, so it is used anew. */
static void split_region_of_another_time(void **state)
{
	uint16_t heads[RING];

	(void)state;
	init_split(0);
	use_split();
	split->used_idx = 4711;
	offer(fake, 3);
	assert_int_equal(start(), 0);
	assert_int_equal(split->used_idx, 0);
	assert_int_equal(pop_all(heads), 1);
	assert_int_equal(heads[0], 3);
	fake_done(fake);
}

/* A fresh region and a ring that does not begin at zero: a migration. Nothing is in doubt. */
static void split_fresh_region_of_a_ring_that_goes_on(void **state)
{
	uint16_t heads[RING];

	(void)state;
	init_split(5);
	offer(fake, 0);
	assert_int_equal(start(), 0);
	assert_int_equal(split->used_idx, 5);
	assert_int_equal(pop_all(heads), 1);
	assert_int_equal(split->desc[0].inflight, 1);
	/* The process dies; its successor finds the request. */
	bf_virtq_stop(fake->vq);
	assert_int_equal(start(), 0);
	assert_int_equal(pop_all(heads), 1);
	assert_int_equal(heads[0], 0);
	fake_done(fake);
}

static void parts_that_are_too_small(void **state)
{
	struct bf_virtq_extras extras = { .log_fd = -1, .post_fd = -1, .inflight_size = RING - 1 };

	(void)state;
	init_split(0);
	extras.inflight = split;
	assert_int_equal(bf_virtq_start_with(fake->vq, &fake->setup, &extras, NULL, &reason),
			 -EINVAL);
	fake_done(fake);
	init_packed();
	extras.inflight = packed;
	assert_int_equal(bf_virtq_start_with(fake->vq, &fake->setup, &extras, NULL, &reason),
			 -EINVAL);
	fake_done(fake);
}

/* One request of two descriptors in flight: entries 0 and 1, id 5. */
static void in_flight_packed(void)
{
	uint16_t heads[RING];

	init_packed();
	assert_int_equal(start(), 0);
	put(&p, 0x1000, 16, NEXT, 5);
	put(&p, 0x2000, 32, WRITE, 5);
	assert_int_equal(pop_all(heads), 1);
	bf_virtq_stop(fake->vq);
	assert_int_equal(packed->free_head, 2);
	assert_int_equal(packed->old_free_head, 2);
	assert_int_equal(packed->desc[0].inflight, 1);
	assert_int_equal(packed->desc[0].num, 2);
	assert_int_equal(packed->desc[0].last, 1);
	assert_int_equal(packed->desc[1].addr, 0x2000);
	assert_int_equal(packed->desc[1].len, 32);
	assert_int_equal(packed->desc[1].flags & WRITE, WRITE);
	assert_int_equal(packed->desc[1].id, 5);
}

static void packed_regions_that_contradict_themselves(void **state)
{
	struct bf_inflight_packed good;
	struct bf_inflight_packed_desc entries[ENTRIES];
	uint16_t heads[RING];

	(void)state;
	in_flight_packed();
	good = *packed;
	memcpy(entries, packed->desc, sizeof(entries));
#define SPOILT(...)                                             \
	do {                                                    \
		__VA_ARGS__;                                    \
		refused();                                      \
		memcpy(packed, &good, sizeof(good));            \
		memcpy(packed->desc, entries, sizeof(entries)); \
	} while (0)
	SPOILT(packed->version = 2);
	SPOILT(packed->desc_num = RING - 1);
	SPOILT(packed->used_idx = RING);
	SPOILT(packed->old_used_idx = RING);
	SPOILT(packed->used_idx = 0x8000 | 1);
	SPOILT(packed->old_free_head = ENTRIES + 1);
	SPOILT(packed->old_free_head = 0xffff);
	SPOILT(packed->desc[7].next = 3);           /* a loop */
	SPOILT(packed->desc[7].next = ENTRIES + 1); /* out of it */
	SPOILT(packed->desc[0].num = 0);
	SPOILT(packed->desc[0].num = RING + 1);
	SPOILT(packed->desc[0].num = 0xffff);
	SPOILT(packed->desc[0].num = 3);  /* into the free list */
	SPOILT(packed->desc[0].next = 0); /* itself */
	SPOILT(packed->desc[0].next = ENTRIES);
	SPOILT(packed->desc[0].next = 0xffff);
	SPOILT(packed->desc[1].id = RING);
	SPOILT(packed->desc[1].id = 0xffff);
	SPOILT(packed->old_free_head = 3; packed->desc[2] = packed->desc[0];
	       packed->desc[2].next = 1); /* two that share an entry */
	SPOILT(packed->old_free_head = 3; packed->desc[2].inflight = 1; packed->desc[2].num = 1;
	       packed->desc[2].id = 5); /* two of one name */
	assert_int_equal(start(), 0);
	assert_int_equal(pop_all(heads), 1);
	assert_int_equal(heads[0], 5);
	fake_done(fake);
}

/* The copies are what is given again, and go through the same checks as what the driver wrote. */
static void packed_requests_are_read_from_the_copies(void **state)
{
	struct iovec iov[8];
	struct bf_chain chain = { .iov = iov, .nr_iov = 8 };
	uint16_t heads[RING];

	(void)state;
	in_flight_packed();
	p.ring[0].addr = p.ring[1].addr = HOLE;
	assert_int_equal(start(), 0);
	/* Not what is written after the start, either. */
	packed->desc[0].addr = HOLE;
	assert_int_equal(bf_virtq_pop(fake->vq, &chain), 1);
	assert_int_equal(chain.nr_out, 1);
	assert_int_equal(chain.nr_in, 1);
	assert_ptr_equal(iov[0].iov_base, at(fake, 0x1000));
	assert_ptr_equal(iov[1].iov_base, at(fake, 0x2000));
	assert_int_equal(chain.out_len, 16);
	assert_int_equal(chain.in_len, 32);
	bf_virtq_stop(fake->vq);
	assert_int_equal(start(), 0);
	assert_int_equal(pop_all(heads), -EFAULT);
	bf_virtq_stop(fake->vq);
	packed->desc[0].addr = 0x1000;
	packed->desc[1].flags |= INDIRECT;
	assert_int_equal(start(), 0);
	assert_int_equal(pop_all(heads), -EBADMSG);
	fake_done(fake);
}

static void packed_indirect_requests_come_again(void **state)
{
	struct iovec iov[8];
	struct bf_chain chain = { .iov = iov, .nr_iov = 8 };

	(void)state;
	init_packed();
	assert_int_equal(start(), 0);
	put_indirect(&p, TABLES, 0, (struct raw_packed){ 0x1000, 16, 0, 0 });
	put_indirect(&p, TABLES, 1, (struct raw_packed){ 0x2000, 32, 0, WRITE });
	put(&p, TABLES, 32, INDIRECT, 2);
	assert_int_equal(bf_virtq_pop(fake->vq, &chain), 1);
	bf_virtq_stop(fake->vq);
	assert_int_equal(start(), 0);
	chain.nr_iov = 8;
	assert_int_equal(bf_virtq_pop(fake->vq, &chain), 1);
	assert_int_equal(chain.head, 2);
	assert_ptr_equal(iov[0].iov_base, at(fake, 0x1000));
	assert_ptr_equal(iov[1].iov_base, at(fake, 0x2000));
	fake_done(fake);
}

/* Entries that an implementation lost are found again: the region lasts as long as the ring. */
static void packed_lost_entries_come_back(void **state)
{
	uint16_t heads[RING];

	(void)state;
	init_packed();
	use_packed();
	packed->free_head = packed->old_free_head = ENTRIES;
	assert_int_equal(start(), 0);
	for (uint16_t i = 0; i < RING; i++)
		put(&p, 0x1000, 16, 0, i);
	assert_int_equal(pop_all(heads), RING);
	bf_virtq_stop(fake->vq);
	assert_int_equal(start(), 0);
	assert_int_equal(pop_all(heads), RING);
	for (uint16_t i = 0; i < RING; i++)
		assert_int_equal(heads[i], i);
	fake_done(fake);
}

/* Anything at all. What starts must run, and end. */
static void noise(bool is_packed)
{
	uint8_t *bytes = (uint8_t *)memory_of_part;
	size_t len = is_packed ? 32 + 32 * ENTRIES : 16 + 16 * ENTRIES;
	unsigned started = 0;

	srand(4);
	for (unsigned round = 0; round < 4000; round++) {
		unsigned nr = 1 + (unsigned)rand() % 12;
		uint16_t heads[RING];
		int got;

		if (is_packed)
			in_flight_packed();
		else
			init_split((uint16_t)rand());
		if (!is_packed)
			use_split();
		while (nr--)
			bytes[8 + (unsigned)rand() % (len - 8)] =
				(uint8_t)(rand() % 2 ? rand() % 20 : rand());
		split->version = 1;
		if (!is_packed && rand() % 4) {
			split->desc_num = ENTRIES;
			split->desc[rand() % RING].inflight = 1;
			split->used_idx = (uint16_t)(fake->used[1] - (unsigned)rand() % 10);
		}
		if (!start()) {
			started++;
			got = pop_all(heads);
			for (int i = 0; i < got; i++)
				bf_virtq_push(fake->vq, heads[i], 0);
			bf_virtq_notify(fake->vq);
			assert_true(bf_virtq_in_flight(fake->vq) <= RING);
		}
		fake_done(fake);
	}
	/* Both happen. */
	if (started < 100 || started > 3900)
		fail_msg("%u of 4000 started", started);
}

static void noise_in_a_split_region(void **state)
{
	(void)state;
	noise(false);
}

static void noise_in_a_packed_region(void **state)
{
	(void)state;
	noise(true);
}

/* While the ring runs the region is written, and not looked at. */
static void a_running_ring_does_not_read_it(void **state)
{
	uint16_t heads[RING];

	(void)state;
	init_packed();
	assert_int_equal(start(), 0);
	for (unsigned round = 0; round < 3 * RING; round++) {
		memset(memory_of_part, (int)round * 37, 32 + 32 * ENTRIES);
		put(&p, 0x1000, 16, NEXT, (uint16_t)(round % RING));
		put(&p, 0x2000, 16, 0, (uint16_t)(round % RING));
		assert_int_equal(pop_all(heads), 1);
		memset(memory_of_part, (int)round * 91, 32 + 32 * ENTRIES);
		bf_virtq_push(fake->vq, heads[0], 0);
		memset(memory_of_part, 0xff, 32 + 32 * ENTRIES);
		bf_virtq_notify(fake->vq);
	}
	fake_done(fake);
	init_split(0);
	assert_int_equal(start(), 0);
	for (unsigned round = 0; round < 3 * RING; round++) {
		memset(memory_of_part, (int)round * 37, 16 + 16 * ENTRIES);
		offer(fake, (uint16_t)(round % RING));
		assert_int_equal(pop_all(heads), 1);
		memset(memory_of_part, 0xff, 16 + 16 * ENTRIES);
		bf_virtq_push(fake->vq, heads[0], 0);
		bf_virtq_notify(fake->vq);
		assert_int_equal(fake->used[1], round + 1);
	}
	fake_done(fake);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(split_regions_that_contradict_themselves),
		cmocka_unit_test(split_requests_are_read_from_the_ring),
		cmocka_unit_test(split_request_that_is_bad_by_now),
		cmocka_unit_test(split_region_of_another_time),
		cmocka_unit_test(split_fresh_region_of_a_ring_that_goes_on),
		cmocka_unit_test(parts_that_are_too_small),
		cmocka_unit_test(packed_regions_that_contradict_themselves),
		cmocka_unit_test(packed_requests_are_read_from_the_copies),
		cmocka_unit_test(packed_indirect_requests_come_again),
		cmocka_unit_test(packed_lost_entries_come_back),
		cmocka_unit_test(noise_in_a_split_region),
		cmocka_unit_test(noise_in_a_packed_region),
		cmocka_unit_test(a_running_ring_does_not_read_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
