/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bad messages on both channels of a connection that works: a proxy says them in the name of the
 * other side. Those that are refused leave everything as it was, and the next request is served;
 * those that break the stream end the connection with their error, on both sides.
 */
#include "../unit/support.h"

#include <sys/eventfd.h>

#include "echo_driver.h"
#include "proxy.h"

#define PAGE     4096ull
#define QUEUES   2
#define V        BF_FLAGS_VERSION
#define ACK      (BF_FLAGS_VERSION | BF_FLAGS_NEED_REPLY)
#define NOTIFIER BF_BE_VRING_HOST_NOTIFIER_MSG
#define PATIENCE 5000

/* What comes along. */
enum files { NO_FILE, SEALED, SEALED_TWICE, UNSEALED, SHORT, PIPE, DISK, EVENTFD, TEN };

struct row {
	const char *what;
	uint32_t request, flags;
	uint32_t size;
	uint64_t words[5];
	enum files files;
	int error;          /* that the connection ends with; 0: refused, and it lives */
	const char *reason; /* in the doorbell's state of the queue */
};

#define PASSED_OVER 1 /* as an error: no answer, and the connection lives */

static const struct row to_front_end[] = {
	{ "a page of 0 bytes", NOTIFIER, ACK, 24, { 0, 0, 0 }, SEALED, 0, "one host page" },
	{ "half a page", NOTIFIER, ACK, 24, { 0, 2048, 0 }, SEALED, 0, "one host page" },
	{ "two pages", NOTIFIER, ACK, 24, { 0, 8192, 0 }, SEALED, 0, "one host page" },
	{ "2^64-1 bytes", NOTIFIER, ACK, 24, { 0, UINT64_MAX, 0 }, SEALED, 0, "one host page" },
	{ "offset 1", NOTIFIER, ACK, 24, { 0, PAGE, 1 }, SEALED, 0, "not aligned" },
	{ "offset 2048", NOTIFIER, ACK, 24, { 0, PAGE, 2048 }, SEALED, 0, "not aligned" },
	{ "offset behind the end",
	  NOTIFIER,
	  ACK,
	  24,
	  { 0, PAGE, 64 * PAGE },
	  SEALED,
	  0,
	  "too short" },
	{ "offset 2^64-4096", NOTIFIER, ACK, 24, { 0, PAGE, -PAGE }, SEALED, 0, "beyond any" },
	{ "queue 2 of 2", NOTIFIER, ACK, 24, { 2, PAGE, 0 }, SEALED, 0, NULL },
	{ "queue 255", NOTIFIER, ACK, 24, { 255, PAGE, 0 }, SEALED, 0, NULL },
	{ "a queue of more than 8 bits", NOTIFIER, ACK, 24, { 0x10000, PAGE, 0 }, SEALED, 0, NULL },
	{ "bits that do not exist", NOTIFIER, ACK, 24, { 1ull << 40, PAGE, 0 }, SEALED, 0, NULL },
	{ "a file too short", NOTIFIER, ACK, 24, { 0, PAGE, 0 }, SHORT, 0, "too short" },
	{ "a memfd without seals",
	  NOTIFIER,
	  ACK,
	  24,
	  { 0, PAGE, 0 },
	  UNSEALED,
	  0,
	  "F_SEAL_SHRINK" },
	{ "a file on disk", NOTIFIER, ACK, 24, { 0, PAGE, 0 }, DISK, 0, "F_SEAL_SHRINK" },
	{ "a pipe", NOTIFIER, ACK, 24, { 0, PAGE, 0 }, PIPE, 0, "neither a memfd nor" },
	{ "an eventfd", NOTIFIER, ACK, 24, { 0, PAGE, 0 }, EVENTFD, 0, "cannot be mapped" },
	{ "no descriptor", NOTIFIER, ACK, 24, { 0, PAGE, 0 }, NO_FILE, 0, "1 file descriptor" },
	{ "two descriptors",
	  NOTIFIER,
	  ACK,
	  24,
	  { 0, PAGE, 0 },
	  SEALED_TWICE,
	  0,
	  "1 file descriptor" },
	{ "taken back, with one",
	  NOTIFIER,
	  ACK,
	  24,
	  { 0x100, 0, 0 },
	  SEALED,
	  0,
	  "no file descriptor" },
	{ "23 bytes", NOTIFIER, ACK, 23, { 0, PAGE, 0 }, SEALED, 0, NULL },
	{ "SHMEM_MAP, not agreed", BF_BE_SHMEM_MAP, ACK, 40, { 0 }, SEALED, 0, NULL },
	{ "a request that does not exist", 99, ACK, 8, { 0 }, NO_FILE, PASSED_OVER, NULL },
	{ "version 0", NOTIFIER, 8, 24, { 0, PAGE, 0 }, SEALED, -EPROTONOSUPPORT, NULL },
	{ "version 2", NOTIFIER, 2 | 8, 24, { 0, PAGE, 0 }, SEALED, -EPROTONOSUPPORT, NULL },
	{ "2^32-1 bytes", NOTIFIER, ACK, UINT32_MAX, { 0, PAGE, 0 }, SEALED, -EPROTO, NULL },
	{ "ten descriptors", NOTIFIER, ACK, 24, { 0, PAGE, 0 }, TEN, -EPROTO, NULL },
};

