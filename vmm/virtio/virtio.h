/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Between a virtio transport (virtio_pci.c) and a device model (device_blk.c, ...).
 *
 * Context: a device's lock (struct virtio_device.lock) is its control context. The transport holds
 * it around every call of virtio_device_ops, and the device model holds it around every call of
 * virtio_transport_ops. Nothing here is a hot path: kicks and interrupts are eventfds in KVM.
 */
#ifndef VMM_VIRTIO_H
#define VMM_VIRTIO_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct virtio_device;

/* What the driver has set up for a queue. Frozen from enable to reset (virtio 1.2, 4.1.4.3.2). */
struct virtio_queue {
	uint16_t max_size; /* the device model's choice, power of two */
	uint16_t size;
	bool enabled;
	uint64_t desc_gpa, driver_gpa, device_gpa;
	int kick_fd; /* eventfd: ioeventfd under the notify slot. Owned by the transport, lives as long as the device */
	int call_fd; /* eventfd: irqfd of the queue's vector. Likewise */
	uint64_t nr_vmm_kicks; /* notify writes that the VMM itself carried out, not KVM */
};

struct virtio_device_ops {
	/* Config space; the range lies inside config_size. Errors read as zeroes and are logged. */
	int (*config_read)(struct virtio_device *dev, uint32_t offset, void *data, uint32_t len);
	int (*config_write)(struct virtio_device *dev, uint32_t offset, const void *data, uint32_t len);
	/* The driver wrote FEATURES_OK with a subset of @features. Non-zero refuses it. */
	int (*set_features)(struct virtio_device *dev, uint64_t features);
	/* DRIVER_OK: start every enabled queue. An error makes the transport set NEEDS_RESET. */
	int (*start)(struct virtio_device *dev);
	/* Status was written as 0, or the machine resets. Always succeeds; idempotent. */
	void (*reset)(struct virtio_device *dev);
	/* VIRTIO_F_RING_RESET: one queue stops; and starts again on enable after DRIVER_OK. */
	int (*queue_stop)(struct virtio_device *dev, unsigned queue);
	int (*queue_start)(struct virtio_device *dev, unsigned queue);
	/* The guest moved or disabled what the notify region lies in: doorbells must be gone on return. */
	void (*withdraw_doorbells)(struct virtio_device *dev, const char *why);
};

struct virtio_transport_ops {
	/*
	 * Lay @page (one host page at @hva) over the notify slot of @queue. The ioeventfd stays.
	 * 0, -EOPNOTSUPP when slots are not a page apart, -EAGAIN when the notify region is not
	 * mapped by the guest at this moment, or KVM's error.
	 */
	int (*doorbell_map)(void *transport, unsigned queue, void *hva);
	/* Returns when no vCPU can reach the page any more. Idempotent. */
	void (*doorbell_unmap)(void *transport, unsigned queue);
	/* Configuration change interrupt; bumps config_generation. */
	void (*config_changed)(void *transport);
	/* Set DEVICE_NEEDS_RESET and interrupt. */
	void (*needs_reset)(void *transport);
};

struct virtio_device {
	/* Set by the device model before it is handed to the transport. */
	const struct virtio_device_ops *ops;
	const char *name; /* for messages and statistics, e.g. "blk0" */
	uint16_t device_id; /* VIRTIO_ID_* */
	uint32_t pci_class;
	uint64_t features; /* offered, VIRTIO_F_VERSION_1 included */
	uint32_t config_size;
	unsigned nr_queues;
	struct virtio_queue *queues; /* [nr_queues], owned by the device model */

	/* Set by the transport. */
	const struct virtio_transport_ops *transport_ops;
	void *transport;
	uint64_t driver_features; /* what the driver accepted */

	/* Recursive: a transport op may run inside a device op. The device model makes and destroys it. */
	pthread_mutex_t lock;
};

#endif
