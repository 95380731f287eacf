/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One socket: whole messages in and out, replies matched in order. Control context; never blocks.
 *
 * Descriptors travel with the first byte of a message ("Communication"), and a stream socket never
 * merges bytes across them in one recvmsg(). So the header is read on its own: the descriptors that
 * come with it are this message's, and any that come later break the protocol.
 */
#include "channel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../base/fd.h"
#include "../base/report.h"

/* A message that the socket did not take, or the rest of one. */
struct bf_out {
	struct bf_out *next;
	size_t sent;
	size_t len;
	unsigned nr_fds; /* duplicates, owned; gone after the first byte */
	int fds[BF_MAX_FDS];
	uint8_t bytes[];
};

struct bf_pending {
	struct bf_pending *next;
	uint32_t request;
	bool acknowledgement; /* the reply is a u64 where non-zero is failure */
	bf_reply_fn *fn;
	void *opaque;
};

int bf_channel_init(struct bf_channel *channel, int fd, enum bf_channel_kind kind,
		    struct bf_report *report, const struct bf_agreed *agreed)
{
	int ret = bf_fd_set_nonblocking(fd);

	memset(channel, 0, sizeof(*channel));
	channel->fd = fd;
	channel->kind = kind;
	channel->report = report;
	channel->agreed = agreed;
	channel->out_tail = &channel->out_head;
	channel->pending_tail = &channel->pending_head;
	bf_msg_init(&channel->in, 0, 0);
	if (ret < 0) {
		bf_fd_close(&channel->fd);
		bf_report_error(report, ret, "cannot use the socket: %s", strerror(-ret));
	}
	return ret;
}

static void out_free(struct bf_out *out)
{
	for (unsigned i = 0; i < out->nr_fds; i++)
		bf_fd_close(&out->fds[i]);
	free(out);
}

static void drop_output(struct bf_channel *channel)
{
	struct bf_out *out;

	while ((out = channel->out_head)) {
		channel->out_head = out->next;
		out_free(out);
	}
	channel->out_tail = &channel->out_head;
	channel->out_bytes = 0;
}

static struct bf_pending *pop_pending(struct bf_channel *channel)
{
	struct bf_pending *pending = channel->pending_head;

	if (!pending)
		return NULL;
	channel->pending_head = pending->next;
	if (!channel->pending_head)
		channel->pending_tail = &channel->pending_head;
	channel->nr_pending--;
	return pending;
}

void bf_channel_done(struct bf_channel *channel, int error)
{
	struct bf_pending *pending;

	if (channel->fd < 0)
		return;
	bf_fd_close(&channel->fd);
	drop_output(channel);
	bf_msg_close_fds(&channel->in);
	channel->in_got = 0;
	while ((pending = pop_pending(channel))) {
		pending->fn(pending->opaque, error, NULL);
		free(pending);
	}
}

/* sendmsg() once. Bytes taken, or negative errno. */
static ssize_t send_some(int fd, const struct iovec *iov, unsigned nr_iov, const int *fds,
			 unsigned nr_fds)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(BF_MAX_FDS * sizeof(int))];
	} control;
	struct msghdr hdr = { .msg_iov = (struct iovec *)iov, .msg_iovlen = nr_iov };
	ssize_t sent;

	if (nr_fds) {
		struct cmsghdr *cmsg;

		memset(&control, 0, sizeof(control));
		hdr.msg_control = control.bytes;
		hdr.msg_controllen = CMSG_SPACE(nr_fds * sizeof(int));
		cmsg = CMSG_FIRSTHDR(&hdr);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(nr_fds * sizeof(int));
		memcpy(CMSG_DATA(cmsg), fds, nr_fds * sizeof(int));
	}
	do
		sent = sendmsg(fd, &hdr, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (sent < 0 && errno == EINTR);
	return sent < 0 ? -errno : sent;
}

/* Keep what the socket did not take: all of @msg (with descriptors), or what follows @sent bytes. */
static int keep(struct bf_channel *channel, const struct bf_msg *msg, size_t sent)
{
	size_t len = sizeof(msg->hdr) + msg->hdr.size;
	struct bf_out *out;

	if (channel->out_bytes + len > BF_CHANNEL_OUT_MAX)
		return bf_report_error(channel->report, -ENOBUFS,
				       "the peer does not read its socket: %zu bytes wait for it",
				       channel->out_bytes);
	out = calloc(1, sizeof(*out) + len);
	if (!out)
		return bf_report_error(channel->report, -ENOMEM, "out of memory");
	memcpy(out->bytes, &msg->hdr, sizeof(msg->hdr));
	memcpy(out->bytes + sizeof(msg->hdr), msg->payload.bytes, msg->hdr.size);
	out->len = len;
	out->sent = sent;
	while (!sent && out->nr_fds < msg->nr_fds) {
		int fd = bf_fd_dup(msg->fds[out->nr_fds]);

		if (fd < 0) {
			out_free(out);
			return bf_report_error(channel->report, fd,
					       "cannot keep a descriptor until the peer reads: %s",
					       strerror(-fd));
		}
		out->fds[out->nr_fds++] = fd;
	}
	*channel->out_tail = out;
	channel->out_tail = &out->next;
	channel->out_bytes += len;
	return 0;
}

