/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Vrings: when one runs, and the hand-over to the device and back.
 *
 * Control context. A vring runs while it is started and everything it needs is there, and enabled,
 * unless the device knows what to do with a disabled one; each handler that changes one of these calls
 * bf_vring_start() or bf_vring_stop() and need not know the rest. The device has the virtqueue exactly
 * between its vring_start and vring_stop operations. Must not change a ring's configuration while it
 * runs.
 */
#include "backend.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <sys/stat.h>

#include "../base/fd.h"

/*
 * A device that serves its rings has the disabled ones too: they have to be set up before it starts. And
 * so has one that is to process them "without causing any side effects" ("Ring states").
 */
static bool has_disabled(const struct bf_backend *be)
{
	return be->offload || be->ops->vring_enable;
}

static bool ready(const struct bf_backend *be, const struct bf_vring *vring)
{
	return vring->started && (vring->enabled || has_disabled(be)) && vring->addressed &&
	       vring->num && be->memory;
}

uint32_t bf_vring_base(const struct bf_backend *be, unsigned queue)
{
	const struct bf_vring *vring = &be->vrings[queue];

	if (!vring->based && bf_has(be->agreed.features, VIRTIO_F_RING_PACKED))
		return BF_VIRTQ_PACKED_BASE;
	return vring->base;
}

void bf_vring_describe(const struct bf_backend *be, unsigned queue, struct bf_virtq_setup *setup,
		       struct bf_virtq_extras *extras)
{
	const struct bf_vring *vring = &be->vrings[queue];

	*setup = (struct bf_virtq_setup){
		.memory = be->memory,
		.size = vring->num,
		.base = bf_vring_base(be, queue),
		.desc_uva = vring->addr.desc,
		.avail_uva = vring->addr.avail,
		.used_uva = vring->addr.used,
		.features = be->agreed.features,
		.kick_fd = vring->kick_fd,
		.call_fd = vring->call_fd,
		.err_fd = vring->err_fd,
	};
	*extras = (struct bf_virtq_extras){
		.iotlb = be->iotlb,
		.ring_gpa = !be->iotlb &&
			    bf_has(be->agreed.protocol_features, BF_PROTOCOL_F_GPA_ADDRESSES),
		.log = bf_log_active(be) ? be->log : NULL,
		.log_used = bf_has(vring->addr.flags, BF_VRING_F_LOG),
		.log_used_gpa = vring->addr.log,
		.log_fd = be->log_fd,
		.in_band = vring->call_fd < 0 &&
			   bf_has(be->agreed.protocol_features, BF_PROTOCOL_F_INBAND_NOTIFICATIONS),
		.post_fd = be->post_fd,
	};
	if (be->inflight)
		extras->inflight = bf_inflight_queue(be->inflight, queue, &extras->inflight_size);
}

static bool inside(uint64_t address, uint64_t start, uint64_t len)
{
	return address >= start && address - start < len;
}

/* How the device uses the part of its ring that @iova lies in. */
static unsigned ring_permission(const struct bf_virtq_setup *setup, uint64_t iova)
{
	const uint64_t size = setup->size;

	if (bf_has(setup->features, VIRTIO_F_RING_PACKED))
		return inside(iova, setup->avail_uva, sizeof(struct vring_packed_desc_event))
			       ? BF_PERM_READ
			       : BF_PERM_READ | BF_PERM_WRITE;
	return inside(iova, setup->used_uva, 6 + size * sizeof(struct vring_used_elem))
		       ? BF_PERM_READ | BF_PERM_WRITE
		       : BF_PERM_READ;
}

/* The region's entries are of one of the two formats; features may have been agreed to after it. */
static int check_inflight(struct bf_backend *be, unsigned queue)
{
	bool packed = bf_has(be->agreed.features, VIRTIO_F_RING_PACKED);

	if (!be->inflight || bf_inflight_is_packed(be->inflight) == packed)
		return 0;
	return bf_report_error(
		&be->report, -EINVAL,
		"queue %u cannot start: the in-flight region was set for %s rings, and "
		"the driver agreed to %s ones",
		queue, packed ? "split" : "packed", packed ? "packed" : "split");
}

