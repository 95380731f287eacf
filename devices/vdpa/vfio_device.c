/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The device behind a VFIO fd: opening and closing in order, regions, interrupts, reset. What is
 * the same for every kind of address space. Control context; region reads and writes from any.
 */
#include <errno.h>
#include <linux/pci_regs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "devices/common/log.h"
#include "vfio_explain.h"
#include "vfio_internal.h"

const void *vfio_find_capability(const void *answer, uint32_t size, uint32_t offset, uint16_t id,
				 uint32_t len)
{
	struct vfio_info_cap_header head;
	unsigned steps;

	/* A chain without a loop has no more links than fit. */
	for (steps = size / sizeof(head); offset && steps; steps--) {
		if (offset > size || size - offset < sizeof(head))
			return NULL;
		memcpy(&head, (const char *)answer + offset, sizeof(head));
		if (head.id == id)
			return size - offset >= len ? (const char *)answer + offset : NULL;
		offset = head.next;
	}
	return NULL;
}

static int copy_areas(struct vfio_window *window, const void *answer, uint32_t size,
		      uint32_t offset)
{
	const struct vfio_region_info_cap_sparse_mmap *cap = vfio_find_capability(
		answer, size, offset, VFIO_REGION_INFO_CAP_SPARSE_MMAP, sizeof(*cap));
	uint32_t room, i;

	if (!cap)
		return 0;
	room = size - (uint32_t)((const char *)cap->areas - (const char *)answer);
	if (cap->nr_areas > room / sizeof(cap->areas[0]))
		return -EPROTO;
	window->areas = calloc(cap->nr_areas + 1, sizeof(*window->areas));
	if (!window->areas)
		return -ENOMEM;
	for (i = 0; i < cap->nr_areas; i++)
		window->areas[i] = (struct vfio_area){ cap->areas[i].offset, cap->areas[i].size };
	window->nr_areas = cap->nr_areas;
	window->sparse = true;
	return 0;
}

/* The same question once more, with room for the capabilities of the answer. */
static int read_areas(const struct vfio_device *dev, struct vfio_window *window,
		      const struct vfio_region_info *head)
{
	struct vfio_region_info *info;
	int ret;

	if (!(head->flags & VFIO_REGION_INFO_FLAG_CAPS) || head->argsz <= sizeof(*head))
		return 0;
	info = calloc(1, head->argsz);
	if (!info)
		return -ENOMEM;
	info->argsz = head->argsz;
	info->index = head->index;
	if (ioctl(dev->fd, VFIO_DEVICE_GET_REGION_INFO, info))
		ret = -errno;
	else
		ret = copy_areas(window, info, head->argsz, info->cap_offset);
	free(info);
	return ret;
}

static int read_region(struct vfio_device *dev, unsigned index)
{
	struct vfio_region_info info = { .argsz = sizeof(info), .index = index };
	struct vfio_window *window = &dev->windows[index];

	/* An index that this device does not have (VGA) is refused. */
	if (ioctl(dev->fd, VFIO_DEVICE_GET_REGION_INFO, &info))
		return errno == EINVAL ? 0 : -errno;
	window->region.size = info.size;
	window->region.offset = info.offset;
	window->region.mappable = info.flags & VFIO_REGION_INFO_FLAG_MMAP;
	return window->region.mappable ? read_areas(dev, window, &info) : 0;
}

static int read_vectors(struct vfio_device *dev)
{
	struct vfio_irq_info info = { .argsz = sizeof(info), .index = VFIO_PCI_MSIX_IRQ_INDEX };

	if (ioctl(dev->fd, VFIO_DEVICE_GET_IRQ_INFO, &info))
		return -errno;
	if ((info.flags & VFIO_IRQ_INFO_EVENTFD) && info.count <= PCI_MSIX_FLAGS_QSIZE + 1)
		dev->nr_vectors = info.count;
	return 0;
}

static int learn(struct vfio_device *dev)
{
	struct vfio_device_info info = { .argsz = sizeof(info) };
	unsigned i;
	int ret;

	if (ioctl(dev->fd, VFIO_DEVICE_GET_INFO, &info))
		return -errno;
	if (!(info.flags & VFIO_DEVICE_FLAGS_PCI) || info.num_regions < VFIO_PCI_NUM_REGIONS ||
	    info.num_irqs <= VFIO_PCI_REQ_IRQ_INDEX)
		return -EPROTO;
	dev->can_reset = info.flags & VFIO_DEVICE_FLAGS_RESET;
	for (i = 0; i < VFIO_PCI_NUM_REGIONS; i++) {
		ret = read_region(dev, i);
		if (ret)
			return ret;
	}
	return read_vectors(dev);
}

