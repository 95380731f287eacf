/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a notification costs: looking at idle doorbells, and the way from sender to receiver.
 *
 *	bench-doorbells [--json]
 *
 * The scan is the one of the back-end programs' queue threads (devices/common/doorbell_table.h), over
 * pages of one memfd. Notifications go from one thread to another, on CPUs of their own where there are
 * two; each sample waits until the receiver is at rest again. Medians.
 */
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "devices/common/doorbell_table.h"
#include "devices/common/spin.h"

#define MAX_QUEUES   1024
#define SCANS        9
#define LOOKS        400000u /* at one doorbell, in a scan that is timed */
#define SAMPLES      4001u
#define REST_NS      60000u /* the receiver falls asleep, or comes to rest */
#define WARM_SAMPLES 200u
#define BURST        20000u

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *values, unsigned nr)
{
	qsort(values, nr, sizeof(*values), compare);
	return values[nr / 2];
}

static void die(const char *what)
{
	perror(what);
	exit(EXIT_FAILURE);
}

/* Scanning. */

struct scan {
	struct doorbell_pages pages;
	struct doorbell_table table;
	struct doorbell_watch watches[MAX_QUEUES];
};

/* Each queue has been rung once at its place, so that only that one is scanned. */
static void make_scan(struct scan *scan, unsigned nr, bool staggered)
{
	unsigned queue, place, heard;

	scan->table = (struct doorbell_table){ 0 };
	if (doorbell_pages_init(&scan->pages, nr) || doorbell_table_reserve(&scan->table, nr))
		die("doorbell pages");
	for (queue = 0; queue < nr; queue++) {
		uint32_t *word = doorbell_word(&scan->pages, queue);

		doorbell_table_add(&scan->table, &scan->watches[queue], word, queue);
		*(staggered ? doorbell_staggered(word, queue) : word) = queue;
	}
	/* Hearing one moves another: it may take several rounds to hear all. */
	do {
		place = 0;
		for (heard = 0; doorbell_table_scan(&scan->table, &place); heard++)
			;
	} while (heard);
	if (scan->table.nr != nr)
		die("the table of doorbells");
}

static double time_scan(struct scan *scan, unsigned nr)
{
	unsigned rounds = LOOKS / nr + 1, i, place;
	uint64_t start = now_ns();

	for (i = 0; i < rounds; i++) {
		place = 0;
		if (doorbell_table_scan(&scan->table, &place))
			die("a doorbell that nobody rang");
	}
	return (double)(now_ns() - start) / rounds / nr;
}

static double scan_cost(unsigned nr, bool staggered)
{
	static struct scan scan;
	double ns[SCANS];
	unsigned i;

	make_scan(&scan, nr, staggered);
	time_scan(&scan, nr);
	for (i = 0; i < SCANS; i++)
		ns[i] = time_scan(&scan, nr);
	doorbell_table_done(&scan.table);
	doorbell_pages_done(&scan.pages);
	return median(ns, SCANS);
}

/* Notifying. */

enum way { EVENTFD_ASLEEP, EVENTFD_POLLED, DOORBELL };

static const char *const way_names[] = { "eventfd, receiver asleep", "eventfd, receiver polls it",
					 "doorbell, receiver polls it" };

struct channel {
	enum way way;
	int fd;
	uint32_t *word;
	atomic_bool ending;
	_Alignas(64) atomic_uint heard; /* samples */
	_Alignas(64) uint64_t heard_at;
	double sender[SAMPLES], latency[SAMPLES];
};

static cpu_set_t usable; /* CPUs, as it was before anybody was pinned */

/* The calling thread to the @nth of them. Only a better measurement if it works. */
static void pin(int nth)
{
	cpu_set_t one;
	int cpu;

	for (cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, &usable) || nth--)
			continue;
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		if (sched_setaffinity(0, sizeof(one), &one))
			perror("sched_setaffinity");
		return;
	}
}

static void hear(struct channel *c)
{
	struct pollfd pfd = { .fd = c->fd, .events = POLLIN };
	uint64_t value;

	if (c->way == EVENTFD_ASLEEP)
		poll(&pfd, 1, -1);
	if (c->way == DOORBELL) {
		while (!doorbell_take(c->word))
			spin_pause();
		return;
	}
	while (read(c->fd, &value, sizeof(value)) < 0)
		;
}

static void *receive(void *arg)
{
	struct channel *c = arg;
	unsigned i;

	pin(1);
	for (i = 0; i < SAMPLES + WARM_SAMPLES; i++) {
		hear(c);
		c->heard_at = now_ns();
		atomic_store_explicit(&c->heard, i + 1, memory_order_release);
	}
	while (c->way != EVENTFD_ASLEEP && !atomic_load_explicit(&c->ending, memory_order_acquire))
		hear(c);
	return NULL;
}

