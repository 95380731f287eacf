/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * I/O by a pool of threads, for where io_uring is refused (sysctl, seccomp in containers). The pool
 * belongs to one queue thread; its threads touch only requests that were submitted.
 *
 * One lock guards both lists. nr_done is also read without it: that look is all the queue thread
 * does while it spins. The eventfd is signalled only when the queue thread is about to sleep.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "io.h"

#define POOL_THREADS 4

struct list {
	struct blk_io_req *first;
	struct blk_io_req **tail;
};

struct pool {
	struct blk_io io;
	struct list added; /* queue thread only */
	unsigned nr_done;  /* atomic; finished and not reaped */
	pthread_mutex_t lock;
	pthread_cond_t todo_cond;
	struct list todo; /* from here on: under the lock */
	struct list done;
	bool armed;
	bool signalled;
	bool ending;
	unsigned nr_threads; /* control */
	pthread_t threads[POOL_THREADS];
};

static struct pool *from_io(struct blk_io *io)
{
	return (struct pool *)io;
}

static void list_init(struct list *list)
{
	list->first = NULL;
	list->tail = &list->first;
}

static void list_add(struct list *list, struct blk_io_req *req)
{
	req->next = NULL;
	*list->tail = req;
	list->tail = &req->next;
}

static struct blk_io_req *list_take(struct list *list)
{
	struct blk_io_req *req = list->first;

	list->first = req->next;
	if (!list->first)
		list->tail = &list->first;
	return req;
}

static void list_join(struct list *to, struct list *from)
{
	if (!from->first)
		return;
	*to->tail = from->first;
	to->tail = from->tail;
	list_init(from);
}

static int64_t run_once(int fd, const struct blk_io_req *req)
{
	int64_t ret;

	switch (req->op) {
	case BLK_OP_READ:
		ret = preadv(fd, req->iov, (int)req->nr_iov, (off_t)req->offset);
		break;
	case BLK_OP_WRITE:
		ret = pwritev2(fd, req->iov, (int)req->nr_iov, (off_t)req->offset,
			       req->durable ? RWF_DSYNC : 0);
		break;
	default:
		ret = fdatasync(fd);
	}
	return ret < 0 ? -errno : ret;
}

static void finish(struct pool *pool, struct blk_io_req *req)
{
	uint64_t one = 1;

	list_add(&pool->done, req);
	__atomic_add_fetch(&pool->nr_done, 1, __ATOMIC_RELEASE);
	if (!pool->armed)
		return;
	pool->armed = false;
	/* An eventfd at 0 takes a 1 without waiting. */
	pool->signalled = write(pool->io.poll_fd, &one, sizeof(one)) == sizeof(one);
}

static void *work(void *arg)
{
	struct pool *pool = arg;
	struct blk_io_req *req;

	pthread_mutex_lock(&pool->lock);
	for (;;) {
		while (!pool->todo.first && !pool->ending)
			pthread_cond_wait(&pool->todo_cond, &pool->lock);
		if (!pool->todo.first)
			break;
		req = list_take(&pool->todo);
		pthread_mutex_unlock(&pool->lock);
		while (!blk_io_step(req, run_once(pool->io.file_fd, req)))
			;
		pthread_mutex_lock(&pool->lock);
		finish(pool, req);
	}
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}

static void pool_close(struct blk_io *io)
{
	struct pool *pool = from_io(io);
	unsigned i;

	pthread_mutex_lock(&pool->lock);
	pool->ending = true;
	pthread_cond_broadcast(&pool->todo_cond);
	pthread_mutex_unlock(&pool->lock);
	for (i = 0; i < pool->nr_threads; i++)
		pthread_join(pool->threads[i], NULL);
	pthread_cond_destroy(&pool->todo_cond);
	pthread_mutex_destroy(&pool->lock);
	close(io->poll_fd);
	free(pool);
}

static int pool_open(struct blk_io **io, int file_fd, unsigned depth)
{
	struct pool *pool = calloc(1, sizeof(*pool));
	unsigned nr = depth < POOL_THREADS ? depth : POOL_THREADS;
	int ret = 0;

	if (!pool)
		return -ENOMEM;
	pool->io.ops = &blk_io_threads_ops;
	pool->io.file_fd = file_fd;
	pool->io.poll_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (pool->io.poll_fd < 0) {
		ret = -errno;
		free(pool);
		return ret;
	}
	list_init(&pool->added);
	list_init(&pool->todo);
	list_init(&pool->done);
	pthread_mutex_init(&pool->lock, NULL);
	pthread_cond_init(&pool->todo_cond, NULL);
	while (!ret && pool->nr_threads < nr) {
		ret = -pthread_create(&pool->threads[pool->nr_threads], NULL, work, pool);
		pool->nr_threads += !ret;
	}
	/* Fewer threads than wished are slower; none are no engine. */
	if (!pool->nr_threads) {
		pool_close(&pool->io);
		return ret;
	}
	*io = &pool->io;
	return 0;
}

static void pool_add(struct blk_io *io, struct blk_io_req *req)
{
	list_add(&from_io(io)->added, req);
}

static bool pool_submit(struct blk_io *io)
{
	struct pool *pool = from_io(io);

	if (!pool->added.first)
		return true;
	pthread_mutex_lock(&pool->lock);
	list_join(&pool->todo, &pool->added);
	pthread_cond_broadcast(&pool->todo_cond);
	pthread_mutex_unlock(&pool->lock);
	return true;
}

static struct blk_io_req *pool_reap(struct blk_io *io)
{
	struct pool *pool = from_io(io);
	struct blk_io_req *list;
	uint64_t count;

	if (!__atomic_load_n(&pool->nr_done, __ATOMIC_ACQUIRE))
		return NULL;
	pthread_mutex_lock(&pool->lock);
	list = pool->done.first;
	list_init(&pool->done);
	__atomic_store_n(&pool->nr_done, 0, __ATOMIC_RELAXED);
	pool->armed = false;
	if (pool->signalled && read(io->poll_fd, &count, sizeof(count)) == sizeof(count))
		pool->signalled = false;
	pthread_mutex_unlock(&pool->lock);
	return list;
}

static bool pool_ready(struct blk_io *io)
{
	return __atomic_load_n(&from_io(io)->nr_done, __ATOMIC_ACQUIRE) > 0;
}

static bool pool_arm(struct blk_io *io)
{
	struct pool *pool = from_io(io);
	bool finished;

	pthread_mutex_lock(&pool->lock);
	finished = pool->done.first != NULL;
	pool->armed = !finished;
	pthread_mutex_unlock(&pool->lock);
	return finished;
}

const struct blk_io_ops blk_io_threads_ops = {
	.name = "threads",
	.open = pool_open,
	.close = pool_close,
	.add = pool_add,
	.submit = pool_submit,
	.reap = pool_reap,
	.ready = pool_ready,
	.arm = pool_arm,
};
