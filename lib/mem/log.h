/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The dirty log of a migration: one bit for each 4 KiB of guest memory, in memory of the front end's.
 *
 * Counted; made on control, marked on queue contexts. A bit is set by an atomic OR: the front end takes
 * bits away by exchange at the same time. What lies beyond the log's size is not marked (the table says
 * how long the log must be; control compares).
 */
#ifndef MEM_LOG_H
#define MEM_LOG_H

#include <stdint.h>

#define BF_LOG_PAGE 4096u

struct bf_dirty_log;

/*
 * Map [offset, offset + size) of @fd (borrowed). -EINVAL empty or wraps; -ENXIO beyond the file;
 * -ENOMEM; mmap()'s errno. @offset need not be page-aligned.
 */
int bf_dirty_log_new(int fd, uint64_t offset, uint64_t size, struct bf_dirty_log **log);
struct bf_dirty_log *bf_dirty_log_ref(struct bf_dirty_log *log);
void bf_dirty_log_unref(struct bf_dirty_log *log);

uint64_t bf_dirty_log_size(const struct bf_dirty_log *log);
/* Hot. Mark all pages of [gpa, gpa + len); a length of 0 marks nothing. Wrapping is cut off. */
void bf_dirty_log_mark(struct bf_dirty_log *log, uint64_t gpa, uint64_t len);

#endif
