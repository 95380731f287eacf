/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * I/O by io_uring: one ring per queue thread, with room for every request of the queue, so that
 * neither of its rings can overflow. Completions are looked for in memory; the ring's own fd is
 * polled before sleeping.
 *
 * No COOP_TASKRUN or DEFER_TASKRUN: with those a completion appears only when the thread enters the
 * kernel, and a thread that spins on a doorbell does not.
 */
#include <errno.h>
#include <liburing.h>
#include <stdlib.h>

#include "io.h"

struct uring {
	struct blk_io io;
	struct io_uring ring;
	bool registered; /* the file is number 0 of the ring's own: a count less for each request */
};

static struct uring *from_io(struct blk_io *io)
{
	return (struct uring *)io;
}

static unsigned round_up_to_power(unsigned n)
{
	unsigned power = 1;

	while (power < n)
		power *= 2;
	return power;
}

static int uring_open(struct blk_io **io, int file_fd, unsigned depth)
{
	struct uring *uring = calloc(1, sizeof(*uring));
	int ret;

	if (!uring)
		return -ENOMEM;
	ret = io_uring_queue_init(round_up_to_power(depth), &uring->ring, 0);
	if (ret) {
		free(uring);
		return ret;
	}
	/* Where it may not be (memory limits of old kernels) the descriptor itself does. */
	uring->registered = !io_uring_register_files(&uring->ring, &file_fd, 1);
	uring->io.ops = &blk_io_uring_ops;
	uring->io.file_fd = file_fd;
	uring->io.poll_fd = uring->ring.ring_fd;
	*io = &uring->io;
	return 0;
}

static void uring_close(struct blk_io *io)
{
	struct uring *uring = from_io(io);

	io_uring_queue_exit(&uring->ring);
	free(uring);
}

/* One piece, as most requests have, needs no array: the kernel need not copy it. */
static void prepare_read(struct io_uring_sqe *sqe, int fd, const struct blk_io_req *req)
{
	if (req->nr_iov == 1)
		io_uring_prep_read(sqe, fd, req->iov->iov_base, req->left, req->offset);
	else
		io_uring_prep_readv(sqe, fd, req->iov, req->nr_iov, req->offset);
}

static void prepare_write(struct io_uring_sqe *sqe, int fd, const struct blk_io_req *req)
{
	if (req->nr_iov == 1)
		io_uring_prep_write(sqe, fd, req->iov->iov_base, req->left, req->offset);
	else
		io_uring_prep_writev(sqe, fd, req->iov, req->nr_iov, req->offset);
	sqe->rw_flags = req->durable ? RWF_DSYNC : 0;
}

static void uring_add(struct blk_io *io, struct blk_io_req *req)
{
	struct uring *uring = from_io(io);
	/* Never NULL: a request has one entry at a time, and there is one for each. */
	struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);
	int fd = uring->registered ? 0 : io->file_fd;

	switch (req->op) {
	case BLK_OP_READ:
		prepare_read(sqe, fd, req);
		break;
	case BLK_OP_WRITE:
		prepare_write(sqe, fd, req);
		break;
	default:
		io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
	}
	if (uring->registered)
		sqe->flags |= IOSQE_FIXED_FILE;
	io_uring_sqe_set_data(sqe, req);
}

static bool uring_submit(struct blk_io *io)
{
	struct io_uring *ring = &from_io(io)->ring;

	/* A failure (no memory, interrupted) leaves the entries where they are. */
	while (io_uring_sq_ready(ring)) {
		if (io_uring_submit(ring) <= 0)
			return false;
	}
	return true;
}

static struct blk_io_req *uring_reap(struct blk_io *io)
{
	struct io_uring *ring = &from_io(io)->ring;
	struct blk_io_req *list = NULL, **tail = &list, *again = NULL;
	struct io_uring_cqe *cqe;
	unsigned head, nr = 0;

	io_uring_for_each_cqe(ring, head, cqe)
	{
		struct blk_io_req *req = io_uring_cqe_get_data(cqe);

		nr++;
		if (blk_io_step(req, cqe->res)) {
			req->next = NULL;
			*tail = req;
			tail = &req->next;
		} else {
			req->next = again;
			again = req;
		}
	}
	if (!nr)
		return NULL;
	io_uring_cq_advance(ring, nr);
	while (again) {
		uring_add(io, again);
		again = again->next;
	}
	return list;
}

static bool uring_ready(struct blk_io *io)
{
	return io_uring_cq_ready(&from_io(io)->ring) > 0;
}

const struct blk_io_ops blk_io_uring_ops = {
	.name = "io_uring",
	.open = uring_open,
	.close = uring_close,
	.add = uring_add,
	.submit = uring_submit,
	.reap = uring_reap,
	.ready = uring_ready,
	.arm = uring_ready, /* the ring's fd needs no preparation */
};
