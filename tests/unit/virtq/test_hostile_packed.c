/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Packed rings that a hostile driver makes: each row breaks one rule and says what the device must
 * answer. In every case the ring is broken for good, the error eventfd is signalled once, and nothing
 * else. And a driver that changes everything at any moment, on a thread of its own.
 */
#include <pthread.h>

#include "fake_packed.h"

#define SIZE 7
/* Indirect tables: in the region of the buffers, where the device goes the short way, or in another. */
#define NEAR (32 * KIB)
#define FAR  TABLES
static uint64_t table = FAR;

struct hostile {
	const char *what;
	int error;
	void (*make)(struct fake_packed *p);
	bool no_indirect; /* the feature was not agreed */
};

/* CVE-2018-1059: begins in memory, ends in the hole. */
static void into_the_hole(struct fake_packed *p)
{
	put(p, HOLE - 16, 17, 0, 0);
}

static void over_the_hole(struct fake_packed *p)
{
	put(p, HOLE - 16, HOLE_END - HOLE + 32, WRITE, 0);
}

static void in_the_hole(struct fake_packed *p)
{
	put(p, HOLE, 1, 0, 0);
}

static void beyond_memory(struct fake_packed *p)
{
	put(p, MEMORY_END - 1, 2, 0, 0);
}

static void wraps(struct fake_packed *p)
{
	put(p, UINT64_MAX - 10, 4096, 0, 0);
}

static void four_gigabytes(struct fake_packed *p)
{
	put(p, 0, UINT32_MAX, 0, 0);
}

/* CVE-2020-10725: no bytes, at an address that is not there. */
static void empty_in_the_hole(struct fake_packed *p)
{
	put(p, HOLE + 5, 0, 0, 0);
}

static void second_is_empty_and_wild(struct fake_packed *p)
{
	put(p, 0, 16, NEXT, 0);
	put(p, UINT64_MAX, 0, WRITE, 0);
}

/* CVE-2018-1059 again, by way of an indirect table. */
static void table_into_the_hole(struct fake_packed *p)
{
	put_indirect(p, HOLE - 16, 0, (struct raw_packed){ 0, 16, 0, 0 });
	put(p, HOLE - 16, 32, INDIRECT, 0);
}

static void table_in_the_hole(struct fake_packed *p)
{
	put(p, HOLE, 16, INDIRECT, 0);
}

static void buffer_of_table_into_the_hole(struct fake_packed *p)
{
	put_indirect(p, table, 0, (struct raw_packed){ 0, 16, 0, 0 });
	put_indirect(p, table, 1, (struct raw_packed){ HOLE - 1, 2, 0, WRITE });
	put(p, table, 32, INDIRECT, 0);
}

/* CVE-2019-9547, CVE-2020-14378: a chain that does not end. */
static void circle(struct fake_packed *p)
{
	for (uint16_t i = 0; i < SIZE; i++)
		put(p, 0, 0, NEXT, i);
}

/* The same, with a part of the ring in flight: only what is left may be a chain. */
static void chain_into_what_is_in_flight(struct fake_packed *p)
{
	struct iovec iov[4];
	struct bf_chain chain = { .iov = iov, .nr_iov = 4 };

	for (uint16_t i = 0; i < 4; i++)
		put(p, 0, 16, i < 3 ? NEXT : 0, 3);
	assert_int_equal(bf_virtq_pop(p->fake.vq, &chain), 1);
	for (uint16_t i = 0; i < SIZE - 4; i++)
		put(p, 0, 16, NEXT, i);
	p->ring[p->next.idx].flags = avail_flags(p->next); /* it would end here */
}

/* CVE-2016-6490: a huge table. */
static void table_too_long(struct fake_packed *p)
{
	put(p, 0, 16 * (1024 + 1), INDIRECT, 0);
}

static void table_of_odd_size(struct fake_packed *p)
{
	put_indirect(p, table, 0, (struct raw_packed){ 0, 16, 0, 0 });
	put(p, table, 17, INDIRECT, 0);
}

static void empty_table(struct fake_packed *p)
{
	put(p, table, 0, INDIRECT, 0);
}

