/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Asynchronous I/O on the image, one engine per queue thread: io_uring, or a pool of threads where
 * io_uring is refused.
 *
 * All calls belong to the queue thread, except new and free (control, no thread running). Requests
 * are the caller's; from blk_io_add() until blk_io_reap() returns it, a request and its pieces
 * belong to the engine. Short reads and writes are continued by the engine. Nothing here allocates
 * but new.
 */
#ifndef BLK_IO_H
#define BLK_IO_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "request.h"

struct blk_io_req {
	enum blk_op op;
	bool durable;      /* of a write: it is on stable storage when it is finished */
	struct iovec *iov; /* what is left to do; moves on with progress, and is changed */
	unsigned nr_iov;
	uint64_t offset;
	uint32_t left;
	uint32_t done;           /* bytes transferred, also when it failed */
	int result;              /* 0 or negative errno */
	struct blk_io_req *next; /* the engine's, and of the list that reap returns */
};

enum blk_io_kind { BLK_IO_AUTO, BLK_IO_URING, BLK_IO_THREADS };

struct blk_io;

struct blk_io_ops {
	const char *name;
	int (*open)(struct blk_io **io, int file_fd, unsigned depth);
	void (*close)(struct blk_io *io);
	void (*add)(struct blk_io *io, struct blk_io_req *req);
	bool (*submit)(struct blk_io *io);
	struct blk_io_req *(*reap)(struct blk_io *io);
	bool (*ready)(struct blk_io *io);
	bool (*arm)(struct blk_io *io);
};

/* What both engines begin with. */
struct blk_io {
	const struct blk_io_ops *ops;
	int file_fd; /* borrowed */
	int poll_fd;
};

extern const struct blk_io_ops blk_io_uring_ops;
extern const struct blk_io_ops blk_io_threads_ops;

/*
 * @depth: the most requests at a time. AUTO takes threads when io_uring fails, whatever the reason.
 * 0 or negative errno.
 */
int blk_io_new(enum blk_io_kind kind, int file_fd, unsigned depth, struct blk_io **io);
/* Nothing may be in flight. NULL is fine. */
void blk_io_free(struct blk_io *io);
const char *blk_io_name(const struct blk_io *io);

/* Take a request: started at the latest by the next blk_io_submit(). */
static inline void blk_io_add(struct blk_io *io, struct blk_io_req *req)
{
	io->ops->add(io, req);
}
/* Start what was added. False: the kernel does not take all now; call again, do not sleep. */
static inline bool blk_io_submit(struct blk_io *io)
{
	return io->ops->submit(io);
}
/* A list of finished requests, or NULL. Looks at memory only, if there are none. */
static inline struct blk_io_req *blk_io_reap(struct blk_io *io)
{
	return io->ops->reap(io);
}
/* Is something finished? A look at memory, to be made as often as one likes. */
static inline bool blk_io_ready(struct blk_io *io)
{
	return io->ops->ready(io);
}
/* Before sleeping: the fd will be readable when something is finished. True: something is. */
static inline bool blk_io_arm(struct blk_io *io)
{
	return io->ops->arm(io);
}
/* To poll for reading, while armed. */
static inline int blk_io_fd(const struct blk_io *io)
{
	return io->poll_fd;
}

/*
 * For the engines: account for what a system call returned (bytes or negative errno). True:
 * finished, result is set. False: go on with what is left.
 */
bool blk_io_step(struct blk_io_req *req, int64_t ret);

#endif
