/* SPDX-License-Identifier: BSD-3-Clause */
/* See fail.h. Every wrapped function fails with an errno that the kernel or libc gives for it. */
#include "fail.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

static unsigned calls, wanted;
static const char *what;
static __thread bool armed;

/* Pointers by hash: allocated by an armed thread, freed by any. */
#define SLOTS 65536u
static void *alive[SLOTS];
static unsigned nr_alive;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void fail_at(unsigned nth)
{
	calls = 0;
	wanted = nth;
	what = NULL;
}

void fail_arm(void)
{
	armed = true;
}

void fail_disarm(void)
{
	armed = false;
}

const char *fail_what(void)
{
	return what;
}

unsigned fail_count(void)
{
	return calls;
}

unsigned fail_alive(void)
{
	return nr_alive;
}

static bool fails(const char *name, int error)
{
	if (!armed || ++calls != wanted)
		return false;
	what = name;
	errno = error;
	return true;
}

static unsigned slot_of(void *pointer)
{
	return (unsigned)(((uintptr_t)pointer >> 4) * 2654435761u) % SLOTS;
}

static void *keep(void *pointer)
{
	if (!armed || !pointer)
		return pointer;
	pthread_mutex_lock(&lock);
	for (unsigned i = slot_of(pointer);; i = (i + 1) % SLOTS)
		if (!alive[i]) {
			alive[i] = pointer;
			nr_alive++;
			break;
		}
	pthread_mutex_unlock(&lock);
	return pointer;
}

/* What lies behind a hole of the table may have been pushed there: put it in anew. */
static void forget(void *pointer)
{
	unsigned i = slot_of(pointer);

	pthread_mutex_lock(&lock);
	while (alive[i] && alive[i] != pointer)
		i = (i + 1) % SLOTS;
	if (alive[i]) {
		alive[i] = NULL;
		nr_alive--;
		for (i = (i + 1) % SLOTS; alive[i]; i = (i + 1) % SLOTS) {
			void *moved = alive[i];
			unsigned to = slot_of(moved);

			alive[i] = NULL;
			while (alive[to])
				to = (to + 1) % SLOTS;
			alive[to] = moved;
		}
	}
	pthread_mutex_unlock(&lock);
}

/* clang-format off */
#define WRAP(type, name, params) type __real_##name params; type __wrap_##name params; \
	type __wrap_##name params
/* clang-format on */

WRAP(void *, malloc, (size_t size))
{
	return fails("malloc", ENOMEM) ? NULL : keep(__real_malloc(size));
}

WRAP(void *, calloc, (size_t nr, size_t size))
{
	return fails("calloc", ENOMEM) ? NULL : keep(__real_calloc(nr, size));
}

WRAP(void *, aligned_alloc, (size_t align, size_t size))
{
	return fails("aligned_alloc", ENOMEM) ? NULL : keep(__real_aligned_alloc(align, size));
}

WRAP(void *, realloc, (void *former, size_t size))
{
	void *pointer;

	if (fails("realloc", ENOMEM))
		return NULL;
	pointer = __real_realloc(former, size);
	if (pointer && former)
		forget(former);
	return keep(pointer);
}

WRAP(void, free, (void *pointer))
{
	if (pointer)
		forget(pointer);
	__real_free(pointer);
}

/* With 64-bit file offsets the compiler calls some by another name. */
#define MMAP(name)                                                                              \
	WRAP(void *, name, (void *at, size_t len, int prot, int flags, int fd, off_t offset))   \
	{                                                                                       \
		return fails("mmap", ENOMEM) ? MAP_FAILED                                       \
					     : __real_##name(at, len, prot, flags, fd, offset); \
	}
MMAP(mmap)
MMAP(mmap64)

#define FTRUNCATE(name)                                                          \
	WRAP(int, name, (int fd, off_t len))                                     \
	{                                                                        \
		return fails("ftruncate", ENOMEM) ? -1 : __real_##name(fd, len); \
	}
FTRUNCATE(ftruncate)
FTRUNCATE(ftruncate64)

#define FSTAT(name)                                                         \
	WRAP(int, name, (int fd, struct stat *st))                          \
	{                                                                   \
		return fails("fstat", ENOMEM) ? -1 : __real_##name(fd, st); \
	}
FSTAT(fstat)
FSTAT(fstat64)

#define FCNTL(name)                                                                   \
	WRAP(int, name, (int fd, int command, ...))                                   \
	{                                                                             \
		va_list args;                                                         \
		unsigned long arg;                                                    \
                                                                                      \
		va_start(args, command);                                              \
		arg = va_arg(args, unsigned long);                                    \
		va_end(args);                                                         \
		return fails("fcntl", EMFILE) ? -1 : __real_##name(fd, command, arg); \
	}
FCNTL(fcntl)
FCNTL(fcntl64)

WRAP(int, memfd_create, (const char *name, unsigned flags))
{
	return fails("memfd_create", EMFILE) ? -1 : __real_memfd_create(name, flags);
}

WRAP(int, eventfd, (unsigned count, int flags))
{
	return fails("eventfd", EMFILE) ? -1 : __real_eventfd(count, flags);
}

WRAP(int, epoll_create1, (int flags))
{
	return fails("epoll_create1", EMFILE) ? -1 : __real_epoll_create1(flags);
}

WRAP(int, epoll_ctl, (int epoll, int op, int fd, struct epoll_event *event))
{
	/* Only adding allocates. */
	if (op == EPOLL_CTL_ADD && fails("epoll_ctl", ENOSPC))
		return -1;
	return __real_epoll_ctl(epoll, op, fd, event);
}

WRAP(ssize_t, sendmsg, (int fd, const struct msghdr *msg, int flags))
{
	return fails("sendmsg", ENOMEM) ? -1 : __real_sendmsg(fd, msg, flags);
}

WRAP(ssize_t, recvmsg, (int fd, struct msghdr *msg, int flags))
{
	return fails("recvmsg", ENOMEM) ? -1 : __real_recvmsg(fd, msg, flags);
}

WRAP(int, socketpair, (int domain, int type, int protocol, int pair[2]))
{
	return fails("socketpair", EMFILE) ? -1 : __real_socketpair(domain, type, protocol, pair);
}

WRAP(int, getsockopt, (int fd, int level, int name, void *value, socklen_t *len))
{
	return fails("getsockopt", ENOBUFS) ? -1 : __real_getsockopt(fd, level, name, value, len);
}
