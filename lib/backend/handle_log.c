/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Handlers: the dirty log ("Migration"). Where it lies, who hears of it, and whether anybody logs.
 *
 * Control context. Logging is on while VHOST_F_LOG_ALL is agreed and there is a log. It goes on under
 * running queues, and the front end is answered when no request is left that was popped before: none
 * will write a page that it does not mark.
 */
#include "change.h"

#include <errno.h>
#include <string.h>

#include "../base/fd.h"
#include "../virtq/dirty.h"

/* Held. What is in force now, to one queue. */
static int apply(struct bf_backend *be, struct bf_virtq *vq)
{
	struct bf_virtq_setup setup;
	struct bf_virtq_extras extras;

	bf_vring_describe(be, bf_virtq_queue(vq), &setup, &extras);
	if (!extras.log) {
		bf_dirty_detach(vq);
		return 0;
	}
	return bf_dirty_attach(vq, &extras);
}

/* Held. All of them, or none: then the first error. */
static int apply_all(struct bf_backend *be, struct bf_change *change)
{
	for (unsigned i = 0; i < change->nr; i++) {
		int ret = apply(be, change->vqs[i]);

		if (ret)
			return ret;
	}
	return 0;
}

int bf_log_set_all(struct bf_backend *be, bool on)
{
	struct bf_change change;
	int ret;

	if (be->log_all == on)
		return 0;
	be->log_all = on;
	if (!be->log)
		return 0;
	bf_change_begin(be, &change);
	ret = apply_all(be, &change);
	if (ret) {
		be->log_all = false;
		apply_all(be, &change);
	}
	bf_change_end(&change, on && !ret);
	if (ret)
		return bf_report_error(&be->report, ret,
				       "SET_FEATURES: no memory to remember what queues write");
	bf_change_settle(be, &change);
	return bf_change_restart(be, &change);
}

int bf_log_readdress(struct bf_backend *be, unsigned queue)
{
	struct bf_change change;
	int ret;

	if (!bf_log_active(be))
		return 0;
	bf_change_begin_one(be, queue, &change);
	ret = apply_all(be, &change);
	bf_change_end(&change, false);
	return ret;
}

/*
 * Another log, or another eventfd, in the place of what logging queues use. Owned on success; on failure
 * nothing has changed.
 */
static int exchange(struct bf_backend *be, struct bf_dirty_log *log, int log_fd)
{
	struct bf_dirty_log *former = be->log;
	int former_fd = be->log_fd, ret = 0;
	struct bf_change change;
	bool begins = be->log_all && !former && log;

	be->log = log;
	be->log_fd = log_fd;
	if (be->log_all && log) {
		bf_change_begin(be, &change);
		ret = apply_all(be, &change);
		if (ret) {
			be->log = former;
			be->log_fd = former_fd;
			apply_all(be, &change);
		}
		bf_change_end(&change, begins && !ret);
	}
	if (ret)
		return bf_report_error(&be->report, ret,
				       "no memory to remember what queues write, for the log");
	if (former != log)
		bf_dirty_log_unref(former);
	if (former_fd != log_fd)
		bf_fd_close(&former_fd);
	if (!begins)
		return 0;
	bf_change_settle(be, &change);
	return bf_change_restart(be, &change);
}

/* Bytes of log that guest memory needs. A bit is a page; memory that comes later may need more. */
static uint64_t needed(const struct bf_memory *memory)
{
	const struct bf_memory_region *last;

	if (!memory)
		return 0;
	last = bf_memory_region(memory, bf_memory_nr_regions(memory) - 1);
	return (last->gpa + last->size - 1) / BF_LOG_PAGE / 8 + 1;
}

/*
 * The reply with LOG_SHMFD is a u64 here, which those who read it take for success; others look only at
 * its header. Without LOG_SHMFD the log would be in the front end's own memory.
 */
int bf_handle_set_log_base(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply)
{
	const struct bf_log_area area = msg->payload.log;
	struct bf_dirty_log *log;
	int ret;

	(void)reply;
	if (!bf_has(be->agreed.protocol_features, BF_PROTOCOL_F_LOG_SHMFD))
		return bf_report_error(&be->report, -EOPNOTSUPP,
				       "SET_LOG_BASE: a log without LOG_SHMFD cannot be reached");
	if (area.size < needed(be->memory))
		return bf_report_error(&be->report, -EINVAL,
				       "SET_LOG_BASE: a log of %llu bytes; guest memory needs %llu",
				       (unsigned long long)area.size,
				       (unsigned long long)needed(be->memory));
	ret = bf_dirty_log_new(msg->fds[0], area.offset, area.size, &log);
	if (ret)
		return bf_report_error(&be->report, ret,
				       "SET_LOG_BASE: cannot map %llu bytes at offset %llu: %s",
				       (unsigned long long)area.size,
				       (unsigned long long)area.offset, strerror(-ret));
	ret = exchange(be, log, be->log_fd);
	if (be->log != log)
		bf_dirty_log_unref(log);
	return ret;
}

int bf_handle_set_log_fd(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply)
{
	int ret = bf_vring_check_eventfd(msg->fds[0]), fd;

	(void)reply;
	if (be->offload)
		return bf_report_error(&be->report, -EOPNOTSUPP,
				       "SET_LOG_FD: this device does not log");
	if (ret)
		return bf_report_error(&be->report, -EINVAL,
				       "SET_LOG_FD: the descriptor is not an eventfd");
	fd = bf_msg_take_fd(msg, 0);
	ret = exchange(be, be->log, fd);
	if (be->log_fd != fd)
		bf_fd_close(&fd);
	return ret;
}
