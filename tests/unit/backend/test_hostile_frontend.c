/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Front ends that mean harm: every row is one message, or a few bytes, and what must become of it.
 * After each one there are as many descriptors and mappings as before, and the next front end is
 * served as if nothing had been.
 */
#include "fake_frontend.h"

/* What a row may end in, besides ACCEPTED, REFUSED, SILENT and CLOSED. */
#define REPLIED 4

struct row {
	const char *what;
	int result;
	uint32_t request, flags, size;
	uint64_t words[6]; /* the beginning of the payload */
	unsigned nr_fds;
	int error; /* that the connection ends with, if CLOSED */
};

#define V   BF_FLAGS_VERSION
#define ACK NEED_REPLY
#define STATE(index, num)                                           \
	{                                                           \
		(uint64_t)(uint32_t)(index) | (uint64_t)(num) << 32 \
	}

static const struct row rows[] = {
	/* Headers. */
	{ "version 0", CLOSED, BF_FE_GET_FEATURES, 0, 0, { 0 }, 0, -EPROTONOSUPPORT },
	{ "version 2", CLOSED, BF_FE_GET_FEATURES, 2, 0, { 0 }, 0, -EPROTONOSUPPORT },
	{ "version 3, with descriptors",
	  CLOSED,
	  BF_FE_SET_OWNER,
	  3,
	  0,
	  { 0 },
	  3,
	  -EPROTONOSUPPORT },
	{ "a reply", CLOSED, BF_FE_GET_FEATURES, 5, 0, { 0 }, 0, -EBADMSG },
	{ "flags that do not exist", CLOSED, BF_FE_GET_FEATURES, 0x11, 0, { 0 }, 0, -EBADMSG },
	{ "request 0", CLOSED, 0, V, 0, { 0 }, 0, -ENOMSG },
	{ "request 46", CLOSED, 46, V, 0, { 0 }, 2, -ENOMSG },
	{ "request 2^32-1", CLOSED, UINT32_MAX, V, 0, { 0 }, 0, -ENOMSG },
	{ "payload of 2^32-1", CLOSED, BF_FE_SET_FEATURES, V, UINT32_MAX, { 0 }, 1, -EPROTO },
	{ "payload of 5000", CLOSED, BF_FE_SET_FEATURES, V, 5000, { 0 }, 0, -EPROTO },

	/* Sizes. */
	{ "GET_FEATURES with payload", CLOSED, BF_FE_GET_FEATURES, V, 8, { 0 }, 0, -EBADMSG },
	{ "SET_FEATURES of 4", CLOSED, BF_FE_SET_FEATURES, ACK, 4, { 0 }, 0, -EBADMSG },
	{ "SET_FEATURES of 16", CLOSED, BF_FE_SET_FEATURES, ACK, 16, { 0 }, 0, -EBADMSG },
	{ "SET_VRING_NUM of 7", CLOSED, BF_FE_SET_VRING_NUM, ACK, 7, { 0 }, 0, -EBADMSG },
	{ "SET_VRING_ADDR of 8", CLOSED, BF_FE_SET_VRING_ADDR, ACK, 8, { 0 }, 0, -EBADMSG },
	{ "SET_MEM_TABLE of 0", CLOSED, BF_FE_SET_MEM_TABLE, ACK, 0, { 0 }, 1, -EBADMSG },
	{ "SET_MEM_TABLE shorter than its regions",
	  CLOSED,
	  BF_FE_SET_MEM_TABLE,
	  ACK,
	  8,
	  { 1 },
	  1,
	  -EBADMSG },
	{ "SET_MEM_TABLE of 9 regions",
	  CLOSED,
	  BF_FE_SET_MEM_TABLE,
	  ACK,
	  8 + 9 * 32,
	  { 9 },
	  8,
	  -EBADMSG },
	{ "SET_MEM_TABLE of 2^32-1 regions",
	  CLOSED,
	  BF_FE_SET_MEM_TABLE,
	  ACK,
	  8,
	  { UINT32_MAX },
	  0,
	  -EBADMSG },
	{ "GET_CONFIG shorter than it says",
	  CLOSED,
	  BF_FE_GET_CONFIG,
	  V,
	  12,
	  { 60ull << 32 },
	  0,
	  -EBADMSG },
	{ "GET_CONFIG of 2^32-1",
	  CLOSED,
	  BF_FE_GET_CONFIG,
	  V,
	  12,
	  { (uint64_t)UINT32_MAX << 32 },
	  0,
	  -EBADMSG },
	{ "ADD_MEM_REG of 8", CLOSED, BF_FE_ADD_MEM_REG, ACK, 8, { 0 }, 1, -EBADMSG },

	/* Descriptors. */
	{ "SET_OWNER with one", CLOSED, BF_FE_SET_OWNER, ACK, 0, { 0 }, 1, -EBADF },
	{ "SET_OWNER with 8", CLOSED, BF_FE_SET_OWNER, ACK, 0, { 0 }, 8, -EBADF },
	{ "SET_OWNER with 9", CLOSED, BF_FE_SET_OWNER, ACK, 0, { 0 }, 9, -EPROTO },
	{ "SET_OWNER with 40", CLOSED, BF_FE_SET_OWNER, ACK, 0, { 0 }, 40, -EPROTO },
	{ "SET_FEATURES with 2 and a bad size",
	  CLOSED,
	  BF_FE_SET_FEATURES,
	  ACK,
	  9,
	  { 0 },
	  2,
	  -EBADMSG },
	{ "kick without one", CLOSED, BF_FE_SET_VRING_KICK, ACK, 8, { 0 }, 0, -EBADF },
	{ "kick with two", CLOSED, BF_FE_SET_VRING_KICK, ACK, 8, { 0 }, 2, -EBADF },
	{ "kick that says none, with one",
	  CLOSED,
	  BF_FE_SET_VRING_KICK,
	  ACK,
	  8,
	  { 0x100 },
	  1,
	  -EBADF },
	{ "table of one with none",
	  CLOSED,
	  BF_FE_SET_MEM_TABLE,
	  ACK,
	  40,
	  { 1, GPA, 4096, UVA, 0 },
	  0,
	  -EBADF },
	{ "table of one with two",
	  CLOSED,
	  BF_FE_SET_MEM_TABLE,
	  ACK,
	  40,
	  { 1, GPA, 4096, UVA, 0 },
	  2,
	  -EBADF },
	{ "ADD_MEM_REG without one",
	  CLOSED,
	  BF_FE_ADD_MEM_REG,
	  ACK,
	  40,
	  { 0, GPA, 4096, UVA, 0 },
	  0,
	  -EBADF },
	{ "REM_MEM_REG with two",
	  CLOSED,
	  BF_FE_REM_MEM_REG,
	  ACK,
	  40,
	  { 0, GPA, 4096, UVA, 0 },
	  2,
	  -EBADF },
	{ "back-end channel without one",
	  CLOSED,
	  BF_FE_SET_BACKEND_REQ_FD,
	  ACK,
	  0,
	  { 0 },
	  0,
	  -EBADF },
	{ "back-end channel that is a file",
	  REFUSED,
	  BF_FE_SET_BACKEND_REQ_FD,
	  ACK,
	  0,
	  { 0 },
	  1,
	  0 },
	{ "kick that is a file", REFUSED, BF_FE_SET_VRING_KICK, ACK, 8, { 0 }, 1, 0 },
	{ "call that is a file", REFUSED, BF_FE_SET_VRING_CALL, ACK, 8, { 0 }, 1, 0 },
	{ "err that is a file", REFUSED, BF_FE_SET_VRING_ERR, ACK, 8, { 0 }, 1, 0 },

	/* Not agreed. */
	{ "SEND_RARP", REFUSED, BF_FE_SEND_RARP, ACK, 8, { 0 }, 0, 0 },
	{ "NET_SET_MTU", REFUSED, BF_FE_NET_SET_MTU, ACK, 8, { 0 }, 0, 0 },
	{ "SET_VRING_ENDIAN", REFUSED, BF_FE_SET_VRING_ENDIAN, ACK, 8, { 0 }, 0, 0 },
	{ "VRING_KICK", REFUSED, BF_FE_VRING_KICK, ACK, 8, { 0 }, 0, 0 },
	{ "POSTCOPY_LISTEN", REFUSED, BF_FE_POSTCOPY_LISTEN, ACK, 0, { 0 }, 0, 0 },
	{ "GPU_SET_SOCKET", REFUSED, BF_FE_GPU_SET_SOCKET, ACK, 0, { 0 }, 1, 0 },
	{ "SEND_RARP, no answer asked for", SILENT, BF_FE_SEND_RARP, V, 8, { 0 }, 0, 0 },
	{ "IOTLB_MSG", CLOSED, BF_FE_IOTLB_MSG, V, 32, { 0 }, 0, -EOPNOTSUPP },
	{ "CREATE_CRYPTO_SESSION (CVE-2020-10724)",
	  CLOSED,
	  BF_FE_CREATE_CRYPTO_SESSION,
	  V,
	  64,
	  { 0 },
	  0,
	  -EOPNOTSUPP },
	{ "GET_SHMEM_CONFIG", CLOSED, BF_FE_GET_SHMEM_CONFIG, V, 0, { 0 }, 0, -EOPNOTSUPP },
	{ "POSTCOPY_END", CLOSED, BF_FE_POSTCOPY_END, V, 0, { 0 }, 0, -EOPNOTSUPP },

	/* The dirty log. */
	{ "SET_LOG_FD that is a file", REFUSED, BF_FE_SET_LOG_FD, ACK, 0, { 0 }, 1, 0 },
	{ "SET_LOG_BASE as without LOG_SHMFD", CLOSED, BF_FE_SET_LOG_BASE, ACK, 8, { 0 }, 0, -EBADMSG },
	{ "SET_LOG_BASE without a descriptor",
	  CLOSED,
	  BF_FE_SET_LOG_BASE,
	  ACK,
	  16,
	  { 65536, 0 },
	  0,
	  -EBADF },
	{ "SET_LOG_BASE that wraps (CVE-2020-10722)",
	  REFUSED,
	  BF_FE_SET_LOG_BASE,
	  ACK,
	  16,
	  { UINT64_MAX, 65536 },
	  1,
	  0 },
	{ "SET_LOG_BASE smaller than memory",
	  REFUSED,
	  BF_FE_SET_LOG_BASE,
	  ACK,
	  16,
	  { 4096, 0 },
	  1,
	  0 },
	{ "SET_LOG_BASE beyond its file",
	  REFUSED,
	  BF_FE_SET_LOG_BASE,
	  ACK,
	  16,
	  { MEMORY_SIZE, 4096 },
	  1,
	  0 },

	/* The in-flight region. */
	{ "GET_INFLIGHT_FD of no queues (CVE-2020-10726)",
	  REPLIED,
	  BF_FE_GET_INFLIGHT_FD,
	  V,
	  24,
	  { 0 },
	  0,
	  0 },
	{ "GET_INFLIGHT_FD with one (CVE-2022-0669)",
	  CLOSED,
	  BF_FE_GET_INFLIGHT_FD,
	  V,
	  24,
	  { 0 },
	  1,
	  -EBADF },
	{ "SET_INFLIGHT_FD of 65535 queues (CVE-2021-3839)",
	  REFUSED,
	  BF_FE_SET_INFLIGHT_FD,
	  ACK,
	  24,
	  { UINT64_MAX, UINT64_MAX, UINT64_MAX },
	  1,
	  0 },
	{ "SET_INFLIGHT_FD under a running ring",
	  REFUSED,
	  BF_FE_SET_INFLIGHT_FD,
	  ACK,
	  24,
	  { 65536, 0, 4 | 8 << 16 },
	  1,
	  0 },
	{ "GET_VRING_BASE_SKIP_DRAIN of queue 4",
	  CLOSED,
	  BF_FE_GET_VRING_BASE_SKIP_DRAIN,
	  V,
	  8,
	  STATE(4, 0),
	  0,
	  -EINVAL },

	/* Queue numbers (CVE-2020-10723, SPDK 71c1bbeeb5). */
	{ "NUM of queue 4", REFUSED, BF_FE_SET_VRING_NUM, ACK, 8, STATE(4, 8), 0, 0 },
	{ "NUM of queue 2^31", REFUSED, BF_FE_SET_VRING_NUM, ACK, 8, STATE(1u << 31, 8), 0, 0 },
	{ "NUM of queue 0x10000", REFUSED, BF_FE_SET_VRING_NUM, ACK, 8, STATE(0x10000, 8), 0, 0 },
	{ "BASE of queue 2^32-1", REFUSED, BF_FE_SET_VRING_BASE, ACK, 8, STATE(UINT32_MAX, 8), 0,
	  0 },
	{ "ENABLE of queue 256", REFUSED, BF_FE_SET_VRING_ENABLE, ACK, 8, STATE(256, 1), 0, 0 },
	{ "ADDR of queue 255", REFUSED, BF_FE_SET_VRING_ADDR, ACK, 40, { 255 }, 0, 0 },
	{ "ADDR of queue 2^32-1", REFUSED, BF_FE_SET_VRING_ADDR, ACK, 40, { UINT32_MAX }, 0, 0 },
	{ "kick of queue 255", REFUSED, BF_FE_SET_VRING_KICK, ACK, 8, { 0x1ff }, 0, 0 },
	{ "kick of queue 4", REFUSED, BF_FE_SET_VRING_KICK, ACK, 8, { 0x104 }, 0, 0 },
	{ "kick with bits that do not exist",
	  REFUSED,
	  BF_FE_SET_VRING_KICK,
	  ACK,
	  8,
	  { 0x100000100 },
	  0,
	  0 },
	{ "call of queue 255", REFUSED, BF_FE_SET_VRING_CALL, ACK, 8, { 0x1ff }, 0, 0 },
	{ "err of queue 255", REFUSED, BF_FE_SET_VRING_ERR, ACK, 8, { 0x1ff }, 0, 0 },
	{ "GET_VRING_BASE of queue 4", CLOSED, BF_FE_GET_VRING_BASE, V, 8, STATE(4, 0), 0,
	  -EINVAL },
	{ "GET_VRING_BASE of queue 2^32-1", CLOSED, BF_FE_GET_VRING_BASE, V, 8,
	  STATE(UINT32_MAX, 0), 0, -EINVAL },
	{ "GET_VRING_BASE of a queue never set up", REPLIED, BF_FE_GET_VRING_BASE, V, 8,
	  STATE(3, 0), 0, 0 },

	/* Values. */
	{ "NUM of 0", REFUSED, BF_FE_SET_VRING_NUM, ACK, 8, STATE(0, 0), 0, 0 },
	{ "NUM of 3", REFUSED, BF_FE_SET_VRING_NUM, ACK, 8, STATE(0, 3), 0, 0 },
	{ "NUM above the device's", REFUSED, BF_FE_SET_VRING_NUM, ACK, 8, STATE(0, 2048), 0, 0 },
	{ "NUM of 65536", REFUSED, BF_FE_SET_VRING_NUM, ACK, 8, STATE(0, 65536), 0, 0 },
	{ "NUM of 2^31", REFUSED, BF_FE_SET_VRING_NUM, ACK, 8, STATE(0, 1u << 31), 0, 0 },
	{ "BASE of 65536", REFUSED, BF_FE_SET_VRING_BASE, ACK, 8, STATE(0, 65536), 0, 0 },
	{ "ENABLE of 2", REFUSED, BF_FE_SET_VRING_ENABLE, ACK, 8, STATE(0, 2), 0, 0 },
	{ "table without regions", REFUSED, BF_FE_SET_MEM_TABLE, ACK, 8, { 0 }, 0, 0 },
	{ "empty region", REFUSED, BF_FE_SET_MEM_TABLE, ACK, 40, { 1, GPA, 0, UVA, 0 }, 1, 0 },
	{ "region of 126 GB (SPDK #1183)",
	  REFUSED,
	  BF_FE_SET_MEM_TABLE,
	  ACK,
	  40,
	  { 1, GPA, 126ull << 30, UVA, 0 },
	  1,
	  0 },
	{ "region of 2^64-1",
	  REFUSED,
	  BF_FE_SET_MEM_TABLE,
	  ACK,
	  40,
	  { 1, 0, UINT64_MAX, 0, 0 },
	  1,
	  0 },
	{ "region that wraps",
	  REFUSED,
	  BF_FE_SET_MEM_TABLE,
	  ACK,
	  40,
	  { 1, UINT64_MAX - 10, 4096, UVA, 0 },
	  1,
	  0 },
	{ "offset beyond the file",
	  REFUSED,
	  BF_FE_SET_MEM_TABLE,
	  ACK,
	  40,
	  { 1, GPA, 4096, UVA, MEMORY_SIZE },
	  1,
	  0 },
	{ "offset that wraps",
	  REFUSED,
	  BF_FE_SET_MEM_TABLE,
	  ACK,
	  40,
	  { 1, GPA, 4096, UVA, UINT64_MAX - 10 },
	  1,
	  0 },
	{ "region added over another",
	  REFUSED,
	  BF_FE_ADD_MEM_REG,
	  ACK,
	  40,
	  { 0, GPA, 4096, 0, 0 },
	  1,
	  0 },
	{ "region removed that is not there",
	  REFUSED,
	  BF_FE_REM_MEM_REG,
	  ACK,
	  40,
	  { 0, GPA, 4096, UVA, 0 },
	  0,
	  0 },
};

