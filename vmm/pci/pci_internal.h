/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the files of the PCI bus share: the bus itself. Everything in it is under its lock, which
 * is taken at the entry points in pci.c and pci_host.c and nowhere else.
 */
#ifndef VMM_PCI_INTERNAL_H
#define VMM_PCI_INTERNAL_H

#include <pthread.h>

#include "pci.h"
#include "../kvm/vm.h"

struct pci_bus {
	struct vm *vm;
	pthread_mutex_t lock;
	struct pci_function *functions[PCI_MAX_FUNCTIONS];
	uint64_t next_gpa; /* of the 64-bit window */

	/* pci_host.c */
	struct pci_function host_bridge;
	uint32_t config_address;
	struct bus_region ports, ecam;
};

/* pci.c: [reg, reg + len) lies in a 4 KiB configuration space. The caller holds the lock. */
void pci_config_read(struct pci_bus *bus, unsigned devfn, unsigned reg, void *data, unsigned len);
void pci_config_write(struct pci_bus *bus, unsigned devfn, unsigned reg, const void *data,
		      unsigned len);

/* pci_bar.c */
int pci_bars_place(struct pci_bus *bus, struct pci_function *fn);
void pci_bars_load(struct pci_function *fn);
void pci_bars_update(struct pci_bus *bus);
void pci_bars_unmap(struct pci_function *fn);

/* pci_host.c */
int pci_host_init(struct pci_bus *bus);
void pci_host_done(struct pci_bus *bus);

#endif
