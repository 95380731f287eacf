/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An epoll loop. Owns the table of callbacks, indexed by fd.
 *
 * An event carries its fd and the generation of that entry: an event that was fetched before the
 * entry was removed, or before the fd number was used again, no longer matches and is dropped.
 * Callbacks run without the lock.
 */
#include "event_loop.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define BATCH 16

struct entry {
	void (*fn)(void *opaque, uint32_t events); /* NULL: free */
	void *opaque;
	uint32_t generation;
};

struct event_loop {
	int epoll_fd;
	bool quit; /* loop's thread only */
	pthread_mutex_t lock;
	struct entry *entries;
	unsigned nr_entries;
};

int event_loop_new(struct event_loop **out)
{
	struct event_loop *loop = calloc(1, sizeof(*loop));

	if (!loop)
		return -ENOMEM;
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (loop->epoll_fd < 0) {
		int rc = -errno;

		free(loop);
		return rc;
	}
	pthread_mutex_init(&loop->lock, NULL);
	*out = loop;
	return 0;
}

void event_loop_free(struct event_loop *loop)
{
	if (!loop)
		return;
	close(loop->epoll_fd);
	pthread_mutex_destroy(&loop->lock);
	free(loop->entries);
	free(loop);
}

static int make_room(struct event_loop *loop, unsigned fd)
{
	unsigned nr = loop->nr_entries ? loop->nr_entries : 16;
	struct entry *grown;

	if (fd < loop->nr_entries)
		return 0;
	while (nr <= fd)
		nr *= 2;
	grown = realloc(loop->entries, nr * sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	memset(grown + loop->nr_entries, 0, (nr - loop->nr_entries) * sizeof(*grown));
	loop->entries = grown;
	loop->nr_entries = nr;
	return 0;
}

static int insert(struct event_loop *loop, int fd, uint32_t events, const struct entry *entry)
{
	struct epoll_event ev = { .events = events };
	struct entry *slot;
	int rc = make_room(loop, (unsigned)fd);

	if (rc)
		return rc;
	slot = &loop->entries[fd];
	if (slot->fn)
		return -EEXIST;
	ev.data.u64 = (uint64_t)(slot->generation + 1) << 32 | (uint32_t)fd;
	if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0)
		return -errno;
	slot->generation++;
	slot->fn = entry->fn;
	slot->opaque = entry->opaque;
	return 0;
}

int event_loop_add(struct event_loop *loop, int fd, uint32_t events,
		   void (*fn)(void *opaque, uint32_t events), void *opaque)
{
	const struct entry entry = { .fn = fn, .opaque = opaque };
	int rc;

	if (fd < 0)
		return -EBADF;
	pthread_mutex_lock(&loop->lock);
	rc = insert(loop, fd, events, &entry);
	pthread_mutex_unlock(&loop->lock);
	return rc;
}

void event_loop_del(struct event_loop *loop, int fd)
{
	if (fd < 0)
		return;
	pthread_mutex_lock(&loop->lock);
	if ((unsigned)fd < loop->nr_entries && loop->entries[fd].fn) {
		loop->entries[fd].fn = NULL;
		epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
	}
	pthread_mutex_unlock(&loop->lock);
}

static void dispatch(struct event_loop *loop, const struct epoll_event *ev)
{
	const uint32_t fd = (uint32_t)ev->data.u64;
	const uint32_t generation = (uint32_t)(ev->data.u64 >> 32);
	struct entry entry = { .fn = NULL };

	pthread_mutex_lock(&loop->lock);
	if (fd < loop->nr_entries && loop->entries[fd].generation == generation)
		entry = loop->entries[fd];
	pthread_mutex_unlock(&loop->lock);
	if (entry.fn)
		entry.fn(entry.opaque, ev->events);
}

int event_loop_run(struct event_loop *loop)
{
	struct epoll_event ev[BATCH];
	int i, n;

	while (!loop->quit) {
		n = epoll_wait(loop->epoll_fd, ev, BATCH, -1);
		if (n < 0 && errno != EINTR)
			return -errno;
		for (i = 0; i < n && !loop->quit; i++)
			dispatch(loop, &ev[i]);
	}
	loop->quit = false;
	return 0;
}

void event_loop_quit(struct event_loop *loop)
{
	loop->quit = true;
}
