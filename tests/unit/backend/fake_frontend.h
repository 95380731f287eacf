/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A front end of a few lines that says exactly what it is told to, and a device that remembers what
 * was done to it. One thread: every message is followed by a dispatch of the back end.
 */
#ifndef TESTS_UNIT_BACKEND_FAKE_FRONTEND_H
#define TESTS_UNIT_BACKEND_FAKE_FRONTEND_H

#include "../support.h"

#include <poll.h>
#include <sys/eventfd.h>

#include <belfry/backend.h>

#define QUEUES      4
#define MEMORY_SIZE (1u << 20)
#define GPA         0x40000000ull
#define UVA         0x7f0000000000ull
#define RING_SIZE   8
#define FEATURES    (bf_bit(32) | bf_bit(29) | bf_bit(28))
#define CONFIG_SIZE 60
#define NEED_REPLY  9u /* flags: version 1 and need_reply */
#define ACK_BIT     bf_bit(BF_VHOST_USER_F_PROTOCOL_FEATURES)
#define LOG_BIT     bf_bit(BF_VHOST_F_LOG_ALL)

/* What the fake device's operations allow of what is offered by default. */
#define OFFERED                                                                       \
	(bf_backend_supported_protocol_features() &                                   \
	 ~(bf_bit(BF_PROTOCOL_F_RARP) | bf_bit(BF_PROTOCOL_F_MTU) |                   \
	   bf_bit(BF_PROTOCOL_F_CRYPTO_SESSION) | bf_bit(BF_PROTOCOL_F_SHARED_OBJECT) | \
	   bf_bit(BF_PROTOCOL_F_DEVICE_STATE)))

struct peer {
	struct bf_backend *be;
	int fd;   /* our end of the main channel */
	int back; /* our end of the back-end channel; -1: none */

	/* The device. */
	struct bf_virtq *vq[QUEUES];
	bool running[QUEUES];
	unsigned starts, stops, resets, ended, results;
	int end_error, last_result, start_error;
	bool last_published;
	unsigned last_queue;
	uint64_t features;
	uint8_t config[CONFIG_SIZE];
	bool config_migration;
	int publish_fd; /* -1: do not publish in vring_start */
	int publish_ret;
};

static int fake_start(void *opaque, unsigned queue, struct bf_virtq *vq)
{
	struct peer *peer = opaque;

	assert_true(queue < QUEUES);
	assert_false(peer->running[queue]);
	if (peer->start_error)
		return peer->start_error;
	peer->running[queue] = true;
	peer->vq[queue] = vq;
	peer->starts++;
	if (peer->publish_fd >= 0)
		peer->publish_ret =
			bf_backend_publish_doorbell(peer->be, queue, peer->publish_fd, 0);
	return 0;
}

static void fake_stop(void *opaque, unsigned queue)
{
	struct peer *peer = opaque;

	assert_true(peer->running[queue]);
	peer->running[queue] = false;
	peer->stops++;
}

static int fake_get_config(void *opaque, uint32_t offset, void *data, uint32_t len)
{
	struct peer *peer = opaque;

	assert_true(len && len <= CONFIG_SIZE && offset <= CONFIG_SIZE - len);
	memcpy(data, peer->config + offset, len);
	return 0;
}

static int fake_set_config(void *opaque, uint32_t offset, const void *data, uint32_t len,
			   bool migration)
{
	struct peer *peer = opaque;

	assert_true(len && len <= CONFIG_SIZE && offset <= CONFIG_SIZE - len);
	memcpy(peer->config + offset, data, len);
	peer->config_migration = migration;
	return 0;
}

static int fake_set_features(void *opaque, uint64_t features)
{
	((struct peer *)opaque)->features = features;
	return 0;
}

static void fake_reset(void *opaque)
{
	struct peer *peer = opaque;

	for (unsigned i = 0; i < QUEUES; i++)
		assert_false(peer->running[i]);
	peer->resets++;
}

static void fake_answered(void *opaque, unsigned queue, bool published, int result)
{
	struct peer *peer = opaque;

	peer->results++;
	peer->last_queue = queue;
	peer->last_result = result;
	peer->last_published = published;
}

static void fake_disconnected(void *opaque, int error)
{
	struct peer *peer = opaque;

	for (unsigned i = 0; i < QUEUES; i++)
		assert_false(peer->running[i]);
	assert_null(bf_backend_memory(peer->be));
	assert_false(bf_backend_attached(peer->be));
	peer->ended++;
	peer->end_error = error;
}

static const struct bf_backend_ops fake_ops = {
	.vring_start = fake_start,
	.vring_stop = fake_stop,
	.get_config = fake_get_config,
	.set_config = fake_set_config,
	.set_features = fake_set_features,
	.reset = fake_reset,
	.doorbell_answered = fake_answered,
	.disconnected = fake_disconnected,
};

