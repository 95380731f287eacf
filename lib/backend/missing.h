/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Mappings whose pages may be missing: registered with a userfaultfd, until the front end says that all
 * pages are there, or until they are given up.
 *
 * "Giving up". A thread that touches a page that is missing sleeps in the kernel until the front end has
 * put it there. When the front end is gone, or we end the connection, nobody will. Closing the
 * userfaultfd would wake the sleeper, and have it read zeroes, which may be on their way to a disk. So the
 * mapping is replaced first, by one of a file without any page: the kernel answers its system call
 * with EFAULT, an access of our own raises SIGBUS, which bf_memory_guard() mends and the queue
 * breaks.
 *
 * Control context, but for bf_missing_give_up(). Mappings are counted here: what a table has taken away
 * may still have a sleeper.
 */
#ifndef BACKEND_MISSING_H
#define BACKEND_MISSING_H

#include "../mem/map.h"

struct bf_missing;

/* For the life of a back end. -ENOMEM. */
int bf_missing_new(struct bf_missing **missing);
void bf_missing_free(struct bf_missing *missing);

/* @uffd: borrowed until the end. 0, errno of memfd_create(). */
int bf_missing_begin(struct bf_missing *missing, int uffd);
/* Nothing is missing: what is, and was not given up, reads as zeroes. Idempotent. */
void bf_missing_end(struct bf_missing *missing);

/*
 * Pages of it that are missing are asked for from here on. A mapping that is known already is left alone.
 * -E2BIG too many; -ECONNRESET given up, or not begun; -EOPNOTSUPP, errno of UFFDIO_REGISTER.
 */
int bf_missing_add(struct bf_missing *missing, struct bf_mapping *mapping);
unsigned bf_missing_nr(const struct bf_missing *missing);

/* Any thread. When it returns nobody sleeps, and nobody will before the next beginning. */
void bf_missing_give_up(struct bf_missing *missing);

#endif