static int send_failed(struct bf_channel *channel, int error)
{
	return bf_report_error(channel->report, error, "cannot send to the peer: %s",
			       strerror(-error));
}

int bf_channel_send(struct bf_channel *channel, const struct bf_msg *msg)
{
	const struct iovec iov[] = {
		{ (void *)&msg->hdr, sizeof(msg->hdr) },
		{ (void *)msg->payload.bytes, msg->hdr.size },
	};
	ssize_t sent;

	if (channel->fd < 0)
		return -ENOTCONN;
	if (channel->out_head)
		return keep(channel, msg, 0);
	sent = send_some(channel->fd, iov, 2, msg->fds, msg->nr_fds);
	if (sent == -EAGAIN)
		return keep(channel, msg, 0);
	if (sent < 0)
		return send_failed(channel, (int)sent);
	if ((size_t)sent < sizeof(msg->hdr) + msg->hdr.size)
		return keep(channel, msg, (size_t)sent);
	return 0;
}

int bf_channel_flush(struct bf_channel *channel)
{
	struct bf_out *out;

	if (channel->fd < 0)
		return -ENOTCONN;
	while ((out = channel->out_head)) {
		const struct iovec iov = { out->bytes + out->sent, out->len - out->sent };
		ssize_t sent = send_some(channel->fd, &iov, 1, out->fds, out->nr_fds);

		if (sent == -EAGAIN)
			return -EAGAIN;
		if (sent < 0)
			return send_failed(channel, (int)sent);
		while (out->nr_fds)
			bf_fd_close(&out->fds[--out->nr_fds]);
		out->sent += (size_t)sent;
		if (out->sent < out->len)
			continue;
		channel->out_head = out->next;
		if (!channel->out_head)
			channel->out_tail = &channel->out_head;
		channel->out_bytes -= out->len;
		free(out);
	}
	return 0;
}

/* Move every descriptor of a received control message into @msg; close those that do not fit. */
static int adopt_fds(struct bf_msg *msg, struct msghdr *hdr)
{
	bool surplus = hdr->msg_flags & MSG_CTRUNC;

	for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(hdr); cmsg; cmsg = CMSG_NXTHDR(hdr, cmsg)) {
		size_t nr;

		if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
			continue;
		nr = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < nr; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof(int), sizeof(fd));
			if (msg->nr_fds < BF_MAX_FDS) {
				msg->fds[msg->nr_fds++] = fd;
			} else {
				bf_fd_close(&fd);
				surplus = true;
			}
		}
	}
	return surplus ? -EBADF : 0;
}

/* Read up to @len bytes of the incoming message. Bytes; 0 at the end; negative errno. */
static ssize_t receive_some(struct bf_channel *channel, void *to, size_t len)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(BF_MAX_FDS * sizeof(int))];
	} control;
	struct iovec iov = { to, len };
	struct msghdr hdr = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes),
	};
	bool in_body = channel->in_got >= sizeof(channel->in.hdr);
	unsigned had = channel->in.nr_fds;
	ssize_t got;

	do
		got = recvmsg(channel->fd, &hdr, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	while (got < 0 && errno == EINTR);
	if (got < 0 && (errno == EAGAIN || errno == ECONNRESET))
		return -errno;
	if (got < 0)
		return bf_report_error(channel->report, -errno, "cannot receive from the peer: %s",
				       strerror(errno));
	if (adopt_fds(&channel->in, &hdr) < 0)
		return bf_report_error(channel->report, -EPROTO,
				       "%s: more than %u file descriptors in one message",
				       bf_msg_name(channel->kind, channel->in.hdr.request),
				       BF_MAX_FDS);
	if (in_body && channel->in.nr_fds != had)
		return bf_report_error(channel->report, -EPROTO,
				       "%s: file descriptors in the middle of a message; they belong "
				       "to its first byte",
				       bf_msg_name(channel->kind, channel->in.hdr.request));
	return got;
}

static int end_of_stream(struct bf_channel *channel)
{
	if (channel->in_got == 0)
		return bf_report_error(channel->report, -ECONNRESET, "the peer closed the connection");
	if (channel->in_got < sizeof(channel->in.hdr))
		return bf_report_error(channel->report, -EPROTO,
				       "the peer closed the connection inside a header: %zu of %zu "
				       "bytes arrived",
				       channel->in_got, sizeof(channel->in.hdr));
	return bf_report_error(channel->report, -EPROTO,
			       "%s: the peer closed the connection inside the message: %zu of %u "
			       "payload bytes arrived",
			       bf_msg_name(channel->kind, channel->in.hdr.request),
			       channel->in_got - sizeof(channel->in.hdr), channel->in.hdr.size);
}

