/* SPDX-License-Identifier: BSD-3-Clause */
/* lib/frontend/notifier.c, channel.c: every check of a doorbell, the order of its withdrawal. */
#include "fake_backend.h"

#include <sys/eventfd.h>

#include "base/fd.h"

#define PAGE   4096ull
#define ASK    (BF_FLAGS_VERSION | BF_FLAGS_NEED_REPLY)
#define NOTIFY BF_BE_VRING_HOST_NOTIFIER_MSG

struct fixture {
	unsigned fds_before;
	unsigned maps_before;
	struct fake fake;
	struct front front;
	struct guest guest;
	int page_fd; /* sealed, 4 pages */
	uint16_t *pages;
	uint64_t hook_ack;
};

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	f->fds_before = count_fds();
	f->maps_before = count_mappings("memfd:bells");
	guest_init(&f->guest, 1 << 20);
	f->page_fd = make_memfd("bells", 4 * PAGE, F_SEAL_SHRINK);
	f->pages = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, f->page_fd, 0);
	assert_true(f->pages != MAP_FAILED);
	fake_init(&f->fake);
	f->fake.opaque = f;
	front_init(&f->front, &f->fake, 0, 2000);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	bf_frontend_free(f->front.fe);
	assert_int_equal(f->front.nr_map - (f->front.map_result ? f->front.nr_map : 0),
			 f->front.nr_unmap);
	fake_stop(&f->fake);
	guest_done(&f->guest);
	munmap(f->pages, 4 * PAGE);
	close(f->page_fd);
	assert_int_equal(count_mappings("memfd:bells"), f->maps_before);
	assert_int_equal(count_fds(), f->fds_before);
	free(f);
	return 0;
}

static void attach(struct fixture *f)
{
	fake_start(&f->fake);
	assert_int_equal(bf_frontend_attach(f->front.fe, f->fake.peer_fd), 0);
	assert_int_equal(bf_frontend_set_features(f->front.fe, DRIVER_FEATURES), 0);
	assert_int_equal(bf_frontend_set_memory(f->front.fe, &f->guest.region, 1), 1);
}

static void start(struct fixture *f, unsigned nr)
{
	struct bf_vring_setup vrings[4];

	for (unsigned i = 0; i < nr; i++)
		vrings[i] = guest_vring(&f->guest, i);
	assert_int_equal(bf_frontend_start_vrings(f->front.fe, vrings, nr), 0);
	bf_eventfd_drain(f->guest.kick_fd); /* the one of the start */
}

static void offer(struct fixture *f, uint64_t index, uint64_t size, uint64_t offset, int fd)
{
	const struct bf_vring_area area = { index, size, offset };

	fake_back_send(&f->fake, NOTIFY, ASK, &area, sizeof(area), &fd, fd >= 0 ? 1 : 0);
}

/* Offer, have it served, and return what was acknowledged. */
static uint64_t offer_now(struct fixture *f, uint64_t index, uint64_t size, uint64_t offset, int fd)
{
	offer(f, index, size, offset, fd);
	assert_int_equal(front_dispatch(&f->front), 0);
	return fake_back_ack(&f->fake);
}

static struct bf_doorbell_state state_of(struct fixture *f, unsigned queue)
{
	struct bf_doorbell_state state;

	bf_frontend_doorbell_state(f->front.fe, queue, &state);
	return state;
}

static void a_good_page_is_mapped(void **state)
{
	struct fixture *f = *state;
	struct bf_doorbell_state doorbell;

	attach(f);
	start(f, 2);
	assert_false(state_of(f, 1).mapped);
	assert_string_not_equal(state_of(f, 1).reason, "");
	assert_int_equal(offer_now(f, 1, PAGE, 2 * PAGE, f->page_fd), 0);
	doorbell = state_of(f, 1);
	assert_true(doorbell.mapped);
	assert_string_equal(doorbell.reason, "");
	assert_int_equal(doorbell.nr_mapped, 1);
	assert_int_equal(f->front.nr_map, 1);
	*(uint16_t *)f->front.pages[1] = 0x1234;
	assert_int_equal(f->pages[2 * PAGE / 2], 0x1234);
	assert_int_equal(bf_eventfd_drain(f->guest.kick_fd), 0);
	assert_false(state_of(f, 0).mapped);
}