static inline void peer_connect(struct peer *peer)
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair),
			 0);
	assert_int_equal(bf_backend_attach(peer->be, pair[0]), 0);
	peer->fd = pair[1];
}

static inline struct bf_backend_config peer_config(struct peer *peer)
{
	return (struct bf_backend_config){
		.ops = &fake_ops,
		.opaque = peer,
		.name = "test",
		.nr_queues = QUEUES,
		.max_queue_size = 1024,
		.config_size = CONFIG_SIZE,
		.features = FEATURES,
	};
}

static inline void peer_init_as(struct peer *peer, const struct bf_backend_config *config)
{
	memset(peer, 0, sizeof(*peer));
	peer->back = peer->publish_fd = -1;
	for (unsigned i = 0; i < CONFIG_SIZE; i++)
		peer->config[i] = (uint8_t)i;
	assert_int_equal(bf_backend_new(config, &peer->be), 0);
	peer_connect(peer);
}

static inline void peer_init(struct peer *peer, uint64_t protocol_features)
{
	struct bf_backend_config config = peer_config(peer);

	config.protocol_features = protocol_features;
	peer_init_as(peer, &config);
}

static inline void peer_done(struct peer *peer)
{
	bf_backend_free(peer->be);
	if (peer->fd >= 0)
		close(peer->fd);
	if (peer->back >= 0)
		close(peer->back);
}

/* Bytes with descriptors; whatever they are. */
static inline void send_bytes(int fd, const void *bytes, size_t len, const int *fds,
			      unsigned nr_fds)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(64 * sizeof(int))];
	} control = { 0 };
	struct iovec iov = { (void *)(uintptr_t)bytes, len };
	struct msghdr hdr = { .msg_iov = &iov, .msg_iovlen = 1 };

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
	assert_int_equal(sendmsg(fd, &hdr, MSG_NOSIGNAL), len);
}

static inline void send_message(int fd, uint32_t request, uint32_t flags, const void *payload,
				uint32_t size, const int *fds, unsigned nr_fds)
{
	const struct bf_header hdr = { request, flags, size };
	char bytes[sizeof(hdr) + 8192];

	memcpy(bytes, &hdr, sizeof(hdr));
	if (size)
		memcpy(bytes + sizeof(hdr), payload, size);
	send_bytes(fd, bytes, sizeof(hdr) + size, fds, nr_fds);
}

/* A reply that is there already: payload bytes, or -EAGAIN none, -ECONNRESET closed. */
static inline int read_reply(int fd, uint32_t request, void *payload, size_t max)
{
	struct bf_header hdr;
	ssize_t got = read(fd, &hdr, sizeof(hdr));

	if (got < 0)
		return -errno;
	if (!got)
		return -ECONNRESET;
	assert_int_equal(got, sizeof(hdr));
	assert_int_equal(hdr.request, request);
	assert_int_equal(hdr.flags, BF_FLAGS_VERSION | BF_FLAGS_REPLY);
	assert_true(hdr.size <= max);
	if (hdr.size)
		assert_int_equal(read(fd, payload, hdr.size), hdr.size);
	return (int)hdr.size;
}

#define ACCEPTED 0
#define REFUSED  1
#define SILENT   2
#define CLOSED   3

/* Send, dispatch, and what became of it. Needs REPLY_ACK for the first two. */
static inline int say(struct peer *peer, uint32_t request, const void *payload, uint32_t size,
		      const int *fds, unsigned nr_fds)
{
	uint64_t value = 0;
	int ret;

	send_message(peer->fd, request, NEED_REPLY, payload, size, fds, nr_fds);
	bf_backend_dispatch(peer->be);
	ret = read_reply(peer->fd, request, &value, sizeof(value));
	if (ret == -EAGAIN)
		return SILENT;
	if (ret < 0)
		return CLOSED;
	assert_int_equal(ret, sizeof(value));
	return value ? REFUSED : ACCEPTED;
}

static inline int say_u64(struct peer *peer, uint32_t request, uint64_t value)
{
	return say(peer, request, &value, sizeof(value), NULL, 0);
}

static inline int say_state(struct peer *peer, uint32_t request, uint32_t index, uint32_t num)
{
	const struct bf_vring_state state = { index, num };

	return say(peer, request, &state, sizeof(state), NULL, 0);
}

/* Kick, call or err: an eventfd whose other end is kept in *@keep if that is given. */
static inline int say_eventfd(struct peer *peer, uint32_t request, uint64_t value, int *keep)
{
	int fd = eventfd(0, EFD_CLOEXEC), ret;

	ret = say(peer, request, &value, sizeof(value), &fd, 1);
	if (keep)
		*keep = fd;
	else
		close(fd);
	return ret;
}

