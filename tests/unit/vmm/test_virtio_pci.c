/* SPDX-License-Identifier: BSD-3-Clause */
/* virtio-pci: capabilities, registers, status machine, queues, notify region, doorbells. */
#include "unit/support.h"

#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <sys/eventfd.h>

#include "fake_vm.h"
#include "vmm/pci/virtio_pci.h"

#define SLOT        1
#define NR_QUEUES   3
#define MAX_SIZE    256
#define CONFIG_SIZE 60
#define OWN_FEATURE 5
#define FEATURES    (1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_F_RING_RESET | 1ull << OWN_FEATURE)
#define PAGE        4096ull
#define S_START     (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK)
#define S_RUNNING   (S_START | VIRTIO_CONFIG_S_DRIVER_OK)

/* A device model that writes down what it is asked. */
struct fixture {
	struct vm *vm;
	struct pci_bus *bus;
	struct virtio_device dev;
	struct virtio_queue queues[NR_QUEUES];
	struct virtio_pci *vp;
	uint8_t config[CONFIG_SIZE];
	unsigned nr_start, nr_reset, nr_stop, nr_restart, nr_withdraw;
	int fail_features, fail_start, fail_config;
	uint64_t features;
	void *pages;                        /* [NR_QUEUES], doorbells */
	uint64_t regs, isr, device, notify; /* where the capabilities say */
};

static struct fixture *of(struct virtio_device *dev)
{
	return (void *)((char *)dev - offsetof(struct fixture, dev));
}

static int op_config_read(struct virtio_device *dev, uint32_t offset, void *data, uint32_t len)
{
	struct fixture *f = of(dev);

	assert_true(len <= CONFIG_SIZE && offset <= CONFIG_SIZE - len);
	memcpy(data, f->config + offset, len);
	return f->fail_config;
}

static int op_config_write(struct virtio_device *dev, uint32_t offset, const void *data,
			   uint32_t len)
{
	assert_true(len <= CONFIG_SIZE && offset <= CONFIG_SIZE - len);
	memcpy(of(dev)->config + offset, data, len);
	return 0;
}

static int op_set_features(struct virtio_device *dev, uint64_t features)
{
	of(dev)->features = features;
	return of(dev)->fail_features;
}

static int op_start(struct virtio_device *dev)
{
	of(dev)->nr_start++;
	return of(dev)->fail_start;
}

static void op_reset(struct virtio_device *dev)
{
	unsigned i;

	of(dev)->nr_reset++;
	for (i = 0; i < NR_QUEUES; i++)
		dev->transport_ops->doorbell_unmap(dev->transport, i);
}

static int op_queue_stop(struct virtio_device *dev, unsigned queue)
{
	of(dev)->nr_stop++;
	dev->transport_ops->doorbell_unmap(dev->transport, queue);
	return 0;
}

static int op_queue_start(struct virtio_device *dev, unsigned queue)
{
	(void)queue;
	of(dev)->nr_restart++;
	return of(dev)->fail_start;
}

static void op_withdraw(struct virtio_device *dev, const char *why)
{
	assert_non_null(why);
	of(dev)->nr_withdraw++;
}

static const struct virtio_device_ops dev_ops = {
	.config_read = op_config_read,
	.config_write = op_config_write,
	.set_features = op_set_features,
	.start = op_start,
	.reset = op_reset,
	.queue_stop = op_queue_stop,
	.queue_start = op_queue_start,
	.withdraw_doorbells = op_withdraw,
};

/* The address of a virtio structure, found as a driver finds it; 0: none. */
static uint64_t find(struct fixture *f, uint8_t type, unsigned *cap_at)
{
	unsigned nth, at, bar;

	for (nth = 0; (at = cfg_capability(f->vm, SLOT, PCI_CAP_ID_VNDR, nth)); nth++) {
		if (cfg_read(f->vm, SLOT, at + 3, 1) != type)
			continue;
		if (cap_at)
			*cap_at = at;
		bar = PCI_BASE_ADDRESS_0 + 4 * cfg_read(f->vm, SLOT, at + 4, 1);
		return (cfg_read(f->vm, SLOT, bar, 4) & ~0xfu) +
		       ((uint64_t)cfg_read(f->vm, SLOT, bar + 4, 4) << 32) +
		       cfg_read(f->vm, SLOT, at + 8, 4);
	}
	return 0;
}

static void turn_on(struct fixture *f, bool on)
{
	cfg_write(f->vm, SLOT, PCI_COMMAND, on ? PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER : 0, 2);
}

