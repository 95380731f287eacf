/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A packed ring made of the input, and rewritten while the device works on it.
 *
 * Input: size, features, base (bit 0 of a byte: a fresh one), then operations as in fuzz_split.c.
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

static void scribble(struct input *in, unsigned size)
{
	uint8_t what = input8(in), at = input8(in);

	switch (what & 7) {
	case 0:
	case 1:
	case 2:
	case 3:
		input_bytes(in, guest.ring + 16u * (at % size), 16);
		break;
	case 4:
		/* Only the flags: available in this turn or in the other. */
		guest.ring[16u * (at % size) + 14] = input8(in);
		guest.ring[16u * (at % size) + 15] = input8(in);
		break;
	case 5:
		input_bytes(in, guest.ring + DRIVER - RING, 4);
		break;
	case 6:
		input_bytes(in, guest.ring + TABLES - RING + 16u * at, 16);
		break;
	default:
		input_bytes(in, guest.ring + DEVICE - RING, 4);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct input in = { data, len };
	uint16_t size = (uint16_t)(input8(&in) + 1);
	uint8_t choice = input8(&in);
	uint32_t base = input8(&in) & 1 ? BF_VIRTQ_PACKED_BASE : input32(&in);
	uint64_t features = 1ull << VIRTIO_F_RING_PACKED;

	features |= choice & 1 ? 1ull << VIRTIO_RING_F_EVENT_IDX : 0;
	features |= choice & 2 ? 1ull << VIRTIO_RING_F_INDIRECT_DESC : 0;
	features |= choice & 4 ? 1ull << VIRTIO_F_IN_ORDER : 0;
	memset(guest.ring, 0, MEMORY_END - RING);
	if (!guest_start(&guest, size, base, features))
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
	printf("packed: %llu popped, %llu pushed, %llu put back, %llu pieces, %llu broken\n",
	       (unsigned long long)guest.popped, (unsigned long long)guest.pushed,
	       (unsigned long long)guest.put_back, (unsigned long long)guest.pieces,
	       (unsigned long long)guest.broken);
	return guest.popped && guest.pushed && guest.put_back && guest.pieces && guest.broken;
}