static const struct row to_back_end[] = {
	{ "NUM of queue 2 of 2",
	  BF_FE_SET_VRING_NUM,
	  ACK,
	  8,
	  { 64ull << 32 | 2 },
	  NO_FILE,
	  0,
	  NULL },
	{ "NUM of a queue that runs",
	  BF_FE_SET_VRING_NUM,
	  ACK,
	  8,
	  { 32ull << 32 },
	  NO_FILE,
	  0,
	  NULL },
	{ "BASE of a queue that runs", BF_FE_SET_VRING_BASE, ACK, 8, { 0 }, NO_FILE, 0, NULL },
	{ "ADDR of a queue that runs",
	  BF_FE_SET_VRING_ADDR,
	  ACK,
	  40,
	  { 0, 16, 16, 16 },
	  NO_FILE,
	  0,
	  NULL },
	{ "ENABLE of 2", BF_FE_SET_VRING_ENABLE, ACK, 8, { 2ull << 32 }, NO_FILE, 0, NULL },
	{ "a kick that is a pipe", BF_FE_SET_VRING_KICK, ACK, 8, { 0 }, PIPE, 0, NULL },
	{ "a call that is a disk", BF_FE_SET_VRING_CALL, ACK, 8, { 0 }, DISK, 0, NULL },
	{ "features not offered", BF_FE_SET_FEATURES, ACK, 8, { UINT64_MAX }, NO_FILE, 0, NULL },
	{ "a table without regions", BF_FE_SET_MEM_TABLE, ACK, 8, { 0 }, NO_FILE, 0, NULL },
	{ "memory behind the end",
	  BF_FE_ADD_MEM_REG,
	  ACK,
	  40,
	  { 0, 1ull << 40, 1ull << 40, 1, 0 },
	  SEALED,
	  0,
	  NULL },
	{ "a back-end channel that is a disk",
	  BF_FE_SET_BACKEND_REQ_FD,
	  ACK,
	  0,
	  { 0 },
	  DISK,
	  0,
	  NULL },
	{ "SEND_RARP, not agreed", BF_FE_SEND_RARP, ACK, 8, { 0 }, NO_FILE, 0, NULL },
	{ "status of 9 bits", BF_FE_SET_STATUS, ACK, 8, { 0x100 }, NO_FILE, 0, NULL },
	{ "version 2", BF_FE_GET_FEATURES, 2, 0, { 0 }, NO_FILE, -EPROTONOSUPPORT, NULL },
	{ "a reply", BF_FE_GET_FEATURES, 5, 0, { 0 }, NO_FILE, -EBADMSG, NULL },
	{ "request 77", 77, ACK, 0, { 0 }, NO_FILE, -ENOMSG, NULL },
	{ "2^32-1 bytes", BF_FE_SET_FEATURES, ACK, UINT32_MAX, { 0 }, NO_FILE, -EPROTO, NULL },
	{ "a payload too short", BF_FE_SET_FEATURES, ACK, 4, { 0 }, NO_FILE, -EBADMSG, NULL },
	{ "a kick without one", BF_FE_SET_VRING_KICK, ACK, 8, { 0 }, NO_FILE, -EBADF, NULL },
	{ "a kick with ten", BF_FE_SET_VRING_KICK, ACK, 8, { 0 }, TEN, -EPROTO, NULL },
	{ "GET_VRING_BASE of queue 2", BF_FE_GET_VRING_BASE, V, 8, { 2 }, NO_FILE, -EINVAL, NULL },
};

