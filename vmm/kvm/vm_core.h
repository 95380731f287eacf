/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The machine's own view of struct vm; devices see vm.h only.
 *
 * Set-up, tear-down, saving and restoring run on the main thread while no vCPU runs.
 */
#ifndef VMM_VM_CORE_H
#define VMM_VM_CORE_H

#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>

#include "vm.h"

#define VM_NR_LEGACY_GSIS 24 /* the IOAPIC's pins; MSI routes come after them */
#define VM_MAX_RAM_RANGES 2

enum vm_request {
	VM_REQUEST_SHUTDOWN = 1 << 0,
	VM_REQUEST_RESET = 1 << 1,
	VM_REQUEST_FAILURE = 1 << 2, /* a vCPU cannot go on; it has said why */
};

struct vm_memory {
	int fd;
	void *hva; /* all of RAM, in one piece */
	uint64_t size;
	struct vm_ram ranges[VM_MAX_RAM_RANGES];
	unsigned nr_ranges;
};

/* One entry per GSI; entries with an unset route are not given to KVM. */
struct vm_route {
	bool used;
	bool set;
	uint64_t address;
	uint32_t data;
};

struct vm_irq {
	pthread_mutex_t lock;
	struct vm_route *routes; /* [nr_routes], index + VM_NR_LEGACY_GSIS is the GSI */
	unsigned nr_routes;
	unsigned max_routes;
};

struct vm_slots {
	pthread_mutex_t lock;
	bool *used; /* [nr], grows up to max */
	unsigned nr;
	unsigned max;
	atomic_uint nr_removed; /* so far; wraps */
};

struct vm {
	int kvm_fd; /* borrowed */
	int fd;
	struct bus mmio;
	struct bus pio;
	struct vm_memory memory;
	struct vm_slots slots;
	struct vm_irq irq;
	bool (*on_fault)(void *opaque);
	void *fault_opaque;
	int request_fd; /* eventfd, readable when a request is pending */
	atomic_uint requests;
};

/* A VM with RAM and interrupt controllers, but without vCPUs. Reports its errors. */
int vm_new(int kvm_fd, uint64_t ram_size, bool hugepages, struct vm **out);
void vm_free(struct vm *vm);

/* The pending requests, as bits of enum vm_request; clears them. */
unsigned vm_take_requests(struct vm *vm);
void vm_request_failure(struct vm *vm);

/* vm_memory.c */
int vm_memory_init(struct vm *vm, uint64_t size, bool hugepages);
void vm_memory_done(struct vm *vm);
/* KVM_SET_USER_MEMORY_REGION; @size 0 removes the slot. */
int vm_memory_set_slot(struct vm *vm, unsigned slot, uint64_t gpa, uint64_t size, void *hva);

/*
 * KVM_RUN failed with EFAULT, and before it vm_slots_removed() was @removed. True: a slot has been
 * taken away since or just now, so the guest may try again.
 */
unsigned vm_slots_removed(struct vm *vm);
bool vm_recover_fault(struct vm *vm, unsigned removed);

/* vm_irq.c */
int vm_irq_init(struct vm *vm);
void vm_irq_done(struct vm *vm);

/* vm_state.c: what a reset puts back into the interrupt controllers and the timer. */
struct vm_state;
int vm_state_save(struct vm *vm, struct vm_state **out);
int vm_state_restore(struct vm *vm, const struct vm_state *state);
void vm_state_free(struct vm_state *state);

#endif
