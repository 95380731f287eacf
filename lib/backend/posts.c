/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What queue contexts want of control: a translation, a call in-band, word of a broken ring.
 *
 * Control context. A queue thread must not touch a socket; it leaves a bit in its virtqueue and signals
 * the back end's post eventfd, which is in the epoll set. Must not wait for the queue context.
 */
#include "backend.h"

#include <linux/virtio_config.h>

#include "../base/fd.h"

static bool in_band(const struct bf_backend *be)
{
	return bf_has(be->agreed.protocol_features, BF_PROTOCOL_F_INBAND_NOTIFICATIONS) &&
	       bf_backend_can_ask(be);
}

static void call(struct bf_backend *be, unsigned queue);

static void called(void *opaque, int result, struct bf_msg *reply)
{
	struct bf_vring *vring = opaque;
	bool again = vring->call_again;

	(void)reply;
	vring->calling = vring->call_again = false;
	if (again && !result)
		call(vring->be, bf_virtq_queue(&vring->vq));
}

/* One is on its way at a time: calls add up to one, as they do in an eventfd. */
static void call(struct bf_backend *be, unsigned queue)
{
	struct bf_vring *vring = &be->vrings[queue];
	struct bf_msg msg;

	if (!in_band(be))
		return;
	if (vring->calling) {
		vring->call_again = true;
		return;
	}
	bf_msg_init(&msg, BF_BE_VRING_CALL, 0);
	bf_msg_set_state(&msg, queue, 0);
	/* Before it is sent: the answer may come from inside. */
	vring->calling = true;
	if (bf_backend_ask(be, &msg, called, vring) < 0) {
		vring->calling = false;
		bf_report_peer(&be->report, BF_LOG_WARN, "queue %u: could not call the driver: %s",
			       queue, be->report.error);
	}
}

static void error_told(void *opaque, int result, struct bf_msg *reply)
{
	(void)opaque;
	(void)result;
	(void)reply;
}

/* The error eventfd, if there is one, was signalled where the ring was found broken. */
static void broken(struct bf_backend *be, unsigned queue)
{
	struct bf_vring *vring = &be->vrings[queue];
	const char *reason = NULL;
	struct bf_msg msg;

	if (!bf_virtq_broken(&vring->vq, &reason) || !reason)
		return;
	bf_report_peer(&be->report, BF_LOG_WARN, "queue %u is broken by its driver: %s", queue,
		       reason);
	be->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
	if (vring->err_fd < 0 && in_band(be)) {
		bf_msg_init(&msg, BF_BE_VRING_ERR, 0);
		bf_msg_set_state(&msg, queue, 0);
		bf_backend_ask(be, &msg, error_told, NULL);
	}
	/* A front end that hears it asks for the status. */
	bf_backend_config_changed(be);
	if (be->ops->vring_broken)
		be->ops->vring_broken(be->opaque, queue, reason);
}

void bf_posts_serve_queue(struct bf_backend *be, unsigned queue)
{
	struct bf_vring *vring = &be->vrings[queue];
	unsigned posted = bf_virtq_take_posted(&vring->vq);

	if (posted & BF_POST_CALL)
		call(be, queue);
	if (posted & BF_POST_BROKEN)
		broken(be, queue);
	if (posted & BF_POST_MISS && vring->running)
		bf_iotlb_serve_miss(be, queue);
}

void bf_posts_serve(struct bf_backend *be)
{
	if (be->post_fd < 0 || !bf_eventfd_drain(be->post_fd))
		return;
	for (unsigned i = 0; i < be->nr_queues; i++)
		bf_posts_serve_queue(be, i);
}
