/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The keys of --device: those of every vhost-user device, and those that a kind adds. Pure.
 */
#ifndef VMM_VHOST_USER_OPTIONS_H
#define VMM_VHOST_USER_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/un.h>

struct vhost_user_kind;

/* What the person asked for. */
struct vhost_user_options {
	char socket[sizeof(((struct sockaddr_un *)0)->sun_path)];
	unsigned nr_queues; /* of the back end; a kind's own come after them */
	unsigned queue_size;
	bool doorbells; /* false: notify=eventfd, host notifiers are not agreed */
	bool reconnect; /* try again when the back end is lost */
	bool server;    /* listen on the socket, the back end connects */
	struct {
		bool has_mac;
		uint8_t mac[6];
		uint16_t mtu; /* 0: none */
	} net;
};

/* Where the sentence about a bad value goes. */
struct vhost_user_sentence {
	char *text;
	size_t len;
};

/* 0, or -EINVAL after vhost_user_option_refuse(). */
typedef int vhost_user_set_fn(const char *key, const char *value, struct vhost_user_options *o,
			      const struct vhost_user_sentence *said);

struct vhost_user_key {
	const char *name;
	vhost_user_set_fn *set;
};

/* Returns -EINVAL. */
int vhost_user_option_refuse(const struct vhost_user_sentence *said, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
/* A decimal number from @min to @max. */
int vhost_user_option_number(const char *key, const char *value, unsigned min, unsigned max,
			     unsigned *out, const struct vhost_user_sentence *said);

/*
 * vhost_user_options_parse - "socket=PATH[,key=value]...", what follows the kind's name.
 * 0 and *@options; -EINVAL and in @err a sentence that names the key; -ENOMEM.
 */
int vhost_user_options_parse(const struct vhost_user_kind *kind, const char *args,
			     struct vhost_user_options *options, char *err, size_t err_len);

#endif
