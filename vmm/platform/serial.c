/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A 16550A UART.
 *
 * The registers are touched by vCPU threads, input arrives on the main thread; one lock for both.
 * The transmitter has no speed: it is ready whenever the console has room. Nothing here blocks.
 */
#include "serial.h"

#include <errno.h>
#include <linux/serial_reg.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "console.h"
#include "../kvm/vm.h"

#define NR_PORTS 8
#define RX_SIZE  256u /* power of two; more than the chip's 16, which no driver minds */

struct serial {
	struct vm *vm;
	struct console *console;
	struct bus_region region;
	pthread_mutex_t lock;

	uint8_t ier, fcr, lcr, mcr, scr;
	uint8_t dll, dlm;
	uint8_t rx[RX_SIZE];
	unsigned rx_head, rx_tail; /* free running */
	bool thr_pending;          /* the "transmitter empty" interrupt has not been read yet */
	bool line;                 /* level of the interrupt wire */
};

static unsigned rx_len(const struct serial *s)
{
	return s->rx_head - s->rx_tail;
}

static void rx_push(struct serial *s, uint8_t byte)
{
	if (rx_len(s) < RX_SIZE)
		s->rx[s->rx_head++ % RX_SIZE] = byte;
}

static uint8_t pending_interrupt(const struct serial *s)
{
	if ((s->ier & UART_IER_RDI) && rx_len(s))
		return UART_IIR_RDI;
	if ((s->ier & UART_IER_THRI) && s->thr_pending)
		return UART_IIR_THRI;
	return UART_IIR_NO_INT;
}

/* On a PC, OUT2 connects the chip to its interrupt wire. */
static void update_line(struct serial *s)
{
	const bool high = pending_interrupt(s) != UART_IIR_NO_INT && (s->mcr & UART_MCR_OUT2) &&
			  !(s->mcr & UART_MCR_LOOP);

	if (high != s->line) {
		s->line = high;
		vm_irq_line(s->vm, SERIAL_GSI, high);
	}
}

static uint8_t read_rx(struct serial *s)
{
	uint8_t byte;

	if (!rx_len(s))
		return 0;
	byte = s->rx[s->rx_tail++ % RX_SIZE];
	if (!rx_len(s))
		console_input_wanted(s->console);
	return byte;
}

static uint8_t read_iir(struct serial *s)
{
	const uint8_t iir = pending_interrupt(s);

	if (iir == UART_IIR_THRI)
		s->thr_pending = false;
	return iir | (s->fcr & UART_FCR_ENABLE_FIFO ? 0xc0 : 0);
}

static uint8_t read_lsr(struct serial *s)
{
	uint8_t lsr = rx_len(s) ? UART_LSR_DR : 0;

	if (console_room(s->console))
		lsr |= UART_LSR_THRE | UART_LSR_TEMT;
	return lsr;
}

/* In loopback the four outputs come back as the four inputs. */
static uint8_t read_msr(const struct serial *s)
{
	uint8_t msr = 0;

	if (!(s->mcr & UART_MCR_LOOP))
		return UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS;
	msr |= s->mcr & UART_MCR_RTS ? UART_MSR_CTS : 0;
	msr |= s->mcr & UART_MCR_DTR ? UART_MSR_DSR : 0;
	msr |= s->mcr & UART_MCR_OUT1 ? UART_MSR_RI : 0;
	msr |= s->mcr & UART_MCR_OUT2 ? UART_MSR_DCD : 0;
	return msr;
}

static uint8_t read_register(struct serial *s, unsigned reg)
{
	const bool dlab = s->lcr & UART_LCR_DLAB;

	switch (reg) {
	case UART_RX:
		return dlab ? s->dll : read_rx(s);
	case UART_IER:
		return dlab ? s->dlm : s->ier;
	case UART_IIR:
		return read_iir(s);
	case UART_LCR:
		return s->lcr;
	case UART_MCR:
		return s->mcr;
	case UART_LSR:
		return read_lsr(s);
	case UART_MSR:
		return read_msr(s);
	default:
		return s->scr;
	}
}

static void write_tx(struct serial *s, uint8_t value)
{
	if (s->mcr & UART_MCR_LOOP)
		rx_push(s, value);
	else
		console_put(s->console,
			    value); /* lost when full: the guest was told so by the LSR */
	s->thr_pending = true;
}