static int check_header(struct bf_channel *channel)
{
	const struct bf_header *hdr = &channel->in.hdr;
	const char *why = "";
	int ret = bf_header_check(hdr, &why);

	if (!ret)
		return 0;
	bf_report_error(channel->report, ret,
			"bad header: %s; got request %u (%s), flags 0x%x, size %u", why, hdr->request,
			bf_msg_name(channel->kind, hdr->request), hdr->flags, hdr->size);
	return ret == -EPROTONOSUPPORT ? ret : -EPROTO;
}

int bf_channel_receive(struct bf_channel *channel, struct bf_msg *msg)
{
	struct bf_msg *in = &channel->in;

	if (channel->fd < 0)
		return -ENOTCONN;
	for (;;) {
		bool in_header = channel->in_got < sizeof(in->hdr);
		size_t body_got = in_header ? 0 : channel->in_got - sizeof(in->hdr);
		ssize_t got;

		if (!in_header && body_got == in->hdr.size)
			break;
		got = in_header ? receive_some(channel, (char *)&in->hdr + channel->in_got,
					       sizeof(in->hdr) - channel->in_got) :
				  receive_some(channel, in->payload.bytes + body_got,
					       in->hdr.size - body_got);
		if (got == -EAGAIN)
			return 0;
		if (got == -ECONNRESET || got == 0)
			return end_of_stream(channel);
		if (got < 0)
			return (int)got;
		channel->in_got += (size_t)got;
		if (in_header && channel->in_got == sizeof(in->hdr)) {
			int ret = check_header(channel);

			if (ret < 0)
				return ret;
		}
	}
	*msg = *in;
	channel->in_got = 0;
	bf_msg_init(in, 0, 0);
	return 1;
}

int bf_channel_ask(struct bf_channel *channel, struct bf_msg *msg, bf_reply_fn *fn, void *opaque)
{
	const struct bf_msg_desc *desc = bf_msg_desc(channel->kind, msg->hdr.request);
	struct bf_pending *pending = NULL;
	int ret;

	if (desc->reply_rule != BF_REPLY_ALWAYS &&
	    bf_has(channel->agreed->protocol_features, BF_PROTOCOL_F_REPLY_ACK))
		msg->hdr.flags |= BF_FLAGS_NEED_REPLY;
	if (bf_reply_expected(channel->kind, &msg->hdr, channel->agreed)) {
		pending = calloc(1, sizeof(*pending));
		if (!pending)
			return bf_report_error(channel->report, -ENOMEM, "out of memory");
		*pending = (struct bf_pending){
			.request = msg->hdr.request,
			.acknowledgement = desc->reply_rule == BF_REPLY_ACK,
			.fn = fn,
			.opaque = opaque,
		};
	}
	ret = bf_channel_send(channel, msg);
	if (ret < 0) {
		free(pending);
		return ret;
	}
	if (!pending) {
		fn(opaque, 0, NULL);
		return 0;
	}
	*channel->pending_tail = pending;
	channel->pending_tail = &pending->next;
	channel->nr_pending++;
	return 0;
}

static int match_reply(struct bf_channel *channel, struct bf_msg *reply)
{
	struct bf_pending *pending = channel->pending_head;
	const char *name = bf_msg_name(channel->kind, reply->hdr.request);
	const char *why = "";
	int result = 0;

	if (!pending)
		return bf_report_error(channel->report, -EPROTO,
				       "a reply to %s that nobody asked for", name);
	if (bf_reply_check(channel->kind, pending->request, reply, channel->agreed, &why) < 0)
		return bf_report_error(channel->report, -EPROTO,
				       "reply to %s: %s; got request %u, flags 0x%x, size %u, %u file "
				       "descriptors",
				       bf_msg_name(channel->kind, pending->request), why,
				       reply->hdr.request, reply->hdr.flags, reply->hdr.size,
				       reply->nr_fds);
	if (pending->acknowledgement && reply->payload.u64 != 0)
		result = bf_report_error(channel->report, -EREMOTEIO,
					 "%s: the peer answered with failure (%llu)", name,
					 (unsigned long long)reply->payload.u64);
	pop_pending(channel);
	pending->fn(pending->opaque, result, reply);
	free(pending);
	return 0;
}

int bf_channel_dispatch_replies(struct bf_channel *channel)
{
	for (;;) {
		struct bf_msg reply;
		int ret = bf_channel_receive(channel, &reply);

		if (ret <= 0)
			return ret;
		ret = match_reply(channel, &reply);
		bf_msg_close_fds(&reply);
		if (ret < 0)
			return ret;
	}
}

int bf_channel_reply(struct bf_channel *channel, const struct bf_msg *request, struct bf_msg *reply)
{
	reply->hdr.request = request->hdr.request;
	reply->hdr.flags = BF_FLAGS_VERSION | BF_FLAGS_REPLY;
	return bf_channel_send(channel, reply);
}

int bf_channel_acknowledge(struct bf_channel *channel, const struct bf_msg *request, int result)
{
	struct bf_msg reply;

	if (!bf_reply_expected(channel->kind, &request->hdr, channel->agreed))
		return 0;
	bf_msg_init(&reply, request->hdr.request, 0);
	bf_msg_set_u64(&reply, result ? 1 : 0);
	return bf_channel_reply(channel, request, &reply);
}
