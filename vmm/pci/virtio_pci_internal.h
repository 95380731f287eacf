/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the files of the virtio-pci transport share. Everything below is under the device's lock,
 * except where said otherwise.
 *
 *   BAR 0  registers: common configuration, ISR status, device configuration, a page each
 *   BAR 2  MSI-X table and pending bits
 *   BAR 4  notify region: one page per queue, nothing but the doorbell in it
 */
#ifndef VMM_VIRTIO_PCI_INTERNAL_H
#define VMM_VIRTIO_PCI_INTERNAL_H

#include "msix.h"
#include "virtio_pci.h"
#include "../kvm/vm.h"

#define BAR_REGISTERS 0
#define BAR_MSIX      2
#define BAR_NOTIFY    4

#define COMMON_OFFSET                0x0000
#define ISR_OFFSET                   0x1000
#define DEVICE_OFFSET                0x2000
#define REGISTERS_SIZE               0x4000
#define DEVICE_MAX_SIZE              0x1000
#define NOTIFY_STRIDE                4096ull
#define VIRTIO_PCI_ISR_CONFIG_CHANGE 0x2

struct virtio_pci_queue {
	struct msix_source source; /* of call_fd */
	void *doorbell;            /* page laid over the notify slot, NULL: none */
	int slot;                  /* KVM memory slot of it, -1: none */
	bool kernel_kick;          /* ioeventfd registered */
};

struct virtio_pci {
	struct vm *vm;
	struct virtio_device *dev;
	struct pci_function function; /* config[]: the PCI bus's lock */
	struct msix msix;             /* a lock of its own */
	unsigned window;              /* offset of the configuration access capability */

	uint32_t device_feature_select, driver_feature_select, queue_select;
	uint64_t driver_features; /* as written, not yet accepted */
	uint8_t status, isr, config_generation;
	int config_fd; /* eventfd of the configuration change interrupt */
	struct msix_source config_source;

	bool notify_mapped;
	uint64_t notify_gpa; /* valid while notify_mapped */
	struct virtio_pci_queue *queues;
	struct report_limit limit;
};

/* virtio_pci_common.c */
void virtio_pci_common_read(struct virtio_pci *vp, uint64_t offset, void *data, unsigned len);
void virtio_pci_common_write(struct virtio_pci *vp, uint64_t offset, const void *data,
			     unsigned len);

/* virtio_pci_status.c */
void virtio_pci_status_write(struct virtio_pci *vp, uint8_t value);
void virtio_pci_queue_enable(struct virtio_pci *vp, unsigned queue);
void virtio_pci_queue_reset(struct virtio_pci *vp, unsigned queue);
void virtio_pci_device_reset(struct virtio_pci *vp);
void virtio_pci_needs_reset(struct virtio_pci *vp);
void virtio_pci_config_interrupt(struct virtio_pci *vp);

/* virtio_pci_notify.c */
extern const struct bus_ops virtio_pci_notify_ops;
void virtio_pci_notify_mapped(struct virtio_pci *vp, uint64_t gpa);
void virtio_pci_notify_unmapping(struct virtio_pci *vp);
int virtio_pci_doorbell_map(struct virtio_pci *vp, unsigned queue, void *hva);
void virtio_pci_doorbell_unmap(struct virtio_pci *vp, unsigned queue);

/* virtio_pci_cap.c; all under the PCI bus's lock, not the device's */
int virtio_pci_caps_add(struct virtio_pci *vp);
void virtio_pci_window_read(struct virtio_pci *vp, unsigned offset, unsigned len);
void virtio_pci_window_written(struct virtio_pci *vp, unsigned offset, unsigned len);
void virtio_pci_window_reset(struct virtio_pci *vp);

#endif
