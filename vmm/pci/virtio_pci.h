/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The virtio-pci transport, modern only (virtio 1.2, 4.1): a PCI function that shows one
 * struct virtio_device to the guest.
 */
#ifndef VMM_VIRTIO_PCI_H
#define VMM_VIRTIO_PCI_H

#include <stdint.h>

#include "pci.h"
#include "../virtio/virtio.h"

struct virtio_pci;

/*
 * Of the feature bits that belong to no kind of device (virtio 1.2, 2.2: 24 to 49), those that a
 * device may offer over this transport.
 */
uint64_t virtio_pci_features(void);

/*
 * Put @dev on the bus. Makes the queues' eventfds and fills in what virtio.h leaves to the
 * transport. -EINVAL too many queues or config space too large; -ENOMEM; -EMFILE; -ENOSPC bus full.
 */
int virtio_pci_new(struct vm *vm, struct pci_bus *bus, struct virtio_device *dev,
		   struct virtio_pci **out);
/* The device model must have stopped its queues: their eventfds are closed. NULL is fine. */
void virtio_pci_free(struct virtio_pci *vp);

/* Where the guest's notify write for @queue goes, for statistics; 0 while the guest maps it nowhere. */
uint64_t virtio_pci_notify_gpa(const struct virtio_pci *vp, unsigned queue);

#endif
