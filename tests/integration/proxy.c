/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The proxy. Knows of the protocol only where a message ends, and that SET_BACKEND_REQ_FD brings a
 * channel: of that it hands on an end of its own. When one side closes, so does it.
 */
#include "proxy.h"

#include "../unit/support.h"

#include <poll.h>
#include <sys/eventfd.h>

static void drop(struct proxy_message *msg)
{
	for (unsigned i = 0; i < msg->nr_fds; i++)
		close(msg->fds[i]);
	free(msg);
}

static void take_fds(struct msghdr *hdr, struct proxy_message *msg)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(hdr); c; c = CMSG_NXTHDR(hdr, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		msg->nr_fds = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(msg->fds, CMSG_DATA(c), msg->nr_fds * sizeof(int));
	}
}

/* One whole message, or NULL: closed. Its header is there already. */
static struct proxy_message *receive(int fd)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(PROXY_MAX_FDS * sizeof(int))];
	} control;
	struct proxy_message *msg = calloc(1, sizeof(*msg));
	struct iovec iov = { &msg->hdr, sizeof(msg->hdr) };
	struct msghdr hdr = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control.bytes,
			      .msg_controllen = sizeof(control.bytes) };

	if (recvmsg(fd, &hdr, MSG_CMSG_CLOEXEC | MSG_WAITALL) == sizeof(msg->hdr)) {
		take_fds(&hdr, msg);
		if (msg->hdr.size <= sizeof(msg->payload) &&
		    (!msg->hdr.size ||
		     recv(fd, msg->payload, msg->hdr.size, MSG_WAITALL) == (ssize_t)msg->hdr.size))
			return msg;
	}
	drop(msg);
	return NULL;
}

