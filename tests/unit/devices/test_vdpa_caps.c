/* SPDX-License-Identifier: BSD-3-Clause */
/* Virtio capabilities in PCI configuration space: found, chosen, and never believed. */
#include "../support.h"

#include <linux/pci_regs.h>

#include "devices/vdpa/virtio_pci_internal.h"

#define BAR_SIZE 0x8000

struct space {
	uint8_t config[PCI_CONFIG_LEN];
	struct vfio_region bars[NR_BARS];
	unsigned end;  /* where the next capability goes */
	uint8_t *link; /* what points to the next one */
};

static void put16(uint8_t *at, unsigned value)
{
	at[0] = (uint8_t)value;
	at[1] = (uint8_t)(value >> 8);
}

static void put32(uint8_t *at, uint32_t value)
{
	put16(at, value & 0xffff);
	put16(at + 2, value >> 16);
}

static uint8_t *add_cap(struct space *s, unsigned id, unsigned len)
{
	uint8_t *cap = s->config + s->end;

	assert_true(s->end + len <= PCI_CONFIG_LEN);
	*s->link = (uint8_t)s->end;
	cap[0] = (uint8_t)id;
	s->link = cap + 1;
	s->end += (len + 3) & ~3u;
	return cap;
}

static uint8_t *add_virtio(struct space *s, unsigned type, unsigned bar, uint32_t offset,
			   uint32_t length)
{
	unsigned len = type == VIRTIO_PCI_CAP_NOTIFY_CFG ? 20 : 16;
	uint8_t *cap = add_cap(s, PCI_CAP_ID_VNDR, len);

	cap[2] = (uint8_t)len;
	cap[3] = (uint8_t)type;
	cap[4] = (uint8_t)bar;
	put32(cap + 8, offset);
	put32(cap + 12, length);
	if (type == VIRTIO_PCI_CAP_NOTIFY_CFG)
		put32(cap + 16, 4096);
	return cap;
}

static void add_msix(struct space *s)
{
	uint8_t *cap = add_cap(s, PCI_CAP_ID_MSIX, PCI_CAP_MSIX_SIZEOF);

	put16(cap + PCI_MSIX_FLAGS, 3);          /* 4 vectors */
	put32(cap + PCI_MSIX_TABLE, 0x7000 | 1); /* BAR 1 */
	put32(cap + PCI_MSIX_PBA, 0x7800 | 1);
}

static void empty(struct space *s, unsigned device)
{
	unsigned i;

	memset(s, 0, sizeof(*s));
	put16(s->config + PCI_VENDOR_ID, 0x1af4);
	put16(s->config + PCI_DEVICE_ID, device);
	put16(s->config + PCI_SUBSYSTEM_ID, 2);
	put16(s->config + PCI_STATUS, PCI_STATUS_CAP_LIST);
	s->link = s->config + PCI_CAPABILITY_LIST;
	s->end = 0x40;
	for (i = 0; i < NR_BARS; i++)
		s->bars[i] = (struct vfio_region){ .size = i == 1 || i == 4 ? BAR_SIZE : 0,
						   .mappable = true };
}

static void build(struct space *s)
{
	empty(s, 0x1041);
	add_virtio(s, VIRTIO_PCI_CAP_COMMON_CFG, 4, 0, 0x1000);
	add_virtio(s, VIRTIO_PCI_CAP_ISR_CFG, 4, 0x1000, 0x1000);
	add_virtio(s, VIRTIO_PCI_CAP_DEVICE_CFG, 4, 0x2000, 0x100);
	add_virtio(s, VIRTIO_PCI_CAP_NOTIFY_CFG, 4, 0x3000, 0x4000);
	add_msix(s);
}

static int parse(const struct space *s, struct virtio_pci_caps *caps)
{
	const char *reason = NULL;
	int ret = virtio_pci_parse_caps(s->config, s->bars, caps, &reason);

	assert_int_equal(ret != 0, reason != NULL);
	return ret;
}

