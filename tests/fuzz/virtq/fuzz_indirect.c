/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Indirect tables: one descriptor of a ring refers to a table that is made of the input, anywhere in
 * guest memory, across the border of two regions too.
 *
 * Input: packed or split, where the table begins (16 bits, around the border), its length in bytes, the
 * flags of the descriptor, then the table.
 */
#include "tests/fuzz/guest.h"

#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#define SIZE 64u

struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t a, b; /* split: flags, next; packed: id, flags */
};

static struct guest guest;
static uint64_t nr_straddling;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	guest_init(&guest);
	return 0;
}

/* Byte by byte, so that it may cross. */
static void write_at(uint64_t gpa, const uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		uint8_t *to = bf_memory_from_gpa(guest.memory, gpa + i, 1);

		if (to)
			*to = bytes[i];
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct input in = { data, len };
	uint8_t choice = input8(&in);
	bool packed = choice & 1;
	/* Around the border, or anywhere. */
	uint64_t gpa = choice & 2 ? FIRST_END - 256 + input8(&in) : input32(&in);
	uint32_t table_len = choice & 4 ? input32(&in) : 16u * (input8(&in) % (SIZE + 2));
	uint16_t flags = (uint16_t)(VRING_DESC_F_INDIRECT | (choice & 8 ? input16(&in) : 0));
	uint64_t features = 1ull << VIRTIO_RING_F_INDIRECT_DESC;
	struct desc desc = { gpa, table_len, 0, 0 };

	memset(guest.ring, 0, MEMORY_END - RING);
	if (packed) {
		features |= 1ull << VIRTIO_F_RING_PACKED;
		desc.b = (uint16_t)((flags & 0x7f7f) | 1u << 7);
	} else {
		desc.a = flags;
		((uint16_t *)(void *)(guest.ring + DRIVER - RING))[1] = 1;
	}
	memcpy(guest.ring, &desc, sizeof(desc));
	write_at(gpa, in.at, in.left < 16 * SIZE ? in.left : 16 * SIZE);
	if (!guest_start(&guest, SIZE, packed ? BF_VIRTQ_PACKED_BASE : 0, features))
		return 0;
	guest_do(&guest, 0);
	if (guest.nr_taken && gpa < FIRST_END && gpa + table_len > FIRST_END)
		nr_straddling++;
	guest_end(&guest);
	return 0;
}

bool fuzz_report(void)
{
	printf("indirect: %llu popped, %llu of a table in two regions, %llu pieces, %llu broken\n",
	       (unsigned long long)guest.popped, (unsigned long long)nr_straddling,
	       (unsigned long long)guest.pieces, (unsigned long long)guest.broken);
	return guest.popped && nr_straddling && guest.pieces && guest.broken;
}