/* Send a row's bytes, however long it says they are. */
static void send_row(struct peer *peer, const struct row *row)
{
	struct bf_header hdr = { row->request, row->flags, row->size };
	char bytes[sizeof(hdr) + 8192] = { 0 };
	uint32_t size = row->size < 8192 ? row->size : 64;
	int fds[64], memory = make_memfd("bf-guest", MEMORY_SIZE, 0);

	for (unsigned i = 0; i < row->nr_fds; i++)
		fds[i] = memory;
	memcpy(bytes, &hdr, sizeof(hdr));
	memcpy(bytes + sizeof(hdr), row->words, sizeof(row->words));
	send_bytes(peer->fd, bytes, sizeof(hdr) + size, fds, row->nr_fds);
	close(memory);
}

static int outcome(struct peer *peer, const struct row *row)
{
	uint64_t value[3];
	int ret = read_reply(peer->fd, row->request, value, sizeof(value));

	if (ret == -EAGAIN)
		return SILENT;
	if (ret < 0)
		return CLOSED;
	if (row->flags != ACK)
		return REPLIED;
	assert_int_equal(ret, 8);
	return value[0] ? REFUSED : ACCEPTED;
}

static void hostile_messages(void **state)
{
	struct leaks outside = leaks_now();

	(void)state;
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct row *row = &rows[i];
		struct leaks before;
		struct peer peer;
		int ret;

		peer_ready(&peer);
		start(&peer, 1, NULL);
		before = leaks_now();
		send_row(&peer, row);
		ret = bf_backend_dispatch(peer.be);
		if (row->result == CLOSED) {
			if (ret != row->error || peer.end_error != row->error || peer.ended != 1)
				fail_msg("%s: expected the end with %d, got %d", row->what,
					 row->error, ret);
			assert_true(strlen(bf_backend_error(peer.be)) > 10);
			peer_done(&peer);
			assert_no_leaks(outside, row->what);
			continue;
		}
		if (ret)
			fail_msg("%s: ended with %d: %s", row->what, ret,
				 bf_backend_error(peer.be));
		ret = outcome(&peer, row);
		if (ret != row->result)
			fail_msg("%s: expected %d, got %d", row->what, row->result, ret);
		assert_no_leaks(before, row->what);
		/* The connection and its running queue are as they were. */
		assert_true(peer.running[1]);
		assert_int_equal(get_u64(&peer, BF_FE_GET_QUEUE_NUM), QUEUES);
		assert_int_equal(peer.starts, 1);
		peer_done(&peer);
		assert_no_leaks(outside, row->what);
	}
}

