/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The PCI bus: its functions, and what a guest's access to configuration space means.
 *
 * Runs on vCPU threads under the bus's lock. It knows nothing of how an access arrived (pci_host.c)
 * and leaves the placing of BARs to pci_bar.c. Must not trust a register: whatever the guest stores
 * in config[] is data for later checks, bounded by writable[].
 */
#include "pci.h"

#include <errno.h>
#include <stdlib.h>

#include <linux/pci_regs.h>

#include "pci_internal.h"

/* Bits of the command register that a type 0 function without INTx and I/O space lets be set. */
#define COMMAND_WRITABLE                                                                   \
	(PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_PARITY | PCI_COMMAND_SERR | \
	 PCI_COMMAND_INTX_DISABLE)

#define FIRST_CAPABILITY 0x40

void pci_function_init(struct pci_function *fn, const char *name, const struct pci_ids *ids,
		       const struct pci_function_ops *ops)
{
	memset(fn, 0, sizeof(*fn));
	fn->name = name;
	fn->ops = ops;
	fn->cap_end = FIRST_CAPABILITY;

	pci_set16(fn->config + PCI_VENDOR_ID, ids->vendor);
	pci_set16(fn->config + PCI_DEVICE_ID, ids->device);
	pci_set16(fn->config + PCI_SUBSYSTEM_VENDOR_ID, ids->subsystem_vendor);
	pci_set16(fn->config + PCI_SUBSYSTEM_ID, ids->subsystem);
	fn->config[PCI_REVISION_ID] = ids->revision;
	fn->config[PCI_CLASS_PROG] = (uint8_t)ids->class_code;
	pci_set16(fn->config + PCI_CLASS_DEVICE, (uint16_t)(ids->class_code >> 8));

	pci_set16(fn->writable + PCI_COMMAND, COMMAND_WRITABLE);
	fn->writable[PCI_CACHE_LINE_SIZE] = 0xff;
	fn->writable[PCI_LATENCY_TIMER] = 0xff;
	/* PCI 3.0, 6.2.4: a scratch register for system software even without a pin. */
	fn->writable[PCI_INTERRUPT_LINE] = 0xff;
}

int pci_capability_add(struct pci_function *fn, uint8_t id, unsigned len)
{
	unsigned at = fn->cap_end;

	if (len > PCI_CONFIG_SIZE - at)
		return -ENOSPC;
	fn->config[at + PCI_CAP_LIST_ID] = id;
	fn->config[at + PCI_CAP_LIST_NEXT] = 0;
	if (fn->cap_last)
		fn->config[fn->cap_last + PCI_CAP_LIST_NEXT] = (uint8_t)at;
	else
		fn->config[PCI_CAPABILITY_LIST] = (uint8_t)at;
	pci_set16(fn->config + PCI_STATUS, PCI_STATUS_CAP_LIST);
	fn->cap_last = at;
	fn->cap_end = (at + len + 3) & ~3u;
	return (int)at;
}

static unsigned free_slot(const struct pci_bus *bus)
{
	unsigned slot;

	for (slot = 0; slot < PCI_MAX_FUNCTIONS && bus->functions[slot]; slot++)
		;
	return slot;
}

unsigned pci_bus_next_slot(struct pci_bus *bus)
{
	unsigned slot;

	pthread_mutex_lock(&bus->lock);
	slot = free_slot(bus);
	pthread_mutex_unlock(&bus->lock);
	return slot;
}

int pci_function_add(struct pci_bus *bus, struct pci_function *fn)
{
	unsigned slot;
	int err;

	pthread_mutex_lock(&bus->lock);
	slot = free_slot(bus);
	err = slot < PCI_MAX_FUNCTIONS ? pci_bars_place(bus, fn) : -ENOSPC;
	if (!err) {
		fn->bus = bus;
		fn->slot = slot;
		pci_bars_load(fn);
		bus->functions[slot] = fn;
	}
	pthread_mutex_unlock(&bus->lock);
	return err;
}

