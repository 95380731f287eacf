/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the virtio_pci_*.c files share: the structures that the device's capabilities point to, the
 * state of the driver, and access to its registers.
 */
#ifndef VDPA_VIRTIO_PCI_INTERNAL_H
#define VDPA_VIRTIO_PCI_INTERNAL_H

#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_pci.h>

#include "virtio_pci.h"

#define PCI_CONFIG_LEN 256
#define NR_BARS        6

/* A range of a BAR, inside of it. */
struct virtio_pci_structure {
	unsigned bar;
	uint64_t offset;
	uint64_t length; /* 0: there is none */
};

/* More than capabilities of 16 bytes fit behind the header, and the two tables of MSI-X. */
#define MAX_TAKEN 16

struct virtio_pci_caps {
	unsigned device_id;
	struct virtio_pci_structure common, notify, device;
	uint32_t notify_multiplier;
	/* All ranges that are known to be something else than doorbells. */
	struct virtio_pci_structure taken[MAX_TAKEN];
	unsigned nr_taken;
};

/*
 * virtio_pci_parse_caps - find the structures in configuration space
 * @config: [PCI_CONFIG_LEN], a private copy.
 * @bars: [NR_BARS] the real size of each BAR, and whether it can be mapped.
 * @reason: on failure, what was found; a sentence's end, with what to do.
 *
 * -ENXIO no virtio device, -EOPNOTSUPP legacy only, -EBADMSG no or senseless capabilities.
 */
int virtio_pci_parse_caps(const uint8_t *config, const struct vfio_region *bars,
			  struct virtio_pci_caps *caps, const char **reason);

/* What is known of a queue with the features that were agreed last. */
struct virtio_pci_queue {
	uint64_t doorbell; /* offset in the notify BAR */
	uint16_t max_size; /* 0: not available */
};

struct virtio_pci {
	struct vfio_device *vfio;
	struct virtio_pci_caps caps;
	uint64_t features, agreed;
	unsigned nr_queues;
	struct virtio_pci_queue *queues;
};

/*
 * Registers, each in its own width (4.1.3.1). What cannot be read is all ones, as on the bus; what
 * cannot be written is lost. @at must lie inside of the structure.
 */
uint32_t virtio_pci_get(const struct virtio_pci *vp, const struct virtio_pci_structure *in,
			uint64_t at, unsigned width);
void virtio_pci_put(const struct virtio_pci *vp, const struct virtio_pci_structure *in, uint64_t at,
		    unsigned width, uint32_t value);

/* Registers of the common configuration by their names in <linux/virtio_pci.h>. */
uint8_t virtio_pci_get8(const struct virtio_pci *vp, unsigned at);
uint16_t virtio_pci_get16(const struct virtio_pci *vp, unsigned at);
uint32_t virtio_pci_get32(const struct virtio_pci *vp, unsigned at);
void virtio_pci_put8(const struct virtio_pci *vp, unsigned at, uint8_t value);
void virtio_pci_put16(const struct virtio_pci *vp, unsigned at, uint16_t value);
void virtio_pci_put32(const struct virtio_pci *vp, unsigned at, uint32_t value);

/* Wait (at most about a second) until a register reads @value. -ETIMEDOUT, -ENODEV. */
int virtio_pci_wait(const struct virtio_pci *vp, unsigned at, unsigned width, uint32_t value);

/* Learn each queue's size and doorbell anew. */
void virtio_pci_learn_queues(struct virtio_pci *vp);

#endif
