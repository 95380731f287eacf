/* SPDX-License-Identifier: BSD-3-Clause */
/* What drivers did to other disks, once each: the name of a test is the row of docs/safety.md. */
#include "../unit/support.h"

#include <linux/virtio_blk.h>

#include "devices/blk/image.h"
#include "devices/blk/request.h"

#define SECTORS 16u

static const struct blk_disk disk = { .nr_sectors = SECTORS, .serial = "0123456789abcdefghij" };

/* One readable piece, one writable one: allocations exactly as long as they say. */
struct made {
	uint8_t *out, *in;
	struct iovec pieces[2], iov[4];
	struct bf_chain chain;
	struct blk_request req;
	int ret;
};

static void parse(struct made *m, uint32_t type, uint64_t sector, size_t out_len, size_t in_len)
{
	uint8_t header[16] = { 0 };

	memcpy(header, &type, 4);
	memcpy(header + 8, &sector, 8);
	m->out = calloc(1, out_len);
	m->in = malloc(in_len);
	assert_non_null(m->out);
	assert_non_null(m->in);
	memset(m->in, 0xcc, in_len);
	memcpy(m->out, header, out_len < 16 ? out_len : 16);
	m->pieces[0] = (struct iovec){ m->out, out_len };
	m->pieces[1] = (struct iovec){ m->in, in_len };
	m->chain = (struct bf_chain){
		.iov = m->pieces, .nr_out = 1, .nr_in = 1, .out_len = out_len, .in_len = in_len
	};
	m->ret = blk_request_parse(&disk, &m->chain, m->iov, 4, &m->req);
}

static void done(struct made *m)
{
	free(m->out);
	free(m->in);
}

static void yc_dffd994_sectors_that_wrap(void **state)
{
	static const uint64_t sectors[] = { SECTORS,        SECTORS - 1, UINT64_MAX,
					    UINT64_MAX - 1, 1ull << 55,  (1ull << 55) + 1,
					    1ull << 63 };
	struct made m;

	(void)state;
	for (unsigned i = 0; i < sizeof(sectors) / sizeof(sectors[0]); i++) {
		parse(&m, VIRTIO_BLK_T_IN, sectors[i], 16, 1024 + 1);
		assert_int_equal(m.ret, 0);
		assert_int_equal(m.req.op, BLK_OP_NONE);
		assert_int_equal(m.req.status, VIRTIO_BLK_S_IOERR);
		done(&m);
		parse(&m, VIRTIO_BLK_T_OUT, sectors[i], 16 + 1024, 1);
		assert_int_equal(m.req.op, BLK_OP_NONE);
		done(&m);
	}
	parse(&m, VIRTIO_BLK_T_IN, SECTORS - 2, 16, 1024 + 1);
	assert_int_equal(m.req.op, BLK_OP_READ);
	done(&m);
}

/* What the used ring says was written is what was written: not the length of the buffers. */
static void cve_2024_8612_used_length(void **state)
{
	struct made m;

	(void)state;
	parse(&m, VIRTIO_BLK_T_IN, 0, 16, 1024 + 1);
	assert_int_equal(blk_request_answer(&m.req, VIRTIO_BLK_S_IOERR, 0), 1);
	assert_int_equal(blk_request_answer(&m.req, VIRTIO_BLK_S_IOERR, 512), 513);
	done(&m);
	parse(&m, VIRTIO_BLK_T_IN, SECTORS, 16, 4096 + 1); /* refused: the buffer is untouched */
	assert_int_equal(blk_request_answer(&m.req, m.req.status, 0), 1);
	assert_int_equal(m.in[0], 0xcc);
	assert_int_equal(m.in[4096], VIRTIO_BLK_S_IOERR);
	done(&m);
	parse(&m, VIRTIO_BLK_T_GET_ID, 0, 16, 4096 + 1);
	assert_int_equal(blk_request_answer(&m.req, m.req.status, 0), BLK_ID_SIZE + 1);
	assert_int_equal(m.in[BLK_ID_SIZE], 0xcc);
	done(&m);
	parse(&m, 77, 0, 16, 512 + 1);
	assert_int_equal(blk_request_answer(&m.req, m.req.status, 0), 1);
	done(&m);
}

