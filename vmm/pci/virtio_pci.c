/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The virtio-pci transport: its life, its register BAR, and the operations it gives to the device
 * model.
 *
 * Guest accesses come on vCPU threads and take the device's lock here; PCI callbacks come under the
 * bus's lock and take the device's lock second. Must not call the PCI bus with the device's lock
 * held. Registers are virtio_pci_common.c's, status and queues virtio_pci_status.c's, the notify
 * region virtio_pci_notify.c's, the capabilities virtio_pci_cap.c's.
 */
#include "virtio_pci.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#include "virtio_pci_internal.h"

#define VENDOR_VIRTIO       0x1af4
#define DEVICE_MODERN       0x1040
#define F_NOTIFICATION_DATA 38 /* not in the headers of every supported system */

uint64_t virtio_pci_features(void)
{
	/* Not ACCESS_PLATFORM: there is no IOMMU. Not SR_IOV, and nothing of the legacy interface.
	 */
	return 1ull << VIRTIO_RING_F_INDIRECT_DESC | 1ull << VIRTIO_RING_F_EVENT_IDX |
	       1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_F_RING_PACKED |
	       1ull << VIRTIO_F_IN_ORDER | 1ull << VIRTIO_F_ORDER_PLATFORM |
	       1ull << F_NOTIFICATION_DATA | 1ull << VIRTIO_F_RING_RESET;
}

static bool device_range(const struct virtio_pci *vp, uint64_t offset, unsigned len)
{
	uint32_t size = vp->dev->config_size;

	return offset >= DEVICE_OFFSET && len <= size && offset - DEVICE_OFFSET <= size - len;
}

static void device_read(struct virtio_pci *vp, uint32_t offset, void *data, unsigned len)
{
	int err = vp->dev->ops->config_read(vp->dev, offset, data, len);

	if (!err)
		return;
	memset(data, 0, len);
	report_limited(&vp->limit, "%s: configuration read at %u (%u bytes): %s", vp->dev->name,
		       offset, len, strerror(-err));
}

static void device_write(struct virtio_pci *vp, uint32_t offset, const void *data, unsigned len)
{
	int err = vp->dev->ops->config_write(vp->dev, offset, data, len);

	if (err)
		report_limited(&vp->limit, "%s: configuration write at %u (%u bytes): %s",
			       vp->dev->name, offset, len, strerror(-err));
}

static void registers_read(void *opaque, uint64_t offset, void *data, unsigned len)
{
	struct virtio_pci *vp = opaque;

	memset(data, 0, len);
	pthread_mutex_lock(&vp->dev->lock);
	if (offset < ISR_OFFSET) {
		virtio_pci_common_read(vp, offset - COMMON_OFFSET, data, len);
	} else if (offset == ISR_OFFSET) {
		memcpy(data, &vp->isr, 1);
		vp->isr = 0; /* 4.1.4.5.1: reading clears */
	} else if (device_range(vp, offset, len)) {
		device_read(vp, (uint32_t)(offset - DEVICE_OFFSET), data, len);
	}
	pthread_mutex_unlock(&vp->dev->lock);
}

static void registers_write(void *opaque, uint64_t offset, const void *data, unsigned len)
{
	struct virtio_pci *vp = opaque;

	pthread_mutex_lock(&vp->dev->lock);
	if (offset < ISR_OFFSET)
		virtio_pci_common_write(vp, offset - COMMON_OFFSET, data, len);
	else if (device_range(vp, offset, len))
		device_write(vp, (uint32_t)(offset - DEVICE_OFFSET), data, len);
	pthread_mutex_unlock(&vp->dev->lock);
}

static const struct bus_ops registers_ops = { .read = registers_read, .write = registers_write };

static struct virtio_pci *from_function(struct pci_function *fn)
{
	return (void *)((char *)fn - offsetof(struct virtio_pci, function));
}

static void config_read(struct pci_function *fn, unsigned offset, unsigned len)
{
	virtio_pci_window_read(from_function(fn), offset, len);
}

static void config_written(struct pci_function *fn, unsigned offset, unsigned len)
{
	struct virtio_pci *vp = from_function(fn);

	msix_config_written(&vp->msix, offset, len);
	virtio_pci_window_written(vp, offset, len);
}

static void bar_mapped(struct pci_function *fn, unsigned bar, uint64_t gpa)
{
	struct virtio_pci *vp = from_function(fn);

	if (bar != BAR_NOTIFY)
		return;
	pthread_mutex_lock(&vp->dev->lock);
	virtio_pci_notify_mapped(vp, gpa);
	pthread_mutex_unlock(&vp->dev->lock);
}

static void bar_unmapping(struct pci_function *fn, unsigned bar)
{
	struct virtio_pci *vp = from_function(fn);

	if (bar != BAR_NOTIFY)
		return;
	pthread_mutex_lock(&vp->dev->lock);
	virtio_pci_notify_unmapping(vp);
	pthread_mutex_unlock(&vp->dev->lock);
}

