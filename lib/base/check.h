/* SPDX-License-Identifier: BSD-3-Clause */
/* Arithmetic on numbers from a peer: in the wire's width, and checked before it is used. */
#ifndef BASE_CHECK_H
#define BASE_CHECK_H

#include <stdbool.h>
#include <stdint.h>

/* Does [offset, offset + len) lie inside [0, size)? An empty range needs offset <= size. */
static inline bool bf_range_ok(uint64_t offset, uint64_t len, uint64_t size)
{
	return len <= size && offset <= size - len;
}

/* Does [start, start + len) stay inside 64 bits, its end included? */
static inline bool bf_no_wrap(uint64_t start, uint64_t len)
{
	return len <= UINT64_MAX - start;
}

static inline bool bf_overlap(uint64_t a, uint64_t a_len, uint64_t b, uint64_t b_len)
{
	return a < b + b_len && b < a + a_len;
}

static inline bool bf_is_power_of_two(uint64_t v)
{
	return v && !(v & (v - 1));
}

#endif