void pci_function_remove(struct pci_function *fn)
{
	struct pci_bus *bus = fn->bus;

	if (!bus)
		return;
	pthread_mutex_lock(&bus->lock);
	pci_bars_unmap(fn);
	bus->functions[fn->slot] = NULL;
	fn->bus = NULL;
	/* Another function's BAR may have waited for this address. */
	pci_bars_update(bus);
	pthread_mutex_unlock(&bus->lock);
}

/* Single-function devices: function numbers 1 to 7 of a slot do not exist. */
static struct pci_function *find(struct pci_bus *bus, unsigned devfn)
{
	return devfn & 7 ? NULL : bus->functions[(devfn >> 3) & 31];
}

void pci_config_read(struct pci_bus *bus, unsigned devfn, unsigned reg, void *data, unsigned len)
{
	struct pci_function *fn = find(bus, devfn);

	if (!fn) {
		memset(data, 0xff, len);
		return;
	}
	/* Conventional PCI: the extended space reads as zero, which is "no extended capability". */
	memset(data, 0, len);
	if (reg >= PCI_CONFIG_SIZE || len > PCI_CONFIG_SIZE - reg)
		return;
	if (fn->ops->config_read)
		fn->ops->config_read(fn, reg, len);
	memcpy(data, fn->config + reg, len);
}

static bool overlaps(unsigned reg, unsigned len, unsigned first, unsigned size)
{
	return reg < first + size && first < reg + len;
}

void pci_config_write(struct pci_bus *bus, unsigned devfn, unsigned reg, const void *data,
		      unsigned len)
{
	struct pci_function *fn = find(bus, devfn);
	const uint8_t *bytes = data;
	unsigned i;

	if (!fn || reg >= PCI_CONFIG_SIZE || len > PCI_CONFIG_SIZE - reg)
		return;
	for (i = 0; i < len; i++) {
		uint8_t mask = fn->writable[reg + i];

		fn->config[reg + i] = (uint8_t)((fn->config[reg + i] & ~mask) | (bytes[i] & mask));
	}
	if (overlaps(reg, len, PCI_COMMAND, 2) || overlaps(reg, len, PCI_BASE_ADDRESS_0, 24))
		pci_bars_update(bus);
	if (fn->ops->config_written)
		fn->ops->config_written(fn, reg, len);
}

static void function_reset(struct pci_function *fn)
{
	pci_set16(fn->config + PCI_COMMAND, 0);
	fn->config[PCI_CACHE_LINE_SIZE] = 0;
	fn->config[PCI_LATENCY_TIMER] = 0;
	fn->config[PCI_INTERRUPT_LINE] = 0;
	pci_bars_load(fn);
	if (fn->ops->reset)
		fn->ops->reset(fn);
}

void pci_bus_reset(struct pci_bus *bus)
{
	unsigned slot;

	pthread_mutex_lock(&bus->lock);
	for (slot = 0; slot < PCI_MAX_FUNCTIONS; slot++)
		if (bus->functions[slot])
			pci_bars_unmap(bus->functions[slot]);
	for (slot = 0; slot < PCI_MAX_FUNCTIONS; slot++)
		if (bus->functions[slot])
			function_reset(bus->functions[slot]);
	bus->config_address = 0;
	pthread_mutex_unlock(&bus->lock);
}

struct pci_bus *pci_bus_new(struct vm *vm)
{
	struct pci_bus *bus = calloc(1, sizeof(*bus));

	if (!bus)
		return NULL;
	bus->vm = vm;
	bus->next_gpa = VM_MMIO64_BASE;
	pthread_mutex_init(&bus->lock, NULL);
	if (pci_host_init(bus)) {
		pthread_mutex_destroy(&bus->lock);
		free(bus);
		return NULL;
	}
	return bus;
}

void pci_bus_free(struct pci_bus *bus)
{
	if (!bus)
		return;
	pci_host_done(bus);
	pthread_mutex_destroy(&bus->lock);
	free(bus);
}
