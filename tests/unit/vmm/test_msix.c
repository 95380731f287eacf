/* SPDX-License-Identifier: BSD-3-Clause */
/* MSI-X: masks, pending bits, and vectors that are changed while they are used. */
#include "unit/support.h"

#include <linux/pci_regs.h>
#include <sys/eventfd.h>

#include "fake_vm.h"
#include "vmm/pci/msix.h"

#define NR_VECTORS  70 /* pending bits in two qwords */
#define SLOT        1
#define ADDRESS     0xfee01000u
#define CTRL_ENABLE PCI_MSIX_FLAGS_ENABLE
#define CTRL_MASK   PCI_MSIX_FLAGS_MASKALL

struct fixture {
	struct vm *vm;
	struct pci_bus *bus;
	struct pci_function fn;
	struct msix msix;
	uint64_t table, pba;
	unsigned cap;
	struct msix_source sources[3];
};

static struct fixture *of(struct pci_function *fn)
{
	return (void *)((char *)fn - offsetof(struct fixture, fn));
}

static void config_written(struct pci_function *fn, unsigned offset, unsigned len)
{
	msix_config_written(&of(fn)->msix, offset, len);
}

static void reset(struct pci_function *fn)
{
	msix_reset(&of(fn)->msix);
}

static const struct pci_function_ops ops = { .config_written = config_written, .reset = reset };

