/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Postcopy when it does not go by the book: the front end leaves in the middle, says things twice, or says
 * that all is there when it is not. Whoever sleeps on a page that is missing has to wake up, and must
 * not take zeroes for the guest's memory. What goes by the book is in test_topics.c.
 *
 * The guest's memory is a file of which no page is there; what the front end puts there it writes to the file.
 */
#include "fake_frontend.h"

#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>

#define WITH_POSTCOPY (OFFERED | bf_bit(BF_PROTOCOL_F_PAGEFAULT))
#define SOON_MS       5000

/* The guard's, which cmocka takes out for each test. */
static struct sigaction guard;

struct postcopy {
	struct peer peer;
	int uffd;       /* the front end's */
	int guest;      /* memory */
	uint8_t *where; /* it is mapped, by the back end's own word */
	/* Kept, since touchers are not waited for as a device waits for its threads in vring_stop. */
	struct bf_memory *kept;
};

/* The descriptor of a POSTCOPY_ADVISE's reply, or -1. */
static int advise(struct peer *peer)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct bf_header hdr;
	struct iovec iov = { &hdr, sizeof(hdr) };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control.bytes,
			      .msg_controllen = sizeof(control.bytes) };
	int fd = -1;

	send_message(peer->fd, BF_FE_POSTCOPY_ADVISE, BF_FLAGS_VERSION, NULL, 0, NULL, 0);
	assert_int_equal(bf_backend_dispatch(peer->be), 0);
	assert_int_equal(recvmsg(peer->fd, &msg, MSG_CMSG_CLOEXEC), sizeof(hdr));
	assert_int_equal(hdr.request, BF_FE_POSTCOPY_ADVISE);
	if (CMSG_FIRSTHDR(&msg))
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(fd));
	return fd;
}

/* Both tables. Where the back end has the memory. */
static uint8_t *announce(struct postcopy *p, int fd)
{
	const struct bf_mem_table table = { .nr = 1, .regions = { { GPA, MEMORY_SIZE, UVA, 0 } } };
	struct bf_mem_table told;
	const uint64_t none = 0;

	send_message(p->peer.fd, BF_FE_SET_MEM_TABLE, BF_FLAGS_VERSION, &table, 40, &fd, 1);
	assert_int_equal(bf_backend_dispatch(p->peer.be), 0);
	assert_int_equal(read_reply(p->peer.fd, BF_FE_SET_MEM_TABLE, &told, sizeof(told)), 40);
	send_message(p->peer.fd, BF_FE_SET_MEM_TABLE, BF_FLAGS_VERSION, &none, 8, NULL, 0);
	assert_int_equal(bf_backend_dispatch(p->peer.be), 0);
	return (uint8_t *)(uintptr_t)told.regions[0].uva;
}

static void begin(struct postcopy *p)
{
	assert_int_equal(sigaction(SIGBUS, &guard, NULL), 0);
	peer_init(&p->peer, WITH_POSTCOPY);
	agree(&p->peer);
	p->uffd = advise(&p->peer);
	assert_true(p->uffd >= 0);
	assert_int_equal(say(&p->peer, BF_FE_POSTCOPY_LISTEN, NULL, 0, NULL, 0), ACCEPTED);
	p->guest = make_memfd("bf-guest", MEMORY_SIZE, 0);
	p->where = announce(p, p->guest);
	p->kept = bf_memory_ref(bf_backend_memory(p->peer.be));
}

static void end(struct postcopy *p)
{
	bf_memory_unref(p->kept);
	peer_done(&p->peer);
	close(p->guest);
	close(p->uffd);
}

/* Waits for the next fault: its address. */
static uint8_t *fault(const struct postcopy *p)
{
	struct pollfd ready = { .fd = p->uffd, .events = POLLIN };
	struct uffd_msg msg;

	assert_int_equal(poll(&ready, 1, SOON_MS), 1);
	assert_int_equal(read(p->uffd, &msg, sizeof(msg)), sizeof(msg));
	assert_int_equal(msg.event, UFFD_EVENT_PAGEFAULT);
	return (uint8_t *)(uintptr_t)msg.arg.pagefault.address;
}

