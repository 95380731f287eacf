/* SPDX-License-Identifier: BSD-3-Clause */
/* Both I/O engines against a file whose content is known. */
#include "../support.h"

#include <poll.h>
#include <stdbool.h>

#include "devices/blk/io.h"

#define DEPTH  64
#define BLOCK  4096
#define BLOCKS 256

static int file;

static struct blk_io *open_engine(void **state)
{
	enum blk_io_kind kind = *(enum blk_io_kind *)*state;
	struct blk_io *io;
	int ret = blk_io_new(kind, file, DEPTH, &io);

	if (ret && kind == BLK_IO_URING)
		skip();
	assert_int_equal(ret, 0);
	return io;
}

/* Wait for all @nr, by the engine's fd. */
static void finish(struct blk_io *io, unsigned nr)
{
	while (nr) {
		struct pollfd fd = { .fd = blk_io_fd(io), .events = POLLIN };
		struct blk_io_req *req = blk_io_reap(io);

		for (; req; req = req->next)
			nr--;
		if (!nr || !blk_io_submit(io) || blk_io_arm(io))
			continue;
		assert_int_equal(poll(&fd, 1, 10000), 1);
	}
}

/* Every block begins with its number. */
static void fill_file(void)
{
	uint32_t block[BLOCK / 4];
	uint32_t i;

	assert_int_equal(ftruncate(file, 0), 0);
	memset(block, 0x5a, sizeof(block));
	for (i = 0; i < BLOCKS; i++) {
		block[0] = i;
		assert_int_equal(pwrite(file, block, BLOCK, (off_t)i * BLOCK), BLOCK);
	}
}

static void test_read(void **state)
{
	struct blk_io *io = open_engine(state);
	static uint32_t data[DEPTH][BLOCK / 4];
	struct blk_io_req reqs[DEPTH];
	struct iovec iov[DEPTH][3];
	unsigned round, i;

	fill_file();
	for (round = 0; round < BLOCKS / DEPTH; round++) {
		for (i = 0; i < DEPTH; i++) {
			uint8_t *p = (uint8_t *)data[i];

			iov[i][0] = (struct iovec){ p, 1 };
			iov[i][1] = (struct iovec){ p + 1, 2000 };
			iov[i][2] = (struct iovec){ p + 2001, BLOCK - 2001 };
			reqs[i] = (struct blk_io_req){ .op = BLK_OP_READ,
						       .iov = iov[i],
						       .nr_iov = 3,
						       .offset = (uint64_t)(round * DEPTH + i) *
								 BLOCK,
						       .left = BLOCK };
			blk_io_add(io, &reqs[i]);
		}
		blk_io_submit(io);
		finish(io, DEPTH);
		for (i = 0; i < DEPTH; i++) {
			assert_int_equal(reqs[i].result, 0);
			assert_int_equal(reqs[i].done, BLOCK);
			assert_int_equal(data[i][0], round * DEPTH + i);
			assert_int_equal(data[i][BLOCK / 4 - 1], 0x5a5a5a5a);
		}
	}
	assert_null(blk_io_reap(io));
	blk_io_free(io);
}

static void test_write(void **state)
{
	struct blk_io *io = open_engine(state);
	char text[] = "durable?", back[8];
	unsigned i;

	fill_file();
	for (i = 0; i < 2; i++) {
		struct iovec iov[2] = { { text, 3 }, { text + 3, 5 } };
		struct blk_io_req write = { .op = BLK_OP_WRITE,
					    .durable = i,
					    .iov = iov,
					    .nr_iov = 2,
					    .offset = 100 + i,
					    .left = 8 };
		struct blk_io_req flush = { .op = BLK_OP_FLUSH };

		blk_io_add(io, &write);
		blk_io_submit(io);
		finish(io, 1);
		assert_int_equal(write.result, 0);
		assert_int_equal(write.done, 8);
		blk_io_add(io, &flush);
		blk_io_submit(io);
		finish(io, 1);
		assert_int_equal(flush.result, 0);
		assert_int_equal(pread(file, back, 8, 100 + i), 8);
		assert_memory_equal(back, text, 8);
	}
	blk_io_free(io);
}

/* A file that was cut: what is there is read, the rest is an error, and nothing hangs. */
static void test_short(void **state)
{
	struct blk_io *io = open_engine(state);
	uint8_t data[BLOCK] = { 0 };
	struct iovec iov = { data, BLOCK };
	struct blk_io_req req = { .op = BLK_OP_READ, .iov = &iov, .nr_iov = 1, .left = BLOCK };

	fill_file();
	assert_int_equal(ftruncate(file, 1000), 0);
	blk_io_add(io, &req);
	blk_io_submit(io);
	finish(io, 1);
	assert_int_equal(req.result, -EIO);
	assert_int_equal(req.done, 1000);
	assert_int_equal(data[999], 0x5a);
	assert_int_equal(data[1000], 0);
	blk_io_free(io);
}

static void test_bad_memory(void **state)
{
	struct blk_io *io = open_engine(state);
	struct iovec iov = { (void *)(uintptr_t)4096, 512 };
	struct blk_io_req req = { .op = BLK_OP_READ, .iov = &iov, .nr_iov = 1, .left = 512 };

	fill_file();
	blk_io_add(io, &req);
	blk_io_submit(io);
	finish(io, 1);
	assert_int_equal(req.result, -EFAULT);
	assert_int_equal(req.done, 0);
	blk_io_free(io);
}

static void test_step(void **state)
{
	struct iovec iov[] = { { (void *)(uintptr_t)0x1000, 10 },
			       { (void *)(uintptr_t)0x2000, 10 } };
	struct blk_io_req req = {
		.op = BLK_OP_WRITE, .iov = iov, .nr_iov = 2, .offset = 512, .left = 20
	};

	(void)state;
	assert_false(blk_io_step(&req, -EINTR));
	assert_false(blk_io_step(&req, -EAGAIN));
	assert_false(blk_io_step(&req, 4));
	assert_int_equal(req.offset, 516);
	assert_ptr_equal(req.iov[0].iov_base, (void *)(uintptr_t)0x1004);
	assert_false(blk_io_step(&req, 7));
	assert_int_equal(req.nr_iov, 1);
	assert_int_equal(req.iov[0].iov_len, 9);
	assert_true(blk_io_step(&req, 9));
	assert_int_equal(req.result, 0);
	assert_int_equal(req.done, 20);

	req = (struct blk_io_req){ .op = BLK_OP_WRITE, .iov = iov, .nr_iov = 1, .left = 5 };
	assert_true(blk_io_step(&req, 6)); /* more than was asked for */
	assert_int_equal(req.result, -EIO);
}

static void test_leaks(void **state)
{
	unsigned fds = count_fds(), i;

	for (i = 0; i < 50; i++)
		blk_io_free(open_engine(state));
	blk_io_free(NULL);
	assert_int_equal(count_fds(), fds);
}

int main(void)
{
	static enum blk_io_kind uring = BLK_IO_URING, threads = BLK_IO_THREADS;
#define BOTH(test)                                           \
	{ #test " io_uring", test, NULL, NULL, &uring },     \
	{                                                    \
#test " threads", test, NULL, NULL, &threads \
	}
	const struct CMUnitTest tests[] = {
		BOTH(test_read),       BOTH(test_write), BOTH(test_short),
		BOTH(test_bad_memory), BOTH(test_leaks), cmocka_unit_test(test_step),
	};

	file = make_memfd("disk", 0, 0);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
