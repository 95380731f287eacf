/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Access to memory that another process or the guest can write at any moment.
 *
 * Rule: load once, check the copy, use the copy. bf_load*() is one load that the compiler neither
 * repeats nor splits; bf_copy_in() copies a structure out before anything in it is looked at.
 *
 * Ordering. A ring's producer fills entries and then moves its index; its consumer reads the index
 * and then the entries: bf_store16_release() is the partner of bf_load16_acquire(). Where each side
 * stores one thing and then loads what the other stores ("I published work, do you sleep?"), only a
 * full barrier on both sides will do: bf_barrier().
 */
#ifndef BASE_SHARED_H
#define BASE_SHARED_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "endian.h"

static inline uint16_t bf_load16(const bf_le16 *p)
{
	return le16toh(__atomic_load_n(&p->raw, __ATOMIC_RELAXED));
}
static inline uint16_t bf_load16_acquire(const bf_le16 *p)
{
	return le16toh(__atomic_load_n(&p->raw, __ATOMIC_ACQUIRE));
}
static inline void bf_store16(bf_le16 *p, uint16_t v)
{
	__atomic_store_n(&p->raw, htole16(v), __ATOMIC_RELAXED);
}
static inline void bf_store16_release(bf_le16 *p, uint16_t v)
{
	__atomic_store_n(&p->raw, htole16(v), __ATOMIC_RELEASE);
}

/* For fields that are aligned to their size. */
static inline uint32_t bf_load32(const bf_le32 *p)
{
	return le32toh(__atomic_load_n(&p->raw, __ATOMIC_RELAXED));
}
static inline uint64_t bf_load64(const bf_le64 *p)
{
	return le64toh(__atomic_load_n(&p->raw, __ATOMIC_RELAXED));
}
static inline void bf_store64(bf_le64 *p, uint64_t v)
{
	__atomic_store_n(&p->raw, htole64(v), __ATOMIC_RELAXED);
}

static inline void bf_barrier(void)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* The barrier keeps the compiler from reading the source again later instead of the copy. */
static inline void bf_copy_in(void *private_copy, const void *shared, size_t len)
{
	memcpy(private_copy, shared, len);
	__asm__ __volatile__("" ::: "memory");
}

#endif