static void table_with_a_next(struct fake_packed *p)
{
	put_indirect(p, table, 0, (struct raw_packed){ 0, 16, 0, 0 });
	put(p, table, 16, INDIRECT | NEXT, 0);
	put(p, 0, 16, 0, 0);
}

static void table_in_a_chain(struct fake_packed *p)
{
	put_indirect(p, table, 0, (struct raw_packed){ 0, 16, 0, 0 });
	put(p, 0, 16, NEXT, 0);
	put(p, table, 16, INDIRECT, 0);
}

static void table_not_agreed(struct fake_packed *p)
{
	put_indirect(p, table, 0, (struct raw_packed){ 0, 16, 0, 0 });
	put(p, table, 16, INDIRECT, 0);
}

static void readable_after_writable(struct fake_packed *p)
{
	put(p, 0, 16, NEXT | WRITE, 0);
	put(p, 0, 16, 0, 0);
}

static void readable_after_empty_writable(struct fake_packed *p)
{
	put(p, 0, 0, NEXT | WRITE, 0);
	put(p, 0, 16, 0, 0);
}

static void readable_after_writable_in_a_table(struct fake_packed *p)
{
	put_indirect(p, table, 0, (struct raw_packed){ 0, 16, 0, WRITE });
	put_indirect(p, table, 1, (struct raw_packed){ 0, 16, 0, 0 });
	put(p, table, 32, INDIRECT, 0);
}

static void id_out_of_range(struct fake_packed *p)
{
	put(p, 0, 16, 0, SIZE);
}

static void id_far_out_of_range(struct fake_packed *p)
{
	put(p, 0, 16, NEXT, 0);
	put(p, 0, 16, 0, 0xffff);
}

static void id_of_table_out_of_range(struct fake_packed *p)
{
	put_indirect(p, table, 0, (struct raw_packed){ 0, 16, 0, 0 });
	put(p, table, 16, INDIRECT, SIZE);
}

/* CVE-2026-45782: one request twice, while the device still works on it. */
static void twice_in_flight(struct fake_packed *p)
{
	struct iovec iov[2];
	struct bf_chain chain = { .iov = iov, .nr_iov = 2 };

	put(p, 0, 16, 0, 3);
	assert_int_equal(bf_virtq_pop(p->fake.vq, &chain), 1);
	put(p, 0, 16, 0, 3);
}

/* CVE-2016-5403: more made available than the ring can hold, over what is in flight. */
static void the_ring_twice(struct fake_packed *p)
{
	struct iovec iov[SIZE];
	struct bf_chain chain = { .iov = iov, .nr_iov = SIZE };

	for (unsigned i = 0; i < SIZE; i++)
		put(p, 0, 16, i + 1 < SIZE ? NEXT : 0, 3);
	assert_int_equal(bf_virtq_pop(p->fake.vq, &chain), 1);
	put(p, 0, 16, 0, 4);
}

/* The same, over what was given back and is not visible yet. */
static void over_what_is_not_published(struct fake_packed *p)
{
	struct iovec iov[1];
	struct bf_chain chain = { .iov = iov, .nr_iov = 1 };

	for (uint16_t i = 0; i < SIZE; i++)
		put(p, 0, 16, 0, i);
	for (uint16_t i = 0; i < SIZE; i++) {
		assert_int_equal(bf_virtq_pop(p->fake.vq, &chain), 1);
		bf_virtq_push(p->fake.vq, i, 0);
	}
	put(p, 0, 16, 0, 0);
}

static void too_many_pieces(struct fake_packed *p)
{
	for (unsigned i = 0; i < 5; i++)
		put(p, 0, 16, i < 4 ? NEXT : 0, 0);
}

static void too_many_pieces_by_a_border(struct fake_packed *p)
{
	for (unsigned i = 0; i < 4; i++)
		put(p, FIRST_END - (i == 3 ? 8 : 16), 16, i < 3 ? NEXT : 0, 0);
}

