/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The back-end channel: requests of the back end, by table.
 *
 * Control context, from dispatch and from inside waits. A request that is wrong or not agreed is
 * refused and logged; only what breaks the stream itself (a header, a descriptor in the wrong
 * place) ends the connection. No request here may ask the back end something and wait for it.
 */
#include "frontend.h"

#include <errno.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>

typedef int handler_fn(struct bf_frontend *fe, struct bf_msg *msg);

/* Noted only: the operation runs in dispatch. A storm of these collapses into one. */
static int config_change(struct bf_frontend *fe, struct bf_msg *msg)
{
	(void)msg;
	fe->config_changed = true;
	bf_fe_wake(fe);
	return 0;
}

static handler_fn *const handlers[] = {
	[BF_BE_CONFIG_CHANGE_MSG] = config_change,
	[BF_BE_VRING_HOST_NOTIFIER_MSG] = bf_fe_doorbell_request,
};

static handler_fn *find_handler(uint32_t request)
{
	return request < sizeof(handlers) / sizeof(handlers[0]) ? handlers[request] : NULL;
}

/*
 * A doorbell request that is whole but not acceptable still belongs to a queue, whose state is to
 * say why it has no doorbell: notifier.c makes those checks itself.
 */
static bool checked_by_handler(const struct bf_msg *msg, int error)
{
	return msg->hdr.request == BF_BE_VRING_HOST_NOTIFIER_MSG &&
	       (error == -EBADF || error == -EOPNOTSUPP);
}

static int handle(struct bf_frontend *fe, struct bf_msg *msg)
{
	const char *name = bf_msg_name(BF_CHANNEL_BACK, msg->hdr.request);
	handler_fn *handler = find_handler(msg->hdr.request);
	const char *why = "no such request is served here";
	int ret = bf_request_check(BF_CHANNEL_BACK, msg, &fe->agreed, &why);

	if (checked_by_handler(msg, ret))
		ret = 0;
	if (!ret && !handler)
		ret = -EOPNOTSUPP;
	if (!ret)
		return handler(fe, msg);
	bf_report_peer(&fe->report, BF_LOG_WARN,
		       "refused request %u (%s) of the back end: %s; got flags 0x%x, size %u, %u "
		       "file descriptors",
		       msg->hdr.request, name, why, msg->hdr.flags, msg->hdr.size, msg->nr_fds);
	return ret;
}

/* 1 there is a message; 0 none, or no channel any more; negative: end the connection. */
static int receive(struct bf_frontend *fe, struct bf_msg *msg)
{
	int ret;

	if (fe->back.fd < 0)
		return 0;
	ret = bf_channel_receive(&fe->back, msg);
	if (ret != -ECONNRESET)
		return ret;
	bf_report_log(&fe->report, BF_LOG_INFO,
		      "the back end closed its request channel; queues go on by eventfd");
	bf_fe_close_back(fe);
	return 0;
}

int bf_fe_serve_back(struct bf_frontend *fe, unsigned limit)
{
	struct bf_msg msg;

	while (limit--) {
		int ret = receive(fe, &msg);

		if (ret <= 0)
			return ret;
		ret = bf_channel_acknowledge(&fe->back, &msg, handle(fe, &msg));
		bf_msg_close_fds(&msg);
		/* It may close this channel after its last request; the main one tells the rest. */
		if (ret == -EPIPE || ret == -ECONNRESET)
			continue;
		if (ret < 0)
			return ret;
	}
	return 0;
}

int bf_fe_drain_back(struct bf_frontend *fe)
{
	int bytes = 0;

	if (fe->back.fd < 0)
		return 0;
	/* No message is shorter than its header, so this many are there at most. */
	if (ioctl(fe->back.fd, SIOCINQ, &bytes) < 0)
		return -errno;
	return bf_fe_serve_back(fe, (unsigned)bytes / (unsigned)sizeof(struct bf_header) + 1);
}
