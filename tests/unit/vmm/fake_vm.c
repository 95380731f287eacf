/* SPDX-License-Identifier: BSD-3-Clause */
/* The fake virtual machine of the VMM's unit tests; see fake_vm.h. */
#include "fake_vm.h"

#include <poll.h>

#include "unit/support.h"
#include "vmm/base/report.h"

struct vm *fake_vm_new(void)
{
	struct vm *vm = calloc(1, sizeof(*vm));
	int fd;

	assert_non_null(vm);
	bus_init(&vm->mmio);
	bus_init(&vm->pio);
	fd = make_memfd("fake-ram", FAKE_RAM_SIZE, F_SEAL_SHRINK);
	vm->ram = mmap(NULL, FAKE_RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true(vm->ram != MAP_FAILED);
	vm->ranges[0] =
		(struct vm_ram){ .gpa = 0, .size = FAKE_RAM_SIZE, .hva = vm->ram, .fd = fd };
	return vm;
}

void fake_vm_free(struct vm *vm)
{
	assert_int_equal(fake_nr_ioeventfds(vm), 0);
	assert_int_equal(fake_nr_slots(vm), 0);
	assert_int_equal(fake_nr_routes(vm), 0);
	assert_int_equal(fake_nr_irqfds(vm), 0);
	assert_int_equal(vm->nr_bad, 0);
	assert_null(vm->mmio.head);
	assert_null(vm->pio.head);
	munmap(vm->ram, FAKE_RAM_SIZE);
	close(vm->ranges[0].fd);
	free(vm);
}

struct bus *vm_mmio_bus(struct vm *vm)
{
	return &vm->mmio;
}

struct bus *vm_pio_bus(struct vm *vm)
{
	return &vm->pio;
}

unsigned vm_ram(const struct vm *vm, const struct vm_ram **ranges)
{
	*ranges = vm->ranges;
	return vm->ranges[1].size ? 2 : 1;
}

void *vm_gpa_to_hva(const struct vm *vm, uint64_t gpa, uint64_t len)
{
	if (len > FAKE_RAM_SIZE || gpa > FAKE_RAM_SIZE - len)
		return NULL;
	return (char *)vm->ram + gpa;
}

int vm_slot_add(struct vm *vm, uint64_t gpa, uint64_t size, void *hva)
{
	int i;

	if (vm->fail_slot)
		return -vm->fail_slot;
	for (i = 0; i < FAKE_MAX; i++)
		if (vm->slots[i].used && vm->slots[i].gpa < gpa + size &&
		    gpa < vm->slots[i].gpa + vm->slots[i].size)
			return -EEXIST;
	for (i = 0; i < FAKE_MAX && vm->slots[i].used; i++)
		;
	if (i == FAKE_MAX)
		return -ENOSPC;
	vm->slots[i] = (struct fake_slot){ true, gpa, size, hva };
	return i;
}

void vm_slot_del(struct vm *vm, int slot)
{
	vm->nr_bad += slot < 0 || slot >= FAKE_MAX || !vm->slots[slot].used;
	if (slot >= 0 && slot < FAKE_MAX)
		vm->slots[slot].used = false;
}

int vm_ioeventfd_add(struct vm *vm, uint64_t gpa, int fd)
{
	unsigned i;

	if (vm->fail_ioeventfd)
		return -vm->fail_ioeventfd;
	vm->nr_bad += fake_ioeventfd_at(vm, gpa) != NULL;
	for (i = 0; i < FAKE_MAX && vm->ioeventfds[i].used; i++)
		;
	if (i == FAKE_MAX)
		return -ENOSPC;
	vm->ioeventfds[i] = (struct fake_ioeventfd){ true, gpa, fd };
	return 0;
}

void vm_ioeventfd_del(struct vm *vm, uint64_t gpa, int fd)
{
	unsigned i;

	for (i = 0; i < FAKE_MAX; i++) {
		struct fake_ioeventfd *e = &vm->ioeventfds[i];

		if (e->used && e->gpa == gpa && e->fd == fd) {
			e->used = false;
			return;
		}
	}
	vm->nr_bad++;
}

int vm_msi_alloc(struct vm *vm)
{
	int i;

	if (vm->fail_msi_alloc)
		return -vm->fail_msi_alloc;
	for (i = 0; i < FAKE_MAX && vm->routes[i].used; i++)
		;
	if (i == FAKE_MAX)
		return -ENOSPC;
	vm->routes[i] = (struct fake_route){ .used = true };
	return i;
}

void vm_msi_free(struct vm *vm, int gsi)
{
	unsigned i;

	for (i = 0; i < FAKE_MAX; i++)
		vm->nr_bad += vm->irqfds[i].used && vm->irqfds[i].gsi == gsi;
	vm->nr_bad += !vm->routes[gsi].used;
	vm->routes[gsi].used = false;
}

int vm_msi_set(struct vm *vm, int gsi, uint64_t address, uint32_t data)
{
	struct fake_route *r = &vm->routes[gsi];

	if (vm->fail_msi_set)
		return -vm->fail_msi_set;
	vm->nr_bad += !r->used;
	r->set = true;
	r->address = address;
	r->data = data;
	r->nr_set++;
	return 0;
}

/* As KVM: what is pending raises at once, but stays in the eventfd. */
int vm_irqfd_add(struct vm *vm, int gsi, int fd)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	unsigned i;

