/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The virtio-pci driver against a device made of registers: each in its own width, waits that end,
 * doorbells that may be handed out and those that may not. vfio_*() are this file's.
 */
#include "../support.h"

#include <linux/pci_regs.h>
#include <linux/vfio.h>

#include "devices/vdpa/virtio_pci_internal.h"

#define PAGE       4096u
#define MAX_QUEUES 8
#define OFFERED                                                                       \
	(1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_F_ACCESS_PLATFORM | 1ull << 40 | \
	 1ull << 38 /* NOTIFICATION_DATA */ | MANY)
#define MANY (1ull << 22) /* shows all queues, as MQ of a net device does */

#define DEVICE_ID 0x1041

/* BAR 4: common, device, notify, MSI-X, a page each; doorbells to the end. */
#define COMMON   0x0000u
#define DEVICE   0x1000u
#define NOTIFY   0x2000u
#define BAR_SIZE 0x10000u

static struct {
	uint8_t config[256];
	uint32_t multiplier, notify_length;
	unsigned vectors, nr_queues, device_id;
	uint64_t mappable_end;
	bool gone, keeps_status, keeps_reset, unstable, refuses;
	/* Registers. */
	uint64_t agreed, offered;
	uint32_t dfselect, gfselect;
	uint16_t msix, select;
	uint8_t status, generation;
	struct {
		uint16_t max, size, vector, enable, reset, notify_off;
		uint32_t address[6];
	} queues[MAX_QUEUES];
	uint8_t space[64];
	/* What was seen. */
	unsigned resets, rings, ring_width, widths[64], nr_space_writes;
	uint64_t ring_offset;
	uint16_t ring_value;
} d;

static unsigned shown_queues(void)
{
	return d.agreed & MANY ? d.nr_queues : 3;
}

static void reset_device(void)
{
	unsigned i;

	d.resets++;
	d.status = 0;
	d.msix = 0xffff;
	for (i = 0; i < MAX_QUEUES; i++) {
		d.queues[i].size = d.queues[i].max;
		d.queues[i].vector = 0xffff;
		d.queues[i].enable = d.queues[i].reset = 0;
	}
}

static uint32_t read_common(uint64_t at, size_t width)
{
	unsigned q = d.select < shown_queues() ? d.select : MAX_QUEUES;

	switch (at) {
	case VIRTIO_PCI_COMMON_DF:
		assert_int_equal(width, 4);
		return (uint32_t)(d.offered >> 32 * d.dfselect);
	case VIRTIO_PCI_COMMON_MSIX:
		assert_int_equal(width, 2);
		return d.msix;
	case VIRTIO_PCI_COMMON_NUMQ:
		assert_int_equal(width, 2);
		return shown_queues();
	case VIRTIO_PCI_COMMON_STATUS:
		assert_int_equal(width, 1);
		return d.status;
	case VIRTIO_PCI_COMMON_CFGGENERATION:
		assert_int_equal(width, 1);
		return d.unstable ? d.generation++ : d.generation;
	}
	assert_int_equal(width, 2);
	if (q == MAX_QUEUES)
		return 0;
	switch (at) {
	case VIRTIO_PCI_COMMON_Q_SIZE:
		return d.queues[q].size;
	case VIRTIO_PCI_COMMON_Q_MSIX:
		return d.queues[q].vector;
	case VIRTIO_PCI_COMMON_Q_ENABLE:
		return d.queues[q].enable;
	case VIRTIO_PCI_COMMON_Q_NOFF:
		return d.queues[q].notify_off;
	case VIRTIO_PCI_COMMON_Q_RESET:
		return d.queues[q].reset;
	}
	fail_msg("read of register %u", (unsigned)at);
	return 0;
}

