/* SPDX-License-Identifier: BSD-3-Clause */
/* The IOTLB against a table of every byte: random updates, invalidations and changes of memory. */
#include "../support.h"

#include "lib/mem/iotlb.h"
#include "lib/mem/map.h"

#define PAGE 4096u
#define IOVA 512u /* addresses of the model, from BASE on */
#define BASE 0xffffe000ull
#define UVA  0x7f0000000000ull

/*
 * Three regions; the first two touch in user addresses, and lie apart guest-physically. (The kernel puts a
 * new mapping below the one before, so that they mostly touch in host addresses too.)
 */
static struct bf_memory *memory_of(unsigned nr)
{
	const uint64_t uva[] = { UVA + PAGE, UVA, UVA + 4 * PAGE };
	const uint64_t gpa[] = { 0x100000, 0x900000, 0x300000 };
	struct bf_memory_region regions[3];
	struct bf_memory *memory;

	for (unsigned i = 0; i < nr; i++)
		regions[i] = (struct bf_memory_region){ .gpa = gpa[i],
							.size = PAGE,
							.uva = uva[i],
							.fd = make_memfd("bf-iotlb", PAGE, 0) };
	assert_int_equal(bf_memory_new(regions, nr, &memory), 0);
	return memory;
}

static unsigned pick(unsigned n)
{
	return (unsigned)rand() % n;
}

/* The model: of each address the user address, and the permission; 0: none. */
static uint64_t uva_of[IOVA];
static unsigned perm_of[IOVA];

static void check_spans(const struct bf_space *space)
{
	for (unsigned i = 0; i < space->nr; i++) {
		const struct bf_span *span = &space->spans[i];

		assert_true(span->size > 0);
		if (!i)
			continue;
		assert_true(span->start > span[-1].start);
		assert_true(span->start - span[-1].start >= span[-1].size);
		/* What agrees is one. */
		assert_false(span[-1].start + span[-1].size == span->start &&
			     span[-1].hva + span[-1].size == span->hva &&
			     span[-1].gpa + span[-1].size == span->gpa &&
			     span[-1].perm == span->perm);
	}
}

static void check_all(const struct bf_iotlb_table *iotlb, const struct bf_memory *memory)
{
	const struct bf_space *space = bf_iotlb_space(iotlb);

	check_spans(space);
	for (unsigned i = 0; i < IOVA; i++) {
		const struct bf_span *span = bf_space_find(space, BASE + i);
		uint64_t offset = span ? BASE + i - span->start : 0, gpa;

		assert_int_equal(span ? span->perm : 0, perm_of[i]);
		if (!span)
			continue;
		assert_ptr_equal(span->hva + offset, bf_memory_from_uva(memory, uva_of[i], 1));
		assert_int_equal(bf_memory_uva_to_gpa(memory, uva_of[i], 1, &gpa), 0);
		assert_int_equal(span->gpa + offset, gpa);
	}
}

static void set(unsigned at, unsigned size, uint64_t uva, unsigned perm)
{
	for (unsigned i = 0; i < size; i++) {
		uva_of[at + i] = uva + i;
		perm_of[at + i] = perm;
	}
}

static void agrees_with_a_table_of_bytes(void **state)
{
	struct bf_memory *memory = memory_of(3), *small = memory_of(2);
	struct bf_iotlb_table *iotlb = bf_iotlb_new();

	(void)state;
	srand(2);
	memset(perm_of, 0, sizeof(perm_of));
	for (unsigned round = 0; round < 4000; round++) {
		unsigned at = pick(IOVA), size = 1 + pick(pick(3) ? 24 : 200), perm = 1 + pick(3);
		/* Around the border of two regions, at the end of one, or where entries merge. */
		uint64_t uva = UVA + PAGE - 100 + pick(200);

		if (size > IOVA - at)
			size = IOVA - at;
		if (!pick(3))
			uva = UVA + PAGE - IOVA / 2 + at;
		if (!pick(8))
			uva = UVA + 4 * PAGE + at;
		if (!pick(3)) {
			assert_int_equal(bf_iotlb_invalidate(iotlb, BASE + at, size), 0);
			set(at, size, 0, 0);
		} else {
			assert_int_equal(bf_iotlb_update(iotlb, memory, BASE + at, size, uva, perm),
					 0);
			set(at, size, uva, perm);
		}
		check_all(iotlb, memory);
		if (pick(100))
			continue;
		/* A region goes, and its entries with it; then it comes back, without them. */
		assert_int_equal(bf_iotlb_remap(iotlb, small), 0);
		for (unsigned i = 0; i < IOVA; i++)
			if (uva_of[i] >= UVA + 4 * PAGE)
				perm_of[i] = 0;
		check_all(iotlb, small);
		assert_int_equal(bf_iotlb_remap(iotlb, memory), 0);
		check_all(iotlb, memory);
	}
	bf_iotlb_clear(iotlb);
	memset(perm_of, 0, sizeof(perm_of));
	check_all(iotlb, memory);
	bf_iotlb_free(iotlb);
	bf_iotlb_free(NULL);
	bf_memory_unref(memory);
	bf_memory_unref(small);
}

