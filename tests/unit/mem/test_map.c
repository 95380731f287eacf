/* SPDX-License-Identifier: BSD-3-Clause */
/* Memory maps: what may be mapped, how it is found, and that nothing stays behind. */
#include "../support.h"

#include <belfry/memory.h>

#include "lib/mem/map.h"

#define MIB (1ull << 20)

static struct bf_memory_region region(uint64_t gpa, uint64_t uva, uint64_t size, int fd,
				      uint64_t offset)
{
	return (struct bf_memory_region){
		.gpa = gpa, .size = size, .uva = uva, .fd = fd, .fd_offset = offset
	};
}

static void translates_both_address_kinds(void **state)
{
	unsigned fds = count_fds();
	struct bf_memory_region regions[3];
	struct bf_memory *map;
	uint8_t *hva;

	(void)state;
	/* Given out of order; user addresses in another order than guest-physical ones. */
	regions[0] = region(0x100000000, 0x7000000, MIB, make_memfd("bf-map", 2 * MIB, 0), MIB);
	regions[1] = region(0, 0x9000000, MIB, make_memfd("bf-map", MIB, 0), 0);
	regions[2] = region(2 * MIB, 0x1000000, MIB, make_memfd("bf-map", MIB, 0), 0);
	assert_int_equal(bf_memory_new(regions, 3, &map), 0);
	assert_int_equal(bf_memory_nr_regions(map), 3);
	assert_int_equal(bf_memory_region(map, 0)->gpa, 0);
	assert_int_equal(bf_memory_region(map, 2)->gpa, 0x100000000);

	for (unsigned i = 0; i < 3; i++) {
		const struct bf_memory_region *r = &regions[i];

		hva = bf_memory_from_gpa(map, r->gpa, r->size);
		assert_non_null(hva);
		assert_ptr_equal(bf_memory_from_uva(map, r->uva, r->size), hva);
		assert_ptr_equal(bf_memory_from_gpa(map, r->gpa + 77, r->size - 77), hva + 77);
		assert_ptr_equal(bf_memory_from_uva(map, r->uva + MIB - 1, 1), hva + MIB - 1);
		assert_null(bf_memory_from_gpa(map, r->gpa, r->size + 1));
		assert_null(bf_memory_from_gpa(map, r->gpa + 1, r->size));
		assert_null(bf_memory_from_gpa(map, r->gpa + 1, UINT64_MAX));
		assert_null(bf_memory_from_uva(map, r->uva + r->size, 1));
		/* No bytes still need an address. */
		assert_ptr_equal(bf_memory_from_gpa(map, r->gpa + MIB - 1, 0), hva + MIB - 1);
		assert_null(bf_memory_from_gpa(map, r->gpa + MIB, 0));
	}
	assert_null(bf_memory_from_uva(map, 0, 1));
	assert_null(bf_memory_from_gpa(map, UINT64_MAX, 1));
	assert_null(bf_memory_from_uva(map, UINT64_MAX, 0));

	bf_memory_unref(map);
	bf_memory_unref(NULL);
	assert_int_equal(count_fds(), fds);
	assert_int_equal(count_mappings("bf-map"), 0);
}

static void maps_the_bytes_of_the_file(void **state)
{
	int fd = make_memfd("bf-map", MIB, 0);
	struct bf_memory_region one = region(0x1000, 0x5000, 0x1234, fd, 0x2345);
	struct bf_memory *map;
	char *hva, read_back[4];

	(void)state;
	/* Neither offset nor size is of pages: what is mapped around them is no memory of the map.
	 */
	assert_int_equal(pwrite(fd, "here", 4, 0x2345), 4);
	assert_int_equal(bf_memory_new(&one, 1, &map), 0);
	hva = bf_memory_from_gpa(map, 0x1000, 4);
	assert_memory_equal(hva, "here", 4);
	memcpy(hva, "back", 4);
	assert_int_equal(pread(fd, read_back, 4, 0x2345), 4);
	assert_memory_equal(read_back, "back", 4);
	assert_null(bf_memory_from_gpa(map, 0xfff, 1));
	assert_null(bf_memory_from_gpa(map, 0x1000 + 0x1234, 1));
	bf_memory_unref(map);
}