static void write_queue(uint64_t at, size_t width, uint32_t value)
{
	assert_true(d.select < shown_queues());
	if (at >= VIRTIO_PCI_COMMON_Q_DESCLO && at <= VIRTIO_PCI_COMMON_Q_USEDHI) {
		assert_int_equal(width, 4);
		d.queues[d.select].address[(at - VIRTIO_PCI_COMMON_Q_DESCLO) / 4] = value;
		return;
	}
	assert_int_equal(width, 2);
	if (at == VIRTIO_PCI_COMMON_Q_SIZE) {
		d.queues[d.select].size = (uint16_t)value;
	} else if (at == VIRTIO_PCI_COMMON_Q_MSIX) {
		d.queues[d.select].vector = value < d.vectors ? (uint16_t)value : 0xffff;
	} else if (at == VIRTIO_PCI_COMMON_Q_ENABLE) {
		assert_int_equal(value, 1);
		d.queues[d.select].enable = 1;
	} else if (at == VIRTIO_PCI_COMMON_Q_RESET) {
		assert_int_equal(value, 1);
		d.queues[d.select].reset = d.keeps_reset;
		d.queues[d.select].enable = 0;
	} else {
		fail_msg("write of register %u", (unsigned)at);
	}
}

static void write_status(uint8_t value)
{
	if (!value && !d.keeps_status)
		reset_device();
	else if (value)
		d.status = value;
	if (d.refuses || (d.agreed & ~d.offered))
		d.status &= (uint8_t)~VIRTIO_CONFIG_S_FEATURES_OK;
}

static void write_common(uint64_t at, size_t width, uint32_t value)
{
	switch (at) {
	case VIRTIO_PCI_COMMON_DFSELECT:
		d.dfselect = value;
		break;
	case VIRTIO_PCI_COMMON_GFSELECT:
		d.gfselect = value;
		break;
	case VIRTIO_PCI_COMMON_GF:
		assert_int_equal(width, 4);
		d.agreed &= ~(0xffffffffull << 32 * d.gfselect);
		d.agreed |= (uint64_t)value << 32 * d.gfselect;
		break;
	case VIRTIO_PCI_COMMON_MSIX:
		d.msix = value < d.vectors ? (uint16_t)value : 0xffff;
		break;
	case VIRTIO_PCI_COMMON_STATUS:
		assert_int_equal(width, 1);
		write_status((uint8_t)value);
		break;
	case VIRTIO_PCI_COMMON_Q_SELECT:
		assert_int_equal(width, 2);
		d.select = (uint16_t)value;
		break;
	default:
		write_queue(at, width, value);
	}
}

int vfio_read(const struct vfio_device *dev, unsigned index, uint64_t offset, void *data,
	      size_t len)
{
	uint32_t value;

	(void)dev;
	if (d.gone)
		return -EIO;
	if (index == VFIO_PCI_CONFIG_REGION_INDEX) {
		assert_int_equal(offset + len, sizeof(d.config));
		memcpy(data, d.config, len);
		return 0;
	}
	assert_int_equal(index, VFIO_PCI_BAR4_REGION_INDEX);
	assert_int_equal(offset % len, 0);
	if (offset >= DEVICE && offset < DEVICE + sizeof(d.space)) {
		d.widths[offset - DEVICE] = (unsigned)len;
		memcpy(data, d.space + (offset - DEVICE), len);
		return 0;
	}
	assert_true(offset < DEVICE);
	value = read_common(offset, len);
	memcpy(data, &value, len);
	return 0;
}

int vfio_write(const struct vfio_device *dev, unsigned index, uint64_t offset, const void *data,
	       size_t len)
{
	uint32_t value = 0;

	(void)dev;
	assert_int_equal(index, VFIO_PCI_BAR4_REGION_INDEX);
	assert_int_equal(offset % len, 0);
	memcpy(&value, data, len);
	if (d.gone)
		return -EIO;
	if (offset >= NOTIFY) {
		d.rings++;
		d.ring_width = (unsigned)len;
		d.ring_offset = offset;
		d.ring_value = (uint16_t)value;
	} else if (offset >= DEVICE) {
		d.nr_space_writes++;
		memcpy(d.space + (offset - DEVICE), data, len);
	} else {
		write_common(offset, len, value);
	}
	return 0;
}

