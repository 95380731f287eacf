/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The first process of a guest whose start-up is measured: its first act is one line on the console.
 *
 * Freestanding, so that nothing runs before it. Must not end: the kernel would panic.
 */
#define SYSCALL_WRITE 1
#define SYSCALL_PAUSE 34

static const char line[] = "belfry: user space\n";

static long call(long number, long first, const void *second, unsigned long third)
{
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(first), "S"(second), "d"(third)
			 : "rcx", "r11", "memory");
	return result;
}

void _start(void);

void _start(void)
{
	call(SYSCALL_WRITE, 1, line, sizeof(line) - 1);
	for (;;)
		call(SYSCALL_PAUSE, 0, 0, 0);
}