/* CVE-2019-14818 and what followed: each request with each number of descriptors, in any state. */
static void every_request_with_every_number_of_descriptors(void **state)
{
	struct leaks outside = leaks_now();

	(void)state;
	for (uint32_t request = 0; request <= 47; request++) {
		for (unsigned nr = 0; nr <= 10; nr++) {
			for (uint32_t size = 0; size <= 48; size += 8) {
				struct row row = { "any", 0, request, ACK, size, { 0 }, nr, 0 };
				struct peer peer;

				peer_init(&peer, 0);
				if (nr % 2)
					agree(&peer);
				send_row(&peer, &row);
				bf_backend_dispatch(peer.be);
				peer_done(&peer);
			}
		}
		assert_no_leaks(outside, "any request");
	}
}

/* The connection ends after every single byte of a message that has descriptors. */
static void closed_in_the_middle(void **state)
{
	const struct bf_header hdr = { BF_FE_SET_MEM_TABLE, ACK, 40 };
	const uint64_t table[] = { 1, GPA, MEMORY_SIZE, UVA, 0 };
	struct leaks outside = leaks_now();
	char bytes[52];

	(void)state;
	memcpy(bytes, &hdr, sizeof(hdr));
	memcpy(bytes + sizeof(hdr), table, 40);
	for (unsigned len = 0; len <= sizeof(bytes); len++) {
		int memory = make_memfd("bf-guest", MEMORY_SIZE, 0);
		struct peer peer;

		peer_init(&peer, 0);
		if (len)
			send_bytes(peer.fd, bytes, len, &memory, 1);
		close(memory);
		assert_int_equal(bf_backend_dispatch(peer.be), 0);
		assert_int_equal(peer.ended, 0);
		close(peer.fd);
		peer.fd = -1;
		assert_int_equal(bf_backend_dispatch(peer.be),
				 len == 0 || len == sizeof(bytes) ? 0 : -EPROTO);
		assert_int_equal(peer.ended, 1);
		peer_done(&peer);
		assert_no_leaks(outside, "closed in the middle");
	}
}

