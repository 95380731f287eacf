/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * --slirp: user networking without any right, by libslirp: the guest's connections are made by this process.
 * Addresses are those of QEMU: network 10.0.2.0/24, gateway and host 10.0.2.2, name server 10.0.2.3, the
 * guest's first address 10.0.2.15; IPv6 in fec0::/64.
 *
 * The library wants one thread and sleeps on many sockets: it has a thread of its own here. Packets come to
 * it by a backlog (the inbox) and go to the guest by the receive queue's. Both are bounded; what is too
 * much is dropped, as networks do. It neither knows of checksum nor of segmentation offloads: the inbox
 * does them.
 */
#include <errno.h>
#include <poll.h>
#include <slirp/libslirp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "devices/common/log.h"
#include "pair.h"
#include "slirp_network.h"

#define INBOX_BATCH 64

/* A timer of the library's. */
struct timer {
	SlirpTimerCb call;
	void *opaque;
	int64_t at_ms; /* -1: not running */
	struct timer *next;
};

struct slirp_port {
	struct net_port port;
	struct net_backlog inbox;
	int wake_fd;
	atomic_bool sleeping, ending;
	bool running; /* the thread exists */
	pthread_t thread;

	/* The thread's, once it runs. */
	Slirp *slirp;
	struct timer *timers;
	struct pollfd *fds;
	unsigned nr_fds, room;
	uint8_t scratch[NET_PACKET_MAX];
};

/* Worker. Partner: sleep_on(), which says that it sleeps and then looks at the inbox. */
static void wake(struct slirp_port *sp)
{
	uint64_t one = 1;

	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load_explicit(&sp->sleeping, memory_order_relaxed) &&
	    write(sp->wake_fd, &one, sizeof(one)) < 0)
		return; /* full: it is awake anyway */
}

static bool transmit(struct net_port *port, struct net_pair *pair)
{
	struct slirp_port *sp = (void *)port;
	struct net_tx *tx = &pair->tx;
	unsigned i, nr = net_tx_pop(tx, TX_BATCH);
	uint64_t packets = 0, bytes = 0;

	net_tx_prefetch(tx, nr);
	for (i = 0; i < nr; i++) {
		struct net_packet packet;
		int missed;

		if (!net_tx_open(tx, &tx->chains[i], &packet))
			continue;
		missed = net_backlog_put_as(&sp->inbox, &packet, 0, pair->scratch);
		if (missed) {
			net_count_drops(&tx->counters, missed < 0 ? NET_DROP_HEADER : NET_DROP_ROOM,
					1);
			continue;
		}
		packets++;
		bytes += packet.len;
	}
	net_tx_finish(tx, nr, nr, packets, bytes);
	if (packets)
		wake(sp);
	return nr;
}

/* What the library calls, all on its thread. */

static ssize_t to_guest(const void *data, size_t len, void *opaque)
{
	struct slirp_port *sp = opaque;
	struct net_pair *pair = sp->port.pairs;
	struct iovec iov = { (void *)(uintptr_t)data, len };
	struct net_packet packet = { .len = (uint32_t)len, .nr_iov = 1, .iov = &iov };

	if (len < NET_ETH_LEN || len > NET_PACKET_MAX)
		return -1;
	if (net_rx_queue(&pair->rx, &packet, sp->scratch) == NET_RX_DONE)
		worker_poke(&pair->rx_queue);
	return (ssize_t)len;
}

static void guest_error(const char *message, void *opaque)
{
	(void)opaque;
	log_debug("slirp: %s", message);
}

