/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * "IOMMU support": translations that are missing, those that come, and those that are taken back.
 *
 * Two kinds of waiting. A ring that cannot start since the IOTLB does not have it is pending, and is
 * tried again at each update. A queue thread that finds a buffer missing posts that, and goes on with
 * nothing to pop until it is answered. Both have the front end asked by a miss on the back-end channel;
 * its answer is an update on the main channel, and the acknowledgement of the miss says no more than
 * whether there will be one. Updates and invalidations change the IOTLB while all queues are held; an
 * invalidation is answered when no request uses what it took back.
 *
 * Control context. Must not wait for the front end, and must not ask it twice for one thing.
 */
#include "change.h"

#include <errno.h>
#include <stdlib.h>

#include "../base/fd.h"
#include "../virtq/hold.h"

struct asked_miss {
	struct bf_backend *be;
	uint64_t iova;
	unsigned perm;
};

static bool same(const struct bf_miss *miss, uint64_t iova, unsigned perm)
{
	return miss->wanted && miss->iova == iova && miss->perm == perm;
}

static bool satisfied(const struct bf_backend *be, const struct bf_miss *miss)
{
	return bf_space_translate(bf_iotlb_space(be->iotlb), miss->iova, 1, miss->perm, NULL);
}

/* The queue context goes on: with the translation, or to find its ring broken. */
static void answer_queue(struct bf_backend *be, unsigned queue, int error)
{
	struct bf_vring *vring = &be->vrings[queue];
	struct bf_change change;

	vring->miss.wanted = false;
	bf_change_begin_one(be, queue, &change);
	bf_virtq_miss_answered(&vring->vq, error);
	bf_change_end(&change, false);
	bf_eventfd_signal(vring->kick_fd);
}

static void never_comes(struct bf_backend *be, unsigned queue)
{
	struct bf_vring *vring = &be->vrings[queue];

	if (vring->running) {
		answer_queue(be, queue, -EFAULT);
		return;
	}
	vring->miss.wanted = false;
	vring->pending = false;
	bf_report_peer(
		&be->report, BF_LOG_WARN,
		"queue %u cannot start: the front end has no translation of 0x%llx, where its "
		"ring lies",
		queue, (unsigned long long)vring->miss.iova);
	bf_eventfd_signal(vring->err_fd);
}

static void miss_answered(void *opaque, int result, struct bf_msg *reply)
{
	struct asked_miss asked = *(struct asked_miss *)opaque;
	struct bf_backend *be = asked.be;

	(void)reply;
	free(opaque);
	/* With success the update has come, or is on its way. */
	if (!result)
		return;
	for (unsigned i = 0; i < be->nr_queues; i++)
		if (same(&be->vrings[i].miss, asked.iova, asked.perm))
			never_comes(be, i);
}

static bool asked_for(const struct bf_backend *be, uint64_t iova, unsigned perm)
{
	for (unsigned i = 0; i < be->nr_queues; i++)
		if (same(&be->vrings[i].miss, iova, perm))
			return true;
	return false;
}

static int send_miss(struct bf_backend *be, uint64_t iova, unsigned perm)
{
	const struct bf_iotlb miss = {
		.iova = iova,
		.perm = (uint8_t)perm,
		.type = BF_IOTLB_MISS,
	};
	struct asked_miss *asked;
	struct bf_msg msg;
	int ret;

	if (!bf_backend_can_ask(be))
		return bf_report_error(
			&be->report, -EFAULT,
			"0x%llx is not in the IOTLB, and there is no back-end channel to "
			"ask for it",
			(unsigned long long)iova);
	asked = malloc(sizeof(*asked));
	if (!asked)
		return -ENOMEM;
	*asked = (struct asked_miss){ be, iova, perm };
	bf_msg_init(&msg, BF_BE_IOTLB_MSG, 0);
	bf_msg_set(&msg, &miss, sizeof(miss));
	ret = bf_backend_ask(be, &msg, miss_answered, asked);
	if (ret < 0)
		free(asked);
	return ret;
}

int bf_iotlb_want(struct bf_backend *be, unsigned queue, uint64_t iova, unsigned perm)
{
	struct bf_miss *miss = &be->vrings[queue].miss;
	int ret = asked_for(be, iova, perm) ? 0 : send_miss(be, iova, perm);

	if (!ret)
		*miss = (struct bf_miss){ true, iova, perm };
	return ret;
}

