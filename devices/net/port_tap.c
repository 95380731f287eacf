/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * --tap: a TAP interface of the kernel, existing or made here, one descriptor for each queue pair. Packets
 * go with the virtio header that the kernel knows too (IFF_VNET_HDR), so that checksums and segmentation are left
 * to whoever does them last. Transmit and receive on the workers; everything else on control.
 *
 * To the kernel: out of the guest's buffers in one system call. What the guest changes meanwhile is its
 * own packet; the header in front is our checked copy. From the kernel: through a buffer of ours, since a
 * packet that finds too few guest buffers would be cut off by the kernel.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "devices/common/log.h"
#include "pair.h"

/* Linux 6.2 and later; not in the headers of every supported system. */
#define TUN_USO4 0x20
#define TUN_USO6 0x40

#define TAP_BATCH 64

struct tap {
	struct net_port port;
	char name[IFNAMSIZ];
	unsigned nr;
	int fds[]; /* [nr] */
};

/* Worker. One packet with its header; a full or dead interface loses it. */
static bool send_packet(int fd, const struct net_packet *packet)
{
	struct iovec iov[TX_PIECES + 1];
	struct virtio_net_hdr_v1 raw;

	net_meta_write(&packet->meta, 0, &raw);
	iov[0] = (struct iovec){ &raw, sizeof(raw) };
	memcpy(iov + 1, packet->iov, packet->nr_iov * sizeof(iov[0]));
	return writev(fd, iov, (int)packet->nr_iov + 1) >= 0;
}

static bool transmit(struct net_port *port, struct net_pair *pair)
{
	int fd = ((struct tap *)port)->fds[pair->idx];
	struct net_tx *tx = &pair->tx;
	unsigned i, nr = net_tx_pop(tx, TX_BATCH);
	uint64_t packets = 0, bytes = 0;

	net_tx_prefetch(tx, nr);
	for (i = 0; i < nr; i++) {
		struct net_packet packet;

		if (!net_tx_open(tx, &tx->chains[i], &packet))
			continue;
		if (!send_packet(fd, &packet)) {
			net_count_drops(&tx->counters, NET_DROP_PORT, 1);
			continue;
		}
		packets++;
		bytes += packet.len;
	}
	net_tx_finish(tx, nr, nr, packets, bytes);
	return nr;
}

/* The kernel's word; but DATA_VALID is not for a driver that knows nothing of checksums. */
static struct net_meta meta_of(const struct virtio_net_hdr_v1 *raw, uint64_t features)
{
	struct net_meta meta = { .flags = raw->flags,
				 .gso_type = raw->gso_type,
				 .hdr_len = le16toh(raw->hdr_len),
				 .gso_size = le16toh(raw->gso_size),
				 .csum_start = le16toh(raw->csum_start),
				 .csum_offset = le16toh(raw->csum_offset) };

	if (!bf_has(features, VIRTIO_NET_F_GUEST_CSUM))
		meta.flags &= VIRTIO_NET_HDR_F_NEEDS_CSUM;
	return meta;
}

/* 1 a packet was taken, 0 there is none. */
static int receive_one(int fd, struct net_pair *pair)
{
	struct virtio_net_hdr_v1 raw;
	struct iovec iov[2] = { { &raw, sizeof(raw) }, { pair->scratch, NET_PACKET_MAX } };
	struct net_packet packet = { .nr_iov = 1, .iov = iov + 1 };
	ssize_t len = readv(fd, iov, 2);

	if (len < (ssize_t)sizeof(raw) + NET_ETH_LEN)
		return len > 0;
	packet.len = (uint32_t)len - sizeof(raw);
	iov[1].iov_len = packet.len;
	packet.meta = meta_of(&raw, pair->rx.features);
	net_rx_deliver(&pair->rx, &packet, pair->scratch);
	return 1;
}

/* Until the guest has no buffers: then the kernel's queue waits, which is bounded too. */
static bool receive(struct net_port *port, struct net_pair *pair)
{
	int fd = ((struct tap *)port)->fds[pair->idx];
	unsigned nr = 0;

	while (nr < TAP_BATCH && net_backlog_empty(&pair->rx.backlog) && receive_one(fd, pair))
		nr++;
	return nr;
}

/*
 * The kernel spreads packets over all attached queues: those that the guest does not use must not be. With
 * one queue there is nothing to choose.
 */
static void attach_queue(struct tap *tap, unsigned idx, bool on)
{
	struct ifreq ifr = { .ifr_flags = (short)(on ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE) };

	/* Attached or detached already: EINVAL, and as it should be. */
	if (tap->nr > 1 && ioctl(tap->fds[idx], TUNSETQUEUE, &ifr) && errno != EINVAL)
		log_warn("%s: cannot %s queue %u: %s", tap->name, on ? "attach" : "detach", idx,
			 strerror(errno));
}

static void live(struct net_port *port, struct net_pair *pair, bool on)
{
	struct tap *tap = (void *)port;

	if (on ||
	    pair->idx) /* the first one stays: an interface without queues loses its carrier */
		attach_queue(tap, pair->idx, on);
	pair->rx_queue.source_fd = tap->fds[pair->idx];
}

