/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A split ring made of the input, and rewritten while the device works on it.
 *
 * Input: log2 of the size, features, base, then operations: with the high bit set, bytes are written into
 * the ring first (where, what), as a driver does it at any moment.
 */
#include "tests/fuzz/guest.h"

#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

static struct guest guest;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	guest_init(&guest);
	return 0;
}

static uint64_t features(uint8_t choice)
{
	return (choice & 1 ? 1ull << VIRTIO_RING_F_EVENT_IDX : 0) |
	       (choice & 2 ? 1ull << VIRTIO_RING_F_INDIRECT_DESC : 0) |
	       (choice & 4 ? 1ull << VIRTIO_F_IN_ORDER : 0);
}

/* A descriptor, an available entry or index, an event: each where it belongs. */
static void scribble(struct input *in, unsigned size)
{
	uint8_t what = input8(in), at = input8(in);
	uint16_t *avail = (uint16_t *)(void *)(guest.ring + DRIVER - RING);
	uint16_t value;

	switch (what & 7) {
	case 0:
	case 1:
	case 2:
		input_bytes(in, guest.ring + 16u * (at % size), 16);
		break;
	case 3:
		avail[2 + at % size] = input16(in);
		break;
	case 4:
		avail[1] = (uint16_t)(avail[1] + (at & 7));
		break;
	case 5:
		value = input16(in);
		avail[at % 3 == 0 ? 0 : at % 3 == 1 ? 1 : 2 + size] = value;
		break;
	case 6:
		input_bytes(in, guest.ring + TABLES - RING + 16u * at, 16);
		break;
	default:
		input_bytes(in, guest.ring + DEVICE - RING + 4u * at, 4);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct input in = { data, len };
	unsigned size = 1u << (input8(&in) % 8);
	uint64_t chosen = features(input8(&in));
	uint16_t base = input16(&in);

	memset(guest.ring, 0, MEMORY_END - RING);
	((uint16_t *)(void *)(guest.ring + DRIVER - RING))[1] = base;
	((uint16_t *)(void *)(guest.ring + DEVICE - RING))[1] = base;
	if (!guest_start(&guest, (uint16_t)size, base, chosen))
		return 0;
	while (in.left) {
		uint8_t op = input8(&in);

		if (op & 0x80)
			scribble(&in, size);
		else
			guest_do(&guest, op);
	}
	guest_end(&guest);
	return 0;
}

bool fuzz_report(void)
{
	printf("split: %llu popped, %llu pushed, %llu put back, %llu pieces, %llu broken\n",
	       (unsigned long long)guest.popped, (unsigned long long)guest.pushed,
	       (unsigned long long)guest.put_back, (unsigned long long)guest.pieces,
	       (unsigned long long)guest.broken);
	return guest.popped && guest.pushed && guest.put_back && guest.pieces && guest.broken;
}
