/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Handlers: the in-flight region ("Inflight I/O tracking"). Made here, kept by the front end, and
 * brought back by it to whoever serves the device next.
 *
 * Control context. What queues do with their parts is lib/virtq/inflight*.c. Asking for a region leaves
 * nothing behind: it is in force only when the front end has set it.
 */
#include "backend.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <string.h>

#include "../base/fd.h"

static bool packed(const struct bf_backend *be)
{
	return bf_has(be->agreed.features, VIRTIO_F_RING_PACKED);
}

static int check_counts(struct bf_backend *be, const char *name, const struct bf_inflight *ask)
{
	if (ask->nr_queues && ask->nr_queues <= be->nr_queues && ask->queue_size &&
	    ask->queue_size <= be->max_queue_size)
		return 0;
	return bf_report_error(&be->report, -EINVAL,
			       "%s: %u queues of %u entries; expected 1 to %u queues of 1 to %u",
			       name, ask->nr_queues, ask->queue_size, be->nr_queues,
			       be->max_queue_size);
}

static int make_region(struct bf_backend *be, const struct bf_inflight *ask, uint64_t *size)
{
	struct bf_inflight_region *region;
	int ret = check_counts(be, "GET_INFLIGHT_FD", ask), fd;

	if (ret)
		return ret;
	ret = bf_inflight_new(packed(be), ask->nr_queues, ask->queue_size, &region);
	if (ret)
		return bf_report_error(&be->report, ret, "GET_INFLIGHT_FD: no region: %s",
				       strerror(-ret));
	*size = bf_inflight_size(region);
	fd = bf_fd_dup(bf_inflight_fd(region));
	bf_inflight_free(region);
	if (fd < 0)
		return bf_report_error(&be->report, fd, "GET_INFLIGHT_FD: no descriptor: %s",
				       strerror(-fd));
	return fd;
}

/* What a region is wanted for. A front end that does not say gets one for everything it may set up. */
static struct bf_inflight asked(const struct bf_backend *be, const struct bf_msg *msg)
{
	if (msg->hdr.size)
		return msg->payload.inflight;
	return (struct bf_inflight){ .nr_queues = (uint16_t)be->nr_queues,
				     .queue_size = be->max_queue_size };
}

/* A size of 0, and no descriptor, is how front ends are told that there is none. */
int bf_handle_get_inflight_fd(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply)
{
	struct bf_inflight *answer = &reply->payload.inflight;
	const struct bf_inflight ask = asked(be, msg);
	uint64_t size = 0;
	int fd = make_region(be, &ask, &size);

	answer->nr_queues = ask.nr_queues;
	answer->queue_size = ask.queue_size;
	/* With or without padding, as it was asked; those who did not say have the padding. */
	reply->hdr.size = msg->hdr.size ? msg->hdr.size : (uint32_t)sizeof(*answer);
	if (fd < 0) {
		bf_report_peer(&be->report, BF_LOG_WARN, "refused: %s", be->report.error);
		return 0;
	}
	answer->mmap_size = size;
	bf_msg_lend_fd(reply, fd);
	return 0;
}

int bf_handle_set_inflight_fd(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply)
{
	const struct bf_inflight *set = &msg->payload.inflight;
	struct bf_inflight_region *region;
	int ret = check_counts(be, "SET_INFLIGHT_FD", set);

	(void)reply;
	if (ret)
		return ret;
	if (bf_vring_any_running(be))
		return bf_report_error(
			&be->report, -EBUSY,
			"SET_INFLIGHT_FD: a vring is running; the region is set before "
			"they start");
	ret = bf_inflight_map(msg->fds[0], set->mmap_size, set->mmap_offset, packed(be),
			      set->nr_queues, set->queue_size, &region);
	if (ret)
		return bf_report_error(
			&be->report, ret,
			"SET_INFLIGHT_FD: cannot use %llu bytes at offset %llu for %u "
			"queues of %u entries: %s",
			(unsigned long long)set->mmap_size, (unsigned long long)set->mmap_offset,
			set->nr_queues, set->queue_size, strerror(-ret));
	bf_inflight_free(be->inflight);
	be->inflight = region;
	return 0;
}
