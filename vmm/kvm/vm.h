/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The virtual machine: KVM's objects, guest memory, the two buses.
 *
 * Devices see this header only. Functions here may be called from any thread unless noted.
 */
#ifndef VMM_VM_H
#define VMM_VM_H

#include <stdbool.h>
#include <stdint.h>

#include "bus.h"

struct vm;

/* A guest RAM range; the whole of RAM is one sealed memfd. */
struct vm_ram {
	uint64_t gpa;
	uint64_t size;
	void *hva;
	int fd; /* borrowed */
	uint64_t fd_offset;
};

/* Guest-physical layout, fixed (see vm_memory.c for the picture). */
#define VM_MMIO32_BASE 0xc0000000ull /* end of low RAM, begin of the 32-bit hole */
#define VM_MMIO32_SIZE 0x20000000ull /* PCI 32-bit window */
#define VM_ECAM_BASE   0xe0000000ull /* one bus: 1 MiB */
#define VM_ECAM_SIZE   0x00100000ull
#define VM_HIGH_RAM    0x100000000ull  /* RAM continues here */
#define VM_MMIO64_BASE 0x4000000000ull /* PCI 64-bit window; inside 39 physical bits */
#define VM_MMIO64_SIZE 0x1000000000ull

struct bus *vm_mmio_bus(struct vm *vm);
struct bus *vm_pio_bus(struct vm *vm);

/* The RAM ranges; returns their number (1 or 2), *@ranges borrowed for the VM's life. */
unsigned vm_ram(const struct vm *vm, const struct vm_ram **ranges);
/* Host address of guest RAM, or NULL when [gpa, gpa + len) is not wholly in one range. */
void *vm_gpa_to_hva(const struct vm *vm, uint64_t gpa, uint64_t len);

/*
 * Memory slots besides RAM: a page of a device laid into the guest's address space.
 * vm_slot_add() returns a slot id >= 0, or -ENOSPC (slots used up) or KVM's error.
 * vm_slot_del() returns when no vCPU can reach the page any more.
 */
int vm_slot_add(struct vm *vm, uint64_t gpa, uint64_t size, void *hva);
void vm_slot_del(struct vm *vm, int slot);

/*
 * @fn runs on a vCPU's thread when the guest reached a page that is in its map but cannot be had,
 * and says whether it took something away, so that going on makes sense. Set before the first vCPU
 * runs.
 */
void vm_on_fault(struct vm *vm, bool (*fn)(void *opaque), void *opaque);

/* A write of any length to @gpa signals @fd inside the kernel. 0 or KVM's error. */
int vm_ioeventfd_add(struct vm *vm, uint64_t gpa, int fd);
void vm_ioeventfd_del(struct vm *vm, uint64_t gpa, int fd);

/*
 * MSI routes: a GSI stands for one (address, data) pair.
 * vm_msi_alloc() returns a GSI, or -ENOSPC. vm_msi_set() replaces what it stands for.
 * vm_irqfd_add() makes a signal on @fd raise @gsi; an fd that is already signalled raises it at
 * once. vm_msi_send() injects without a route.
 */
int vm_msi_alloc(struct vm *vm);
void vm_msi_free(struct vm *vm, int gsi);
int vm_msi_set(struct vm *vm, int gsi, uint64_t address, uint32_t data);
int vm_irqfd_add(struct vm *vm, int gsi, int fd);
void vm_irqfd_del(struct vm *vm, int gsi, int fd);
int vm_msi_send(struct vm *vm, uint64_t address, uint32_t data);

/* Drive the wire of a legacy interrupt (GSI below 24) high or low. */
void vm_irq_line(struct vm *vm, unsigned gsi, bool high);

/* Ask for the end or a reset of the machine; returns at once, the main loop does it. */
void vm_request_shutdown(struct vm *vm);
void vm_request_reset(struct vm *vm);

#endif
