/* SPDX-License-Identifier: BSD-3-Clause */
/* The in-flight region as a whole: made, sent, mapped again; sizes that a front end makes up. */
#include "../support.h"

#include <stdbool.h>
#include <sys/stat.h>

#include "lib/mem/inflight.h"

static void is_made_and_mapped_again(void **state)
{
	unsigned fds = count_fds();

	(void)state;
	for (int packed = 0; packed < 2; packed++) {
		struct bf_inflight_region *ours, *theirs;
		uint16_t size = 0;
		struct stat st;
		int fd, status;

		assert_int_equal(bf_inflight_new(packed, 3, 100, &ours), 0);
		assert_int_equal(bf_inflight_size(ours), 3 * bf_inflight_queue_size(packed, 100));
		assert_int_equal(bf_inflight_is_packed(ours), packed);
		fd = bf_inflight_fd(ours);
		assert_int_equal(fstat(fd, &st), 0);
		assert_int_equal(st.st_size, bf_inflight_size(ours));
		/* Nobody takes it away from a device. */
		status = ftruncate(fd, 0);
		assert_int_equal(status, -1);
		assert_int_equal(
			bf_inflight_map(fd, bf_inflight_size(ours), 0, packed, 3, 100, &theirs), 0);
		for (unsigned q = 0; q < 3; q++) {
			uint64_t *a = bf_inflight_queue(ours, q, &size), *b;

			assert_int_equal(size, 100);
			size = 0;
			b = bf_inflight_queue(theirs, q, &size);
			assert_int_equal(size, 100);
			assert_int_equal((uintptr_t)a % BF_INFLIGHT_ALIGN, 0);
			assert_int_equal(*a, 0);
			*a = 0x4711 + q;
			assert_int_equal(*b, 0x4711 + q);
			memset(b, 0xff, bf_inflight_queue_size(packed, 100));
		}
		assert_null(bf_inflight_queue(ours, 3, &size));
		assert_null(bf_inflight_queue(theirs, 0x10000, &size));
		bf_inflight_free(ours);
		bf_inflight_free(theirs);
		bf_inflight_free(NULL);
	}
	assert_int_equal(count_fds(), fds);
	assert_int_equal(count_mappings("belfry-inflight"), 0);
}

/* The specification's structures, counted by hand. */
static void sizes(void **state)
{
	(void)state;
	assert_int_equal(bf_inflight_queue_size(false, 1), 64);
	assert_int_equal(bf_inflight_queue_size(false, 3), 64);
	assert_int_equal(bf_inflight_queue_size(false, 4), 128);
	assert_int_equal(bf_inflight_queue_size(false, 128), 2112);
	assert_int_equal(bf_inflight_queue_size(true, 1), 64);
	assert_int_equal(bf_inflight_queue_size(true, 128), 4160);
	assert_int_equal(bf_inflight_queue_size(true, 65535), (32 + 65535 * 32 + 63) / 64 * 64);
}

static void refuses(void **state)
{
	unsigned fds = count_fds();
	int fd = make_memfd("bf-region", 65536, 0);
	struct bf_inflight_region *region = (void *)&fd;
	uint64_t two = 2 * bf_inflight_queue_size(false, 128);

	(void)state;
	assert_int_equal(bf_inflight_new(false, 0, 128, &region), -EINVAL);
	assert_int_equal(bf_inflight_new(true, 1, 0, &region), -EINVAL);
	assert_int_equal(bf_inflight_map(fd, two, 0, false, 0, 128, &region), -EINVAL);
	assert_int_equal(bf_inflight_map(fd, two, 0, false, 2, 0, &region), -EINVAL);
	assert_int_equal(bf_inflight_map(fd, two - 1, 0, false, 2, 128, &region), -EINVAL);
	assert_int_equal(bf_inflight_map(fd, two, 0, false, 3, 128, &region), -EINVAL);
	assert_int_equal(bf_inflight_map(fd, two, 0, true, 2, 128, &region), -EINVAL);
	assert_int_equal(bf_inflight_map(fd, two, 0, false, 65535, 65535, &region), -EINVAL);
	assert_int_equal(bf_inflight_map(fd, UINT64_MAX, 16, false, 2, 128, &region), -EINVAL);
	assert_int_equal(bf_inflight_map(fd, two, UINT64_MAX - 7, false, 2, 128, &region), -EINVAL);
	assert_int_equal(bf_inflight_map(fd, two, 4, false, 2, 128, &region), -EINVAL);
	assert_int_equal(bf_inflight_map(fd, 65537, 0, false, 2, 128, &region), -ENXIO);
	assert_int_equal(bf_inflight_map(fd, two, 65536 - two + 8, false, 2, 128, &region), -ENXIO);
	assert_int_equal(bf_inflight_map(fd, two, 1ull << 62, false, 2, 128, &region), -ENXIO);
	assert_int_equal(bf_inflight_map(-1, two, 0, false, 2, 128, &region), -EBADF);
	assert_ptr_equal(region, &fd);
	/* Larger than needed, and not at a page, is fine. */
	assert_int_equal(bf_inflight_map(fd, 65536 - 4104, 4104, false, 2, 128, &region), 0);
	bf_inflight_free(region);
	close(fd);
	assert_int_equal(count_mappings("bf-region"), 0);
	assert_int_equal(count_fds(), fds);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(is_made_and_mapped_again),
		cmocka_unit_test(sizes),
		cmocka_unit_test(refuses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
