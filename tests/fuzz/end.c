/* SPDX-License-Identifier: BSD-3-Clause */
/* libFuzzer's main has no end of ours: the report comes when the process exits. */
#include "fuzz.h"

static void report(void)
{
	if (!fuzz_report())
		_Exit(1);
	fflush(stdout);
}

__attribute__((constructor)) static void at_end(void)
{
	atexit(report);
}
