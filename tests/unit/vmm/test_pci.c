/* SPDX-License-Identifier: BSD-3-Clause */
/* The PCI bus: configuration accesses, sizing, BARs that move, and BARs that must not. */
#include "unit/support.h"

#include <linux/pci_regs.h>

#include "fake_vm.h"
#include "vmm/pci/pci.h"

#define BAR0 PCI_BASE_ADDRESS_0
#define BAR2 PCI_BASE_ADDRESS_2
#define MEM  (PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER)

struct thing {
	struct pci_function fn;
	uint8_t content[16384];
	uint64_t mapped[PCI_NR_BARS]; /* as told by the callbacks, 0: not */
	unsigned nr_resets;
};

struct fixture {
	struct vm *vm;
	struct pci_bus *bus;
	struct thing a, b;
};

static void content_read(void *opaque, uint64_t offset, void *data, unsigned len)
{
	memcpy(data, ((struct thing *)opaque)->content + offset, len);
}

static void content_write(void *opaque, uint64_t offset, const void *data, unsigned len)
{
	memcpy(((struct thing *)opaque)->content + offset, data, len);
}

static const struct bus_ops content_ops = { .read = content_read, .write = content_write };

static void bar_mapped(struct pci_function *fn, unsigned bar, uint64_t gpa)
{
	struct thing *t = (struct thing *)fn;

	assert_int_equal(t->mapped[bar], 0);
	t->mapped[bar] = gpa;
}

static void bar_unmapping(struct pci_function *fn, unsigned bar)
{
	struct thing *t = (struct thing *)fn;

	assert_int_not_equal(t->mapped[bar], 0);
	t->mapped[bar] = 0;
}

static void reset(struct pci_function *fn)
{
	((struct thing *)fn)->nr_resets++;
}

static const struct pci_function_ops ops = { .bar_mapped = bar_mapped,
					     .bar_unmapping = bar_unmapping,
					     .reset = reset };

static void thing_init(struct pci_bus *bus, struct thing *t, const char *name)
{
	const struct pci_ids ids = { .vendor = 0x1234,
				     .device = 0x5678,
				     .subsystem_vendor = 0x9abc,
				     .subsystem = 0xdef0,
				     .revision = 3,
				     .class_code = 0x018000 };

	pci_function_init(&t->fn, name, &ids, &ops);
	pci_bar_init(&t->fn, 0, 16384, false, &content_ops, t);
	pci_bar_init(&t->fn, 2, 4096, true, &content_ops, t);
	assert_int_equal(pci_function_add(bus, &t->fn), 0);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	f->vm = fake_vm_new();
	f->bus = pci_bus_new(f->vm);
	assert_non_null(f->bus);
	thing_init(f->bus, &f->a, "a");
	thing_init(f->bus, &f->b, "b");
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	pci_function_remove(&f->a.fn);
	pci_function_remove(&f->b.fn);
	assert_int_equal(f->a.mapped[0], 0);
	pci_bus_free(f->bus);
	fake_vm_free(f->vm);
	free(f);
	return 0;
}

static uint64_t bar_get(struct vm *vm, unsigned slot, unsigned reg)
{
	return (cfg_read(vm, slot, reg, 4) & ~0xfu) | (uint64_t)cfg_read(vm, slot, reg + 4, 4)
							      << 32;
}

static void bar_set(struct vm *vm, unsigned slot, unsigned reg, uint64_t gpa)
{
	cfg_write(vm, slot, reg, (uint32_t)gpa, 4);
	cfg_write(vm, slot, reg + 4, (uint32_t)(gpa >> 32), 4);
}

static uint32_t select_reg(unsigned slot, unsigned reg)
{
	return 0x80000000u | slot << 11 | (reg & 0xfc);
}

