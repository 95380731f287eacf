/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * From connect() to DRIVER_OK, and to the last doorbell, at a back end that is listening: bench/vdpa
 * runs it at belfry-vdpa. Times are taken on a direct connection; messages and round trips on another
 * one, through a proxy that passes on only what has been quiet for a while.
 *
 *	vdpa-start SOCKET QUEUES
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <belfry/driver.h>
#include <belfry/socket.h>

#include "../tests/integration/proxy.h"

#define ROUNDS   9
#define QUIET_MS 100
#define WAIT_MS  5000

static double now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6;
}

static unsigned mapped(struct bf_driver *drv, unsigned queues)
{
	struct bf_doorbell_state doorbell;
	unsigned nr = 0;

	for (unsigned i = 0; i < queues; i++) {
		bf_frontend_doorbell_state(bf_driver_frontend(drv), i, &doorbell);
		nr += doorbell.mapped;
	}
	return nr;
}

static struct bf_driver *start(int fd, unsigned queues)
{
	const struct bf_driver_config config = { .name = "bench", .nr_queues = queues,
						 .timeout_ms = 20000,
						 /* several queues: VIRTIO_BLK_F_MQ */
						 .features = 1ull << 12 };
	struct bf_driver *drv;
	char error[256] = "";

	if (fd < 0 || bf_driver_new(&config, fd, &drv, error, sizeof(error))) {
		fprintf(stderr, "vdpa-start: %s\n", fd < 0 ? strerror(-fd) : error);
		exit(1);
	}
	return drv;
}

static void wait_for_doorbells(struct bf_driver *drv, unsigned queues)
{
	const struct timespec pause = { .tv_nsec = 100000 };
	double end = now_ms() + WAIT_MS;

	while (mapped(drv, queues) < queues && now_ms() < end) {
		bf_driver_dispatch(drv);
		nanosleep(&pause, NULL);
	}
	if (mapped(drv, queues) < queues) {
		fprintf(stderr, "vdpa-start: %u of %u doorbells were mapped\n",
			mapped(drv, queues), queues);
		exit(1);
	}
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *values)
{
	qsort(values, ROUNDS, sizeof(*values), by_value);
	return values[ROUNDS / 2];
}

/* What it is the front end's turn to wait for: everything until then was one round trip less. */
static void count(const char *path, unsigned queues, double *times)
{
	struct proxy proxy = { .hold_ms = QUIET_MS };
	struct bf_driver *drv;
	unsigned rounds, messages, back;
	int fd = bf_socket_connect(path);

	if (fd >= 0)
		fd = proxy_start(&proxy, fd);
	drv = start(fd, queues);
	rounds = proxy.nr_rounds;
	messages = proxy.nr_messages;
	wait_for_doorbells(drv, queues);
	back = proxy.nr_back_messages;
	bf_driver_free(drv);
	proxy_stop(&proxy);
	printf("{\"queues\": %u, \"driver_ok_ms\": %.2f, \"doorbells_ms\": %.2f, \"messages\": %u, "
	       "\"round_trips\": %u, \"doorbell_messages\": %u}\n",
	       queues, median(times), median(times + ROUNDS), messages, rounds, back);
}

int main(int argc, char **argv)
{
	double times[2 * ROUNDS];
	unsigned queues;

	if (argc != 3) {
		fprintf(stderr, "usage: vdpa-start SOCKET QUEUES\n");
		return 2;
	}
	queues = (unsigned)strtoul(argv[2], NULL, 10);
	for (unsigned i = 0; i < ROUNDS; i++) {
		double began = now_ms();
		struct bf_driver *drv = start(bf_socket_connect(argv[1]), queues);

		times[i] = now_ms() - began;
		wait_for_doorbells(drv, queues);
		times[ROUNDS + i] = now_ms() - began;
		bf_driver_free(drv);
	}
	count(argv[1], queues, times);
	return 0;
}