struct link {
	struct echo_device dev;
	struct proxy proxy;
	struct bf_driver *drv;
};

static void link_up(struct link *l, bool doorbell)
{
	static struct echo_config device;

	device = (struct echo_config){ .nr_queues = QUEUES, .doorbell = doorbell };
	l->proxy.hold_ms = 0;
	echo_device_start(&l->dev, &device);
	l->dev.fd = proxy_start(&l->proxy, l->dev.fd);
	l->drv = echo_connect(&l->dev.fd, (struct bf_driver_config){ .nr_queues = QUEUES,
								     .timeout_ms = PATIENCE });
	assert_int_equal(echo_dispatch_for(l->drv, 50), 0);
}

static void link_down(struct link *l, struct echo_report *last)
{
	bf_driver_free(l->drv);
	proxy_stop(&l->proxy);
	assert_int_equal(echo_device_end(&l->dev, last), 0);
	assert_int_equal(last->nr_left_fds, 0);
	assert_int_equal(last->nr_left_mappings, 0);
}

static int open_disk(void)
{
	char path[] = "/tmp/belfry-bad-XXXXXX";
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	unlink(path);
	assert_int_equal(ftruncate(fd, 64 * PAGE), 0);
	return fd;
}

static int open_pipe(void)
{
	int fds[2];

	assert_int_equal(pipe(fds), 0);
	close(fds[1]);
	return fds[0];
}

static int open_file(enum files files)
{
	switch (files) {
	case UNSEALED:
		return make_memfd("belfry-bad", 64 * PAGE, 0);
	case SHORT:
		return make_memfd("belfry-bad", PAGE - 1, F_SEAL_SHRINK);
	case PIPE:
		return open_pipe();
	case DISK:
		return open_disk();
	case EVENTFD:
		return eventfd(0, EFD_CLOEXEC);
	default:
		return make_memfd("belfry-bad", 64 * PAGE, F_SEAL_SHRINK);
	}
}

static unsigned count_of(enum files files)
{
	switch (files) {
	case NO_FILE:
		return 0;
	case SEALED_TWICE:
		return 2;
	case TEN:
		return 10;
	default:
		return 1;
	}
}

static void say(struct link *l, enum proxy_as as, const struct row *row)
{
	unsigned nr = count_of(row->files);
	uint32_t len = row->size > sizeof(row->words) ? sizeof(row->words) : row->size;
	int fd = open_file(row->files), fds[10];

	for (unsigned i = 0; i < nr; i++)
		fds[i] = fd;
	proxy_say(&l->proxy, as, (struct bf_header){ row->request, row->flags, row->size },
		  row->words, len, fds, nr);
	close(fd);
}

