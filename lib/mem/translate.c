/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Addresses of a memory map: the public functions, over its two spaces.
 *
 * Any context. Must not allocate or log.
 */
#include "map.h"

#include <errno.h>

/* All inside one region, as the public functions promise: regions may touch by chance. */
static void *translate(const struct bf_space *space, uint64_t start, uint64_t len)
{
	const struct bf_span *span = bf_space_find(space, start);

	if (!span || len > span->size - (start - span->start))
		return NULL;
	return span->hva + (start - span->start);
}

void *bf_memory_from_gpa(const struct bf_memory *map, uint64_t gpa, uint64_t len)
{
	return translate(&map->gpa_space, gpa, len);
}

void *bf_memory_from_uva(const struct bf_memory *map, uint64_t uva, uint64_t len)
{
	return translate(&map->uva_space, uva, len);
}

int bf_memory_uva_to_gpa(const struct bf_memory *map, uint64_t uva, uint64_t len, uint64_t *gpa)
{
	const struct bf_span *span = bf_space_find(&map->uva_space, uva);

	if (!span || len > span->size - (uva - span->start))
		return -EFAULT;
	*gpa = span->gpa + (uva - span->start);
	return 0;
}

int bf_memory_iov(const struct bf_memory *map, uint64_t gpa, uint64_t len, struct iovec *iov,
		  unsigned nr_iov)
{
	unsigned hint = map->nr;

	return bf_space_iov(&map->gpa_space, gpa, len, 0, iov, nr_iov, &hint, NULL);
}