/* Instead of 0: it waits for the IOTLB. No errno, since a device may fail with any. */
#define WAITS 1

static int start_virtq(struct bf_backend *be, unsigned queue)
{
	struct bf_vring *vring = &be->vrings[queue];
	struct bf_virtq_setup setup;
	struct bf_virtq_extras extras;
	const char *why = "";
	uint64_t missing = 0;
	int ret;

	bf_vring_describe(be, queue, &setup, &extras);
	ret = bf_virtq_start_with(&vring->vq, &setup, &extras, &missing, &why);
	if (ret == -EAGAIN) {
		ret = bf_iotlb_want(be, queue, missing, ring_permission(&setup, missing));
		return ret ? ret : WAITS;
	}
	if (!ret)
		return 0;
	return bf_report_error(
		&be->report, ret,
		"queue %u cannot start: %s (%u entries; descriptors at 0x%llx, available "
		"0x%llx, used 0x%llx)",
		queue, why, vring->num, (unsigned long long)vring->addr.desc,
		(unsigned long long)vring->addr.avail, (unsigned long long)vring->addr.used);
}

/* What the vring is comes first: the queue thread looks at the ring as soon as it has it. */
static int give(struct bf_backend *be, unsigned queue)
{
	struct bf_vring *vring = &be->vrings[queue];
	int ret = 0;

	if (be->ops->vring_enable)
		ret = be->ops->vring_enable(be->opaque, queue, vring->enabled);
	return ret ? ret : be->ops->vring_start(be->opaque, queue, &vring->vq);
}

static int start_software(struct bf_backend *be, unsigned queue)
{
	struct bf_vring *vring = &be->vrings[queue];
	int ret = check_inflight(be, queue);

	if (!ret)
		ret = start_virtq(be, queue);
	if (ret)
		return ret;
	ret = give(be, queue);
	if (!ret)
		return 0;
	bf_virtq_stop(&vring->vq);
	return bf_report_error(&be->report, ret < 0 ? ret : -EIO,
			       "queue %u: the device could not start it (error %d)", queue, ret);
}

int bf_vring_start(struct bf_backend *be, unsigned queue)
{
	struct bf_vring *vring = &be->vrings[queue];
	int ret;

	if (vring->running || !ready(be, vring))
		return 0;
	vring->running = true;
	vring->epoch++;
	vring->published_now = false;
	ret = be->offload ? bf_offload_start(be, queue) : start_software(be, queue);
	vring->pending = ret == WAITS;
	if (ret) {
		vring->running = false;
		if (vring->pending)
			return 0;
		bf_eventfd_signal(vring->err_fd);
		return ret;
	}
	vring->miss.wanted = false;
	/*
	 * The front end kept the page of an earlier run, since it did not see that one end. A
	 * device that does not publish again does not look at it either: kicks must come by
	 * eventfd.
	 */
	if (vring->published && !vring->published_now)
		bf_backend_withdraw_doorbell(be, queue);
	return 0;
}

/* What stays in flight is remembered by the in-flight region, or by nobody. */
static void report_abandoned(struct bf_backend *be, unsigned queue)
{
	const struct bf_virtq *vq = &be->vrings[queue].vq;

	if (bf_virtq_in_flight(vq) && !vq->inflight)
		bf_report_log(&be->report, BF_LOG_WARN,
			      "queue %u stopped with %u requests in flight: they stay unanswered",
			      queue, bf_virtq_in_flight(vq));
}

static uint32_t stop_software(struct bf_backend *be, unsigned queue, bool suspend)
{
	struct bf_vring *vring = &be->vrings[queue];
	uint32_t base;

	if (suspend)
		be->ops->vring_suspend(be->opaque, queue);
	else
		be->ops->vring_stop(be->opaque, queue);
	report_abandoned(be, queue);
	base = bf_virtq_base(&vring->vq);
	bf_virtq_stop(&vring->vq);
	vring->running = false;
	/* Its last words; a call in-band may be among them. */
	bf_posts_serve_queue(be, queue);
	return base;
}

