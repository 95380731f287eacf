/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A driver's side of a split ring for tests: memory with a hole, a ring in it, and raw access to
 * every field, so that a rule can be broken in one line. What a packed ring needs too (fake_packed.h)
 * comes first.
 *
 * Guest memory: [0, 64 KiB) and, touching it, [64 KiB, 128 KiB) in another file; nothing up to
 * 192 KiB (the hole); [192 KiB, 256 KiB). The ring is in the last 64 KiB; buffers are anywhere.
 */
#ifndef TESTS_UNIT_VIRTQ_FAKE_DRIVER_H
#define TESTS_UNIT_VIRTQ_FAKE_DRIVER_H

#include "../support.h"

#include <sys/eventfd.h>

#include "lib/virtq/virtq.h"

#define KIB        1024ull
#define FIRST_END  (64 * KIB) /* first and second region touch here */
#define HOLE       (128 * KIB)
#define HOLE_END   (192 * KIB)
#define MEMORY_END (256 * KIB)
#define UVA_OFFSET 0x7f0000000000ull
#define RING_GPA   HOLE_END

/* Written here as in the specification, not with the types under test. */
struct raw_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};

struct fake {
	struct bf_memory *memory;
	struct bf_virtq *vq;
	struct bf_virtq_setup setup;
	struct raw_desc *desc;
	volatile uint16_t *avail; /* flags, idx, ring[size], used_event */
	volatile uint16_t *used;  /* flags, idx, then pairs of 32 bits, avail_event */
	unsigned size;
	int kick_fd, call_fd, err_fd;
};

#define NEXT     1
#define WRITE    2
#define INDIRECT 4

static inline void *at(struct fake *fake, uint64_t gpa)
{
	void *hva = bf_memory_from_gpa(fake->memory, gpa, 1);

	assert_non_null(hva);
	return hva;
}

static inline volatile uint32_t *used_elem(struct fake *fake, unsigned i)
{
	return (volatile uint32_t *)(void *)(uintptr_t)(fake->used + 2) + 2 * (i % fake->size);
}

static inline volatile uint16_t *avail_event(struct fake *fake)
{
	return fake->used + 2 + 4 * fake->size;
}

static inline volatile uint16_t *used_event(struct fake *fake)
{
	return fake->avail + 2 + fake->size;
}

static inline void set_desc(struct fake *fake, unsigned i, uint64_t addr, uint32_t len,
			    uint16_t flags, uint16_t next)
{
	fake->desc[i] = (struct raw_desc){ addr, len, flags, next };
}

/* A table of indirect descriptors at @gpa; it may cross the border of two regions. */
static inline void set_indirect(struct fake *fake, uint64_t gpa, unsigned i, struct raw_desc desc)
{
	for (unsigned b = 0; b < sizeof(desc); b++)
		*(uint8_t *)at(fake, gpa + i * sizeof(desc) + b) = ((uint8_t *)&desc)[b];
}

static inline void offer(struct fake *fake, uint16_t head)
{
	fake->avail[2 + fake->avail[1] % fake->size] = head;
	__atomic_store_n(&fake->avail[1], (uint16_t)(fake->avail[1] + 1), __ATOMIC_RELEASE);
}

static inline void fake_start(struct fake *fake)
{
	const char *why = NULL;
	int ret = bf_virtq_start(fake->vq, &fake->setup, &why);

	if (ret)
		fail_msg("start: %d %s", ret, why);
}

/* Memory, eventfds and a stopped virtqueue; no ring. */
static inline void fake_open(struct fake *fake)
{
	const uint64_t sizes[] = { FIRST_END, HOLE - FIRST_END, MEMORY_END - HOLE_END };
	const uint64_t gpas[] = { 0, FIRST_END, HOLE_END };
	struct bf_memory_region regions[3];

	memset(fake, 0, sizeof(*fake));
	for (unsigned i = 0; i < 3; i++)
		regions[i] = (struct bf_memory_region){
			.gpa = gpas[i],
			.uva = gpas[i] + UVA_OFFSET,
			.size = sizes[i],
			.fd = make_memfd("bf-ring", sizes[i], 0),
		};
	assert_int_equal(bf_memory_new(regions, 3, &fake->memory), 0);
	fake->kick_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	fake->call_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	fake->err_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	fake->vq = bf_virtq_new(3);
	assert_non_null(fake->vq);
}

/* A ring of @size entries whose indices stand at @base. */
static inline void fake_init(struct fake *fake, unsigned size, uint16_t base, uint64_t features)
{
	fake_open(fake);
	fake->size = size;
	fake->desc = at(fake, RING_GPA);
	fake->avail = at(fake, RING_GPA + 16 * size);
	fake->used = at(fake, RING_GPA + 16 * size + 4 * KIB);
	fake->avail[1] = fake->used[1] = base;
	fake->setup = (struct bf_virtq_setup){
		.memory = fake->memory,
		.size = (uint16_t)size,
		.base = base,
		.desc_uva = UVA_OFFSET + RING_GPA,
		.avail_uva = UVA_OFFSET + RING_GPA + 16 * size,
		.used_uva = UVA_OFFSET + RING_GPA + 16 * size + 4 * KIB,
		.features = features,
		.kick_fd = fake->kick_fd,
		.call_fd = fake->call_fd,
		.err_fd = fake->err_fd,
	};
	fake_start(fake);
}

static inline void fake_done(struct fake *fake)
{
	bf_virtq_free(fake->vq);
	bf_memory_unref(fake->memory);
	close(fake->kick_fd);
	close(fake->call_fd);
	close(fake->err_fd);
}

static inline uint64_t signals(int fd)
{
	uint64_t count;

	return read(fd, &count, sizeof(count)) == sizeof(count) ? count : 0;
}

#endif
