/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The address space: a type1 container with one group in it. Control context; knows nothing of
 * regions and interrupts.
 *
 * The kernel locks what is mapped, for as long as it is mapped; a list of ours says what that is,
 * so that unmapping is exact and an end leaves nothing behind.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "devices/common/log.h"
#include "vfio_explain.h"
#include "vfio_internal.h"

#define GROUP_TRIES   100
#define GROUP_WAIT_US 20000

static int refuse(const struct vfio_device *dev, int ret, const char *text)
{
	log_error("%s: %s", dev->bdf, text);
	return ret;
}

static int open_container(struct vfio_device *dev)
{
	char text[EXPLAIN_LEN];
	int error;

	dev->container_fd = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
	if (dev->container_fd < 0) {
		error = errno;
		vfio_explain_container(&vfio_real_places, error, text);
		return refuse(dev, -error, text);
	}
	if (ioctl(dev->container_fd, VFIO_GET_API_VERSION) != VFIO_API_VERSION)
		return refuse(dev, -EPROTO, "the kernel's VFIO is of a version not known here");
	if (ioctl(dev->container_fd, VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU) <= 0)
		return refuse(dev, -EOPNOTSUPP,
			      "VFIO cannot drive the IOMMU; as root: modprobe vfio_iommu_type1");
	return 0;
}

/*
 * A front end that lost its back end lets go of the doorbells a moment later, and until then the
 * group is taken: a back end that was started again at once has to wait for that.
 */
static int open_when_free(const char *path)
{
	unsigned tries;
	int fd;

	for (tries = 0; tries < GROUP_TRIES; tries++) {
		fd = open(path, O_RDWR | O_CLOEXEC);
		if (fd >= 0 || errno != EBUSY)
			break;
		usleep(GROUP_WAIT_US);
	}
	return fd;
}

static int open_group(struct vfio_device *dev, const struct sysfs_device *facts)
{
	struct vfio_group_status status = { .argsz = sizeof(status) };
	char path[32], text[EXPLAIN_LEN];
	int error;

	snprintf(path, sizeof(path), "/dev/vfio/%d", facts->group);
	dev->group_fd = open_when_free(path);
	if (dev->group_fd < 0) {
		error = errno;
		vfio_explain_group(&vfio_real_places, facts, error, text);
		return refuse(dev, -error, text);
	}
	if (ioctl(dev->group_fd, VFIO_GROUP_GET_STATUS, &status))
		return refuse(dev, -errno, "VFIO does not tell the state of its IOMMU group");
	if (!(status.flags & VFIO_GROUP_FLAGS_VIABLE)) {
		vfio_explain_not_viable(&vfio_real_places, facts, text);
		return refuse(dev, -EBUSY, text);
	}
	return 0;
}

static int explain_attach(const struct vfio_device *dev, int ret, const char *what)
{
	if (ret == -EPERM)
		return refuse(dev, ret,
			      "the machine cannot remap interrupts, so a device could forge them; "
			      "switch interrupt remapping on in the firmware's set-up, and take "
			      "intremap=off from the kernel's command line");
	log_error("%s: cannot %s: %s; the kernel's log (dmesg) may say more", dev->bdf, what,
		  strerror(-ret));
	return ret;
}

static int attach(struct vfio_device *dev)
{
	if (ioctl(dev->group_fd, VFIO_GROUP_SET_CONTAINER, &dev->container_fd))
		return explain_attach(dev, -errno, "put its group into an address space");
	if (ioctl(dev->container_fd, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU))
		return explain_attach(dev, -errno, "switch on its address space");
	return 0;
}

static int open_device(struct vfio_device *dev)
{
	int error;

	dev->fd = ioctl(dev->group_fd, VFIO_GROUP_GET_DEVICE_FD, dev->bdf);
	if (dev->fd >= 0)
		return 0;
	error = errno;
	if (error == EACCES || error == EINVAL)
		log_error("%s: VFIO does not hand it out: %s; if it is a virtual function, its "
			  "physical function must be bound to a driver of the kernel, not to "
			  "vfio-pci",
			  dev->bdf, strerror(error));
	else
		log_error("%s: VFIO does not hand it out: %s; the kernel's log (dmesg) may say "
			  "more",
			  dev->bdf, strerror(error));
	return -error;
}

