/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Life of a worker, and what others may ask of it. Control context, except worker_poke() and
 * worker_wake(), which belong to any thread. Touches nothing of the thread's while it runs: it posts,
 * and waits where the caller needs to know that it was done.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "worker_thread.h"

/*
 * Partner: sleep() in worker_thread.c, which says that it sleeps and then looks at what is posted. What
 * is posted is stored before this, sequentially consistent like all four: one of us sees the other.
 */
void worker_wake(struct worker *worker)
{
	uint64_t one = 1;

	if (!atomic_load(&worker->sleeping))
		return;
	if (write(worker->wake_fd, &one, sizeof(one)) < 0)
		return; /* full: it is awake anyway */
}

/* Have @command done, and wait for that. */
static int command(struct worker *worker, struct worker_command *command)
{
	pthread_mutex_lock(&worker->turn);
	atomic_store(&worker->command, command);
	worker_wake(worker);
	pthread_mutex_lock(&worker->lock);
	while (!command->done)
		pthread_cond_wait(&worker->done, &worker->lock);
	pthread_mutex_unlock(&worker->lock);
	pthread_mutex_unlock(&worker->turn);
	return command->result;
}

static void destroy(struct worker *worker)
{
	unsigned i;

	for (i = 0; i < WORKER_NR_SETS; i++)
		free(worker->sets[i]);
	doorbell_table_done(&worker->doorbells);
	if (worker->epoll_fd >= 0)
		close(worker->epoll_fd);
	if (worker->wake_fd >= 0)
		close(worker->wake_fd);
	pthread_mutex_destroy(&worker->turn);
	pthread_mutex_destroy(&worker->lock);
	pthread_cond_destroy(&worker->done);
	free(worker);
}

static int open_fds(struct worker *worker)
{
	struct epoll_event event = { .events = EPOLLIN };

	worker->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	worker->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (worker->epoll_fd < 0 || worker->wake_fd < 0 ||
	    epoll_ctl(worker->epoll_fd, EPOLL_CTL_ADD, worker->wake_fd, &event))
		return -errno;
	return 0;
}

int worker_new(enum worker_mode mode, const char *name, unsigned idx, struct worker **worker)
{
	struct worker *w = calloc(1, sizeof(*w));
	char thread_name[16];
	int ret;

	if (!w)
		return -ENOMEM;
	w->mode = mode;
	w->alone = spin_usable_cpus() == 1;
	w->epoll_fd = w->wake_fd = -1;
	pthread_mutex_init(&w->turn, NULL);
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->done, NULL);
	ret = open_fds(w);
	if (!ret)
		ret = -pthread_create(&w->thread, NULL, worker_thread, w);
	if (ret) {
		destroy(w);
		return ret;
	}
	snprintf(thread_name, sizeof(thread_name), "%s %u", name, idx);
	pthread_setname_np(w->thread, thread_name);
	*worker = w;
	return 0;
}

void worker_free(struct worker *worker)
{
	struct worker_command end = { .kind = WORKER_END };

	if (!worker)
		return;
	command(worker, &end);
	pthread_join(worker->thread, NULL);
	destroy(worker);
}

int worker_add(struct worker *worker, struct worker_queue *queue)
{
	struct worker_command add = { .kind = WORKER_ADD, .queue = queue };

	atomic_store(&queue->doorbell, queue->word ? DOORBELL_PENDING : DOORBELL_OFF);
	return command(worker, &add);
}

void worker_remove(struct worker_queue *queue, void (*finish)(struct worker_queue *queue))
{
	struct worker_command remove = { .kind = WORKER_REMOVE, .queue = queue, .finish = finish };
	struct worker *worker = atomic_load(&queue->worker);

	if (worker)
		command(worker, &remove);
}

void worker_set_doorbell(struct worker_queue *queue, enum stats_doorbell state)
{
	atomic_store(&queue->doorbell, (int)state);
	worker_poke(queue);
}

/*
 * A list that anybody adds to and the worker takes as a whole, so that no element of it can be taken and
 * come back under an adder's eyes. `poked` makes sure that a queue is on one list at most: it is cleared by
 * who took it off, before the queue is served.
 */
void worker_poke(struct worker_queue *queue)
{
	struct worker *worker = atomic_load(&queue->worker);
	struct worker_queue *first;

	if (!worker || atomic_exchange(&queue->poked, true))
		return;
	first = atomic_load_explicit(&worker->poked, memory_order_relaxed);
	do {
		queue->next_poked = first;
	} while (!atomic_compare_exchange_weak(&worker->poked, &first, queue));
	worker_wake(worker);
}
