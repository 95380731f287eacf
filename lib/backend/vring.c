/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Vrings: when one runs, and the hand-over to the device and back.
 *
 * Control context. A vring runs while it is started and enabled and everything it needs is there;
 * each handler that changes one of these calls bf_vring_start() or bf_vring_stop() and need not
 * know the rest. The device has the virtqueue exactly between its vring_start and vring_stop
 * operations. Must not change a ring's configuration while it runs.
 */
#include "backend.h"

#include <errno.h>
#include <linux/virtio_config.h>

#include "../base/fd.h"

/* A device that serves its rings has the disabled ones too: they have to be set up before it starts. */
static bool ready(const struct bf_backend *be, const struct bf_vring *vring)
{
	return vring->started && (vring->enabled || be->offload) && vring->addressed &&
	       vring->num && be->memory;
}

uint32_t bf_vring_base(const struct bf_backend *be, unsigned queue)
{
	const struct bf_vring *vring = &be->vrings[queue];

	if (!vring->based && bf_has(be->agreed.features, VIRTIO_F_RING_PACKED))
		return BF_VIRTQ_PACKED_BASE;
	return vring->base;
}

static int start_virtq(struct bf_backend *be, unsigned queue)
{
	struct bf_vring *vring = &be->vrings[queue];
	const struct bf_virtq_setup setup = {
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
	const char *why = "";
	int ret = bf_virtq_start(&vring->vq, &setup, &why);

	if (!ret)
		return 0;
	return bf_report_error(
		&be->report, ret,
		"queue %u cannot start: %s (%u entries; descriptors at 0x%llx, available "
		"0x%llx, used 0x%llx)",
		queue, why, vring->num, (unsigned long long)vring->addr.desc,
		(unsigned long long)vring->addr.avail, (unsigned long long)vring->addr.used);
}

static int start_software(struct bf_backend *be, unsigned queue)
{
	struct bf_vring *vring = &be->vrings[queue];
	int ret = start_virtq(be, queue);

	if (ret)
		return ret;
	ret = be->ops->vring_start(be->opaque, queue, &vring->vq);
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
	if (ret) {
		vring->running = false;
		bf_eventfd_signal(vring->err_fd);
		return ret;
	}
	/*
	 * The front end kept the page of an earlier run, since it did not see that one end. A
	 * device that does not publish again does not look at it either: kicks must come by
	 * eventfd.
	 */
	if (vring->published && !vring->published_now)
		bf_backend_withdraw_doorbell(be, queue);
	return 0;
}

static uint32_t stop_software(struct bf_backend *be, unsigned queue)
{
	struct bf_vring *vring = &be->vrings[queue];
	unsigned abandoned;
	uint32_t base;

	be->ops->vring_stop(be->opaque, queue);
	abandoned = bf_virtq_in_flight(&vring->vq);
	if (abandoned)
		bf_report_log(&be->report, BF_LOG_WARN,
			      "queue %u stopped with %u requests in flight: they stay unanswered",
			      queue, abandoned);
	base = bf_virtq_base(&vring->vq);
	bf_virtq_stop(&vring->vq);
	return base;
}

void bf_vring_stop(struct bf_backend *be, unsigned queue)
{
	struct bf_vring *vring = &be->vrings[queue];

	if (!vring->running)
		return;
	vring->base = be->offload ? be->offload->vring_stop(be->opaque, queue) :
				    stop_software(be, queue);
	vring->based = true;
	vring->running = false;
}

int bf_vring_set_enabled(struct bf_backend *be, unsigned queue, bool enabled)
{
	struct bf_vring *vring = &be->vrings[queue];
	bool changed = vring->enabled != enabled;
	int ret;

	vring->enabled = enabled;
	if (!be->offload && !enabled) {
		bf_vring_stop(be, queue);
		return 0;
	}
	if (!be->offload || !vring->running)
		return bf_vring_start(be, queue);
	if (!changed || !be->offload->vring_enable)
		return 0;
	ret = be->offload->vring_enable(be->opaque, queue, enabled);
	if (!ret)
		return 0;
	vring->enabled = !enabled;
	return bf_report_error(&be->report, ret < 0 ? ret : -EIO,
			       "queue %u: the device could not %s it (error %d)", queue,
			       enabled ? "enable" : "disable", ret);
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
	if (everything) {
		bf_fd_close(&vring->call_fd);
		bf_fd_close(&vring->err_fd);
	}
}
