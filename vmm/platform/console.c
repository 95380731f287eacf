/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * stdin and stdout as the guest's console.
 *
 * Output: vCPU threads put bytes into a bounded ring and ring an eventfd; the main thread writes.
 * A full ring is the guest's transmitter being busy, so that a reader who has stopped can hold up
 * the console but never a vCPU. Input is read only as far as the guest takes it.
 *
 * stdin and stdout are shared with other processes: their flags are not ours to change, so we ask
 * poll() before each small write instead of making them non-blocking.
 */
#include "console.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "../base/event_loop.h"

#define RING_SIZE 16384u /* power of two */
#define WRITE_MAX 512u
#define READ_MAX  256u
#define ESCAPE    0x01 /* Ctrl-A */
#define DRAIN_MS  1000

enum input_state {
	INPUT_WATCHED, /* in the event loop */
	INPUT_PAUSED,  /* the guest takes no more for now */
	INPUT_ENDED,
};

struct console {
	struct event_loop *loop;
	const struct console_ops *ops;
	void *opaque;
	int wake_fd;

	pthread_mutex_t lock;
	uint8_t ring[RING_SIZE];
	unsigned head, tail; /* free running; head - tail bytes are waiting */

	enum input_state input; /* these and the rest: main thread only */
	bool output_watched;
	bool output_gone;
	bool is_terminal;
	bool escaped;
	struct termios saved;
};

static void wake(struct console *c)
{
	const uint64_t one = 1;

	if (write(c->wake_fd, &one, sizeof(one)) < 0)
		return; /* the counter is full: the main loop is already called */
}

bool console_put(struct console *console, uint8_t byte)
{
	bool room, first;

	pthread_mutex_lock(&console->lock);
	first = console->head == console->tail;
	room = console->head - console->tail < RING_SIZE;
	if (room)
		console->ring[console->head++ % RING_SIZE] = byte;
	pthread_mutex_unlock(&console->lock);
	if (room && first)
		wake(console);
	return room;
}

bool console_room(struct console *console)
{
	bool room;

	pthread_mutex_lock(&console->lock);
	room = console->head - console->tail < RING_SIZE;
	pthread_mutex_unlock(&console->lock);
	return room;
}

/* The waiting bytes that lie in one piece, at most WRITE_MAX. */
static size_t peek(struct console *c, const uint8_t **data)
{
	unsigned at, n;

	pthread_mutex_lock(&c->lock);
	at = c->tail % RING_SIZE;
	n = c->head - c->tail;
	pthread_mutex_unlock(&c->lock);
	*data = &c->ring[at];
	n = n < RING_SIZE - at ? n : RING_SIZE - at;
	return n < WRITE_MAX ? n : WRITE_MAX;
}

static void consume(struct console *c, size_t n)
{
	pthread_mutex_lock(&c->lock);
	c->tail += (unsigned)n;
	pthread_mutex_unlock(&c->lock);
}

/* Write until the ring is empty (true) or nobody takes more within @timeout_ms (false). */
static bool flush(struct console *c, int timeout_ms)
{
	struct pollfd p = { .fd = STDOUT_FILENO, .events = POLLOUT };
	const uint8_t *data;
	size_t len;
	ssize_t n;

	while ((len = peek(c, &data)) > 0) {
		if (!c->output_gone && poll(&p, 1, timeout_ms) == 0)
			return false;
		n = c->output_gone ? (ssize_t)len : write(STDOUT_FILENO, data, len);
		if (n < 0 && errno == EAGAIN)
			return false;
		if (n < 0 && errno == EINTR)
			continue;
		/* With nobody at the other end, the guest goes on talking to itself. */
		if (n <= 0)
			c->output_gone = true;
		else
			consume(c, (size_t)n);
	}
	return true;
}

static void on_output(void *opaque, uint32_t events);

static void flush_or_watch(struct console *c)
{
	const bool done = flush(c, 0);

	if (!done && !c->output_watched)
		c->output_watched = !event_loop_add(c->loop, STDOUT_FILENO, EPOLLOUT, on_output, c);
	if (done && c->output_watched) {
		event_loop_del(c->loop, STDOUT_FILENO);
		c->output_watched = false;
	}
}