int vfio_region(const struct vfio_device *dev, unsigned index, struct vfio_region *region)
{
	(void)dev;
	*region = (struct vfio_region){ .offset = (uint64_t)index << 40,
					.size = index == 4 ? BAR_SIZE : 0,
					.mappable = index == 4 && d.mappable_end };
	return 0;
}

bool vfio_can_map(const struct vfio_device *dev, unsigned index, uint64_t offset, uint64_t len)
{
	(void)dev;
	return index == 4 && offset + len <= d.mappable_end;
}

const char *vfio_name(const struct vfio_device *dev)
{
	(void)dev;
	return "0000:00:01.0";
}

unsigned vfio_nr_vectors(const struct vfio_device *dev)
{
	(void)dev;
	return d.vectors;
}

static void put32(uint8_t *at, uint32_t value)
{
	memcpy(at, &value, sizeof(value));
}

static void put_cap(unsigned at, unsigned type, uint32_t offset, uint32_t length)
{
	uint8_t *cap = d.config + at;

	cap[0] = PCI_CAP_ID_VNDR;
	cap[1] = (uint8_t)(at + 0x14);
	cap[2] = 20;
	cap[3] = (uint8_t)type;
	cap[4] = 4;
	put32(cap + 8, offset);
	put32(cap + 12, length);
}

static void build(uint32_t multiplier)
{
	unsigned i;

	memset(&d, 0, sizeof(d));
	d.offered = OFFERED;
	d.multiplier = multiplier;
	d.notify_length = BAR_SIZE - NOTIFY;
	d.vectors = 4;
	d.nr_queues = 5;
	d.device_id = DEVICE_ID;
	d.mappable_end = BAR_SIZE;
	for (i = 0; i < MAX_QUEUES; i++) {
		d.queues[i].max = 256;
		d.queues[i].notify_off = (uint16_t)i;
	}
	reset_device();
	d.resets = 0;
}

static void write_config_space(void)
{
	put32(d.config, 0x1af4 | d.device_id << 16);
	d.config[PCI_STATUS] = PCI_STATUS_CAP_LIST;
	d.config[PCI_CAPABILITY_LIST] = 0x40;
	put_cap(0x40, VIRTIO_PCI_CAP_COMMON_CFG, COMMON, 60);
	put_cap(0x54, VIRTIO_PCI_CAP_DEVICE_CFG, DEVICE, sizeof(d.space));
	put_cap(0x68, VIRTIO_PCI_CAP_NOTIFY_CFG, NOTIFY, d.notify_length);
	put32(d.config + 0x68 + 16, d.multiplier);
	d.config[0x7c] = PCI_CAP_ID_MSIX;
	d.config[0x7d] = 0;
	put32(d.config + 0x7c + PCI_MSIX_TABLE, (NOTIFY - 0x800) | 4);
	put32(d.config + 0x7c + PCI_MSIX_PBA, (NOTIFY - 0x400) | 4);
}

static struct virtio_pci *open_device(void)
{
	struct virtio_pci *vp;

	write_config_space();
	assert_int_equal(virtio_pci_new(NULL, &vp), 0);
	return vp;
}

static int refused(void)
{
	struct virtio_pci *vp = NULL;
	int ret;

	write_config_space();
	ret = virtio_pci_new(NULL, &vp);
	assert_null(vp);
	return ret;
}

static void test_new(void **state)
{
	struct virtio_pci *vp;

	(void)state;
	build(PAGE);
	vp = open_device();
	assert_int_equal(virtio_pci_device_id(vp), 1);
	assert_int_equal(virtio_pci_nr_queues(vp), 5);
	assert_int_equal(virtio_pci_config_size(vp), sizeof(d.space));
	assert_true(virtio_pci_features(vp) == (OFFERED & ~(1ull << 38)));
	assert_int_equal(virtio_pci_status(vp), 0);
	assert_int_equal(virtio_pci_queue_max_size(vp, 4), 256);
	assert_int_equal(virtio_pci_queue_max_size(vp, 5), 0);
	virtio_pci_free(vp);
	virtio_pci_free(NULL);
	assert_int_equal(d.status, 0);
}

