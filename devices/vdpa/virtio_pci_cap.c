/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * From the bytes of PCI configuration space to the structures they point to (virtio 1.2, 4.1.4).
 * Pure: no device, no log. The bytes are the device's, and may say anything.
 */
#include <endian.h>
#include <errno.h>
#include <linux/pci_regs.h>
#include <string.h>

#include "virtio_pci_internal.h"

#define VIRTIO_VENDOR       0x1af4
#define VIRTIO_FIRST        0x1000
#define VIRTIO_FIRST_MODERN 0x1040
#define VIRTIO_LAST         0x107f

#define COMMON_LEN (VIRTIO_PCI_COMMON_Q_USEDHI + 4) /* of virtio 1.0 */
#define MSIX_ENTRY 16

struct parser {
	const uint8_t *config;
	const struct vfio_region *bars;
	struct virtio_pci_caps *caps;
	unsigned nr_vendor;
	bool has_msix, notify_is_mappable;
};

static uint16_t word(const uint8_t *config, unsigned at)
{
	uint16_t value;

	memcpy(&value, config + at, sizeof(value));
	return le16toh(value);
}

static uint32_t dword(const uint8_t *config, unsigned at)
{
	uint32_t value;

	memcpy(&value, config + at, sizeof(value));
	return le32toh(value);
}

static bool fits(const struct parser *p, const struct virtio_pci_structure *s)
{
	return s->bar < NR_BARS && s->length && s->length <= p->bars[s->bar].size &&
	       s->offset <= p->bars[s->bar].size - s->length;
}

static void take(struct parser *p, const struct virtio_pci_structure *s)
{
	if (fits(p, s) && p->caps->nr_taken < MAX_TAKEN)
		p->caps->taken[p->caps->nr_taken++] = *s;
}

/* 4.1.4: the driver should use the first instance of a type that it can use. */
static void choose(struct parser *p, struct virtio_pci_structure *chosen,
		   const struct virtio_pci_structure *s, uint64_t least)
{
	if (!chosen->length && s->length >= least && s->offset % 4 == 0 && fits(p, s))
		*chosen = *s;
}

/* The first whose doorbells could be handed out, else the first. */
static void choose_notify(struct parser *p, const struct virtio_pci_structure *s, unsigned at,
			  unsigned len)
{
	uint32_t multiplier;

	if (len < sizeof(struct virtio_pci_notify_cap) || s->length < 2 || s->offset % 2 ||
	    !fits(p, s))
		return;
	multiplier = dword(p->config, at + VIRTIO_PCI_NOTIFY_CAP_MULT);
	if (multiplier % 2)
		return;
	if (p->caps->notify.length && (p->notify_is_mappable || !p->bars[s->bar].mappable))
		return;
	p->caps->notify = *s;
	p->caps->notify_multiplier = multiplier;
	p->notify_is_mappable = p->bars[s->bar].mappable;
}

static void parse_vendor(struct parser *p, unsigned at)
{
	unsigned len = p->config[at + VIRTIO_PCI_CAP_LEN];
	struct virtio_pci_structure s;

	p->nr_vendor++;
	if (len < sizeof(struct virtio_pci_cap) || len > PCI_CONFIG_LEN - at)
		return;
	s.bar = p->config[at + VIRTIO_PCI_CAP_BAR];
	s.offset = dword(p->config, at + VIRTIO_PCI_CAP_OFFSET);
	s.length = dword(p->config, at + VIRTIO_PCI_CAP_LENGTH);
	switch (p->config[at + VIRTIO_PCI_CAP_CFG_TYPE]) {
	case VIRTIO_PCI_CAP_COMMON_CFG:
		choose(p, &p->caps->common, &s, COMMON_LEN);
		break;
	case VIRTIO_PCI_CAP_NOTIFY_CFG:
		choose_notify(p, &s, at, len);
		return;
	case VIRTIO_PCI_CAP_DEVICE_CFG:
		choose(p, &p->caps->device, &s, 1);
		break;
	case VIRTIO_PCI_CAP_PCI_CFG:
		return; /* a window to anywhere; its fields are the driver's */
	case VIRTIO_PCI_CAP_SHARED_MEMORY_CFG:
		if (len < sizeof(struct virtio_pci_cap64))
			return;
		s.offset |= (uint64_t)dword(p->config, at + 16) << 32;
		s.length |= (uint64_t)dword(p->config, at + 20) << 32;
		break;
	}
	take(p, &s);
}

