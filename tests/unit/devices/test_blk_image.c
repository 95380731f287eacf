/* SPDX-License-Identifier: BSD-3-Clause */
/* Disk images: which are taken, which are not, and the lock. */
#include "../support.h"

#include <stdbool.h>
#include <sys/stat.h>

#include "devices/blk/image.h"

static char folder[] = "/tmp/belfry-image-XXXXXX";
static char path[64];

static void make(off_t size)
{
	int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, size), 0);
	close(fd);
}

static void test_sizes(void **state)
{
	static const off_t bad[] = { 0, 1, 511, 513, 1000001 };
	struct blk_image image = BLK_IMAGE_NONE;
	unsigned i, fds = count_fds();

	(void)state;
	for (i = 0; i < 5; i++) {
		make(bad[i]);
		assert_int_equal(blk_image_open(&image, path, false, true), -EINVAL);
		assert_int_equal(image.fd, -1);
	}
	make(512);
	assert_int_equal(blk_image_open(&image, path, false, true), 0);
	assert_int_equal(image.nr_sectors, 1);
	assert_true(image.physical_size >= 512 && image.physical_size <= 4096);
	blk_image_close(&image);
	make((off_t)5 << 40);
	assert_int_equal(blk_image_open(&image, path, true, true), 0);
	assert_int_equal(image.nr_sectors, (uint64_t)5 << 31);
	blk_image_close(&image);
	blk_image_close(&image);
	assert_int_equal(count_fds(), fds);
}

static void test_kinds(void **state)
{
	struct blk_image image = BLK_IMAGE_NONE;

	(void)state;
	assert_int_equal(blk_image_open(&image, folder, true, true), -ENOTBLK);
	assert_int_equal(blk_image_open(&image, "/dev/null", false, true), -ENOTBLK);
	assert_int_equal(blk_image_open(&image, "/nonexistent", false, true), -ENOENT);
	unlink(path);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(blk_image_open(&image, path, true, true), -ENOTBLK); /* and does not wait */
	unlink(path);
}

static void test_lock(void **state)
{
	struct blk_image a = BLK_IMAGE_NONE, b = BLK_IMAGE_NONE;

	(void)state;
	make(1024);
	assert_int_equal(blk_image_open(&a, path, false, true), 0);
	assert_int_equal(blk_image_open(&b, path, false, true), -EBUSY);
	assert_int_equal(blk_image_open(&b, path, true, true), -EBUSY);
	assert_int_equal(blk_image_open(&b, path, false, false), 0); /* who asks for it */
	blk_image_close(&b);
	blk_image_close(&a);
	assert_int_equal(blk_image_open(&a, path, true, true), 0);
	assert_int_equal(blk_image_open(&b, path, true, true), 0);
	blk_image_close(&a);
	assert_int_equal(blk_image_open(&a, path, false, true), -EBUSY);
	blk_image_close(&b);
}

static int set_up(void **state)
{
	(void)state;
	if (!mkdtemp(folder))
		return -1;
	snprintf(path, sizeof(path), "%s/disk", folder);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	unlink(path);
	return rmdir(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_kinds),
		cmocka_unit_test(test_lock),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