static void function_reset(struct pci_function *fn)
{
	struct virtio_pci *vp = from_function(fn);

	pthread_mutex_lock(&vp->dev->lock);
	virtio_pci_device_reset(vp);
	pthread_mutex_unlock(&vp->dev->lock);
	msix_reset(&vp->msix);
	virtio_pci_window_reset(vp);
}

static const struct pci_function_ops function_ops = {
	.config_read = config_read,
	.config_written = config_written,
	.bar_mapped = bar_mapped,
	.bar_unmapping = bar_unmapping,
	.reset = function_reset,
};

static int op_doorbell_map(void *transport, unsigned queue, void *hva)
{
	return virtio_pci_doorbell_map(transport, queue, hva);
}

static void op_doorbell_unmap(void *transport, unsigned queue)
{
	virtio_pci_doorbell_unmap(transport, queue);
}

static void op_config_changed(void *transport)
{
	struct virtio_pci *vp = transport;

	vp->config_generation++;
	virtio_pci_config_interrupt(vp);
}

static void op_needs_reset(void *transport)
{
	virtio_pci_needs_reset(transport);
}

static const struct virtio_transport_ops transport_ops = {
	.doorbell_map = op_doorbell_map,
	.doorbell_unmap = op_doorbell_unmap,
	.config_changed = op_config_changed,
	.needs_reset = op_needs_reset,
};

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static int make_eventfd(int *fd)
{
	*fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return *fd < 0 ? -errno : 0;
}

static void queues_done(struct virtio_pci *vp)
{
	unsigned i;

	for (i = 0; i < vp->dev->nr_queues; i++) {
		close_fd(&vp->dev->queues[i].kick_fd);
		close_fd(&vp->dev->queues[i].call_fd);
	}
	close_fd(&vp->config_fd);
	free(vp->queues);
}

static int queues_init(struct virtio_pci *vp)
{
	struct virtio_queue *q = vp->dev->queues;
	unsigned i;
	int err;

	vp->config_fd = -1;
	for (i = 0; i < vp->dev->nr_queues; i++)
		q[i].kick_fd = q[i].call_fd = -1;
	vp->queues = calloc(vp->dev->nr_queues, sizeof(*vp->queues));
	if (!vp->queues)
		return -ENOMEM;

	err = make_eventfd(&vp->config_fd);
	for (i = 0; i < vp->dev->nr_queues && !err; i++) {
		q[i].size = q[i].max_size;
		q[i].enabled = false;
		vp->queues[i].slot = -1;
		err = make_eventfd(&q[i].kick_fd);
		if (!err)
			err = make_eventfd(&q[i].call_fd);
		msix_source_init(&vp->queues[i].source, q[i].call_fd);
	}
	msix_source_init(&vp->config_source, vp->config_fd);
	if (err)
		queues_done(vp);
	return err;
}

static int function_init(struct virtio_pci *vp)
{
	struct virtio_device *dev = vp->dev;
	const struct pci_ids ids = {
		.vendor = VENDOR_VIRTIO,
		.device = DEVICE_MODERN + dev->device_id,
		.subsystem_vendor = VENDOR_VIRTIO,
		.subsystem = DEVICE_MODERN + dev->device_id,
		.revision = 1,
		.class_code = dev->pci_class,
	};
	int err;

	pci_function_init(&vp->function, dev->name, &ids, &function_ops);
	pci_bar_init(&vp->function, BAR_REGISTERS, REGISTERS_SIZE, false, &registers_ops, vp);
	pci_bar_init(&vp->function, BAR_NOTIFY, dev->nr_queues * NOTIFY_STRIDE, true,
		     &virtio_pci_notify_ops, vp);
	err = virtio_pci_caps_add(vp);
	if (err)
		return err;
	/* One vector per queue and one for configuration changes. */
	return msix_init(&vp->msix, vp->vm, &vp->function, BAR_MSIX, dev->nr_queues + 1);
}

int virtio_pci_new(struct vm *vm, struct pci_bus *bus, struct virtio_device *dev,
		   struct virtio_pci **out)
{
	struct virtio_pci *vp;
	int err;

	if (dev->config_size > DEVICE_MAX_SIZE || dev->nr_queues >= MSIX_MAX_VECTORS)
		return -EINVAL;
	vp = calloc(1, sizeof(*vp));
	if (!vp)
		return -ENOMEM;
	vp->vm = vm;
	vp->dev = dev;
	err = queues_init(vp);
	if (err)
		goto free_vp;
	err = function_init(vp);
	if (err)
		goto free_queues;
	dev->transport = vp;
	dev->transport_ops = &transport_ops;
	err = pci_function_add(bus, &vp->function);
	if (err)
		goto free_msix;
	*out = vp;
	return 0;

free_msix:
	msix_done(&vp->msix);
free_queues:
	queues_done(vp);
free_vp:
	free(vp);
	return err;
}

void virtio_pci_free(struct virtio_pci *vp)
{
	if (!vp)
		return;
	pci_function_remove(&vp->function);
	msix_done(&vp->msix);
	queues_done(vp);
	free(vp);
}
