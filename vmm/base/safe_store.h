/* SPDX-License-Identifier: BSD-3-Clause */
/* A store into memory that may have gone, such as a page of a device that was unplugged. Any thread. */
#ifndef VMM_SAFE_STORE_H
#define VMM_SAFE_STORE_H

#include <stdbool.h>

/*
 * Store @len (1 to 8) bytes: one store of that width if @at is aligned for it, else byte by byte.
 * False: the page is mapped but not there (SIGBUS).
 */
bool safe_store(void *at, const void *data, unsigned len);

#endif
