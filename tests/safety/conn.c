/* SPDX-License-Identifier: BSD-3-Clause */
/* The connection of conn.h: bytes, replies, leaks. The device is in device.c. */
#include "conn.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "device.h"

struct conn_fds conn_fds;
uint8_t *conn_memory;
static int maps_fd, listing_fd;

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	abort();
}

void conn_setup(void)
{
	int pair[2];

	conn_fds.memory = memfd_create("bf-safety", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	must(conn_fds.memory >= 0 && !ftruncate(conn_fds.memory, MEMORY_SIZE), "memfd");
	conn_memory =
		mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, conn_fds.memory, 0);
	must(conn_memory != MAP_FAILED, "mmap");
	conn_fds.event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	must(conn_fds.event >= 0, "eventfd");
	must(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair),
	     "socketpair");
	conn_fds.socket = pair[1];
	must(!socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair),
	     "socketpair");
	conn_fds.dgram = pair[1];
	must(!pipe2(pair, O_CLOEXEC | O_NONBLOCK), "pipe");
	conn_fds.pipe = pair[1];
	conn_fds.page = memfd_create("bf-safety", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	must(conn_fds.page >= 0 && !ftruncate(conn_fds.page, 4096), "memfd");
	/* Front ends announce, and map, only what cannot shrink. */
	must(!fcntl(conn_fds.page, F_ADD_SEALS, F_SEAL_SHRINK) &&
		     !fcntl(conn_fds.memory, F_ADD_SEALS, F_SEAL_SHRINK),
	     "seals");
	maps_fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	listing_fd = open("/proc/self/fd", O_RDONLY | O_CLOEXEC | O_DIRECTORY);
	must(maps_fd >= 0 && listing_fd >= 0, "/proc/self");
}

static uint16_t *at16(unsigned page, unsigned offset)
{
	return (uint16_t *)(void *)(conn_memory + 4096u * page + offset);
}

struct raw_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t a, b; /* split: flags, next; packed: id, flags */
};

/* Page q: descriptors, then the driver's part at 1 KiB and the device's at 2 KiB; buffers from 64 KiB. */
void conn_fill_rings(bool packed)
{
	for (unsigned q = 0; q < QUEUES; q++) {
		struct raw_desc *desc = (struct raw_desc *)(void *)(conn_memory + 4096u * q);

		memset(desc, 0, 4096);
		for (uint16_t i = 0; i < 2; i++) {
			uint64_t gpa = GPA + (64u << 10) + 4096u * q + 512u * i;

			if (packed) {
				desc[2 * i] = (struct raw_desc){ gpa, 32, i, 1 | 1u << 7 };
				desc[2 * i + 1] = (struct raw_desc){ gpa + 64, 32, i, 2 | 1u << 7 };
			} else {
				desc[2 * i] =
					(struct raw_desc){ gpa, 32, 1, (uint16_t)(2 * i + 1) };
				desc[2 * i + 1] = (struct raw_desc){ gpa + 64, 32, 2, 0 };
				at16(q, 1024)[2 + i] = (uint16_t)(2 * i);
				at16(q, 1024)[1] = (uint16_t)(i + 1);
			}
		}
	}
}

bool conn_open(struct conn *conn, enum conn_kind kind)
{
	int pair[2];

	*conn = (struct conn){ .fd = -1, .back = -1, .publish_fd = -1, .kind = kind };
	if (device_new(conn) < 0)
		return false;
	must(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair),
	     "socketpair");
	conn->fd = pair[1];
	return device_attach(conn, pair[0]) == 0;
}

void conn_close(struct conn *conn, bool hang_up)
{
	if (hang_up && conn->fd >= 0) {
		close(conn->fd);
		conn->fd = -1;
		if (conn->be)
			device_dispatch(conn);
	}
	device_free(conn);
	if (conn->fd >= 0)
		close(conn->fd);
	if (conn->back >= 0)
		close(conn->back);
}

bool conn_send(struct conn *conn, const void *bytes, size_t len, const int *fds, unsigned nr_fds)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(16 * sizeof(int))];
	} control;
	struct iovec iov = { (void *)(uintptr_t)bytes, len };
	struct msghdr hdr = { .msg_iov = &iov, .msg_iovlen = 1 };

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
	return sendmsg(conn->fd, &hdr, MSG_NOSIGNAL) == (ssize_t)len;
}

void conn_say(struct conn *conn, uint32_t request, uint32_t flags, const void *payload,
	      uint32_t size, const int *fds, unsigned nr_fds)
{
	const struct bf_header hdr = { request, flags, size };
	uint8_t bytes[sizeof(hdr) + 512];

	memcpy(bytes, &hdr, sizeof(hdr));
	if (size)
		memcpy(bytes + sizeof(hdr), payload, size);
	conn_send(conn, bytes, sizeof(hdr) + size, fds, nr_fds);
}

