/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The in-flight code, built so that a process can die at every one of its stores.
 *
 * tracked_*.c compile lib/virtq/inflight*.c once more with these definitions; being in the test program they
 * take the place of the library's. Each store, and the points between them and the ring's own, calls
 * tracked_store() first, which may not return. What was allocated is known, for what dies cannot free it.
 */
#ifndef TESTS_UNIT_VIRTQ_KILL_H
#define TESTS_UNIT_VIRTQ_KILL_H

#include <stdlib.h>

void tracked_store(void);
void *tracked_calloc(size_t nr, size_t size);
void tracked_free(void *memory);

#define TRACK(field, value)                                            \
	do {                                                           \
		tracked_store();                                       \
		__atomic_store_n(&(field), (value), __ATOMIC_RELAXED); \
	} while (0)
#define TRACK_POINT()    tracked_store()
#define calloc(nr, size) tracked_calloc((nr), (size))
#define free(memory)     tracked_free(memory)

#endif
