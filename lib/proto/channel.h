/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One socket of a connection, never blocking: whole messages in, whole messages out.
 *
 * A channel has an asking end and an answering end for its life. The asking end keeps a FIFO of
 * outstanding requests: replies come in the order of the requests, so the next reply belongs to the
 * head. Nothing waits here; struct bf_frontend and struct bf_backend do, or do not.
 *
 * Belongs to the control context.
 */
#ifndef PROTO_CHANNEL_H
#define PROTO_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>

#include "message.h"

struct bf_report;
struct bf_out;
struct bf_pending;

struct bf_channel {
	int fd; /* owned; -1: closed */
	enum bf_channel_kind kind;
	struct bf_report *report; /* where sentences go; borrowed */
	const struct bf_agreed *agreed; /* borrowed */

	/* The message that is coming in. */
	struct bf_msg in;
	size_t in_got; /* bytes, header included */

	/* Messages that the socket did not take yet, oldest first. */
	struct bf_out *out_head, **out_tail;
	size_t out_bytes;

	/* Asking end: requests that wait for their reply, oldest first. */
	struct bf_pending *pending_head, **pending_tail;
	unsigned nr_pending;
};

/*
 * What became of a request. @result: 0 the reply is there (for an acknowledgement: it was zero);
 * -EREMOTEIO the peer answered an acknowledgement with non-zero; otherwise the connection's error,
 * and @reply is NULL. @reply's descriptors that are not taken are closed afterwards. Must not close
 * the channel.
 */
typedef void bf_reply_fn(void *opaque, int result, struct bf_msg *reply);

/* @fd is owned from here on, made non-blocking. 0 or negative errno (fd is closed). */
int bf_channel_init(struct bf_channel *channel, int fd, enum bf_channel_kind kind,
		    struct bf_report *report, const struct bf_agreed *agreed);
/* Close; every outstanding request is completed with @error. Idempotent, also on a zeroed one with fd -1. */
void bf_channel_done(struct bf_channel *channel, int error);

/*
 * Send @msg, or keep it until the socket takes it; its descriptors stay the caller's (they are
 * duplicated if kept). -ENOTCONN, -EPIPE the peer is gone; -ENOBUFS the peer does not read: more than
 * BF_CHANNEL_OUT_MAX bytes wait; -ENOMEM.
 */
#define BF_CHANNEL_OUT_MAX (4u << 20)
int bf_channel_send(struct bf_channel *channel, const struct bf_msg *msg);
/* Send what was kept. 0 all gone, -EAGAIN some left, or the error. */
int bf_channel_flush(struct bf_channel *channel);
static inline bool bf_channel_wants_write(const struct bf_channel *channel)
{
	return channel->out_head != NULL;
}

/*
 * Take the next whole message: 1 *@msg is one (the caller owns its descriptors: bf_msg_close_fds()),
 * 0 none yet, -ECONNRESET the peer closed between messages, -EPROTO it closed inside one or the
 * header is bad, -EPROTONOSUPPORT it speaks another version, or another errno. Sentences go to the report. Only the header is checked.
 */
int bf_channel_receive(struct bf_channel *channel, struct bf_msg *msg);

/*
 * Asking end. Send a request; @fn is called once with what became of it: from
 * bf_channel_dispatch_replies(), from bf_channel_done(), or, when no reply is due, before this
 * returns (result 0). need_reply is set here if REPLY_ACK is agreed and the table allows it.
 * An error means that @fn was not and will not be called.
 */
int bf_channel_ask(struct bf_channel *channel, struct bf_msg *msg, bf_reply_fn *fn, void *opaque);
/* Receive and match every reply that is there. 0 none left, or the error (see receive; -EPROTO). */
int bf_channel_dispatch_replies(struct bf_channel *channel);

/* Answering end. Reply to @request with a body, or with an acknowledgement if one is due. */
int bf_channel_reply(struct bf_channel *channel, const struct bf_msg *request, struct bf_msg *reply);
int bf_channel_acknowledge(struct bf_channel *channel, const struct bf_msg *request, int result);

#endif