static const struct hostile rows[] = {
	{ "buffer into the hole (CVE-2018-1059)", -EFAULT, into_the_hole, false },
	{ "buffer over the hole (CVE-2018-1059)", -EFAULT, over_the_hole, false },
	{ "buffer in the hole", -EFAULT, in_the_hole, false },
	{ "buffer beyond memory", -EFAULT, beyond_memory, false },
	{ "buffer wraps", -EFAULT, wraps, false },
	{ "buffer of 4 GiB", -EFAULT, four_gigabytes, false },
	{ "empty buffer in the hole (CVE-2020-10725)", -EFAULT, empty_in_the_hole, false },
	{ "second one empty and wild", -EFAULT, second_is_empty_and_wild, false },
	{ "table into the hole (CVE-2018-1059)", -EFAULT, table_into_the_hole, false },
	{ "table in the hole", -EFAULT, table_in_the_hole, false },
	{ "buffer of a table into the hole (CVE-2018-1059)", -EFAULT, buffer_of_table_into_the_hole,
	  false },
	{ "chain without an end (CVE-2019-9547)", -ELOOP, circle, false },
	{ "chain into what is in flight", -ELOOP, chain_into_what_is_in_flight, false },
	{ "table longer than any ring of this size needs (CVE-2016-6490)", -ELOOP, table_too_long,
	  false },
	{ "table of odd size", -EBADMSG, table_of_odd_size, false },
	{ "empty table", -EBADMSG, empty_table, false },
	{ "table with a next", -EBADMSG, table_with_a_next, false },
	{ "table in a chain", -EBADMSG, table_in_a_chain, false },
	{ "table not agreed", -EBADMSG, table_not_agreed, true },
	{ "readable after writable", -EBADMSG, readable_after_writable, false },
	{ "readable after empty writable", -EBADMSG, readable_after_empty_writable, false },
	{ "readable after writable in a table", -EBADMSG, readable_after_writable_in_a_table,
	  false },
	{ "id out of range", -EBADMSG, id_out_of_range, false },
	{ "id far out of range", -EBADMSG, id_far_out_of_range, false },
	{ "id of a table out of range", -EBADMSG, id_of_table_out_of_range, false },
	{ "id twice in flight (CVE-2026-45782)", -EBADMSG, twice_in_flight, false },
	{ "the ring twice (CVE-2016-5403)", -EBADMSG, the_ring_twice, false },
	{ "over what is not published", -EBADMSG, over_what_is_not_published, false },
	{ "too many pieces", -E2BIG, too_many_pieces, false },
	{ "too many pieces by a border", -E2BIG, too_many_pieces_by_a_border, false },
};

/* All descriptors good and available, in this turn or in the other. */
static void repair(struct fake_packed *p, bool wrap)
{
	for (unsigned i = 0; i < SIZE; i++)
		p->ring[i] = (struct raw_packed){ 0, 16, (uint16_t)i,
						  avail_flags((struct place){ i, wrap }) };
}

static void hostile_rings(void **state)
{
	unsigned fds = count_fds();

	(void)state;
	/* In the middle of the ring, so that chains go round its end. */
	for (unsigned i = 0; i < 4 * sizeof(rows) / sizeof(rows[0]); i++) {
		const struct hostile *row = &rows[i / 4];
		struct place start = { i % 2 ? 5 : 0, true };
		struct iovec iov[5];
		struct bf_chain chain = { .iov = iov, .nr_iov = 4 };
		const char *reason = NULL;
		struct fake_packed p;
		int ret;

		table = i / 2 % 2 ? NEAR : FAR;
		/* Beyond the caller's array nothing may be written. */
		iov[4] = (struct iovec){ &p, 12345 };
		packed_init_at(&p, SIZE, start, row->no_indirect ? 0 : INDIRECT_DESC);
		row->make(&p);
		ret = bf_virtq_pop(p.fake.vq, &chain);
		if (ret != row->error)
			fail_msg("%s: expected %d, got %d", row->what, row->error, ret);
		assert_int_equal(iov[4].iov_len, 12345);
		assert_int_equal(bf_virtq_broken(p.fake.vq, &reason), row->error);
		assert_non_null(reason);
		assert_true(strlen(reason) > 10);
		assert_int_equal(signals(p.fake.err_fd), 1);
		/* For good: a repaired ring does not bring it back, and nobody is woken again. */
		for (int wrap = 0; wrap < 2; wrap++) {
			repair(&p, wrap);
			assert_int_equal(bf_virtq_pop(p.fake.vq, &chain), row->error);
			assert_false(bf_virtq_has_work(p.fake.vq));
			assert_false(bf_virtq_want_kicks(p.fake.vq, true));
		}
		assert_int_equal(signals(p.fake.err_fd), 0);
		assert_int_equal(bf_virtq_counters(p.fake.vq)->errors, 1);
		fake_done(&p.fake);
	}
	assert_int_equal(count_fds(), fds);
	assert_int_equal(count_mappings("bf-ring"), 0);
}

