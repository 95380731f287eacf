/* SPDX-License-Identifier: BSD-3-Clause */
/* The 16550: what Linux's driver relies on, interrupts included, and a console that is full. */
#include "unit/support.h"

#include <linux/serial_reg.h>

#include "vmm/platform/console.h"
#include "vmm/platform/serial.h"
#include "vmm/kvm/vm.h"

struct vm {
	struct bus pio;
	bool line;
	unsigned nr_raised;
};

struct console {
	char out[64];
	unsigned nr_out;
	unsigned max;
	unsigned nr_wanted;
};

static struct vm vm;
static struct console console;
static struct serial *serial;

struct bus *vm_pio_bus(struct vm *v)
{
	return &v->pio;
}

void vm_irq_line(struct vm *v, unsigned gsi, bool high)
{
	assert_int_equal(gsi, SERIAL_GSI);
	v->nr_raised += high && !v->line;
	v->line = high;
}

bool console_put(struct console *c, uint8_t byte)
{
	if (c->nr_out >= c->max)
		return false;
	c->out[c->nr_out++] = (char)byte;
	return true;
}

bool console_room(struct console *c)
{
	return c->nr_out < c->max;
}

void console_input_wanted(struct console *c)
{
	c->nr_wanted++;
}

static void out(unsigned reg, uint8_t value)
{
	assert_true(bus_write(&vm.pio, SERIAL_PORT + reg, &value, 1));
}

static uint8_t in(unsigned reg)
{
	uint8_t value = 0;

	assert_true(bus_read(&vm.pio, SERIAL_PORT + reg, &value, 1));
	return value;
}

static int set_up(void **state)
{
	(void)state;
	memset(&vm, 0, sizeof(vm));
	console = (struct console){ .max = sizeof(console.out) };
	bus_init(&vm.pio);
	if (serial_new(&vm, &serial))
		return -1;
	serial_set_console(serial, &console);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	serial_free(serial);
	assert_null(vm.pio.head);
	return 0;
}

static void writes_and_is_ready(void **state)
{
	(void)state;
	assert_int_equal(in(UART_LSR), UART_LSR_THRE | UART_LSR_TEMT);
	out(UART_TX, 'h');
	out(UART_TX, 'i');
	assert_memory_equal(console.out, "hi", 2);
	console.max = 2;
	assert_int_equal(in(UART_LSR), 0);
	out(UART_TX, '!');
	assert_int_equal(console.nr_out, 2);
}

static void reads_what_was_typed(void **state)
{
	(void)state;
	out(UART_MCR, UART_MCR_OUT2);
	out(UART_IER, UART_IER_RDI);
	assert_false(vm.line);
	serial_input(serial, (const uint8_t *)"ab", 2);
	assert_true(vm.line);
	assert_int_equal(in(UART_IIR)&UART_IIR_ID, UART_IIR_RDI);
	assert_true(in(UART_LSR)&UART_LSR_DR);
	assert_int_equal(in(UART_RX), 'a');
	assert_true(vm.line);
	assert_int_equal(in(UART_RX), 'b');
	assert_false(vm.line);
	assert_int_equal(in(UART_IIR)&UART_IIR_ID, UART_IIR_NO_INT & UART_IIR_ID);
	assert_true(in(UART_IIR)&UART_IIR_NO_INT);
	assert_true(console.nr_wanted > 0);
	assert_int_equal(in(UART_RX), 0);
}

static void transmitter_interrupt_is_read_away(void **state)
{
	(void)state;
	out(UART_MCR, UART_MCR_OUT2);
	out(UART_IER, UART_IER_THRI);
	assert_true(vm.line);
	assert_int_equal(in(UART_IIR)&0x0f, UART_IIR_THRI);
	assert_false(vm.line);
	assert_int_equal(in(UART_IIR)&0x0f, UART_IIR_NO_INT);
	out(UART_TX, 'x');
	assert_true(vm.line);
	assert_int_equal(vm.nr_raised, 2);
	out(UART_MCR, 0); /* the chip is off the wire */
	assert_false(vm.line);
}

