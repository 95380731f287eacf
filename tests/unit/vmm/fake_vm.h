/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A virtual machine without KVM: it implements vmm/kvm/vm.h and writes down what devices ask of it.
 * Single-threaded. An irqfd is "heard" when the test looks, as KVM would have at once.
 */
#ifndef TESTS_UNIT_VMM_FAKE_VM_H
#define TESTS_UNIT_VMM_FAKE_VM_H

#include "vmm/kvm/vm.h"

#define FAKE_MAX      128
#define FAKE_RAM_SIZE 0x100000ull

struct fake_ioeventfd {
	bool used;
	uint64_t gpa;
	int fd;
};

struct fake_slot {
	bool used;
	uint64_t gpa, size;
	void *hva;
};

struct fake_route {
	bool used, set;
	uint64_t address;
	uint32_t data;
	unsigned nr_set;
	unsigned nr_interrupts;
};

struct fake_irqfd {
	bool used;
	int gsi, fd;
};

struct vm {
	struct bus mmio, pio;
	void *ram;
	struct vm_ram ranges[2];
	struct fake_ioeventfd ioeventfds[FAKE_MAX];
	struct fake_slot slots[FAKE_MAX];
	struct fake_route routes[FAKE_MAX];
	struct fake_irqfd irqfds[FAKE_MAX];
	int fail_msi_alloc, fail_msi_set, fail_irqfd, fail_slot,
		fail_ioeventfd; /* errno to give, or 0 */
	unsigned nr_bad;        /* removals of what was not there, double additions */
	unsigned nr_resets;
};

struct vm *fake_vm_new(void);
/* Asserts that nothing was left behind. */
void fake_vm_free(struct vm *vm);

unsigned fake_nr_ioeventfds(const struct vm *vm);
unsigned fake_nr_slots(const struct vm *vm);
unsigned fake_nr_routes(const struct vm *vm);
unsigned fake_nr_irqfds(const struct vm *vm);
const struct fake_ioeventfd *fake_ioeventfd_at(const struct vm *vm, uint64_t gpa);
const struct fake_slot *fake_slot_at(const struct vm *vm, uint64_t gpa);
/* Interrupts with this message since the last call. */
unsigned fake_interrupts(struct vm *vm, uint64_t address, uint32_t data);
/* All messages. */
unsigned fake_all_interrupts(struct vm *vm);

/* Guest accesses. */
uint64_t mmio_read(struct vm *vm, uint64_t gpa, unsigned len);
void mmio_write(struct vm *vm, uint64_t gpa, uint64_t value, unsigned len);
uint32_t pio_read(struct vm *vm, uint16_t port, unsigned len);
void pio_write(struct vm *vm, uint16_t port, uint32_t value, unsigned len);
/* Configuration space through the ECAM window. */
uint32_t cfg_read(struct vm *vm, unsigned slot, unsigned reg, unsigned len);
void cfg_write(struct vm *vm, unsigned slot, unsigned reg, uint32_t value, unsigned len);
/* Offset of the capability, 0: none; @nth of this id, from 0. */
unsigned cfg_capability(struct vm *vm, unsigned slot, uint8_t id, unsigned nth);

#endif