/* Flags that say nothing, or speak of the other turn, are no request. */
static void what_is_not_available(void **state)
{
	struct iovec iov[1];
	struct bf_chain chain = { .iov = iov, .nr_iov = 1 };
	const uint16_t flags[2][3] = { { AVAIL, 0, AVAIL | USED }, { USED, 0, AVAIL | USED } };

	(void)state;
	for (unsigned wrap = 0; wrap < 2; wrap++) {
		struct fake_packed p;

		packed_init_at(&p, SIZE, (struct place){ 2, wrap }, 0);
		for (unsigned i = 0; i < 3; i++) {
			p.ring[2].flags = flags[wrap][i];
			assert_int_equal(bf_virtq_pop(p.fake.vq, &chain), 0);
			assert_false(bf_virtq_has_work(p.fake.vq));
		}
		fake_done(&p.fake);
	}
}

/* What is in flight when a ring breaks can still be given back. */
static void in_flight_survives_a_break(void **state)
{
	struct iovec iov[4];
	struct bf_chain chain = { .iov = iov, .nr_iov = 4 };
	struct fake_packed p;

	(void)state;
	packed_init(&p, SIZE, 0);
	put(&p, 0, 16, WRITE, 1);
	assert_int_equal(bf_virtq_pop(p.fake.vq, &chain), 1);
	put(&p, 0, 16, 0, 1000);
	assert_int_equal(bf_virtq_pop(p.fake.vq, &chain), -EBADMSG);
	bf_virtq_push(p.fake.vq, 1, 16);
	assert_true(bf_virtq_notify(p.fake.vq));
	assert_true(is_used(&p, (struct place){ 0, true }));
	assert_int_equal(p.ring[0].id, 1);
	fake_done(&p.fake);
}

/* A full ring is legal; so are a chain and a table as long as the ring. */
static void the_limits_are_legal(void **state)
{
	struct iovec iov[SIZE];
	struct bf_chain chain = { .iov = iov, .nr_iov = SIZE };
	struct fake_packed p;

	(void)state;
	packed_init(&p, SIZE, INDIRECT_DESC);
	for (unsigned i = 0; i < SIZE; i++)
		put(&p, 0, 16, i + 1 < SIZE ? NEXT : 0, i + 1 < SIZE ? 0xffff : SIZE - 1);
	assert_int_equal(bf_virtq_pop(p.fake.vq, &chain), 1);
	assert_int_equal(chain.nr_out, SIZE);
	assert_int_equal(chain.head, SIZE - 1);
	bf_virtq_push(p.fake.vq, SIZE - 1, 0);
	bf_virtq_notify(p.fake.vq);

	for (uint16_t i = 0; i < SIZE; i++)
		put(&p, MEMORY_END - 1, 1, 0, i);
	for (uint16_t i = 0; i < SIZE; i++)
		assert_int_equal(bf_virtq_pop(p.fake.vq, &chain), 1);
	assert_int_equal(bf_virtq_pop(p.fake.vq, &chain), 0);
	assert_int_equal(bf_virtq_in_flight(p.fake.vq), SIZE);
	for (uint16_t i = 0; i < SIZE; i++)
		bf_virtq_push(p.fake.vq, (uint16_t)(SIZE - 1 - i), 0);
	bf_virtq_notify(p.fake.vq);

	/* 2.8.7: of a table's flags only "writable" counts, even where they look like a table. */
	for (unsigned n = 0; n < 2; n++) {
		table = n ? NEAR : FAR;
		for (uint16_t i = 0; i < SIZE; i++)
			put_indirect(&p, table, i,
				     (struct raw_packed){ i, 1, 0xffff, i ? 0xffff : 0xfffd });
		put(&p, table, 16 * SIZE, INDIRECT, 2);
		assert_int_equal(bf_virtq_pop(p.fake.vq, &chain), 1);
		assert_int_equal(chain.nr_out, 1);
		assert_int_equal(chain.nr_in, SIZE - 1);
		assert_int_equal(chain.head, 2);
		bf_virtq_push(p.fake.vq, 2, 0);
		bf_virtq_notify(p.fake.vq);
	}
	fake_done(&p.fake);
}