/* An old kernel does not tell; then the errors of mapping have to. */
static int take_all_addresses(struct vfio_device *dev)
{
	dev->ranges = malloc(sizeof(*dev->ranges));
	if (!dev->ranges)
		return -ENOMEM;
	dev->ranges[0] = (struct vfio_dma_range){ 0, UINT64_MAX };
	dev->nr_ranges = 1;
	return 0;
}

static int copy_ranges(struct vfio_device *dev, const void *info, uint32_t size, uint32_t offset)
{
	const struct vfio_iommu_type1_info_cap_iova_range *cap = vfio_find_capability(
		info, size, offset, VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, sizeof(*cap));
	uint32_t room, i;

	if (!cap || !cap->nr_iovas)
		return take_all_addresses(dev);
	room = size - (uint32_t)((const char *)cap->iova_ranges - (const char *)info);
	if (cap->nr_iovas > room / sizeof(cap->iova_ranges[0]))
		return -EPROTO;
	dev->ranges = calloc(cap->nr_iovas, sizeof(*dev->ranges));
	if (!dev->ranges)
		return -ENOMEM;
	for (i = 0; i < cap->nr_iovas; i++)
		dev->ranges[i] = (struct vfio_dma_range){ cap->iova_ranges[i].start,
							  cap->iova_ranges[i].end };
	dev->nr_ranges = cap->nr_iovas;
	return 0;
}

static int read_ranges(struct vfio_device *dev)
{
	struct vfio_iommu_type1_info head = { .argsz = sizeof(head) }, *info;
	int ret;

	if (ioctl(dev->container_fd, VFIO_IOMMU_GET_INFO, &head))
		return -errno;
	if (!(head.flags & VFIO_IOMMU_INFO_CAPS) || head.argsz <= sizeof(head))
		return take_all_addresses(dev);
	info = calloc(1, head.argsz);
	if (!info)
		return -ENOMEM;
	info->argsz = head.argsz;
	if (ioctl(dev->container_fd, VFIO_IOMMU_GET_INFO, info))
		ret = -errno;
	else
		ret = copy_ranges(dev, info, head.argsz, info->cap_offset);
	free(info);
	return ret;
}

int vfio_space_open(struct vfio_device *dev, const struct sysfs_device *facts)
{
	struct rlimit limit;
	int ret;

	/* Who set the hard limit allows it; the soft one only protects from accidents. */
	if (!getrlimit(RLIMIT_MEMLOCK, &limit)) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_MEMLOCK, &limit);
	}
	ret = open_container(dev);
	if (!ret)
		ret = open_group(dev, facts);
	if (!ret)
		ret = attach(dev);
	if (ret)
		return ret;
	ret = read_ranges(dev);
	if (ret)
		return refuse(dev, ret, "VFIO does not tell which addresses its IOMMU takes");
	return open_device(dev);
}

void vfio_space_close(struct vfio_device *dev)
{
	vfio_dma_unmap_all(dev);
	if (dev->group_fd >= 0)
		close(dev->group_fd);
	if (dev->container_fd >= 0)
		close(dev->container_fd);
	dev->group_fd = -1;
	dev->container_fd = -1;
	free(dev->ranges);
	free(dev->mappings);
	dev->ranges = NULL;
	dev->mappings = NULL;
}

static bool translatable(const struct vfio_device *dev, uint64_t first, uint64_t last)
{
	unsigned i;

	for (i = 0; i < dev->nr_ranges; i++)
		if (first >= dev->ranges[i].first && last <= dev->ranges[i].last)
			return true;
	return false;
}

static bool overlaps(const struct vfio_device *dev, uint64_t first, uint64_t last)
{
	unsigned i;

	for (i = 0; i < dev->nr_mappings; i++) {
		const struct vfio_mapping *old = &dev->mappings[i];

		if (first <= old->iova + (old->size - 1) && last >= old->iova)
			return true;
	}
	return false;
}

