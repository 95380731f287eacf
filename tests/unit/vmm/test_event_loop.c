/* SPDX-License-Identifier: BSD-3-Clause */
/* The event loop: removal inside a batch, fd numbers used again, files that can not be polled. */
#include "unit/support.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "vmm/base/event_loop.h"

struct watcher {
	struct event_loop *loop;
	int fd;
	struct watcher *other; /* removed by the callback */
	unsigned nr_calls;
	unsigned quit_after;
};

static void on_ready(void *opaque, uint32_t events)
{
	struct watcher *w = opaque;
	uint64_t count;

	assert_true(events & EPOLLIN);
	assert_int_equal(read(w->fd, &count, sizeof(count)), sizeof(count));
	w->nr_calls++;
	if (w->other) {
		event_loop_del(w->loop, w->other->fd);
		close(w->other->fd);
		/* The same number again, signalled as the old one was: the old event must not hit
		 * it. */
		assert_int_equal(eventfd(0, EFD_NONBLOCK), w->other->fd);
		assert_int_equal(event_loop_add(w->loop, w->other->fd, EPOLLIN, on_ready, w->other),
				 0);
		w->other = NULL;
	}
	if (w->nr_calls == w->quit_after)
		event_loop_quit(w->loop);
}

static struct watcher watch(struct event_loop *loop)
{
	return (struct watcher){ .loop = loop, .fd = eventfd(1, EFD_NONBLOCK) };
}

static void calls_until_quit(void **state)
{
	const unsigned fds = count_fds();
	struct event_loop *loop = NULL;
	struct watcher w;

	(void)state;
	assert_int_equal(event_loop_new(&loop), 0);
	w = watch(loop);
	w.quit_after = 1;
	assert_int_equal(event_loop_add(loop, w.fd, EPOLLIN, on_ready, &w), 0);
	assert_int_equal(event_loop_add(loop, w.fd, EPOLLIN, on_ready, &w), -EEXIST);
	assert_int_equal(event_loop_run(loop), 0);
	assert_int_equal(w.nr_calls, 1);
	event_loop_del(loop, w.fd);
	event_loop_del(loop, w.fd);
	event_loop_del(loop, -1);
	event_loop_del(loop, 5000);
	close(w.fd);
	event_loop_free(loop);
	assert_int_equal(count_fds(), fds);
}

static void removed_means_not_called(void **state)
{
	struct event_loop *loop = NULL;
	struct watcher a, b;

	(void)state;
	assert_int_equal(event_loop_new(&loop), 0);
	a = watch(loop);
	b = watch(loop);
	a.other = &b;
	a.quit_after = b.quit_after = 1;
	assert_int_equal(event_loop_add(loop, a.fd, EPOLLIN, on_ready, &a), 0);
	assert_int_equal(event_loop_add(loop, b.fd, EPOLLIN, on_ready, &b), 0);
	assert_int_equal(event_loop_run(loop), 0);
	assert_int_equal(a.nr_calls, 1);
	assert_int_equal(b.nr_calls, 0);
	close(a.fd);
	close(b.fd);
	event_loop_free(loop);
}

static void refuses_what_it_can_not_watch(void **state)
{
	struct event_loop *loop = NULL;
	int fd = open("/proc/self/exe", O_RDONLY);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(event_loop_new(&loop), 0);
	assert_int_equal(event_loop_add(loop, fd, EPOLLIN, on_ready, NULL), -EPERM);
	assert_int_equal(event_loop_add(loop, -1, EPOLLIN, on_ready, NULL), -EBADF);
	close(fd);
	event_loop_free(loop);
	event_loop_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(calls_until_quit),
		cmocka_unit_test(removed_means_not_called),
		cmocka_unit_test(refuses_what_it_can_not_watch),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
