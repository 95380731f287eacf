/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Rings that a hostile driver makes: each row breaks one rule and says what the device must answer.
 * In every case the ring is broken for good, the error eventfd is signalled once, and nothing else.
 */
#include "fake_driver.h"

#define INDIRECT_DESC (1ull << VIRTIO_RING_F_INDIRECT_DESC)
#define SIZE          8
/* Indirect tables: in the region of the buffers, where the device goes the short way, or in another. */
#define NEAR (32 * KIB)
#define FAR  (HOLE_END + 16 * KIB)
static uint64_t table = FAR;

struct hostile {
	const char *what;
	int error;
	void (*make)(struct fake *fake);
	bool no_indirect; /* the feature was not agreed */
};

/* CVE-2018-1059: begins in memory, ends in the hole. */
static void into_the_hole(struct fake *fake)
{
	set_desc(fake, 0, HOLE - 16, 17, 0, 0);
	offer(fake, 0);
}

static void over_the_hole(struct fake *fake)
{
	set_desc(fake, 0, HOLE - 16, HOLE_END - HOLE + 32, WRITE, 0);
	offer(fake, 0);
}

static void in_the_hole(struct fake *fake)
{
	set_desc(fake, 0, HOLE, 1, 0, 0);
	offer(fake, 0);
}

static void beyond_memory(struct fake *fake)
{
	set_desc(fake, 0, MEMORY_END - 1, 2, 0, 0);
	offer(fake, 0);
}

static void wraps(struct fake *fake)
{
	set_desc(fake, 0, UINT64_MAX - 10, 4096, 0, 0);
	offer(fake, 0);
}

static void four_gigabytes(struct fake *fake)
{
	set_desc(fake, 0, 0, UINT32_MAX, 0, 0);
	offer(fake, 0);
}

/* CVE-2020-10725: no bytes, at an address that is not there. */
static void empty_in_the_hole(struct fake *fake)
{
	set_desc(fake, 0, HOLE + 5, 0, 0, 0);
	offer(fake, 0);
}

static void second_is_empty_and_wild(struct fake *fake)
{
	set_desc(fake, 0, 0, 16, NEXT, 1);
	set_desc(fake, 1, UINT64_MAX, 0, WRITE, 0);
	offer(fake, 0);
}

/* CVE-2018-1059 again, by way of an indirect table. */
static void table_into_the_hole(struct fake *fake)
{
	set_indirect(fake, HOLE - 16, 0, (struct raw_desc){ 0, 16, 0, 0 });
	set_desc(fake, 0, HOLE - 16, 32, INDIRECT, 0);
	offer(fake, 0);
}

static void table_in_the_hole(struct fake *fake)
{
	set_desc(fake, 0, HOLE, 16, INDIRECT, 0);
	offer(fake, 0);
}

static void buffer_of_table_into_the_hole(struct fake *fake)
{
	set_indirect(fake, table, 0, (struct raw_desc){ 0, 16, NEXT, 1 });
	set_indirect(fake, table, 1, (struct raw_desc){ HOLE - 1, 2, WRITE, 0 });
	set_desc(fake, 0, table, 32, INDIRECT, 0);
	offer(fake, 0);
}

/* CVE-2019-9547, CVE-2020-14378: chains that do not end. */
static void circle(struct fake *fake)
{
	set_desc(fake, 0, 0, 0, NEXT, 1);
	set_desc(fake, 1, 0, 0, NEXT, 0);
	offer(fake, 0);
}

static void itself(struct fake *fake)
{
	set_desc(fake, 5, 0, 0, NEXT, 5);
	offer(fake, 5);
}

static void circle_in_a_table(struct fake *fake)
{
	set_indirect(fake, table, 0, (struct raw_desc){ 0, 0, NEXT, 1 });
	set_indirect(fake, table, 1, (struct raw_desc){ 0, 0, NEXT, 0 });
	set_desc(fake, 0, table, 32, INDIRECT, 0);
	offer(fake, 0);
}

/* CVE-2016-6490: a huge table. */
static void table_too_long(struct fake *fake)
{
	set_desc(fake, 0, 0, 16 * (1024 + 1), INDIRECT, 0);
	offer(fake, 0);
}

