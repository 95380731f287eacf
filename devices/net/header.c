/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Checks of packet headers. Pure; any thread. Everything in a header is the guest's: it is compared with
 * the length of the packet and with what the guest accepted, never with its contents. Contents are
 * looked at only by whoever has to change them (offload.c), in a private copy.
 */
#include "header.h"

/* virtio 1.2, 5.1.6.2: segmentation asks for a checksum too, and for what was accepted. */
static bool gso_fits(const struct net_meta *meta, uint64_t features)
{
	bool ecn = meta->gso_type & VIRTIO_NET_HDR_GSO_ECN;

	if (!(meta->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) || !meta->gso_size)
		return false;
	if (ecn && !bf_has(features, VIRTIO_NET_F_HOST_ECN))
		return false;
	switch (meta->gso_type & ~VIRTIO_NET_HDR_GSO_ECN) {
	case VIRTIO_NET_HDR_GSO_TCPV4:
		return bf_has(features, VIRTIO_NET_F_HOST_TSO4);
	case VIRTIO_NET_HDR_GSO_TCPV6:
		return bf_has(features, VIRTIO_NET_F_HOST_TSO6);
	case NET_GSO_UDP_L4:
		return !ecn && bf_has(features, NET_F_HOST_USO);
	}
	return false;
}

bool net_meta_check(const struct virtio_net_hdr_v1 *raw, uint32_t len, uint64_t features,
		    struct net_meta *meta)
{
	/* A sender's DATA_VALID says nothing to us, and flags unknown are to be ignored. */
	struct net_meta m = { .flags = raw->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM,
			      .gso_type = raw->gso_type };

	if (m.flags) {
		m.csum_start = le16toh(raw->csum_start);
		m.csum_offset = le16toh(raw->csum_offset);
		if (!bf_has(features, VIRTIO_NET_F_CSUM) || m.csum_start < NET_ETH_LEN ||
		    (uint32_t)m.csum_start + m.csum_offset + 2 > len)
			return false;
	}
	if (m.gso_type != VIRTIO_NET_HDR_GSO_NONE) {
		m.gso_size = le16toh(raw->gso_size);
		m.hdr_len = le16toh(raw->hdr_len);
		if (!gso_fits(&m, features))
			return false;
		/* A hint, but one that receivers may refuse when it is impossible. */
		if (m.hdr_len > len)
			m.hdr_len = (uint16_t)len;
	}
	*meta = m;
	return true;
}

bool net_meta_accepted(const struct net_meta *meta, uint64_t features)
{
	if (meta->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM && !bf_has(features, VIRTIO_NET_F_GUEST_CSUM))
		return false;
	if (meta->gso_type & VIRTIO_NET_HDR_GSO_ECN && !bf_has(features, VIRTIO_NET_F_GUEST_ECN))
		return false;
	switch (meta->gso_type & ~VIRTIO_NET_HDR_GSO_ECN) {
	case VIRTIO_NET_HDR_GSO_NONE:
		return true;
	case VIRTIO_NET_HDR_GSO_TCPV4:
		return bf_has(features, VIRTIO_NET_F_GUEST_TSO4);
	case VIRTIO_NET_HDR_GSO_TCPV6:
		return bf_has(features, VIRTIO_NET_F_GUEST_TSO6);
	case NET_GSO_UDP_L4:
		/* The type does not say which; drivers accept both or none. */
		return bf_has(features, NET_F_GUEST_USO4) && bf_has(features, NET_F_GUEST_USO6);
	}
	return false;
}

void net_gather(void *to, const struct iovec *iov, unsigned nr_iov, size_t offset, size_t len)
{
	uint8_t *at = to;

	for (unsigned i = 0; i < nr_iov && len; i++) {
		size_t now = iov[i].iov_len;

		if (offset >= now) {
			offset -= now;
			continue;
		}
		now -= offset;
		now = now < len ? now : len;
		net_read(at, (uint8_t *)iov[i].iov_base + offset, now);
		at += now;
		len -= now;
		offset = 0;
	}
}