static int make_room(struct vfio_device *dev)
{
	unsigned max = dev->max_mappings ? 2 * dev->max_mappings : 16;
	struct vfio_mapping *mappings;

	if (dev->nr_mappings < dev->max_mappings)
		return 0;
	mappings = reallocarray(dev->mappings, max, sizeof(*mappings));
	if (!mappings)
		return -ENOMEM;
	dev->mappings = mappings;
	dev->max_mappings = max;
	return 0;
}

int vfio_dma_map(struct vfio_device *dev, uint64_t iova, void *hva, uint64_t size)
{
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map),
		.flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
		.vaddr = (uintptr_t)hva,
		.iova = iova,
		.size = size,
	};
	uint64_t mask = (uint64_t)sysconf(_SC_PAGESIZE) - 1;
	int ret;

	if (!size || ((iova | size | map.vaddr) & mask) || size - 1 > UINT64_MAX - iova)
		return -EINVAL;
	if (!translatable(dev, iova, iova + (size - 1)))
		return -EINVAL;
	if (overlaps(dev, iova, iova + (size - 1)))
		return -EEXIST;
	ret = make_room(dev);
	if (ret)
		return ret;
	if (ioctl(dev->container_fd, VFIO_IOMMU_MAP_DMA, &map))
		return -errno;
	dev->mappings[dev->nr_mappings++] = (struct vfio_mapping){ iova, size };
	return 0;
}

static int unmap(const struct vfio_device *dev, const struct vfio_mapping *mapping)
{
	struct vfio_iommu_type1_dma_unmap request = {
		.argsz = sizeof(request),
		.iova = mapping->iova,
		.size = mapping->size,
	};

	if (ioctl(dev->container_fd, VFIO_IOMMU_UNMAP_DMA, &request))
		return -errno;
	return request.size == mapping->size ? 0 : -EIO;
}

int vfio_dma_unmap(struct vfio_device *dev, uint64_t iova, uint64_t size)
{
	unsigned i;
	int ret;

	for (i = 0; i < dev->nr_mappings; i++)
		if (dev->mappings[i].iova == iova && dev->mappings[i].size == size)
			break;
	if (i == dev->nr_mappings)
		return -ENOENT;
	ret = unmap(dev, &dev->mappings[i]);
	if (!ret)
		dev->mappings[i] = dev->mappings[--dev->nr_mappings];
	return ret;
}

void vfio_dma_unmap_all(struct vfio_device *dev)
{
	while (dev->nr_mappings) {
		const struct vfio_mapping *last = &dev->mappings[--dev->nr_mappings];
		int ret = unmap(dev, last);

		/* Cannot be: the kernel has what we mapped. Closing the container ends it. */
		if (ret)
			log_warn("%s: cannot unmap %" PRIu64 " bytes at %#" PRIx64 ": %s", dev->bdf,
				 last->size, last->iova, strerror(-ret));
	}
}

unsigned vfio_iova_ranges(const struct vfio_device *dev, const struct vfio_dma_range **ranges)
{
	*ranges = dev->ranges;
	return dev->nr_ranges;
}

unsigned vfio_dma_count(const struct vfio_device *dev, uint64_t *bytes)
{
	unsigned i;

	*bytes = 0;
	for (i = 0; i < dev->nr_mappings; i++)
		*bytes += dev->mappings[i].size;
	return dev->nr_mappings;
}

uint64_t vfio_memory_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_MEMLOCK, &limit) || limit.rlim_cur == RLIM_INFINITY)
		return UINT64_MAX;
	return limit.rlim_cur;
}

unsigned vfio_mapping_limit(void)
{
	FILE *file = fopen("/sys/module/vfio_iommu_type1/parameters/dma_entry_limit", "re");
	unsigned limit = 0;

	if (!file)
		return 0;
	if (fscanf(file, "%u", &limit) != 1)
		limit = 0;
	fclose(file);
	return limit;
}
