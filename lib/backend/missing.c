/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Mappings whose pages may be missing, see missing.h.
 *
 * Control context; bf_missing_give_up() on any, for which there is the lock. Must not touch the memory
 * itself: whoever gives it up would sleep with the others.
 */
#include "missing.h"

#include <errno.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "../base/fd.h"

struct bf_missing {
	pthread_mutex_t lock;
	int uffd;     /* borrowed; -1: not begun */
	int empty_fd; /* a file without any page; made beforehand, as giving up must not fail */
	bool given_up;
	unsigned nr;
	struct bf_mapping *mappings[BF_MAX_REGIONS]; /* [nr], counted */
};

int bf_missing_new(struct bf_missing **missing)
{
	struct bf_missing *made = calloc(1, sizeof(*made));

	if (!made)
		return -ENOMEM;
	pthread_mutex_init(&made->lock, NULL);
	made->uffd = made->empty_fd = -1;
	*missing = made;
	return 0;
}

void bf_missing_free(struct bf_missing *missing)
{
	if (!missing)
		return;
	bf_missing_end(missing);
	pthread_mutex_destroy(&missing->lock);
	free(missing);
}

static struct uffdio_range range_of(const struct bf_mapping *mapping)
{
	return (struct uffdio_range){ (uintptr_t)mapping->base, mapping->len };
}

int bf_missing_begin(struct bf_missing *missing, int uffd)
{
	int empty_fd = memfd_create("belfry-missing", MFD_CLOEXEC);

	if (empty_fd < 0)
		return -errno;
	bf_missing_end(missing);
	pthread_mutex_lock(&missing->lock);
	missing->uffd = uffd;
	missing->empty_fd = empty_fd;
	missing->given_up = false;
	pthread_mutex_unlock(&missing->lock);
	return 0;
}

void bf_missing_end(struct bf_missing *missing)
{
	pthread_mutex_lock(&missing->lock);
	for (unsigned i = 0; i < missing->nr; i++) {
		struct uffdio_range range = range_of(missing->mappings[i]);

		/* Wakes sleepers: the front end may keep the userfaultfd open, and serve nothing. */
		if (!missing->given_up)
			(void)ioctl(missing->uffd, UFFDIO_UNREGISTER, &range);
		bf_mapping_unref(missing->mappings[i]);
	}
	missing->nr = 0;
	missing->uffd = -1;
	bf_fd_close(&missing->empty_fd);
	pthread_mutex_unlock(&missing->lock);
}

/* Those of tables before, that no request uses any more. */
static void forget_unused(struct bf_missing *missing)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < missing->nr; i++) {
		struct bf_mapping *mapping = missing->mappings[i];

		/* Ours is the only count, and control is the only one who gives away others. */
		if (__atomic_load_n(&mapping->refs, __ATOMIC_ACQUIRE) == 1)
			bf_mapping_unref(mapping);
		else
			missing->mappings[kept++] = mapping;
	}
	missing->nr = kept;
}

static int watch(const struct bf_missing *missing, const struct bf_mapping *mapping)
{
	struct uffdio_register wanted = {
		.range = range_of(mapping),
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	/* A huge page could not come as the small ones that are missing. */
	(void)madvise(mapping->base, mapping->len, MADV_NOHUGEPAGE);
	if (ioctl(missing->uffd, UFFDIO_REGISTER, &wanted) < 0)
		return -errno;
	return wanted.ioctls & (1ull << _UFFDIO_COPY) ? 0 : -EOPNOTSUPP;
}

static int add(struct bf_missing *missing, struct bf_mapping *mapping)
{
	int ret;

	if (missing->uffd < 0 || missing->given_up)
		return -ECONNRESET;
	forget_unused(missing);
	for (unsigned i = 0; i < missing->nr; i++)
		if (missing->mappings[i] == mapping)
			return 0;
	if (missing->nr == BF_MAX_REGIONS)
		return -E2BIG;
	ret = watch(missing, mapping);
	if (!ret)
		missing->mappings[missing->nr++] = bf_mapping_ref(mapping);
	return ret;
}

int bf_missing_add(struct bf_missing *missing, struct bf_mapping *mapping)
{
	int ret;

	pthread_mutex_lock(&missing->lock);
	ret = add(missing, mapping);
	pthread_mutex_unlock(&missing->lock);
	return ret;
}

unsigned bf_missing_nr(const struct bf_missing *missing)
{
	return missing->nr;
}

void bf_missing_give_up(struct bf_missing *missing)
{
	pthread_mutex_lock(&missing->lock);
	for (unsigned i = 0; i < missing->nr && !missing->given_up; i++) {
		struct bf_mapping *mapping = missing->mappings[i];
		struct uffdio_range range = range_of(mapping);

		/*
		 * In this order. Who touches it later finds the new mapping; who sleeps looks again when
		 * woken, and finds it too.
		 */
		bf_mapping_cut_all(mapping, missing->empty_fd);
		(void)ioctl(missing->uffd, UFFDIO_WAKE, &range);
	}
	missing->given_up = true;
	pthread_mutex_unlock(&missing->lock);
}
