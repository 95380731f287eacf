/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * virtio-blk requests: header, data and status spread over pieces as the input says. Each piece is an
 * allocation of its own, so that the sanitizer sees one byte too far.
 *
 * Input: read-only or not, sectors of the disk, readable and writable pieces' lengths, bytes of the first
 * readable ones (the header).
 */
#include "tests/fuzz/fuzz.h"

#include <errno.h>
#include <linux/virtio_blk.h>

#include "devices/blk/image.h"
#include "devices/blk/request.h"

#define MAX_PIECES 12u

static uint64_t nr_bad, nr_ops[4], nr_answered;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	return 0;
}

static bool lies_in(const struct bf_chain *chain, const uint8_t *at, size_t len)
{
	for (unsigned i = 0; i < (unsigned)chain->nr_out + chain->nr_in; i++) {
		const uint8_t *base = chain->iov[i].iov_base;

		if (at >= base && at + len <= base + chain->iov[i].iov_len)
			return true;
	}
	return false;
}

static void check(const struct blk_disk *disk, const struct bf_chain *chain,
		  const struct blk_request *req, const struct iovec *iov)
{
	uint64_t sum = 0;

	fuzz_must(lies_in(chain, req->status_byte, 1));
	nr_ops[req->op]++;
	if (req->op == BLK_OP_READ || req->op == BLK_OP_WRITE) {
		fuzz_must(req->len && !(req->len % 512) && !(req->offset % 512));
		fuzz_must(req->offset / 512 + req->len / 512 <= disk->nr_sectors);
		fuzz_must(req->op == BLK_OP_READ || !disk->read_only);
		for (unsigned i = 0; i < req->nr_iov; i++) {
			fuzz_must(lies_in(chain, iov[i].iov_base, iov[i].iov_len));
			if (req->op == BLK_OP_READ)
				memset(iov[i].iov_base, 0x55, iov[i].iov_len);
			sum += iov[i].iov_len;
		}
		fuzz_must(sum == req->len);
	}
	/* The used ring may not say more than was written (CVE-2024-8612). */
	fuzz_must(blk_request_answer(req, VIRTIO_BLK_S_OK, req->op == BLK_OP_READ ? req->len : 0) <=
		  chain->in_len);
	nr_answered++;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	uint8_t choice = input8(&in);
	struct blk_disk disk = { .nr_sectors = choice & 2 ? input64(&in) : input8(&in),
				 .read_only = choice & 1,
				 .serial = "serial" };
	struct iovec pieces[MAX_PIECES], iov[MAX_PIECES + 2];
	struct bf_chain chain = { .iov = pieces };
	struct blk_request req;
	unsigned nr = choice >> 4;
	int ret;

	chain.nr_out = (uint16_t)(nr % (MAX_PIECES / 2 + 1));
	chain.nr_in = (uint16_t)(choice >> 2 & 3);
	for (unsigned i = 0; i < (unsigned)chain.nr_out + chain.nr_in; i++) {
		uint8_t kind = input8(&in);
		/* No piece of a chain is empty: that is the ring's promise. */
		size_t len = kind & 0x80 ? 512u * (kind & 7) + 1 : kind ? kind : 512;

		pieces[i] = (struct iovec){ malloc(len), len };
		fuzz_must(pieces[i].iov_base);
		memset(pieces[i].iov_base, 0, len);
		*(i < chain.nr_out ? &chain.out_len : &chain.in_len) += len;
	}
	for (unsigned i = 0; i < chain.nr_out; i++)
		input_bytes(&in, pieces[i].iov_base, pieces[i].iov_len);
	ret = blk_request_parse(&disk, &chain, iov, input8(&in) & 1 ? 2 : MAX_PIECES + 2, &req);
	fuzz_must(!ret || ret == -EBADMSG);
	if (ret)
		nr_bad++;
	else
		check(&disk, &chain, &req, iov);
	for (unsigned i = 0; i < (unsigned)chain.nr_out + chain.nr_in; i++)
		free(pieces[i].iov_base);
	return 0;
}

bool fuzz_report(void)
{
	printf("blk: %llu not answerable; %llu reads, %llu writes, %llu flushes, %llu without I/O; "
	       "%llu answered\n",
	       (unsigned long long)nr_bad, (unsigned long long)nr_ops[BLK_OP_READ],
	       (unsigned long long)nr_ops[BLK_OP_WRITE], (unsigned long long)nr_ops[BLK_OP_FLUSH],
	       (unsigned long long)nr_ops[BLK_OP_NONE], (unsigned long long)nr_answered);
	return nr_bad && nr_ops[BLK_OP_READ] && nr_ops[BLK_OP_WRITE] && nr_ops[BLK_OP_FLUSH] &&
	       nr_ops[BLK_OP_NONE];
}
