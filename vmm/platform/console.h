/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The guest's console on our stdin and stdout.
 *
 * console_put() and console_room() are called by vCPU threads, console_input_wanted() by any;
 * everything else belongs to the main thread, which does all reading and writing.
 */
#ifndef VMM_CONSOLE_H
#define VMM_CONSOLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct console;
struct event_loop;

struct console_ops {
	/* How many bytes of input would be taken now. */
	size_t (*input_room)(void *opaque);
	void (*input)(void *opaque, const uint8_t *data, size_t len);
	/* The person typed Ctrl-A x. */
	void (*quit)(void *opaque);
};

/* Puts a terminal into raw mode. */
int console_new(struct event_loop *loop, const struct console_ops *ops, void *opaque,
		struct console **out);
/* Writes what is left, for a second at most, and gives the terminal back as it was. */
void console_free(struct console *console);

/* False, and nothing taken, when the output is full because nobody reads it. */
bool console_put(struct console *console, uint8_t byte);
bool console_room(struct console *console);

/* There is room for input again. */
void console_input_wanted(struct console *console);

#endif
