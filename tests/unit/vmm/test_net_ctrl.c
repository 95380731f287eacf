/* SPDX-License-Identifier: BSD-3-Clause */
/* vmm/virtio/net_ctrl.c: every command, and everything that is almost one. */
#include "unit/support.h"

#include <linux/virtio_net.h>

#include "vmm/virtio/net_ctrl.h"

#define BIT(nr)  (1ull << (nr))
#define CTRL     BIT(VIRTIO_NET_F_CTRL_VQ)
#define RX       BIT(VIRTIO_NET_F_CTRL_RX)
#define EXTRA    BIT(VIRTIO_NET_F_CTRL_RX_EXTRA)
#define ADDR     BIT(VIRTIO_NET_F_CTRL_MAC_ADDR)
#define ANNOUNCE BIT(VIRTIO_NET_F_GUEST_ANNOUNCE)
#define MQ       BIT(VIRTIO_NET_F_MQ)
#define ALL      (CTRL | RX | EXTRA | ADDR | ANNOUNCE | MQ)

static const uint8_t initial_mac[6] = { 2, 0, 0, 0, 0, 1 };

struct world {
	struct net_ctrl ctrl;
	struct net_ctrl_limits limits;
	unsigned pairs; /* asked for outside */
	int refuse;
};

static int set_pairs(void *opaque, unsigned nr)
{
	struct world *w = opaque;

	w->pairs = nr;
	return w->refuse;
}

static void init(struct world *w, uint64_t features)
{
	*w = (struct world){ .limits = { .features = features,
					 .max_pairs = 4,
					 .set_pairs = set_pairs,
					 .opaque = w } };
	net_ctrl_reset(&w->ctrl, initial_mac);
	w->ctrl.announce = true;
}

