/* SPDX-License-Identifier: BSD-3-Clause */
/* See trap.h. All state is static: a signal handler has nothing else. */
#include "trap.h"

#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#ifdef __x86_64__

#define TRAP_FLAG    0x100
#define WRITE_ACCESS 2 /* of a page fault's error code */

static struct {
	uint8_t *base;
	size_t len;
	trap_fn *fn;
	void *opaque;
	unsigned nr;
	size_t offset;
	bool write;
	struct sigaction former[2];
} trap;

static void on_fault(int signal, siginfo_t *info, void *context)
{
	ucontext_t *at = context;
	uint8_t *address = info->si_addr;

	(void)signal;
	if (address < trap.base || address >= trap.base + trap.len) {
		static const char text[] = "a fault outside of the watched range\n";

		(void)!write(2, text, sizeof(text) - 1);
		_exit(1);
	}
	trap.offset = (size_t)(address - trap.base);
	trap.write = at->uc_mcontext.gregs[REG_ERR] & WRITE_ACCESS;
	mprotect(trap.base, trap.len, PROT_READ | PROT_WRITE);
	at->uc_mcontext.gregs[REG_EFL] |= TRAP_FLAG;
}

static void on_step(int signal, siginfo_t *info, void *context)
{
	ucontext_t *at = context;

	(void)signal;
	(void)info;
	at->uc_mcontext.gregs[REG_EFL] &= ~TRAP_FLAG;
	trap.fn(trap.opaque, ++trap.nr, trap.offset, trap.write);
	mprotect(trap.base, trap.len, PROT_NONE);
}

bool trap_possible(void)
{
	return true;
}

void trap_on(void *base, size_t len, trap_fn *fn, void *opaque)
{
	struct sigaction action = { .sa_flags = SA_SIGINFO };

	trap.base = base;
	trap.len = len;
	trap.fn = fn;
	trap.opaque = opaque;
	trap.nr = 0;
	action.sa_sigaction = on_fault;
	sigaction(SIGSEGV, &action, &trap.former[0]);
	action.sa_sigaction = on_step;
	sigaction(SIGTRAP, &action, &trap.former[1]);
	mprotect(base, len, PROT_NONE);
}

unsigned trap_off(void)
{
	mprotect(trap.base, trap.len, PROT_READ | PROT_WRITE);
	sigaction(SIGSEGV, &trap.former[0], NULL);
	sigaction(SIGTRAP, &trap.former[1], NULL);
	return trap.nr;
}

#else

bool trap_possible(void)
{
	return false;
}

void trap_on(void *base, size_t len, trap_fn *fn, void *opaque)
{
	(void)base;
	(void)len;
	(void)fn;
	(void)opaque;
}

unsigned trap_off(void)
{
	return 0;
}

#endif
