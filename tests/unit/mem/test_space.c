/* SPDX-License-Identifier: BSD-3-Clause */
/* Looking addresses up, against a table of every byte. */
#include "../support.h"

#include <stdbool.h>

#include "lib/mem/space.h"

#define TOP 2048u /* addresses of the model */

static struct bf_span spans[64];
static struct bf_space space = { spans, 0 };
static uint8_t bytes[8 * TOP];
/* The model: of each address its place, its permission, its guest-physical address. */
static uint8_t *place[TOP];
static unsigned permission[TOP];
static uint64_t physical[TOP];

static unsigned pick(unsigned n)
{
	return (unsigned)rand() % n;
}

/* Spans of up to 64 bytes; half of them touch the one before; of those, half in our memory too. */
static void invent(void)
{
	unsigned at = pick(8), place_at = pick(64);

	memset(place, 0, sizeof(place));
	space.nr = 0;
	while (space.nr < 64) {
		unsigned size = 1 + pick(64), perm = 1 + pick(3);
		uint64_t gpa = 0x100000 + pick(1000000);

		if (at + size > TOP)
			return;
		spans[space.nr++] = (struct bf_span){ at, size, bytes + place_at, gpa, perm };
		for (unsigned i = 0; i < size; i++) {
			place[at + i] = bytes + place_at + i;
			permission[at + i] = perm;
			physical[at + i] = gpa + i;
		}
		at += size + (pick(2) ? 0 : 1 + pick(20));
		place_at += size + (pick(2) ? 0 : 1 + pick(20));
	}
}

static bool allowed(unsigned at, unsigned perm)
{
	return at < TOP && place[at] && (permission[at] & perm) == perm;
}

static void check_iov(unsigned start, unsigned len, unsigned perm)
{
	struct iovec iov[64];
	unsigned hint = pick(80), nr_iov = 1 + pick(5), good = 0;
	uint64_t missing = 4711;
	unsigned expected = 0;
	int nr;

	while (good < (len ? len : 1) && allowed(start + good, perm))
		good++;
	nr = bf_space_iov(&space, start, len, perm, iov, nr_iov, &hint, &missing);
	if (good < (len ? len : 1)) {
		/* Too many pieces before the gap is as good an answer. */
		if (nr == -E2BIG)
			return;
		assert_int_equal(nr, -EFAULT);
		assert_int_equal(missing, start + good);
		return;
	}
	assert_int_equal(missing, 4711);
	if (nr == -E2BIG) {
		for (unsigned i = 0, end = 0; i < space.nr; i++) {
			end = (unsigned)(spans[i].start + spans[i].size);
			expected += spans[i].start < start + len && end > start;
		}
		assert_true(expected > nr_iov);
		return;
	}
	assert_true(nr >= 1 && (unsigned)nr <= nr_iov);
	if (!len) {
		assert_int_equal(nr, 1);
		assert_int_equal(iov[0].iov_len, 0);
		return;
	}
	for (int i = 0; i < nr; i++) {
		assert_true(iov[i].iov_len > 0);
		for (size_t b = 0; b < iov[i].iov_len; b++, good--)
			assert_ptr_equal((uint8_t *)iov[i].iov_base + b, place[start++]);
	}
	assert_int_equal(good, 0);
	assert_true(hint < space.nr);
}

static void check_translate(unsigned start, unsigned len, unsigned perm)
{
	bool whole = allowed(start, perm);
	uint64_t gpa = 4711;
	void *found;

	for (unsigned i = 1; whole && i < len; i++)
		whole = allowed(start + i, perm) && place[start + i] == place[start] + i;
	found = bf_space_translate(&space, start, len, perm, &gpa);
	assert_ptr_equal(found, whole ? place[start] : NULL);
	assert_int_equal(gpa, whole ? physical[start] : 4711);
}

static void agrees_with_a_table_of_bytes(void **state)
{
	(void)state;
	srand(1);
	for (unsigned round = 0; round < 200; round++) {
		invent();
		for (unsigned i = 0; i < 500; i++) {
			unsigned start = pick(TOP), len = pick(4) ? pick(20) : pick(300);

			check_iov(start, len, pick(4));
			check_translate(start, len, pick(4));
		}
	}
}

/* At the very end of 64 bits nothing wraps. */
static void top_of_the_addresses(void **state)
{
	struct iovec iov[2];
	unsigned hint = 0;
	uint64_t missing = 0;

	(void)state;
	spans[0] = (struct bf_span){ 0, 16, bytes, 0, 3 };
	spans[1] = (struct bf_span){ UINT64_MAX - 15, 16, bytes + 100, 0, 3 };
	space.nr = 2;
	assert_ptr_equal(bf_space_translate(&space, UINT64_MAX - 15, 16, 3, NULL), bytes + 100);
	assert_null(bf_space_translate(&space, UINT64_MAX - 15, 17, 3, NULL));
	assert_null(bf_space_translate(&space, UINT64_MAX, UINT64_MAX, 3, NULL));
	for (hint = 0; hint < 3; hint++) {
		unsigned used = hint;

		assert_int_equal(bf_space_iov(&space, UINT64_MAX, 1, 3, iov, 2, &used, NULL), 1);
		assert_ptr_equal(iov[0].iov_base, bytes + 115);
		used = hint;
		/* It does not go on at zero. */
		assert_int_equal(bf_space_iov(&space, UINT64_MAX, 2, 3, iov, 2, &used, &missing),
				 -EFAULT);
		assert_int_equal(missing, 0);
		used = hint;
		assert_int_equal(bf_space_iov(&space, 8, UINT64_MAX, 3, iov, 2, &used, &missing),
				 -EFAULT);
		assert_int_equal(missing, 16);
	}
	hint = 5;
	assert_int_equal(bf_space_iov(&space, 0, 1, 3, iov, 0, &hint, NULL), -E2BIG);
	space.nr = 0;
	assert_null(bf_space_find(&space, 0));
	assert_int_equal(bf_space_iov(&space, 0, 0, 0, iov, 2, &hint, &missing), -EFAULT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(agrees_with_a_table_of_bytes),
		cmocka_unit_test(top_of_the_addresses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
