/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bench-price: the same requests served by the library, and by a device that trusts its driver.
 *
 *	bench-price ours|trusting split|packed BATCH [ROUNDS]
 *
 * One thread is driver and device in turn. For callgrind, which counts instructions:
 * --toggle-collect of serve_ours or serve_trusting; bench/compare divides by the number of requests
 * that is printed. What the difference is, and what it is not: bench/README.md.
 */
#include <errno.h>
#include <linux/virtio_config.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <belfry/memory.h>
#include <belfry/protocol.h>
#include <belfry/virtq.h>

#include "../lib/virtq/driver_ring.h"
#include "trusting.h"

#define SIZE    256u
#define PACKET  64u
#define UVA     0x100000000ull
#define MEMORY  (4u << 20)
#define BUFFERS (2u << 20) /* of memory, behind the ring */
#define MAX     32u

struct bench {
	struct bf_memory *memory;
	struct bf_virtq *vq;
	struct trusting trusting;
	struct bf_driver_ring driver;
	bool packed;
	unsigned batch;
};

static void check(int ret, const char *what)
{
	if (ret >= 0)
		return;
	fprintf(stderr, "bench-price: %s: %s\n", what, strerror(-ret));
	exit(1);
}

static void open_bench(struct bench *bench)
{
	struct bf_memory_region region = { .uva = UVA, .size = MEMORY };
	struct bf_driver_layout layout;
	struct bf_virtq_setup setup = {
		.size = SIZE,
		.base = bench->packed ? BF_VIRTQ_PACKED_BASE : 0,
		.features = bench->packed ? bf_bit(VIRTIO_F_RING_PACKED) : 0,
		.kick_fd = -1,
		.call_fd = -1,
		.err_fd = -1,
	};
	uint8_t *base;

	region.fd = memfd_create("bench-price", MFD_CLOEXEC);
	check(region.fd < 0 || ftruncate(region.fd, MEMORY) < 0 ? -ENOMEM : 0, "memory");
	check(bf_memory_new(&region, 1, &bench->memory), "memory");
	base = bf_memory_from_gpa(bench->memory, 0, MEMORY);
	bf_driver_ring_layout(SIZE, bench->packed, &layout);
	check(bf_driver_ring_init(&bench->driver, SIZE, base, 0, setup.features), "driver");
	setup.memory = bench->memory;
	setup.desc_uva = UVA + layout.desc;
	setup.avail_uva = UVA + layout.avail;
	setup.used_uva = UVA + layout.used;
	bench->vq = bf_virtq_new(0);
	check(bench->vq ? bf_virtq_start(bench->vq, &setup, NULL) : -ENOMEM, "virtqueue");
	bf_virtq_want_kicks(bench->vq, false);
	bench->trusting = (struct trusting){
		.base = base,
		.desc = (void *)(base + layout.desc),
		.avail = (void *)(base + layout.avail),
		.used = (void *)(base + layout.used),
		.size = SIZE,
		.avail_wrap = true,
		.used_wrap = true,
	};
}

static void fill(struct bench *bench)
{
	for (unsigned i = 0; i < SIZE; i++) {
		struct bf_piece piece = { BUFFERS + i * 2048u, PACKET };

		check(bf_driver_ring_add(&bench->driver, &piece, 1, 0, bench), "add");
	}
	bf_driver_ring_publish(&bench->driver);
}

static void empty(struct bench *bench)
{
	unsigned nr = 0;

	while (bf_driver_ring_get(&bench->driver, NULL))
		nr++;
	if (nr == SIZE && !bench->driver.broken)
		return;
	fprintf(stderr, "bench-price: %u requests of %u came back\n", nr, SIZE);
	exit(1);
}

static void __attribute__((noinline)) serve_ours(struct bench *bench)
{
	struct bf_chain chains[MAX];
	struct bf_done done[MAX];
	struct iovec iov[2 * MAX];
	int nr;

	while ((nr = bf_virtq_pop_batch(bench->vq, chains, bench->batch, iov, 2 * MAX)) > 0) {
		for (int i = 0; i < nr; i++)
			done[i] = (struct bf_done){ chains[i].head, 0 };
		bf_virtq_push_batch(bench->vq, done, (unsigned)nr);
		bf_virtq_notify(bench->vq);
	}
}

static void __attribute__((noinline)) serve_trusting(struct bench *bench)
{
	if (bench->packed)
		while (trusting_packed(&bench->trusting, bench->batch))
			;
	else
		while (trusting_split(&bench->trusting, bench->batch))
			;
}

static int usage(void)
{
	fprintf(stderr, "usage: bench-price ours|trusting split|packed BATCH(1..%u) [ROUNDS]\n",
		MAX);
	return 2;
}

int main(int argc, char **argv)
{
	static struct bench bench;
	unsigned rounds;
	bool ours;

	if (argc < 4 || argc > 5)
		return usage();
	ours = !strcmp(argv[1], "ours");
	bench.packed = !strcmp(argv[2], "packed");
	bench.batch = (unsigned)strtoul(argv[3], NULL, 10);
	rounds = argc > 4 ? (unsigned)strtoul(argv[4], NULL, 10) : 100;
	if ((!ours && strcmp(argv[1], "trusting")) || (!bench.packed && strcmp(argv[2], "split")) ||
	    bench.batch < 1 || bench.batch > MAX)
		return usage();
	open_bench(&bench);
	for (unsigned i = 0; i < rounds; i++) {
		fill(&bench);
		if (ours)
			serve_ours(&bench);
		else
			serve_trusting(&bench);
		empty(&bench);
	}
	printf("%u\n", rounds * SIZE);
	bf_virtq_free(bench.vq);
	bf_driver_ring_done(&bench.driver);
	bf_memory_unref(bench.memory);
	return 0;
}
