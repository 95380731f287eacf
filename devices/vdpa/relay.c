/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The relay thread. Between relay_add() and relay_remove() it alone reads the queue's kick eventfd.
 *
 * Letting go. The thread touches descriptors and doorbells under the lock only, and looks there
 * whether the queue is still its own. So who took the queue out under the lock knows that nothing
 * of it is in use. An event that epoll handed out before finds no queue, or a new one whose eventfd
 * has nothing to give.
 *
 * The eventfd belongs to another process too, which may drain it, make it blocking, or hand over
 * something else altogether. So a read never waits (RWF_NOWAIT, whatever the flags of the file
 * are), and epoll is asked for edges: each new kick wakes the thread, nothing left in the file
 * does.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include "devices/common/log.h"
#include "relay.h"

#define EVENTS 64
#define END    UINT64_MAX

struct relay_queue {
	int kick_fd; /* -1: none; under the lock */
	bool dead;   /* no eventfd, or one no more; said once */
	uint64_t kicks;
};

struct relay {
	const struct virtio_pci *vp;
	int epoll_fd, end_fd;
	pthread_t thread;
	pthread_mutex_t lock;
	uint64_t wakeups;
	unsigned nr_queues;
	struct relay_queue queues[];
};

/* Written by the thread only; control may read it at any moment. */
static void count(uint64_t *counter, uint64_t by)
{
	__atomic_store_n(counter, *counter + by, __ATOMIC_RELAXED);
}

/* How many kicks have come; negative: it is no eventfd. */
static int64_t drain(int fd)
{
	uint64_t kicks;
	const struct iovec iov = { &kicks, sizeof(kicks) };
	ssize_t got;

	do
		got = preadv2(fd, &iov, 1, -1, RWF_NOWAIT);
	while (got < 0 && errno == EINTR);
	if (got == sizeof(kicks))
		return kicks < INT64_MAX ? (int64_t)kicks : INT64_MAX;
	return got < 0 && errno == EAGAIN ? 0 : -EBADF;
}

static void relay_kick(struct relay *relay, unsigned idx)
{
	struct relay_queue *queue = &relay->queues[idx];
	int64_t kicks;

	if (queue->kick_fd < 0 || queue->dead)
		return;
	kicks = drain(queue->kick_fd);
	if (kicks < 0) {
		queue->dead = true;
		log_warn("queue %u: expected an eventfd for kicks, found something else; it is "
			 "not relayed until its next start",
			 idx);
	} else if (kicks > 0) {
		count(&queue->kicks, (uint64_t)kicks);
		virtio_pci_ring(relay->vp, idx);
	}
}

/* False: the end. */
static bool handle(struct relay *relay, const struct epoll_event *events, int nr)
{
	bool go_on = true;
	int i;

	count(&relay->wakeups, 1);
	pthread_mutex_lock(&relay->lock);
	for (i = 0; i < nr; i++) {
		if (events[i].data.u64 == END)
			go_on = false;
		else
			relay_kick(relay, (unsigned)events[i].data.u64);
	}
	pthread_mutex_unlock(&relay->lock);
	return go_on;
}

static void *run(void *arg)
{
	struct epoll_event events[EVENTS];
	struct relay *relay = arg;
	int nr;

	do
		nr = epoll_wait(relay->epoll_fd, events, EVENTS, -1);
	while (nr <= 0 || handle(relay, events, nr));
	return NULL;
}

/* Signals are control's. */
static int start_thread(struct relay *relay)
{
	sigset_t all, old;
	int ret;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	ret = -pthread_create(&relay->thread, NULL, run, relay);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (!ret)
		pthread_setname_np(relay->thread, "relay");
	return ret;
}

static int open_fds(struct relay *relay)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u64 = END };

	relay->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (relay->epoll_fd < 0)
		return -errno;
	relay->end_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (relay->end_fd < 0)
		return -errno;
	return epoll_ctl(relay->epoll_fd, EPOLL_CTL_ADD, relay->end_fd, &event) ? -errno : 0;
}

static void close_all(struct relay *relay)
{
	if (relay->end_fd >= 0)
		close(relay->end_fd);
	if (relay->epoll_fd >= 0)
		close(relay->epoll_fd);
	pthread_mutex_destroy(&relay->lock);
	free(relay);
}

int relay_new(const struct virtio_pci *vp, unsigned nr_queues, struct relay **out)
{
	struct relay *relay = calloc(1, sizeof(*relay) + nr_queues * sizeof(relay->queues[0]));
	unsigned i;
	int ret;

	if (!relay)
		return -ENOMEM;
	relay->vp = vp;
	relay->epoll_fd = relay->end_fd = -1;
	relay->nr_queues = nr_queues;
	for (i = 0; i < nr_queues; i++)
		relay->queues[i].kick_fd = -1;
	pthread_mutex_init(&relay->lock, NULL);
	ret = open_fds(relay);
	if (!ret)
		ret = start_thread(relay);
	if (ret) {
		close_all(relay);
		return ret;
	}
	*out = relay;
	return 0;
}

void relay_free(struct relay *relay)
{
	if (!relay)
		return;
	eventfd_write(relay->end_fd, 1);
	pthread_join(relay->thread, NULL);
	close_all(relay);
}

int relay_add(struct relay *relay, unsigned queue, int kick_fd)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLET, .data.u64 = queue };
	int ret = 0;

	if (queue >= relay->nr_queues)
		return -EINVAL;
	if (relay->queues[queue].kick_fd >= 0)
		return -EBUSY;
	pthread_mutex_lock(&relay->lock);
	/* Kicks that are there already wake the thread as well. */
	if (epoll_ctl(relay->epoll_fd, EPOLL_CTL_ADD, kick_fd, &event)) {
		ret = -errno;
	} else {
		relay->queues[queue].dead = false;
		relay->queues[queue].kick_fd = kick_fd;
	}
	pthread_mutex_unlock(&relay->lock);
	return ret;
}

void relay_remove(struct relay *relay, unsigned queue)
{
	struct relay_queue *q;

	if (queue >= relay->nr_queues || relay->queues[queue].kick_fd < 0)
		return;
	q = &relay->queues[queue];
	pthread_mutex_lock(&relay->lock);
	epoll_ctl(relay->epoll_fd, EPOLL_CTL_DEL, q->kick_fd, NULL);
	q->kick_fd = -1;
	pthread_mutex_unlock(&relay->lock);
}

uint64_t relay_kicks(const struct relay *relay, unsigned queue)
{
	if (queue >= relay->nr_queues)
		return 0;
	return __atomic_load_n(&relay->queues[queue].kicks, __ATOMIC_RELAXED);
}

uint64_t relay_wakeups(const struct relay *relay)
{
	return __atomic_load_n(&relay->wakeups, __ATOMIC_RELAXED);
}
