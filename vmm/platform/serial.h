/* SPDX-License-Identifier: BSD-3-Clause */
/* COM1: a 16550A at port 0x3f8, interrupt 4. */
#ifndef VMM_SERIAL_H
#define VMM_SERIAL_H

#include <stddef.h>
#include <stdint.h>

struct console;
struct serial;
struct vm;

#define SERIAL_PORT 0x3f8
#define SERIAL_GSI  4

int serial_new(struct vm *vm, struct serial **out);
void serial_free(struct serial *serial);
/* Where output goes; set once, before the guest runs. */
void serial_set_console(struct serial *serial, struct console *console);
/* While no vCPU runs. */
void serial_reset(struct serial *serial);

/* Input, from the main thread: at most serial_input_room() bytes. */
size_t serial_input_room(struct serial *serial);
void serial_input(struct serial *serial, const uint8_t *data, size_t len);

#endif
