/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Messages on stderr. Any thread; one write per message, so that lines of several threads stay
 * whole. Keeps no state and never touches stdout, which belongs to the guest's console.
 */
#include "report.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void report(const char *fmt, ...)
{
	static const char prefix[] = "belfry-vmm: ";
	char line[1024];
	/* The console may have put the terminal into raw mode, where a line feed only feeds. */
	const char *end = isatty(STDERR_FILENO) ? "\r\n" : "\n";
	size_t used = sizeof(prefix) - 1;
	va_list ap;
	int n;

	memcpy(line, prefix, used);
	va_start(ap, fmt);
	n = vsnprintf(line + used, sizeof(line) - used - 2, fmt, ap);
	va_end(ap);
	if (n > 0)
		used += (size_t)n < sizeof(line) - used - 2 ? (size_t)n : sizeof(line) - used - 3;
	memcpy(line + used, end, strlen(end));
	used += strlen(end);
	if (write(STDERR_FILENO, line, used) < 0)
		return; /* nobody listens */
}