static void taking_back_signals_once_and_is_idempotent(void **state)
{
	struct fixture *f = *state;

	attach(f);
	start(f, 2);
	assert_int_equal(offer_now(f, 1, PAGE, 0, f->page_fd), 0);
	assert_int_equal(offer_now(f, 1 | BF_VRING_NOFD, 0, 0, -1), 0);
	assert_int_equal(bf_eventfd_drain(f->guest.kick_fd), 1);
	assert_int_equal(offer_now(f, 1 | BF_VRING_NOFD, 0, 0, -1), 0);
	assert_int_equal(bf_eventfd_drain(f->guest.kick_fd), 0);
	assert_int_equal(f->front.nr_unmap, 1);
	assert_int_equal(state_of(f, 1).nr_withdrawn, 1);
	assert_int_equal(state_of(f, 1).nr_kicks, 2);
	assert_non_null(strstr(state_of(f, 1).reason, "taken back"));
	/* Also for a queue that never had one, or is not started. */
	assert_int_equal(offer_now(f, 3 | BF_VRING_NOFD, 0, 0, -1), 0);
	/* A request that is wrong changes nothing. */
	assert_int_equal(offer_now(f, 1, PAGE, 0, f->page_fd), 0);
	assert_int_equal(offer_now(f, 1 | BF_VRING_NOFD, 0, 0, f->page_fd), 1);
	assert_true(state_of(f, 1).mapped);
}

static void a_second_page_replaces_the_first(void **state)
{
	struct fixture *f = *state;

	attach(f);
	start(f, 1);
	assert_int_equal(offer_now(f, 0, PAGE, 0, f->page_fd), 0);
	assert_int_equal(offer_now(f, 0, PAGE, PAGE, f->page_fd), 0);
	assert_int_equal(f->front.nr_map, 2);
	assert_int_equal(f->front.nr_unmap, 1);
	assert_int_equal(bf_eventfd_drain(f->guest.kick_fd), 1);
	*(uint16_t *)f->front.pages[0] = 0x77;
	assert_int_equal(f->pages[PAGE / 2], 0x77);
	assert_int_equal(count_mappings("memfd:bells"), f->maps_before + 2);
	/* A bad one does not: the first stays. */
	assert_int_equal(offer_now(f, 0, PAGE, 5 * PAGE, f->page_fd), 1);
	assert_true(state_of(f, 0).mapped);
	assert_int_equal(state_of(f, 0).nr_refused, 1);
	assert_int_equal(f->front.nr_unmap, 1);
}