static void splits_at_touching_regions(void **state)
{
	struct bf_memory_region regions[3];
	struct iovec iov[3];
	struct bf_memory *map;

	(void)state;
	regions[0] = region(0, 0x10000000, 0x2000, make_memfd("bf-map", 0x2000, 0), 0);
	regions[1] = region(0x2000, 0x20000000, 0x1000, make_memfd("bf-map", 0x1000, 0), 0);
	regions[2] = region(0x5000, 0x30000000, 0x1000, make_memfd("bf-map", 0x1000, 0), 0);
	assert_int_equal(bf_memory_new(regions, 3, &map), 0);

	assert_int_equal(bf_memory_iov(map, 0x1ff0, 0x20, iov, 3), 2);
	assert_ptr_equal(iov[0].iov_base, bf_memory_from_gpa(map, 0x1ff0, 0x10));
	assert_int_equal(iov[0].iov_len, 0x10);
	assert_ptr_equal(iov[1].iov_base, bf_memory_from_gpa(map, 0x2000, 0x10));
	assert_int_equal(iov[1].iov_len, 0x10);
	assert_null(bf_memory_from_gpa(map, 0x1ff0, 0x20));

	assert_int_equal(bf_memory_iov(map, 0, 0x3000, iov, 3), 2);
	assert_int_equal(bf_memory_iov(map, 0, 0x3000, iov, 1), -E2BIG);
	assert_int_equal(bf_memory_iov(map, 0, 1, iov, 0), -E2BIG);
	/* CVE-2018-1059: into the hole, over the hole, out of memory. */
	assert_int_equal(bf_memory_iov(map, 0, 0x3001, iov, 3), -EFAULT);
	assert_int_equal(bf_memory_iov(map, 0x2ff0, 0x2020, iov, 3), -EFAULT);
	assert_int_equal(bf_memory_iov(map, 0x5000, 0x1001, iov, 3), -EFAULT);
	assert_int_equal(bf_memory_iov(map, 0x5000, UINT64_MAX, iov, 3), -EFAULT);
	assert_int_equal(bf_memory_iov(map, 0x3000, 0, iov, 3), -EFAULT);
	assert_int_equal(bf_memory_iov(map, 0x2fff, 0, iov, 3), 1);
	assert_int_equal(iov[0].iov_len, 0);
	bf_memory_unref(map);
}

static void the_end_of_the_address_space(void **state)
{
	struct bf_memory_region one =
		region(UINT64_MAX - 0x1000, 0x1000, 0x1000, make_memfd("bf-map", 0x1000, 0), 0);
	struct iovec iov[2];
	struct bf_memory *map;

	(void)state;
	assert_int_equal(bf_memory_new(&one, 1, &map), 0);
	assert_non_null(bf_memory_from_gpa(map, UINT64_MAX - 1, 1));
	assert_null(bf_memory_from_gpa(map, UINT64_MAX - 1, 2));
	assert_null(bf_memory_from_gpa(map, UINT64_MAX - 1, UINT64_MAX));
	assert_int_equal(bf_memory_iov(map, UINT64_MAX - 1, 100, iov, 2), -EFAULT);
	bf_memory_unref(map);
}

struct refusal {
	const char *what;
	struct bf_memory_region regions[2];
	unsigned nr;
	int error;
};