static void table_of_odd_size(struct fake *fake)
{
	set_indirect(fake, table, 0, (struct raw_desc){ 0, 16, 0, 0 });
	set_desc(fake, 0, table, 17, INDIRECT, 0);
	offer(fake, 0);
}

static void empty_table(struct fake *fake)
{
	set_desc(fake, 0, table, 0, INDIRECT, 0);
	offer(fake, 0);
}

static void nested_table(struct fake *fake)
{
	set_indirect(fake, table, 0, (struct raw_desc){ table, 16, INDIRECT, 0 });
	set_desc(fake, 0, table, 16, INDIRECT, 0);
	offer(fake, 0);
}

static void table_with_a_next(struct fake *fake)
{
	set_indirect(fake, table, 0, (struct raw_desc){ 0, 16, 0, 0 });
	set_desc(fake, 0, table, 16, INDIRECT | NEXT, 1);
	set_desc(fake, 1, 0, 16, 0, 0);
	offer(fake, 0);
}

static void table_not_agreed(struct fake *fake)
{
	set_indirect(fake, table, 0, (struct raw_desc){ 0, 16, 0, 0 });
	set_desc(fake, 0, table, 16, INDIRECT, 0);
	offer(fake, 0);
}

static void readable_after_writable(struct fake *fake)
{
	set_desc(fake, 0, 0, 16, NEXT | WRITE, 1);
	set_desc(fake, 1, 0, 16, 0, 0);
	offer(fake, 0);
}

static void readable_after_empty_writable(struct fake *fake)
{
	set_desc(fake, 0, 0, 0, NEXT | WRITE, 1);
	set_desc(fake, 1, 0, 16, 0, 0);
	offer(fake, 0);
}

static void head_out_of_range(struct fake *fake)
{
	offer(fake, SIZE);
}

static void head_far_out_of_range(struct fake *fake)
{
	offer(fake, 0xffff);
}

static void next_out_of_range(struct fake *fake)
{
	set_desc(fake, 0, 0, 16, NEXT, SIZE);
	offer(fake, 0);
}

static void next_to_what_looks_like_one(struct fake *fake)
{
	set_desc(fake, 0, 0, 16, NEXT, 100);
	set_desc(fake, 100, 0, 16, 0, 0);
	offer(fake, 0);
}

static void next_out_of_table(struct fake *fake)
{
	set_indirect(fake, table, 0, (struct raw_desc){ 0, 16, NEXT, 1 });
	set_indirect(fake, table, 1, (struct raw_desc){ 0, 16, 0, 0 });
	set_desc(fake, 0, table, 16, INDIRECT, 0);
	offer(fake, 0);
}

/* CVE-2016-5403, Cloud Hypervisor 563303b50: more offered than the ring can hold. */
static void index_too_far(struct fake *fake)
{
	fake->avail[1] = (uint16_t)(fake->avail[1] + SIZE + 1);
}

static void index_backwards(struct fake *fake)
{
	fake->avail[1] = (uint16_t)(fake->avail[1] - 1);
}

/* CVE-2026-45782: one request twice, while the device still works on it. */
static void twice_in_flight(struct fake *fake)
{
	struct iovec iov[2];
	struct bf_chain chain = { .iov = iov, .nr_iov = 2 };

	set_desc(fake, 3, 0, 16, 0, 0);
	offer(fake, 3);
	assert_int_equal(bf_virtq_pop(fake->vq, &chain), 1);
	offer(fake, 3);
}

static void too_many_pieces(struct fake *fake)
{
	for (uint16_t i = 0; i < 5; i++)
		set_desc(fake, i, 0, 16, i < 4 ? NEXT : 0, (uint16_t)(i + 1));
	offer(fake, 0);
}

