/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The whole computer: VM, vCPUs, boot data, power, serial console, PCI bus. Main thread.
 */
#ifndef VMM_MACHINE_H
#define VMM_MACHINE_H

#include <stdbool.h>
#include <stdint.h>

struct boot;
struct console;
struct event_loop;
struct machine;
struct pci_bus;
struct vcpu;
struct vm;

struct machine_config {
	uint64_t memory;
	bool hugepages;
	unsigned nr_cpus;
};

/* Everything but the devices on the PCI bus, not running. Reports its errors. */
int machine_new(int kvm_fd, const struct machine_config *config, struct machine **out);
/* Stops the vCPUs. Devices on the PCI bus must be gone. */
void machine_free(struct machine *machine);

struct vm *machine_vm(struct machine *machine);
struct pci_bus *machine_pci(struct machine *machine);
unsigned machine_nr_cpus(const struct machine *machine);
const struct vcpu *machine_vcpu(const struct machine *machine, unsigned index);

/* Connect the serial port to stdin and stdout; @quit is called on Ctrl-A x. */
int machine_open_console(struct machine *machine, struct event_loop *loop,
			 void (*quit)(void *opaque), void *opaque);

/* Load the kernel and let all vCPUs run. */
int machine_start(struct machine *machine, const struct boot *boot);
/* Returns when no vCPU runs any more. Idempotent. */
void machine_stop(struct machine *machine);
/*
 * Everything this machine owns back to power-on; it must be stopped. The devices' back ends are
 * the caller's to reset, after this: no guest access reaches them any more.
 */
int machine_reset(struct machine *machine);

#endif