static void turn_on(struct fixture *f)
{
	cfg_write(f->vm, SLOT, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	const struct pci_ids ids = { 0 };
	unsigned i;

	assert_non_null(f);
	f->vm = fake_vm_new();
	f->bus = pci_bus_new(f->vm);
	pci_function_init(&f->fn, "msix", &ids, &ops);
	assert_int_equal(msix_init(&f->msix, f->vm, &f->fn, 2, NR_VECTORS), 0);
	assert_int_equal(pci_function_add(f->bus, &f->fn), 0);
	for (i = 0; i < 3; i++)
		msix_source_init(&f->sources[i], eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
	f->cap = cfg_capability(f->vm, SLOT, PCI_CAP_ID_MSIX, 0);
	assert_int_not_equal(f->cap, 0);
	assert_int_equal(cfg_read(f->vm, SLOT, f->cap + PCI_MSIX_TABLE, 4), 2);
	f->table = f->fn.bars[2].initial_gpa;
	f->pba = f->table + (cfg_read(f->vm, SLOT, f->cap + PCI_MSIX_PBA, 4) & ~7u);
	turn_on(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	unsigned i;

	pci_function_remove(&f->fn);
	msix_done(&f->msix);
	for (i = 0; i < 3; i++)
		close(f->sources[i].fd);
	pci_bus_free(f->bus);
	fake_vm_free(f->vm);
	free(f);
	return 0;
}

static void control(struct fixture *f, uint16_t flags)
{
	cfg_write(f->vm, SLOT, f->cap + PCI_MSIX_FLAGS, flags, 2);
}

static void message(struct fixture *f, unsigned vector, uint64_t address, uint32_t data)
{
	uint64_t entry = f->table + 16 * vector;

	mmio_write(f->vm, entry, address, 8);
	mmio_write(f->vm, entry + 8, data, 4);
}

static void mask(struct fixture *f, unsigned vector, bool on)
{
	mmio_write(f->vm, f->table + 16 * vector + 12, on, 4);
}

static void ring(struct fixture *f, unsigned source)
{
	eventfd_write(f->sources[source].fd, 1);
}

static bool pending(struct fixture *f, unsigned vector)
{
	return mmio_read(f->vm, f->pba + vector / 64 * 8, 8) >> (vector % 64) & 1;
}

static void open_vector(struct fixture *f, unsigned source, unsigned vector, uint32_t data)
{
	assert_int_equal(msix_bind(&f->msix, &f->sources[source], (uint16_t)vector), 0);
	message(f, vector, ADDRESS, data);
	mask(f, vector, false);
	control(f, CTRL_ENABLE);
}

static void test_capability(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(cfg_read(f->vm, SLOT, f->cap + PCI_MSIX_FLAGS, 2), NR_VECTORS - 1);
	cfg_write(f->vm, SLOT, f->cap + PCI_MSIX_FLAGS, 0xffff, 2);
	assert_int_equal(cfg_read(f->vm, SLOT, f->cap + PCI_MSIX_FLAGS, 2),
			 (NR_VECTORS - 1) | CTRL_ENABLE | CTRL_MASK);
	cfg_write(f->vm, SLOT, f->cap + PCI_MSIX_TABLE, 0xffffffff, 4);
	assert_int_equal(cfg_read(f->vm, SLOT, f->cap + PCI_MSIX_TABLE, 4), 2);
}

static void test_delivers(void **state)
{
	struct fixture *f = *state;

	open_vector(f, 0, 3, 0x41);
	ring(f, 0);
	assert_int_equal(fake_interrupts(f->vm, ADDRESS, 0x41), 1);
	assert_int_equal(fake_all_interrupts(f->vm), 0);
	assert_int_equal(fake_nr_routes(f->vm), 1); /* only what is used */
}

static void test_vector_mask(void **state)
{
	struct fixture *f = *state;

	open_vector(f, 0, 65, 0x42);
	mask(f, 65, true);
	assert_int_equal(fake_nr_irqfds(f->vm), 0);
	assert_false(pending(f, 65));
	ring(f, 0);
	ring(f, 0);
	assert_true(pending(f, 65));
	assert_false(pending(f, 64));
	assert_int_equal(fake_all_interrupts(f->vm), 0);
	mask(f, 65, false);
	assert_false(pending(f, 65));
	assert_int_equal(fake_interrupts(f->vm, ADDRESS, 0x42), 1);
	/* It was delivered: masking and unmasking again must not repeat it. */
	mask(f, 65, true);
	assert_false(pending(f, 65));
	mask(f, 65, false);
	assert_int_equal(fake_all_interrupts(f->vm), 0);
}

static void test_function_mask(void **state)
{
	struct fixture *f = *state;

	open_vector(f, 0, 1, 0x51);
	open_vector(f, 1, 2, 0x52);
	control(f, CTRL_ENABLE | CTRL_MASK);
	ring(f, 0);
	ring(f, 1);
	assert_int_equal(fake_all_interrupts(f->vm), 0);
	assert_true(pending(f, 1) && pending(f, 2));
	mask(f, 2, true);
	control(f, CTRL_ENABLE);
	assert_int_equal(fake_interrupts(f->vm, ADDRESS, 0x51), 1);
	assert_int_equal(fake_all_interrupts(f->vm), 0);
	assert_true(pending(f, 2));
	mask(f, 2, false);
	assert_int_equal(fake_interrupts(f->vm, ADDRESS, 0x52), 1);
}

static void test_disabled(void **state)
{
	struct fixture *f = *state;

	open_vector(f, 0, 1, 0x51);
	control(f, 0);
	ring(f, 0);
	assert_int_equal(fake_nr_irqfds(f->vm), 0);
	assert_int_equal(fake_all_interrupts(f->vm), 0);
	control(f, CTRL_ENABLE);
	assert_int_equal(fake_interrupts(f->vm, ADDRESS, 0x51), 1);
}

static void test_shared_vector(void **state)
{
	struct fixture *f = *state;
	unsigned i;

	for (i = 0; i < 3; i++)
		open_vector(f, i, 5, 0x60);
	assert_int_equal(fake_nr_routes(f->vm), 1);
	assert_int_equal(fake_nr_irqfds(f->vm), 3);
	mask(f, 5, true);
	ring(f, 1);
	assert_true(pending(f, 5));
	assert_int_equal(msix_bind(&f->msix, &f->sources[0], MSIX_NO_VECTOR), 0);
	mask(f, 5, false);
	assert_int_equal(fake_interrupts(f->vm, ADDRESS, 0x60), 1);
	assert_int_equal(fake_nr_irqfds(f->vm), 2);
}

/* CVE-2024-4693's ground: vectors given, taken and given again while interrupts fly. */
static void test_rebind_under_load(void **state)
{
	struct fixture *f = *state;
	unsigned i, seed = 1;

	for (i = 0; i < 20000; i++) {
		unsigned source = rand_r(&seed) % 3;
		unsigned vector = rand_r(&seed) % (NR_VECTORS + 2);

		ring(f, rand_r(&seed) % 3);
		switch (rand_r(&seed) % 5) {
		case 0:
			msix_bind(&f->msix, &f->sources[source], (uint16_t)vector);
			break;
		case 1:
			msix_bind(&f->msix, &f->sources[source], MSIX_NO_VECTOR);
			break;
		case 2:
			mask(f, vector % NR_VECTORS, rand_r(&seed) & 1);
			break;
		case 3:
			message(f, vector % NR_VECTORS, ADDRESS, i);
			break;
		default:
			control(f, (uint16_t)(rand_r(&seed) % 4) << 14);
			break;
		}
		fake_all_interrupts(f->vm);
	}
	assert_int_equal(f->vm->nr_bad, 0);
	/* And it still works. */
	for (i = 0; i < 3; i++)
		msix_bind(&f->msix, &f->sources[i], MSIX_NO_VECTOR);
	assert_int_equal(fake_nr_irqfds(f->vm), 0);
	open_vector(f, 0, 7, 0x77);
	fake_all_interrupts(f->vm);
	ring(f, 0);
	assert_int_equal(fake_interrupts(f->vm, ADDRESS, 0x77), 1);
}

static void test_no_such_vector(void **state)
{
	struct fixture *f = *state;

	open_vector(f, 0, 0, 0x40);
	assert_int_equal(msix_bind(&f->msix, &f->sources[0], NR_VECTORS), -EINVAL);
	assert_int_equal(f->sources[0].vector, MSIX_NO_VECTOR);
	assert_int_equal(fake_nr_irqfds(f->vm), 0);
	f->vm->fail_msi_alloc = ENOSPC;
	assert_int_equal(msix_bind(&f->msix, &f->sources[0], 9), -ENOSPC);
	assert_int_equal(f->sources[0].vector, MSIX_NO_VECTOR);
}

/* KVM refuses the guest's message, or the irqfd: no interrupt, no crash, and it heals. */
static void test_kvm_refuses(void **state)
{
	struct fixture *f = *state;

	f->vm->fail_msi_set = EINVAL;
	open_vector(f, 0, 1, 0x41);
	assert_int_equal(fake_nr_irqfds(f->vm), 0);
	f->vm->fail_msi_set = 0;
	f->vm->fail_irqfd = EBUSY;
	mask(f, 1, false);
	assert_int_equal(fake_nr_irqfds(f->vm), 0);
	f->vm->fail_irqfd = 0;
	ring(f, 0);
	mask(f, 1, false);
	assert_int_equal(fake_interrupts(f->vm, ADDRESS, 0x41), 1);
}

static void test_table_accesses(void **state)
{
	struct fixture *f = *state;
	uint64_t gpa;
	unsigned len;

	assert_int_equal(mmio_read(f->vm, f->table + 12, 4), 1); /* masked after reset */
	mmio_write(f->vm, f->table + 16, 0x1122334455667788, 8);
	assert_int_equal(mmio_read(f->vm, f->table + 16, 4), 0x55667788);
	assert_int_equal(mmio_read(f->vm, f->table + 20, 4), 0x11223344);
	assert_int_equal(mmio_read(f->vm, f->table + 18, 2), 0x5566);
	/* Reserved control bits stay zero. */
	mmio_write(f->vm, f->table + 24, UINT64_MAX, 8);
	assert_int_equal(mmio_read(f->vm, f->table + 24, 8), 0x1ffffffff);
	/* Narrow and misaligned writes do nothing. */
	mmio_write(f->vm, f->table + 16, 0, 1);
	mmio_write(f->vm, f->table + 16, 0, 2);
	mmio_write(f->vm, f->table + 18, 0, 4);
	mmio_write(f->vm, f->table + 20, 0, 8);
	assert_int_equal(mmio_read(f->vm, f->table + 16, 8), 0x1122334455667788);
	/* Pending bits are read-only; and nothing in the BAR can be made to crash. */
	for (len = 1; len <= 8; len *= 2)
		for (gpa = f->table; gpa + len <= f->table + f->fn.bars[2].size; gpa++) {
			mmio_write(f->vm, gpa, UINT64_MAX, len);
			mmio_read(f->vm, gpa, len);
		}
	assert_int_equal(mmio_read(f->vm, f->pba, 8), 0);
	assert_int_equal(mmio_read(f->vm, f->pba + 16, 8), 0);
}

static void test_reset(void **state)
{
	struct fixture *f = *state;

	open_vector(f, 0, 1, 0x41);
	open_vector(f, 1, 2, 0x42);
	pci_bus_reset(f->bus);
	assert_int_equal(fake_nr_irqfds(f->vm), 0);
	assert_int_equal(fake_nr_routes(f->vm), 0);
	assert_int_equal(f->sources[0].vector, MSIX_NO_VECTOR);
	assert_int_equal(cfg_read(f->vm, SLOT, f->cap + PCI_MSIX_FLAGS, 2), NR_VECTORS - 1);
	turn_on(f);
	assert_int_equal(mmio_read(f->vm, f->table + 16, 8), 0);
	assert_int_equal(mmio_read(f->vm, f->table + 28, 4), 1);
	open_vector(f, 0, 1, 0x41);
	ring(f, 0);
	assert_int_equal(fake_interrupts(f->vm, ADDRESS, 0x41), 1);
}

static void test_too_many_vectors(void **state)
{
	const struct pci_ids ids = { 0 };
	struct pci_function fn;
	struct msix msix;

	(void)state;
	pci_function_init(&fn, "many", &ids, &ops);
	assert_int_equal(msix_init(&msix, NULL, &fn, 2, MSIX_MAX_VECTORS + 1), -EINVAL);
	msix_done(&msix);
	assert_int_equal(msix_init(&msix, NULL, &fn, 2, 0), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_capability, setup, teardown),
		cmocka_unit_test_setup_teardown(test_delivers, setup, teardown),
		cmocka_unit_test_setup_teardown(test_vector_mask, setup, teardown),
		cmocka_unit_test_setup_teardown(test_function_mask, setup, teardown),
		cmocka_unit_test_setup_teardown(test_disabled, setup, teardown),
		cmocka_unit_test_setup_teardown(test_shared_vector, setup, teardown),
		cmocka_unit_test_setup_teardown(test_rebind_under_load, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_such_vector, setup, teardown),
		cmocka_unit_test_setup_teardown(test_kvm_refuses, setup, teardown),
		cmocka_unit_test_setup_teardown(test_table_accesses, setup, teardown),
		cmocka_unit_test_setup_teardown(test_reset, setup, teardown),
		cmocka_unit_test(test_too_many_vectors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
