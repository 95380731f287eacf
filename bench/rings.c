/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bench-rings: what the device side of a ring costs by itself.
 *
 * One thread is driver and device in turn. The driver (lib/virtq/driver_ring.h) fills the ring with
 * requests of one descriptor; then the device pops, pushes and notifies until it is empty, and that alone is
 * timed; then the driver takes them back. No cache line changes its core, so what is measured is the
 * instructions: how far they are from what two cores reach is the cost of the lines.
 *
 *	bench-rings [--json] [--rounds N] [--only NAME]
 *
 * For instructions per request: valgrind --tool=callgrind --toggle-collect=serve bench-rings
 * --only split-32 --rounds 100, divided by the number of requests it prints.
 */
#include <errno.h>
#include <inttypes.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <belfry/memory.h>
#include <belfry/virtq.h>

#include "../lib/virtq/driver_ring.h"

#define SIZE    256u
#define PACKET  64u
#define UVA     0x100000000ull
#define MEMORY  (4u << 20)
#define BUFFERS (2u << 20) /* of memory, behind the ring */

struct ring {
	struct bf_memory *memory;
	struct bf_virtq *vq;
	struct bf_driver_ring driver;
	uint8_t *base;
};

struct kind {
	const char *name;
	uint64_t features;
	unsigned batch;
};

#define PACKED   (1ull << VIRTIO_F_RING_PACKED)
#define IN_ORDER (1ull << VIRTIO_F_IN_ORDER)

static const struct kind kinds[] = {
	{ "split-1", 0, 1 },
	{ "split-32", 0, 32 },
	{ "split-in-order-32", IN_ORDER, 32 },
	{ "packed-1", PACKED, 1 },
	{ "packed-32", PACKED, 32 },
	{ "packed-in-order-32", PACKED | IN_ORDER, 32 },
};
#define NR_KINDS (sizeof(kinds) / sizeof(kinds[0]))

/* The time stamp counter where there is one, else nanoseconds; the unit is told. */
#if defined(__x86_64__) || defined(__i386__)
#define UNIT "cycles per request"
static uint64_t now(void)
{
	uint32_t low, high;

	__asm__ __volatile__("lfence; rdtsc; lfence" : "=a"(low), "=d"(high)::"memory");
	return low | (uint64_t)high << 32;
}
#else
#define UNIT "ns per request"
static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
#endif

static void check(int ret, const char *what)
{
	if (ret >= 0)
		return;
	fprintf(stderr, "bench-rings: %s: %s\n", what, strerror(-ret));
	exit(1);
}

static void open_ring(struct ring *ring, uint64_t features)
{
	bool packed = features & PACKED;
	struct bf_memory_region region = { .uva = UVA, .size = MEMORY };
	struct bf_driver_layout layout;
	struct bf_virtq_setup setup = {
		.size = SIZE,
		.base = packed ? BF_VIRTQ_PACKED_BASE : 0,
		.features = features,
		.kick_fd = -1,
		.call_fd = -1,
		.err_fd = -1,
	};

	region.fd = memfd_create("bench-rings", MFD_CLOEXEC);
	check(region.fd < 0 || ftruncate(region.fd, MEMORY) < 0 ? -ENOMEM : 0, "memory");
	check(bf_memory_new(&region, 1, &ring->memory), "memory");
	ring->base = bf_memory_from_gpa(ring->memory, 0, MEMORY);
	bf_driver_ring_layout(SIZE, packed, &layout);
	check(bf_driver_ring_init(&ring->driver, SIZE, ring->base, 0, features), "driver");
	setup.memory = ring->memory;
	setup.desc_uva = UVA + layout.desc;
	setup.avail_uva = UVA + layout.avail;
	setup.used_uva = UVA + layout.used;
	ring->vq = bf_virtq_new(0);
	check(ring->vq ? bf_virtq_start(ring->vq, &setup, NULL) : -ENOMEM, "virtqueue");
	bf_virtq_want_kicks(ring->vq, false);
}