static void every_check_has_its_reason(void **state)
{
	struct fixture *f = *state;
	int unsealed = make_memfd("bells", 4 * PAGE, 0);
	int grow_only = make_memfd("bells", 4 * PAGE, F_SEAL_GROW);
	int short_file = make_memfd("bells", PAGE - 1, F_SEAL_SHRINK);
	int empty = make_memfd("bells", 0, F_SEAL_SHRINK);
	int disk = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	int event = eventfd(0, EFD_CLOEXEC);
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int zero = open("/dev/zero", O_RDWR | O_CLOEXEC);
	int folder = open("/", O_RDONLY | O_CLOEXEC);
	int read_only = -1;
	char path[64];
	const struct {
		uint64_t index, size, offset;
		int fd;
		const char *reason;
	} cases[] = {
		{ 0, PAGE, 4 * PAGE, f->page_fd, "too short" },
		{ 0, PAGE, 3 * PAGE + 1, f->page_fd, "aligned" },
		{ 0, PAGE, 2, f->page_fd, "aligned" },
		{ 0, 0, 0, f->page_fd, "4096 bytes expected, 0 offered" },
		{ 0, 2 * PAGE, 0, f->page_fd, "8192 offered" },
		{ 0, UINT64_MAX, 0, f->page_fd, "one host page" },
		{ 0, PAGE, UINT64_MAX - PAGE + 1, f->page_fd, "beyond any file" },
		{ 0, PAGE, INT64_MAX - PAGE + 1, f->page_fd, "beyond any file" },
		{ 0, PAGE, INT64_MAX - 2 * PAGE + 1, f->page_fd, "too short" },
		{ 0, PAGE, 0, -1, "1 file descriptor expected, 0 came" },
		{ 0, PAGE, 0, unsealed, "F_SEAL_SHRINK" },
		{ 0, PAGE, 0, grow_only, "F_SEAL_SHRINK" },
		{ 0, PAGE, 0, short_file, "too short" },
		{ 0, PAGE, 0, empty, "too short" },
		{ 0, PAGE, 0, disk, "F_SEAL_SHRINK" },
		{ 0, PAGE, 0, event, "cannot be mapped" },
		{ 0, PAGE, 0, null, "cannot be mapped" },
		{ 0, PAGE, 0, folder, "neither a memfd nor a device" },
		{ 1, PAGE, 0, f->page_fd, "not started" },
		{ 4, PAGE, 0, f->page_fd, "has 4 queues" },
		{ 255, PAGE, 0, f->page_fd, "has 4 queues" },
	};

	attach(f);
	start(f, 1);
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		unsigned queue = (unsigned)cases[i].index;
		uint64_t refused = state_of(f, queue).nr_refused;

		assert_int_equal(
			offer_now(f, cases[i].index, cases[i].size, cases[i].offset, cases[i].fd),
			1);
		assert_false(state_of(f, queue).mapped);
		if (!strstr(state_of(f, queue).reason, cases[i].reason))
			fail_msg("case %u: \"%s\" expected, got \"%s\"", i, cases[i].reason,
				 state_of(f, queue).reason);
		assert_int_equal(state_of(f, queue).nr_refused, refused + 1);
	}
	/* Reserved bits of the index are no smaller queue number. */
	assert_int_equal(offer_now(f, 0x200, PAGE, 0, f->page_fd), 1);
	assert_int_equal(offer_now(f, 1ull << 32, PAGE, 0, f->page_fd), 1);
	assert_int_equal(offer_now(f, 0x300, 0, 0, -1), 1);
	/* A page that can only be read is no doorbell. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", f->page_fd);
	read_only = open(path, O_RDONLY | O_CLOEXEC);
	assert_int_equal(offer_now(f, 0, PAGE, 0, read_only), 1);
	assert_non_null(strstr(state_of(f, 0).reason, "cannot be mapped"));
	assert_int_equal(f->front.nr_map, 0);
	/* A character device that can be mapped has no length to check. */
	assert_int_equal(offer_now(f, 0, PAGE, 0, zero), 0);
	assert_true(bf_frontend_attached(f->front.fe));
	close(unsealed), close(grow_only), close(short_file), close(empty), close(disk);
	close(event), close(null), close(zero), close(folder), close(read_only);
}

static void huge_pages_are_no_doorbells(void **state)
{
	struct fixture *f = *state;
	int fd = memfd_create("bells", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB);

	if (fd < 0 || ftruncate(fd, 2 << 20) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) < 0) {
		if (fd >= 0)
			close(fd);
		skip();
	}
	attach(f);
	start(f, 1);
	assert_int_equal(offer_now(f, 0, PAGE, 0, fd), 1);
	assert_non_null(strstr(state_of(f, 0).reason, "huge"));
	close(fd);
}

static void one_descriptor_no_more(void **state)
{
	const struct bf_vring_area area = { 0, PAGE, 0 };
	struct fixture *f = *state;
	int fds[8];

	for (unsigned i = 0; i < 8; i++)
		fds[i] = f->page_fd;
	attach(f);
	start(f, 1);
	for (unsigned nr = 2; nr <= 8; nr += 3) {
		fake_back_send(&f->fake, NOTIFY, ASK, &area, sizeof(area), fds, nr);
		assert_int_equal(front_dispatch(&f->front), 0);
		assert_int_equal(fake_back_ack(&f->fake), 1);
		assert_non_null(strstr(state_of(f, 0).reason, "1 file descriptor expected"));
	}
	assert_false(state_of(f, 0).mapped);
}