/* One byte at a time is slow, not wrong. Descriptors in the middle are wrong. */
static void byte_by_byte(void **state)
{
	const struct bf_header hdr = { BF_FE_SET_MEM_TABLE, ACK, 40 };
	const uint64_t table[] = { 1, GPA, MEMORY_SIZE, UVA, 0 };
	int memory = make_memfd("bf-guest", MEMORY_SIZE, 0);
	struct peer peer;
	uint64_t value;
	char bytes[52];

	(void)state;
	memcpy(bytes, &hdr, sizeof(hdr));
	memcpy(bytes + sizeof(hdr), table, 40);
	peer_init(&peer, 0);
	agree(&peer);
	for (unsigned i = 0; i < sizeof(bytes); i++) {
		send_bytes(peer.fd, bytes + i, 1, &memory, i == 0);
		assert_int_equal(bf_backend_dispatch(peer.be), 0);
	}
	assert_int_equal(read_reply(peer.fd, BF_FE_SET_MEM_TABLE, &value, 8), 8);
	assert_int_equal(value, 0);
	assert_non_null(bf_backend_memory(peer.be));

	send_bytes(peer.fd, bytes, 20, &memory, 1);
	send_bytes(peer.fd, bytes + 20, 32, &memory, 1);
	assert_int_equal(bf_backend_dispatch(peer.be), -EPROTO);
	peer_done(&peer);
	close(memory);
}