static void close_ring(struct ring *ring)
{
	bf_virtq_free(ring->vq);
	bf_driver_ring_done(&ring->driver);
	bf_memory_unref(ring->memory);
}

static void fill(struct ring *ring)
{
	for (unsigned i = 0; i < SIZE; i++) {
		struct bf_piece piece = { BUFFERS + i * 2048u, PACKET };

		check(bf_driver_ring_add(&ring->driver, &piece, 1, 0, ring), "add");
	}
	bf_driver_ring_publish(&ring->driver);
}

static void empty(struct ring *ring)
{
	unsigned nr = 0;

	while (bf_driver_ring_get(&ring->driver, NULL))
		nr++;
	if (nr == SIZE && !ring->driver.broken)
		return;
	fprintf(stderr, "bench-rings: %u requests of %u came back\n", nr, SIZE);
	exit(1);
}

static void serve_one_by_one(struct bf_virtq *vq)
{
	struct iovec iov[4];
	struct bf_chain chain = { .iov = iov, .nr_iov = 4 };

	while (bf_virtq_pop(vq, &chain) > 0) {
		bf_virtq_push(vq, chain.head, 0);
		bf_virtq_notify(vq);
	}
}

static void serve_batches(struct bf_virtq *vq, unsigned batch)
{
	struct iovec iov[64];
	struct bf_chain chains[32];
	struct bf_done done[32];
	int nr;

	while ((nr = bf_virtq_pop_batch(vq, chains, batch, iov, 64)) > 0) {
		for (int i = 0; i < nr; i++)
			done[i] = (struct bf_done){ chains[i].head, 0 };
		bf_virtq_push_batch(vq, done, (unsigned)nr);
		bf_virtq_notify(vq);
	}
}

static void __attribute__((noinline)) serve(struct bf_virtq *vq, unsigned batch)
{
	if (batch == 1)
		serve_one_by_one(vq);
	else
		serve_batches(vq, batch);
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* The median over rounds: what disturbs a machine makes a round longer, never shorter. */
static double measure(const struct kind *kind, unsigned rounds)
{
	uint64_t *took = calloc(rounds, sizeof(*took));
	struct ring ring;
	double median;

	check(took ? 0 : -ENOMEM, "results");
	open_ring(&ring, kind->features);
	for (unsigned i = 0; i < rounds; i++) {
		uint64_t start;

		fill(&ring);
		start = now();
		serve(ring.vq, kind->batch);
		took[i] = now() - start;
		empty(&ring);
	}
	close_ring(&ring);
	qsort(took, rounds, sizeof(*took), compare);
	median = (double)took[rounds / 2] / SIZE;
	free(took);
	return median;
}

int main(int argc, char **argv)
{
	const char *only = NULL, *separator = "";
	unsigned rounds = 20000;
	bool json = false;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--json")) {
			json = true;
		} else if (!strcmp(argv[i], "--rounds") && i + 1 < argc) {
			rounds = (unsigned)strtoul(argv[++i], NULL, 10);
		} else if (!strcmp(argv[i], "--only") && i + 1 < argc) {
			only = argv[++i];
		} else {
			fprintf(stderr, "usage: bench-rings [--json] [--rounds N] [--only NAME]\n");
			return 2;
		}
	}
	if (json)
		printf("[");
	for (unsigned i = 0; i < NR_KINDS; i++) {
		double cost;

		if (only && strcmp(only, kinds[i].name))
			continue;
		cost = measure(&kinds[i], rounds ? rounds : 1);
		if (json)
			printf("%s\n  {\"name\": \"rings %s\", \"ours\": %.1f, \"unit\": \"" UNIT
			       "\", \"higher_is_better\": false}",
			       separator, kinds[i].name, cost);
		else
			printf("%-20s %6.1f " UNIT ", %" PRIu64 " requests\n", kinds[i].name, cost,
			       (uint64_t)rounds * SIZE);
		separator = ",";
	}
	if (json)
		printf("\n]\n");
	return 0;
}