static void on_output(void *opaque, uint32_t events)
{
	(void)events;
	flush_or_watch(opaque);
}

/* Ctrl-A x ends the VMM, Ctrl-A Ctrl-A is one Ctrl-A. Edits in place, returns the new length. */
static size_t take_escapes(struct console *c, uint8_t *data, size_t len)
{
	size_t i, out = 0;

	for (i = 0; i < len; i++) {
		if (c->escaped) {
			c->escaped = false;
			if (data[i] == 'x')
				c->ops->quit(c->opaque);
			else if (data[i] == ESCAPE)
				data[out++] = ESCAPE;
		} else if (data[i] == ESCAPE) {
			c->escaped = true;
		} else {
			data[out++] = data[i];
		}
	}
	return out;
}

static void set_input(struct console *c, enum input_state state)
{
	if (c->input == INPUT_WATCHED && state != INPUT_WATCHED)
		event_loop_del(c->loop, STDIN_FILENO);
	c->input = state;
}

static void read_input(struct console *c)
{
	uint8_t data[READ_MAX];
	size_t room = c->ops->input_room(c->opaque);
	ssize_t n;

	if (!room) {
		set_input(c, INPUT_PAUSED);
		return;
	}
	n = read(STDIN_FILENO, data, room < sizeof(data) ? room : sizeof(data));
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n <= 0) {
		set_input(c, INPUT_ENDED);
		return;
	}
	room = c->is_terminal ? take_escapes(c, data, (size_t)n) : (size_t)n;
	c->ops->input(c->opaque, data, room);
}

static void on_input(void *opaque, uint32_t events)
{
	(void)events;
	read_input(opaque);
}

static void resume_input(struct console *c)
{
	int rc;

	if (c->input != INPUT_PAUSED || !c->ops->input_room(c->opaque))
		return;
	rc = event_loop_add(c->loop, STDIN_FILENO, EPOLLIN, on_input, c);
	if (!rc)
		c->input = INPUT_WATCHED;
	else if (rc == -EPERM)
		read_input(c); /* a regular file: always ready, read whenever there is room */
	else
		c->input = INPUT_ENDED;
}

static void on_wake(void *opaque, uint32_t events)
{
	struct console *c = opaque;
	uint64_t count;

	(void)events;
	if (read(c->wake_fd, &count, sizeof(count)) < 0)
		return;
	flush_or_watch(c);
	resume_input(c);
}

void console_input_wanted(struct console *console)
{
	wake(console);
}

static void make_raw(struct console *c)
{
	struct termios raw;

	if (!isatty(STDIN_FILENO) || tcgetattr(STDIN_FILENO, &c->saved) < 0)
		return;
	raw = c->saved;
	cfmakeraw(&raw);
	c->is_terminal = tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
}

int console_new(struct event_loop *loop, const struct console_ops *ops, void *opaque,
		struct console **out)
{
	struct console *c = calloc(1, sizeof(*c));
	int rc;

	if (!c)
		return -ENOMEM;
	c->loop = loop;
	c->ops = ops;
	c->opaque = opaque;
	c->input = INPUT_PAUSED;
	pthread_mutex_init(&c->lock, NULL);
	c->wake_fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK); /* the first wake starts the input */
	rc = c->wake_fd < 0 ? -errno : event_loop_add(loop, c->wake_fd, EPOLLIN, on_wake, c);
	if (rc) {
		console_free(c);
		return rc;
	}
	make_raw(c);
	*out = c;
	return 0;
}

void console_free(struct console *console)
{
	if (!console)
		return;
	set_input(console, INPUT_ENDED);
	if (console->output_watched)
		event_loop_del(console->loop, STDOUT_FILENO);
	flush(console, DRAIN_MS);
	event_loop_del(console->loop, console->wake_fd);
	if (console->is_terminal)
		tcsetattr(STDIN_FILENO, TCSANOW, &console->saved);
	if (console->wake_fd >= 0)
		close(console->wake_fd);
	pthread_mutex_destroy(&console->lock);
	free(console);
}