static void identifies_as_16550a(void **state)
{
	(void)state;
	out(UART_SCR, 0x5a);
	assert_int_equal(in(UART_SCR), 0x5a);
	out(UART_FCR, UART_FCR_ENABLE_FIFO);
	assert_int_equal(in(UART_IIR)&0xc0, 0xc0);
	out(UART_FCR, 0);
	assert_int_equal(in(UART_IIR)&0xc0, 0);
	out(UART_LCR, UART_LCR_DLAB);
	out(UART_DLL, 1);
	out(UART_DLM, 2);
	assert_int_equal(in(UART_DLL), 1);
	assert_int_equal(in(UART_DLM), 2);
	out(UART_LCR, UART_LCR_WLEN8);
	assert_int_equal(console.nr_out, 0);
	out(UART_MCR, UART_MCR_LOOP | UART_MCR_OUT2 | UART_MCR_RTS);
	assert_int_equal(in(UART_MSR)&0xf0, UART_MSR_DCD | UART_MSR_CTS);
	out(UART_TX, 'l');
	assert_int_equal(console.nr_out, 0);
	assert_int_equal(in(UART_RX), 'l');
}

static void input_is_bounded(void **state)
{
	uint8_t data[1024];
	unsigned n = 0;
	size_t room;

	(void)state;
	memset(data, 'y', sizeof(data));
	out(UART_IER, UART_IER_RDI);
	room = serial_input_room(serial);
	assert_true(room > 0 && room < sizeof(data));
	serial_input(serial, data, sizeof(data));
	assert_int_equal(serial_input_room(serial), 0);
	for (; in(UART_LSR)&UART_LSR_DR; n++)
		in(UART_RX);
	assert_int_equal(n, room);
	assert_int_equal(serial_input_room(serial), room);
}

/* What is piped in before the guest opens the port must still be there then. */
static void input_waits_until_the_guest_listens(void **state)
{
	unsigned nr_wanted;

	(void)state;
	assert_int_equal(serial_input_room(serial), 0);
	out(UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_CLEAR_RCVR | UART_FCR_CLEAR_XMIT);
	nr_wanted = console.nr_wanted;
	out(UART_IER, UART_IER_RDI);
	assert_int_equal(console.nr_wanted, nr_wanted + 1);
	assert_true(serial_input_room(serial) > 0);
	out(UART_IER, 0);
	assert_int_equal(serial_input_room(serial), 0);
}

static void any_width_stays_in_the_chip(void **state)
{
	uint32_t value = 0;

	(void)state;
	assert_true(bus_read(&vm.pio, SERIAL_PORT + 4, &value, 4));
	assert_false(bus_read(&vm.pio, SERIAL_PORT + 5, &value, 4));
	assert_true(bus_write(&vm.pio, SERIAL_PORT, &value, 4));
}

static void reset_forgets_everything(void **state)
{
	(void)state;
	out(UART_MCR, UART_MCR_OUT2);
	out(UART_IER, UART_IER_RDI);
	serial_input(serial, (const uint8_t *)"z", 1);
	assert_true(vm.line);
	serial_reset(serial);
	assert_false(vm.line);
	assert_int_equal(in(UART_IER), 0);
	assert_false(in(UART_LSR)&UART_LSR_DR);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(writes_and_is_ready, set_up, tear_down),
		cmocka_unit_test_setup_teardown(reads_what_was_typed, set_up, tear_down),
		cmocka_unit_test_setup_teardown(transmitter_interrupt_is_read_away, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(identifies_as_16550a, set_up, tear_down),
		cmocka_unit_test_setup_teardown(input_is_bounded, set_up, tear_down),
		cmocka_unit_test_setup_teardown(input_waits_until_the_guest_listens, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(any_width_stays_in_the_chip, set_up, tear_down),
		cmocka_unit_test_setup_teardown(reset_forgets_everything, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
