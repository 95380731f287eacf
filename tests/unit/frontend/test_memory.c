/* SPDX-License-Identifier: BSD-3-Clause */
/* lib/frontend/memory.c: what is announced, what is refused, and differences instead of tables. */
#include "fake_backend.h"

#define PAGE 4096ull

struct fixture {
	unsigned fds_before;
	struct fake fake;
	struct front front;
	int fd; /* sealed, 16 pages */
	uint8_t *mapping;
};

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	f->fds_before = count_fds();
	f->fd = make_memfd("ram", 16 * PAGE, F_SEAL_SHRINK);
	f->mapping = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, f->fd, 0);
	assert_true(f->mapping != MAP_FAILED);
	fake_init(&f->fake);
	front_init(&f->front, &f->fake, 0, 1000);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	bf_frontend_free(f->front.fe);
	fake_stop(&f->fake);
	munmap(f->mapping, 16 * PAGE);
	close(f->fd);
	assert_int_equal(count_fds(), f->fds_before);
	free(f);
	return 0;
}

static void attach(struct fixture *f, bool slots)
{
	if (!slots)
		f->fake.protocol_features &= ~bf_bit(BF_PROTOCOL_F_CONFIGURE_MEM_SLOTS);
	fake_start(&f->fake);
	assert_int_equal(bf_frontend_attach(f->front.fe, f->fake.peer_fd), 0);
}

/* Pages [@page, @page + @nr) of the file, at the same place of guest memory. */
static struct bf_memory_region region(struct fixture *f, unsigned page, unsigned nr)
{
	return (struct bf_memory_region){
		.gpa = GUEST_GPA + page * PAGE,
		.size = nr * PAGE,
		.hva = f->mapping + page * PAGE,
		.fd = f->fd,
		.fd_offset = page * PAGE,
	};
}

static void a_table_is_sent_whole(void **state)
{
	struct fixture *f = *state;
	struct bf_memory_region regions[2] = { region(f, 0, 2), region(f, 4, 3) };
	const struct seen *seen;

	attach(f, false);
	assert_int_equal(bf_frontend_set_memory(f->front.fe, regions, 2), 2);
	seen = fake_nth(&f->fake, BF_FE_SET_MEM_TABLE, 0);
	assert_int_equal(seen->nr_fds, 2);
	assert_int_equal(seen->words[0], 2);
	assert_int_equal(seen->words[1], GUEST_GPA);
	assert_int_equal(seen->words[2], 2 * PAGE);
	assert_int_equal(seen->words[3], (uintptr_t)f->mapping);
	assert_int_equal(seen->words[4], 0);
	assert_int_equal(seen->words[5], GUEST_GPA + 4 * PAGE);
	assert_true(seen->flags & BF_FLAGS_NEED_REPLY);
	assert_int_equal(bf_frontend_set_memory(f->front.fe, NULL, 0), 0);
	assert_int_equal(fake_nth(&f->fake, BF_FE_SET_MEM_TABLE, 1)->nr_fds, 0);
}

static void slots_are_changed_by_their_differences(void **state)
{
	struct fixture *f = *state;
	struct bf_memory_region first[3] = { region(f, 0, 2), region(f, 4, 3), region(f, 10, 1) };
	struct bf_memory_region then[3] = { region(f, 10, 1), region(f, 4, 2), region(f, 0, 2) };
	unsigned before;

	f->fake.hold_ms = 20;
	attach(f, true);
	before = f->fake.rounds;
	assert_int_equal(bf_frontend_set_memory(f->front.fe, first, 3), 3);
	assert_int_equal(f->fake.rounds, before + 1);
	assert_int_equal(fake_count(&f->fake, BF_FE_ADD_MEM_REG), 3);
	assert_int_equal(fake_count(&f->fake, BF_FE_SET_MEM_TABLE), 0);
	/* The middle one shrinks: one goes, one comes, in this order; the others stay. */
	assert_int_equal(bf_frontend_set_memory(f->front.fe, then, 3), 3);
	assert_int_equal(f->fake.rounds, before + 2);
	assert_int_equal(fake_count(&f->fake, BF_FE_ADD_MEM_REG), 4);
	assert_int_equal(fake_count(&f->fake, BF_FE_REM_MEM_REG), 1);
	assert_int_equal(fake_nth(&f->fake, BF_FE_REM_MEM_REG, 0)->words[1], GUEST_GPA + 4 * PAGE);
	assert_int_equal(fake_nth(&f->fake, BF_FE_REM_MEM_REG, 0)->words[2], 3 * PAGE);
	assert_int_equal(fake_nth(&f->fake, BF_FE_REM_MEM_REG, 0)->nr_fds, 0);
	assert_int_equal(fake_nth(&f->fake, BF_FE_ADD_MEM_REG, 3)->words[2], 2 * PAGE);
	assert_int_equal(fake_nth(&f->fake, BF_FE_ADD_MEM_REG, 3)->nr_fds, 1);
	assert_true(fake_nth(&f->fake, BF_FE_REM_MEM_REG, 0) <
		    fake_nth(&f->fake, BF_FE_ADD_MEM_REG, 3));
	/* Nothing changed: nothing sent. */
	before = f->fake.nr_seen;
	assert_int_equal(bf_frontend_set_memory(f->front.fe, then, 3), 3);
	assert_int_equal(f->fake.nr_seen, before);
}

