/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Dispatch: messages in, handlers by table, replies out. And what becomes of a bad one.
 *
 * Control context. Two kinds of bad:
 *  - Bytes that are not the protocol (header, size, flags, number of descriptors, unknown request):
 *    the two sides do not agree on what was said, so nothing later can be trusted. The connection
 * ends.
 *  - A well-formed request that is refused (not agreed, out of range, wrong moment): the front end
 *    gets a failing acknowledgement, if it asked for one, and the connection lives. Only a request
 *    whose own reply cannot be given ends it, because replies are matched by order.
 * Every descriptor that no handler took is closed here, on every path. Must not wait for anything.
 */
#include "backend.h"

#include <errno.h>

/* One entry for each request of messages.def. */
static bf_handler_fn *const handlers[] = {
	[BF_FE_GET_FEATURES] = bf_handle_get_features,
	[BF_FE_SET_FEATURES] = bf_handle_set_features,
	[BF_FE_SET_OWNER] = bf_handle_owner,
	[BF_FE_RESET_OWNER] = bf_handle_owner,
	[BF_FE_SET_MEM_TABLE] = bf_handle_set_mem_table,
	[BF_FE_SET_LOG_BASE] = bf_handle_set_log_base,
	[BF_FE_SET_LOG_FD] = bf_handle_set_log_fd,
	[BF_FE_SET_VRING_NUM] = bf_handle_set_vring_num,
	[BF_FE_SET_VRING_ADDR] = bf_handle_set_vring_addr,
	[BF_FE_SET_VRING_BASE] = bf_handle_set_vring_base,
	[BF_FE_GET_VRING_BASE] = bf_handle_get_vring_base,
	[BF_FE_SET_VRING_KICK] = bf_handle_set_vring_kick,
	[BF_FE_SET_VRING_CALL] = bf_handle_set_vring_call,
	[BF_FE_SET_VRING_ERR] = bf_handle_set_vring_err,
	[BF_FE_GET_PROTOCOL_FEATURES] = bf_handle_get_protocol_features,
	[BF_FE_SET_PROTOCOL_FEATURES] = bf_handle_set_protocol_features,
	[BF_FE_GET_QUEUE_NUM] = bf_handle_get_queue_num,
	[BF_FE_SET_VRING_ENABLE] = bf_handle_set_vring_enable,
	[BF_FE_SEND_RARP] = bf_handle_send_rarp,
	[BF_FE_NET_SET_MTU] = bf_handle_net_set_mtu,
	[BF_FE_SET_BACKEND_REQ_FD] = bf_handle_set_backend_req_fd,
	[BF_FE_IOTLB_MSG] = bf_handle_iotlb_msg,
	[BF_FE_SET_VRING_ENDIAN] = bf_handle_set_vring_endian,
	[BF_FE_GET_CONFIG] = bf_handle_get_config,
	[BF_FE_SET_CONFIG] = bf_handle_set_config,
	[BF_FE_CREATE_CRYPTO_SESSION] = bf_handle_create_crypto_session,
	[BF_FE_CLOSE_CRYPTO_SESSION] = bf_handle_close_crypto_session,
	[BF_FE_POSTCOPY_ADVISE] = bf_handle_postcopy_advise,
	[BF_FE_POSTCOPY_LISTEN] = bf_handle_postcopy_listen,
	[BF_FE_POSTCOPY_END] = bf_handle_postcopy_end,
	[BF_FE_GET_INFLIGHT_FD] = bf_handle_get_inflight_fd,
	[BF_FE_SET_INFLIGHT_FD] = bf_handle_set_inflight_fd,
	[BF_FE_GPU_SET_SOCKET] = bf_handle_gpu_set_socket,
	[BF_FE_RESET_DEVICE] = bf_handle_reset_device,
	[BF_FE_VRING_KICK] = bf_handle_vring_kick,
	[BF_FE_GET_MAX_MEM_SLOTS] = bf_handle_get_max_mem_slots,
	[BF_FE_ADD_MEM_REG] = bf_handle_add_mem_reg,
	[BF_FE_REM_MEM_REG] = bf_handle_rem_mem_reg,
	[BF_FE_SET_STATUS] = bf_handle_set_status,
	[BF_FE_GET_STATUS] = bf_handle_get_status,
	[BF_FE_GET_SHARED_OBJECT] = bf_handle_get_shared_object,
	[BF_FE_SET_DEVICE_STATE_FD] = bf_handle_set_device_state_fd,
	[BF_FE_CHECK_DEVICE_STATE] = bf_handle_check_device_state,
	[BF_FE_GET_SHMEM_CONFIG] = bf_handle_get_shmem_config,
	[BF_FE_GET_VRING_BASE_SKIP_DRAIN] = bf_handle_get_vring_base_skip_drain,
};

/* A new message in messages.def needs a handler here, or the build says so. */
#define MAIN(NAME, ...) +1
#define BACK(NAME, ...)
_Static_assert(0
#include "../proto/messages.def"
		       == sizeof(handlers) / sizeof(handlers[0]) - 1,
	       "one handler for each request");
