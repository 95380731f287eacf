/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Make the Nth allocation or system call of the library fail. Works by the linker (--wrap): the library is
 * the one that is installed, and knows nothing of it. Counts what is allocated and not given back.
 */
#ifndef TESTS_SAFETY_FAIL_H
#define TESTS_SAFETY_FAIL_H

#include <stdbool.h>

/* The @nth call from now on that a thread makes while it is armed fails; 0: none. */
void fail_at(unsigned nth);
/* This thread, around calls into the library. */
void fail_arm(void);
void fail_disarm(void);
/* The name of what was made to fail, or NULL: there were fewer calls. */
const char *fail_what(void);
/* Calls so far that could have failed. */
unsigned fail_count(void);
/* Allocations made by armed threads that live. */
unsigned fail_alive(void);

#endif
