/* SPDX-License-Identifier: BSD-3-Clause */
/* vmm/base/safe_store.c: what is stored, and a page that is not there any more. */
#include "unit/support.h"

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/wait.h>

#include "vmm/base/safe_store.h"

static void every_width_at_every_place(void **state)
{
	static const uint8_t data[8] = { 1, 2, 3, 4, 5, 6, 7, 8 };
	uint8_t room[24];

	(void)state;
	for (unsigned len = 1; len <= 8; len++) {
		for (unsigned at = 0; at < 16; at++) {
			memset(room, 0xee, sizeof(room));
			assert_true(safe_store(room + at, data, len));
			assert_memory_equal(room + at, data, len);
			assert_true(at == 0 || room[at - 1] == 0xee);
			assert_int_equal(room[at + len], 0xee);
		}
	}
}

struct vanished {
	uint8_t *page;
	int fd;
};

static void vanish(struct vanished *v)
{
	v->fd = make_memfd("vanishes", 4096, 0);
	v->page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
	if (v->page == MAP_FAILED || ftruncate(v->fd, 0))
		abort();
}

static void *in_a_thread(void *opaque)
{
	struct vanished *v = opaque;
	uint16_t value = 7;

	for (unsigned i = 0; i < 100; i++)
		if (safe_store(v->page + 2, &value, 2))
			return v;
	return NULL;
}

/* The framework takes SIGBUS for itself while a test runs, so this has run before. */
static struct {
	bool stored, stored_in_thread, stored_when_back;
	int others_status; /* of a process whose plain store failed */
} seen;

static void look(void)
{
	pthread_t threads[4];
	struct vanished v;
	void *stored;
	pid_t pid;

	vanish(&v);
	seen.stored = in_a_thread(&v) != NULL;
	for (unsigned i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, in_a_thread, &v);
	for (unsigned i = 0; i < 4; i++) {
		pthread_join(threads[i], &stored);
		seen.stored_in_thread |= stored != NULL;
	}
	pid = fork();
	if (!pid) {
		*(volatile uint8_t *)v.page = 1;
		_exit(0);
	}
	waitpid(pid, &seen.others_status, 0);
	seen.stored_when_back = !ftruncate(v.fd, 4096) && in_a_thread(&v);
	munmap(v.page, 4096);
	close(v.fd);
}

static void a_page_that_has_gone(void **state)
{
	(void)state;
	assert_false(seen.stored);
	assert_false(seen.stored_in_thread);
	assert_true(seen.stored_when_back);
}

/* Only its own stores are forgiven. */
static void a_store_of_anybody_else(void **state)
{
	(void)state;
	assert_true(WIFSIGNALED(seen.others_status));
	assert_int_equal(WTERMSIG(seen.others_status), SIGBUS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_width_at_every_place),
		cmocka_unit_test(a_page_that_has_gone),
		cmocka_unit_test(a_store_of_anybody_else),
	};

	look();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
