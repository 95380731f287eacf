/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A ring that starts with an in-flight region full of whatever the front end brought back.
 *
 * Input: packed or split, log2 of the size, base, how many bytes of the region follow, the region, how
 * many descriptors, descriptors and available entries; then operations of the device.
 */
#include "tests/fuzz/guest.h"

#include <linux/virtio_config.h>

#include "lib/mem/inflight.h"
#include "lib/virtq/inflight.h"

static struct guest guest;
static uint64_t nr_started[2], nr_refused, nr_again;
static uint8_t *region; /* exactly as long as a queue's part: the sanitizer sees what lies beyond */

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	guest_init(&guest);
	return 0;
}

static void fill(struct input *in, bool packed, unsigned size)
{
	uint16_t *avail = (uint16_t *)(void *)(guest.ring + DRIVER - RING);
	unsigned nr = input8(in) % (size + 1);

	memset(guest.ring, 0, MEMORY_END - RING);
	input_bytes(in, guest.ring, 16u * nr);
	if (packed)
		return;
	avail[1] = input16(in);
	for (unsigned i = 0; i < nr; i++)
		avail[2 + i] = input8(in);
	((uint16_t *)(void *)(guest.ring + DEVICE - RING))[1] = input16(in);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct input in = { data, len };
	uint8_t choice = input8(&in);
	bool packed = choice & 1;
	uint16_t size = (uint16_t)(1u << (choice >> 1 & 7));
	uint32_t base = input32(&in);
	uint16_t given = input16(&in);
	uint64_t features = packed ? 1ull << VIRTIO_F_RING_PACKED : 0;
	uint64_t part_len = bf_inflight_queue_size(packed, size);
	struct bf_virtq_extras extras = { .log_fd = -1, .post_fd = -1, .inflight_size = size };

	region = aligned_alloc(BF_INFLIGHT_ALIGN, part_len);
	fuzz_must(region);
	memset(region, 0, part_len);
	input_bytes(&in, region, given < part_len ? given : part_len);
	fill(&in, packed, size);
	extras.inflight = region;
	if (guest_start_with(&guest, size, base, features, &extras)) {
		nr_started[packed]++;
		nr_again += bf_inflight_nr_again(guest.vq);
		while (in.left)
			guest_do(&guest, input8(&in));
		for (unsigned i = 0; i < 2 * size; i++)
			guest_do(&guest, i % 2 ? 0x74 : 0x70);
		guest_end(&guest);
	} else {
		nr_refused++;
	}
	free(region);
	return 0;
}

bool fuzz_report(void)
{
	printf("inflight: %llu split and %llu packed started, %llu refused, %llu requests given "
	       "again, %llu popped, %llu pushed\n",
	       (unsigned long long)nr_started[0], (unsigned long long)nr_started[1],
	       (unsigned long long)nr_refused, (unsigned long long)nr_again,
	       (unsigned long long)guest.popped, (unsigned long long)guest.pushed);
	return nr_started[0] && nr_started[1] && nr_again && guest.popped && guest.pushed;
}