static void stop(struct bf_backend *be, unsigned queue, bool suspend)
{
	struct bf_vring *vring = &be->vrings[queue];

	vring->pending = false;
	vring->miss.wanted = false;
	if (!vring->running)
		return;
	vring->base = be->offload ? be->offload->vring_stop(be->opaque, queue)
				  : stop_software(be, queue, suspend);
	vring->based = true;
	vring->running = false;
}

void bf_vring_stop(struct bf_backend *be, unsigned queue)
{
	stop(be, queue, false);
}

void bf_vring_suspend(struct bf_backend *be, unsigned queue)
{
	uint16_t size;

	stop(be, queue,
	     be->ops->vring_suspend && be->inflight &&
		     bf_inflight_queue(be->inflight, queue, &size));
}

/* The device has the vring, and it has changed. Hardware that refuses goes on as before. */
static int tell_enabled(struct bf_backend *be, unsigned queue)
{
	struct bf_vring *vring = &be->vrings[queue];
	bool enabled = vring->enabled;
	int ret = 0;

	if (!be->offload)
		ret = be->ops->vring_enable(be->opaque, queue, enabled);
	else if (be->offload->vring_enable)
		ret = be->offload->vring_enable(be->opaque, queue, enabled);
	if (!ret)
		return 0;
	if (be->offload) {
		vring->enabled = !enabled;
	} else {
		bf_vring_stop(be, queue);
		bf_eventfd_signal(vring->err_fd);
	}
	return bf_report_error(&be->report, ret < 0 ? ret : -EIO,
			       "queue %u: the device could not %s it (error %d)", queue,
			       enabled ? "enable" : "disable", ret);
}

int bf_vring_set_enabled(struct bf_backend *be, unsigned queue, bool enabled)
{
	struct bf_vring *vring = &be->vrings[queue];
	bool changed = vring->enabled != enabled;

	vring->enabled = enabled;
	if (!enabled && !has_disabled(be)) {
		bf_vring_stop(be, queue);
		return 0;
	}
	if (!vring->running)
		return bf_vring_start(be, queue);
	return changed ? tell_enabled(be, queue) : 0;
}

int bf_vring_start_all(struct bf_backend *be)
{
	int first = 0;

	for (unsigned i = 0; i < be->nr_queues; i++) {
		int ret = bf_vring_start(be, i);

		if (ret && !first)
			first = ret;
	}
	return first;
}

void bf_vring_stop_all(struct bf_backend *be)
{
	for (unsigned i = 0; i < be->nr_queues; i++)
		bf_vring_stop(be, i);
}

bool bf_vring_any_running(const struct bf_backend *be)
{
	for (unsigned i = 0; i < be->nr_queues; i++)
		if (be->vrings[i].running)
			return true;
	return false;
}

void bf_vring_unstart(struct bf_backend *be, unsigned queue)
{
	struct bf_vring *vring = &be->vrings[queue];

	bf_vring_stop(be, queue);
	vring->started = false;
	vring->published = false;
	bf_fd_close(&vring->kick_fd);
}

void bf_vring_reset(struct bf_backend *be, unsigned queue, bool everything)
{
	struct bf_vring *vring = &be->vrings[queue];

	bf_vring_unstart(be, queue);
	vring->enabled = false;
	vring->addressed = false;
	vring->num = 0;
	vring->base = 0;
	vring->based = false;
	vring->call_again = false;
	if (everything) {
		bf_fd_close(&vring->call_fd);
		bf_fd_close(&vring->err_fd);
	}
}

/*
 * Descriptors that are not files of a file system have no type, eventfds among them. A pipe would
 * have one: writing to it when nobody reads kills the process. And a full or empty eventfd must
 * never hold up a queue context.
 */
int bf_vring_check_eventfd(int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (st.st_mode & S_IFMT)
		return -EINVAL;
	return bf_fd_set_nonblocking(fd);
}