static unsigned long offloads(uint64_t features)
{
	unsigned long flags = 0;

	if (!bf_has(features, VIRTIO_NET_F_GUEST_CSUM))
		return 0;
	flags |= TUN_F_CSUM;
	if (bf_has(features, VIRTIO_NET_F_GUEST_TSO4))
		flags |= TUN_F_TSO4;
	if (bf_has(features, VIRTIO_NET_F_GUEST_TSO6))
		flags |= TUN_F_TSO6;
	if (flags & (TUN_F_TSO4 | TUN_F_TSO6) && bf_has(features, VIRTIO_NET_F_GUEST_ECN))
		flags |= TUN_F_TSO_ECN;
	if ((features & NET_F_GUEST_USO) == NET_F_GUEST_USO)
		flags |= TUN_USO4 | TUN_USO6;
	return flags;
}

/* What the kernel may leave undone in packets for this guest. */
static void set_features(struct net_port *port, uint64_t features)
{
	struct tap *tap = (void *)port;

	if (ioctl(tap->fds[0], TUNSETOFFLOAD, offloads(features)))
		log_warn("%s: cannot set offloads: %s", tap->name, strerror(errno));
}

static void inject(struct net_port *port, const void *frame, uint32_t len)
{
	struct tap *tap = (void *)port;
	struct iovec iov = { (void *)(uintptr_t)frame, len };
	struct net_packet packet = { .len = len, .nr_iov = 1, .iov = &iov };

	if (!send_packet(tap->fds[0], &packet))
		log_warn("%s: cannot announce the guest: %s", tap->name, strerror(errno));
}

static void free_tap(struct net_port *port)
{
	struct tap *tap = (void *)port;

	if (!tap)
		return;
	for (unsigned i = 0; i < tap->nr; i++)
		if (tap->fds[i] >= 0)
			close(tap->fds[i]);
	free(tap);
}

static const struct net_port_ops ops = {
	.name = "tap",
	.transmit = transmit,
	.receive = receive,
	.live = live,
	.features = set_features,
	.inject = inject,
	.free = free_tap,
};

static void explain(const struct tap *tap, int error)
{
	const char *multi = tap->nr > 1 ? " multi_queue" : "";

	if (error == EPERM)
		log_error("--tap=%s: expected an interface of ours or the right to make one "
			  "(CAP_NET_ADMIN), found neither; as root: ip tuntap add dev %s mode tap "
			  "user %u%s",
			  tap->name, tap->name, (unsigned)geteuid(), multi);
	else if (error == EBUSY)
		log_error("--tap=%s: somebody else has the interface open", tap->name);
	else if (error == EINVAL && if_nametoindex(tap->name))
		log_error("--tap=%s: expected a TAP interface made with%s multi_queue, found "
			  "something else; 'ip -d link show %s' tells what it is",
			  tap->name, tap->nr > 1 ? "" : "out", tap->name);
	else
		log_error("--tap=%s: %s", tap->name, strerror(error));
}

static int open_queue(struct tap *tap, int *fd)
{
	struct ifreq ifr = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
	int len = sizeof(struct virtio_net_hdr_v1), little = 1;

	*fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (*fd < 0) {
		log_error("--tap=%s: /dev/net/tun: %s; 'modprobe tun', or give access to it",
			  tap->name, strerror(errno));
		return -errno;
	}
	if (tap->nr > 1)
		ifr.ifr_flags |= IFF_MULTI_QUEUE;
	memcpy(ifr.ifr_name, tap->name, IFNAMSIZ);
	if (ioctl(*fd, TUNSETIFF, &ifr)) {
		explain(tap, errno);
		return -errno;
	}
	if (ioctl(*fd, TUNSETVNETHDRSZ, &len) || ioctl(*fd, TUNSETVNETLE, &little)) {
		log_error("--tap=%s: the kernel does not know the header of virtio 1: %s",
			  tap->name, strerror(errno));
		return -errno;
	}
	return 0;
}

int port_tap_new(const char *name, unsigned queues, struct net_port **port)
{
	struct tap *tap;
	int ret = 0;

	if (strlen(name) >= IFNAMSIZ) {
		log_error("--tap: expected a name of at most %d characters, found %zu",
			  IFNAMSIZ - 1, strlen(name));
		return -EINVAL;
	}
	tap = calloc(1, sizeof(*tap) + queues * sizeof(tap->fds[0]));
	if (!tap)
		return -ENOMEM;
	memcpy(tap->name, name, strlen(name));
	tap->port.ops = &ops;
	tap->nr = queues;
	for (unsigned i = 0; i < queues; i++)
		tap->fds[i] = -1;
	for (unsigned i = 0; i < queues && !ret; i++)
		ret = open_queue(tap, &tap->fds[i]);
	if (ret) {
		free_tap(&tap->port);
		return ret;
	}
	tap->port.features = NET_F_HOST_OFFLOADS | NET_F_GUEST_OFFLOADS;
	if (ioctl(tap->fds[0], TUNSETOFFLOAD, TUN_F_CSUM | TUN_USO4 | TUN_USO6))
		tap->port.features &= ~(NET_F_GUEST_USO | bf_bit(NET_F_HOST_USO));
	set_features(&tap->port, 0);
	for (unsigned i = 1; i < queues; i++)
		attach_queue(tap, i, false);
	*port = &tap->port;
	return 0;
}