static void write_ier(struct serial *s, uint8_t value)
{
	/* Enabling the interrupt while the transmitter is empty raises it. */
	if ((value & UART_IER_THRI) && !(s->ier & UART_IER_THRI))
		s->thr_pending = true;
	if ((value & UART_IER_RDI) && !(s->ier & UART_IER_RDI))
		console_input_wanted(s->console);
	s->ier = value & 0x0f;
}

static void write_fcr(struct serial *s, uint8_t value)
{
	if (value & UART_FCR_CLEAR_RCVR) {
		s->rx_tail = s->rx_head;
		console_input_wanted(s->console);
	}
	s->fcr = value & (UART_FCR_ENABLE_FIFO | 0xc0);
}

static void write_register(struct serial *s, unsigned reg, uint8_t value)
{
	const bool dlab = s->lcr & UART_LCR_DLAB;

	switch (reg) {
	case UART_TX:
		if (dlab)
			s->dll = value;
		else
			write_tx(s, value);
		break;
	case UART_IER:
		if (dlab)
			s->dlm = value;
		else
			write_ier(s, value);
		break;
	case UART_FCR:
		write_fcr(s, value);
		break;
	case UART_LCR:
		s->lcr = value;
		break;
	case UART_MCR:
		s->mcr = value & 0x1f;
		break;
	case UART_SCR:
		s->scr = value;
		break;
	}
}

/* The registers are bytes; a wider access is that many registers in a row. */
static void serial_read(void *opaque, uint64_t offset, void *data, unsigned len)
{
	struct serial *s = opaque;
	uint8_t *out = data;
	unsigned i;

	pthread_mutex_lock(&s->lock);
	for (i = 0; i < len; i++)
		out[i] = read_register(s, (unsigned)offset + i);
	update_line(s);
	pthread_mutex_unlock(&s->lock);
}

static void serial_write(void *opaque, uint64_t offset, const void *data, unsigned len)
{
	struct serial *s = opaque;
	const uint8_t *in = data;
	unsigned i;

	pthread_mutex_lock(&s->lock);
	for (i = 0; i < len; i++)
		write_register(s, (unsigned)offset + i, in[i]);
	update_line(s);
	pthread_mutex_unlock(&s->lock);
}

static const struct bus_ops serial_ops = { .read = serial_read, .write = serial_write };

static void set_defaults(struct serial *s)
{
	s->ier = s->fcr = s->lcr = s->mcr = s->scr = s->dlm = 0;
	s->dll = 12; /* 9600 baud */
	s->rx_tail = s->rx_head;
	s->thr_pending = false;
}

int serial_new(struct vm *vm, struct serial **out)
{
	struct serial *s = calloc(1, sizeof(*s));
	int rc;

	if (!s)
		return -ENOMEM;
	s->vm = vm;
	s->region = (struct bus_region){ .base = SERIAL_PORT,
					 .size = NR_PORTS,
					 .ops = &serial_ops,
					 .opaque = s,
					 .name = "serial" };
	pthread_mutex_init(&s->lock, NULL);
	set_defaults(s);
	rc = bus_add(vm_pio_bus(vm), &s->region);
	if (rc) {
		pthread_mutex_destroy(&s->lock);
		free(s);
		return rc;
	}
	*out = s;
	return 0;
}

void serial_set_console(struct serial *serial, struct console *console)
{
	serial->console = console;
}

void serial_free(struct serial *serial)
{
	if (!serial)
		return;
	bus_del(vm_pio_bus(serial->vm), &serial->region);
	pthread_mutex_destroy(&serial->lock);
	free(serial);
}

void serial_reset(struct serial *serial)
{
	pthread_mutex_lock(&serial->lock);
	set_defaults(serial);
	update_line(serial);
	pthread_mutex_unlock(&serial->lock);
}

/*
 * None while the guest does not listen: its driver empties the receiver when the port is opened,
 * and what somebody piped in before that would be gone.
 */
size_t serial_input_room(struct serial *serial)
{
	size_t room;

	pthread_mutex_lock(&serial->lock);
	room = serial->ier & UART_IER_RDI ? RX_SIZE - rx_len(serial) : 0;
	pthread_mutex_unlock(&serial->lock);
	return room;
}

void serial_input(struct serial *serial, const uint8_t *data, size_t len)
{
	size_t i;

	pthread_mutex_lock(&serial->lock);
	for (i = 0; i < len; i++)
		rx_push(serial, data[i]);
	update_line(serial);
	pthread_mutex_unlock(&serial->lock);
}