/* Bus master: the device may start memory accesses. Its registers answer in any case. */
static int set_bus_master(struct vfio_device *dev, bool on)
{
	uint16_t command;
	int ret;

	ret = vfio_read(dev, VFIO_PCI_CONFIG_REGION_INDEX, PCI_COMMAND, &command, sizeof(command));
	if (ret)
		return ret;
	command |= PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_INTX_DISABLE;
	command &= (uint16_t)~PCI_COMMAND_MASTER;
	if (on)
		command |= PCI_COMMAND_MASTER;
	return vfio_write(dev, VFIO_PCI_CONFIG_REGION_INDEX, PCI_COMMAND, &command,
			  sizeof(command));
}

static int wake_up(struct vfio_device *dev)
{
	int ret = learn(dev);

	if (!ret) {
		ret = vfio_reset(dev);
		/* Then there was that of the kernel when it opened, and virtio's own comes. */
		if (ret == -ENOTTY || ret == -EAGAIN)
			ret = 0;
	}
	if (!ret)
		ret = set_bus_master(dev, true);
	if (ret)
		log_error("%s: the device does not answer as a PCI device should: %s; the kernel's "
			  "log (dmesg) may say more",
			  dev->bdf, strerror(-ret));
	return ret;
}

int vfio_open(const char *text, struct vfio_device **out)
{
	char bdf[VFIO_BDF_LEN], why[EXPLAIN_LEN];
	struct sysfs_device facts;
	struct vfio_device *dev;
	int ret;

	ret = vfio_bdf_parse(text, bdf);
	if (ret) {
		log_error("expected a PCI address like 0000:01:00.0 or 01:00.0, found \"%s\"; "
			  "\"lspci -D -d 1af4:\" lists the virtio devices",
			  text);
		return ret;
	}
	ret = vfio_explain_device(&vfio_real_places, bdf, &facts, why);
	if (ret) {
		log_error("%s: %s", bdf, why);
		return ret;
	}
	dev = calloc(1, sizeof(*dev));
	if (!dev)
		return -ENOMEM;
	memcpy(dev->bdf, bdf, sizeof(bdf));
	dev->fd = dev->container_fd = dev->group_fd = -1;
	ret = vfio_space_open(dev, &facts);
	if (!ret)
		ret = wake_up(dev);
	if (ret) {
		vfio_close(dev);
		return ret;
	}
	*out = dev;
	return 0;
}

/*
 * The order: no memory access any more, whatever the device was doing; then forget what it was
 * doing; then no interrupt; then the memory is unlocked; then the device is given back.
 */
void vfio_close(struct vfio_device *dev)
{
	unsigned i;

	if (!dev)
		return;
	if (dev->fd >= 0) {
		/* Neither can fail but for a device that is gone already. */
		set_bus_master(dev, false);
		vfio_reset(dev);
		vfio_irq_disable(dev);
		vfio_set_request_fd(dev, -1);
		vfio_dma_unmap_all(dev);
		close(dev->fd);
	}
	vfio_space_close(dev);
	for (i = 0; i < VFIO_PCI_NUM_REGIONS; i++)
		free(dev->windows[i].areas);
	free(dev);
}

int vfio_fd(const struct vfio_device *dev)
{
	return dev->fd;
}

const char *vfio_name(const struct vfio_device *dev)
{
	return dev->bdf;
}

int vfio_region(const struct vfio_device *dev, unsigned index, struct vfio_region *region)
{
	if (index >= VFIO_PCI_NUM_REGIONS)
		return -EINVAL;
	*region = dev->windows[index].region;
	return 0;
}

static bool inside(const struct vfio_device *dev, unsigned index, uint64_t offset, uint64_t len)
{
	uint64_t size = index < VFIO_PCI_NUM_REGIONS ? dev->windows[index].region.size : 0;

	return len <= size && offset <= size - len;
}

int vfio_read(const struct vfio_device *dev, unsigned index, uint64_t offset, void *data,
	      size_t len)
{
	ssize_t got;

	if (!inside(dev, index, offset, len))
		return -EINVAL;
	do
		got = pread(dev->fd, data, len,
			    (off_t)(dev->windows[index].region.offset + offset));
	while (got < 0 && errno == EINTR);
	return got == (ssize_t)len ? 0 : -EIO;
}

