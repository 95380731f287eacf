/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Files that shrink under their mapping: the map counts as cut and the process lives; every other SIGBUS
 * means what it did. What must die does so in a child.
 */
#include "../support.h"

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "lib/mem/guard.h"
#include "lib/mem/map.h"

#define PAGE 4096ull

static struct bf_memory *memory_of(const int *fds, unsigned nr, uint64_t pages)
{
	struct bf_memory_region regions[8];
	struct bf_memory *memory;

	for (unsigned i = 0; i < nr; i++)
		regions[i] = (struct bf_memory_region){ .gpa = i * 0x1000000ull,
							.size = pages * PAGE,
							.uva = i * 0x1000000ull,
							.fd = dup(fds[i]) };
	assert_int_equal(bf_memory_new(regions, nr, &memory), 0);
	return memory;
}

/* cmocka has a handler of its own while a test runs. */
static struct sigaction ours;

static void guarded(void)
{
	assert_int_equal(sigaction(SIGBUS, &ours, NULL), 0);
}

static volatile uint8_t *byte(struct bf_memory *memory, uint64_t gpa)
{
	return bf_memory_from_gpa(memory, gpa, 1);
}

static void a_cut_file_is_an_error_of_its_map(void **state)
{
	int fds[2] = { make_memfd("bf-cut", 8 * PAGE, 0), make_memfd("bf-cut", 8 * PAGE, 0) };
	struct bf_memory *memory = memory_of(fds, 2, 8), *other = memory_of(fds + 1, 1, 8);

	(void)state;
	guarded();
	assert_int_equal(bf_memory_guard(), 0); /* and again: no effect */
	for (unsigned i = 0; i < 8; i++)
		*byte(memory, i * PAGE) = *byte(memory, 0x1000000 + i * PAGE) = 0x42;
	assert_int_equal(ftruncate(fds[0], 3 * PAGE), 0);
	/* Nothing was touched yet. */
	assert_false(bf_memory_cut(memory));
	errno = 4711;
	assert_int_equal(*byte(memory, 5 * PAGE + 100), 0);
	assert_int_equal(errno, 4711);
	assert_true(bf_memory_cut(memory));
	assert_false(bf_memory_cut(other));
	assert_false(bf_memory_cut(other));
	assert_true(bf_memory_cut(memory));
	/* Writable, and private; what the file still has is the file's. */
	*byte(memory, 5 * PAGE) = 1;
	*byte(memory, 7 * PAGE) = 1;
	assert_int_equal(*byte(memory, 5 * PAGE), 1);
	assert_int_equal(*byte(memory, 2 * PAGE), 0x42);
	*byte(memory, 2 * PAGE) = 0x43;
	assert_int_equal(ftruncate(fds[0], 8 * PAGE), 0);
	assert_int_equal(*byte(memory, 5 * PAGE), 1);
	{
		uint8_t seen[2];

		assert_int_equal(pread(fds[0], seen, 1, 5 * PAGE), 1);
		assert_int_equal(pread(fds[0], seen + 1, 1, 2 * PAGE), 1);
		assert_int_equal(seen[0], 0);
		assert_int_equal(seen[1], 0x43);
	}
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(*byte(other, i * PAGE), 0x42);

	/* A map that shares the broken mapping is cut too, and one made anew is not. */
	{
		const struct bf_memory_region region = {
			.gpa = 0x5000000, .size = PAGE, .uva = 0x5000000, .fd = dup(fds[1])
		};
		struct bf_memory *more, *again;

		assert_int_equal(bf_memory_with(memory, &region, &more), 0);
		assert_true(bf_memory_cut(more));
		bf_memory_unref(more);
		again = memory_of(fds, 2, 8);
		assert_false(bf_memory_cut(again));
		bf_memory_unref(again);
	}
	bf_memory_unref(memory);
	bf_memory_unref(other);
	close(fds[0]);
	close(fds[1]);
	assert_int_equal(count_mappings("bf-cut"), 0);
}

/* More mappings than a piece of the table has; each of them is found, also where others went. */
static void many_mappings(void **state)
{
	enum { NR = 1200 };
	static struct bf_memory *maps[NR];
	int fd = make_memfd("bf-many", 4 * PAGE, 0);

	(void)state;
	guarded();
	for (unsigned i = 0; i < NR; i++)
		maps[i] = memory_of(&fd, 1, 4);
	for (unsigned i = 0; i < NR; i += 3) {
		bf_memory_unref(maps[i]);
		maps[i] = memory_of(&fd, 1, 4);
	}
	assert_int_equal(ftruncate(fd, PAGE), 0);
	for (unsigned i = 0; i < NR; i++) {
		if (i % 2)
			assert_int_equal(*byte(maps[i], 3 * PAGE), 0);
		assert_int_equal(bf_memory_cut(maps[i]), i % 2);
	}
	for (unsigned i = 0; i < NR; i++)
		bf_memory_unref(maps[i]);
	close(fd);
}

