/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reads sysfs. Control context; opens nothing but text files, changes nothing. What a file says is
 * a fact of the moment: VFIO itself has the last word.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sysfs.h"

#define VIRTIO_VENDOR       0x1af4
#define VIRTIO_FIRST        0x1000
#define VIRTIO_FIRST_MODERN 0x1040
#define VIRTIO_LAST         0x107f

#define HEX "0123456789abcdefABCDEF"

static unsigned long hex_part(const char *text, size_t most, size_t *len)
{
	*len = strspn(text, HEX);
	return *len && *len <= most ? strtoul(text, NULL, 16) : ULONG_MAX;
}

int vfio_bdf_parse(const char *text, char bdf[VFIO_BDF_LEN])
{
	unsigned long domain = 0, bus, slot;
	size_t len;

	/* "1:2:3.4" has a domain, "2:3.4" has none. */
	if (strchr(text, ':') != strrchr(text, ':')) {
		domain = hex_part(text, 8, &len);
		if (domain == ULONG_MAX || text[len] != ':')
			return -EINVAL;
		text += len + 1;
	}
	bus = hex_part(text, 2, &len);
	if (bus > 0xff || text[len] != ':')
		return -EINVAL;
	text += len + 1;
	slot = hex_part(text, 2, &len);
	if (slot > 0x1f || text[len] != '.')
		return -EINVAL;
	text += len + 1;
	if (*text < '0' || *text > '7' || text[1])
		return -EINVAL;
	snprintf(bdf, VFIO_BDF_LEN, "%04lx:%02lx:%02lx.%c", domain & 0xffffffff, bus, slot, *text);
	return 0;
}

static __attribute__((format(printf, 2, 3))) int read_text(char text[SYSFS_NAME_LEN],
							   const char *format, ...)
{
	char path[PATH_MAX];
	va_list args;
	ssize_t got;
	int fd;

	va_start(args, format);
	vsnprintf(path, sizeof(path), format, args);
	va_end(args);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	got = read(fd, text, SYSFS_NAME_LEN - 1);
	if (got < 0)
		got = -errno;
	close(fd);
	if (got < 0)
		return (int)got;
	text[got] = '\0';
	text[strcspn(text, "\n")] = '\0';
	return 0;
}

static unsigned long read_number(const char *sys, const char *bdf, const char *name)
{
	char text[SYSFS_NAME_LEN];

	if (read_text(text, "%s/bus/pci/devices/%s/%s", sys, bdf, name))
		return 0;
	return strtoul(text, NULL, 16);
}

/* The last part of where a link points to; "" if there is no link. */
static void read_link(const char *sys, const char *bdf, const char *name, char text[SYSFS_NAME_LEN])
{
	char path[PATH_MAX], target[PATH_MAX];
	const char *last;
	ssize_t got;

	text[0] = '\0';
	snprintf(path, sizeof(path), "%s/bus/pci/devices/%s/%s", sys, bdf, name);
	got = readlink(path, target, sizeof(target) - 1);
	if (got <= 0)
		return;
	target[got] = '\0';
	last = strrchr(target, '/');
	snprintf(text, SYSFS_NAME_LEN, "%.*s", SYSFS_NAME_LEN - 1, last ? last + 1 : target);
}

static void read_group(const char *sys, struct sysfs_device *device)
{
	char text[SYSFS_NAME_LEN], *end;
	unsigned long group;

	device->group = -1;
	read_link(sys, device->bdf, "iommu_group", text);
	group = strtoul(text, &end, 10);
	if (!text[0] || *end || group > INT_MAX)
		return;
	device->group = (int)group;
	device->noiommu =
		!read_text(text, "%s/bus/pci/devices/%s/iommu_group/name", sys, device->bdf) &&
		!strcmp(text, "vfio-noiommu");
}

int sysfs_read_device(const char *sys, const char *bdf, struct sysfs_device *out)
{
	struct sysfs_device device = { .group = -1 };
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/bus/pci/devices/%s", sys, bdf);
	if (access(path, F_OK))
		return -ENODEV;
	snprintf(device.bdf, sizeof(device.bdf), "%s", bdf);
	device.vendor = (uint16_t)read_number(sys, bdf, "vendor");
	device.device = (uint16_t)read_number(sys, bdf, "device");
	device.subsystem_device = (uint16_t)read_number(sys, bdf, "subsystem_device");
	device.class = (uint32_t)read_number(sys, bdf, "class");
	read_link(sys, bdf, "driver", device.driver);
	read_group(sys, &device);
	*out = device;
	return 0;
}

bool sysfs_is_virtio(const struct sysfs_device *device)
{
	return device->vendor == VIRTIO_VENDOR && device->device >= VIRTIO_FIRST &&
	       device->device <= VIRTIO_LAST;
}

bool sysfs_is_transitional(const struct sysfs_device *device)
{
	return sysfs_is_virtio(device) && device->device < VIRTIO_FIRST_MODERN;
}

unsigned sysfs_virtio_type(const struct sysfs_device *device)
{
	if (!sysfs_is_virtio(device))
		return 0;
	if (sysfs_is_transitional(device))
		return device->subsystem_device;
	return device->device - VIRTIO_FIRST_MODERN;
}

bool sysfs_driver_is_vfio(const char *driver)
{
	size_t len = strlen(driver);

	return len >= 8 &&
	       (!strcmp(driver + len - 8, "vfio-pci") || !strcmp(driver + len - 8, "vfio_pci"));
}

bool sysfs_has_driver(const char *sys, const char *driver)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/bus/pci/drivers/%s", sys, driver);
	return !access(path, F_OK);
}

/* Drivers that leave DMA alone, and so do not stand in the way of VFIO. */
static bool is_harmless(const char *driver)
{
	return !driver[0] || sysfs_driver_is_vfio(driver) || !strcmp(driver, "pci-stub") ||
	       !strcmp(driver, "pcieport");
}

int sysfs_group_blocker(const char *sys, const struct sysfs_device *device,
			struct sysfs_device *other)
{
	struct sysfs_device found;
	char path[PATH_MAX];
	struct dirent *entry;
	int ret = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "%s/bus/pci/devices/%s/iommu_group/devices", sys, device->bdf);
	dir = opendir(path);
	if (!dir)
		return 0;
	while (!ret && (entry = readdir(dir))) {
		if (entry->d_name[0] == '.' || !strcmp(entry->d_name, device->bdf) ||
		    sysfs_read_device(sys, entry->d_name, &found) || is_harmless(found.driver))
			continue;
		*other = found;
		ret = 1;
	}
	closedir(dir);
	return ret;
}