static void parse_msix(struct parser *p, unsigned at)
{
	uint64_t vectors = (word(p->config, at + PCI_MSIX_FLAGS) & PCI_MSIX_FLAGS_QSIZE) + 1u;
	uint32_t table = dword(p->config, at + PCI_MSIX_TABLE);
	uint32_t pba = dword(p->config, at + PCI_MSIX_PBA);

	p->has_msix = true;
	take(p,
	     &(struct virtio_pci_structure){ table & PCI_MSIX_TABLE_BIR,
					     table & PCI_MSIX_TABLE_OFFSET, vectors * MSIX_ENTRY });
	take(p, &(struct virtio_pci_structure){ pba & PCI_MSIX_PBA_BIR, pba & PCI_MSIX_PBA_OFFSET,
						(vectors + 63) / 64 * 8 });
}

static void walk(struct parser *p)
{
	unsigned at = p->config[PCI_CAPABILITY_LIST] & ~3u;
	/* As many as fit: a longer list runs in a circle. */
	unsigned left = (PCI_CONFIG_LEN - PCI_STD_HEADER_SIZEOF) / 4;

	if (!(word(p->config, PCI_STATUS) & PCI_STATUS_CAP_LIST))
		return;
	while (at >= PCI_STD_HEADER_SIZEOF && left--) {
		if (p->config[at] == PCI_CAP_ID_VNDR)
			parse_vendor(p, at);
		else if (p->config[at] == PCI_CAP_ID_MSIX &&
			 at <= PCI_CONFIG_LEN - PCI_CAP_MSIX_SIZEOF)
			parse_msix(p, at);
		at = p->config[at + PCI_CAP_LIST_NEXT] & ~3u;
	}
}

static int refuse(const char **reason, int ret, const char *text)
{
	*reason = text;
	return ret;
}

static int check(const struct parser *p, bool transitional, const char **reason)
{
	if (transitional && !p->nr_vendor)
		return refuse(
			reason, -EOPNOTSUPP,
			"it is a legacy virtio device, which cannot be confined by an IOMMU; "
			"a modern one is needed (in QEMU: disable-legacy=on,iommu_platform=on)");
	if (!p->caps->common.length)
		return refuse(reason, -EBADMSG,
			      "expected a virtio capability for the common configuration, inside "
			      "of a BAR, found none; its firmware may need an update");
	if (!p->caps->notify.length)
		return refuse(reason, -EBADMSG,
			      "expected a virtio capability for notifications, inside of a BAR, "
			      "found none; its firmware may need an update");
	if (!p->has_msix)
		return refuse(reason, -ENOSPC,
			      "expected MSI-X interrupts, found none; the device must be set up "
			      "with one vector for each queue and one more (in QEMU: vectors=N)");
	return 0;
}

int virtio_pci_parse_caps(const uint8_t *config, const struct vfio_region *bars,
			  struct virtio_pci_caps *caps, const char **reason)
{
	unsigned vendor = word(config, PCI_VENDOR_ID), device = word(config, PCI_DEVICE_ID);
	bool transitional = device < VIRTIO_FIRST_MODERN;
	struct virtio_pci_caps found = { 0 };
	struct parser p = { .config = config, .bars = bars, .caps = &found };
	int ret;

	if (vendor != VIRTIO_VENDOR || device < VIRTIO_FIRST || device > VIRTIO_LAST)
		return refuse(reason, -ENXIO,
			      "it is no virtio device; \"lspci -D -d 1af4:\" lists those");
	found.device_id =
		transitional ? word(config, PCI_SUBSYSTEM_ID) : device - VIRTIO_FIRST_MODERN;
	walk(&p);
	ret = check(&p, transitional, reason);
	if (!ret)
		*caps = found;
	return ret;
}