/* The page that has @offset comes, with @value in it; the front end wakes whom it knows to sleep there. */
static void comes(const struct postcopy *p, uint64_t offset, uint8_t value)
{
	struct uffdio_range range = { (uintptr_t)(p->where + offset) & ~4095ull, 4096 };

	assert_int_equal(pwrite(p->guest, &value, 1, (off_t)offset), 1);
	assert_int_equal(ioctl(p->uffd, UFFDIO_WAKE, &range), 0);
}

/* Somebody who touches memory: by an access of its own, or by a system call. */
struct toucher {
	pthread_t thread;
	const volatile uint8_t *where;
	bool by_kernel;
	int result; /* the byte, or negative errno */
};

static void *touch(void *opaque)
{
	struct toucher *t = opaque;
	int fd;

	if (!t->by_kernel) {
		t->result = *t->where;
		return NULL;
	}
	fd = memfd_create("bf-image", MFD_CLOEXEC);
	t->result = write(fd, (const void *)(uintptr_t)t->where, 1) < 0 ? -errno : 0;
	close(fd);
	return NULL;
}

static void begin_touch(struct toucher *t, const struct postcopy *p, unsigned offset,
			bool by_kernel)
{
	*t = (struct toucher){ .where = p->where + offset, .by_kernel = by_kernel };
	assert_int_equal(pthread_create(&t->thread, NULL, touch, t), 0);
	assert_ptr_equal(fault(p), (uintptr_t)t->where & ~4095ull);
}

/* A thread that sleeps for good would keep the test for good: alarm() in main() ends it. */
static int end_touch(struct toucher *t)
{
	assert_int_equal(pthread_join(t->thread, NULL), 0);
	return t->result;
}

/* What was on its way to a disk does not arrive as zeroes. */
static void front_end_leaves(void **state)
{
	struct leaks before = leaks_now();
	struct toucher own, kernel;
	struct postcopy p;

	(void)state;
	begin(&p);
	begin_touch(&own, &p, 0, false);
	begin_touch(&kernel, &p, 8192, true);
	close(p.peer.fd);
	p.peer.fd = -1;
	assert_int_equal(bf_backend_dispatch(p.peer.be), 0);
	assert_int_equal(p.peer.ended, 1);
	end_touch(&own);
	assert_int_equal(end_touch(&kernel), -EFAULT);
	end(&p);
	assert_no_leaks(before, "the front end left");
}

static void we_leave(void **state)
{
	struct leaks before = leaks_now();
	struct toucher kernel;
	struct postcopy p;

	(void)state;
	begin(&p);
	begin_touch(&kernel, &p, 4096, true);
	bf_backend_detach(p.peer.be);
	assert_int_equal(end_touch(&kernel), -EFAULT);
	end(&p);
	assert_no_leaks(before, "we left");
}

static void *dispatch(void *opaque)
{
	bf_backend_dispatch(opaque);
	return NULL;
}

/* Control sleeps itself, since the ring's first page is missing: it cannot see that nobody is there. */
static void control_sleeps(void **state)
{
	struct leaks before = leaks_now();
	struct postcopy p;
	uint64_t queue = 0;
	pthread_t control;
	int kick;

	(void)state;
	begin(&p);
	set_up(&p.peer, 0);
	assert_int_equal(say_state(&p.peer, BF_FE_SET_VRING_ENABLE, 0, 1), ACCEPTED);
	kick = eventfd(0, EFD_CLOEXEC);
	send_message(p.peer.fd, BF_FE_SET_VRING_KICK, BF_FLAGS_VERSION, &queue, 8, &kick, 1);
	assert_int_equal(pthread_create(&control, NULL, dispatch, p.peer.be), 0);
	assert_ptr_equal(fault(&p), p.where);
	close(p.peer.fd);
	p.peer.fd = -1;
	bf_backend_give_up_missing(p.peer.be);
	assert_int_equal(pthread_join(control, NULL), 0);
	while (bf_backend_attached(p.peer.be))
		assert_int_equal(bf_backend_dispatch(p.peer.be), 0);
	assert_int_equal(p.peer.ended, 1);
	close(kick);
	end(&p);
	assert_no_leaks(before, "control slept");
}