static void test_mechanism_1(void **state)
{
	struct fixture *f = *state;
	struct vm *vm = f->vm;

	assert_int_equal(pio_read(vm, 0xcfc, 4), 0xffffffff); /* not enabled */
	pio_write(vm, 0xcf8, select_reg(0, 0), 4);
	assert_int_equal(pio_read(vm, 0xcf8, 4), select_reg(0, 0));
	assert_int_equal(pio_read(vm, 0xcfc, 4), 0x00081b36);
	pio_write(vm, 0xcf8, select_reg(0, 8), 4);
	assert_int_equal(pio_read(vm, 0xcfe, 2), 0x0600); /* host bridge */
	pio_write(vm, 0xcf8, select_reg(1, 0), 4);
	assert_int_equal(pio_read(vm, 0xcfc, 2), 0x1234);
	assert_int_equal(pio_read(vm, 0xcfe, 2), 0x5678);
	assert_int_equal(pio_read(vm, 0xcfd, 1), 0x12);
	pio_write(vm, 0xcf8, select_reg(1, 0x2c), 4);
	assert_int_equal(pio_read(vm, 0xcfc, 4), 0xdef09abc);

	/* The address register takes dwords only. */
	pio_write(vm, 0xcf8, 0, 1);
	pio_write(vm, 0xcfb, 1, 1);
	pio_write(vm, 0xcfa, 0, 2);
	assert_int_equal(pio_read(vm, 0xcf8, 4), select_reg(1, 0x2c));
	/* Reserved bits and the low two read as zero. */
	pio_write(vm, 0xcf8, 0xffffffff, 4);
	assert_int_equal(pio_read(vm, 0xcf8, 4), 0x80fffffc);
	assert_int_equal(pio_read(vm, 0xcfc, 4), 0xffffffff); /* bus 255 */

	/* A byte write changes only its byte. */
	pio_write(vm, 0xcf8, select_reg(1, PCI_INTERRUPT_LINE), 4);
	pio_write(vm, 0xcfc, 0x0b, 1);
	assert_int_equal(pio_read(vm, 0xcfc, 4), 0x0000000b);
	/* Crossing from the address into the data register is nobody's. */
	pio_write(vm, 0xcfa, 0xdeadbeef, 4);
	assert_int_equal(pio_read(vm, 0xcfa, 4), 0xffffffff);
	assert_int_equal(pio_read(vm, 0xcfc, 4), 0x0000000b);
}

static void test_absent(void **state)
{
	struct fixture *f = *state;
	unsigned slot, reg;

	for (slot = 3; slot < 32; slot++)
		assert_int_equal(cfg_read(f->vm, slot, 0, 4), 0xffffffff);
	/* Functions 1 to 7 of a device that is there. */
	assert_int_equal(mmio_read(f->vm, VM_ECAM_BASE + (1 << 15) + (1 << 12), 4), 0xffffffff);
	/* Extended configuration space: empty. */
	for (reg = 256; reg < 4096; reg += 4)
		assert_int_equal(cfg_read(f->vm, 1, reg, 4), 0);
	cfg_write(f->vm, 1, 0xffc, 0xffffffff, 4);
	cfg_write(f->vm, 9, 4, 0xffffffff, 4);
}

/* Every register, width and offset, with all ones and all zeroes: only writable bits may change. */
static void test_hostile_config(void **state)
{
	struct fixture *f = *state;
	static const uint8_t fixed[] = { 0, 1, 2, 3, 6, 8, 9, 10, 11, 0xe, 0x2c, 0x2e, 0x34, 0x3d };
	uint8_t before[sizeof(fixed)];
	unsigned reg, len, i;

	for (i = 0; i < sizeof(fixed); i++)
		before[i] = (uint8_t)cfg_read(f->vm, 1, fixed[i], 1);
	for (len = 1; len <= 8; len *= 2)
		for (reg = 0; reg < 4096; reg++) {
			uint64_t gpa = VM_ECAM_BASE + (1 << 15) + reg;

			mmio_write(f->vm, gpa, UINT64_MAX, len);
			mmio_read(f->vm, gpa, len);
			mmio_write(f->vm, gpa, 0, len);
		}
	for (i = 0; i < sizeof(fixed); i++)
		assert_int_equal(cfg_read(f->vm, 1, fixed[i], 1), before[i]);
	assert_int_equal(f->vm->nr_bad, 0);
}

static void test_sizing(void **state)
{
	struct fixture *f = *state;
	uint64_t a0 = bar_get(f->vm, 1, BAR0);

	assert_int_equal(cfg_read(f->vm, 1, BAR0, 4) & 0xf, PCI_BASE_ADDRESS_MEM_TYPE_64);
	assert_int_equal(cfg_read(f->vm, 1, BAR2, 4) & 0xf,
			 PCI_BASE_ADDRESS_MEM_TYPE_64 | PCI_BASE_ADDRESS_MEM_PREFETCH);
	bar_set(f->vm, 1, BAR0, UINT64_MAX);
	assert_int_equal(bar_get(f->vm, 1, BAR0), ~16383ull);
	bar_set(f->vm, 1, BAR0, a0);
	assert_int_equal(bar_get(f->vm, 1, BAR0), a0);
	/* Registers without a BAR, and the ROM's, are zero and stay it. */
	bar_set(f->vm, 1, PCI_BASE_ADDRESS_4, UINT64_MAX);
	assert_int_equal(bar_get(f->vm, 1, PCI_BASE_ADDRESS_4), 0);
	cfg_write(f->vm, 1, PCI_ROM_ADDRESS, UINT32_MAX, 4);
	assert_int_equal(cfg_read(f->vm, 1, PCI_ROM_ADDRESS, 4), 0);
}

