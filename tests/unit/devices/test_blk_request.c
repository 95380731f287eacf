/* SPDX-License-Identifier: BSD-3-Clause */
/* virtio-blk requests: every framing of a good one, and what hostile drivers send. */
#include "../support.h"

#include <linux/virtio_blk.h>
#include <stdbool.h>

#include "devices/blk/request.h"

#define SECTORS 100

static const struct blk_disk disk = { .nr_sectors = SECTORS, .serial = "a-serial-number" };
static const struct blk_disk frozen = { .nr_sectors = SECTORS, .read_only = true };

/* A request laid out in one buffer: header, data out, data in, status, each right after the other.
 */
struct frame {
	uint8_t bytes[8192];
	struct iovec iov[64];
	struct bf_chain chain;
	struct iovec data[32];
	struct blk_request req;
};

static void add(struct frame *f, bool in, uint8_t *at, size_t len)
{
	f->iov[f->chain.nr_out + f->chain.nr_in] = (struct iovec){ at, len };
	if (in) {
		f->chain.nr_in++;
		f->chain.in_len += len;
	} else {
		f->chain.nr_out++;
		f->chain.out_len += len;
	}
}

/* Cut @len bytes at @at into pieces of at most @piece. */
static void add_cut(struct frame *f, bool in, uint8_t *at, size_t len, size_t piece)
{
	while (len) {
		size_t now = len < piece ? len : piece;

		add(f, in, at, now);
		at += now;
		len -= now;
	}
}

static void start_frame(struct frame *f, size_t skew, uint32_t type, uint64_t sector)
{
	memset(f, 0, sizeof(*f));
	memset(f->bytes, 0xee, sizeof(f->bytes));
	f->chain.iov = f->iov;
	f->chain.nr_iov = 64;
	type = htole32(type);
	sector = htole64(sector);
	memcpy(f->bytes + skew, &type, 4);
	memset(f->bytes + skew + 4, 0, 4);
	memcpy(f->bytes + skew + 8, &sector, 8);
}

static int parse(struct frame *f, const struct blk_disk *d)
{
	return blk_request_parse(d, &f->chain, f->data, 32, &f->req);
}

/* A plain request: header, data, status, three pieces. */
static void plain(struct frame *f, uint32_t type, uint64_t sector, size_t len)
{
	bool in = type != VIRTIO_BLK_T_OUT;

	start_frame(f, 0, type, sector);
	add(f, false, f->bytes, 16);
	if (len)
		add(f, in, f->bytes + 16, len);
	add(f, true, f->bytes + 16 + 4096, 1);
}

static void test_good(void **state)
{
	struct frame f;

	(void)state;
	plain(&f, VIRTIO_BLK_T_IN, 3, 1024);
	assert_int_equal(parse(&f, &disk), 0);
	assert_int_equal(f.req.op, BLK_OP_READ);
	assert_int_equal(f.req.offset, 3 * 512);
	assert_int_equal(f.req.len, 1024);
	assert_int_equal(f.req.nr_iov, 1);
	assert_ptr_equal(f.data[0].iov_base, f.bytes + 16);
	assert_int_equal(blk_request_answer(&f.req, 0, 1024), 1025);
	assert_int_equal(f.bytes[16 + 4096], 0);

	plain(&f, VIRTIO_BLK_T_OUT, SECTORS - 1, 512);
	assert_int_equal(parse(&f, &disk), 0);
	assert_int_equal(f.req.op, BLK_OP_WRITE);
	assert_int_equal(f.req.offset, (SECTORS - 1) * 512);
	assert_int_equal(blk_request_answer(&f.req, 0, 0), 1);

	plain(&f, VIRTIO_BLK_T_FLUSH, 0, 0);
	assert_int_equal(parse(&f, &frozen), 0);
	assert_int_equal(f.req.op, BLK_OP_FLUSH);
}