/* fd 0 stands for a memfd of 1 MiB, -1 for none, 1 for a socket, 2 for it opened to read. */
static const struct refusal refusals[] = {
	{ "none", { { 0 } }, 0, -EINVAL },
	{ "empty", { { .gpa = 0, .size = 0, .uva = 0 } }, 1, -EINVAL },
	{ "gpa wraps", { { .gpa = UINT64_MAX - 100, .size = 4096, .uva = 0 } }, 1, -EINVAL },
	{ "uva wraps", { { .gpa = 0, .size = 4096, .uva = UINT64_MAX - 100 } }, 1, -EINVAL },
	{ "size wraps", { { .gpa = 4096, .size = UINT64_MAX, .uva = 0 } }, 1, -EINVAL },
	{ "file too short", { { .size = MIB + 1 } }, 1, -ENXIO },
	{ "126 GB of nothing (SPDK #1183)", { { .size = 126ull << 30 } }, 1, -ENXIO },
	{ "offset beyond", { { .size = 4096, .fd_offset = MIB } }, 1, -ENXIO },
	{ "offset wraps", { { .size = 8192, .fd_offset = UINT64_MAX - 4095 } }, 1, -ENXIO },
	{ "offset and size wrap", { { .size = UINT64_MAX, .fd_offset = 4096 } }, 1, -ENXIO },
	{ "no descriptor", { { .size = 4096, .fd = -1 } }, 1, -EBADF },
	{ "not mappable", { { .size = 4096, .fd = 1 } }, 1, -ENODEV },
	{ "read-only", { { .size = 4096, .fd = 2 } }, 1, -EACCES },
	{ "gpa overlaps",
	  { { .gpa = 0, .size = 0x2000, .uva = 0 },
	    { .gpa = 0x1fff, .size = 0x1000, .uva = 0x10000 } },
	  2,
	  -EINVAL },
	{ "uva overlaps",
	  { { .gpa = 0, .size = 0x2000, .uva = 0x1fff },
	    { .gpa = 0x10000, .size = 0x2000, .uva = 0 } },
	  2,
	  -EINVAL },
	{ "the same twice",
	  { { .gpa = 0, .size = 0x2000, .uva = 0 }, { .gpa = 0, .size = 0x2000, .uva = 0 } },
	  2,
	  -EINVAL },
};

static void refuses(void **state)
{
	int good = make_memfd("bf-map", MIB, 0);
	int other = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char path[64];
	int read_only;

	(void)state;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", good);
	read_only = open(path, O_RDONLY | O_CLOEXEC);
	for (unsigned i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
		const struct refusal *row = &refusals[i];
		struct bf_memory_region regions[2];
		struct bf_memory *untouched = (void *)&good, *map = untouched;
		unsigned fds = count_fds(), mappings = count_mappings("bf-map");

		for (unsigned r = 0; r < row->nr; r++) {
			regions[r] = row->regions[r];
			regions[r].fd = regions[r].fd == 0   ? good
					: regions[r].fd == 1 ? other
					: regions[r].fd == 2 ? read_only
							     : -1;
		}
		if (bf_memory_new(regions, row->nr, &map) != row->error)
			fail_msg("%s: expected %d", row->what, row->error);
		assert_ptr_equal(map, untouched);
		/* Nothing is left, and the descriptors are still ours. */
		assert_int_equal(count_fds(), fds);
		assert_int_equal(count_mappings("bf-map"), mappings);
	}
	assert_int_equal(bf_memory_new(NULL, BF_MAX_REGIONS + 1, &(struct bf_memory *){ NULL }),
			 -E2BIG);
	close(good);
	close(other);
	close(read_only);
}