static void test_new_refused(void **state)
{
	(void)state;
	build(PAGE);
	d.vectors = 1;
	assert_int_equal(refused(), -ENOSPC);
	build(PAGE);
	d.offered &= ~(1ull << VIRTIO_F_VERSION_1);
	assert_int_equal(refused(), -EOPNOTSUPP);
	build(PAGE);
	d.offered &= ~(1ull << VIRTIO_F_ACCESS_PLATFORM);
	assert_int_equal(refused(), -EOPNOTSUPP);
	build(PAGE);
	d.gone = true;
	assert_int_equal(refused(), -EIO);
	build(PAGE);
	d.status = 4;
	d.keeps_status = true;
	assert_int_equal(refused(), -ETIMEDOUT);
	build(PAGE);
	d.nr_queues = 0;
	d.offered |= MANY;
	assert_int_equal(refused(), -EBADMSG);
}

static void test_negotiate(void **state)
{
	struct virtio_pci *vp;
	uint64_t some = 1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_F_ACCESS_PLATFORM;

	(void)state;
	build(PAGE);
	vp = open_device();
	assert_int_equal(virtio_pci_negotiate(vp, some | 1), -EINVAL);
	assert_int_equal(virtio_pci_negotiate(vp, some | 1ull << 38), -EINVAL);
	assert_int_equal(virtio_pci_negotiate(vp, some), 0);
	assert_true(d.agreed == some);
	assert_int_equal(d.status, 1 | 2 | 8);
	/* Without MANY the device has fewer queues, until they are agreed again. */
	assert_int_equal(virtio_pci_queue_max_size(vp, 2), 256);
	assert_int_equal(virtio_pci_queue_max_size(vp, 3), 0);
	assert_int_equal(virtio_pci_nr_queues(vp), 5);
	assert_int_equal(virtio_pci_driver_ok(vp), 0);
	assert_int_equal(d.status, 1 | 2 | 4 | 8);
	assert_int_equal(virtio_pci_negotiate(vp, some | MANY), 0);
	assert_int_equal(virtio_pci_queue_max_size(vp, 3), 256);
	d.refuses = true;
	assert_int_equal(virtio_pci_negotiate(vp, some), -EINVAL);
	d.gone = true;
	assert_int_equal(virtio_pci_negotiate(vp, some), -ENODEV);
	assert_int_equal(virtio_pci_reset(vp), -ENODEV);
	virtio_pci_free(vp);
}

static void test_queue(void **state)
{
	struct virtio_pci_queue_setup setup = {
		.queue = 1,
		.size = 128,
		.vector = 2,
		.desc_iova = 0x1122334455667000,
		.driver_iova = 0x2122334455667000,
		.device_iova = 0x3122334455667000,
	};
	static const uint32_t addresses[] = { 0x55667000, 0x11223344, 0x55667000,
					      0x21223344, 0x55667000, 0x31223344 };
	struct virtio_pci *vp;

	(void)state;
	build(PAGE);
	vp = open_device();
	assert_int_equal(virtio_pci_negotiate(vp, virtio_pci_features(vp)), 0);
	setup.size = 257;
	assert_int_equal(virtio_pci_queue_start(vp, &setup), -EINVAL);
	setup.size = 0;
	assert_int_equal(virtio_pci_queue_start(vp, &setup), -EINVAL);
	setup.size = 128;
	setup.vector = 4;
	assert_int_equal(virtio_pci_queue_start(vp, &setup), -ENOSPC);
	assert_int_equal(d.queues[1].enable, 0);
	setup.vector = 2;
	assert_int_equal(virtio_pci_queue_start(vp, &setup), 0);
	assert_int_equal(d.queues[1].enable, 1);
	assert_int_equal(d.queues[1].size, 128);
	assert_int_equal(d.queues[1].vector, 2);
	assert_memory_equal(d.queues[1].address, addresses, sizeof(addresses));
	assert_int_equal(virtio_pci_queue_start(vp, &setup), -EBUSY);
	setup.queue = 5;
	assert_int_equal(virtio_pci_queue_start(vp, &setup), -EINVAL);

	assert_int_equal(virtio_pci_queue_reset(vp, 5), -EINVAL);
	assert_int_equal(virtio_pci_queue_reset(vp, 1), 0);
	setup.queue = 1;
	setup.vector = VIRTIO_PCI_NO_VECTOR;
	assert_int_equal(virtio_pci_queue_start(vp, &setup), 0);
	d.keeps_reset = true;
	assert_int_equal(virtio_pci_queue_reset(vp, 1), -ETIMEDOUT);

	assert_int_equal(virtio_pci_config_vector(vp, 3), 0);
	assert_int_equal(virtio_pci_config_vector(vp, 4), -ENOSPC);
	assert_int_equal(virtio_pci_config_vector(vp, VIRTIO_PCI_NO_VECTOR), 0);
	assert_int_equal(virtio_pci_negotiate(vp, 1ull << VIRTIO_F_VERSION_1), 0);
	assert_int_equal(virtio_pci_queue_reset(vp, 1), -ENOTSUP);
	virtio_pci_free(vp);
}