/* All ways to cut, at even and odd addresses, give the same request. */
static void test_framing(void **state)
{
	static const size_t cuts[] = { 1, 2, 3, 5, 7, 15, 16, 17, 511, 513, 4096 };
	unsigned i, j, skew;
	struct frame f;

	(void)state;
	for (i = 0; i < 11; i++) {
		for (skew = 0; skew < 9; skew++) {
			size_t data = cuts[i] < 100 ? cuts[i] * 31 / 512 * 512 : 1024;
			size_t all = 0;

			start_frame(&f, skew, VIRTIO_BLK_T_IN, 9);
			add_cut(&f, false, f.bytes + skew, 16, cuts[i]);
			add_cut(&f, true, f.bytes + skew + 16, data + 1,
				cuts[i] < 100 ? 512 + i : cuts[i]);
			assert_int_equal(parse(&f, &disk), 0);
			assert_int_equal(f.req.op, data ? BLK_OP_READ : BLK_OP_NONE);
			assert_int_equal(f.req.status, 0);
			assert_ptr_equal(f.req.status_byte, f.bytes + skew + 16 + data);
			for (j = 0; j < f.req.nr_iov; j++)
				all += f.data[j].iov_len;
			assert_int_equal(all, data);
		}
	}
	/* Header and data in one piece. */
	start_frame(&f, 1, VIRTIO_BLK_T_OUT, 0);
	add(&f, false, f.bytes + 1, 16 + 512);
	add(&f, true, f.bytes + 3000, 1);
	assert_int_equal(parse(&f, &disk), 0);
	assert_int_equal(f.req.op, BLK_OP_WRITE);
	assert_ptr_equal(f.data[0].iov_base, f.bytes + 17);
	assert_int_equal(f.data[0].iov_len, 512);
}

static void test_empty_pieces(void **state)
{
	struct frame f;

	(void)state;
	start_frame(&f, 0, VIRTIO_BLK_T_IN, 0);
	add(&f, false, f.bytes, 0);
	add(&f, false, f.bytes, 16);
	add(&f, false, f.bytes, 0);
	add(&f, true, f.bytes, 0);
	add(&f, true, f.bytes + 16, 513);
	add(&f, true, f.bytes, 0);
	assert_int_equal(parse(&f, &disk), 0);
	assert_int_equal(f.req.op, BLK_OP_READ);
	assert_ptr_equal(f.req.status_byte, f.bytes + 16 + 512);
}

static void test_refused(void **state)
{
	static const struct {
		uint32_t type;
		uint64_t sector;
		size_t len;
		bool read_only;
		uint8_t status;
	} table[] = {
		{ VIRTIO_BLK_T_IN, SECTORS, 512, false, VIRTIO_BLK_S_IOERR },
		{ VIRTIO_BLK_T_IN, SECTORS - 1, 1024, false, VIRTIO_BLK_S_IOERR },
		{ VIRTIO_BLK_T_IN, UINT64_MAX, 512, false, VIRTIO_BLK_S_IOERR },
		{ VIRTIO_BLK_T_IN, UINT64_MAX / 512, 1024, false, VIRTIO_BLK_S_IOERR },
		{ VIRTIO_BLK_T_IN, UINT64_MAX / 512 + 1, 1024, false, VIRTIO_BLK_S_IOERR },
		{ VIRTIO_BLK_T_IN, 1ull << 55, 512, false, VIRTIO_BLK_S_IOERR },
		{ VIRTIO_BLK_T_IN, 0, 511, false, VIRTIO_BLK_S_IOERR },
		{ VIRTIO_BLK_T_IN, 0, 1, false, VIRTIO_BLK_S_IOERR },
		{ VIRTIO_BLK_T_OUT, 0, 513, false, VIRTIO_BLK_S_IOERR },
		{ VIRTIO_BLK_T_OUT, SECTORS, 512, false, VIRTIO_BLK_S_IOERR },
		{ VIRTIO_BLK_T_OUT, 0, 512, true, VIRTIO_BLK_S_IOERR },
		{ VIRTIO_BLK_T_SCSI_CMD, 0, 512, false, VIRTIO_BLK_S_UNSUPP },
		{ VIRTIO_BLK_T_DISCARD, 0, 512, false, VIRTIO_BLK_S_UNSUPP },
		{ VIRTIO_BLK_T_WRITE_ZEROES, 0, 512, false, VIRTIO_BLK_S_UNSUPP },
		{ VIRTIO_BLK_T_OUT | 0x80000000u, 0, 512, false, VIRTIO_BLK_S_UNSUPP },
		{ 0xffffffffu, 0, 512, false, VIRTIO_BLK_S_UNSUPP },
		{ VIRTIO_BLK_T_IN, SECTORS, 0, false, VIRTIO_BLK_S_OK },
	};
	struct frame f;
	unsigned i;

	(void)state;
	for (i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		plain(&f, table[i].type, table[i].sector, table[i].len);
		assert_int_equal(parse(&f, table[i].read_only ? &frozen : &disk), 0);
		assert_int_equal(f.req.op, BLK_OP_NONE);
		assert_int_equal(f.req.status, table[i].status);
		assert_int_equal(blk_request_answer(&f.req, f.req.status, 0), 1);
	}
}

