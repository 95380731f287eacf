/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a guest of the tests does that its busybox cannot: ethtool's two settings, and notify writes
 * by ways that no driver takes. Runs as root in a guest, linked statically; trusts its device.
 *
 *	guest-tool rings IFACE N            -G rx N tx N: the driver resets each queue by itself
 *	guest-tool pairs IFACE N            -L combined N
 *	guest-tool window BDF QUEUE TIMES   notify through the PCI configuration access window
 *	guest-tool store BDF QUEUE TIMES    notify by a store into the BAR, which no driver may hold unless the
 *	                                    kernel has iomem=relaxed; says how many ticks of the TSC it took
 *	guest-tool move BDF BYTES           the BAR with the notify region, under a driver that does not know
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/pci_regs.h>
#include <linux/sockios.h>
#include <linux/virtio_pci.h>
#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

static int fail(const char *what)
{
	fprintf(stderr, "guest-tool: %s: %s\n", what, strerror(errno));
	return 1;
}

static int ethtool(const char *iface, void *command)
{
	struct ifreq request = { 0 };
	int fd = socket(AF_INET, SOCK_DGRAM, 0), ret;

	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", iface);
	request.ifr_data = command;
	ret = ioctl(fd, SIOCETHTOOL, &request);
	close(fd);
	return ret;
}

static int rings(const char *iface, unsigned nr)
{
	struct ethtool_ringparam ring = { .cmd = ETHTOOL_GRINGPARAM };

	if (ethtool(iface, &ring))
		return fail("ETHTOOL_GRINGPARAM");
	printf("rings: %u %u of %u\n", ring.rx_pending, ring.tx_pending, ring.rx_max_pending);
	ring.cmd = ETHTOOL_SRINGPARAM;
	ring.rx_pending = ring.tx_pending = nr;
	return ethtool(iface, &ring) ? fail("ETHTOOL_SRINGPARAM") : 0;
}

static int pairs(const char *iface, unsigned nr)
{
	struct ethtool_channels channels = { .cmd = ETHTOOL_GCHANNELS };

	if (ethtool(iface, &channels))
		return fail("ETHTOOL_GCHANNELS");
	printf("pairs: %u of %u\n", channels.combined_count, channels.max_combined);
	channels.cmd = ETHTOOL_SCHANNELS;
	channels.combined_count = nr;
	return ethtool(iface, &channels) ? fail("ETHTOOL_SCHANNELS") : 0;
}

/* Where the device is notified, and where its window is. */
struct places {
	int config;
	uint8_t window; /* offset of the capability */
	uint8_t bar;
	uint32_t offset, multiplier;
};

static int find_places(const char *bdf, struct places *places)
{
	struct virtio_pci_notify_cap cap;
	char path[128];
	uint8_t at = 0;

	memset(places, 0, sizeof(*places));
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/config", bdf);
	places->config = open(path, O_RDWR | O_CLOEXEC);
	if (places->config < 0 || pread(places->config, &at, 1, PCI_CAPABILITY_LIST) != 1)
		return fail(path);
	while (at && pread(places->config, &cap, sizeof(cap), at) == sizeof(cap)) {
		if (cap.cap.cap_vndr == PCI_CAP_ID_VNDR &&
		    cap.cap.cfg_type == VIRTIO_PCI_CAP_NOTIFY_CFG) {
			places->bar = cap.cap.bar;
			places->offset = cap.cap.offset;
			places->multiplier = cap.notify_off_multiplier;
		} else if (cap.cap.cap_vndr == PCI_CAP_ID_VNDR &&
			   cap.cap.cfg_type == VIRTIO_PCI_CAP_PCI_CFG) {
			places->window = at;
		}
		at = cap.cap.cap_next;
	}
	errno = ENODEV;
	return places->window && places->multiplier ? 0 : fail("no notify region or no window");
}

/* belfry-vmm's queue_notify_off of a queue is its index. */
static uint32_t notify_offset(const struct places *places, uint16_t queue)
{
	return places->offset + queue * places->multiplier;
}

