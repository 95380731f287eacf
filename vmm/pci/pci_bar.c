/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * BARs: placing them at start, and following what the guest writes into them.
 *
 * Runs under the bus's lock. A BAR is in the guest's address space exactly when memory decode is on
 * and its address is one where it can do no harm: wholly inside a PCI window, on no RAM, on no
 * other BAR. Otherwise it is simply not there, and the next change of any BAR looks at it again. So
 * the nonsense addresses of the sizing protocol, with decode left on, need no special case.
 *
 * The order of removal matters: first the owner withdraws what it has built on the address (memory
 * slots, ioeventfds), then the region leaves the bus, which waits for accesses that still run.
 */
#include <errno.h>

#include <linux/pci_regs.h>

#include "pci_internal.h"

static uint64_t register_value(const struct pci_function *fn, unsigned index)
{
	const uint8_t *field = fn->config + PCI_BASE_ADDRESS_0 + 4 * index;

	return (pci_get32(field) & (uint32_t)PCI_BASE_ADDRESS_MEM_MASK) |
	       (uint64_t)pci_get32(field + 4) << 32;
}

static bool in_window(uint64_t gpa, uint64_t size, uint64_t base, uint64_t window)
{
	return gpa >= base && size <= window && gpa - base <= window - size;
}

static bool on_ram(struct vm *vm, uint64_t gpa, uint64_t size)
{
	const struct vm_ram *ranges;
	unsigned nr = vm_ram(vm, &ranges);
	unsigned i;

	for (i = 0; i < nr; i++)
		if (gpa < ranges[i].gpa + ranges[i].size && ranges[i].gpa < gpa + size)
			return true;
	return false;
}

static bool harmless(struct pci_bus *bus, uint64_t gpa, uint64_t size)
{
	if (!in_window(gpa, size, VM_MMIO32_BASE, VM_MMIO32_SIZE) &&
	    !in_window(gpa, size, VM_MMIO64_BASE, VM_MMIO64_SIZE))
		return false;
	return !on_ram(bus->vm, gpa, size);
}

static bool decoding(const struct pci_function *fn)
{
	return pci_get16(fn->config + PCI_COMMAND) & PCI_COMMAND_MEMORY;
}

static void unmap(struct pci_function *fn, unsigned index)
{
	struct pci_bar *bar = &fn->bars[index];

	if (!bar->mapped)
		return;
	if (fn->ops->bar_unmapping)
		fn->ops->bar_unmapping(fn, index);
	bus_del(vm_mmio_bus(fn->bus->vm), &bar->region);
	bar->mapped = false;
}

static void map(struct pci_function *fn, unsigned index, uint64_t gpa)
{
	struct pci_bar *bar = &fn->bars[index];

	if (!harmless(fn->bus, gpa, bar->size)) {
		report_limited(
			&fn->limit,
			"%s: the guest put BAR %u at 0x%llx, outside the PCI windows; left unmapped",
			fn->name, index, (unsigned long long)gpa);
		return;
	}
	bar->region.base = gpa;
	if (bus_add(vm_mmio_bus(fn->bus->vm), &bar->region)) {
		report_limited(
			&fn->limit,
			"%s: the guest put BAR %u at 0x%llx, on another device; left unmapped",
			fn->name, index, (unsigned long long)gpa);
		return;
	}
	bar->mapped = true;
	if (fn->ops->bar_mapped)
		fn->ops->bar_mapped(fn, index, gpa);
}

/* First everything that leaves, then everything that comes: two BARs may swap their places. */
static void update_function(struct pci_function *fn, bool leave)
{
	unsigned i;

	for (i = 0; i < PCI_NR_BARS; i++) {
		struct pci_bar *bar = &fn->bars[i];
		uint64_t gpa = register_value(fn, i);

		if (!bar->size || bar->mapped != leave)
			continue;
		if (leave && (!decoding(fn) || gpa != bar->region.base))
			unmap(fn, i);
		else if (!leave && decoding(fn))
			map(fn, i, gpa);
	}
}

void pci_bars_update(struct pci_bus *bus)
{
	unsigned pass, slot;

	for (pass = 0; pass < 2; pass++)
		for (slot = 0; slot < PCI_MAX_FUNCTIONS; slot++)
			if (bus->functions[slot])
				update_function(bus->functions[slot], pass == 0);
}

void pci_bars_unmap(struct pci_function *fn)
{
	unsigned i;

	for (i = 0; i < PCI_NR_BARS; i++)
		unmap(fn, i);
}

void pci_bar_init(struct pci_function *fn, unsigned index, uint64_t size, bool prefetchable,
		  const struct bus_ops *ops, void *opaque)
{
	struct pci_bar *bar = &fn->bars[index];

	bar->size = 4096;
	while (bar->size < size)
		bar->size <<= 1;
	bar->prefetchable = prefetchable;
	bar->region.size = bar->size;
	bar->region.ops = ops;
	bar->region.opaque = opaque;
	bar->region.name = fn->name;
}

int pci_bars_place(struct pci_bus *bus, struct pci_function *fn)
{
	uint64_t gpa = bus->next_gpa;
	unsigned i;

	for (i = 0; i < PCI_NR_BARS; i++) {
		struct pci_bar *bar = &fn->bars[i];

		if (!bar->size)
			continue;
		gpa = (gpa + bar->size - 1) & ~(bar->size - 1);
		if (!in_window(gpa, bar->size, VM_MMIO64_BASE, VM_MMIO64_SIZE))
			return -ENOSPC;
		bar->initial_gpa = gpa;
		gpa += bar->size;
	}
	bus->next_gpa = gpa;
	return 0;
}

/* The registers as after a reset; the address bits below the size stay zero, which is the sizing.
 */
void pci_bars_load(struct pci_function *fn)
{
	unsigned i;

	for (i = 0; i < PCI_NR_BARS; i++) {
		struct pci_bar *bar = &fn->bars[i];
		uint8_t *field = fn->config + PCI_BASE_ADDRESS_0 + 4 * i;
		uint8_t *mask = fn->writable + PCI_BASE_ADDRESS_0 + 4 * i;
		uint32_t flags = PCI_BASE_ADDRESS_MEM_TYPE_64;

		if (!bar->size)
			continue;
		if (bar->prefetchable)
			flags |= PCI_BASE_ADDRESS_MEM_PREFETCH;
		pci_set32(field, (uint32_t)bar->initial_gpa | flags);
		pci_set32(field + 4, (uint32_t)(bar->initial_gpa >> 32));
		pci_set32(mask, (uint32_t) ~(bar->size - 1));
		pci_set32(mask + 4, (uint32_t)(~(bar->size - 1) >> 32));
	}
}

static struct pci_bar *content(struct pci_function *fn, unsigned index, uint64_t offset,
			       unsigned len)
{
	struct pci_bar *bar;

	if (index >= PCI_NR_BARS)
		return NULL;
	bar = &fn->bars[index];
	return len <= bar->size && offset <= bar->size - len ? bar : NULL;
}

bool pci_bar_read(struct pci_function *fn, unsigned index, uint64_t offset, void *data,
		  unsigned len)
{
	struct pci_bar *bar = content(fn, index, offset, len);

	if (!bar)
		return false;
	bar->region.ops->read(bar->region.opaque, offset, data, len);
	return true;
}

bool pci_bar_write(struct pci_function *fn, unsigned index, uint64_t offset, const void *data,
		   unsigned len)
{
	struct pci_bar *bar = content(fn, index, offset, len);

	if (!bar)
		return false;
	bar->region.ops->write(bar->region.opaque, offset, data, len);
	return true;
}