static void not_agreed_is_refused(void **state)
{
	struct fixture *f = *state;

	f->fake.protocol_features &= ~bf_bit(BF_PROTOCOL_F_HOST_NOTIFIER);
	attach(f);
	start(f, 1);
	assert_int_equal(offer_now(f, 0, PAGE, 0, f->page_fd), 1);
	assert_non_null(strstr(state_of(f, 0).reason, "not agreed"));
	assert_int_equal(f->front.nr_map, 0);
}

static void without_need_reply_there_is_no_answer(void **state)
{
	const struct bf_vring_area good = { 0, PAGE, 0 }, bad = { 0, PAGE, 1 };
	struct fixture *f = *state;
	char byte;

	attach(f);
	start(f, 1);
	fake_back_send(&f->fake, NOTIFY, BF_FLAGS_VERSION, &bad, sizeof(bad), &f->page_fd, 1);
	fake_back_send(&f->fake, NOTIFY, BF_FLAGS_VERSION, &good, sizeof(good), &f->page_fd, 1);
	assert_int_equal(front_dispatch(&f->front), 0);
	assert_true(state_of(f, 0).mapped);
	assert_int_equal(recv(f->fake.back_fd, &byte, 1, MSG_DONTWAIT), -1);
}

static void the_caller_may_refuse(void **state)
{
	struct fixture *f = *state;

	attach(f);
	start(f, 1);
	f->front.map_result = -ENOSPC;
	assert_int_equal(offer_now(f, 0, PAGE, 0, f->page_fd), 1);
	assert_false(state_of(f, 0).mapped);
	assert_non_null(strstr(state_of(f, 0).reason, "laid over"));
	assert_int_equal(count_mappings("memfd:bells"), f->maps_before + 1);
	assert_int_equal(bf_eventfd_drain(f->guest.kick_fd), 0);
}

/* Withdrawn, and the kick signalled, before the back end is asked to stop. */
static void stopping_withdraws_first(void **state)
{
	struct fixture *f = *state;
	const unsigned queues[] = { 0, 1 };
	unsigned seen;

	attach(f);
	start(f, 2);
	assert_int_equal(offer_now(f, 0, PAGE, 0, f->page_fd), 0);
	seen = f->fake.nr_seen;
	assert_int_equal(bf_frontend_stop_vrings(f->front.fe, queues, 2, NULL), 0);
	assert_int_equal(f->front.nr_unmap, 1);
	assert_int_equal(f->front.requests_at_unmap, seen);
	assert_int_equal(bf_eventfd_drain(f->guest.kick_fd), 1);
	assert_string_equal(state_of(f, 0).reason, "the queue is stopped");
	/* A new start needs a new page. */
	assert_int_equal(offer_now(f, 0, PAGE, 0, f->page_fd), 1);
	start(f, 2);
	assert_false(state_of(f, 0).mapped);
	assert_int_equal(offer_now(f, 0, PAGE, 0, f->page_fd), 0);
	assert_true(state_of(f, 0).mapped);
	assert_int_equal(bf_frontend_reset_device(f->front.fe), 0);
	assert_false(state_of(f, 0).mapped);
}

/* The back end offers while we wait for its answer to a stop: too late for this start. */
static void offer_before_base(struct fake *fake, uint32_t request)
{
	if (request == BF_FE_GET_VRING_BASE)
		offer(fake->opaque, 0, PAGE, 0, ((struct fixture *)fake->opaque)->page_fd);
}

static void an_offer_that_crosses_a_stop_is_refused(void **state)
{
	struct fixture *f = *state;
	const unsigned queue = 0;

	attach(f);
	start(f, 1);
	f->fake.hook = offer_before_base;
	assert_int_equal(bf_frontend_stop_vrings(f->front.fe, &queue, 1, NULL), 0);
	assert_int_equal(fake_back_ack(&f->fake), 1);
	start(f, 1);
	front_dispatch(&f->front);
	assert_false(state_of(f, 0).mapped);
	assert_int_equal(f->front.nr_map, 0);
}

