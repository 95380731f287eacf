/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How configuration space is reached: ports 0xcf8 and 0xcfc (mechanism #1), the ECAM window, and
 * the host bridge that both show at 00:00.0. The reset control register between these ports, at
 * 0xcf9, is power.c's.
 *
 * Runs on vCPU threads; takes the bus's lock. The meaning of an access is pci.c's.
 */
#include <errno.h>

#include <linux/pci_regs.h>

#include "pci_internal.h"

#define PORTS_BASE    0xcf8
#define PORTS_SIZE    8
#define CONFIG_DATA   4
#define CONFIG_ENABLE 0x80000000u

/* PCI 3.0, 3.2.2.3.2: only a full dword reaches CONFIG_ADDRESS; narrower ones are plain I/O. */
static void address_read(struct pci_bus *bus, unsigned offset, uint8_t *data, unsigned len)
{
	memset(data, 0xff, len);
	if (offset == 0 && len == 4)
		pci_set32(data, bus->config_address);
}

static void address_write(struct pci_bus *bus, unsigned offset, const uint8_t *data, unsigned len)
{
	if (offset == 0 && len == 4)
		bus->config_address = pci_get32(data) & ~0x7f000003u;
}

/* Bus 0 only, and the access must be enabled: false means that nobody answers. */
static bool selected(const struct pci_bus *bus, unsigned *devfn, unsigned *reg)
{
	uint32_t address = bus->config_address;

	if (!(address & CONFIG_ENABLE) || (address >> 16 & 0xff) != 0)
		return false;
	*devfn = address >> 8 & 0xff;
	*reg = address & 0xfc;
	return true;
}

static void ports_read(void *opaque, uint64_t offset, void *data, unsigned len)
{
	struct pci_bus *bus = opaque;
	unsigned devfn, reg;

	pthread_mutex_lock(&bus->lock);
	if (offset < CONFIG_DATA)
		address_read(bus, (unsigned)offset, data, len);
	else if (selected(bus, &devfn, &reg))
		pci_config_read(bus, devfn, reg + (unsigned)(offset - CONFIG_DATA), data, len);
	else
		memset(data, 0xff, len);
	pthread_mutex_unlock(&bus->lock);
}

static void ports_write(void *opaque, uint64_t offset, const void *data, unsigned len)
{
	struct pci_bus *bus = opaque;
	unsigned devfn, reg;

	pthread_mutex_lock(&bus->lock);
	if (offset < CONFIG_DATA)
		address_write(bus, (unsigned)offset, data, len);
	else if (selected(bus, &devfn, &reg))
		pci_config_write(bus, devfn, reg + (unsigned)(offset - CONFIG_DATA), data, len);
	pthread_mutex_unlock(&bus->lock);
}

static const struct bus_ops ports_ops = { .read = ports_read, .write = ports_write };

/* An access that runs from one function's 4 KiB into the next one's belongs to neither. */
static bool in_one_function(uint64_t offset, unsigned len)
{
	return (offset & 0xfff) + len <= 0x1000;
}

static void ecam_read(void *opaque, uint64_t offset, void *data, unsigned len)
{
	struct pci_bus *bus = opaque;

	if (!in_one_function(offset, len)) {
		memset(data, 0xff, len);
		return;
	}
	pthread_mutex_lock(&bus->lock);
	pci_config_read(bus, (unsigned)(offset >> 12), offset & 0xfff, data, len);
	pthread_mutex_unlock(&bus->lock);
}

static void ecam_write(void *opaque, uint64_t offset, const void *data, unsigned len)
{
	struct pci_bus *bus = opaque;

	if (!in_one_function(offset, len))
		return;
	pthread_mutex_lock(&bus->lock);
	pci_config_write(bus, (unsigned)(offset >> 12), offset & 0xfff, data, len);
	pthread_mutex_unlock(&bus->lock);
}

static const struct bus_ops ecam_ops = { .read = ecam_read, .write = ecam_write };

static const struct pci_function_ops host_bridge_ops = { 0 };

/* The generic host bridge that guests' drivers know and leave alone. */
static const struct pci_ids host_bridge_ids = {
	.vendor = 0x1b36,
	.device = 0x0008,
	.subsystem_vendor = 0x1af4,
	.subsystem = 0x1100,
	.class_code = 0x060000,
};

int pci_host_init(struct pci_bus *bus)
{
	int err;

	pci_function_init(&bus->host_bridge, "host bridge", &host_bridge_ids, &host_bridge_ops);
	bus->host_bridge.bus = bus;
	bus->functions[0] = &bus->host_bridge;

	bus->ports = (struct bus_region){ .base = PORTS_BASE,
					  .size = PORTS_SIZE,
					  .ops = &ports_ops,
					  .opaque = bus,
					  .name = "PCI configuration ports" };
	err = bus_add(vm_pio_bus(bus->vm), &bus->ports);
	if (err)
		return err;

	bus->ecam = (struct bus_region){ .base = VM_ECAM_BASE,
					 .size = VM_ECAM_SIZE,
					 .ops = &ecam_ops,
					 .opaque = bus,
					 .name = "PCI ECAM" };
	err = bus_add(vm_mmio_bus(bus->vm), &bus->ecam);
	if (err)
		bus_del(vm_pio_bus(bus->vm), &bus->ports);
	return err;
}

void pci_host_done(struct pci_bus *bus)
{
	bus_del(vm_mmio_bus(bus->vm), &bus->ecam);
	bus_del(vm_pio_bus(bus->vm), &bus->ports);
}