static void test_decode(void **state)
{
	struct fixture *f = *state;
	uint64_t a0 = bar_get(f->vm, 1, BAR0);

	assert_in_range(a0, VM_MMIO64_BASE, VM_MMIO64_BASE + VM_MMIO64_SIZE - 16384);
	assert_int_equal(a0 % 16384, 0);
	assert_int_equal(mmio_read(f->vm, a0, 4), 0xffffffff); /* off until the guest turns it on */
	cfg_write(f->vm, 1, PCI_COMMAND, MEM, 2);
	assert_int_equal(f->a.mapped[0], a0);
	mmio_write(f->vm, a0 + 8, 0x11223344, 4);
	assert_int_equal(mmio_read(f->vm, a0 + 8, 4), 0x11223344);
	assert_int_equal(f->a.content[8], 0x44);
	cfg_write(f->vm, 1, PCI_COMMAND, 0, 2);
	assert_int_equal(f->a.mapped[0], 0);
	assert_int_equal(mmio_read(f->vm, a0 + 8, 4), 0xffffffff);
}

static void test_move(void **state)
{
	struct fixture *f = *state;
	uint64_t a0 = bar_get(f->vm, 1, BAR0);
	uint64_t low = VM_MMIO32_BASE + 0x100000, high = VM_MMIO64_BASE + 0x800000000ull;

	cfg_write(f->vm, 1, PCI_COMMAND, MEM, 2);
	f->a.content[0] = 0x5a;
	bar_set(f->vm, 1, BAR0, high);
	assert_int_equal(f->a.mapped[0], high);
	assert_int_equal(mmio_read(f->vm, high, 1), 0x5a);
	assert_int_equal(mmio_read(f->vm, a0, 1), 0xff);
	bar_set(f->vm, 1, BAR0, low);
	assert_int_equal(f->a.mapped[0], low);
	assert_int_equal(mmio_read(f->vm, low, 1), 0x5a);
}

/* Nowhere: RAM, the interrupt controllers, ECAM, straddling a window, the end of the world. */
static void test_forbidden_places(void **state)
{
	struct fixture *f = *state;
	static const uint64_t places[] = { 0,
					   0x10000,
					   FAKE_RAM_SIZE - 16384,
					   VM_MMIO32_BASE - 16384,
					   VM_ECAM_BASE,
					   VM_ECAM_BASE + VM_ECAM_SIZE,
					   0xfec00000,
					   0xfee00000,
					   0xffffc000,
					   VM_HIGH_RAM,
					   VM_MMIO64_BASE - 16384,
					   VM_MMIO64_BASE + VM_MMIO64_SIZE,
					   0x8000000000000000ull,
					   ~16383ull };
	unsigned i;

	cfg_write(f->vm, 1, PCI_COMMAND, MEM, 2);
	for (i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		bar_set(f->vm, 1, BAR0, places[i]);
		assert_int_equal(bar_get(f->vm, 1, BAR0), places[i]);
		assert_int_equal(f->a.mapped[0], 0);
	}
	bar_set(f->vm, 1, BAR0, VM_MMIO64_BASE + VM_MMIO64_SIZE - 16384);
	assert_int_not_equal(f->a.mapped[0], 0);
	bar_set(f->vm, 1, BAR0, VM_MMIO32_BASE + VM_MMIO32_SIZE - 16384);
	assert_int_not_equal(f->a.mapped[0], 0);
}

/* RAM inside the 64-bit window (a very large machine) wins over a BAR. */
static void test_ram_in_window(void **state)
{
	struct fixture *f = *state;

	f->vm->ranges[1] = (struct vm_ram){ .gpa = VM_MMIO64_BASE, .size = 1 << 30 };
	cfg_write(f->vm, 1, PCI_COMMAND, MEM, 2);
	bar_set(f->vm, 1, BAR0, VM_MMIO64_BASE + (1 << 30) - 16384);
	assert_int_equal(f->a.mapped[0], 0);
	bar_set(f->vm, 1, BAR0, VM_MMIO64_BASE + (1 << 30));
	assert_int_equal(f->a.mapped[0], VM_MMIO64_BASE + (1 << 30));
}