/* QEMU wakes at the addresses of the last table. Who sleeps at another would sleep on. */
static void table_comes_again(void **state)
{
	struct leaks before = leaks_now();
	struct toucher own;
	struct postcopy p;
	uint8_t *where;
	int other;

	(void)state;
	begin(&p);
	begin_touch(&own, &p, 4096, false);
	where = p.where;
	p.where = announce(&p, p.guest);
	assert_ptr_equal(p.where, where);
	comes(&p, 4096, 'x');
	assert_int_equal(end_touch(&own), 'x');
	/* The same place, but not the same memory. */
	other = make_memfd("bf-guest", MEMORY_SIZE, 0);
	where = announce(&p, other);
	assert_ptr_not_equal(p.where, where);
	close(other);
	end(&p);
	assert_no_leaks(before, "a table came again");
}

/* What tables have taken away is let go of: else a front end could have us map without an end. */
static void many_tables(void **state)
{
	struct leaks before = leaks_now();
	struct postcopy p;

	(void)state;
	begin(&p);
	for (unsigned i = 0; i < 2 * BF_MAX_REGIONS; i++) {
		int other = make_memfd("bf-guest", MEMORY_SIZE, 0);

		announce(&p, other);
		close(other);
	}
	assert_true(bf_backend_attached(p.peer.be));
	assert_in_range(count_mappings("bf-guest"), 1, before.mappings + 3);
	end(&p);
	assert_no_leaks(before, "many tables");
}

/* It says that all is there. Its own fault if that is not so; but we must not sleep for it. */
static void ended_too_early(void **state)
{
	struct leaks before = leaks_now();
	struct toucher own;
	struct postcopy p;

	(void)state;
	begin(&p);
	begin_touch(&own, &p, 4096, false);
	assert_int_equal(say(&p.peer, BF_FE_POSTCOPY_END, NULL, 0, NULL, 0), ACCEPTED);
	assert_int_equal(end_touch(&own), 0);
	end(&p);
	assert_no_leaks(before, "ended too early");
}

static void advised_twice(void **state)
{
	struct postcopy p;
	struct toucher own;

	(void)state;
	begin(&p);
	assert_int_equal(advise(&p.peer), -1);
	assert_non_null(strstr(bf_backend_error(p.peer.be), "POSTCOPY_END"));
	/* The first one is not touched. */
	begin_touch(&own, &p, 4096, false);
	comes(&p, 4096, 'y');
	assert_int_equal(end_touch(&own), 'y');
	end(&p);
}

/* The next connection begins anew. */
static void comes_back(void **state)
{
	struct leaks before = leaks_now();
	struct toucher own;
	struct postcopy p;

	(void)state;
	begin(&p);
	bf_backend_detach(p.peer.be);
	close(p.peer.fd);
	close(p.uffd);
	peer_connect(&p.peer);
	agree(&p.peer);
	p.uffd = advise(&p.peer);
	assert_true(p.uffd >= 0);
	assert_int_equal(say(&p.peer, BF_FE_POSTCOPY_LISTEN, NULL, 0, NULL, 0), ACCEPTED);
	p.where = announce(&p, p.guest);
	begin_touch(&own, &p, 4096, false);
	comes(&p, 4096, 'z');
	assert_int_equal(end_touch(&own), 'z');
	/* Without effect where nothing is missing. */
	assert_int_equal(say(&p.peer, BF_FE_POSTCOPY_END, NULL, 0, NULL, 0), ACCEPTED);
	bf_backend_give_up_missing(p.peer.be);
	assert_int_equal(p.where[4096], 'z');
	assert_false(bf_memory_cut(bf_backend_memory(p.peer.be)));
	end(&p);
	assert_no_leaks(before, "came back");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(front_end_leaves), cmocka_unit_test(we_leave),
		cmocka_unit_test(control_sleeps),   cmocka_unit_test(table_comes_again),
		cmocka_unit_test(many_tables),      cmocka_unit_test(ended_too_early),
		cmocka_unit_test(advised_twice),    cmocka_unit_test(comes_back),
	};
	int ret = bf_backend_check_postcopy();

	if (ret) {
		printf("1..0 # SKIP userfaultfd: %s\n", strerror(-ret));
		return 0;
	}
	if (bf_memory_guard() || sigaction(SIGBUS, NULL, &guard))
		return 1;
	alarm(60);
	return cmocka_run_group_tests_name("postcopy", tests, NULL, NULL);
}