static void make_device(struct fixture *f)
{
	pthread_mutexattr_t attr;
	unsigned i;

	f->dev = (struct virtio_device){ .ops = &dev_ops,
					 .name = "test0",
					 .device_id = 2,
					 .pci_class = 0x018000,
					 .features = FEATURES,
					 .config_size = CONFIG_SIZE,
					 .nr_queues = NR_QUEUES,
					 .queues = f->queues };
	for (i = 0; i < NR_QUEUES; i++)
		f->queues[i].max_size = MAX_SIZE;
	for (i = 0; i < CONFIG_SIZE; i++)
		f->config[i] = (uint8_t)(i + 1);
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(&f->dev.lock, &attr);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	f->vm = fake_vm_new();
	f->bus = pci_bus_new(f->vm);
	make_device(f);
	f->pages = aligned_alloc(PAGE, NR_QUEUES * PAGE);
	memset(f->pages, 0xff, NR_QUEUES * PAGE);
	assert_int_equal(virtio_pci_new(f->vm, f->bus, &f->dev, &f->vp), 0);
	turn_on(f, true);
	f->regs = find(f, VIRTIO_PCI_CAP_COMMON_CFG, NULL);
	f->isr = find(f, VIRTIO_PCI_CAP_ISR_CFG, NULL);
	f->device = find(f, VIRTIO_PCI_CAP_DEVICE_CFG, NULL);
	f->notify = find(f, VIRTIO_PCI_CAP_NOTIFY_CFG, NULL);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	virtio_pci_free(f->vp);
	pci_bus_free(f->bus);
	fake_vm_free(f->vm);
	pthread_mutex_destroy(&f->dev.lock);
	free(f->pages);
	free(f);
	return 0;
}

static uint32_t rd(struct fixture *f, unsigned reg, unsigned len)
{
	return (uint32_t)mmio_read(f->vm, f->regs + reg, len);
}

static void wr(struct fixture *f, unsigned reg, uint32_t value, unsigned len)
{
	mmio_write(f->vm, f->regs + reg, value, len);
}

static uint8_t status(struct fixture *f)
{
	return (uint8_t)rd(f, VIRTIO_PCI_COMMON_STATUS, 1);
}

static void set_status(struct fixture *f, uint8_t value)
{
	wr(f, VIRTIO_PCI_COMMON_STATUS, value, 1);
}

static void set_features(struct fixture *f, uint64_t features)
{
	unsigned i;

	for (i = 0; i < 2; i++) {
		wr(f, VIRTIO_PCI_COMMON_GFSELECT, i, 4);
		wr(f, VIRTIO_PCI_COMMON_GF, (uint32_t)(features >> (32 * i)), 4);
	}
}

