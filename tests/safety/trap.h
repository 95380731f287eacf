/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Stop at every access to a range of memory: what a driver on another CPU could do between any two loads,
 * done between any two loads.
 *
 * The range is taken away (PROT_NONE); an access raises SIGSEGV, whose handler gives the range back and has
 * the CPU execute one instruction (the trap flag); then SIGTRAP calls back and takes the range away again.
 * Deterministic, and it finds with a single run what two racing threads find by luck. x86-64 only. One
 * thread, one range at a time.
 */
#ifndef TESTS_SAFETY_TRAP_H
#define TESTS_SAFETY_TRAP_H

#include <stdbool.h>
#include <stddef.h>

/* After access number @nr (from 1 on) of the range. Runs in a signal handler. */
typedef void trap_fn(void *opaque, unsigned nr, size_t offset, bool write);

/* False: not on this machine. */
bool trap_possible(void);
/* @base, @len: whole pages. */
void trap_on(void *base, size_t len, trap_fn *fn, void *opaque);
/* How many accesses there were. */
unsigned trap_off(void);

#endif
