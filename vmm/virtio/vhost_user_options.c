/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The options that vhost-user devices have in common, from the command line.
 *
 * Pure: text in, structure out, no file is touched. Strict, because a misspelt key that is ignored
 * costs somebody an afternoon.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <belfry/protocol.h>

#include "vhost_user_device.h"

#define DEFAULT_QUEUES     1
#define DEFAULT_QUEUE_SIZE 256

enum key { KEY_SOCKET, KEY_NUM_QUEUES, KEY_NOTIFY, KEY_QUEUE_SIZE, NR_KEYS };

static const char *const key_names[NR_KEYS] = { "socket", "num-queues", "notify", "queue-size" };

struct message {
	char *text;
	size_t len;
};

static int fail(const struct message *m, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

static int fail(const struct message *m, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(m->text, m->len, fmt, args);
	va_end(args);
	return -EINVAL;
}

static int parse_number(const char *key, const char *value, unsigned max, unsigned *out,
			const struct message *m)
{
	unsigned long number;
	char *end;

	errno = 0;
	number = strtoul(value, &end, 10);
	if (value[0] < '0' || value[0] > '9' || *end || errno || number < 1 || number > max)
		return fail(m, "%s=%s: expected a number from 1 to %u", key, value, max);
	*out = (unsigned)number;
	return 0;
}

static int parse_socket(const char *value, struct vhost_user_options *o, const struct message *m)
{
	size_t len = strlen(value);

	if (!len)
		return fail(m, "socket= is empty: give the path of the back end's socket");
	if (len >= sizeof(o->socket))
		return fail(m, "socket: the path has %zu characters, a socket's can have %zu", len,
			    sizeof(o->socket) - 1);
	memcpy(o->socket, value, len + 1);
	return 0;
}

static int parse_notify(const char *value, struct vhost_user_options *o, const struct message *m)
{
	if (strcmp(value, "auto") && strcmp(value, "eventfd"))
		return fail(m, "notify=%s: expected auto or eventfd", value);
	o->doorbells = !strcmp(value, "auto");
	return 0;
}

static int parse_queue_size(const char *value, struct vhost_user_options *o,
			    const struct message *m)
{
	int err = parse_number("queue-size", value, BF_MAX_QUEUE_SIZE, &o->queue_size, m);

	if (!err && (o->queue_size < 2 || o->queue_size & (o->queue_size - 1)))
		err = fail(m, "queue-size=%s: expected a power of two from 2 to %u", value,
			   (unsigned)BF_MAX_QUEUE_SIZE);
	return err;
}

static int parse_pair(char *pair, unsigned *seen, struct vhost_user_options *o,
		      const struct message *m)
{
	char *value = strchr(pair, '=');
	unsigned key;

	if (value)
		*value++ = '\0';
	for (key = 0; key < NR_KEYS && strcmp(pair, key_names[key]); key++)
		;
	if (key == NR_KEYS)
		return fail(m, "unknown key '%s': there are socket, num-queues, notify, queue-size",
			    pair);
	if (!value)
		return fail(m, "%s has no value: expected %s=...", pair, pair);
	if (*seen & 1u << key)
		return fail(m, "%s is given twice", pair);
	*seen |= 1u << key;

	switch (key) {
	case KEY_SOCKET:
		return parse_socket(value, o, m);
	case KEY_NUM_QUEUES:
		return parse_number(pair, value, BF_MAX_QUEUES, &o->nr_queues, m);
	case KEY_NOTIFY:
		return parse_notify(value, o, m);
	default:
		return parse_queue_size(value, o, m);
	}
}

int vhost_user_options_parse(const char *args, struct vhost_user_options *options, char *err,
			     size_t err_len)
{
	struct vhost_user_options o = { .nr_queues = DEFAULT_QUEUES,
					.queue_size = DEFAULT_QUEUE_SIZE,
					.doorbells = true };
	const struct message m = { err, err_len };
	char *copy = strdup(args);
	char *rest = copy;
	unsigned seen = 0;
	char *pair;
	int rc = 0;

	if (!copy)
		return -ENOMEM;
	while (!rc && (pair = strsep(&rest, ",")))
		if (*pair)
			rc = parse_pair(pair, &seen, &o, &m);
	if (!rc && !(seen & 1u << KEY_SOCKET))
		rc = fail(&m, "socket=PATH is missing: give the path of the back end's socket");
	free(copy);
	if (!rc)
		*options = o;
	return rc;
}
