/* SPDX-License-Identifier: BSD-3-Clause */
/* Messages for the person who runs belfry-vmm: one line on stderr. Any thread. */
#ifndef VMM_REPORT_H
#define VMM_REPORT_H

/* @fmt without a newline. Says what was expected, what was found, what to do. */
void report(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