static void adds_and_removes(void **state)
{
	unsigned fds = count_fds();
	struct bf_memory_region r = region(0, 0x100000, 0x1000, make_memfd("bf-map", 0x1000, 0), 0);
	struct bf_memory *one, *two, *rest, *none = (void *)&r;
	void *hva;

	(void)state;
	assert_int_equal(bf_memory_with(NULL, &r, &one), 0);
	hva = bf_memory_from_gpa(one, 0, 0x1000);

	r = region(0x1000, 0x200000, 0x1000, make_memfd("bf-map", 0x1000, 0), 0);
	assert_int_equal(bf_memory_with(one, &r, &two), 0);
	assert_int_equal(bf_memory_nr_regions(two), 2);
	/* What was mapped stays where it is. */
	assert_ptr_equal(bf_memory_from_gpa(two, 0, 0x1000), hva);
	assert_int_equal(count_mappings("bf-map"), 2);
	/* Overlap with what is there: refused, descriptor still ours. */
	assert_int_equal(bf_memory_with(two, &r, &none), -EINVAL);
	assert_int_equal(count_mappings("bf-map"), 2);

	assert_int_equal(bf_memory_without(two, 0, 0x100000, 0x2000, &rest), -ENOENT);
	assert_int_equal(bf_memory_without(two, 0, 0x100001, 0x1000, &rest), -ENOENT);
	assert_int_equal(bf_memory_without(two, 0x1000, 0x100000, 0x1000, &rest), -ENOENT);
	assert_int_equal(bf_memory_without(NULL, 0, 0, 0, &rest), -ENOENT);
	assert_int_equal(bf_memory_without(two, 0x1000, 0x200000, 0x1000, &rest), 0);
	bf_memory_unref(two);
	assert_int_equal(count_mappings("bf-map"), 1);
	bf_memory_unref(one);
	/* The last map that has the region keeps it. */
	assert_ptr_equal(bf_memory_from_gpa(rest, 0, 0x1000), hva);
	memset(hva, 1, 0x1000);
	assert_int_equal(bf_memory_without(rest, 0, 0x100000, 0x1000, &none), 0);
	assert_null(none);
	bf_memory_unref(rest);
	assert_int_equal(count_fds(), fds);
	assert_int_equal(count_mappings("bf-map"), 0);
}

/* Against the obvious way, over many small regions. */
static void finds_like_a_linear_search(void **state)
{
	struct bf_memory_region regions[200];
	struct bf_memory *map;

	(void)state;
	srand(1);
	for (unsigned i = 0; i < 200; i++) {
		int fd = make_memfd("bf-map", 0x3000, 0);

		/* Some touch their neighbour, most do not. */
		regions[i] = region(i * 0x4000ull, (199 - i) * 0x10000ull, i % 5 ? 0x3000 : 0x1000,
				    fd, 0);
		if (i % 7 == 0)
			regions[i].gpa += 0x1000;
	}
	assert_int_equal(bf_memory_new(regions, 200, &map), 0);
	for (unsigned n = 0; n < 200000; n++) {
		uint64_t gpa = (uint64_t)rand() % (201 * 0x4000ull);
		uint64_t len = (uint64_t)rand() % 0x2000;
		const struct bf_memory_region *hit = NULL;

		for (unsigned i = 0; i < 200; i++)
			if (gpa >= regions[i].gpa && gpa < regions[i].gpa + regions[i].size)
				hit = &regions[i];
		if (hit && gpa + len > hit->gpa + hit->size)
			hit = NULL;
		if (!hit) {
			assert_null(bf_memory_from_gpa(map, gpa, len));
			continue;
		}
		assert_ptr_equal(bf_memory_from_gpa(map, gpa, len),
				 bf_memory_from_uva(map, hit->uva + (gpa - hit->gpa), len));
		assert_non_null(bf_memory_from_gpa(map, gpa, len));
	}
	bf_memory_unref(map);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(translates_both_address_kinds),
		cmocka_unit_test(maps_the_bytes_of_the_file),
		cmocka_unit_test(splits_at_touching_regions),
		cmocka_unit_test(the_end_of_the_address_space),
		cmocka_unit_test(refuses),
		cmocka_unit_test(adds_and_removes),
		cmocka_unit_test(finds_like_a_linear_search),
	};

	return cmocka_run_group_tests_name("map", tests, NULL, NULL);
}