void conn_say_u64(struct conn *conn, uint32_t request, uint64_t value)
{
	conn_say(conn, request, BF_FLAGS_VERSION, &value, sizeof(value), NULL, 0);
}

void conn_say_state(struct conn *conn, uint32_t request, uint32_t index, uint32_t num)
{
	const struct bf_vring_state state = { index, num };

	conn_say(conn, request, BF_FLAGS_VERSION, &state, sizeof(state), NULL, 0);
}

void conn_say_fd(struct conn *conn, uint32_t request, uint64_t value, int fd)
{
	conn_say(conn, request, BF_FLAGS_VERSION, &value, sizeof(value), &fd, 1);
}

/* Whatever came, and its descriptors closed. How many bytes. */
static ssize_t receive(int fd, void *bytes, size_t len)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(16 * sizeof(int))];
	} control;
	struct iovec iov = { bytes, len };
	struct msghdr hdr = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control.bytes,
			      .msg_controllen = sizeof(control.bytes) };
	ssize_t got = recvmsg(fd, &hdr, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	if (got <= 0)
		return got;
	for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(&hdr); cmsg; cmsg = CMSG_NXTHDR(&hdr, cmsg)) {
		size_t nr = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		for (size_t i = 0; i < nr; i++) {
			int passed;

			memcpy(&passed, CMSG_DATA(cmsg) + i * sizeof(int), sizeof(int));
			close(passed);
		}
	}
	return got;
}

/*
 * Replies, one by one: each must be whole and say that it is one (HF: "zero replies", no stray bytes).
 */
static void read_replies(struct conn *conn)
{
	struct bf_header hdr;

	while (receive(conn->fd, &hdr, sizeof(hdr)) == sizeof(hdr)) {
		static uint8_t payload[BF_CONFIG_MAX + 64];
		ssize_t got;

		must(hdr.flags == (BF_FLAGS_VERSION | BF_FLAGS_REPLY), "flags of a reply");
		must(hdr.size <= sizeof(payload), "size of a reply");
		memset(payload, 0, sizeof(conn->last_payload));
		got = hdr.size ? receive(conn->fd, payload, hdr.size) : 0;
		must(got == (ssize_t)hdr.size, "a reply that is not whole");
		conn->replies++;
		conn->last_reply_size = hdr.size;
		memcpy(&conn->last_reply, payload, sizeof(conn->last_reply));
		memcpy(conn->last_payload, payload, sizeof(conn->last_payload));
	}
}

/* Requests of the back end: every one gets 0. Not for speed: there are few. */
static void answer_back(struct conn *conn)
{
	struct bf_header hdr;
	uint8_t payload[4200];

	while (conn->back >= 0 && receive(conn->back, &hdr, sizeof(hdr)) == sizeof(hdr)) {
		struct {
			struct bf_header hdr;
			uint8_t zero[8];
		} answer = { { hdr.request, BF_FLAGS_VERSION | BF_FLAGS_REPLY, 8 }, { 0 } };

		must(!(hdr.flags & BF_FLAGS_REPLY) && hdr.size <= sizeof(payload),
		     "request of the back end");
		if (hdr.size)
			must(receive(conn->back, payload, hdr.size) == (ssize_t)hdr.size,
			     "its payload");
		conn->asked++;
		if (hdr.flags & BF_FLAGS_NEED_REPLY)
			(void)!send(conn->back, &answer, sizeof(answer.hdr) + 8, MSG_NOSIGNAL);
	}
}

int conn_pump(struct conn *conn)
{
	uint64_t before;
	int ret;

	do {
		before = conn->replies + conn->asked;
		ret = device_dispatch(conn);
		read_replies(conn);
		answer_back(conn);
	} while (!ret && !conn->ended && conn->replies + conn->asked != before);
	return ret;
}

struct conn_left conn_left(void)
{
	static char text[256 << 10];
	struct conn_left left = { 0, 0 };
	size_t len = 0;
	ssize_t got;
	char *at;

	while ((got = pread(maps_fd, text + len, sizeof(text) - 1 - len, (off_t)len)) > 0)
		len += (size_t)got;
	text[len] = 0;
	for (at = text; (at = strstr(at, "memfd:")); at++)
		left.mappings++;
	/* A second way, which costs less than a directory stream. */
	lseek(listing_fd, 0, SEEK_SET);
	while ((got = getdents64(listing_fd, text, sizeof(text))) > 0)
		for (ssize_t i = 0; i < got; left.fds++) {
			uint16_t step;

			memcpy(&step, text + i + 16, sizeof(step)); /* d_reclen */
			i += step;
		}
	return left;
}