static void too_many_pieces_by_a_border(struct fake *fake)
{
	for (uint16_t i = 0; i < 4; i++)
		set_desc(fake, i, FIRST_END - (i == 3 ? 8 : 16), 16, i < 3 ? NEXT : 0,
			 (uint16_t)(i + 1));
	offer(fake, 0);
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
	{ "circle (CVE-2019-9547)", -ELOOP, circle, false },
	{ "next is itself", -ELOOP, itself, false },
	{ "circle in a table", -ELOOP, circle_in_a_table, false },
	{ "table longer than any ring of this size needs (CVE-2016-6490)", -ELOOP, table_too_long,
	  false },
	{ "table of odd size", -EBADMSG, table_of_odd_size, false },
	{ "empty table", -EBADMSG, empty_table, false },
	{ "nested table", -EBADMSG, nested_table, false },
	{ "table with a next", -EBADMSG, table_with_a_next, false },
	{ "table not agreed", -EBADMSG, table_not_agreed, true },
	{ "readable after writable", -EBADMSG, readable_after_writable, false },
	{ "readable after empty writable", -EBADMSG, readable_after_empty_writable, false },
	{ "head out of range", -EBADMSG, head_out_of_range, false },
	{ "head far out of range", -EBADMSG, head_far_out_of_range, false },
	{ "next out of range", -EBADMSG, next_out_of_range, false },
	{ "next to what looks like a descriptor", -EBADMSG, next_to_what_looks_like_one, false },
	{ "next out of the table", -EBADMSG, next_out_of_table, false },
	{ "index too far (CVE-2016-5403)", -EBADMSG, index_too_far, false },
	{ "index backwards (563303b50)", -EBADMSG, index_backwards, false },
	{ "head twice in flight (CVE-2026-45782)", -EBADMSG, twice_in_flight, false },
	{ "too many pieces", -E2BIG, too_many_pieces, false },
	{ "too many pieces by a border", -E2BIG, too_many_pieces_by_a_border, false },
};

static void hostile_rings(void **state)
{
	unsigned fds = count_fds();

	(void)state;
	for (unsigned i = 0; i < 2 * sizeof(rows) / sizeof(rows[0]); i++) {
		const struct hostile *row = &rows[i / 2];
		struct iovec iov[5];
		struct bf_chain chain = { .iov = iov, .nr_iov = 4 };
		const char *reason = NULL;
		struct fake fake;
		int ret;

		table = i % 2 ? NEAR : FAR;
		/* Beyond the caller's array nothing may be written. */
		iov[4] = (struct iovec){ &fake, 12345 };
		fake_init(&fake, SIZE, 0, row->no_indirect ? 0 : INDIRECT_DESC);
		row->make(&fake);
		ret = bf_virtq_pop(fake.vq, &chain);
		if (ret != row->error)
			fail_msg("%s: expected %d, got %d", row->what, row->error, ret);
		assert_int_equal(iov[4].iov_len, 12345);
		assert_int_equal(bf_virtq_broken(fake.vq, &reason), row->error);
		assert_non_null(reason);
		assert_true(strlen(reason) > 10);
		assert_int_equal(signals(fake.err_fd), 1);
		/* For good: a repaired ring does not bring it back, and nobody is woken again. */
		fake.avail[1] = 1;
		set_desc(&fake, 0, 0, 16, 0, 0);
		assert_int_equal(bf_virtq_pop(fake.vq, &chain), row->error);
		assert_int_equal(signals(fake.err_fd), 0);
		assert_int_equal(bf_virtq_counters(fake.vq)->errors, 1);
		assert_false(bf_virtq_has_work(fake.vq));
		assert_false(bf_virtq_want_kicks(fake.vq, true));
		fake_done(&fake);
	}
	assert_int_equal(count_fds(), fds);
	assert_int_equal(count_mappings("bf-ring"), 0);
}

/* What is in flight when a ring breaks can still be given back. */
static void in_flight_survives_a_break(void **state)
{
	struct iovec iov[4];
	struct bf_chain chain = { .iov = iov, .nr_iov = 4 };
	struct fake fake;

	(void)state;
	fake_init(&fake, SIZE, 0, 0);
	set_desc(&fake, 1, 0, 16, WRITE, 0);
	offer(&fake, 1);
	assert_int_equal(bf_virtq_pop(fake.vq, &chain), 1);
	offer(&fake, 1000);
	assert_int_equal(bf_virtq_pop(fake.vq, &chain), -EBADMSG);
	bf_virtq_push(fake.vq, 1, 16);
	assert_true(bf_virtq_notify(fake.vq));
	assert_int_equal(fake.used[1], 1);
	assert_int_equal(used_elem(&fake, 0)[0], 1);
	fake_done(&fake);
}

