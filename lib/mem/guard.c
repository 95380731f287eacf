/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Surviving a file that shrinks under its mapping.
 *
 * A touch behind the end of a file raises SIGBUS in the thread that did it. The handler puts a page of
 * zeroes in its place, marks the mapping as cut, and returns: the access is made again and succeeds. It runs
 * on any thread, at any access to guest memory, and so must not lock, allocate, or touch anything but the
 * table below and its mapping. mmap() is a plain system call, as good in a handler as read().
 *
 * "The table." Chunks of slots, appended and never freed. A slot's base says whether it is in use. A handler
 * announces itself in `readers`, and only then loads the base; bf_guard_remove() clears the base and then
 * waits for readers to go. One of the two sees the other (all of it sequentially consistent), so no handler
 * works with a slot, or its mapping, that remove() has returned for. Adding and removing take a lock among
 * themselves; handlers never do.
 */
#include "guard.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <belfry/memory.h>

#include "map.h"

#define CHUNK 512u

struct slot {
	uintptr_t base;   /* atomic; 0: free */
	unsigned readers; /* atomic: handlers that look at it */
	size_t len, page;
	bool *cut;
};

struct chunk {
	struct slot slots[CHUNK];
	struct chunk *next; /* atomic */
};

static struct chunk first;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool installed;
static struct sigaction before;

unsigned bf_guard_cuts;

/* The free slot with the lowest number, and that number. With @lock. */
static struct slot *find_free(int *number)
{
	struct chunk *chunk = &first;

	for (*number = 0;; chunk = chunk->next) {
		for (unsigned i = 0; i < CHUNK; i++, ++*number)
			if (!chunk->slots[i].base)
				return &chunk->slots[i];
		if (!chunk->next) {
			struct chunk *made = calloc(1, sizeof(*made));

			if (!made)
				return NULL;
			/* Release: zeroes before the link. Partner: the handler's load of it. */
			__atomic_store_n(&chunk->next, made, __ATOMIC_RELEASE);
		}
	}
}

void bf_guard_add(struct bf_guarded *guarded, void *base, size_t len, size_t page, bool *cut)
{
	struct slot *slot;
	int number;

	guarded->slot = -1;
	pthread_mutex_lock(&lock);
	slot = find_free(&number);
	if (slot) {
		slot->len = len;
		slot->page = page;
		slot->cut = cut;
		/* Last: from here on the handler may use the rest. */
		__atomic_store_n(&slot->base, (uintptr_t)base, __ATOMIC_SEQ_CST);
		guarded->slot = number;
	}
	pthread_mutex_unlock(&lock);
}

void bf_guard_remove(struct bf_guarded *guarded)
{
	int number = guarded->slot;
	struct chunk *chunk = &first;
	struct slot *slot;

	if (number < 0)
		return;
	guarded->slot = -1;
	pthread_mutex_lock(&lock);
	for (; number >= (int)CHUNK; number -= (int)CHUNK)
		chunk = chunk->next;
	slot = &chunk->slots[number];
	__atomic_store_n(&slot->base, 0, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&slot->readers, __ATOMIC_SEQ_CST))
		sched_yield();
	pthread_mutex_unlock(&lock);
}

/* Handler. If @slot's mapping has @address: is there a page of ours now? */
static bool mend(struct slot *slot, uintptr_t address)
{
	uintptr_t base;
	bool mended = false;

	/* Most slots are empty; a stale look at one costs nothing but the next look. */
	if (!__atomic_load_n(&slot->base, __ATOMIC_RELAXED))
		return false;
	__atomic_add_fetch(&slot->readers, 1, __ATOMIC_SEQ_CST);
	base = __atomic_load_n(&slot->base, __ATOMIC_SEQ_CST);
	if (base && address - base < slot->len) {
		uintptr_t page = base + ((address - base) & ~(slot->page - 1));

		mended = mmap((void *)page, slot->page, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
			      0) != MAP_FAILED;
		if (mended) {
			__atomic_store_n(slot->cut, true, __ATOMIC_RELAXED);
			/* Release: the flag before the count. Partner: bf_memory_cut(). */
			__atomic_add_fetch(&bf_guard_cuts, 1, __ATOMIC_RELEASE);
		}
	}
	__atomic_sub_fetch(&slot->readers, 1, __ATOMIC_SEQ_CST);
	return mended;
}

static bool mend_any(uintptr_t address)
{
	struct chunk *chunk = &first;

	for (; chunk; chunk = __atomic_load_n(&chunk->next, __ATOMIC_ACQUIRE))
		for (unsigned i = 0; i < CHUNK; i++)
			if (mend(&chunk->slots[i], address))
				return true;
	return false;
}

/* Handler. A signal that is not for us has the effect that it would have had. */
static void pass_on(int sig, siginfo_t *info, void *context)
{
	struct sigaction dfl = { .sa_handler = SIG_DFL };

	if (before.sa_flags & SA_SIGINFO) {
		before.sa_sigaction(sig, info, context);
		return;
	}
	if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) {
		before.sa_handler(sig);
		return;
	}
	/* The kernel does not let a fault be ignored; a signal of somebody's it does. */
	if (before.sa_handler == SIG_IGN && info->si_code <= 0)
		return;
	sigaction(sig, &dfl, NULL);
	/* A fault comes again by itself; what somebody sent has to be sent again. */
	if (info->si_code <= 0)
		raise(sig);
}

static void handle(int sig, siginfo_t *info, void *context)
{
	int saved = errno;

	if (info->si_code != BUS_ADRERR || !mend_any((uintptr_t)info->si_addr))
		pass_on(sig, info, context);
	errno = saved;
}

int bf_memory_guard(void)
{
	struct sigaction action = { .sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_ONSTACK };
	int ret = 0;

	sigemptyset(&action.sa_mask);
	pthread_mutex_lock(&lock);
	if (!installed) {
		/* Known before ours is in force: another thread may fault at once. */
		if (sigaction(SIGBUS, NULL, &before) < 0 || sigaction(SIGBUS, &action, NULL) < 0)
			ret = -errno;
		installed = !ret;
	}
	pthread_mutex_unlock(&lock);
	return ret;
}

/* Something was cut since this map was last looked at: was it one of its own? */
static bool __attribute__((cold, noinline)) look(struct bf_memory *map, unsigned cuts)
{
	bool cut = false;

	for (unsigned i = 0; i < map->nr && !cut; i++)
		cut = __atomic_load_n(&map->mappings[i]->cut, __ATOMIC_RELAXED);
	/* What is cut stays cut, so a thread that is late with an older count does no harm. */
	if (cut)
		__atomic_store_n(&map->cut, true, __ATOMIC_RELAXED);
	else
		__atomic_store_n(&map->cuts_seen, cuts, __ATOMIC_RELAXED);
	return cut;
}

bool bf_memory_cut(const struct bf_memory *map)
{
	unsigned cuts = __atomic_load_n(&bf_guard_cuts, __ATOMIC_ACQUIRE);

	if (__builtin_expect(cuts == __atomic_load_n(&map->cuts_seen, __ATOMIC_RELAXED), 1))
		return false;
	if (__atomic_load_n(&map->cut, __ATOMIC_RELAXED))
		return true;
	/* The two fields are what was found out about an immutable map. */
	return look((struct bf_memory *)(uintptr_t)map, cuts);
}
