/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One PCI bus: a host bridge at 00:00.0, single-function devices from 00:01.0 on.
 *
 * Context: the guest's accesses come on any vCPU thread and are serialised by the bus's lock. The
 * callbacks of struct pci_function_ops run under that lock, and may take a device's lock; the other
 * way round is a deadlock, so nothing that holds a device's lock may call a function of this
 * header. An access to a BAR's content does not take the bus's lock.
 */
#ifndef VMM_PCI_H
#define VMM_PCI_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "../kvm/bus.h"
#include "../base/report_limit.h"

struct vm;
struct pci_bus;
struct pci_function;

#define PCI_CONFIG_SIZE   256
#define PCI_NR_BARS       6
#define PCI_MAX_FUNCTIONS 32

struct pci_function_ops {
	/* Before [offset, offset + len) is shown to the guest, and after it was stored by it. */
	void (*config_read)(struct pci_function *fn, unsigned offset, unsigned len);
	void (*config_written)(struct pci_function *fn, unsigned offset, unsigned len);
	/* The BAR is reachable at @gpa now; and: it is about to become unreachable. */
	void (*bar_mapped)(struct pci_function *fn, unsigned bar, uint64_t gpa);
	void (*bar_unmapping)(struct pci_function *fn, unsigned bar);
	/* The machine resets; the BARs are unmapped already. */
	void (*reset)(struct pci_function *fn);
};

/* A 64-bit memory BAR; it takes two registers, @index and @index + 1. */
struct pci_bar {
	uint64_t size; /* power of two, 4 KiB at least; 0: no BAR here */
	bool prefetchable;
	uint64_t initial_gpa; /* what the register holds after a reset */
	bool mapped;
	struct bus_region region;
};

struct pci_function {
	const char *name; /* for messages; must outlive the function */
	const struct pci_function_ops *ops;
	struct pci_bus *bus; /* NULL while not on a bus */
	unsigned slot;
	uint8_t config[PCI_CONFIG_SIZE];
	uint8_t writable[PCI_CONFIG_SIZE]; /* mask: the bits the guest may change */
	unsigned cap_end;                  /* first free byte behind the capabilities */
	unsigned cap_last;                 /* offset of the last capability, 0: none */
	struct pci_bar bars[PCI_NR_BARS];
	struct report_limit limit;
};

/* Claims the configuration ports and the ECAM window. NULL: out of memory, or they are taken. */
struct pci_bus *pci_bus_new(struct vm *vm);
/* Every function but the host bridge must have been removed. */
void pci_bus_free(struct pci_bus *bus);
/* As after power-on: memory decode off, BARs at their initial addresses. No vCPU may run. */
void pci_bus_reset(struct pci_bus *bus);

struct pci_ids {
	uint16_t vendor, device, subsystem_vendor, subsystem;
	uint8_t revision;
	uint32_t class_code; /* 24 bits: class, subclass, programming interface */
};

void pci_function_init(struct pci_function *fn, const char *name, const struct pci_ids *ids,
		       const struct pci_function_ops *ops);
/* @index is even. The size is rounded up to a power of two. */
void pci_bar_init(struct pci_function *fn, unsigned index, uint64_t size, bool prefetchable,
		  const struct bus_ops *ops, void *opaque);
/* Reserve @len bytes for a capability; returns its offset or -ENOSPC. Read-only until unmasked. */
int pci_capability_add(struct pci_function *fn, uint8_t id, unsigned len);
/* The slot that the next pci_function_add() will take. */
unsigned pci_bus_next_slot(struct pci_bus *bus);
/* Next free slot, BARs placed in the 64-bit window. 0, or -ENOSPC. */
int pci_function_add(struct pci_bus *bus, struct pci_function *fn);
void pci_function_remove(struct pci_function *fn);

/*
 * The content of a BAR, reached without its address (virtio's configuration access window). False
 * when there is no such BAR or the range is outside it.
 */
bool pci_bar_read(struct pci_function *fn, unsigned index, uint64_t offset, void *data,
		  unsigned len);
bool pci_bar_write(struct pci_function *fn, unsigned index, uint64_t offset, const void *data,
		   unsigned len);

/* Configuration space is little-endian, as is every host that can run this. */
static inline void pci_set16(uint8_t *field, uint16_t value)
{
	memcpy(field, &value, sizeof(value));
}

static inline void pci_set32(uint8_t *field, uint32_t value)
{
	memcpy(field, &value, sizeof(value));
}

static inline uint16_t pci_get16(const uint8_t *field)
{
	uint16_t value;

	memcpy(&value, field, sizeof(value));
	return value;
}

static inline uint32_t pci_get32(const uint8_t *field)
{
	uint32_t value;

	memcpy(&value, field, sizeof(value));
	return value;
}

#endif
