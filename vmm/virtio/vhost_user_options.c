/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The options of vhost-user devices, from the command line: one parser, the common keys, and the
 * table of keys that each kind brings along.
 *
 * Pure: text in, structure out, no file is touched. Strict, because a misspelt key that is ignored
 * costs somebody an afternoon.
 */
#include "vhost_user_options.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <belfry/protocol.h>

#include "vhost_user_device.h"

#define DEFAULT_QUEUE_SIZE 256

int vhost_user_option_refuse(const struct vhost_user_sentence *said, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(said->text, said->len, fmt, args);
	va_end(args);
	return -EINVAL;
}

int vhost_user_option_number(const char *key, const char *value, unsigned min, unsigned max,
			     unsigned *out, const struct vhost_user_sentence *said)
{
	unsigned long number;
	char *end;

	errno = 0;
	number = strtoul(value, &end, 10);
	if (value[0] < '0' || value[0] > '9' || *end || errno || number < min || number > max)
		return vhost_user_option_refuse(said, "%s=%s: expected a number from %u to %u",
						key, value, min, max);
	*out = (unsigned)number;
	return 0;
}

/* One of two words. */
static int either(const char *key, const char *value, const char *yes, const char *no, bool *out,
		  const struct vhost_user_sentence *said)
{
	if (strcmp(value, yes) && strcmp(value, no))
		return vhost_user_option_refuse(said, "%s=%s: expected %s or %s", key, value, yes,
						no);
	*out = !strcmp(value, yes);
	return 0;
}

static int set_socket(const char *key, const char *value, struct vhost_user_options *o,
		      const struct vhost_user_sentence *said)
{
	size_t len = strlen(value);

	if (!len)
		return vhost_user_option_refuse(
			said, "%s= is empty: give the path of the back end's socket", key);
	if (len >= sizeof(o->socket))
		return vhost_user_option_refuse(
			said, "%s: the path has %zu characters, a socket's can have %zu", key, len,
			sizeof(o->socket) - 1);
	memcpy(o->socket, value, len + 1);
	return 0;
}

static int set_notify(const char *key, const char *value, struct vhost_user_options *o,
		      const struct vhost_user_sentence *said)
{
	return either(key, value, "auto", "eventfd", &o->doorbells, said);
}

static int set_queue_size(const char *key, const char *value, struct vhost_user_options *o,
			  const struct vhost_user_sentence *said)
{
	int err = vhost_user_option_number(key, value, 1, BF_MAX_QUEUE_SIZE, &o->queue_size, said);

	if (!err && (o->queue_size < 2 || o->queue_size & (o->queue_size - 1)))
		err = vhost_user_option_refuse(
			said, "%s=%s: expected a power of two from 2 to %u", key, value,
			(unsigned)BF_MAX_QUEUE_SIZE);
	return err;
}

static int set_reconnect(const char *key, const char *value, struct vhost_user_options *o,
			 const struct vhost_user_sentence *said)
{
	return either(key, value, "on", "off", &o->reconnect, said);
}

static int set_server(const char *key, const char *value, struct vhost_user_options *o,
		      const struct vhost_user_sentence *said)
{
	return either(key, value, "on", "off", &o->server, said);
}

static const struct vhost_user_key common_keys[] = {
	{ "socket", set_socket },       { "notify", set_notify }, { "queue-size", set_queue_size },
	{ "reconnect", set_reconnect }, { "server", set_server },
};

#define NR_COMMON  (sizeof(common_keys) / sizeof(common_keys[0]))
#define KEY_SOCKET 0

/* Key number @i: the common ones, then the kind's. NULL past the last. */
static const struct vhost_user_key *key_at(const struct vhost_user_kind *kind, unsigned i)
{
	if (i < NR_COMMON)
		return &common_keys[i];
	return i - NR_COMMON < kind->nr_keys ? &kind->keys[i - NR_COMMON] : NULL;
}

static int unknown_key(const struct vhost_user_kind *kind, const char *name,
		       const struct vhost_user_sentence *said)
{
	const struct vhost_user_key *key;
	char names[160] = "";
	size_t used = 0;
	unsigned i;

	for (i = 0; (key = key_at(kind, i)) && used < sizeof(names); i++)
		used += (size_t)snprintf(names + used, sizeof(names) - used, "%s%s",
					 i ? ", " : "", key->name);
	return vhost_user_option_refuse(said, "unknown key '%s': there are %s", name, names);
}

static int parse_pair(const struct vhost_user_kind *kind, char *pair, unsigned *seen,
		      struct vhost_user_options *o, const struct vhost_user_sentence *said)
{
	const struct vhost_user_key *key;
	char *value = strchr(pair, '=');
	unsigned i;

	if (value)
		*value++ = '\0';
	for (i = 0; (key = key_at(kind, i)) && strcmp(pair, key->name); i++)
		;
	if (!key)
		return unknown_key(kind, pair, said);
	if (!value)
		return vhost_user_option_refuse(said, "%s has no value: expected %s=...", pair,
						pair);
	if (*seen & 1u << i)
		return vhost_user_option_refuse(said, "%s is given twice", pair);
	*seen |= 1u << i;
	return key->set(key->name, value, o, said);
}

int vhost_user_options_parse(const struct vhost_user_kind *kind, const char *args,
			     struct vhost_user_options *options, char *err, size_t err_len)
{
	struct vhost_user_options o = { .nr_queues = kind->default_queues,
					.queue_size = DEFAULT_QUEUE_SIZE,
					.doorbells = true,
					.reconnect = kind->reconnect };
	const struct vhost_user_sentence said = { err, err_len };
	char *copy = strdup(args);
	char *rest = copy;
	unsigned seen = 0;
	char *pair;
	int rc = 0;

	if (!copy)
		return -ENOMEM;
	while (!rc && (pair = strsep(&rest, ",")))
		if (*pair)
			rc = parse_pair(kind, pair, &seen, &o, &said);
	if (!rc && !(seen & 1u << KEY_SOCKET))
		rc = vhost_user_option_refuse(
			&said, "socket=PATH is missing: give the path of the back end's socket");
	free(copy);
	if (!rc)
		*options = o;
	return rc;
}