struct bad_start {
	const char *what;
	int error;
	uint16_t size;
	uint64_t ring, driver, device; /* added to the good addresses */
	uint32_t base;
};

static const struct bad_start starts[] = {
	{ "size 0", -EINVAL, 0, 0, 0, 0, 0x80008000 },
	{ "size 32769", -EINVAL, 32769, 0, 0, 0, 0x80008000 },
	{ "ring not aligned", -EINVAL, SIZE, 8, 0, 0, 0x80008000 },
	{ "driver area not aligned", -EINVAL, SIZE, 0, 2, 0, 0x80008000 },
	{ "device area not aligned", -EINVAL, SIZE, 0, 0, 2, 0x80008000 },
	{ "ring ends outside", -EFAULT, SIZE, 64 * KIB - 16 * (SIZE - 1), 0, 0, 0x80008000 },
	{ "driver area outside", -EFAULT, SIZE, 0, 32 * KIB, 0, 0x80008000 },
	{ "device area outside", -EFAULT, SIZE, 0, 0, 32 * KIB - 64, 0x80008000 },
	{ "ring in the hole", -EFAULT, SIZE, (uint64_t) - (64 * KIB), 0, 0, 0x80008000 },
	{ "a ring too large for its memory", -EFAULT, 32768, 0, 0, 0, 0x80008000 },
	{ "address wraps", -EFAULT, SIZE, UINT64_MAX - UVA_OFFSET - RING_GPA - 15, 0, 0,
	  0x80008000 },
	{ "available position outside", -EINVAL, SIZE, 0, 0, 0, 0x80008000 + SIZE },
	{ "used position outside", -EINVAL, SIZE, 0, 0, 0, 0x80008000 + (SIZE << 16) },
	{ "used ahead of available", -EINVAL, SIZE, 0, 0, 0, 0x80028001 },
	{ "more than a turn apart", -EINVAL, SIZE, 0, 0, 0, 0x80000001 },
	{ "a base of a split ring", -EINVAL, SIZE, 0, 0, 0, 0xffff },
};

static void bad_starts(void **state)
{
	(void)state;
	for (unsigned i = 0; i < sizeof(starts) / sizeof(starts[0]); i++) {
		const struct bad_start *row = &starts[i];
		const char *why = NULL;
		struct fake_packed p;
		int ret;

		packed_init(&p, SIZE, 0);
		bf_virtq_stop(p.fake.vq);
		p.fake.setup.size = row->size;
		p.fake.setup.desc_uva += row->ring;
		p.fake.setup.avail_uva += row->driver;
		p.fake.setup.used_uva += row->device;
		p.fake.setup.base = row->base;
		ret = bf_virtq_start(p.fake.vq, &p.fake.setup, &why);
		if (ret != row->error)
			fail_msg("%s: expected %d, got %d", row->what, row->error, ret);
		assert_non_null(why);
		assert_int_equal(bf_virtq_base(p.fake.vq), BF_VIRTQ_PACKED_BASE);
		fake_done(&p.fake);
	}
	assert_int_equal(count_mappings("bf-ring"), 0);
}

struct flipper {
	struct fake_packed *p;
	bool stop;
};

static const uint64_t addresses[] = {
	0, FIRST_END - 8, HOLE - 16, HOLE, FAR, MEMORY_END - 8, ~0ull
};
static const uint32_t lengths[] = { 0, 1, 16, 32, 4096, 16 * SIZE, UINT32_MAX };