	if (vm->fail_irqfd)
		return -vm->fail_irqfd;
	for (i = 0; i < FAKE_MAX; i++)
		vm->nr_bad += vm->irqfds[i].used && vm->irqfds[i].fd == fd;
	for (i = 0; i < FAKE_MAX && vm->irqfds[i].used; i++)
		;
	if (i == FAKE_MAX)
		return -ENOSPC;
	vm->irqfds[i] = (struct fake_irqfd){ true, gsi, fd };
	if (poll(&pfd, 1, 0) == 1)
		vm->routes[gsi].nr_interrupts++;
	return 0;
}

static void hear(struct vm *vm, const struct fake_irqfd *irqfd)
{
	uint64_t count;

	if (irqfd->used && read(irqfd->fd, &count, sizeof(count)) == sizeof(count))
		vm->routes[irqfd->gsi].nr_interrupts++;
}

void vm_irqfd_del(struct vm *vm, int gsi, int fd)
{
	unsigned i;

	for (i = 0; i < FAKE_MAX; i++) {
		struct fake_irqfd *irqfd = &vm->irqfds[i];

		if (irqfd->used && irqfd->gsi == gsi && irqfd->fd == fd) {
			hear(vm, irqfd);
			irqfd->used = false;
			return;
		}
	}
	vm->nr_bad++;
}

int vm_msi_send(struct vm *vm, uint64_t address, uint32_t data)
{
	(void)vm;
	(void)address;
	(void)data;
	return 0;
}

void vm_request_shutdown(struct vm *vm)
{
	(void)vm;
}

void vm_request_reset(struct vm *vm)
{
	vm->nr_resets++;
}

/* Hostile guests make messages; a test's output is no place for them. */
void report(const char *fmt, ...)
{
	(void)fmt;
}

#define COUNT(array)                             \
	do {                                     \
		unsigned i, nr = 0;              \
		for (i = 0; i < FAKE_MAX; i++)   \
			nr += vm->array[i].used; \
		return nr;                       \
	} while (0)

unsigned fake_nr_ioeventfds(const struct vm *vm)
{
	COUNT(ioeventfds);
}

unsigned fake_nr_slots(const struct vm *vm)
{
	COUNT(slots);
}

unsigned fake_nr_routes(const struct vm *vm)
{
	COUNT(routes);
}

unsigned fake_nr_irqfds(const struct vm *vm)
{
	COUNT(irqfds);
}

const struct fake_ioeventfd *fake_ioeventfd_at(const struct vm *vm, uint64_t gpa)
{
	unsigned i;

	for (i = 0; i < FAKE_MAX; i++)
		if (vm->ioeventfds[i].used && vm->ioeventfds[i].gpa == gpa)
			return &vm->ioeventfds[i];
	return NULL;
}

const struct fake_slot *fake_slot_at(const struct vm *vm, uint64_t gpa)
{
	unsigned i;

	for (i = 0; i < FAKE_MAX; i++)
		if (vm->slots[i].used && vm->slots[i].gpa == gpa)
			return &vm->slots[i];
	return NULL;
}

static unsigned interrupts(struct vm *vm, bool any, uint64_t address, uint32_t data)
{
	unsigned i, nr = 0;

	for (i = 0; i < FAKE_MAX; i++)
		hear(vm, &vm->irqfds[i]);
	for (i = 0; i < FAKE_MAX; i++) {
		struct fake_route *r = &vm->routes[i];

		if (!r->used || (!any && (!r->set || r->address != address || r->data != data)))
			continue;
		nr += r->nr_interrupts;
		r->nr_interrupts = 0;
	}
	return nr;
}

unsigned fake_interrupts(struct vm *vm, uint64_t address, uint32_t data)
{
	return interrupts(vm, false, address, data);
}

unsigned fake_all_interrupts(struct vm *vm)
{
	return interrupts(vm, true, 0, 0);
}

uint64_t mmio_read(struct vm *vm, uint64_t gpa, unsigned len)
{
	uint64_t value = 0;

	bus_read(&vm->mmio, gpa, &value, len);
	return value;
}

void mmio_write(struct vm *vm, uint64_t gpa, uint64_t value, unsigned len)
{
	bus_write(&vm->mmio, gpa, &value, len);
}

uint32_t pio_read(struct vm *vm, uint16_t port, unsigned len)
{
	uint32_t value = 0;

	bus_read(&vm->pio, port, &value, len);
	return value;
}

void pio_write(struct vm *vm, uint16_t port, uint32_t value, unsigned len)
{
	bus_write(&vm->pio, port, &value, len);
}

uint32_t cfg_read(struct vm *vm, unsigned slot, unsigned reg, unsigned len)
{
	return (uint32_t)mmio_read(vm, VM_ECAM_BASE + (slot << 15) + reg, len);
}

void cfg_write(struct vm *vm, unsigned slot, unsigned reg, uint32_t value, unsigned len)
{
	mmio_write(vm, VM_ECAM_BASE + (slot << 15) + reg, value, len);
}

unsigned cfg_capability(struct vm *vm, unsigned slot, uint8_t id, unsigned nth)
{
	unsigned at = cfg_read(vm, slot, 0x34, 1);
	unsigned steps;

	for (steps = 0; at && steps < 48; steps++) {
		if (cfg_read(vm, slot, at, 1) == id && !nth--)
			return at;
		at = cfg_read(vm, slot, at + 1, 1);
	}
	return 0;
}