static void notify(struct channel *c)
{
	uint64_t one = 1;

	if (c->way == DOORBELL)
		__atomic_store_n((uint16_t *)c->word, 0, __ATOMIC_RELEASE);
	else if (write(c->fd, &one, sizeof(one)) < 0)
		die("eventfd");
}

/* The least of several: others may run in between. */
static double clock_cost(void)
{
	double least = 1e9;
	unsigned i, batch;

	for (batch = 0; batch < 50; batch++) {
		uint64_t start = now_ns();
		double cost;

		for (i = 0; i < 1000; i++)
			now_ns();
		cost = (double)(now_ns() - start) / 1000;
		least = cost < least ? cost : least;
	}
	return least;
}

static void rest(void)
{
	uint64_t until = now_ns() + REST_NS;

	while (now_ns() < until)
		spin_pause();
}

static void take_samples(struct channel *c, double clock)
{
	unsigned i, sample;

	for (i = 0; i < SAMPLES + WARM_SAMPLES; i++) {
		uint64_t before, after;

		rest();
		before = now_ns();
		notify(c);
		after = now_ns();
		while (atomic_load_explicit(&c->heard, memory_order_acquire) != i + 1)
			spin_pause();
		if (i < WARM_SAMPLES)
			continue;
		sample = i - WARM_SAMPLES;
		c->sender[sample] = (double)(after - before) - clock;
		c->latency[sample] = (double)(c->heard_at - before) - clock;
	}
}

/* To a receiver that polls: less than the clock can tell of one, so many on end. */
static double sender_cost(struct channel *c)
{
	uint64_t start = now_ns();
	double cost;
	unsigned i;

	for (i = 0; i < BURST; i++)
		notify(c);
	cost = (double)(now_ns() - start) / BURST;
	atomic_store(&c->ending, true);
	notify(c);
	return cost;
}

static void measure_way(enum way way, double *sender, double *latency)
{
	static struct channel channel;
	struct doorbell_pages pages;
	pthread_t thread;

	memset(&channel, 0, sizeof(channel));
	channel.way = way;
	channel.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (channel.fd < 0 || doorbell_pages_init(&pages, 1))
		die("channel");
	channel.word = doorbell_word(&pages, 0);
	if (pthread_create(&thread, NULL, receive, &channel))
		die("thread");
	take_samples(&channel, clock_cost());
	*sender = way == EVENTFD_ASLEEP ? median(channel.sender, SAMPLES) : sender_cost(&channel);
	pthread_join(thread, NULL);
	*latency = median(channel.latency, SAMPLES);
	doorbell_pages_done(&pages);
	close(channel.fd);
}

int main(int argc, char *argv[])
{
	static const unsigned numbers[] = { 1, 64, 256, MAX_QUEUES };
	bool json = argc == 2 && !strcmp(argv[1], "--json");
	double sender, latency;
	unsigned i;

	if (argc > 1 && !json) {
		fprintf(stderr, "usage: bench-doorbells [--json]\n");
		return 2;
	}
	if (sched_getaffinity(0, sizeof(usable), &usable))
		die("sched_getaffinity");
	if (CPU_COUNT(&usable) < 2)
		fprintf(stderr, "bench-doorbells: one CPU only: latencies mean nothing\n");
	pin(0);
	printf(json ? "{\"scan\": [" : "ns to look at one idle doorbell:\n");
	for (i = 0; i < 2 * sizeof(numbers) / sizeof(*numbers); i++)
		printf(json ? "%s{\"queues\": %u, \"place\": \"%s\", \"ns\": %.2f}"
			    : "%s%5u queues, %-9s %6.2f\n",
		       json && i ? ", " : "", numbers[i / 2], i % 2 ? "staggered" : "offset 0",
		       scan_cost(numbers[i / 2], i % 2));
	printf(json ? "], \"notification\": [" : "ns for a notification, sender and latency:\n");
	for (i = 0; i < sizeof(way_names) / sizeof(*way_names); i++) {
		measure_way((enum way)i, &sender, &latency);
		printf(json ? "%s{\"way\": \"%s\", \"sender_ns\": %.1f, \"latency_ns\": %.0f}"
			    : "%s%-28s %8.1f %8.0f\n",
		       json && i ? ", " : "", way_names[i], sender, latency);
	}
	printf(json ? "]}\n" : "");
	return 0;
}
