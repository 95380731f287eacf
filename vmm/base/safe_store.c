/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A store that survives SIGBUS. Any thread that does not block SIGBUS: a synchronous signal that is
 * blocked ends the process.
 *
 * The handler is the process's, installed once; which store to give up is the thread's own affair. A
 * SIGBUS anywhere else ends the process as it would have without this file.
 */
#include "safe_store.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>

static __thread sigjmp_buf *volatile way_out;

static void on_bus_error(int number)
{
	if (way_out)
		siglongjmp(*way_out, 1);
	signal(number, SIG_DFL); /* returning runs into it again */
}

static void install(void)
{
	struct sigaction action = { .sa_handler = on_bus_error };

	sigaction(SIGBUS, &action, NULL);
}

static void store(volatile uint8_t *at, const void *data, unsigned len)
{
	volatile void *wide = at;
	uint64_t value = 0;
	unsigned i;

	memcpy(&value, data, len);
	if (len == 2 && (uintptr_t)at % 2 == 0)
		*(volatile uint16_t *)wide = (uint16_t)value;
	else if (len == 4 && (uintptr_t)at % 4 == 0)
		*(volatile uint32_t *)wide = (uint32_t)value;
	else if (len == 8 && (uintptr_t)at % 8 == 0)
		*(volatile uint64_t *)wide = value;
	else
		for (i = 0; i < len; i++)
			at[i] = (uint8_t)(value >> (8 * i));
}

bool safe_store(void *at, const void *data, unsigned len)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	sigjmp_buf here;

	pthread_once(&once, install);
	if (sigsetjmp(here, 1)) {
		way_out = NULL;
		return false;
	}
	way_out = &here;
	store(at, data, len);
	way_out = NULL;
	return true;
}
