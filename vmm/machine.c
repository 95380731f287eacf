/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Putting the computer together, starting, stopping and resetting it. Main thread.
 *
 * The state of the vCPUs and interrupt controllers after power-on is saved before anything runs;
 * a reset puts it back. Guest RAM keeps its content through a reset, as on a real machine: the
 * kernel and its data are loaded over it.
 */
#include "machine.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>

#include "boot/boot.h"
#include "boot/boot_layout.h"
#include "platform/console.h"
#include "kvm/vcpu_cpuid.h"
#include "kvm/kvm.h"
#include "pci/pci.h"
#include "platform/power.h"
#include "base/report.h"
#include "platform/serial.h"
#include "kvm/vcpu.h"
#include "kvm/vm_core.h"

#define NEEDED_PHYSICAL_BITS 39 /* the PCI 64-bit window ends below it */

struct machine {
	struct vm *vm;
	struct vm_state *pristine;
	struct vcpu **vcpus;
	unsigned nr_cpus;    /* vCPUs wanted */
	unsigned nr_created; /* of which exist */
	struct power *power;
	struct serial *serial;
	struct console *console;
	struct pci_bus *pci;
	void (*quit)(void *opaque);
	void *quit_opaque;
};

static int check_cpus(int kvm_fd, const struct kvm_cpuid2 *cpuid, unsigned nr_cpus)
{
	const int max = kvm_extension(kvm_fd, KVM_CAP_MAX_VCPUS);
	const unsigned bits = cpuid_physical_bits(cpuid);

	if (max && nr_cpus > (unsigned)max) {
		report("--cpus %u: this host's KVM allows %d", nr_cpus, max);
		return -E2BIG;
	}
	if (bits < NEEDED_PHYSICAL_BITS) {
		report("this processor addresses %u bits of memory; the guest's address map needs %u",
		       bits, NEEDED_PHYSICAL_BITS);
		return -EOPNOTSUPP;
	}
	return 0;
}

static int create_vcpus(struct machine *m)
{
	struct kvm_cpuid2 *cpuid = NULL;
	int rc = cpuid_supported(m->vm->kvm_fd, &cpuid);

	if (rc) {
		report("KVM does not tell what processor it offers: %s", strerror(-rc));
		return rc;
	}
	rc = check_cpus(m->vm->kvm_fd, cpuid, m->nr_cpus);
	for (; !rc && m->nr_created < m->nr_cpus; m->nr_created++) {
		rc = vcpu_new(m->vm, cpuid, m->nr_created, m->nr_cpus, &m->vcpus[m->nr_created]);
		if (rc)
			break;
	}
	free(cpuid);
	return rc;
}

static int create_devices(struct machine *m)
{
	int rc = power_new(m->vm, &m->power);

	if (!rc)
		rc = serial_new(m->vm, &m->serial);
	if (!rc) {
		m->pci = pci_bus_new(m->vm);
		rc = m->pci ? 0 : -ENOMEM;
	}
	if (!rc)
		rc = vm_state_save(m->vm, &m->pristine);
	if (rc)
		report("cannot build the machine: %s", strerror(-rc));
	return rc;
}

int machine_new(int kvm_fd, const struct machine_config *config, struct machine **out)
{
	struct machine *m = calloc(1, sizeof(*m));
	int rc;

	if (!m)
		return -ENOMEM;
	m->nr_cpus = config->nr_cpus;
	m->vcpus = calloc(m->nr_cpus, sizeof(struct vcpu *));
	rc = m->vcpus ? vcpu_global_init() : -ENOMEM;
	if (!rc)
		rc = vm_new(kvm_fd, config->memory, config->hugepages, &m->vm);
	if (!rc)
		rc = create_vcpus(m);
	if (!rc)
		rc = create_devices(m);
	if (rc) {
		machine_free(m);
		return rc;
	}
	*out = m;
	return 0;
}

void machine_free(struct machine *machine)
{
	if (!machine)
		return;
	machine_stop(machine);
	console_free(machine->console);
	pci_bus_free(machine->pci);
	serial_free(machine->serial);
	power_free(machine->power);
	while (machine->nr_created)
		vcpu_free(machine->vcpus[--machine->nr_created]);
	free(machine->vcpus);
	vm_state_free(machine->pristine);
	vm_free(machine->vm);
	free(machine);
}

struct vm *machine_vm(struct machine *machine)
{
	return machine->vm;
}

struct pci_bus *machine_pci(struct machine *machine)
{
	return machine->pci;
}

unsigned machine_nr_cpus(const struct machine *machine)
{
	return machine->nr_cpus;
}

const struct vcpu *machine_vcpu(const struct machine *machine, unsigned index)
{
	return machine->vcpus[index];
}

static size_t input_room(void *opaque)
{
	struct machine *m = opaque;

	return serial_input_room(m->serial);
}

static void input(void *opaque, const uint8_t *data, size_t len)
{
	struct machine *m = opaque;

	serial_input(m->serial, data, len);
}

static void quit(void *opaque)
{
	struct machine *m = opaque;

	m->quit(m->quit_opaque);
}

int machine_open_console(struct machine *machine, struct event_loop *loop,
			 void (*quit_fn)(void *opaque), void *opaque)
{
	static const struct console_ops ops = {
		.input_room = input_room,
		.input = input,
		.quit = quit,
	};
	int rc;

	machine->quit = quit_fn;
	machine->quit_opaque = opaque;
	rc = console_new(loop, &ops, machine, &machine->console);
	if (rc) {
		report("cannot set up the console: %s", strerror(-rc));
		return rc;
	}
	serial_set_console(machine->serial, machine->console);
	return 0;
}

int machine_start(struct machine *machine, const struct boot *boot)
{
	uint64_t entry;
	unsigned i;
	int rc = boot_load(boot, machine->vm, machine->nr_cpus, &entry);

	if (rc)
		return rc;
	rc = vcpu_set_entry(machine->vcpus[0], entry, BOOT_PARAMS_GPA);
	if (rc) {
		report("KVM refused the kernel's entry state: %s", strerror(-rc));
		return rc;
	}
	for (i = 0; i < machine->nr_cpus && !rc; i++)
		rc = vcpu_start(machine->vcpus[i]);
	if (rc)
		machine_stop(machine);
	return rc;
}

void machine_stop(struct machine *machine)
{
	unsigned i;

	for (i = 0; i < machine->nr_created; i++)
		vcpu_stop(machine->vcpus[i]);
}

int machine_reset(struct machine *machine)
{
	unsigned i;
	int rc = 0;

	pci_bus_reset(machine->pci);
	serial_reset(machine->serial);
	power_reset(machine->power);
	/* The wires first: the IOAPIC would remember a level that nobody lowers any more. */
	rc = vm_state_restore(machine->vm, machine->pristine);
	for (i = 0; i < machine->nr_cpus && !rc; i++)
		rc = vcpu_reset(machine->vcpus[i]);
	if (rc)
		report("cannot reset the machine: KVM refused its state after power-on: %s",
		       strerror(-rc));
	return rc;
}