static void test_doorbells(void **state)
{
	struct virtio_pci *vp;
	uint64_t offset = 7;

	(void)state;
	build(PAGE);
	vp = open_device();
	assert_int_equal(virtio_pci_doorbell(vp, 3, &offset), 0);
	assert_true(offset == (4ull << 40) + NOTIFY + 3 * PAGE);
	virtio_pci_ring(vp, 3);
	assert_int_equal(d.rings, 1);
	assert_int_equal(d.ring_width, 2);
	assert_int_equal(d.ring_offset, NOTIFY + 3 * PAGE);
	assert_int_equal(d.ring_value, 3);
	assert_int_equal(virtio_pci_doorbell(vp, 5, &offset), -EINVAL);
	virtio_pci_ring(vp, 5);
	assert_int_equal(d.rings, 1);
	virtio_pci_free(vp);
}

/* Each of these is relayed: its page is not its own, or no page. */
static void test_doorbells_that_stay(void **state)
{
	uint64_t offset = 7;
	struct virtio_pci *vp;

	(void)state;
	build(4); /* close together */
	vp = open_device();
	assert_int_equal(virtio_pci_doorbell(vp, 0, &offset), -ENOTSUP);
	assert_int_equal(virtio_pci_doorbell(vp, 1, &offset), -ENOTSUP);
	virtio_pci_ring(vp, 1);
	assert_int_equal(d.ring_offset, NOTIFY + 4);
	virtio_pci_free(vp);

	build(PAGE); /* not at the beginning of their pages */
	write_config_space();
	put32(d.config + 0x68 + 8, NOTIFY + 0x10);
	put32(d.config + 0x68 + 12, BAR_SIZE - NOTIFY - 0x10);
	assert_int_equal(virtio_pci_new(NULL, &vp), 0);
	assert_int_equal(virtio_pci_doorbell(vp, 1, &offset), -ENOTSUP);
	virtio_pci_free(vp);

	build(0); /* one for all */
	vp = open_device();
	assert_int_equal(virtio_pci_doorbell(vp, 1, &offset), -ENOTSUP);
	virtio_pci_free(vp);

	build(PAGE); /* two queues with one doorbell */
	d.queues[4].notify_off = 1;
	vp = open_device();
	assert_int_equal(virtio_pci_doorbell(vp, 0, &offset), 0);
	assert_int_equal(virtio_pci_doorbell(vp, 1, &offset), -ENOTSUP);
	assert_int_equal(virtio_pci_doorbell(vp, 4, &offset), -ENOTSUP);
	virtio_pci_free(vp);

	build(2 * PAGE); /* the end of the region cannot be mapped */
	d.mappable_end = NOTIFY + 2 * PAGE;
	vp = open_device();
	assert_int_equal(virtio_pci_doorbell(vp, 0, &offset), 0);
	offset = 7;
	assert_int_equal(virtio_pci_doorbell(vp, 1, &offset), -ENOTSUP);
	virtio_pci_free(vp);
	assert_int_equal(offset, 7);

	/* The table of MSI-X, or another register, in the page of queue 1. */
	build(PAGE);
	write_config_space();
	put32(d.config + 0x7c + PCI_MSIX_TABLE, (NOTIFY + PAGE + 0xff8) | 4);
	assert_int_equal(virtio_pci_new(NULL, &vp), 0);
	assert_int_equal(virtio_pci_doorbell(vp, 1, &offset), -ENOTSUP);
	assert_int_equal(virtio_pci_doorbell(vp, 3, &offset), 0);
	virtio_pci_free(vp);

	/* A doorbell outside of its structure: no queue. */
	build(PAGE);
	d.notify_length = 4 * PAGE + 1;
	vp = open_device();
	assert_int_equal(virtio_pci_queue_max_size(vp, 3), 256);
	assert_int_equal(virtio_pci_queue_max_size(vp, 4), 0);
	virtio_pci_ring(vp, 4);
	assert_int_equal(d.rings, 0);
	virtio_pci_free(vp);
}