static void test_modern(void **state)
{
	struct virtio_pci_caps caps;
	struct space s;

	(void)state;
	build(&s);
	assert_int_equal(parse(&s, &caps), 0);
	assert_int_equal(caps.device_id, 1);
	assert_int_equal(caps.common.bar, 4);
	assert_int_equal(caps.common.length, 0x1000);
	assert_int_equal(caps.notify.offset, 0x3000);
	assert_int_equal(caps.notify_multiplier, 4096);
	assert_int_equal(caps.device.offset, 0x2000);
	/* Common, ISR, device, both tables of MSI-X; not the doorbells. */
	assert_int_equal(caps.nr_taken, 5);
	assert_int_equal(caps.taken[3].offset, 0x7000);
	assert_int_equal(caps.taken[3].length, 64);
	assert_int_equal(caps.taken[4].offset, 0x7800);
	assert_int_equal(caps.taken[4].length, 8);
}

static void test_transitional(void **state)
{
	struct virtio_pci_caps caps;
	struct space s;

	(void)state;
	build(&s);
	put16(s.config + PCI_DEVICE_ID, 0x1001);
	assert_int_equal(parse(&s, &caps), 0);
	assert_int_equal(caps.device_id, 2);
}

static void test_refused(void **state)
{
	struct virtio_pci_caps caps = { .nr_taken = 77 };
	struct space s;

	(void)state;
	build(&s);
	put16(s.config + PCI_VENDOR_ID, 0x8086);
	assert_int_equal(parse(&s, &caps), -ENXIO);
	build(&s);
	put16(s.config + PCI_DEVICE_ID, 0x1080);
	assert_int_equal(parse(&s, &caps), -ENXIO);

	empty(&s, 0x1000);
	add_msix(&s);
	assert_int_equal(parse(&s, &caps), -EOPNOTSUPP);

	empty(&s, 0x1041);
	add_msix(&s);
	assert_int_equal(parse(&s, &caps), -EBADMSG);
	build(&s);
	put16(s.config + PCI_STATUS, 0);
	assert_int_equal(parse(&s, &caps), -EBADMSG);

	empty(&s, 0x1041);
	add_virtio(&s, VIRTIO_PCI_CAP_COMMON_CFG, 4, 0, 0x1000);
	add_virtio(&s, VIRTIO_PCI_CAP_NOTIFY_CFG, 4, 0x3000, 0x4000);
	assert_int_equal(parse(&s, &caps), -ENOSPC);
	assert_int_equal(caps.nr_taken, 77);
}

/* A common configuration that lies elsewhere than inside of a BAR is none. */
static void test_bounds(void **state)
{
	static const struct {
		unsigned bar;
		uint32_t offset, length;
		bool good;
	} cases[] = {
		{ 4, BAR_SIZE - 56, 56, true },
		{ 4, BAR_SIZE - 52, 56, false },
		{ 4, 0, BAR_SIZE, true },
		{ 4, 4, BAR_SIZE, false },
		{ 4, 0, 55, false },
		{ 4, 2, 56, false },
		{ 4, 0, 0, false },
		{ 4, 0xfffffffc, 56, false },
		{ 4, 56, 0xfffffff8, false },
		{ 0, 0, 56, false },
		{ 6, 0, 56, false },
		{ 255, 0, 56, false },
	};
	struct virtio_pci_caps caps;
	struct space s;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		empty(&s, 0x1041);
		add_virtio(&s, VIRTIO_PCI_CAP_COMMON_CFG, cases[i].bar, cases[i].offset,
			   cases[i].length);
		add_virtio(&s, VIRTIO_PCI_CAP_NOTIFY_CFG, 4, 0x3000, 2);
		add_msix(&s);
		assert_int_equal(parse(&s, &caps), cases[i].good ? 0 : -EBADMSG);
	}
}