/* An offer that sits unread from before the start belongs to no start. */
static void an_offer_from_before_a_start_is_refused(void **state)
{
	struct fixture *f = *state;

	attach(f);
	offer(f, 0, PAGE, 0, f->page_fd);
	start(f, 1);
	assert_int_equal(fake_back_ack(&f->fake), 1);
	assert_false(state_of(f, 0).mapped);
}

/* The back end waits for our acknowledgement before it gives its own: nothing may deadlock. */
static void offer_and_wait(struct fake *fake, uint32_t request)
{
	struct fixture *f = fake->opaque;

	if (request != BF_FE_SET_VRING_KICK)
		return;
	offer(f, 0, PAGE, 0, f->page_fd);
	f->hook_ack = fake_back_ack(fake);
}

static void an_offer_is_served_while_its_queue_starts(void **state)
{
	struct fixture *f = *state;

	attach(f);
	f->fake.hook = offer_and_wait;
	f->hook_ack = 99;
	start(f, 1);
	assert_int_equal(f->hook_ack, 0);
	assert_true(state_of(f, 0).mapped);
}

static void a_start_that_fails_withdraws(void **state)
{
	struct fixture *f = *state;
	struct bf_vring_setup vring = guest_vring(&f->guest, 0);

	attach(f);
	f->fake.hook = offer_and_wait;
	f->fake.bad_request = BF_FE_SET_VRING_ENABLE;
	f->fake.misdeed = FAILURE;
	assert_int_equal(bf_frontend_start_vrings(f->front.fe, &vring, 1), -EREMOTEIO);
	assert_int_equal(f->front.nr_map, 1);
	assert_int_equal(f->front.nr_unmap, 1);
	assert_false(state_of(f, 0).mapped);
	assert_non_null(strstr(bf_frontend_error(f->front.fe), "SET_VRING_ENABLE"));
}

static void the_caller_withdraws_all(void **state)
{
	struct fixture *f = *state;
	unsigned seen;

	attach(f);
	start(f, 3);
	assert_int_equal(offer_now(f, 0, PAGE, 0, f->page_fd), 0);
	assert_int_equal(offer_now(f, 2, PAGE, PAGE, f->page_fd), 0);
	seen = f->fake.nr_seen;
	bf_frontend_withdraw_doorbells(f->front.fe, "the BAR was moved");
	assert_int_equal(f->front.nr_unmap, 2);
	assert_int_equal(bf_eventfd_drain(f->guest.kick_fd), 2);
	assert_string_equal(state_of(f, 2).reason, "the BAR was moved");
	assert_int_equal(f->fake.nr_seen, seen);
	/* The queues are still started: the back end may offer again. */
	assert_int_equal(offer_now(f, 2, PAGE, PAGE, f->page_fd), 0);
}

static void a_dead_back_end_loses_its_doorbells(void **state)
{
	struct fixture *f = *state;

	attach(f);
	start(f, 1);
	assert_int_equal(offer_now(f, 0, PAGE, 0, f->page_fd), 0);
	fake_stop(&f->fake);
	assert_int_equal(front_dispatch(&f->front), -ENOTCONN);
	assert_int_equal(f->front.nr_unmap, 1);
	assert_int_equal(bf_eventfd_drain(f->guest.kick_fd), 1);
	assert_non_null(strstr(state_of(f, 0).reason, "closed"));
}

/* The main socket alone goes, or we go: the kick is signalled all the same. */
static void every_end_of_a_connection_withdraws(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < 2; i++) {
		attach(f);
		start(f, 1);
		assert_int_equal(offer_now(f, 0, PAGE, 0, f->page_fd), 0);
		if (i == 0)
			bf_frontend_detach(f->front.fe);
		else
			shutdown(f->fake.fd, SHUT_RDWR);
		front_dispatch(&f->front);
		assert_int_equal(f->front.nr_unmap, i + 1);
		assert_int_equal(bf_eventfd_drain(f->guest.kick_fd), 1);
		assert_false(bf_frontend_attached(f->front.fe));
		fake_stop(&f->fake);
	}
}