/* Threads that touch what is cut while others map and unmap. */
static void *touch(void *arg)
{
	for (unsigned round = 0; round < 200; round++) {
		int fd = make_memfd("bf-touch", 4 * PAGE, 0);
		struct bf_memory *memory = memory_of(&fd, 1, 4);

		for (unsigned i = 0; i < 4; i++)
			*byte(memory, i * PAGE) = (uint8_t)(round + i);
		assert_int_equal(ftruncate(fd, 2 * PAGE), 0);
		assert_int_equal(*byte(memory, 3 * PAGE), 0);
		assert_int_equal(*byte(memory, 1 * PAGE), (uint8_t)(round + 1));
		assert_true(bf_memory_cut(memory));
		bf_memory_unref(memory);
		close(fd);
	}
	return arg;
}

static void threads(void **state)
{
	pthread_t ids[4];

	(void)state;
	guarded();
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&ids[i], NULL, touch, NULL), 0);
	for (unsigned i = 0; i < 4; i++)
		pthread_join(ids[i], NULL);
	assert_int_equal(count_mappings("bf-touch"), 0);
}

/* --- signals that are not ours: in children, where the guard is the first thing or the second --- */

static volatile sig_atomic_t before_ran;

static void one_argument(int sig)
{
	before_ran = sig;
}

static void three_arguments(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	_exit(info->si_code == BUS_ADRERR ? 33 : 34);
}

/* Touch a page behind the end of a file that is no memory of a map. */
static void touch_foreign(void)
{
	int fd = make_memfd("bf-foreign", PAGE, 0);
	volatile uint8_t *map = mmap(NULL, 2 * PAGE, PROT_READ, MAP_SHARED, fd, 0);

	(void)map[PAGE];
}

static void foreign_with_default(void)
{
	signal(SIGBUS, SIG_DFL);
	bf_memory_guard();
	touch_foreign();
}

static void foreign_ignored(void)
{
	signal(SIGBUS, SIG_IGN);
	bf_memory_guard();
	touch_foreign();
}

static void foreign_with_handler(void)
{
	struct sigaction action = { .sa_sigaction = three_arguments, .sa_flags = SA_SIGINFO };

	sigaction(SIGBUS, &action, NULL);
	bf_memory_guard();
	touch_foreign();
}

/* Our own mapping, cut; and the handler before is not asked. */
static void ours_with_handler(void)
{
	struct sigaction action = { .sa_sigaction = three_arguments, .sa_flags = SA_SIGINFO };
	int fd = make_memfd("bf-cut", 2 * PAGE, 0);
	struct bf_memory *memory;

	sigaction(SIGBUS, &action, NULL);
	bf_memory_guard();
	memory = memory_of(&fd, 1, 2);
	if (ftruncate(fd, PAGE) < 0)
		_exit(35);
	_exit(*byte(memory, PAGE) ? 36 : 7);
}

static void sent_with_default(void)
{
	signal(SIGBUS, SIG_DFL);
	bf_memory_guard();
	raise(SIGBUS);
}

static void sent_ignored(void)
{
	signal(SIGBUS, SIG_IGN);
	bf_memory_guard();
	raise(SIGBUS);
	_exit(7);
}

static void sent_with_handler(void)
{
	signal(SIGBUS, one_argument);
	bf_memory_guard();
	raise(SIGBUS);
	_exit(before_ran == SIGBUS ? 7 : 37);
}

/* A mapping that was taken out is not ours any more, though something else lies there now. */
static void after_the_map_is_gone(void)
{
	int fd = make_memfd("bf-cut", 2 * PAGE, 0);
	struct bf_memory *memory;
	volatile uint8_t *hva;

	signal(SIGBUS, SIG_DFL);
	bf_memory_guard();
	memory = memory_of(&fd, 1, 2);
	hva = byte(memory, 0);
	bf_memory_unref(memory);
	if (ftruncate(fd, PAGE) < 0 || mmap((void *)(uintptr_t)hva, 2 * PAGE, PROT_READ,
					    MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
		_exit(38);
	(void)hva[PAGE];
}

/* The exit status of a child that does this, or minus the signal that ended it. */
static int child(void (*body)(void))
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		const struct rlimit none = { 0, 0 };

		setrlimit(RLIMIT_CORE, &none);
		body();
		_exit(99);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return -1000;
	return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static const struct {
	void (*body)(void);
	int expected;
} children[] = {
	{ foreign_with_default, -SIGBUS }, { foreign_ignored, -SIGBUS },
	{ foreign_with_handler, 33 },      { ours_with_handler, 7 },
	{ sent_with_default, -SIGBUS },    { sent_ignored, 7 },
	{ sent_with_handler, 7 },          { after_the_map_is_gone, -SIGBUS },
};
#define NR_CHILDREN (sizeof(children) / sizeof(children[0]))
static int results[NR_CHILDREN];

static void other_signals_mean_what_they_did(void **state)
{
	(void)state;
	for (unsigned i = 0; i < NR_CHILDREN; i++)
		if (results[i] != children[i].expected)
			fail_msg("child %u: %d, expected %d", i, results[i], children[i].expected);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(other_signals_mean_what_they_did),
		cmocka_unit_test(a_cut_file_is_an_error_of_its_map),
		cmocka_unit_test(many_mappings),
		cmocka_unit_test(threads),
	};

	/* While nobody has a handler; the guard is for good. */
	for (unsigned i = 0; i < NR_CHILDREN; i++)
		results[i] = child(children[i].body);
	if (bf_memory_guard() || sigaction(SIGBUS, NULL, &ours) < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