static void test_notify(void **state)
{
	struct virtio_pci_caps caps;
	struct space s;
	uint8_t *cap;

	(void)state;
	/* The later one, because the first cannot be mapped. */
	empty(&s, 0x1041);
	s.bars[1].mappable = false;
	add_virtio(&s, VIRTIO_PCI_CAP_COMMON_CFG, 4, 0, 0x1000);
	add_virtio(&s, VIRTIO_PCI_CAP_NOTIFY_CFG, 1, 0, 0x1000);
	add_virtio(&s, VIRTIO_PCI_CAP_NOTIFY_CFG, 4, 0x3000, 0x1000);
	add_virtio(&s, VIRTIO_PCI_CAP_NOTIFY_CFG, 4, 0x4000, 0x1000);
	add_msix(&s);
	assert_int_equal(parse(&s, &caps), 0);
	assert_int_equal(caps.notify.bar, 4);
	assert_int_equal(caps.notify.offset, 0x3000);
	/* None of them can: the first. */
	s.bars[4].mappable = false;
	assert_int_equal(parse(&s, &caps), 0);
	assert_int_equal(caps.notify.bar, 1);

	/* Too short for its multiplier; an odd multiplier; an odd offset. */
	empty(&s, 0x1041);
	add_virtio(&s, VIRTIO_PCI_CAP_COMMON_CFG, 4, 0, 0x1000);
	cap = add_virtio(&s, VIRTIO_PCI_CAP_NOTIFY_CFG, 4, 0x3000, 0x1000);
	add_msix(&s);
	assert_int_equal(parse(&s, &caps), 0);
	cap[2] = 16;
	assert_int_equal(parse(&s, &caps), -EBADMSG);
	cap[2] = 20;
	put32(cap + 16, 3);
	assert_int_equal(parse(&s, &caps), -EBADMSG);
	put32(cap + 16, 0);
	assert_int_equal(parse(&s, &caps), 0);
	put32(cap + 8, 0x3001);
	assert_int_equal(parse(&s, &caps), -EBADMSG);
}

static void test_first_wins(void **state)
{
	struct virtio_pci_caps caps;
	struct space s;

	(void)state;
	empty(&s, 0x1041);
	add_virtio(&s, VIRTIO_PCI_CAP_COMMON_CFG, 6, 0, 0x1000); /* reserved: ignored */
	add_virtio(&s, VIRTIO_PCI_CAP_COMMON_CFG, 4, 0x100, 0x100);
	add_virtio(&s, VIRTIO_PCI_CAP_COMMON_CFG, 4, 0x200, 0x100);
	add_virtio(&s, VIRTIO_PCI_CAP_NOTIFY_CFG, 4, 0x3000, 0x1000);
	add_msix(&s);
	assert_int_equal(parse(&s, &caps), 0);
	assert_int_equal(caps.common.offset, 0x100);
	assert_int_equal(caps.device.length, 0);
}

/* Lists that end outside, run in a circle, or are made of noise. */
static void test_hostile_lists(void **state)
{
	struct virtio_pci_caps caps;
	unsigned seed, i;
	struct space s;

	(void)state;
	build(&s);
	s.config[s.end - 12 + 1] = 0x40; /* MSI-X is the last one */
	assert_int_equal(parse(&s, &caps), 0);
	build(&s);
	s.config[0x41] = 0x40;
	assert_int_equal(parse(&s, &caps), -EBADMSG);
	for (i = 0xf0; i < 0x100; i++) {
		empty(&s, 0x1041);
		s.config[PCI_CAPABILITY_LIST] = (uint8_t)i;
		s.config[i & ~3u] = i & 1 ? PCI_CAP_ID_VNDR : PCI_CAP_ID_MSIX;
		assert_int_equal(parse(&s, &caps), -EBADMSG);
	}
	/* Half of a capability: what comes behind in memory is not configuration space. */
	empty(&s, 0x1041);
	s.end = 0x80;
	add_virtio(&s, VIRTIO_PCI_CAP_NOTIFY_CFG, 4, 0x3000, 0x4000);
	add_msix(&s);
	s.end = 0xf8;
	*s.link = 0xf8;
	memcpy(s.config + 0xf8, (const uint8_t[]){ PCI_CAP_ID_VNDR, 0, 16, 1, 4 }, 5);
	s.bars[0].size = 0x100ull << 32;
	assert_int_equal(parse(&s, &caps), -EBADMSG);
	for (seed = 0; seed < 20000; seed++) {
		srand(seed);
		build(&s);
		for (i = 0; i < 8; i++)
			s.config[0x34 + rand() % (256 - 0x34)] = (uint8_t)rand();
		if (parse(&s, &caps))
			continue;
		assert_true(caps.common.bar < NR_BARS && caps.notify.bar < NR_BARS);
		assert_true(caps.common.offset + caps.common.length <=
			    s.bars[caps.common.bar].size);
		assert_true(caps.notify.offset + caps.notify.length <=
			    s.bars[caps.notify.bar].size);
		assert_true(caps.nr_taken <= MAX_TAKEN);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_modern),        cmocka_unit_test(test_transitional),
		cmocka_unit_test(test_refused),       cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_notify),        cmocka_unit_test(test_first_wins),
		cmocka_unit_test(test_hostile_lists),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
