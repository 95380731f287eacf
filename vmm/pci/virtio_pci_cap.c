/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The five capabilities of virtio-pci (virtio 1.2, 4.1.4), and the window of the fifth: access to
 * the content of a BAR through configuration space, for firmware that maps no BAR.
 *
 * Runs under the PCI bus's lock. The window calls the very handlers that a plain access to the BAR
 * would reach, so a doorbell rung through it lands where a store would.
 */
#include <errno.h>
#include <stddef.h>

#include <linux/pci_regs.h>
#include <linux/virtio_pci.h>

#include "virtio_pci_internal.h"

#define WINDOW_DATA offsetof(struct virtio_pci_cfg_cap, pci_cfg_data)

static int add(struct virtio_pci *vp, uint8_t type, unsigned len, uint8_t bar, uint32_t offset,
	       uint32_t length)
{
	struct pci_function *fn = &vp->function;
	int at = pci_capability_add(fn, PCI_CAP_ID_VNDR, len);
	uint8_t *cap;

	if (at < 0)
		return at;
	cap = fn->config + at;
	cap[offsetof(struct virtio_pci_cap, cap_len)] = (uint8_t)len;
	cap[offsetof(struct virtio_pci_cap, cfg_type)] = type;
	cap[offsetof(struct virtio_pci_cap, bar)] = bar;
	pci_set32(cap + offsetof(struct virtio_pci_cap, offset), offset);
	pci_set32(cap + offsetof(struct virtio_pci_cap, length), length);
	return at;
}

static int add_notify(struct virtio_pci *vp)
{
	int at = add(vp, VIRTIO_PCI_CAP_NOTIFY_CFG, sizeof(struct virtio_pci_notify_cap),
		     BAR_NOTIFY, 0, (uint32_t)(vp->dev->nr_queues * NOTIFY_STRIDE));

	if (at < 0)
		return at;
	pci_set32(vp->function.config + at +
			  offsetof(struct virtio_pci_notify_cap, notify_off_multiplier),
		  (uint32_t)NOTIFY_STRIDE);
	return 0;
}

static int add_window(struct virtio_pci *vp)
{
	uint8_t *writable;
	int at = add(vp, VIRTIO_PCI_CAP_PCI_CFG, sizeof(struct virtio_pci_cfg_cap), 0, 0, 0);

	if (at < 0)
		return at;
	vp->window = (unsigned)at;
	writable = vp->function.writable + at;
	writable[offsetof(struct virtio_pci_cap, bar)] = 0xff;
	pci_set32(writable + offsetof(struct virtio_pci_cap, offset), UINT32_MAX);
	pci_set32(writable + offsetof(struct virtio_pci_cap, length), UINT32_MAX);
	pci_set32(writable + WINDOW_DATA, UINT32_MAX);
	return 0;
}

int virtio_pci_caps_add(struct virtio_pci *vp)
{
	int at = add(vp, VIRTIO_PCI_CAP_COMMON_CFG, sizeof(struct virtio_pci_cap), BAR_REGISTERS,
		     COMMON_OFFSET, 64);

	if (at >= 0)
		at = add(vp, VIRTIO_PCI_CAP_ISR_CFG, sizeof(struct virtio_pci_cap), BAR_REGISTERS,
			 ISR_OFFSET, 1);
	/* A device without configuration fields has no structure for them (4.1.4.6). */
	if (at >= 0 && vp->dev->config_size)
		at = add(vp, VIRTIO_PCI_CAP_DEVICE_CFG, sizeof(struct virtio_pci_cap),
			 BAR_REGISTERS, DEVICE_OFFSET, vp->dev->config_size);
	if (at >= 0)
		at = add_notify(vp);
	if (at >= 0)
		at = add_window(vp);
	return at < 0 ? at : 0;
}

/* Does [offset, offset + len) of configuration space touch the window's data? */
static bool touches_data(const struct virtio_pci *vp, unsigned offset, unsigned len)
{
	unsigned data = vp->window + (unsigned)WINDOW_DATA;

	return offset < data + 4 && data < offset + len;
}

struct target {
	unsigned bar, len;
	uint32_t offset;
};

/* What the guest has selected. 4.1.4.9.1: 1, 2 or 4 bytes, offset a multiple of it. */
static bool target_get(const struct virtio_pci *vp, struct target *target)
{
	const uint8_t *cap = vp->function.config + vp->window;
	uint32_t len = pci_get32(cap + offsetof(struct virtio_pci_cap, length));

	target->bar = cap[offsetof(struct virtio_pci_cap, bar)];
	target->offset = pci_get32(cap + offsetof(struct virtio_pci_cap, offset));
	target->len = len;
	return (len == 1 || len == 2 || len == 4) && target->offset % len == 0;
}

void virtio_pci_window_read(struct virtio_pci *vp, unsigned offset, unsigned len)
{
	uint8_t *data = vp->function.config + vp->window + WINDOW_DATA;
	struct target target;
	uint8_t bytes[4];

	if (!touches_data(vp, offset, len) || !target_get(vp, &target))
		return;
	if (pci_bar_read(&vp->function, target.bar, target.offset, bytes, target.len))
		memcpy(data, bytes, target.len);
}

void virtio_pci_window_written(struct virtio_pci *vp, unsigned offset, unsigned len)
{
	const uint8_t *data = vp->function.config + vp->window + WINDOW_DATA;
	struct target target;
	uint8_t bytes[4];

	if (!touches_data(vp, offset, len) || !target_get(vp, &target))
		return;
	memcpy(bytes, data, target.len);
	pci_bar_write(&vp->function, target.bar, target.offset, bytes, target.len);
}

void virtio_pci_window_reset(struct virtio_pci *vp)
{
	uint8_t *cap = vp->function.config + vp->window;

	cap[offsetof(struct virtio_pci_cap, bar)] = 0;
	pci_set32(cap + offsetof(struct virtio_pci_cap, offset), 0);
	pci_set32(cap + offsetof(struct virtio_pci_cap, length), 0);
	pci_set32(cap + WINDOW_DATA, 0);
}