/* Write anything anywhere: the ring, the table, the driver's event area and the device's. */
static void flip(struct fake_packed *p, unsigned *seed)
{
	unsigned r = (unsigned)rand_r(seed), i = r / 8 % SIZE;
	struct raw_packed *desc = r & 1 ? &p->ring[i] : (struct raw_packed *)at(&p->fake, FAR) + i;

	switch (r / 2 % 4) {
	case 0:
		desc->addr = addresses[r / 64 % 7];
		desc->len = lengths[r / 512 % 7];
		break;
	case 1:
		desc->id = (uint16_t)(r / 64 % (SIZE + 1));
		break;
	default:
		desc->flags = (uint16_t)((r & 8 ? AVAIL : USED) | r / 64 % 8);
		p->driver->flags = (uint16_t)rand_r(seed);
		p->driver->position = (uint16_t)rand_r(seed);
		p->device->position = (uint16_t)rand_r(seed);
		break;
	}
}

static void *flip_on(void *opaque)
{
	struct flipper *flipper = opaque;
	unsigned seed = 4711;

	while (!__atomic_load_n(&flipper->stop, __ATOMIC_RELAXED))
		flip(flipper->p, &seed);
	return NULL;
}

/* Every piece lies in guest memory, whatever happened in between. */
static void check_pieces(const struct fake_packed *p, const struct bf_chain *chain)
{
	for (unsigned i = 0; i < (unsigned)chain->nr_out + chain->nr_in; i++) {
		const struct iovec *iov = &chain->iov[i];
		unsigned inside = 0;

		for (unsigned r = 0; r < bf_memory_nr_regions(p->fake.memory); r++) {
			const struct bf_memory_region *region = bf_memory_region(p->fake.memory, r);
			const char *start = region->hva;

			inside +=
				(const char *)iov->iov_base >= start &&
				(const char *)iov->iov_base + iov->iov_len <= start + region->size;
		}
		assert_true(iov->iov_len);
		assert_int_equal(inside, 1);
	}
}

static void a_driver_that_changes_everything(void **state)
{
	struct iovec iov[8];
	struct bf_chain chain = { .iov = iov, .nr_iov = 8 };
	uint64_t popped = 0, broken = 0;
	struct flipper flipper = { 0 };
	uint16_t held[SIZE];
	struct fake_packed p;
	unsigned nr_held = 0, seed = 815;
	pthread_t thread;

	(void)state;
	packed_init(&p, SIZE, EVENT_IDX | INDIRECT_DESC);
	flipper.p = &p;
	assert_int_equal(pthread_create(&thread, NULL, flip_on, &flipper), 0);
	for (unsigned i = 0; popped < 5000 || broken < 1000; i++) {
		int ret = bf_virtq_pop(p.fake.vq, &chain);

		/* Here too: on a busy machine the thread may not run for long. */
		flip(&p, &seed);
		assert_true(bf_virtq_in_flight(p.fake.vq) <= SIZE);
		if (ret == 1) {
			assert_true(chain.head < SIZE);
			check_pieces(&p, &chain);
			held[nr_held++] = chain.head;
			popped++;
		}
		if (nr_held && (ret <= 0 || i % 3 == 0))
			bf_virtq_push(p.fake.vq, held[--nr_held], i);
		if (ret <= 0 || i % 7 == 0)
			bf_virtq_notify(p.fake.vq);
		if (ret < 0) {
			broken++;
			nr_held = 0;
			bf_virtq_stop(p.fake.vq);
			p.fake.setup.base = bf_virtq_base(p.fake.vq);
			/* What was abandoned takes up the ring, so now and then from the front. */
			if (broken % 4 == 0)
				p.fake.setup.base = BF_VIRTQ_PACKED_BASE;
			fake_start(&p.fake);
		}
	}
	__atomic_store_n(&flipper.stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	fake_done(&p.fake);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hostile_rings),
		cmocka_unit_test(what_is_not_available),
		cmocka_unit_test(in_flight_survives_a_break),
		cmocka_unit_test(the_limits_are_legal),
		cmocka_unit_test(bad_starts),
		cmocka_unit_test(a_driver_that_changes_everything),
	};

	return cmocka_run_group_tests_name("hostile_packed", tests, NULL, NULL);
}