int vfio_write(const struct vfio_device *dev, unsigned index, uint64_t offset, const void *data,
	       size_t len)
{
	ssize_t put;

	if (!inside(dev, index, offset, len))
		return -EINVAL;
	do
		put = pwrite(dev->fd, data, len,
			     (off_t)(dev->windows[index].region.offset + offset));
	while (put < 0 && errno == EINTR);
	return put == (ssize_t)len ? 0 : -EIO;
}

bool vfio_can_map(const struct vfio_device *dev, unsigned index, uint64_t offset, uint64_t len)
{
	uint64_t mask = (uint64_t)sysconf(_SC_PAGESIZE) - 1;
	const struct vfio_window *window;
	unsigned i;

	if (!inside(dev, index, offset, len) || ((offset | len) & mask))
		return false;
	window = &dev->windows[index];
	if (!window->region.mappable || !window->sparse)
		return window->region.mappable;
	for (i = 0; i < window->nr_areas; i++) {
		const struct vfio_area *area = &window->areas[i];

		if (offset >= area->offset && len <= area->size &&
		    offset - area->offset <= area->size - len)
			return true;
	}
	return false;
}

int vfio_reset(struct vfio_device *dev)
{
	if (!dev->can_reset)
		return -ENOTTY;
	return ioctl(dev->fd, VFIO_DEVICE_RESET) ? -errno : 0;
}

unsigned vfio_nr_vectors(const struct vfio_device *dev)
{
	return dev->nr_vectors;
}

/* @fds: NULL switches all interrupts of @index off. Positive: there are only so many vectors. */
static int set_irqs(struct vfio_device *dev, unsigned index, unsigned start, const int32_t *fds,
		    unsigned count)
{
	size_t len = sizeof(struct vfio_irq_set) + count * sizeof(*fds);
	struct vfio_irq_set *set = calloc(1, len);
	int ret;

	if (!set)
		return -ENOMEM;
	set->argsz = (uint32_t)len;
	set->flags = VFIO_IRQ_SET_ACTION_TRIGGER |
		     (fds ? VFIO_IRQ_SET_DATA_EVENTFD : VFIO_IRQ_SET_DATA_NONE);
	set->index = index;
	set->start = start;
	set->count = count;
	if (fds)
		memcpy(set->data, fds, count * sizeof(*fds));
	ret = ioctl(dev->fd, VFIO_DEVICE_SET_IRQS, set);
	if (ret < 0)
		ret = -errno;
	free(set);
	return ret;
}

static int enable_vectors(struct vfio_device *dev, unsigned count)
{
	int32_t *fds = malloc(count * sizeof(*fds));
	int ret;

	if (!fds)
		return -ENOMEM;
	memset(fds, -1, count * sizeof(*fds));
	ret = set_irqs(dev, VFIO_PCI_MSIX_IRQ_INDEX, 0, fds, count);
	free(fds);
	return ret;
}

int vfio_irq_enable(struct vfio_device *dev)
{
	unsigned count = dev->nr_vectors;
	int ret;

	if (dev->irqs_on)
		return 0;
	if (!count)
		return -ENOSPC;
	ret = enable_vectors(dev, count);
	if (ret > 0 && (unsigned)ret < count) {
		count = (unsigned)ret;
		ret = enable_vectors(dev, count);
	}
	if (ret)
		return ret < 0 ? ret : -ENOSPC;
	dev->nr_vectors = count;
	dev->irqs_on = true;
	return 0;
}

void vfio_irq_disable(struct vfio_device *dev)
{
	if (dev->irqs_on)
		set_irqs(dev, VFIO_PCI_MSIX_IRQ_INDEX, 0, NULL, 0);
	dev->irqs_on = false;
}

int vfio_irq_set(struct vfio_device *dev, unsigned vector, int eventfd)
{
	int32_t fd = eventfd;

	if (!dev->irqs_on || vector >= dev->nr_vectors)
		return -EINVAL;
	return set_irqs(dev, VFIO_PCI_MSIX_IRQ_INDEX, vector, &fd, 1);
}

int vfio_set_request_fd(struct vfio_device *dev, int eventfd)
{
	int32_t fd = eventfd;

	return set_irqs(dev, VFIO_PCI_REQ_IRQ_INDEX, 0, &fd, 1);
}