static void negotiate(struct fixture *f, uint64_t features)
{
	set_status(f, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	set_status(f, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	set_features(f, features);
	set_status(f, S_START);
}

static void set_ring(struct fixture *f, uint64_t desc, uint64_t driver, uint64_t device)
{
	wr(f, VIRTIO_PCI_COMMON_Q_DESCLO, (uint32_t)desc, 4);
	wr(f, VIRTIO_PCI_COMMON_Q_DESCHI, (uint32_t)(desc >> 32), 4);
	wr(f, VIRTIO_PCI_COMMON_Q_AVAILLO, (uint32_t)driver, 4);
	wr(f, VIRTIO_PCI_COMMON_Q_AVAILHI, (uint32_t)(driver >> 32), 4);
	wr(f, VIRTIO_PCI_COMMON_Q_USEDLO, (uint32_t)device, 4);
	wr(f, VIRTIO_PCI_COMMON_Q_USEDHI, (uint32_t)(device >> 32), 4);
}

static void enable_queue(struct fixture *f, unsigned queue)
{
	wr(f, VIRTIO_PCI_COMMON_Q_SELECT, queue, 2);
	wr(f, VIRTIO_PCI_COMMON_Q_SIZE, 128, 2);
	wr(f, VIRTIO_PCI_COMMON_Q_MSIX, queue + 1, 2);
	set_ring(f, 0x10000 * (queue + 1), 0x10000 * (queue + 1) + 0x4000,
		 0x10000 * (queue + 1) + 0x8000);
	wr(f, VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2);
}

static void bring_up(struct fixture *f)
{
	unsigned i;

	negotiate(f, FEATURES);
	for (i = 0; i < NR_QUEUES; i++)
		enable_queue(f, i);
	set_status(f, S_RUNNING);
	assert_int_equal(f->nr_start, 1);
	assert_int_equal(status(f), S_RUNNING);
}

static void *page(struct fixture *f, unsigned queue)
{
	return (char *)f->pages + queue * PAGE;
}

static int map_doorbell(struct fixture *f, unsigned queue)
{
	return f->dev.transport_ops->doorbell_map(f->dev.transport, queue, page(f, queue));
}

static uint64_t kicks(struct fixture *f, unsigned queue)
{
	eventfd_t count = 0;

	eventfd_read(f->queues[queue].kick_fd, &count);
	return count;
}

/* Bind vector 0 to configuration changes and open it, with message data 0x30. */
static void open_config_vector(struct fixture *f)
{
	unsigned msix = cfg_capability(f->vm, SLOT, PCI_CAP_ID_MSIX, 0);
	unsigned bar =
		PCI_BASE_ADDRESS_0 + 4 * (cfg_read(f->vm, SLOT, msix + PCI_MSIX_TABLE, 4) & 7);
	uint64_t table = (cfg_read(f->vm, SLOT, bar, 4) & ~0xfu) |
			 (uint64_t)cfg_read(f->vm, SLOT, bar + 4, 4) << 32;

	mmio_write(f->vm, table, 0xfee00000, 8);
	mmio_write(f->vm, table + 8, 0x30, 8);
	cfg_write(f->vm, SLOT, msix + PCI_MSIX_FLAGS, PCI_MSIX_FLAGS_ENABLE, 2);
	wr(f, VIRTIO_PCI_COMMON_MSIX, 0, 2);
}

static void test_identity(void **state)
{
	struct fixture *f = *state;
	unsigned at, type;

	assert_int_equal(cfg_read(f->vm, SLOT, 0, 4), 0x10421af4);
	assert_int_equal(cfg_read(f->vm, SLOT, PCI_REVISION_ID, 1), 1);
	assert_int_equal(cfg_read(f->vm, SLOT, PCI_INTERRUPT_PIN, 1), 0);
	for (type = VIRTIO_PCI_CAP_COMMON_CFG; type <= VIRTIO_PCI_CAP_PCI_CFG; type++) {
		at = 0;
		find(f, (uint8_t)type, &at);
		assert_int_not_equal(at, 0);
	}
	find(f, VIRTIO_PCI_CAP_NOTIFY_CFG, &at);
	assert_int_equal(cfg_read(f->vm, SLOT, at + 12, 4), NR_QUEUES * PAGE);
	assert_int_equal(cfg_read(f->vm, SLOT, at + 16, 4), PAGE);
	find(f, VIRTIO_PCI_CAP_DEVICE_CFG, &at);
	assert_int_equal(cfg_read(f->vm, SLOT, at + 12, 4), CONFIG_SIZE);
	assert_int_equal(rd(f, VIRTIO_PCI_COMMON_NUMQ, 2), NR_QUEUES);
}

static void test_features(void **state)
{
	struct fixture *f = *state;

	wr(f, VIRTIO_PCI_COMMON_DFSELECT, 0, 4);
	assert_int_equal(rd(f, VIRTIO_PCI_COMMON_DF, 4), (uint32_t)FEATURES);
	wr(f, VIRTIO_PCI_COMMON_DFSELECT, 1, 4);
	assert_int_equal(rd(f, VIRTIO_PCI_COMMON_DF, 4), FEATURES >> 32);
	wr(f, VIRTIO_PCI_COMMON_DFSELECT, 2, 4);
	assert_int_equal(rd(f, VIRTIO_PCI_COMMON_DF, 4), 0);
	wr(f, VIRTIO_PCI_COMMON_DFSELECT, 0xffffffff, 4);
	assert_int_equal(rd(f, VIRTIO_PCI_COMMON_DF, 4), 0);
	wr(f, VIRTIO_PCI_COMMON_GFSELECT, 0x80000001, 4);
	wr(f, VIRTIO_PCI_COMMON_GF, 0xffffffff, 4); /* a word that does not exist */

	negotiate(f, FEATURES);
	assert_int_equal(status(f), S_START);
	assert_int_equal(f->features, FEATURES);
	/* Settled: what is written later has no effect. */
	set_features(f, 0);
	wr(f, VIRTIO_PCI_COMMON_GFSELECT, 1, 4);
	assert_int_equal(rd(f, VIRTIO_PCI_COMMON_GF, 4), FEATURES >> 32);
	assert_int_equal(f->dev.driver_features, FEATURES);
}

static void test_features_refused(void **state)
{
	struct fixture *f = *state;
	uint8_t without = S_START & ~VIRTIO_CONFIG_S_FEATURES_OK;

	negotiate(f, FEATURES | 1ull << 6); /* never offered */
	assert_int_equal(status(f), without);
	set_status(f, 0);
	negotiate(f, FEATURES & ~(1ull << VIRTIO_F_VERSION_1));
	assert_int_equal(status(f), without);
	set_status(f, 0);
	f->fail_features = -EREMOTEIO;
	negotiate(f, FEATURES);
	assert_int_equal(status(f), without);
	/* DRIVER_OK without FEATURES_OK does not start anything. */
	set_status(f, S_RUNNING & ~VIRTIO_CONFIG_S_FEATURES_OK);
	assert_int_equal(f->nr_start, 0);
	assert_int_equal(status(f), without);
	/* A second try with what is fine succeeds. */
	f->fail_features = 0;
	set_status(f, 0);
	negotiate(f, FEATURES);
	assert_int_equal(status(f), S_START);
}

static void test_status(void **state)
{
	struct fixture *f = *state;

	bring_up(f);
	set_status(f, VIRTIO_CONFIG_S_ACKNOWLEDGE); /* clearing bits is not possible */
	assert_int_equal(status(f), S_RUNNING);
	set_status(f, S_RUNNING); /* again: not a second start */
	set_status(f, 0xff);      /* NEEDS_RESET is the device's own, bits 4 and 5 are reserved */
	assert_int_equal(status(f), S_RUNNING | VIRTIO_CONFIG_S_FAILED);
	assert_int_equal(f->nr_start, 1);

	set_status(f, 0);
	assert_int_equal(status(f), 0);
	assert_int_equal(f->nr_reset, 1);
	assert_int_equal(f->dev.driver_features, 0);
	wr(f, VIRTIO_PCI_COMMON_Q_SELECT, 1, 2);
	assert_int_equal(rd(f, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
	assert_int_equal(rd(f, VIRTIO_PCI_COMMON_Q_SIZE, 2), MAX_SIZE);
	assert_int_equal(rd(f, VIRTIO_PCI_COMMON_Q_MSIX, 2), 0xffff);
	assert_int_equal(rd(f, VIRTIO_PCI_COMMON_Q_DESCLO, 4), 0);
}

static void test_start_fails(void **state)
{
	struct fixture *f = *state;

	open_config_vector(f);
	f->fail_start = -EREMOTEIO;
	negotiate(f, FEATURES);
	enable_queue(f, 0);
	set_status(f, S_RUNNING);
	assert_int_equal(status(f), S_RUNNING | VIRTIO_CONFIG_S_NEEDS_RESET);
	assert_int_equal(fake_interrupts(f->vm, 0xfee00000, 0x30), 1);
	assert_int_equal(mmio_read(f->vm, f->isr, 1), 2);
	assert_int_equal(mmio_read(f->vm, f->isr, 1), 0);    /* reading clears */
	f->dev.transport_ops->needs_reset(f->dev.transport); /* once is enough */
	assert_int_equal(fake_all_interrupts(f->vm), 0);
	set_status(f, 0);
	assert_int_equal(status(f), 0);
}

static void test_queue_registers(void **state)
{
	struct fixture *f = *state;

	negotiate(f, FEATURES);
	wr(f, VIRTIO_PCI_COMMON_Q_SELECT, 2, 2);
	assert_int_equal(rd(f, VIRTIO_PCI_COMMON_Q_NOFF, 2), 2);
	assert_int_equal(rd(f, VIRTIO_PCI_COMMON_Q_NDATA, 2), 2);
	wr(f, VIRTIO_PCI_COMMON_Q_SIZE, 100, 2);
	wr(f, VIRTIO_PCI_COMMON_Q_SIZE, 512, 2);
	wr(f, VIRTIO_PCI_COMMON_Q_SIZE, 0, 2);
	assert_int_equal(rd(f, VIRTIO_PCI_COMMON_Q_SIZE, 2), MAX_SIZE);
	wr(f, VIRTIO_PCI_COMMON_Q_SIZE, 64, 2);
	assert_int_equal(rd(f, VIRTIO_PCI_COMMON_Q_SIZE, 2), 64);
	mmio_write(f->vm, f->regs + VIRTIO_PCI_COMMON_Q_DESCLO, 0x123456789abcdef0, 8);
	assert_int_equal(rd(f, VIRTIO_PCI_COMMON_Q_DESCHI, 4), 0x12345678);
	assert_int_equal(mmio_read(f->vm, f->regs + VIRTIO_PCI_COMMON_Q_DESCLO, 8),
			 0x123456789abcdef0);
	wr(f, VIRTIO_PCI_COMMON_Q_MSIX, NR_QUEUES + 1, 2); /* no such vector */
	assert_int_equal(rd(f, VIRTIO_PCI_COMMON_Q_MSIX, 2), 0xffff);
	wr(f, VIRTIO_PCI_COMMON_Q_MSIX, NR_QUEUES, 2);
	assert_int_equal(rd(f, VIRTIO_PCI_COMMON_Q_MSIX, 2), NR_QUEUES);
	wr(f, VIRTIO_PCI_COMMON_Q_ENABLE, 0, 2);
	wr(f, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 2);
	assert_int_equal(rd(f, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
}

/* CVE-2026-5747: once enabled, nothing about a queue may change. */
static void test_frozen(void **state)
{
	struct fixture *f = *state;
	unsigned pass;

	bring_up(f);
	for (pass = 0; pass < 2; pass++) {
		wr(f, VIRTIO_PCI_COMMON_Q_SELECT, 1, 2);
		wr(f, VIRTIO_PCI_COMMON_Q_SIZE, 256, 2);
		set_ring(f, 0x1000, 0x2000, 0x3000);
		mmio_write(f->vm, f->regs + VIRTIO_PCI_COMMON_Q_DESCLO, 0x5000, 8);
		wr(f, VIRTIO_PCI_COMMON_Q_ENABLE, pass, 2);
		assert_int_equal(f->queues[1].size, 128);
		assert_int_equal(f->queues[1].desc_gpa, 0x20000);
		assert_int_equal(f->queues[1].driver_gpa, 0x24000);
		assert_int_equal(f->queues[1].device_gpa, 0x28000);
		assert_true(f->queues[1].enabled);
	}
	assert_int_equal(f->nr_restart, 0);
}

/* Selecting a queue that does not exist: its registers read 0, writes go nowhere. */
static void test_select_past_end(void **state)
{
	struct fixture *f = *state;
	static const uint16_t past[] = { NR_QUEUES, 255, 256, 0x7fff, 0xffff };
	struct virtio_queue before[NR_QUEUES];
	unsigned i, reg, len;

	negotiate(f, FEATURES);
	memcpy(before, f->queues, sizeof(before));
	for (i = 0; i < sizeof(past) / sizeof(past[0]); i++) {
		wr(f, VIRTIO_PCI_COMMON_Q_SELECT, past[i], 2);
		for (len = 1; len <= 8; len *= 2)
			for (reg = VIRTIO_PCI_COMMON_Q_SIZE; reg + len <= 64; reg += len) {
				mmio_write(f->vm, f->regs + reg, UINT64_MAX, len);
				wr(f, VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2);
				assert_int_equal(mmio_read(f->vm, f->regs + reg, len), 0);
			}
	}
	assert_memory_equal(before, f->queues, sizeof(before));
	assert_int_equal(fake_nr_routes(f->vm), 0);
}

static void test_ring_outside_ram(void **state)
{
	struct fixture *f = *state;
	static const uint64_t rings[][3] = {
		{ FAKE_RAM_SIZE - 16 * 128 + 16, 0x1000, 0x2000 }, /* descriptors end outside */
		{ 0x1000, FAKE_RAM_SIZE - 6 - 2 * 128 + 2, 0x2000 },
		{ 0x1000, 0x2000, FAKE_RAM_SIZE - 6 - 8 * 128 + 4 },
		{ 0x1008, 0x2000, 0x3000 }, /* misaligned */
		{ 0x1000, 0x2001, 0x3000 },
		{ 0x1000, 0x2000, 0x3002 },
		{ ~15ull, 0x2000, 0x3000 },         /* wraps */
		{ VM_MMIO64_BASE, 0x2000, 0x3000 }, /* a BAR */
		{ 0xfee00000, 0x2000, 0x3000 },
	};
	unsigned i;

	for (i = 0; i < sizeof(rings) / sizeof(rings[0]); i++) {
		negotiate(f, FEATURES);
		wr(f, VIRTIO_PCI_COMMON_Q_SELECT, 0, 2);
		wr(f, VIRTIO_PCI_COMMON_Q_SIZE, 128, 2);
		set_ring(f, rings[i][0], rings[i][1], rings[i][2]);
		wr(f, VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2);
		set_status(f, S_RUNNING);
		assert_int_equal(status(f), S_RUNNING | VIRTIO_CONFIG_S_NEEDS_RESET);
		assert_int_equal(f->nr_start, 0);
		set_status(f, 0);
	}
	/* The very last places that fit. */
	negotiate(f, FEATURES);
	wr(f, VIRTIO_PCI_COMMON_Q_SELECT, 0, 2);
	wr(f, VIRTIO_PCI_COMMON_Q_SIZE, 128, 2);
	set_ring(f, FAKE_RAM_SIZE - 16 * 128, FAKE_RAM_SIZE - 6 - 2 * 128, 0x2000);
	wr(f, VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2);
	set_status(f, S_RUNNING);
	assert_int_equal(status(f), S_RUNNING);
}

static void test_queue_reset(void **state)
{
	struct fixture *f = *state;

	bring_up(f);
	assert_int_equal(map_doorbell(f, 1), 0);
	wr(f, VIRTIO_PCI_COMMON_Q_SELECT, 1, 2);
	wr(f, VIRTIO_PCI_COMMON_Q_RESET, 1, 2);
	assert_int_equal(f->nr_stop, 1);
	assert_int_equal(fake_nr_slots(f->vm), 0);
	assert_int_equal(rd(f, VIRTIO_PCI_COMMON_Q_RESET, 2), 0);
	assert_int_equal(rd(f, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
	assert_int_equal(rd(f, VIRTIO_PCI_COMMON_Q_SIZE, 2), MAX_SIZE);
	wr(f, VIRTIO_PCI_COMMON_Q_RESET, 1, 2); /* not enabled: nothing to stop */
	assert_int_equal(f->nr_stop, 1);
	enable_queue(f, 1);
	assert_int_equal(f->nr_restart, 1);
	assert_int_equal(status(f), S_RUNNING);
	/* Started again with a ring that is not in RAM. */
	wr(f, VIRTIO_PCI_COMMON_Q_RESET, 1, 2);
	set_ring(f, 0xfee00000, 0x2000, 0x3000);
	wr(f, VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2);
	assert_int_equal(f->nr_restart, 1);
	assert_int_equal(status(f), S_RUNNING | VIRTIO_CONFIG_S_NEEDS_RESET);
}

static void test_no_queue_reset_without_feature(void **state)
{
	struct fixture *f = *state;

	negotiate(f, FEATURES & ~(1ull << VIRTIO_F_RING_RESET));
	enable_queue(f, 0);
	set_status(f, S_RUNNING);
	wr(f, VIRTIO_PCI_COMMON_Q_RESET, 1, 2);
	assert_int_equal(f->nr_stop, 0);
	enable_queue(f, 1); /* too late */
	assert_false(f->queues[1].enabled);
	assert_int_equal(f->nr_restart, 0);
}

static void test_device_config(void **state)
{
	struct fixture *f = *state;
	unsigned i;

	for (i = 0; i < CONFIG_SIZE; i++)
		assert_int_equal(mmio_read(f->vm, f->device + i, 1), i + 1);
	assert_int_equal(mmio_read(f->vm, f->device + 4, 4), 0x08070605);
	assert_int_equal(mmio_read(f->vm, f->device + CONFIG_SIZE - 2, 4), 0); /* across the end */
	assert_int_equal(mmio_read(f->vm, f->device + CONFIG_SIZE, 1), 0);
	mmio_write(f->vm, f->device + CONFIG_SIZE - 2, 0, 4);
	assert_int_equal(f->config[CONFIG_SIZE - 1], CONFIG_SIZE);
	mmio_write(f->vm, f->device + 8, 0xaabb, 2);
	assert_int_equal(f->config[8], 0xbb);
	f->fail_config = -EREMOTEIO;
	assert_int_equal(mmio_read(f->vm, f->device, 4), 0);
}

static void test_config_changed(void **state)
{
	struct fixture *f = *state;
	uint8_t generation;

	open_config_vector(f);
	bring_up(f);
	generation = (uint8_t)rd(f, VIRTIO_PCI_COMMON_CFGGENERATION, 1);
	f->dev.transport_ops->config_changed(f->dev.transport);
	assert_int_equal((uint8_t)rd(f, VIRTIO_PCI_COMMON_CFGGENERATION, 1),
			 (uint8_t)(generation + 1));
	assert_int_equal(mmio_read(f->vm, f->isr, 1), 2);
	assert_int_equal(fake_interrupts(f->vm, 0xfee00000, 0x30), 1);
}

static void test_kick(void **state)
{
	struct fixture *f = *state;
	unsigned i;

	for (i = 0; i < NR_QUEUES; i++) {
		const struct fake_ioeventfd *e = fake_ioeventfd_at(f->vm, f->notify + i * PAGE);

		assert_non_null(e);
		assert_int_equal(e->fd, f->queues[i].kick_fd);
	}
	mmio_write(f->vm, f->notify + PAGE, 1, 2);
	assert_int_equal(kicks(f, 1), 1);
	assert_int_equal(kicks(f, 0), 0);
	assert_int_equal(f->queues[1].nr_vmm_kicks, 1);
	/* Beside the register, behind the last queue, and reads: nothing. */
	mmio_write(f->vm, f->notify + PAGE + 2, 1, 2);
	mmio_write(f->vm, f->notify + NR_QUEUES * PAGE, 1, 2);
	assert_int_equal(mmio_read(f->vm, f->notify, 4), 0);
	assert_int_equal(kicks(f, 1), 0);
}

static void test_doorbell(void **state)
{
	struct fixture *f = *state;
	const struct fake_slot *slot;

	bring_up(f);
	assert_int_equal(map_doorbell(f, 2), 0);
	slot = fake_slot_at(f->vm, f->notify + 2 * PAGE);
	assert_non_null(slot);
	assert_ptr_equal(slot->hva, page(f, 2));
	assert_int_equal(slot->size, PAGE);
	assert_non_null(fake_ioeventfd_at(f->vm, f->notify + 2 * PAGE)); /* stays underneath */

	/* A write that still comes here is the same store, of the same width. */
	mmio_write(f->vm, f->notify + 2 * PAGE, 2, 2);
	assert_int_equal(*(uint32_t *)page(f, 2), 0xffff0002);
	mmio_write(f->vm, f->notify + 2 * PAGE, 0x00030002, 4);
	assert_int_equal(*(uint32_t *)page(f, 2), 0x00030002);
	mmio_write(f->vm, f->notify + 2 * PAGE + 4091, 0x11223344, 4); /* misaligned, inside */
	assert_int_equal(((uint8_t *)page(f, 2))[4094], 0x11);
	assert_int_equal(((uint8_t *)page(f, 2))[4095], 0xff);
	assert_int_equal(kicks(f, 2), 0);

	/* A second registration replaces; removal is idempotent. */
	assert_int_equal(f->dev.transport_ops->doorbell_map(f->dev.transport, 2, page(f, 0)), 0);
	assert_int_equal(fake_nr_slots(f->vm), 1);
	f->dev.transport_ops->doorbell_unmap(f->dev.transport, 2);
	f->dev.transport_ops->doorbell_unmap(f->dev.transport, 2);
	f->dev.transport_ops->doorbell_unmap(f->dev.transport, 77);
	mmio_write(f->vm, f->notify + 2 * PAGE, 2, 2);
	assert_int_equal(kicks(f, 2), 1);
	assert_int_equal(map_doorbell(f, 1), 0);
	set_status(f, 0);
	assert_int_equal(fake_nr_slots(f->vm), 0);
}

static void test_doorbell_refused(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(f->dev.transport_ops->doorbell_map(f->dev.transport, NR_QUEUES, f->pages),
			 -EINVAL);
	f->vm->fail_slot = ENOSPC;
	assert_int_equal(map_doorbell(f, 0), -ENOSPC);
	f->vm->fail_slot = 0;
	mmio_write(f->vm, f->notify, 0, 2);
	assert_int_equal(kicks(f, 0), 1);
	turn_on(f, false);
	assert_int_equal(map_doorbell(f, 0), -EAGAIN);
}

/* The notify region moves and disappears while queues run. */
static void test_notify_moves(void **state)
{
	struct fixture *f = *state;
	uint64_t moved = VM_MMIO32_BASE + 0x10000;

	bring_up(f);
	assert_int_equal(map_doorbell(f, 0), 0);
	assert_int_equal(map_doorbell(f, 2), 0);
	cfg_write(f->vm, SLOT, PCI_BASE_ADDRESS_4 + 4, 0, 4); /* high half first: nowhere useful */
	assert_int_equal(f->nr_withdraw, 1);
	assert_int_equal(fake_nr_slots(f->vm), 0);
	assert_int_equal(fake_nr_ioeventfds(f->vm), 0);
	cfg_write(f->vm, SLOT, PCI_BASE_ADDRESS_4, (uint32_t)moved, 4);
	assert_int_equal(fake_nr_ioeventfds(f->vm), NR_QUEUES);
	assert_non_null(fake_ioeventfd_at(f->vm, moved + PAGE));
	assert_int_equal(fake_nr_slots(f->vm), 0); /* never restored by itself */
	mmio_write(f->vm, moved + 2 * PAGE, 2, 2);
	assert_int_equal(kicks(f, 2), 1);
	assert_int_equal(map_doorbell(f, 2), 0);
	assert_non_null(fake_slot_at(f->vm, moved + 2 * PAGE));
	turn_on(f, false);
	assert_int_equal(fake_nr_slots(f->vm), 0);
	assert_int_equal(fake_nr_ioeventfds(f->vm), 0);
	assert_int_equal(f->vm->nr_bad, 0);
	assert_int_equal(status(f), 0xff); /* the registers have gone too */
}

static void test_ioeventfd_refused(void **state)
{
	struct fixture *f = *state;

	turn_on(f, false);
	f->vm->fail_ioeventfd = ENOSPC;
	turn_on(f, true);
	mmio_write(f->vm, f->notify, 0, 2);
	assert_int_equal(kicks(f, 0), 1);
	turn_on(f, false);
	assert_int_equal(f->vm->nr_bad, 0);
}

static void window(struct fixture *f, unsigned at, uint8_t bar, uint32_t offset, uint32_t len)
{
	cfg_write(f->vm, SLOT, at + 4, bar, 1);
	cfg_write(f->vm, SLOT, at + 8, offset, 4);
	cfg_write(f->vm, SLOT, at + 12, len, 4);
}

/* Firmware's way in: every register, and the doorbell, without any BAR being mapped. */
static void test_window(void **state)
{
	struct fixture *f = *state;
	unsigned at;

	find(f, VIRTIO_PCI_CAP_PCI_CFG, &at);
	turn_on(f, false);
	window(f, at, 0, VIRTIO_PCI_COMMON_NUMQ, 2);
	assert_int_equal(cfg_read(f->vm, SLOT, at + 16, 2), NR_QUEUES);
	window(f, at, 0, VIRTIO_PCI_COMMON_STATUS, 1);
	cfg_write(f->vm, SLOT, at + 16, VIRTIO_CONFIG_S_ACKNOWLEDGE, 1);
	assert_int_equal(cfg_read(f->vm, SLOT, at + 16, 1), VIRTIO_CONFIG_S_ACKNOWLEDGE);
	window(f, at, 4, 1 * PAGE, 2);
	cfg_write(f->vm, SLOT, at + 16, 1, 2);
	assert_int_equal(kicks(f, 1), 1);

	turn_on(f, true);
	bring_up(f);
	assert_int_equal(map_doorbell(f, 1), 0);
	cfg_write(f->vm, SLOT, at + 16, 1, 2);
	assert_int_equal(kicks(f, 1), 0);
	assert_int_equal(*(uint32_t *)page(f, 1), 0xffff0001);
	/* The MSI-X table is reachable too. */
	window(f, at, 2, 8, 4);
	cfg_write(f->vm, SLOT, at + 16, 0x4321, 4);
	assert_int_equal(cfg_read(f->vm, SLOT, at + 16, 4), 0x4321);
}

static void test_hostile_window(void **state)
{
	struct fixture *f = *state;
	static const uint32_t offsets[] = { 0,      1,          0x3ffc,     0x3fff,
					    0x4000, 0x7ffffffc, 0xfffffffc, 0xffffffff };
	static const uint32_t lens[] = { 0, 1, 2, 3, 4, 5, 8, 0xffffffff };
	unsigned at, bar, o, l;

	find(f, VIRTIO_PCI_CAP_PCI_CFG, &at);
	for (bar = 0; bar < 256; bar++)
		for (o = 0; o < sizeof(offsets) / 4; o++)
			for (l = 0; l < sizeof(lens) / 4; l++) {
				window(f, at, (uint8_t)bar, offsets[o], lens[l]);
				cfg_read(f->vm, SLOT, at + 16, 4);
				cfg_write(f->vm, SLOT, at + 16, 0xffffffff, 4);
				cfg_write(f->vm, SLOT, at + 18, 0xffffffff, 4);
				cfg_read(f->vm, SLOT, at + 13, 4);
			}
	assert_int_equal(f->vm->nr_bad, 0);
}

/* A guest that writes anything anywhere. */
static void test_hostile_registers(void **state)
{
	struct fixture *f = *state;
	unsigned seed = 7, i;

	bring_up(f);
	for (i = 0; i < 200000; i++) {
		unsigned len = 1u << (rand_r(&seed) % 4);
		uint64_t value = (uint64_t)rand_r(&seed) << 33 ^ (uint64_t)rand_r(&seed);
		unsigned offset = rand_r(&seed) % 72;

		if (rand_r(&seed) % 4 == 0)
			value &= 0xf;
		if (rand_r(&seed) % 16 == 0)
			offset = rand_r(&seed) % 0x3ff8;
		mmio_read(f->vm, f->regs + offset, len);
		mmio_write(f->vm, f->regs + offset, value, len);
		if (rand_r(&seed) % 64 == 0)
			map_doorbell(f, rand_r(&seed) % NR_QUEUES);
		if (rand_r(&seed) % 256 == 0)
			turn_on(f, rand_r(&seed) & 1);
	}
	assert_int_equal(f->vm->nr_bad, 0);
	turn_on(f, true);
	set_status(f, 0);
	f->nr_start = 0;
	bring_up(f);
}

static void test_machine_reset(void **state)
{
	struct fixture *f = *state;

	open_config_vector(f);
	bring_up(f);
	assert_int_equal(map_doorbell(f, 0), 0);
	pci_bus_reset(f->bus);
	assert_int_equal(fake_nr_slots(f->vm), 0);
	assert_int_equal(fake_nr_ioeventfds(f->vm), 0);
	assert_int_equal(fake_nr_routes(f->vm), 0);
	turn_on(f, true);
	assert_int_equal(status(f), 0);
	f->nr_start = 0;
	bring_up(f);
}

/* Half-built objects leave nothing behind. */
static void test_new_fails(void **state)
{
	struct fixture f = { 0 };
	unsigned fds;

	(void)state;
	f.vm = fake_vm_new();
	fds = count_fds();
	f.bus = pci_bus_new(f.vm);
	make_device(&f);
	f.dev.config_size = 4097;
	assert_int_equal(virtio_pci_new(f.vm, f.bus, &f.dev, &f.vp), -EINVAL);
	f.dev.config_size = 0; /* no structure for it then */
	assert_int_equal(virtio_pci_new(f.vm, f.bus, &f.dev, &f.vp), 0);
	assert_int_equal(find(&f, VIRTIO_PCI_CAP_DEVICE_CFG, NULL), 0);
	virtio_pci_free(f.vp);
	virtio_pci_free(NULL);
	assert_int_equal(count_fds(), fds);
	pci_bus_free(f.bus);
	fake_vm_free(f.vm);
	pthread_mutex_destroy(&f.dev.lock);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_identity),
		T(test_features),
		T(test_features_refused),
		T(test_status),
		T(test_start_fails),
		T(test_queue_registers),
		T(test_frozen),
		T(test_select_past_end),
		T(test_ring_outside_ram),
		T(test_queue_reset),
		T(test_no_queue_reset_without_feature),
		T(test_device_config),
		T(test_config_changed),
		T(test_kick),
		T(test_doorbell),
		T(test_doorbell_refused),
		T(test_notify_moves),
		T(test_ioeventfd_refused),
		T(test_window),
		T(test_hostile_window),
		T(test_hostile_registers),
		T(test_machine_reset),
		cmocka_unit_test(test_new_fails),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