/* A BAR on another one has no effect; it appears by itself when the other has gone. */
static void test_overlap(void **state)
{
	struct fixture *f = *state;
	uint64_t place = VM_MMIO32_BASE + 0x400000;

	cfg_write(f->vm, 1, PCI_COMMAND, MEM, 2);
	cfg_write(f->vm, 2, PCI_COMMAND, MEM, 2);
	bar_set(f->vm, 1, BAR0, place);
	f->a.content[0x1000] = 0xaa;
	f->b.content[0] = 0xbb;
	bar_set(f->vm, 2, BAR2, place + 0x1000);
	assert_int_equal(f->b.mapped[2], 0);
	assert_int_equal(mmio_read(f->vm, place + 0x1000, 1), 0xaa);
	cfg_write(f->vm, 1, PCI_COMMAND, 0, 2);
	assert_int_equal(f->b.mapped[2], place + 0x1000);
	assert_int_equal(mmio_read(f->vm, place + 0x1000, 1), 0xbb);
	cfg_write(f->vm, 1, PCI_COMMAND, MEM, 2);
	assert_int_equal(f->a.mapped[0], 0);
	/* A function's own BARs likewise. */
	bar_set(f->vm, 2, BAR0, place);
	assert_int_equal(f->b.mapped[0], 0);
}

static void test_content_without_address(void **state)
{
	struct fixture *f = *state;
	uint32_t value = 0x01020304;

	assert_true(pci_bar_write(&f->a.fn, 0, 16380, &value, 4));
	assert_int_equal(f->a.content[16383], 1);
	assert_false(pci_bar_write(&f->a.fn, 0, 16381, &value, 4));
	assert_false(pci_bar_read(&f->a.fn, 0, UINT64_MAX, &value, 4));
	assert_false(pci_bar_read(&f->a.fn, 1, 0, &value, 4));
	assert_false(pci_bar_read(&f->a.fn, 255, 0, &value, 4));
}

static void test_reset(void **state)
{
	struct fixture *f = *state;
	uint64_t a0 = bar_get(f->vm, 1, BAR0);

	cfg_write(f->vm, 1, PCI_COMMAND, MEM, 2);
	bar_set(f->vm, 1, BAR0, VM_MMIO32_BASE);
	cfg_write(f->vm, 1, PCI_INTERRUPT_LINE, 7, 1);
	pci_bus_reset(f->bus);
	assert_int_equal(f->a.mapped[0], 0);
	assert_int_equal(f->a.nr_resets, 1);
	assert_int_equal(bar_get(f->vm, 1, BAR0), a0);
	assert_int_equal(cfg_read(f->vm, 1, PCI_COMMAND, 2), 0);
	assert_int_equal(cfg_read(f->vm, 1, PCI_INTERRUPT_LINE, 1), 0);
	assert_int_equal(pio_read(f->vm, 0xcf8, 4), 0);
}

static void test_bus_full(void **state)
{
	struct fixture *f = *state;
	struct thing *extra = calloc(32, sizeof(*extra));
	const struct pci_ids ids = { 0 };
	unsigned i, nr;

	assert_non_null(extra);
	for (nr = 0; nr < 32; nr++) {
		pci_function_init(&extra[nr].fn, "extra", &ids, &ops);
		if (pci_function_add(f->bus, &extra[nr].fn))
			break;
	}
	assert_int_equal(nr, 29);
	assert_int_equal(pci_function_add(f->bus, &extra[nr].fn), -ENOSPC);
	for (i = 0; i < nr; i++)
		pci_function_remove(&extra[i].fn);
	pci_function_remove(&extra[0].fn); /* again: nothing happens */
	assert_int_equal(pci_bus_next_slot(f->bus), 3);
	free(extra);
}

static void test_capabilities_full(void **state)
{
	struct pci_function fn;
	const struct pci_ids ids = { 0 };

	(void)state;
	pci_function_init(&fn, "caps", &ids, &ops);
	assert_int_equal(pci_capability_add(&fn, 9, 100), 0x40);
	assert_int_equal(pci_capability_add(&fn, 9, 93), -ENOSPC);
	assert_int_equal(pci_capability_add(&fn, 9, 92), 0x40 + 100);
	assert_int_equal(pci_capability_add(&fn, 9, 1), -ENOSPC);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_mechanism_1, setup, teardown),
		cmocka_unit_test_setup_teardown(test_absent, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hostile_config, setup, teardown),
		cmocka_unit_test_setup_teardown(test_sizing, setup, teardown),
		cmocka_unit_test_setup_teardown(test_decode, setup, teardown),
		cmocka_unit_test_setup_teardown(test_move, setup, teardown),
		cmocka_unit_test_setup_teardown(test_forbidden_places, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ram_in_window, setup, teardown),
		cmocka_unit_test_setup_teardown(test_overlap, setup, teardown),
		cmocka_unit_test_setup_teardown(test_content_without_address, setup, teardown),
		cmocka_unit_test_setup_teardown(test_reset, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bus_full, setup, teardown),
		cmocka_unit_test(test_capabilities_full),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