/* In pieces of @piece bytes, each at the end of a page of its own that nothing follows. */
static uint8_t run(struct world *w, const void *bytes, size_t len, size_t piece)
{
	struct iovec iov[64];
	unsigned nr = 0;
	uint8_t status;
	void *pages = mmap(NULL, 128 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_true(pages != MAP_FAILED);
	for (size_t at = 0; at < len; at += piece, nr++) {
		size_t n = len - at < piece ? len - at : piece;
		uint8_t *page = (uint8_t *)pages + nr * 2 * 4096;

		assert_int_equal(mprotect(page, 4096, PROT_READ | PROT_WRITE), 0);
		iov[nr] = (struct iovec){ page + 4096 - n, n };
		memcpy(iov[nr].iov_base, (const uint8_t *)bytes + at, n);
	}
	status = net_ctrl_run(&w->ctrl, &w->limits, iov, nr);
	munmap(pages, 128 * 4096);
	return status;
}

struct command {
	const char *name;
	uint64_t needs;
	unsigned len;
	uint8_t bytes[24];
};

static const struct command good[] = {
	{ "promisc", RX, 3, { 0, 0, 1 } },
	{ "allmulti", RX, 3, { 0, 1, 1 } },
	{ "alluni", EXTRA, 3, { 0, 2, 1 } },
	{ "nomulti", EXTRA, 3, { 0, 3, 1 } },
	{ "nouni", EXTRA, 3, { 0, 4, 1 } },
	{ "nobcast", EXTRA, 3, { 0, 5, 1 } },
	{ "empty table", RX, 10, { 1, 0 } },
	{ "table", RX, 22, { 1, 0, 1, 0, 0, 0, 2, 1, 1, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0x5e, 1, 1, 1 } },
	{ "address", ADDR, 8, { 1, 1, 2, 3, 4, 5, 6, 7 } },
	{ "announced", ANNOUNCE, 2, { 3, 0 } },
	{ "pairs", MQ, 4, { 4, 0, 3, 0 } },
};

static void every_command_works_in_any_pieces(void **state)
{
	struct world w;

	(void)state;
	for (unsigned i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		for (size_t piece = 1; piece <= 24; piece++) {
			init(&w, CTRL | good[i].needs);
			assert_int_equal(run(&w, good[i].bytes, good[i].len, piece),
					 VIRTIO_NET_OK);
			assert_int_equal(w.ctrl.nr_commands, 1);
			assert_int_equal(w.ctrl.nr_refused, 0);
		}
	}
}

static void a_command_does_what_it_says(void **state)
{
	static const uint8_t mac[6] = { 2, 3, 4, 5, 6, 7 };
	struct world w;

	(void)state;
	init(&w, ALL);
	for (unsigned i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		assert_int_equal(run(&w, good[i].bytes, good[i].len, 2), VIRTIO_NET_OK);
	assert_true(w.ctrl.promisc && w.ctrl.allmulti && w.ctrl.alluni && w.ctrl.nomulti &&
		    w.ctrl.nouni && w.ctrl.nobcast);
	assert_int_equal(w.ctrl.nr_unicast, 1);
	assert_int_equal(w.ctrl.nr_multicast, 1);
	assert_memory_equal(w.ctrl.mac, mac, 6);
	assert_false(w.ctrl.announce);
	assert_int_equal(w.ctrl.nr_pairs, 3);
	assert_int_equal(w.pairs, 3);
	assert_int_equal(run(&w, (uint8_t[]){ 0, 0, 0 }, 3, 3), VIRTIO_NET_OK);
	assert_false(w.ctrl.promisc);
	net_ctrl_reset(&w.ctrl, initial_mac);
	assert_int_equal(w.ctrl.nr_pairs, 1);
	assert_false(w.ctrl.allmulti);
	assert_memory_equal(w.ctrl.mac, initial_mac, 6);
	assert_int_equal(w.ctrl.nr_commands, 12); /* counted over the device's life */
}

static void expect_refused(struct world *w, const void *bytes, size_t len)
{
	struct net_ctrl before = w->ctrl;

	for (size_t piece = 1; piece <= 32; piece += 7) {
		if (len / piece > 60)
			continue;
		w->pairs = 0;
		assert_int_equal(run(w, bytes, len, piece), VIRTIO_NET_ERR);
		before.nr_commands++;
		before.nr_refused++;
		assert_memory_equal(&w->ctrl, &before, sizeof(before));
	}
}

/* One byte less or more, or not negotiated. */
static void what_is_almost_a_command_changes_nothing(void **state)
{
	struct world w;

	(void)state;
	for (unsigned i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		for (unsigned len = 0; len < good[i].len; len++) {
			init(&w, ALL);
			expect_refused(&w, good[i].bytes, len);
		}
		init(&w, ALL);
		expect_refused(&w, good[i].bytes, good[i].len + 1);
		init(&w, ALL & ~good[i].needs);
		expect_refused(&w, good[i].bytes, good[i].len);
		assert_int_equal(w.pairs, 0);
	}
}

static void hostile_commands_change_nothing(void **state)
{
	static const struct command bad[] = {
		{ "an unknown class", ALL, 3, { 7, 0, 1 } },
		{ "VLAN, which is not offered", ALL, 4, { 2, 0, 1, 0 } },
		{ "offloads, which are not offered", ALL, 10, { 5, 0, 1 } },
		{ "the last class", ALL, 2, { 255, 255 } },
		{ "an unknown mode", ALL, 3, { 0, 6, 1 } },
		{ "the last mode", ALL, 3, { 0, 255, 1 } },
		{ "an unknown address command", ALL, 8, { 1, 2 } },
		{ "an unknown announcement", ALL, 2, { 3, 1 } },
		{ "RSS", ALL, 4, { 4, 1, 1, 0 } },
		{ "no pair", ALL, 4, { 4, 0, 0, 0 } },
		{ "a pair too many", ALL, 4, { 4, 0, 5, 0 } },
		{ "65535 pairs", ALL, 4, { 4, 0, 255, 255 } },
		{ "the address of a group", ALL, 8, { 1, 1, 1, 0, 0x5e, 0, 0, 1 } },
		{ "broadcast", ALL, 8, { 1, 1, 255, 255, 255, 255, 255, 255 } },
		{ "more addresses than bytes", ALL, 16, { 1, 0, 2, 0, 0, 0 } },
		{ "2^32 - 1 addresses", ALL, 16, { 1, 0, 255, 255, 255, 255 } },
		{ "a number that wraps 32 bits", ALL, 12, { 1, 0, 0xab, 0xaa, 0xaa, 0x2a } },
		{ "no second table", ALL, 12, { 1, 0, 1, 0, 0, 0, 2, 2, 2, 2, 2, 2 } },
		{ "a second table that is too long", ALL, 16,
		  { 1, 0, 0, 0, 0, 0, 2, 0, 0, 0, 3, 3, 3, 3, 3, 3 } },
	};
	struct world w;

	(void)state;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		init(&w, bad[i].needs);
		expect_refused(&w, bad[i].bytes, bad[i].len);
		assert_int_equal(w.pairs, 0);
	}
}

static void pairs_that_could_not_be_enabled_are_not_in_use(void **state)
{
	static const uint8_t three[] = { 4, 0, 3, 0 };
	struct world w;

	(void)state;
	init(&w, ALL);
	w.refuse = -EREMOTEIO;
	assert_int_equal(run(&w, three, 4, 4), VIRTIO_NET_ERR);
	assert_int_equal(w.ctrl.nr_pairs, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_command_works_in_any_pieces),
		cmocka_unit_test(a_command_does_what_it_says),
		cmocka_unit_test(what_is_almost_a_command_changes_nothing),
		cmocka_unit_test(hostile_commands_change_nothing),
		cmocka_unit_test(pairs_that_could_not_be_enabled_are_not_in_use),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