/* A full ring is legal; a chain as long as the ring too. */
static void the_limits_are_legal(void **state)
{
	struct iovec iov[SIZE];
	struct bf_chain chain = { .iov = iov, .nr_iov = SIZE };
	struct fake fake;

	(void)state;
	fake_init(&fake, SIZE, 0, INDIRECT_DESC);
	for (uint16_t i = 0; i < SIZE; i++)
		set_desc(&fake, i, 0, 16, i + 1 < SIZE ? NEXT : 0, (uint16_t)(i + 1));
	offer(&fake, 0);
	assert_int_equal(bf_virtq_pop(fake.vq, &chain), 1);
	assert_int_equal(chain.nr_out, SIZE);
	bf_virtq_push(fake.vq, 0, 0);
	bf_virtq_notify(fake.vq);

	for (uint16_t i = 0; i < SIZE; i++) {
		set_desc(&fake, i, MEMORY_END - 1, 1, 0, 0);
		offer(&fake, i);
	}
	for (uint16_t i = 0; i < SIZE; i++)
		assert_int_equal(bf_virtq_pop(fake.vq, &chain), 1);
	assert_int_equal(bf_virtq_pop(fake.vq, &chain), 0);
	assert_int_equal(bf_virtq_in_flight(fake.vq), SIZE);
	for (uint16_t i = 0; i < SIZE; i++)
		bf_virtq_push(fake.vq, (uint16_t)(SIZE - 1 - i), 0);
	bf_virtq_notify(fake.vq);

	for (unsigned n = 0; n < 2; n++) {
		table = n ? NEAR : FAR;
		for (uint16_t i = 0; i < SIZE; i++)
			set_indirect(&fake, table, i,
				     (struct raw_desc){ i, 1, i + 1 < SIZE ? NEXT | WRITE : WRITE,
							(uint16_t)(i + 1) });
		set_desc(&fake, 2, table, 16 * SIZE, INDIRECT, 0);
		offer(&fake, 2);
		assert_int_equal(bf_virtq_pop(fake.vq, &chain), 1);
		assert_int_equal(chain.nr_in, SIZE);
		bf_virtq_push(fake.vq, 2, 0);
	}
	fake_done(&fake);
}

struct bad_start {
	const char *what;
	int error;
	uint16_t size;
	uint64_t desc, avail, used; /* added to the good addresses */
};

static const struct bad_start starts[] = {
	{ "size 0", -EINVAL, 0, 0, 0, 0 },
	{ "size 3", -EINVAL, 3, 0, 0, 0 },
	{ "descriptors not aligned", -EINVAL, 8, 8, 0, 0 },
	{ "available ring not aligned", -EINVAL, 8, 0, 1, 0 },
	{ "used ring not aligned", -EINVAL, 8, 0, 0, 2 },
	{ "descriptors end outside", -EFAULT, 8, 64 * KIB - 16, 0, 0 },
	{ "available ring ends outside", -EFAULT, 8, 0, 64 * KIB - 16 * 8 - 20, 0 },
	{ "used ring ends outside", -EFAULT, 8, 0, 0, 60 * KIB - 16 * 8 - 68 },
	{ "descriptors in the hole", -EFAULT, 8, (uint64_t) - (64 * KIB), 0, 0 },
	{ "a ring too large for its memory", -EFAULT, 32768, 0, 0, 0 },
	{ "address wraps", -EFAULT, 8, UINT64_MAX - UVA_OFFSET - RING_GPA - 15, 0, 0 },
};

static void bad_starts(void **state)
{
	(void)state;
	for (unsigned i = 0; i < sizeof(starts) / sizeof(starts[0]); i++) {
		const struct bad_start *row = &starts[i];
		const char *why = NULL;
		struct fake fake;
		int ret;

		fake_init(&fake, 8, 0, 0);
		bf_virtq_stop(fake.vq);
		fake.setup.size = row->size;
		fake.setup.desc_uva += row->desc;
		fake.setup.avail_uva += row->avail;
		fake.setup.used_uva += row->used;
		ret = bf_virtq_start(fake.vq, &fake.setup, &why);
		if (ret != row->error)
			fail_msg("%s: expected %d, got %d", row->what, row->error, ret);
		assert_non_null(why);
		fake_done(&fake);
	}
	assert_int_equal(count_mappings("bf-ring"), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hostile_rings),
		cmocka_unit_test(in_flight_survives_a_break),
		cmocka_unit_test(the_limits_are_legal),
		cmocka_unit_test(bad_starts),
	};

	return cmocka_run_group_tests_name("hostile_ring", tests, NULL, NULL);
}
