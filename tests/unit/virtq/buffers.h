/* SPDX-License-Identifier: BSD-3-Clause */
/* Random requests for the models, and the oracle for what the device makes of them. */
#ifndef TESTS_UNIT_VIRTQ_BUFFERS_H
#define TESTS_UNIT_VIRTQ_BUFFERS_H

#include "fake_driver.h"

#define MAX_BUFFERS 6
#define MAX_PIECES  (2 * MAX_BUFFERS)

/* The buffers of a request, as the bytes that they cover; of the flags only WRITE. */
struct buffers {
	struct raw_desc desc[MAX_BUFFERS];
	unsigned nr;
};

static inline unsigned pick(unsigned n)
{
	return (unsigned)rand() % n;
}

/* Buffers may lie anywhere in [0, HOLE), across the border of the two regions too. */
static inline void invent(struct buffers *buffers, unsigned max)
{
	unsigned nr_out = pick(4), nr_in = pick(4);
	unsigned nr = nr_out + nr_in ? nr_out + nr_in : 1;

	buffers->nr = nr < max ? nr : max;
	for (unsigned i = 0; i < buffers->nr; i++) {
		uint32_t len = pick(10) ? pick(3000) : 0;
		uint64_t addr = pick(4) ? pick((unsigned)(HOLE - len)) : FIRST_END - len / 2;

		buffers->desc[i] = (struct raw_desc){ addr, len, i < nr_out ? 0 : WRITE, 0 };
	}
}

/* Do these pieces cover exactly these bytes of guest memory, in this order? */
static inline void compare(struct fake *fake, const struct raw_desc *desc, unsigned nr,
			   const struct iovec *iov, unsigned nr_iov)
{
	unsigned piece = 0;
	size_t offset = 0;

	for (unsigned i = 0; i < nr; i++) {
		for (uint32_t b = 0; b < desc[i].len; b++) {
			assert_true(piece < nr_iov);
			assert_ptr_equal((char *)iov[piece].iov_base + offset,
					 at(fake, desc[i].addr + b));
			if (++offset == iov[piece].iov_len) {
				piece++;
				offset = 0;
			}
		}
	}
	assert_int_equal(offset, 0);
	assert_int_equal(piece, nr_iov);
}

static inline void check_chain(struct fake *fake, const struct buffers *buffers,
			       const struct bf_chain *chain)
{
	uint64_t out_len = 0, in_len = 0;
	unsigned nr_out = 0;

	for (unsigned i = 0; i < buffers->nr; i++) {
		if (buffers->desc[i].flags & WRITE) {
			in_len += buffers->desc[i].len;
		} else {
			out_len += buffers->desc[i].len;
			nr_out++;
		}
	}
	assert_int_equal(chain->out_len, out_len);
	assert_int_equal(chain->in_len, in_len);
	compare(fake, buffers->desc, nr_out, chain->iov, chain->nr_out);
	compare(fake, buffers->desc + nr_out, buffers->nr - nr_out, chain->iov + chain->nr_out,
		chain->nr_in);
}

#endif
