/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Parses and checks virtio-blk requests. Queue context; owns nothing, allocates nothing.
 *
 * Framing is free (virtio 1.2, 2.7.4): the header may be spread over any number of readable pieces
 * at any address, and the status is the last writable byte wherever it lies. So the header is
 * copied out, once, byte by byte, and only the copy is looked at; data is what is left of the
 * pieces.
 */
#include <endian.h>
#include <errno.h>
#include <linux/virtio_blk.h>
#include <string.h>

#include "image.h"
#include "request.h"

struct header {
	uint32_t type;
	uint64_t sector;
};

/* A walk over pieces. */
struct cursor {
	const struct iovec *iov;
	unsigned nr;
	size_t skip; /* bytes of iov[0] that are behind us */
};

/* The next piece of at most @max bytes, which is then behind us. Empty: the end. */
static struct iovec next_piece(struct cursor *at, uint64_t max)
{
	struct iovec piece = { 0 };

	while (at->nr && at->skip == at->iov->iov_len) {
		at->iov++;
		at->nr--;
		at->skip = 0;
	}
	if (!at->nr)
		return piece;
	piece.iov_base = (uint8_t *)at->iov->iov_base + at->skip;
	piece.iov_len = at->iov->iov_len - at->skip;
	if (piece.iov_len > max)
		piece.iov_len = max;
	at->skip += piece.iov_len;
	return piece;
}

/* The caller knows that there are @len bytes. */
static void copy_from(struct cursor *at, void *to, size_t len)
{
	uint8_t *p = to;

	while (len) {
		struct iovec piece = next_piece(at, len);

		memcpy(p, piece.iov_base, piece.iov_len);
		p += piece.iov_len;
		len -= piece.iov_len;
	}
	/* The driver can change the original now: nothing may be read from there again. */
	__asm__ __volatile__("" ::: "memory");
}

static size_t copy_to(struct cursor *at, uint64_t room, const void *from, size_t len)
{
	const uint8_t *p = from;
	size_t left = len < room ? len : (size_t)room, done = left;

	while (left) {
		struct iovec piece = next_piece(at, left);

		memcpy(piece.iov_base, p, piece.iov_len);
		p += piece.iov_len;
		left -= piece.iov_len;
	}
	return done;
}

/* The caller knows that there are as many bytes. */
static struct header read_header(const struct bf_chain *chain)
{
	struct cursor out = { .iov = chain->iov, .nr = chain->nr_out };
	uint8_t raw[BLK_HEADER_SIZE];
	uint32_t type;
	uint64_t sector;

	/* Nearly always in one piece: then this is two loads. */
	if (chain->iov->iov_len >= sizeof(raw)) {
		memcpy(raw, chain->iov->iov_base, sizeof(raw));
		__asm__ __volatile__("" ::: "memory"); /* as in copy_from() */
	} else {
		copy_from(&out, raw, sizeof(raw));
	}
	memcpy(&type, raw, sizeof(type));
	memcpy(&sector, raw + 8, sizeof(sector));
	return (struct header){ .type = le32toh(type), .sector = le64toh(sector) };
}

/* The caller knows that there is a writable byte. */
static uint8_t *find_status(const struct bf_chain *chain)
{
	unsigned i = chain->nr_out + chain->nr_in;

	while (!chain->iov[--i].iov_len)
		;
	return (uint8_t *)chain->iov[i].iov_base + chain->iov[i].iov_len - 1;
}

/* The pieces of the next @len bytes into @iov; false: they are more than @nr_iov. */
static bool collect(struct cursor *at, uint64_t len, struct iovec *iov, unsigned nr_iov,
		    unsigned *nr)
{
	unsigned i = 0;

	while (len) {
		if (i == nr_iov)
			return false;
		iov[i] = next_piece(at, len);
		len -= iov[i].iov_len;
		i++;
	}
	*nr = i;
	return true;
}

/* Inside the disk, in whole sectors, and no longer than the used ring can say (with the status). */
static bool in_range(const struct blk_disk *disk, uint64_t sector, uint64_t len)
{
	return !(len % BLK_SECTOR_SIZE) && len < UINT32_MAX && sector <= disk->nr_sectors &&
	       len / BLK_SECTOR_SIZE <= disk->nr_sectors - sector;
}

static void check_transfer(const struct blk_disk *disk, enum blk_op op, uint64_t sector,
			   uint64_t len, struct blk_request *req)
{
	req->status = VIRTIO_BLK_S_IOERR;
	if (op == BLK_OP_WRITE && disk->read_only)
		return;
	if (!in_range(disk, sector, len))
		return;
	req->status = VIRTIO_BLK_S_OK;
	if (!len)
		return;
	req->op = op;
	req->offset = sector * BLK_SECTOR_SIZE;
	req->len = (uint32_t)len;
}

static void write_id(const struct blk_disk *disk, const struct bf_chain *chain,
		     struct blk_request *req)
{
	struct cursor in = { .iov = chain->iov + chain->nr_out, .nr = chain->nr_in };

	req->written =
		(uint32_t)copy_to(&in, chain->in_len - 1, disk->serial, sizeof(disk->serial));
}

int blk_request_check(const struct blk_disk *disk, const struct bf_chain *chain,
		      struct blk_request *req)
{
	struct header header;

	if (chain->out_len < BLK_HEADER_SIZE || !chain->in_len)
		return -EBADMSG;
	header = read_header(chain);
	*req = (struct blk_request){ .op = BLK_OP_NONE,
				     .status = VIRTIO_BLK_S_OK,
				     .status_byte = find_status(chain) };
	switch (header.type) {
	case VIRTIO_BLK_T_IN:
		check_transfer(disk, BLK_OP_READ, header.sector, chain->in_len - 1, req);
		break;
	case VIRTIO_BLK_T_OUT:
		check_transfer(disk, BLK_OP_WRITE, header.sector, chain->out_len - BLK_HEADER_SIZE,
			       req);
		break;
	case VIRTIO_BLK_T_FLUSH:
		req->op = BLK_OP_FLUSH;
		break;
	case VIRTIO_BLK_T_GET_ID:
		write_id(disk, chain, req);
		break;
	default:
		req->status = VIRTIO_BLK_S_UNSUPP;
	}
	return 0;
}

/* @at behind the first @len bytes. */
static void skip_bytes(struct cursor *at, size_t len)
{
	while (len)
		len -= next_piece(at, len).iov_len;
}

int blk_request_parse(const struct blk_disk *disk, const struct bf_chain *chain, struct iovec *iov,
		      unsigned nr_iov, struct blk_request *req)
{
	struct cursor data = { .iov = chain->iov, .nr = chain->nr_out };
	int ret = blk_request_check(disk, chain, req);

	if (ret || (req->op != BLK_OP_READ && req->op != BLK_OP_WRITE))
		return ret;
	if (req->op == BLK_OP_READ)
		data = (struct cursor){ .iov = chain->iov + chain->nr_out, .nr = chain->nr_in };
	else
		skip_bytes(&data, BLK_HEADER_SIZE);
	if (!collect(&data, req->len, iov, nr_iov, &req->nr_iov)) {
		req->op = BLK_OP_NONE;
		req->status = VIRTIO_BLK_S_IOERR;
	}
	return 0;
}

uint32_t blk_request_answer(const struct blk_request *req, uint8_t status, uint32_t read_len)
{
	/* Ordered before the used ring by the release in bf_virtq_notify(). */
	__atomic_store_n(req->status_byte, status, __ATOMIC_RELAXED);
	return req->written + read_len + 1;
}