static void test_unanswerable(void **state)
{
	struct frame f;

	(void)state;
	start_frame(&f, 0, VIRTIO_BLK_T_IN, 0);
	add(&f, false, f.bytes, 15);
	add(&f, true, f.bytes + 16, 513);
	assert_int_equal(parse(&f, &disk), -EBADMSG);

	start_frame(&f, 0, VIRTIO_BLK_T_OUT, 0);
	add(&f, false, f.bytes, 528);
	assert_int_equal(parse(&f, &disk), -EBADMSG);
	add(&f, true, f.bytes + 600, 0);
	assert_int_equal(parse(&f, &disk), -EBADMSG);

	start_frame(&f, 0, VIRTIO_BLK_T_IN, 0);
	add(&f, true, f.bytes + 16, 513);
	assert_int_equal(parse(&f, &disk), -EBADMSG);
}

/* More than the used ring can say, made of one piece again and again. */
static void test_huge(void **state)
{
	struct frame f;
	unsigned i;

	(void)state;
	start_frame(&f, 0, VIRTIO_BLK_T_IN, 0);
	add(&f, false, f.bytes, 16);
	for (i = 0; i < 8; i++)
		add(&f, true, f.bytes, 1u << 30);
	add(&f, true, f.bytes + 16, 1);
	assert_int_equal(parse(&f, &(struct blk_disk){ .nr_sectors = UINT64_MAX / 512 }), 0);
	assert_int_equal(f.req.op, BLK_OP_NONE);
	assert_int_equal(f.req.status, VIRTIO_BLK_S_IOERR);
}

static void test_too_many_pieces(void **state)
{
	struct frame f;
	unsigned i;

	(void)state;
	start_frame(&f, 0, VIRTIO_BLK_T_IN, 0);
	add(&f, false, f.bytes, 16);
	for (i = 0; i < 33; i++)
		add(&f, true, f.bytes + 16, 512);
	add(&f, true, f.bytes + 16, 1);
	assert_int_equal(parse(&f, &disk), 0);
	assert_int_equal(f.req.status, VIRTIO_BLK_S_IOERR);
}

static void test_get_id(void **state)
{
	struct frame f;

	(void)state;
	plain(&f, VIRTIO_BLK_T_GET_ID, 0, 20);
	assert_int_equal(parse(&f, &disk), 0);
	assert_int_equal(f.req.op, BLK_OP_NONE);
	assert_memory_equal(f.bytes + 16, "a-serial-number\0\0\0\0\0", 20);
	assert_int_equal(f.bytes[36], 0xee);
	assert_int_equal(blk_request_answer(&f.req, f.req.status, 0), 21);

	/* No room for all of it: what fits, and not a byte more. */
	plain(&f, VIRTIO_BLK_T_GET_ID, 0, 5);
	assert_int_equal(parse(&f, &disk), 0);
	assert_memory_equal(f.bytes + 16, "a-ser\xee", 6);
	assert_int_equal(blk_request_answer(&f.req, f.req.status, 0), 6);

	start_frame(&f, 0, VIRTIO_BLK_T_GET_ID, 0);
	add(&f, false, f.bytes, 16);
	add_cut(&f, true, f.bytes + 16, 100, 3);
	assert_int_equal(parse(&f, &disk), 0);
	assert_memory_equal(f.bytes + 16, "a-serial-number\0\0\0\0\0\xee", 21);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good),
		cmocka_unit_test(test_framing),
		cmocka_unit_test(test_empty_pieces),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_unanswerable),
		cmocka_unit_test(test_huge),
		cmocka_unit_test(test_too_many_pieces),
		cmocka_unit_test(test_get_id),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