static void ring_addresses_outside_memory(void **state)
{
	const uint64_t wild[] = {
		0, UVA - 16, UVA + MEMORY_SIZE, UVA + MEMORY_SIZE - 16, UINT64_MAX - 15, GPA
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(wild) / sizeof(wild[0]); i++) {
		for (unsigned part = 0; part < 3; part++) {
			struct bf_vring_addr addr = ring_addr(0);
			struct peer peer;
			int err;

			if (part == 0)
				addr.desc = wild[i];
			else if (part == 1)
				addr.avail = wild[i];
			else
				addr.used = wild[i];
			peer_ready(&peer);
			assert_int_equal(say_eventfd(&peer, BF_FE_SET_VRING_ERR, 0, &err),
					 ACCEPTED);
			set_up(&peer, 0);
			say_state(&peer, BF_FE_SET_VRING_ENABLE, 0, 1);
			say_addr(&peer, addr);
			assert_int_equal(say_eventfd(&peer, BF_FE_SET_VRING_KICK, 0, NULL),
					 REFUSED);
			assert_int_equal(peer.starts, 0);
			assert_int_equal(signals(err), 1);
			/* Put right, it starts. */
			assert_int_equal(say_addr(&peer, ring_addr(0)), ACCEPTED);
			assert_true(peer.running[0]);
			peer_done(&peer);
			close(err);
		}
	}
}