static bool set(const struct places *places, size_t field, const void *value, size_t len)
{
	return pwrite(places->config, value, len, (off_t)(places->window + field)) == (ssize_t)len;
}

static int by_window(const char *bdf, uint16_t queue, unsigned times)
{
	uint32_t offset, len = sizeof(queue);
	struct places places;

	if (find_places(bdf, &places))
		return 1;
	offset = notify_offset(&places, queue);
	if (!set(&places, offsetof(struct virtio_pci_cap, bar), &places.bar, 1) ||
	    !set(&places, offsetof(struct virtio_pci_cap, offset), &offset, sizeof(offset)) ||
	    !set(&places, offsetof(struct virtio_pci_cap, length), &len, sizeof(len)))
		return fail("the window's capability");
	while (times--)
		if (!set(&places, sizeof(struct virtio_pci_cap), &queue, sizeof(queue)))
			return fail("the window");
	return 0;
}

static int by_store(const char *bdf, uint16_t queue, unsigned times)
{
	const long page = sysconf(_SC_PAGESIZE);
	struct places places;
	char path[128];
	volatile uint16_t *doorbell;
	unsigned long long began;
	uint32_t offset;
	void *map;
	int fd;

	if (find_places(bdf, &places))
		return 1;
	offset = notify_offset(&places, queue);
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/resource%u", bdf, places.bar);
	fd = open(path, O_RDWR | O_SYNC | O_CLOEXEC);
	map = mmap(NULL, (size_t)page, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
		   offset & ~(page - 1));
	if (map == MAP_FAILED)
		return fail(path);
	doorbell = (void *)((char *)map + (offset & (page - 1)));
	began = __builtin_ia32_rdtsc();
	while (times--)
		*doorbell = queue;
	printf("%llu ticks\n", __builtin_ia32_rdtsc() - began);
	return 0;
}

static bool rw32(int fd, off_t at, uint32_t *value, bool write)
{
	return (write ? pwrite(fd, value, 4, at) : pread(fd, value, 4, at)) == 4;
}

static int move(const char *bdf, uint32_t bytes)
{
	uint32_t command, off, low, high;
	struct places places;
	uint64_t address;
	off_t at;

	if (find_places(bdf, &places))
		return 1;
	at = PCI_BASE_ADDRESS_0 + 4 * places.bar;
	if (!rw32(places.config, PCI_COMMAND, &command, false) ||
	    !rw32(places.config, at, &low, false) || !rw32(places.config, at + 4, &high, false))
		return fail("reading the BAR");
	off = command & ~(uint32_t)PCI_COMMAND_MEMORY;
	address = ((uint64_t)high << 32 | low) + (uint64_t)(int32_t)bytes;
	low = (uint32_t)address;
	high = (uint32_t)(address >> 32);
	if (!rw32(places.config, PCI_COMMAND, &off, true) || !rw32(places.config, at, &low, true) ||
	    !rw32(places.config, at + 4, &high, true) ||
	    !rw32(places.config, PCI_COMMAND, &command, true))
		return fail("writing the BAR");
	return 0;
}

int main(int argc, char *argv[])
{
	unsigned third = argc > 3 ? (unsigned)strtol(argv[3], NULL, 0) : 0;
	unsigned fourth = argc > 4 ? (unsigned)strtoul(argv[4], NULL, 0) : 1;

	if (argc == 4 && !strcmp(argv[1], "rings"))
		return rings(argv[2], third);
	if (argc == 4 && !strcmp(argv[1], "pairs"))
		return pairs(argv[2], third);
	if (argc == 4 && !strcmp(argv[1], "move"))
		return move(argv[2], third);
	if (argc == 5 && !strcmp(argv[1], "window"))
		return by_window(argv[2], (uint16_t)third, fourth);
	if (argc == 5 && !strcmp(argv[1], "store"))
		return by_store(argv[2], (uint16_t)third, fourth);
	fprintf(stderr, "usage: guest-tool rings|pairs IFACE N | move BDF BYTES | "
			"window|store BDF QUEUE TIMES\n");
	return 2;
}
