/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Guest memory for the fuzz targets of rings, and the work of a device on whatever a ring gives.
 *
 * [0, 64 KiB) and [64 KiB, 128 KiB) touch; nothing up to 192 KiB; [192 KiB, 256 KiB). The driver's ring
 * is at 192 KiB: descriptors, driver area at 16 KiB, device area at 24 KiB of it, tables from 32 KiB on.
 */
#ifndef TESTS_FUZZ_GUEST_H
#define TESTS_FUZZ_GUEST_H

#include "fuzz.h"

#include "lib/virtq/virtq.h"

#define KIB        1024u
#define FIRST_END  (64 * KIB)
#define HOLE       (128 * KIB)
#define HOLE_END   (192 * KIB)
#define MEMORY_END (256 * KIB)
#define UVA_OFFSET 0x7f0000000000ull
#define RING       HOLE_END
#define DRIVER     (RING + 16 * KIB)
#define DEVICE     (RING + 24 * KIB)
#define TABLES     (RING + 32 * KIB)

#define MAX_TAKEN 256u

struct guest {
	struct bf_memory *memory;
	uint8_t *low;  /* [0, HOLE) is in two mappings; this is the first */
	uint8_t *ring; /* RING .. MEMORY_END */
	struct bf_virtq *vq;
	int call_fd, err_fd;
	uint16_t taken[MAX_TAKEN]; /* heads in flight, in the order in which they were popped */
	unsigned nr_taken;
	uint64_t popped, pushed, put_back, broken, pieces, bytes;
};

void guest_init(struct guest *guest);
/* Start a ring; false: refused. The descriptors' and areas' bytes are filled in already. */
bool guest_start(struct guest *guest, uint16_t size, uint32_t base, uint64_t features);
bool guest_start_with(struct guest *guest, uint16_t size, uint32_t base, uint64_t features,
		      const struct bf_virtq_extras *extras);
/* One operation of the device, chosen by @op. */
void guest_do(struct guest *guest, uint8_t op);
/* Give everything back and stop. */
void guest_end(struct guest *guest);

#endif