void bf_iotlb_serve_miss(struct bf_backend *be, unsigned queue)
{
	const struct bf_virtq *vq = &be->vrings[queue].vq;
	/* Written before the post, and again only after it was answered. */
	const struct bf_miss miss = { true, vq->missing_iova, vq->missing_perm };
	int ret;

	if (!be->iotlb)
		return;
	/* An update may have been faster than the post. */
	if (satisfied(be, &miss)) {
		answer_queue(be, queue, 0);
		return;
	}
	ret = bf_iotlb_want(be, queue, miss.iova, miss.perm);
	if (ret < 0) {
		bf_report_peer(&be->report, BF_LOG_WARN, "queue %u: %s", queue, be->report.error);
		answer_queue(be, queue, ret);
	}
}

static void start_pending(struct bf_backend *be)
{
	for (unsigned i = 0; i < be->nr_queues; i++) {
		struct bf_vring *vring = &be->vrings[i];

		if (!vring->pending)
			continue;
		if (vring->miss.wanted && satisfied(be, &vring->miss))
			vring->miss.wanted = false;
		/* It is the queue that fails, not the update. */
		if (bf_vring_start(be, i))
			bf_report_peer(&be->report, BF_LOG_WARN, "%s", be->report.error);
	}
}

/* Held: those whose translation has come go on. Their threads are signalled when they are released. */
static void answer_satisfied(struct bf_backend *be, const struct bf_change *change, bool *signal)
{
	for (unsigned i = 0; i < change->nr; i++) {
		struct bf_vring *vring = &be->vrings[bf_virtq_queue(change->vqs[i])];

		signal[i] = vring->miss.wanted && !change->lost[i] && satisfied(be, &vring->miss);
		if (!signal[i])
			continue;
		vring->miss.wanted = false;
		bf_virtq_miss_answered(&vring->vq, 0);
	}
}

static int update(struct bf_backend *be, const struct bf_iotlb *entry)
{
	bool signal[BF_MAX_QUEUES] = { false };
	struct bf_change change;
	int ret;

	if (!be->memory)
		return bf_report_error(&be->report, -EFAULT,
				       "IOTLB_MSG: an update before there is any memory");
	bf_change_begin(be, &change);
	ret = bf_iotlb_update(be->iotlb, be->memory, entry->iova, entry->size, entry->uva,
			      entry->perm);
	if (!ret) {
		bf_change_move(be, &change);
		answer_satisfied(be, &change, signal);
	}
	bf_change_end(&change, false);
	if (ret)
		return bf_report_error(
			&be->report, ret,
			"IOTLB_MSG: cannot take the update of iova 0x%llx, size 0x%llx, "
			"uva 0x%llx, permission %u: %s",
			(unsigned long long)entry->iova, (unsigned long long)entry->size,
			(unsigned long long)entry->uva, entry->perm,
			ret == -EFAULT   ? "the user address is not in guest memory"
			: ret == -EINVAL ? "it is empty, wraps or permits nothing"
					 : "out of memory");
	for (unsigned i = 0; i < change.nr; i++)
		if (signal[i])
			bf_eventfd_signal(be->vrings[bf_virtq_queue(change.vqs[i])].kick_fd);
	bf_change_settle(be, &change);
	bf_change_restart(be, &change);
	start_pending(be);
	return 0;
}

/* A size of 0 is what 2^64 becomes in 64 bits: all there is. */
static void forbid(struct bf_backend *be, const struct bf_iotlb *entry)
{
	uint64_t size = entry->size;

	if (size > UINT64_MAX - entry->iova)
		size = UINT64_MAX - entry->iova;
	/* Rather too much than too little: what was in use is asked for again. */
	if (!size || bf_iotlb_invalidate(be->iotlb, entry->iova, size))
		bf_iotlb_clear(be->iotlb);
}

static int invalidate(struct bf_backend *be, const struct bf_iotlb *entry)
{
	struct bf_change change;

	bf_change_begin(be, &change);
	forbid(be, entry);
	bf_change_move(be, &change);
	bf_change_end(&change, true);
	bf_change_settle(be, &change);
	/* A ring that is gone is asked for, and its queue is pending: that is not the message's fault. */
	if (bf_change_restart(be, &change))
		bf_report_peer(&be->report, BF_LOG_WARN, "%s", be->report.error);
	return 0;
}

/* Always answered by a u64. */
int bf_handle_iotlb_msg(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply)
{
	const struct bf_iotlb *entry = &msg->payload.iotlb;
	int ret;

	switch (entry->type) {
	case BF_IOTLB_UPDATE:
		ret = update(be, entry);
		break;
	case BF_IOTLB_INVALIDATE:
		ret = invalidate(be, entry);
		break;
	default:
		ret = bf_report_error(&be->report, -EINVAL,
				      "IOTLB_MSG: type %u; a front end sends 2 (update) or 3 "
				      "(invalidate)",
				      entry->type);
		break;
	}
	if (ret)
		return bf_reply_failure(be, reply, 1);
	bf_msg_set_u64(reply, 0);
	return 0;
}