static void refuses_without_a_change(void **state)
{
	struct bf_memory *memory = memory_of(3);
	struct bf_iotlb_table *iotlb = bf_iotlb_new();

	(void)state;
	memset(perm_of, 0, sizeof(perm_of));
	assert_int_equal(bf_iotlb_update(iotlb, memory, BASE, 100, UVA, 3), 0);
	set(0, 100, UVA, 3);
	assert_int_equal(bf_iotlb_update(iotlb, memory, BASE, 0, UVA, 3), -EINVAL);
	assert_int_equal(bf_iotlb_update(iotlb, memory, BASE, 10, UVA, 0), -EINVAL);
	assert_int_equal(bf_iotlb_update(iotlb, memory, BASE, 10, UVA, 4), -EINVAL);
	assert_int_equal(bf_iotlb_update(iotlb, memory, UINT64_MAX, 2, UVA, 1), -EINVAL);
	assert_int_equal(bf_iotlb_update(iotlb, memory, BASE, 2, UINT64_MAX, 1), -EINVAL);
	assert_int_equal(bf_iotlb_update(iotlb, memory, 1, UINT64_MAX, 1, 1), -EFAULT);
	/* Before, behind, across the hole, more than all of it. */
	assert_int_equal(bf_iotlb_update(iotlb, memory, BASE, 10, UVA - 1, 1), -EFAULT);
	assert_int_equal(bf_iotlb_update(iotlb, memory, BASE, 10, UVA + 5 * PAGE - 9, 1), -EFAULT);
	assert_int_equal(bf_iotlb_update(iotlb, memory, BASE, PAGE, UVA + PAGE + 1, 1), -EFAULT);
	assert_int_equal(bf_iotlb_update(iotlb, memory, BASE, 5 * PAGE, UVA, 1), -EFAULT);
	assert_int_equal(bf_iotlb_invalidate(iotlb, BASE, 0), -EINVAL);
	assert_int_equal(bf_iotlb_invalidate(iotlb, UINT64_MAX, 2), -EINVAL);
	check_all(iotlb, memory);
	/* The last byte of all is one like the others; so is all of them to be forbidden. */
	assert_int_equal(bf_iotlb_update(iotlb, memory, UINT64_MAX, 1, UVA, 1), 0);
	assert_int_equal(bf_iotlb_space(iotlb)->nr, 2);
	assert_int_equal(bf_iotlb_invalidate(iotlb, 0, UINT64_MAX), 0);
	assert_int_equal(bf_iotlb_space(iotlb)->nr, 1);
	assert_int_equal(bf_iotlb_invalidate(iotlb, 1, UINT64_MAX), 0);
	assert_int_equal(bf_iotlb_space(iotlb)->nr, 0);
	bf_iotlb_free(iotlb);
	bf_memory_unref(memory);
}