/* What the back end acknowledged counts, no more: the next change starts from there. */
static void a_refused_slot_is_not_announced(void **state)
{
	struct fixture *f = *state;
	struct bf_memory_region regions[2] = { region(f, 0, 2), region(f, 4, 3) };

	f->fake.bad_request = BF_FE_ADD_MEM_REG;
	f->fake.misdeed = FAILURE;
	f->fake.bad_nr = 1;
	attach(f, true);
	assert_int_equal(bf_frontend_set_memory(f->front.fe, regions, 2), -EREMOTEIO);
	assert_non_null(strstr(bf_frontend_error(f->front.fe), "ADD_MEM_REG"));
	assert_true(bf_frontend_attached(f->front.fe));
	assert_int_equal(bf_frontend_set_memory(f->front.fe, regions, 2), 2);
	assert_int_equal(fake_count(&f->fake, BF_FE_ADD_MEM_REG), 3);
	assert_int_equal(fake_nth(&f->fake, BF_FE_ADD_MEM_REG, 2)->words[1], GUEST_GPA + 4 * PAGE);
	assert_int_equal(fake_count(&f->fake, BF_FE_REM_MEM_REG), 0);
}

static void memory_without_an_fd_is_left_out(void **state)
{
	struct fixture *f = *state;
	struct bf_memory_region regions[2] = { region(f, 0, 2), region(f, 4, 3) };

	regions[0].fd = -1;
	attach(f, true);
	assert_int_equal(bf_frontend_set_memory(f->front.fe, regions, 2), 1);
	assert_int_equal(fake_count(&f->fake, BF_FE_ADD_MEM_REG), 1);
}

static void bad_regions_are_refused_before_anything_is_sent(void **state)
{
	struct fixture *f = *state;
	const struct bf_memory_region good = region(f, 0, 2);
	struct bf_memory_region bad[9];
	int unsealed = make_memfd("unsealed", 16 * PAGE, 0);
	int disk = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

	attach(f, true);
	for (unsigned i = 0; i < 9; i++)
		bad[i] = region(f, 4, 2);
	bad[0].size = 0;
	bad[1].size = PAGE + 1;
	bad[2].gpa++;
	bad[3].fd_offset = 15 * PAGE; /* one page beyond the end */
	bad[4].gpa = UINT64_MAX - PAGE + 1;
	bad[5].gpa = GUEST_GPA + PAGE; /* overlaps in guest addresses */
	bad[6].hva = good.hva;         /* in user addresses */
	bad[7].fd_offset = UINT64_MAX - PAGE + 1;
	bad[8].hva = (uint8_t *)bad[8].hva + 8;
	for (unsigned i = 0; i < 9; i++) {
		struct bf_memory_region pair[2] = { good, bad[i] };

		assert_int_equal(bf_frontend_set_memory(f->front.fe, pair, 2), -EINVAL);
	}
	bad[0] = region(f, 0, 2);
	bad[0].fd = unsealed;
	assert_int_equal(bf_frontend_set_memory(f->front.fe, bad, 1), -EPERM);
	assert_non_null(strstr(bf_frontend_error(f->front.fe), "F_SEAL_SHRINK"));
	bad[0].fd = disk;
	assert_int_equal(bf_frontend_set_memory(f->front.fe, bad, 1), -EPERM);
	bad[0].fd = 1023;
	assert_int_equal(bf_frontend_set_memory(f->front.fe, bad, 1), -EBADF);
	assert_int_equal(fake_count(&f->fake, BF_FE_ADD_MEM_REG), 0);
	close(unsealed);
	close(disk);
}

static void the_number_of_slots_is_respected(void **state)
{
	static const struct {
		uint64_t slots;
		bool has_slots;
		unsigned nr;
		int ret;
	} cases[] = {
		{ 0, true, 1, -E2BIG },       { 2, true, 2, 2 },  { 2, true, 3, -E2BIG },
		{ UINT64_MAX, true, 16, 16 }, { 0, false, 8, 8 }, { 0, false, 9, -E2BIG },
	};
	struct fixture *f = *state;
	struct bf_memory_region regions[16];

	for (unsigned i = 0; i < 16; i++)
		regions[i] = region(f, i, 1);
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		f->fake.max_slots = cases[i].slots;
		attach(f, cases[i].has_slots);
		assert_int_equal(bf_frontend_set_memory(f->front.fe, regions, cases[i].nr),
				 cases[i].ret);
		bf_frontend_detach(f->front.fe);
		fake_stop(&f->fake);
	}
	assert_int_equal(bf_frontend_set_memory(f->front.fe, regions, 1), -ENOTCONN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_table_is_sent_whole, set_up, tear_down),
		cmocka_unit_test_setup_teardown(slots_are_changed_by_their_differences, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(a_refused_slot_is_not_announced, set_up, tear_down),
		cmocka_unit_test_setup_teardown(memory_without_an_fd_is_left_out, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(bad_regions_are_refused_before_anything_is_sent,
						set_up, tear_down),
		cmocka_unit_test_setup_teardown(the_number_of_slots_is_respected, set_up,
						tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