static void closing_the_channel_withdraws(void **state)
{
	struct fixture *f = *state;

	attach(f);
	start(f, 1);
	assert_int_equal(offer_now(f, 0, PAGE, 0, f->page_fd), 0);
	close(f->fake.back_fd);
	f->fake.back_fd = -1;
	assert_int_equal(front_dispatch(&f->front), 0);
	assert_int_equal(f->front.nr_unmap, 1);
	assert_true(bf_frontend_attached(f->front.fe));
}

/* However many wait, one dispatch serves so many and lets the main channel have its turn. */
static void one_dispatch_serves_a_bounded_number(void **state)
{
	const struct bf_vring_area area = { 0, PAGE, 0 };
	struct fixture *f = *state;

	attach(f);
	start(f, 1);
	for (unsigned i = 0; i < 100; i++)
		fake_back_send(&f->fake, NOTIFY, BF_FLAGS_VERSION, &area, sizeof(area), &f->page_fd,
			       1);
	assert_int_equal(bf_frontend_dispatch(f->front.fe), 0);
	assert_in_range(f->front.nr_map, 1, 99);
	assert_int_equal(front_dispatch(&f->front), 0);
	assert_int_equal(f->front.nr_map, 100);
}

static void a_hundred_thousand_times(void **state)
{
	struct fixture *f = *state;
	unsigned fds;

	attach(f);
	start(f, 1);
	fds = count_fds();
	for (unsigned i = 0; i < 50000; i++) {
		const struct bf_vring_area add = { 0, PAGE, i % 4 * PAGE };
		const struct bf_vring_area remove = { BF_VRING_NOFD, 0, 0 };

		fake_back_send(&f->fake, NOTIFY, BF_FLAGS_VERSION, &add, sizeof(add), &f->page_fd,
			       1);
		fake_back_send(&f->fake, NOTIFY, BF_FLAGS_VERSION, &remove, sizeof(remove), NULL,
			       0);
		if (i % 16 == 15)
			assert_int_equal(bf_frontend_dispatch(f->front.fe), 0);
	}
	assert_int_equal(front_dispatch(&f->front), 0);
	assert_int_equal(f->front.nr_map, 50000);
	assert_int_equal(f->front.nr_unmap, 50000);
	assert_int_equal(bf_eventfd_drain(f->guest.kick_fd), 50000);
	assert_int_equal(count_fds(), fds);
	assert_int_equal(count_mappings("memfd:bells"), f->maps_before + 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_good_page_is_mapped, set_up, tear_down),
		cmocka_unit_test_setup_teardown(taking_back_signals_once_and_is_idempotent, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(a_second_page_replaces_the_first, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(every_check_has_its_reason, set_up, tear_down),
		cmocka_unit_test_setup_teardown(huge_pages_are_no_doorbells, set_up, tear_down),
		cmocka_unit_test_setup_teardown(one_descriptor_no_more, set_up, tear_down),
		cmocka_unit_test_setup_teardown(not_agreed_is_refused, set_up, tear_down),
		cmocka_unit_test_setup_teardown(without_need_reply_there_is_no_answer, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(the_caller_may_refuse, set_up, tear_down),
		cmocka_unit_test_setup_teardown(stopping_withdraws_first, set_up, tear_down),
		cmocka_unit_test_setup_teardown(an_offer_that_crosses_a_stop_is_refused, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(an_offer_from_before_a_start_is_refused, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(an_offer_is_served_while_its_queue_starts, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(a_start_that_fails_withdraws, set_up, tear_down),
		cmocka_unit_test_setup_teardown(the_caller_withdraws_all, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_dead_back_end_loses_its_doorbells, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(every_end_of_a_connection_withdraws, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(closing_the_channel_withdraws, set_up, tear_down),
		cmocka_unit_test_setup_teardown(one_dispatch_serves_a_bounded_number, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(a_hundred_thousand_times, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
