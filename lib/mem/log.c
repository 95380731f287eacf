/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The dirty log: mapped on control, marked on queue contexts.
 *
 * Must not read a bit to save a write of it: the page was stored to before, a load may overtake that store,
 * and the front end may take the bit away and copy the old page in between.
 */
#include "log.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../base/check.h"
#include "guard.h"

struct bf_dirty_log {
	unsigned refs; /* atomic */
	uint8_t *bits;
	uint64_t size;
	void *base;
	size_t len;
	struct bf_guarded guarded;
	bool cut; /* bits that are gone: the front end's loss alone */
};

static int check(int fd, uint64_t offset, uint64_t size)
{
	struct stat st;

	if (!size || !bf_no_wrap(offset, size))
		return -EINVAL;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!bf_range_ok(offset, size, INT64_MAX / 2))
		return -ENXIO;
	if (S_ISREG(st.st_mode) && !bf_range_ok(offset, size, (uint64_t)st.st_size))
		return -ENXIO;
	return 0;
}

int bf_dirty_log_new(int fd, uint64_t offset, uint64_t size, struct bf_dirty_log **log)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), lead = offset & (page - 1);
	struct bf_dirty_log *made;
	int ret = check(fd, offset, size);

	if (ret)
		return ret;
	if (lead + size > SIZE_MAX)
		return -ENOMEM;
	made = calloc(1, sizeof(*made));
	if (!made)
		return -ENOMEM;
	made->refs = 1;
	made->size = size;
	made->len = (size_t)(lead + size);
	made->base = mmap(NULL, made->len, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
			  (off_t)(offset - lead));
	if (made->base == MAP_FAILED) {
		ret = -errno;
		free(made);
		return ret;
	}
	made->bits = (uint8_t *)made->base + lead;
	bf_guard_add(&made->guarded, made->base, made->len, (size_t)page, &made->cut);
	*log = made;
	return 0;
}

struct bf_dirty_log *bf_dirty_log_ref(struct bf_dirty_log *log)
{
	__atomic_add_fetch(&log->refs, 1, __ATOMIC_RELAXED);
	return log;
}

void bf_dirty_log_unref(struct bf_dirty_log *log)
{
	/* Whoever is last has seen the others' marks: they were made before the unmapping. */
	if (!log || __atomic_sub_fetch(&log->refs, 1, __ATOMIC_ACQ_REL))
		return;
	bf_guard_remove(&log->guarded);
	munmap(log->base, log->len);
	free(log);
}

uint64_t bf_dirty_log_size(const struct bf_dirty_log *log)
{
	return log->size;
}

void bf_dirty_log_mark(struct bf_dirty_log *log, uint64_t gpa, uint64_t len)
{
	uint64_t page, last;

	if (!len)
		return;
	page = gpa / BF_LOG_PAGE;
	last = (bf_no_wrap(gpa, len - 1) ? gpa + (len - 1) : UINT64_MAX) / BF_LOG_PAGE;
	if (page / 8 >= log->size)
		return;
	if (last / 8 >= log->size)
		last = log->size * 8 - 1;
	while (page <= last) {
		uint64_t byte = page / 8, end = last < byte * 8 + 7 ? last : byte * 8 + 7;
		unsigned mask = (0xffu >> (7 - (end - page))) << (page % 8);

		/*
		 * Release: the pages before their bits. Partner: the front end's exchange that
		 * takes the bit, before it reads the page.
		 */
		(void)__atomic_fetch_or(&log->bits[byte], (uint8_t)mask, __ATOMIC_RELEASE);
		page = end + 1;
	}
}
