/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Requests of the back end: may there be one, and how many may be unanswered.
 *
 * Control context. "Nothing waits": a request is sent on the back-end channel, and its answer comes to
 * a later dispatch, while requests of the front end go on being served on the main channel.
 */
#include "backend.h"

#include <errno.h>

bool bf_backend_can_ask(const struct bf_backend *be)
{
	return bf_has(be->agreed.protocol_features, BF_PROTOCOL_F_BACKEND_REQ) && be->back.fd >= 0;
}

int bf_backend_ask(struct bf_backend *be, struct bf_msg *msg, bf_reply_fn *fn, void *opaque)
{
	int ret;

	if (be->back.nr_pending >= BF_BACKEND_MAX_ASKED)
		return bf_report_error(&be->report, -ENOBUFS,
				       "the front end left %u requests unanswered",
				       be->back.nr_pending);
	ret = bf_channel_ask(&be->back, msg, fn, opaque);
	if (!ret)
		bf_backend_watch(be);
	return ret;
}