static int transmit(int fd, const struct bf_header *header, const void *payload, unsigned len,
		    const int *fds, unsigned nr_fds, int flags)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(PROXY_MAX_FDS * sizeof(int))];
	} control = { 0 };
	struct iovec iov[] = { { (void *)(uintptr_t)header, sizeof(*header) },
			       { (void *)(uintptr_t)payload, len } };
	struct msghdr hdr = { .msg_iov = iov, .msg_iovlen = 2 };

	if (nr_fds) {
		struct cmsghdr *cmsg;

		hdr.msg_control = control.bytes;
		hdr.msg_controllen = CMSG_SPACE(nr_fds * sizeof(int));
		cmsg = CMSG_FIRSTHDR(&hdr);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(nr_fds * sizeof(int));
		memcpy(CMSG_DATA(cmsg), fds, nr_fds * sizeof(int));
	}
	return sendmsg(fd, &hdr, flags | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* Put ourselves between on the back-end channel too. */
static void split_back_channel(struct proxy *proxy, struct proxy_message *msg)
{
	int pair[2];

	if (msg->hdr.request != BF_FE_SET_BACKEND_REQ_FD || msg->nr_fds != 1 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return;
	proxy->back_front = msg->fds[0];
	proxy->back_back = pair[0];
	msg->fds[0] = pair[1];
}

static bool pass_on(int from, int to)
{
	struct proxy_message *msg = receive(from);
	int ret;

	if (!msg)
		return false;
	ret = transmit(to, &msg->hdr, msg->payload, msg->hdr.size, msg->fds, msg->nr_fds, 0);
	drop(msg);
	return !ret;
}

/* Never waits for the back end to read without reading what it says itself. */
static bool give(struct proxy *proxy, struct proxy_message *msg)
{
	for (;;) {
		struct pollfd fd = { .fd = proxy->back, .events = POLLIN | POLLOUT };
		int ret = transmit(proxy->back, &msg->hdr, msg->payload, msg->hdr.size, msg->fds,
				   msg->nr_fds, MSG_DONTWAIT);

		if (ret != -EAGAIN)
			return !ret;
		poll(&fd, 1, -1);
		if (fd.revents & POLLIN && !pass_on(proxy->back, proxy->front))
			return false;
	}
}

static bool give_held(struct proxy *proxy)
{
	bool ok = true;

	if (proxy->held)
		atomic_fetch_add(&proxy->nr_rounds, 1);
	while (proxy->held) {
		struct proxy_message *msg = proxy->held;

		ok = ok && give(proxy, msg);
		proxy->held = msg->next;
		drop(msg);
	}
	proxy->held_tail = &proxy->held;
	return ok;
}

static bool hear_front(struct proxy *proxy)
{
	struct proxy_message *msg = receive(proxy->front);

	if (!msg)
		return false;
	atomic_fetch_add(&proxy->nr_messages, 1);
	split_back_channel(proxy, msg);
	*proxy->held_tail = msg;
	proxy->held_tail = &msg->next;
	return proxy->hold_ms || give_held(proxy);
}

static bool hear_back_channel(struct proxy *proxy)
{
	atomic_fetch_add(&proxy->nr_back_messages, 1);
	return pass_on(proxy->back_back, proxy->back_front);
}

/* One thing. False: somebody closed. */
static bool step(struct proxy *proxy, const struct pollfd *fds, int ready)
{
	if (!ready)
		return give_held(proxy);
	if (fds[0].revents)
		return hear_front(proxy);
	if (fds[1].revents)
		return pass_on(proxy->back, proxy->front);
	if (fds[2].revents)
		return pass_on(proxy->back_front, proxy->back_back);
	return !fds[3].revents || hear_back_channel(proxy);
}

static void *run(void *arg)
{
	struct proxy *proxy = arg;
	bool open = true;

	while (open && !proxy->stop) {
		struct pollfd fds[] = {
			{ .fd = proxy->front, .events = POLLIN },
			{ .fd = proxy->back, .events = POLLIN },
			{ .fd = proxy->back_front, .events = POLLIN },
			{ .fd = proxy->back_back, .events = POLLIN },
			{ .fd = proxy->wake_fd, .events = POLLIN },
		};

		poll(fds, 5, proxy->held ? (int)proxy->hold_ms : -1);
		pthread_mutex_lock(&proxy->lock);
		/* What was there may have been taken by proxy_answer() meanwhile. */
		open = step(proxy, fds, poll(fds, 4, 0));
		pthread_mutex_unlock(&proxy->lock);
	}
	pthread_mutex_lock(&proxy->lock);
	shutdown(proxy->front, SHUT_RDWR);
	shutdown(proxy->back, SHUT_RDWR);
	pthread_mutex_unlock(&proxy->lock);
	return NULL;
}

int proxy_start(struct proxy *proxy, int back_fd)
{
	unsigned hold_ms = proxy->hold_ms;
	int pair[2];

	memset(proxy, 0, sizeof(*proxy));
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	proxy->hold_ms = hold_ms;
	proxy->front = pair[0];
	proxy->back = back_fd;
	proxy->back_front = proxy->back_back = -1;
	proxy->held_tail = &proxy->held;
	proxy->wake_fd = eventfd(0, EFD_CLOEXEC);
	assert_true(proxy->wake_fd >= 0);
	pthread_mutex_init(&proxy->lock, NULL);
	assert_int_equal(pthread_create(&proxy->thread, NULL, run, proxy), 0);
	return pair[1];
}

void proxy_stop(struct proxy *proxy)
{
	pthread_mutex_lock(&proxy->lock);
	proxy->stop = true;
	pthread_mutex_unlock(&proxy->lock);
	eventfd_write(proxy->wake_fd, 1);
	pthread_join(proxy->thread, NULL);
	give_held(proxy);
	close(proxy->front);
	close(proxy->back);
	if (proxy->back_front >= 0) {
		close(proxy->back_front);
		close(proxy->back_back);
	}
	close(proxy->wake_fd);
	pthread_mutex_destroy(&proxy->lock);
}

static int channel_of(const struct proxy *proxy, enum proxy_as as)
{
	return as == AS_FRONT_END ? proxy->back : proxy->back_front;
}

void proxy_hold(struct proxy *proxy)
{
	pthread_mutex_lock(&proxy->lock);
}

void proxy_release(struct proxy *proxy)
{
	pthread_mutex_unlock(&proxy->lock);
}

void proxy_say(struct proxy *proxy, enum proxy_as as, struct bf_header hdr, const void *payload,
	       unsigned len, const int *fds, unsigned nr_fds)
{
	assert_int_equal(
		transmit(channel_of(proxy, as), &hdr, payload, len, fds, nr_fds, MSG_DONTWAIT), 0);
}

int64_t proxy_answer(struct proxy *proxy, enum proxy_as as, unsigned timeout_ms)
{
	struct pollfd fd = { .fd = channel_of(proxy, as), .events = POLLIN };
	struct proxy_message *msg;
	uint64_t value = 0;

	if (poll(&fd, 1, (int)timeout_ms) <= 0)
		return -EAGAIN;
	msg = receive(fd.fd);
	if (!msg)
		return -ECONNRESET;
	memcpy(&value, msg->payload, sizeof(value));
	drop(msg);
	return (int64_t)value;
}
