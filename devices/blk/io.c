/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Choice of the I/O engine, and what both have in common: progress of a request. Control for new
 * and free; blk_io_step() on the queue thread or a pool thread that holds the request.
 */
#include <errno.h>

#include "io.h"

int blk_io_new(enum blk_io_kind kind, int file_fd, unsigned depth, struct blk_io **io)
{
	int ret;

	if (kind != BLK_IO_THREADS) {
		ret = blk_io_uring_ops.open(io, file_fd, depth);
		if (!ret || kind == BLK_IO_URING)
			return ret;
	}
	return blk_io_threads_ops.open(io, file_fd, depth);
}

void blk_io_free(struct blk_io *io)
{
	if (io)
		io->ops->close(io);
}

const char *blk_io_name(const struct blk_io *io)
{
	return io->ops->name;
}

static void advance(struct blk_io_req *req, uint32_t len)
{
	req->offset += len;
	req->left -= len;
	req->done += len;
	while (len) {
		uint32_t piece = req->iov->iov_len < len ? (uint32_t)req->iov->iov_len : len;

		req->iov->iov_base = (uint8_t *)req->iov->iov_base + piece;
		req->iov->iov_len -= piece;
		len -= piece;
		if (!req->iov->iov_len) {
			req->iov++;
			req->nr_iov--;
		}
	}
}

bool blk_io_step(struct blk_io_req *req, int64_t ret)
{
	if (ret == -EINTR || ret == -EAGAIN)
		return false;
	req->result = ret < 0 ? (int)ret : 0;
	if (ret < 0 || req->op == BLK_OP_FLUSH)
		return true;
	/* No progress is the end of a file that was cut under us, or a full disk. */
	if (!ret || ret > req->left) {
		req->result = -EIO;
		return true;
	}
	advance(req, (uint32_t)ret);
	return !req->left;
}