static void test_config(void **state)
{
	static const unsigned widths[] = { 1, 1, 1, 1, 1, 1, 2, 0, 2, 0, 2, 0, 4, 0, 0, 0, 1, 1 };
	uint8_t data[64];
	struct virtio_pci *vp;
	unsigned i;

	(void)state;
	build(PAGE);
	for (i = 0; i < sizeof(d.space); i++)
		d.space[i] = (uint8_t)(i + 1);
	vp = open_device();
	assert_int_equal(virtio_pci_config_read(vp, 0, data, sizeof(data)), 0);
	assert_memory_equal(data, d.space, sizeof(data));
	for (i = 0; i < sizeof(widths) / sizeof(widths[0]); i++)
		assert_int_equal(d.widths[i], widths[i]);
	for (i = 0; i + 7 <= sizeof(d.space); i++) {
		assert_int_equal(virtio_pci_config_read(vp, i, data, 7), 0);
		assert_memory_equal(data, d.space + i, 7);
	}
	assert_int_equal(virtio_pci_config_read(vp, 60, data, 5), -EINVAL);
	assert_int_equal(virtio_pci_config_read(vp, 65, data, 0), -EINVAL);
	assert_int_equal(virtio_pci_config_read(vp, UINT32_MAX, data, 2), -EINVAL);
	assert_int_equal(virtio_pci_config_write(vp, 4, data, UINT32_MAX), -EINVAL);

	memset(data, 0xee, sizeof(data));
	assert_int_equal(virtio_pci_config_write(vp, 5, data, 6), 0);
	assert_int_equal(d.space[4], 5);
	assert_memory_equal(d.space + 5, data, 6);
	assert_int_equal(d.space[11], 12);
	assert_int_equal(d.nr_space_writes, 4);
	assert_int_equal(virtio_pci_config_write(vp, 62, data, 3), -EINVAL);

	d.unstable = true;
	data[0] = 0x77;
	assert_int_equal(virtio_pci_config_read(vp, 0, data, 6), -EAGAIN);
	assert_int_equal(data[0], 0x77);
	d.unstable = false;
	d.gone = true;
	assert_int_equal(virtio_pci_config_read(vp, 0, data, 6), -EIO);
	assert_int_equal(virtio_pci_config_write(vp, 0, data, 6), -EIO);
	assert_int_equal(data[0], 0x77);
	virtio_pci_free(vp);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_new),       cmocka_unit_test(test_new_refused),
		cmocka_unit_test(test_negotiate), cmocka_unit_test(test_queue),
		cmocka_unit_test(test_doorbells), cmocka_unit_test(test_doorbells_that_stay),
		cmocka_unit_test(test_config),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
