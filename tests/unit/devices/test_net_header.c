/* SPDX-License-Identifier: BSD-3-Clause */
/* Packet headers: every bound, one below, at, and one beyond it. */
#include "../support.h"

#include <linux/virtio_config.h>
#include <stdbool.h>

#include "devices/net/header.h"

#define BIT(n) (1ull << (n))
#define ALL                                                                                   \
	(BIT(VIRTIO_NET_F_CSUM) | BIT(VIRTIO_NET_F_HOST_TSO4) | BIT(VIRTIO_NET_F_HOST_TSO6) | \
	 BIT(VIRTIO_NET_F_HOST_ECN) | BIT(NET_F_HOST_USO))
#define CSUM VIRTIO_NET_HDR_F_NEEDS_CSUM
#define ECN  VIRTIO_NET_HDR_GSO_ECN
#define LEN  1000

struct row {
	uint8_t flags, gso_type;
	uint16_t hdr_len, gso_size, csum_start, csum_offset;
	uint64_t features;
	bool fits;
	uint32_t len;
};

static const struct row rows[] = {
	{ 0, 0, 0, 0, 0, 0, 0, true, 14 },
	/* Fields of a header that says nothing are not looked at. */
	{ 0, 0, 0xffff, 0xffff, 0xffff, 0xffff, 0, true, 14 },
	/* Unknown flags, and a sender's DATA_VALID, are ignored. */
	{ 0xfe, 0, 0, 0, 0xffff, 0xffff, ALL, true, 14 },
	/* The checksum's two bytes are the last of the packet; one beyond. */
	{ CSUM, 0, 0, 0, 34, LEN - 36, ALL, true, LEN },
	{ CSUM, 0, 0, 0, 34, LEN - 35, ALL, false, LEN },
	{ CSUM, 0, 0, 0, LEN - 2, 0, ALL, true, LEN },
	{ CSUM, 0, 0, 0, LEN - 1, 0, ALL, false, LEN },
	/* No sum of 16 bits. */
	{ CSUM, 0, 0, 0, 0xffff, 1, ALL, false, LEN },
	{ CSUM, 0, 0, 0, 34, 0xffff, ALL, false, LEN },
	{ CSUM, 0, 0, 0, 0x8000, 0x8000, ALL, false, LEN },
	/* Not in the Ethernet header. */
	{ CSUM, 0, 0, 0, 14, 0, ALL, true, LEN },
	{ CSUM, 0, 0, 0, 13, 0, ALL, false, LEN },
	{ CSUM, 0, 0, 0, 0, 16, ALL, false, LEN },
	/* Not accepted. */
	{ CSUM, 0, 0, 0, 34, 16, ALL & ~BIT(VIRTIO_NET_F_CSUM), false, LEN },
	/* Segmentation: types, and what was accepted. */
	{ CSUM, 1, 54, 100, 34, 16, ALL, true, LEN },
	{ CSUM, 1, 54, 100, 34, 16, ALL & ~BIT(VIRTIO_NET_F_HOST_TSO4), false, LEN },
	{ CSUM, 4, 54, 100, 34, 16, ALL, true, LEN },
	{ CSUM, 4, 54, 100, 34, 16, ALL & ~BIT(VIRTIO_NET_F_HOST_TSO6), false, LEN },
	{ CSUM, 5, 54, 100, 34, 6, ALL, true, LEN },
	{ CSUM, 5, 54, 100, 34, 6, ALL & ~BIT(NET_F_HOST_USO), false, LEN },
	{ CSUM, 1 | ECN, 54, 100, 34, 16, ALL, true, LEN },
	{ CSUM, 4 | ECN, 54, 100, 34, 16, ALL, true, LEN },
	{ CSUM, 1 | ECN, 54, 100, 34, 16, ALL & ~BIT(VIRTIO_NET_F_HOST_ECN), false, LEN },
	{ CSUM, 5 | ECN, 54, 100, 34, 6, ALL, false, LEN },
	{ CSUM, ECN, 54, 100, 34, 6, ALL, false, LEN },
	/* UFO is not offered; 2, 6 and the rest do not exist. */
	{ CSUM, 3, 54, 100, 34, 6, ALL | BIT(VIRTIO_NET_F_HOST_UFO), false, LEN },
	{ CSUM, 2, 54, 100, 34, 6, ALL, false, LEN },
	{ CSUM, 6, 54, 100, 34, 6, ALL, false, LEN },
	{ CSUM, 0x7f, 54, 100, 34, 6, ALL, false, LEN },
	/* Without a checksum; without a size. */
	{ 0, 1, 54, 100, 34, 16, ALL, false, LEN },
	{ CSUM, 1, 54, 0, 34, 16, ALL, false, LEN },
	{ CSUM, 1, 54, 1, 34, 16, ALL, true, LEN },
	/* hdr_len is a hint. */
	{ CSUM, 1, 0, 100, 34, 16, ALL, true, LEN },
	{ CSUM, 1, 0xffff, 100, 34, 16, ALL, true, LEN },
};

