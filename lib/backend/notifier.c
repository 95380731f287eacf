/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the back end asks: doorbell pages published and withdrawn, config space changed.
 *
 * Control context. "Nothing waits": a request is sent on the back-end channel, and its answer comes
 * to a later dispatch, while requests of the front end go on being served on the main channel. So
 * any number of queues are registered in one round trip, and an answer may find its queue stopped,
 * or started anew: the epoch tells, and a late one is dropped.
 *
 * After every change of the path of a notification the queue's own kick eventfd is signalled once:
 * a kick may have gone the old way while nobody listened there any more.
 */
#include "backend.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "../base/fd.h"

struct asked {
	struct bf_backend *be;
	unsigned queue;
	uint64_t epoch;
	bool publish;
};

static void answered(void *opaque, int result, struct bf_msg *reply)
{
	struct asked asked = *(struct asked *)opaque;
	struct bf_backend *be = asked.be;
	struct bf_vring *vring = &be->vrings[asked.queue];

	(void)reply;
	free(opaque);
	if (!vring->running || vring->epoch != asked.epoch)
		return;
	if (asked.publish && result)
		vring->published = false;
	if (result)
		bf_report_peer(
			&be->report, BF_LOG_DEBUG,
			"queue %u: the front end did not take the doorbell (error %d); kicks come "
			"by eventfd",
			asked.queue, result);
	if (be->ops->doorbell_answered)
		be->ops->doorbell_answered(be->opaque, asked.queue, asked.publish, result);
	/* The operation must not stop the vring, so the eventfd is still this one. */
	bf_eventfd_signal(vring->kick_fd);
}

static bool doorbells_agreed(const struct bf_backend *be)
{
	uint64_t agreed = be->agreed.protocol_features;

	return bf_backend_can_ask(be) && bf_has(agreed, BF_PROTOCOL_F_HOST_NOTIFIER) &&
	       bf_has(agreed, BF_PROTOCOL_F_BACKEND_SEND_FD);
}

/* Send a VRING_HOST_NOTIFIER message and remember which run of the queue it is about. */
static int ask(struct bf_backend *be, unsigned queue, struct bf_msg *msg, bool publish)
{
	struct bf_vring *vring = &be->vrings[queue];
	struct asked *asked;
	int ret;

	asked = malloc(sizeof(*asked));
	if (!asked)
		return -ENOMEM;
	*asked = (struct asked){ be, queue, vring->epoch, publish };
	ret = bf_backend_ask(be, msg, answered, asked);
	if (ret < 0)
		free(asked);
	return ret;
}

static int check_queue(struct bf_backend *be, unsigned queue)
{
	if (be->main.fd < 0)
		return -ENOTCONN;
	if (!doorbells_agreed(be))
		return bf_report_error(&be->report, -EOPNOTSUPP,
				       "doorbell pages are not agreed with this front end");
	if (queue >= be->nr_queues || !be->vrings[queue].running)
		return bf_report_error(&be->report, -EINVAL, "queue %u is not running", queue);
	return 0;
}

int bf_backend_publish_doorbell(struct bf_backend *be, unsigned queue, int fd, uint64_t offset)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	const struct bf_vring_area area = { .index = queue, .size = page, .offset = offset };
	struct bf_vring *vring;
	struct bf_msg msg;
	bool before;
	int ret;

	ret = check_queue(be, queue);
	if (ret)
		return ret;
	if (fd < 0 || offset & (page - 1))
		return bf_report_error(
			&be->report, -EINVAL,
			"queue %u: a doorbell page needs a descriptor and an offset that "
			"is a multiple of %llu, got 0x%llx",
			queue, (unsigned long long)page, (unsigned long long)offset);
	bf_msg_init(&msg, BF_BE_VRING_HOST_NOTIFIER_MSG, 0);
	bf_msg_set(&msg, &area, sizeof(area));
	bf_msg_lend_fd(&msg, fd);

	/* Before it is sent: without acknowledgements the answer comes from inside ask(). */
	vring = &be->vrings[queue];
	before = vring->published;
	vring->published = vring->published_now = true;
	ret = ask(be, queue, &msg, true);
	if (ret)
		vring->published = before;
	return ret;
}

int bf_backend_withdraw_doorbell(struct bf_backend *be, unsigned queue)
{
	const struct bf_vring_area area = {
		.index = queue | BF_VRING_NOFD,
		.size = (uint64_t)sysconf(_SC_PAGESIZE),
	};
	struct bf_msg msg;
	int ret;

	ret = check_queue(be, queue);
	if (ret)
		return ret;
	bf_msg_init(&msg, BF_BE_VRING_HOST_NOTIFIER_MSG, 0);
	bf_msg_set(&msg, &area, sizeof(area));
	be->vrings[queue].published = false;
	return ask(be, queue, &msg, false);
}

static bool suspended(const struct bf_backend *be)
{
	for (unsigned i = 0; i < be->nr_queues; i++)
		if (be->vrings[i].started)
			return false;
	return true;
}

static void config_answered(void *opaque, int result, struct bf_msg *reply)
{
	struct bf_backend *be = opaque;

	(void)reply;
	if (result == -EREMOTEIO)
		bf_report_peer(&be->report, BF_LOG_WARN,
			       "the front end refused to be told that config space changed");
}

static int tell_config_changed(struct bf_backend *be)
{
	struct bf_msg msg;

	bf_msg_init(&msg, BF_BE_CONFIG_CHANGE_MSG, 0);
	return bf_backend_ask(be, &msg, config_answered, be);
}

int bf_backend_config_changed(struct bf_backend *be)
{
	if (be->main.fd < 0)
		return -ENOTCONN;
	if (!bf_backend_can_ask(be) || !bf_has(be->agreed.protocol_features, BF_PROTOCOL_F_CONFIG))
		return -EOPNOTSUPP;
	/* "Suspended device state": no messages to the front end while all rings are stopped. */
	if (suspended(be)) {
		be->config_change_held = true;
		return 0;
	}
	return tell_config_changed(be);
}

void bf_backend_release_held(struct bf_backend *be)
{
	if (!be->config_change_held || !bf_backend_can_ask(be))
		return;
	be->config_change_held = false;
	if (tell_config_changed(be) < 0)
		bf_report_peer(&be->report, BF_LOG_WARN,
			       "could not tell the front end that config space changed");
}