#undef MAIN
#undef BACK

static bf_handler_fn *find_handler(uint32_t request)
{
	return request < sizeof(handlers) / sizeof(handlers[0]) ? handlers[request] : NULL;
}

/* The sentence is in the report. 0: the connection lives. */
static int refuse(struct bf_backend *be, const struct bf_msg *msg, int error)
{
	if (bf_msg_desc(BF_CHANNEL_MAIN, msg->hdr.request)->reply_rule == BF_REPLY_ALWAYS)
		return error;
	bf_report_peer(&be->report, BF_LOG_WARN, "refused: %s", be->report.error);
	return bf_channel_acknowledge(&be->main, msg, error);
}

int bf_reply_failure(struct bf_backend *be, struct bf_msg *reply, uint64_t value)
{
	bf_report_peer(&be->report, BF_LOG_WARN, "refused: %s", be->report.error);
	bf_msg_set_u64(reply, value);
	return 0;
}

static int check(struct bf_backend *be, const struct bf_msg *msg)
{
	const char *why = "";
	int ret = bf_request_check(BF_CHANNEL_MAIN, msg, &be->agreed, &why);

	if (!ret && !find_handler(msg->hdr.request)) {
		why = "this back end does not serve it";
		ret = -EOPNOTSUPP;
	}
	if (ret)
		bf_report_error(&be->report, ret,
				"%s (request %u, flags 0x%x, %u bytes, %u file descriptors): %s",
				bf_msg_name(BF_CHANNEL_MAIN, msg->hdr.request), msg->hdr.request,
				msg->hdr.flags, msg->hdr.size, msg->nr_fds, why);
	return ret;
}

static int serve(struct bf_backend *be, struct bf_msg *msg)
{
	struct bf_msg reply;
	int ret = check(be, msg);

	if (ret == -EOPNOTSUPP)
		return refuse(be, msg, ret);
	if (ret)
		return ret;
	bf_msg_init(&reply, msg->hdr.request, BF_FLAGS_REPLY);
	ret = find_handler(msg->hdr.request)(be, msg, &reply);
	if (ret < 0)
		ret = be->fatal ? ret : refuse(be, msg, ret);
	else if (ret == BF_HANDLED)
		ret = 0;
	else if (bf_msg_desc(BF_CHANNEL_MAIN, msg->hdr.request)->reply_rule == BF_REPLY_ALWAYS)
		ret = bf_channel_reply(&be->main, msg, &reply);
	else
		ret = bf_channel_acknowledge(&be->main, msg, 0);
	/* The channel has sent or duplicated them. */
	bf_msg_close_fds(&reply);
	return ret;
}

static int flush(struct bf_channel *channel)
{
	int ret = bf_channel_wants_write(channel) ? bf_channel_flush(channel) : 0;

	return ret == -EAGAIN ? 0 : ret;
}

static int dispatch_main(struct bf_backend *be)
{
	int ret = flush(&be->main);

	for (int i = 0; !ret && i < BF_BACKEND_BATCH; i++) {
		struct bf_msg msg;

		/* Whoever does not read our replies gets no more of them. */
		if (be->main.out_bytes >= BF_BACKEND_OUT_HIGH)
			return 0;
		ret = bf_channel_receive(&be->main, &msg);
		if (ret <= 0)
			return ret;
		ret = serve(be, &msg);
		bf_msg_close_fds(&msg);
	}
	return ret;
}

/*
 * The front end may close the back-end channel and go on: vrings are served by their eventfds then.
 * But a reply that makes no sense is the same peer breaking the protocol.
 */
static int dispatch_back(struct bf_backend *be)
{
	int ret;

	if (be->back.fd < 0)
		return 0;
	ret = flush(&be->back);
	if (!ret)
		ret = bf_channel_dispatch_replies(&be->back);
	if (ret != -ECONNRESET && ret != -EPIPE)
		return ret;
	bf_report_peer(&be->report, BF_LOG_INFO, "the front end closed the back-end channel");
	bf_backend_close_back(be, -ECONNRESET);
	return 0;
}

int bf_backend_dispatch(struct bf_backend *be)
{
	int ret;

	if (be->main.fd < 0)
		return 0;
	bf_posts_serve(be);
	/* Answers first: they were sent before whatever the main channel says about those queues.
	 */
	ret = dispatch_back(be);
	if (!ret)
		ret = dispatch_main(be);
	if (!ret) {
		bf_backend_watch(be);
		return 0;
	}
	bf_backend_close(be, ret);
	/* The peer closed it between messages: that is how a connection ends. */
	if (ret == -ECONNRESET || ret == -EPIPE)
		ret = 0;
	bf_report_log(&be->report, ret ? BF_LOG_WARN : BF_LOG_INFO, "connection ended: %s",
		      be->report.error);
	if (be->ops->disconnected)
		be->ops->disconnected(be->opaque, ret);
	return ret;
}