/* Refused: the answer says so, the queues are served, and the doorbell is what it was. */
static void refused(struct link *l, enum proxy_as as, const struct row *row, bool doorbell)
{
	struct bf_doorbell_state before, after;
	int64_t answer;

	bf_frontend_doorbell_state(bf_driver_frontend(l->drv), 0, &before);
	assert_int_equal(before.mapped, doorbell);
	proxy_hold(&l->proxy);
	say(l, as, row);
	if (as == AS_BACK_END)
		echo_dispatch_for(l->drv, 0);
	answer = proxy_answer(&l->proxy, as, row->error ? 20 : PATIENCE);
	proxy_release(&l->proxy);
	if (row->error ? answer != -EAGAIN : answer <= 0)
		fail_msg("%s: expected %s, got %lld", row->what,
			 row->error ? "no answer" : "a refusal", (long long)answer);
	bf_frontend_doorbell_state(bf_driver_frontend(l->drv), 0, &after);
	if (after.mapped != doorbell || after.nr_mapped != before.nr_mapped)
		fail_msg("%s: the doorbell was %s", row->what,
			 after.mapped ? "mapped" : "withdrawn");
	if (row->reason && !doorbell && !strstr(after.reason, row->reason))
		fail_msg("%s: expected the reason '%s', found '%s'", row->what, row->reason,
			 after.reason);
	if (row->reason && after.nr_refused != before.nr_refused + 1)
		fail_msg("%s: not counted", row->what);
	for (unsigned queue = 0; queue < QUEUES; queue++)
		if (echo_once(l->drv, queue, PATIENCE))
			fail_msg("%s: queue %u is not served any more", row->what, queue);
}

static void ended(struct link *l, enum proxy_as as, const struct row *row)
{
	struct echo_report last;
	int expected = as == AS_BACK_END ? row->error : -ENOTCONN;
	int ret = 0;

	say(l, as, row);
	for (unsigned i = 0; i < PATIENCE / 10 && !ret; i++)
		ret = echo_dispatch_for(l->drv, 10);
	if (ret != expected)
		fail_msg("%s: the front end expected %d, got %d", row->what, expected, ret);
	assert_string_not_equal(bf_frontend_error(bf_driver_frontend(l->drv)), "");
	link_down(l, &last);
	expected = as == AS_FRONT_END ? row->error : 0;
	if (last.end_error != expected)
		fail_msg("%s: the back end expected %d, got %d", row->what, expected,
			 last.end_error);
}

static void try_all(enum proxy_as as, const struct row *rows, unsigned nr, bool doorbell)
{
	unsigned fds = count_fds();
	struct echo_report last;
	struct link l;

	link_up(&l, doorbell);
	for (unsigned i = 0; i < nr; i++)
		if (rows[i].error >= 0)
			refused(&l, as, &rows[i], doorbell);
	link_down(&l, &last);
	assert_int_equal(last.end_error, 0);
	assert_int_equal(count_fds(), fds);
	for (unsigned i = 0; i < nr; i++) {
		if (rows[i].error >= 0)
			continue;
		link_up(&l, doorbell);
		ended(&l, as, &rows[i]);
		assert_int_equal(count_fds(), fds);
	}
}

#define NR(rows) ((unsigned)(sizeof(rows) / sizeof((rows)[0])))

static void to_the_front_end_without_doorbells(void **state)
{
	(void)state;
	try_all(AS_BACK_END, to_front_end, NR(to_front_end), false);
}

static void to_the_front_end_with_doorbells(void **state)
{
	(void)state;
	try_all(AS_BACK_END, to_front_end, NR(to_front_end), true);
}

static void to_the_back_end(void **state)
{
	(void)state;
	try_all(AS_FRONT_END, to_back_end, NR(to_back_end), false);
}

static void to_the_back_end_with_doorbells(void **state)
{
	(void)state;
	try_all(AS_FRONT_END, to_back_end, NR(to_back_end), true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(to_the_front_end_without_doorbells),
		cmocka_unit_test(to_the_front_end_with_doorbells),
		cmocka_unit_test(to_the_back_end),
		cmocka_unit_test(to_the_back_end_with_doorbells),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