static void test_table(void **state)
{
	(void)state;
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct row *r = &rows[i];
		const struct virtio_net_hdr_v1 raw = {
			.flags = r->flags,
			.gso_type = r->gso_type,
			.hdr_len = htole16(r->hdr_len),
			.gso_size = htole16(r->gso_size),
			.csum_start = htole16(r->csum_start),
			.csum_offset = htole16(r->csum_offset),
		};
		struct net_meta meta, untouched;

		memset(&meta, 0xee, sizeof(meta));
		untouched = meta;
		if (net_meta_read(&raw, r->len, r->features, &meta) != r->fits)
			fail_msg("row %u: expected %d", i, r->fits);
		if (!r->fits) {
			assert_memory_equal(&meta, &untouched, sizeof(meta));
			continue;
		}
		assert_int_equal(meta.flags, r->flags & CSUM);
		assert_int_equal(meta.gso_type, r->gso_type);
		assert_int_equal(meta.csum_start, r->flags & CSUM ? r->csum_start : 0);
		assert_int_equal(meta.csum_offset, r->flags & CSUM ? r->csum_offset : 0);
		assert_int_equal(meta.gso_size, r->gso_type ? r->gso_size : 0);
		assert_true(meta.hdr_len <= r->len);
	}
}

static void test_lengths(void **state)
{
	(void)state;
	assert_int_equal(net_header_len(0), 10);
	assert_int_equal(net_header_len(ALL), 10);
	assert_int_equal(net_header_len(BIT(VIRTIO_NET_F_MRG_RXBUF)), 12);
	assert_int_equal(net_header_len(BIT(VIRTIO_F_VERSION_1)), 12);
}

/* Who may be given what: each offload needs its own feature. */
static void test_accepted(void **state)
{
	static const struct {
		uint8_t flags, gso_type;
		uint64_t need;
	} cases[] = {
		{ 0, 0, 0 },
		{ CSUM, 0, BIT(VIRTIO_NET_F_GUEST_CSUM) },
		{ CSUM, 1, BIT(VIRTIO_NET_F_GUEST_CSUM) | BIT(VIRTIO_NET_F_GUEST_TSO4) },
		{ CSUM, 4, BIT(VIRTIO_NET_F_GUEST_CSUM) | BIT(VIRTIO_NET_F_GUEST_TSO6) },
		{ CSUM, 5,
		  BIT(VIRTIO_NET_F_GUEST_CSUM) | BIT(NET_F_GUEST_USO4) | BIT(NET_F_GUEST_USO6) },
		{ CSUM, 1 | ECN,
		  BIT(VIRTIO_NET_F_GUEST_CSUM) | BIT(VIRTIO_NET_F_GUEST_TSO4) |
			  BIT(VIRTIO_NET_F_GUEST_ECN) },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct net_meta meta = { .flags = cases[i].flags,
					       .gso_type = cases[i].gso_type };

		assert_true(net_meta_accepted(&meta, cases[i].need));
		for (unsigned bit = 0; bit < 64; bit++)
			if (bf_has(cases[i].need, bit))
				assert_false(net_meta_accepted(&meta, ~BIT(bit)));
	}
}

static void test_gather(void **state)
{
	uint8_t from[100], to[100];
	struct iovec iov[] = { { from, 7 }, { from + 7, 0 }, { from + 7, 1 }, { from + 8, 92 } };

	(void)state;
	for (unsigned i = 0; i < sizeof(from); i++)
		from[i] = (uint8_t)i;
	for (unsigned offset = 0; offset <= 100; offset++) {
		for (unsigned len = 0; len <= 100 - offset; len++) {
			memset(to, 0xee, sizeof(to));
			net_gather(to, iov, 4, offset, len);
			assert_memory_equal(to, from + offset, len);
			if (len < 100)
				assert_int_equal(to[len], 0xee);
		}
	}
	for (unsigned len = 0; len <= 100; len++) {
		memset(to, 0xee, sizeof(to));
		net_copy(to, from, len);
		assert_memory_equal(to, from, len);
		if (len < 100)
			assert_int_equal(to[len], 0xee);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_lengths),
		cmocka_unit_test(test_accepted),
		cmocka_unit_test(test_gather),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