static inline uint64_t get_u64(struct peer *peer, uint32_t request)
{
	uint64_t value;

	send_message(peer->fd, request, BF_FLAGS_VERSION, NULL, 0, NULL, 0);
	assert_int_equal(bf_backend_dispatch(peer->be), 0);
	assert_int_equal(read_reply(peer->fd, request, &value, sizeof(value)), sizeof(value));
	return value;
}

static inline int get_base(struct peer *peer, uint32_t queue)
{
	struct bf_vring_state state = { queue, 0 };
	int ret;

	send_message(peer->fd, BF_FE_GET_VRING_BASE, BF_FLAGS_VERSION, &state, sizeof(state), NULL,
		     0);
	bf_backend_dispatch(peer->be);
	ret = read_reply(peer->fd, BF_FE_GET_VRING_BASE, &state, sizeof(state));
	if (ret < 0)
		return ret;
	assert_int_equal(state.index, queue);
	return (int)state.num;
}

/* Features and protocol features as an ordinary front end agrees to them. */
static inline void agree(struct peer *peer)
{
	assert_int_equal(get_u64(peer, BF_FE_GET_FEATURES), FEATURES | ACK_BIT | LOG_BIT);
	say_u64(peer, BF_FE_SET_PROTOCOL_FEATURES, get_u64(peer, BF_FE_GET_PROTOCOL_FEATURES));
	say_u64(peer, BF_FE_SET_FEATURES, FEATURES | ACK_BIT);
	assert_int_equal(bf_backend_features(peer->be), FEATURES);
}

static inline void open_back(struct peer *peer)
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair),
			 0);
	assert_int_equal(say(peer, BF_FE_SET_BACKEND_REQ_FD, NULL, 0, &pair[1], 1), ACCEPTED);
	close(pair[1]);
	if (peer->back >= 0)
		close(peer->back);
	peer->back = pair[0];
}

/* Announce @fd's first @size bytes, or a memfd's if -1, at GPA and UVA. */
static inline int say_memory(struct peer *peer, int fd, uint64_t size)
{
	const struct bf_mem_table table = { .nr = 1, .regions = { { GPA, size, UVA, 0 } } };
	int memory = fd >= 0 ? fd : make_memfd("bf-guest", MEMORY_SIZE, 0);
	int ret = say(peer, BF_FE_SET_MEM_TABLE, &table, 8 + 32, &memory, 1);

	if (fd < 0)
		close(memory);
	return ret;
}

/* Queue @queue's ring lies in page @queue of memory: descriptors, avail at 1 KiB, used at 2 KiB. */
static inline struct bf_vring_addr ring_addr(unsigned queue)
{
	const uint64_t page = UVA + 4096ull * queue;

	return (struct bf_vring_addr){
		.index = queue, .desc = page, .avail = page + 1024, .used = page + 2048
	};
}

static inline int say_addr(struct peer *peer, struct bf_vring_addr addr)
{
	return say(peer, BF_FE_SET_VRING_ADDR, &addr, sizeof(addr), NULL, 0);
}

/* Everything but kick and enable. */
static inline void set_up(struct peer *peer, unsigned queue)
{
	assert_int_equal(say_state(peer, BF_FE_SET_VRING_NUM, queue, RING_SIZE), ACCEPTED);
	assert_int_equal(say_state(peer, BF_FE_SET_VRING_BASE, queue, 0), ACCEPTED);
	assert_int_equal(say_addr(peer, ring_addr(queue)), ACCEPTED);
}

static inline void start(struct peer *peer, unsigned queue, int *kick)
{
	set_up(peer, queue);
	assert_int_equal(say_eventfd(peer, BF_FE_SET_VRING_KICK, queue, kick), ACCEPTED);
	assert_int_equal(say_state(peer, BF_FE_SET_VRING_ENABLE, queue, 1), ACCEPTED);
	assert_true(peer->running[queue]);
}

/* A front end that is agreed with, with memory and a back-end channel. */
static inline void peer_ready(struct peer *peer)
{
	peer_init(peer, 0);
	agree(peer);
	open_back(peer);
	assert_int_equal(say_memory(peer, -1, MEMORY_SIZE), ACCEPTED);
}

static inline uint64_t signals(int fd)
{
	struct pollfd ready = { .fd = fd, .events = POLLIN };
	uint64_t count;

	if (poll(&ready, 1, 0) != 1)
		return 0;
	return read(fd, &count, sizeof(count)) == sizeof(count) ? count : 0;
}

/* Nothing may be left of a connection: descriptors, mappings. */
struct leaks {
	unsigned fds, mappings;
};

static inline struct leaks leaks_now(void)
{
	return (struct leaks){ count_fds(), count_mappings("bf-guest") };
}

static inline void assert_no_leaks(struct leaks before, const char *what)
{
	struct leaks now = leaks_now();

	if (now.fds != before.fds || now.mappings != before.mappings)
		fail_msg("%s: %u descriptors became %u, %u mappings became %u", what, before.fds,
			 now.fds, before.mappings, now.mappings);
}

#endif
