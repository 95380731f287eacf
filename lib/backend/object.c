/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Shared objects: dma-bufs known by a UUID, between the devices of one front end.
 *
 * Control context. The library keeps no table: ours are the device's, others' the front end's.
 */
#include "backend.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../base/fd.h"

/* No descriptor: there is no such object. */
int bf_handle_get_shared_object(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply)
{
	int fd = be->ops->get_shared_object(be->opaque, msg->payload.uuid.bytes);

	if (fd >= 0)
		fd = bf_fd_dup(fd);
	if (fd >= 0)
		bf_msg_lend_fd(reply, fd);
	return 0;
}

static int check_agreed(struct bf_backend *be)
{
	if (be->main.fd < 0)
		return -ENOTCONN;
	if (!bf_backend_can_ask(be) ||
	    !bf_has(be->agreed.protocol_features, BF_PROTOCOL_F_SHARED_OBJECT))
		return bf_report_error(&be->report, -EOPNOTSUPP,
				       "shared objects are not agreed with this front end");
	return 0;
}

static void told(void *opaque, int result, struct bf_msg *reply)
{
	struct bf_backend *be = opaque;

	(void)reply;
	if (result == -EREMOTEIO)
		bf_report_peer(&be->report, BF_LOG_WARN,
			       "the front end refused what it was told of a shared object");
}

static int tell(struct bf_backend *be, uint32_t request, const uint8_t uuid[16])
{
	struct bf_msg msg;
	int ret = check_agreed(be);

	if (ret)
		return ret;
	bf_msg_init(&msg, request, 0);
	bf_msg_set(&msg, uuid, sizeof(struct bf_uuid));
	return bf_backend_ask(be, &msg, told, be);
}

int bf_backend_add_shared_object(struct bf_backend *be, const uint8_t uuid[16])
{
	return tell(be, BF_BE_SHARED_OBJECT_ADD, uuid);
}

int bf_backend_remove_shared_object(struct bf_backend *be, const uint8_t uuid[16])
{
	return tell(be, BF_BE_SHARED_OBJECT_REMOVE, uuid);
}

struct lookup {
	bf_found_fn *found;
	void *opaque;
};

static void looked_up(void *opaque, int result, struct bf_msg *reply)
{
	struct lookup lookup = *(struct lookup *)opaque;

	free(opaque);
	if (!result && reply->payload.u64)
		result = -ENOENT;
	if (!result && !reply->nr_fds)
		result = -EBADF;
	lookup.found(lookup.opaque, result ? result : bf_msg_take_fd(reply, 0));
}

int bf_backend_lookup_shared_object(struct bf_backend *be, const uint8_t uuid[16],
				    bf_found_fn *found, void *opaque)
{
	struct lookup *lookup;
	struct bf_msg msg;
	int ret = check_agreed(be);

	if (ret)
		return ret;
	lookup = malloc(sizeof(*lookup));
	if (!lookup)
		return -ENOMEM;
	*lookup = (struct lookup){ found, opaque };
	bf_msg_init(&msg, BF_BE_SHARED_OBJECT_LOOKUP, 0);
	bf_msg_set(&msg, uuid, sizeof(struct bf_uuid));
	ret = bf_backend_ask(be, &msg, looked_up, lookup);
	if (ret < 0)
		free(lookup);
	return ret;
}
