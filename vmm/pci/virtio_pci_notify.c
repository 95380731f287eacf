/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The notify region: one page per queue, and what a store into it reaches.
 *
 * Three layers, the first that exists wins:
 *   1. the doorbell page of the back end, a KVM memory slot over the queue's page: no exit at all;
 *   2. the ioeventfd at the beginning of the page: KVM signals the kick fd;
 *   3. notify_write() here: an exit to this process.
 * Layer 3 sees what the others cannot: the configuration access window, a store that raced with a
 * change of 1 or 2, an ioeventfd that KVM refused. It has the same effect as the layer that would
 * have been hit: the doorbell page if there is one, with the guest's own width, else the kick fd.
 *
 * Everything runs under the device's lock. Layers 1 and 2 exist only while the region is mapped.
 */
#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "../base/safe_store.h"
#include "virtio_pci_internal.h"

static uint64_t queue_gpa(const struct virtio_pci *vp, unsigned queue)
{
	return vp->notify_gpa + queue * NOTIFY_STRIDE;
}

static void notify_write(void *opaque, uint64_t offset, const void *data, unsigned len)
{
	struct virtio_pci *vp = opaque;
	uint64_t queue = offset / NOTIFY_STRIDE;
	uint64_t in_page = offset % NOTIFY_STRIDE;

	/* The region is a power of two, so it can be longer than its queues. */
	if (queue >= vp->dev->nr_queues || in_page + len > NOTIFY_STRIDE)
		return;
	pthread_mutex_lock(&vp->dev->lock);
	/* A page of hardware may have vanished; the eventfd is wired underneath. */
	if (vp->queues[queue].doorbell &&
	    safe_store((char *)vp->queues[queue].doorbell + in_page, data, len)) {
		vp->dev->queues[queue].nr_vmm_kicks++;
	} else if (in_page == 0) {
		eventfd_write(vp->dev->queues[queue].kick_fd, 1);
		vp->dev->queues[queue].nr_vmm_kicks++;
	}
	pthread_mutex_unlock(&vp->dev->lock);
}

/* Reading a doorbell means nothing; a mapped page is not shown to the emulated path. */
static void notify_read(void *opaque, uint64_t offset, void *data, unsigned len)
{
	(void)opaque;
	(void)offset;
	memset(data, 0, len);
}

const struct bus_ops virtio_pci_notify_ops = { .read = notify_read, .write = notify_write };

uint64_t virtio_pci_notify_gpa(const struct virtio_pci *vp, unsigned queue)
{
	return vp->notify_mapped ? queue_gpa(vp, queue) : 0;
}

void virtio_pci_notify_mapped(struct virtio_pci *vp, uint64_t gpa)
{
	unsigned i;
	int err;

	vp->notify_gpa = gpa;
	vp->notify_mapped = true;
	for (i = 0; i < vp->dev->nr_queues; i++) {
		err = vm_ioeventfd_add(vp->vm, queue_gpa(vp, i), vp->dev->queues[i].kick_fd);
		vp->queues[i].kernel_kick = !err;
		if (err)
			report_limited(&vp->limit,
				       "%s: queue %u is kicked through the VMM: KVM_IOEVENTFD: %s",
				       vp->dev->name, i, strerror(-err));
	}
}

/*
 * The region is about to disappear from the guest's map. Doorbells first: the device model takes
 * back its pages through doorbell_unmap. What it should have left behind goes all the same, since a
 * slot at an address the guest took away must not stay.
 */
void virtio_pci_notify_unmapping(struct virtio_pci *vp)
{
	unsigned i;

	if (!vp->notify_mapped)
		return;
	vp->dev->ops->withdraw_doorbells(vp->dev, "the guest moved or disabled the notify region");
	for (i = 0; i < vp->dev->nr_queues; i++) {
		virtio_pci_doorbell_unmap(vp, i);
		if (vp->queues[i].kernel_kick)
			vm_ioeventfd_del(vp->vm, queue_gpa(vp, i), vp->dev->queues[i].kick_fd);
		vp->queues[i].kernel_kick = false;
	}
	vp->notify_mapped = false;
}

int virtio_pci_doorbell_map(struct virtio_pci *vp, unsigned queue, void *hva)
{
	int slot;

	if (queue >= vp->dev->nr_queues)
		return -EINVAL;
	/* A page of another size cannot be laid over one queue's slot alone. */
	if (sysconf(_SC_PAGESIZE) != (long)NOTIFY_STRIDE)
		return -EOPNOTSUPP;
	if (!vp->notify_mapped)
		return -EAGAIN;
	virtio_pci_doorbell_unmap(vp, queue);
	slot = vm_slot_add(vp->vm, queue_gpa(vp, queue), NOTIFY_STRIDE, hva);
	if (slot < 0)
		return slot;
	vp->queues[queue].slot = slot;
	vp->queues[queue].doorbell = hva;
	return 0;
}

void virtio_pci_doorbell_unmap(struct virtio_pci *vp, unsigned queue)
{
	if (queue >= vp->dev->nr_queues || vp->queues[queue].slot < 0)
		return;
	vm_slot_del(vp->vm, vp->queues[queue].slot);
	vp->queues[queue].slot = -1;
	vp->queues[queue].doorbell = NULL;
}