static int64_t now_ns(void *opaque)
{
	struct timespec now;

	(void)opaque;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void *timer_new(SlirpTimerCb call, void *cb_opaque, void *opaque)
{
	struct slirp_port *sp = opaque;
	struct timer *timer = calloc(1, sizeof(*timer));

	if (!timer)
		abort(); /* the library cannot go on without, and has no way to say so */
	*timer = (struct timer){ call, cb_opaque, -1, sp->timers };
	sp->timers = timer;
	return timer;
}

static void timer_free(void *timer, void *opaque)
{
	struct slirp_port *sp = opaque;
	struct timer **link = &sp->timers;

	while (*link && *link != timer)
		link = &(*link)->next;
	if (*link)
		*link = (*link)->next;
	free(timer);
}

static void timer_mod(void *timer, int64_t expire_ms, void *opaque)
{
	(void)opaque;
	((struct timer *)timer)->at_ms = expire_ms;
}

static void ignore_fd(int fd, void *opaque)
{
	(void)fd;
	(void)opaque;
}

static void ignore_notify(void *opaque)
{
	(void)opaque; /* this thread is awake, or it could not be called */
}

static const SlirpCb callbacks = {
	.send_packet = to_guest,
	.guest_error = guest_error,
	.clock_get_ns = now_ns,
	.timer_new = timer_new,
	.timer_free = timer_free,
	.timer_mod = timer_mod,
	.register_poll_fd = ignore_fd,
	.unregister_poll_fd = ignore_fd,
	.notify = ignore_notify,
};

static const struct {
	int slirp;
	short poll;
} events_map[] = {
	{ SLIRP_POLL_IN, POLLIN },   { SLIRP_POLL_OUT, POLLOUT }, { SLIRP_POLL_PRI, POLLPRI },
	{ SLIRP_POLL_ERR, POLLERR }, { SLIRP_POLL_HUP, POLLHUP },
};

static int add_fd(int fd, int events, void *opaque)
{
	struct slirp_port *sp = opaque;
	struct pollfd poll = { .fd = fd };

	if (sp->nr_fds == sp->room) {
		unsigned room = 2 * sp->room;
		struct pollfd *fds = realloc(sp->fds, room * sizeof(*fds));

		if (!fds)
			return -1;
		sp->fds = fds;
		sp->room = room;
	}
	for (unsigned i = 0; i < sizeof(events_map) / sizeof(events_map[0]); i++)
		if (events & events_map[i].slirp)
			poll.events |= events_map[i].poll;
	sp->fds[sp->nr_fds] = poll;
	return (int)sp->nr_fds++;
}

static int events_of(int idx, void *opaque)
{
	struct slirp_port *sp = opaque;
	int events = 0;

	if (idx < 0 || (unsigned)idx >= sp->nr_fds)
		return 0;
	for (unsigned i = 0; i < sizeof(events_map) / sizeof(events_map[0]); i++)
		if (sp->fds[idx].revents & events_map[i].poll)
			events |= events_map[i].slirp;
	return events;
}

/* The thread. */

/* Until the next timer, at most @timeout. */
static uint32_t until_timer(struct slirp_port *sp, uint32_t timeout)
{
	int64_t now = now_ns(NULL) / 1000000;

	for (struct timer *t = sp->timers; t; t = t->next) {
		int64_t left = t->at_ms - now;

		if (t->at_ms >= 0 && left < timeout)
			timeout = left > 0 ? (uint32_t)left : 0;
	}
	return timeout;
}

static void run_timers(struct slirp_port *sp)
{
	int64_t now = now_ns(NULL) / 1000000;
	struct timer *t, *next;

	for (t = sp->timers; t; t = next) {
		next = t->next;
		if (t->at_ms < 0 || t->at_ms > now)
			continue;
		t->at_ms = -1;
		t->call(t->opaque);
	}
}

static void take_inbox(struct slirp_port *sp)
{
	struct net_packet packet;
	struct iovec iov;

	for (unsigned i = 0; i < INBOX_BATCH && net_backlog_peek(&sp->inbox, &packet, &iov); i++) {
		slirp_input(sp->slirp, iov.iov_base, (int)packet.len);
		net_backlog_drop(&sp->inbox);
	}
}

/* Partner: wake(). */
static bool sleep_on(struct slirp_port *sp, uint32_t timeout)
{
	uint64_t value;
	bool ok;

	atomic_store(&sp->sleeping, true);
	atomic_thread_fence(memory_order_seq_cst);
	if (!net_backlog_empty(&sp->inbox) || atomic_load(&sp->ending))
		timeout = 0;
	ok = poll(sp->fds, sp->nr_fds, timeout > INT32_MAX ? -1 : (int)timeout) >= 0;
	atomic_store(&sp->sleeping, false);
	if (sp->fds[0].revents && read(sp->wake_fd, &value, sizeof(value)) < 0)
		return false; /* it was readable */
	return ok;
}

static void *slirp_thread(void *opaque)
{
	struct slirp_port *sp = opaque;

	while (!atomic_load(&sp->ending)) {
		uint32_t timeout = UINT32_MAX;
		bool ok;

		sp->fds[0] = (struct pollfd){ .fd = sp->wake_fd, .events = POLLIN };
		sp->nr_fds = 1;
		slirp_pollfds_fill(sp->slirp, &timeout, add_fd, sp);
		ok = sleep_on(sp, until_timer(sp, timeout));
		slirp_pollfds_poll(sp->slirp, !ok, events_of, sp);
		run_timers(sp);
		take_inbox(sp);
	}
	return NULL;
}

/* When the pairs are there, to which it delivers. */
static int begin(struct net_port *port)
{
	struct slirp_port *sp = (void *)port;
	int ret = -pthread_create(&sp->thread, NULL, slirp_thread, sp);

	sp->running = !ret;
	return ret;
}

static void free_slirp(struct net_port *port)
{
	struct slirp_port *sp = (void *)port;
	uint64_t one = 1;

	if (!sp)
		return;
	atomic_store(&sp->ending, true);
	if (sp->running) {
		if (write(sp->wake_fd, &one, sizeof(one)) < 0)
			log_debug("slirp: %s", strerror(errno)); /* full: it is awake anyway */
		pthread_join(sp->thread, NULL);
	}
	if (sp->slirp)
		slirp_cleanup(sp->slirp);
	while (sp->timers)
		timer_free(sp->timers, sp);
	if (sp->wake_fd >= 0)
		close(sp->wake_fd);
	net_backlog_done(&sp->inbox);
	free(sp->fds);
	free(sp);
}

/* RARP means nothing to it: the guest is where it was. */
static const struct net_port_ops ops = {
	.name = "slirp",
	.transmit = transmit,
	.begin = begin,
	.free = free_slirp,
};

static int start(struct slirp_port *sp, const char *const *forwards, unsigned nr, unsigned mtu)
{
	SlirpConfig config;
	int ret = net_backlog_init(&sp->inbox);

	if (ret)
		return ret;
	net_backlog_open(&sp->inbox);
	sp->room = 16;
	sp->fds = calloc(sp->room, sizeof(*sp->fds));
	sp->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!sp->fds || sp->wake_fd < 0)
		return sp->fds ? -errno : -ENOMEM;
	slirp_network_configure(&config, mtu);
	sp->slirp = slirp_new(&config, &callbacks, sp);
	if (!sp->slirp) {
		log_error("libslirp refuses its configuration");
		return -EINVAL;
	}
	return slirp_network_forward(sp->slirp, forwards, nr);
}

int port_slirp_new(const char *const *forwards, unsigned nr, unsigned mtu, struct net_port **port)
{
	struct slirp_port *sp = calloc(1, sizeof(*sp));
	int ret;

	if (!sp)
		return -ENOMEM;
	sp->wake_fd = -1;
	sp->port.ops = &ops;
	/* What the guest leaves undone the inbox does; what comes from here is whole. */
	sp->port.features = NET_F_HOST_OFFLOADS;
	ret = start(sp, forwards, nr, mtu);
	if (ret) {
		free_slirp(&sp->port);
		return ret;
	}
	*port = &sp->port;
	return 0;
}
