/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Little-endian fields as types of their own: what a ring or a config space holds is never used
 * without conversion, because it does not compile.
 */
#ifndef BASE_ENDIAN_H
#define BASE_ENDIAN_H

#include <endian.h>
#include <stdint.h>

typedef struct {
	uint16_t raw;
} bf_le16;
typedef struct {
	uint32_t raw;
} bf_le32;
typedef struct {
	uint64_t raw;
} bf_le64;

static inline uint16_t bf_from_le16(bf_le16 v)
{
	return le16toh(v.raw);
}
static inline uint32_t bf_from_le32(bf_le32 v)
{
	return le32toh(v.raw);
}
static inline uint64_t bf_from_le64(bf_le64 v)
{
	return le64toh(v.raw);
}
static inline bf_le16 bf_to_le16(uint16_t v)
{
	return (bf_le16){ htole16(v) };
}
static inline bf_le32 bf_to_le32(uint32_t v)
{
	return (bf_le32){ htole32(v) };
}
static inline bf_le64 bf_to_le64(uint64_t v)
{
	return (bf_le64){ htole64(v) };
}

#endif