/* CVE-2019-14818: any number of repeats costs nothing. */
static void a_hundred_thousand_times(void **state)
{
	int memory = make_memfd("bf-guest", MEMORY_SIZE, 0);
	int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	const struct bf_mem_table table = { .nr = 1, .regions = { { GPA, MEMORY_SIZE, UVA, 0 } } };
	struct leaks before;
	struct peer peer;

	(void)state;
	peer_ready(&peer);
	assert_int_equal(say_state(&peer, BF_FE_SET_VRING_ENABLE, 0, 1), ACCEPTED);
	/* Once each, so that the first of them is not what makes the difference. */
	for (unsigned round = 0; round < 2; round++) {
		const uint64_t queue = 0;

		for (unsigned i = 0; i < (round ? 100000 : 10); i++) {
			switch (i % 10) {
			case 0:
				send_message(peer.fd, BF_FE_SET_VRING_KICK, V, &queue, 8, &event,
					     1);
				break;
			case 1:
				send_message(peer.fd, BF_FE_SET_VRING_CALL, V, &queue, 8, &event,
					     1);
				break;
			case 2:
				send_message(peer.fd, BF_FE_SET_VRING_ERR, V, &queue, 8, &event, 1);
				break;
			case 3:
				send_message(peer.fd, BF_FE_SET_MEM_TABLE, V, &table, 40, &memory,
					     1);
				break;
			case 4:
				send_message(peer.fd, BF_FE_SEND_RARP, V, &queue, 8, NULL, 0);
				break;
			case 5:
				send_message(peer.fd, BF_FE_SET_LOG_FD, V, NULL, 0, &event, 1);
				break;
			default:
				send_message(peer.fd, BF_FE_SET_VRING_NUM, V,
					     &(struct bf_vring_state){ i % 4, 8 }, 8, NULL, 0);
				break;
			}
			if (i % 10 == 9)
				assert_int_equal(bf_backend_dispatch(peer.be), 0);
		}
		if (!round)
			before = leaks_now();
	}
	assert_no_leaks(before, "a hundred thousand times");
	peer_done(&peer);
	close(memory);
	close(event);
}

/* A pipe nobody reads, as call: writing to it would end the process. */
static void a_pipe_for_an_eventfd(void **state)
{
	uint64_t queue = 0;
	struct peer peer;
	int ends[2];

	(void)state;
	assert_int_equal(pipe(ends), 0);
	close(ends[0]);
	peer_ready(&peer);
	assert_int_equal(say(&peer, BF_FE_SET_VRING_CALL, &queue, 8, &ends[1], 1), REFUSED);
	start(&peer, 0, NULL);
	peer_done(&peer);
	close(ends[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hostile_messages),
		cmocka_unit_test(every_request_with_every_number_of_descriptors),
		cmocka_unit_test(closed_in_the_middle),
		cmocka_unit_test(byte_by_byte),
		cmocka_unit_test(ring_addresses_outside_memory),
		cmocka_unit_test(a_hundred_thousand_times),
		cmocka_unit_test(a_pipe_for_an_eventfd),
	};

	return cmocka_run_group_tests_name("hostile_frontend", tests, NULL, NULL);
}
