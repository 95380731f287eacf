/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Handlers: the device's own state, handed over at a migration ("Migrating back-end state").
 *
 * Control context. The transfer is between the front end and the device; here is when it is legal. Must
 * not read or write the descriptor.
 */
#include "backend.h"

#include <errno.h>

#define STATE_ERROR 1u     /* bits 0-7: not zero */
#define STATE_NO_FD 0x100u /* bit 8: go on with the descriptor that was sent */

static int check(struct bf_backend *be, const struct bf_device_state *state)
{
	if (state->direction > 1 || state->phase)
		return bf_report_error(
			&be->report, -EINVAL,
			"SET_DEVICE_STATE_FD: direction %u, phase %u; expected 0 (save) "
			"or 1 (load), and 0 (stopped)",
			state->direction, state->phase);
	/* "Suspended device state" */
	for (unsigned i = 0; i < be->nr_queues; i++)
		if (be->vrings[i].started)
			return bf_report_error(&be->report, -EBUSY,
					       "SET_DEVICE_STATE_FD: queue %u is started; state is "
					       "transferred while all are stopped",
					       i);
	return 0;
}

int bf_handle_set_device_state_fd(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply)
{
	const struct bf_device_state *state = &msg->payload.device_state;
	int other_fd = -1, ret = check(be, state);

	if (ret)
		return bf_reply_failure(be, reply, STATE_ERROR | STATE_NO_FD);
	ret = be->ops->device_state(be->opaque, state->direction == 1, msg->fds[0], &other_fd);
	if (ret) {
		bf_report_error(&be->report, ret,
				"SET_DEVICE_STATE_FD: the device refused (error %d)", ret);
		return bf_reply_failure(be, reply, STATE_ERROR | STATE_NO_FD);
	}
	bf_msg_take_fd(msg, 0);
	if (other_fd >= 0)
		bf_msg_lend_fd(reply, other_fd);
	bf_msg_set_u64(reply, other_fd < 0 ? STATE_NO_FD : 0);
	return 0;
}

int bf_handle_check_device_state(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply)
{
	int ret = be->ops->check_device_state(be->opaque);

	(void)msg;
	if (!ret) {
		bf_msg_set_u64(reply, 0);
		return 0;
	}
	bf_report_error(&be->report, ret, "CHECK_DEVICE_STATE: the transfer failed (error %d)",
			ret);
	return bf_reply_failure(be, reply, 1);
}