static void cve_2026_48914_scsi_passthrough(void **state)
{
	struct made m;

	(void)state;
	for (uint32_t type = 2; type <= 3; type++) { /* VIRTIO_BLK_T_SCSI_CMD, _OUT */
		for (unsigned barrier = 0; barrier < 2; barrier++) {
			parse(&m, type | (barrier ? 0x80000000u : 0), 0, 16 + 4096, 96 + 16 + 1);
			assert_int_equal(m.ret, 0);
			assert_int_equal(m.req.op, BLK_OP_NONE);
			assert_int_equal(m.req.status, VIRTIO_BLK_S_UNSUPP);
			assert_int_equal(m.req.written, 0);
			assert_int_equal(m.in[0], 0xcc);
			done(&m);
		}
	}
}

/* UBSan says it, if anything looks at the header where it lies. */
static void spdk_7778bc3a33_header_at_an_odd_address(void **state)
{
	uint8_t bytes[64] = { 0 }, in[513];
	struct iovec iov[2];

	(void)state;
	for (unsigned shift = 0; shift < 16; shift++) {
		struct iovec pieces[] = { { bytes + shift, 16 }, { in, sizeof(in) } };
		struct bf_chain chain = {
			.iov = pieces, .nr_out = 1, .nr_in = 1, .out_len = 16, .in_len = 513
		};
		struct blk_request req;

		memset(bytes, 0, sizeof(bytes));
		bytes[shift + 8] = 3;
		assert_int_equal(blk_request_parse(&disk, &chain, iov, 2, &req), 0);
		assert_int_equal(req.op, BLK_OP_READ);
		assert_int_equal(req.offset, 3 * 512);
	}
}

/* The buffer's length, not ours, says how much of the name goes out: short and long ones. */
static void openbsd_vmd_length_of_the_other_side(void **state)
{
	struct made m;

	(void)state;
	for (size_t len = 1; len < 64; len++) {
		parse(&m, VIRTIO_BLK_T_GET_ID, 0, 16, len);
		assert_int_equal(m.ret, 0);
		assert_int_equal(m.req.written, len - 1 < BLK_ID_SIZE ? len - 1 : BLK_ID_SIZE);
		assert_ptr_equal(m.req.status_byte, m.in + len - 1);
		done(&m);
	}
}

static void cve_2022_26354_no_room_for_an_answer(void **state)
{
	struct made m;

	(void)state;
	for (size_t len = 1; len < 16; len++) {
		parse(&m, VIRTIO_BLK_T_IN, 0, len, 513);
		assert_int_equal(m.ret, -EBADMSG);
		done(&m);
	}
}

/* A guest writes the header of another format to its raw disk, and has it opened again. */
static void cve_2026_27211_a_disk_is_raw_whatever_it_holds(void **state)
{
	static const char magics[4][8] = { "QFI\xfb\0\0\0", "KDMV", "conectix", "vhdxfile" };
	char path[] = "/tmp/belfry-rows-XXXXXX";
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, SECTORS * 512), 0);
	for (unsigned i = 0; i < 4; i++) {
		struct blk_image image = BLK_IMAGE_NONE;

		assert_int_equal(pwrite(fd, magics[i], 8, 0), 8);
		assert_int_equal(blk_image_open(&image, path, true, true), 0);
		assert_int_equal(image.nr_sectors, SECTORS);
		blk_image_close(&image);
	}
	close(fd);
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(yc_dffd994_sectors_that_wrap),
		cmocka_unit_test(cve_2024_8612_used_length),
		cmocka_unit_test(cve_2026_48914_scsi_passthrough),
		cmocka_unit_test(spdk_7778bc3a33_header_at_an_odd_address),
		cmocka_unit_test(openbsd_vmd_length_of_the_other_side),
		cmocka_unit_test(cve_2022_26354_no_room_for_an_answer),
		cmocka_unit_test(cve_2026_27211_a_disk_is_raw_whatever_it_holds),
	};

	return cmocka_run_group_tests_name("rows_blk", tests, NULL, NULL);
}