/* Four pages, told one by one, are one entry; taking one from the midst leaves two. */
static void entries_merge_and_split(void **state)
{
	struct bf_memory *memory = memory_of(3);
	struct bf_iotlb_table *iotlb = bf_iotlb_new();
	const unsigned order[] = { 2, 0, 3, 1 };

	(void)state;
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(bf_iotlb_update(iotlb, memory, 0x10000 + order[i] * 1024, 1024,
						 UVA + order[i] * 1024, 3),
				 0);
	assert_int_equal(bf_iotlb_space(iotlb)->nr, 1);
	assert_int_equal(bf_iotlb_space(iotlb)->spans[0].size, 4096);
	assert_int_equal(bf_iotlb_invalidate(iotlb, 0x10000 + 1024, 1024), 0);
	assert_int_equal(bf_iotlb_space(iotlb)->nr, 2);
	assert_null(bf_space_find(bf_iotlb_space(iotlb), 0x10000 + 1024));
	assert_non_null(bf_space_find(bf_iotlb_space(iotlb), 0x10000 + 2048));
	bf_iotlb_free(iotlb);
	bf_memory_unref(memory);
}

/* One region becomes two: an entry that lay in one lies in both. */
static void memory_changes_its_shape(void **state)
{
	const struct bf_memory_region region = { .gpa = 0x5000000,
						 .size = 2 * PAGE,
						 .uva = UVA,
						 .fd = make_memfd("bf-iotlb", 2 * PAGE, 0) };
	struct bf_memory *memory, *two = memory_of(3);
	struct bf_iotlb_table *iotlb = bf_iotlb_new();

	(void)state;
	assert_int_equal(bf_memory_new(&region, 1, &memory), 0);
	memset(perm_of, 0, sizeof(perm_of));
	assert_int_equal(bf_iotlb_update(iotlb, memory, BASE, 200, UVA + PAGE - 100, 3), 0);
	set(0, 200, UVA + PAGE - 100, 3);
	check_all(iotlb, memory);
	assert_int_equal(bf_iotlb_remap(iotlb, two), 0);
	check_all(iotlb, two);
	assert_int_equal(bf_iotlb_space(iotlb)->nr, 2);
	assert_int_equal(bf_iotlb_remap(iotlb, memory), 0);
	check_all(iotlb, memory);
	assert_int_equal(bf_iotlb_space(iotlb)->nr, 1);
	bf_iotlb_free(iotlb);
	bf_memory_unref(memory);
	bf_memory_unref(two);
}

static void a_full_table_forgets_the_oldest(void **state)
{
	struct bf_memory *memory = memory_of(3);
	struct bf_iotlb_table *iotlb = bf_iotlb_new();
	const struct bf_space *space = bf_iotlb_space(iotlb);

	(void)state;
	/* No two touch. */
	for (uint64_t i = 0; i < BF_IOTLB_MAX; i++)
		assert_int_equal(bf_iotlb_update(iotlb, memory, i * 16, 8, UVA, 3), 0);
	assert_int_equal(space->nr, BF_IOTLB_MAX);
	/* The first one is told again, and young. */
	assert_int_equal(bf_iotlb_update(iotlb, memory, 0, 8, UVA, 3), 0);
	assert_int_equal(bf_iotlb_update(iotlb, memory, 1 << 20, 8, UVA, 3), 0);
	assert_int_equal(space->nr, BF_IOTLB_MAX);
	assert_non_null(bf_space_find(space, 0));
	assert_null(bf_space_find(space, 16));
	assert_non_null(bf_space_find(space, 32));
	/* An entry in two regions takes two places. */
	assert_int_equal(bf_iotlb_update(iotlb, memory, 2 << 20, 8, UVA + PAGE - 4, 3), 0);
	assert_int_equal(space->nr, BF_IOTLB_MAX);
	assert_null(bf_space_find(space, 32));
	assert_null(bf_space_find(space, 48));
	assert_non_null(bf_space_find(space, 64));
	/* So does what is left of one that is cut in the midst. */
	assert_int_equal(bf_iotlb_invalidate(iotlb, 16 * 100 + 3, 2), 0);
	assert_int_equal(space->nr, BF_IOTLB_MAX);
	assert_null(bf_space_find(space, 64));
	bf_iotlb_free(iotlb);
	bf_memory_unref(memory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(agrees_with_a_table_of_bytes),
		cmocka_unit_test(refuses_without_a_change),
		cmocka_unit_test(entries_merge_and_split),
		cmocka_unit_test(memory_changes_its_shape),
		cmocka_unit_test(a_full_table_forgets_the_oldest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
