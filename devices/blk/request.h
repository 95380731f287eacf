/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A virtio-blk request (virtio 1.2, 5.2.6): from a descriptor chain to an operation on the image.
 * Pure: no file, no ring. Everything in the chain is the driver's.
 */
#ifndef BLK_REQUEST_H
#define BLK_REQUEST_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include <belfry/virtq.h>

/* The header: type, reserved, sector, each little-endian. */
#define BLK_HEADER_SIZE 16
#define BLK_ID_SIZE     20

/* What requests are checked against. Immutable while queues run. */
struct blk_disk {
	uint64_t nr_sectors;
	bool read_only;
	char serial[BLK_ID_SIZE]; /* filled up with zeros */
};

enum blk_op {
	BLK_OP_NONE, /* nothing left to do but to answer */
	BLK_OP_READ,
	BLK_OP_WRITE,
	BLK_OP_FLUSH,
};

struct blk_request {
	enum blk_op op;
	uint8_t status;       /* VIRTIO_BLK_S_*; of BLK_OP_NONE only: otherwise not known yet */
	uint8_t *status_byte; /* in guest memory */
	uint64_t offset;      /* bytes into the image */
	uint32_t len;         /* bytes of data */
	uint32_t written;     /* bytes that parsing itself put into the driver's buffer */
	unsigned nr_iov;      /* pieces of data, in the array given to blk_request_parse() */
};

/*
 * Everything but the pieces of the data: for who moves none. 0 and *@req; -EBADMSG as below.
 */
int blk_request_check(const struct blk_disk *disk, const struct bf_chain *chain,
		      struct blk_request *req);

/*
 * @iov: [@nr_iov] receives the pieces of the data. 0 and *@req; -EBADMSG: the chain has no room for
 * a header or a status, so that there is no way to answer it. Every other mistake of the driver is
 * an answer.
 */
int blk_request_parse(const struct blk_disk *disk, const struct bf_chain *chain, struct iovec *iov,
		      unsigned nr_iov, struct blk_request *req);

/*
 * Write the status, and say how many bytes the device has written in all: what goes into the used
 * ring. @read_len: bytes that really were read into the buffer (0 for other operations).
 */
uint32_t blk_request_answer(const struct blk_request *req, uint8_t status, uint32_t read_len);

#endif
