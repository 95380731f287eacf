/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Handlers: topics of single device types. The message is checked, and the device's operation asked.
 *
 * Control context. A feature whose operation is missing was not offered, so that the table's check has
 * refused its messages before they come here.
 */
#include "backend.h"

#include <errno.h>
#include <string.h>

static int refused(struct bf_backend *be, const struct bf_msg *msg, int error)
{
	return bf_report_error(&be->report, error < 0 ? error : -EIO,
			       "%s: the device refused (error %d)",
			       bf_msg_name(BF_CHANNEL_MAIN, msg->hdr.request), error);
}

int bf_handle_net_set_mtu(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply)
{
	uint64_t mtu = msg->payload.u64;
	int ret;

	(void)reply;
	/* Virtio 1.2, 5.1.4.1: "the device MUST set mtu to between 68 and 65535 inclusive". */
	if (mtu < 68 || mtu > UINT16_MAX)
		return bf_report_error(&be->report, -EINVAL,
				       "NET_SET_MTU: %llu; expected 68 to 65535",
				       (unsigned long long)mtu);
	ret = be->ops->set_mtu(be->opaque, (uint16_t)mtu);
	return ret ? refused(be, msg, ret) : 0;
}

/* "a 64-bit integer": its first six bytes in memory are the address. */
int bf_handle_send_rarp(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply)
{
	int ret = be->ops->send_rarp(be->opaque, msg->payload.bytes);

	(void)reply;
	return ret ? refused(be, msg, ret) : 0;
}

int bf_handle_gpu_set_socket(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply)
{
	int ret = be->ops->set_gpu_socket(be->opaque, msg->fds[0]);

	(void)reply;
	if (ret)
		return refused(be, msg, ret);
	bf_msg_take_fd(msg, 0);
	return 0;
}

/*
 * Where the session id stands in the description depends on the front end's age. With symmetric
 * sessions alone it was the first field, of 656 bytes or so; since there are asymmetric ones, whose
 * keys have 1024 bytes, it is the last.
 */
static size_t session_id_offset(uint32_t size)
{
	return size < 1024 ? 0 : size - sizeof(int64_t);
}

/* "session_id < 0: error": the connection lives. */
int bf_handle_create_crypto_session(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply)
{
	const uint32_t size = msg->hdr.size;
	uint64_t id = 0;
	int64_t told;
	int ret = be->ops->create_session(be->opaque, msg->payload.bytes, size, &id);

	if (!ret && id > INT64_MAX)
		ret = -EOVERFLOW;
	if (ret)
		bf_report_peer(&be->report, BF_LOG_WARN,
			       "CREATE_CRYPTO_SESSION: the device refused (error %d)", ret);
	told = ret ? -1 : (int64_t)id;
	bf_msg_set(reply, msg->payload.bytes, size);
	memcpy(reply->payload.bytes + session_id_offset(size), &told, sizeof(told));
	return 0;
}

int bf_handle_close_crypto_session(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply)
{
	int ret = be->ops->close_session(be->opaque, msg->payload.u64);

	(void)reply;
	return ret ? refused(be, msg, ret) : 0;
}

/*
 * "CROSS_ENDIAN" is for legacy devices. Virtio 1.x rings are little-endian, which says this message
 * nothing new; the other order is not served.
 */
int bf_handle_set_vring_endian(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply)
{
	uint32_t index = msg->payload.state.index, order = msg->payload.state.num;
	struct bf_vring *vring = bf_find_vring(be, msg, index);

	(void)reply;
	if (!vring)
		return -EINVAL;
	if (order > 1)
		return bf_report_error(
			&be->report, -EINVAL,
			"SET_VRING_ENDIAN: queue %u: %u; expected 0 (little) or 1 (big)", index,
			order);
	if (vring->started)
		return bf_report_error(
			&be->report, -EBUSY,
			"SET_VRING_ENDIAN: queue %u is started; its byte order is set "
			"before",
			index);
	if (order)
		return bf_report_error(&be->report, -EOPNOTSUPP,
				       "SET_VRING_ENDIAN: queue %u: big-endian rings are those of "
				       "legacy drivers; this device is a modern one (virtio 1.x)",
				       index);
	return 0;
}
