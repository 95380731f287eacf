/* SPDX-License-Identifier: BSD-3-Clause */
/* The message table and the names of things. Constant data; any context. */
#include "message.h"

#include <linux/virtio_config.h>

#define DESC(NAME, PAYLOAD, MIN, MAX, RULE, REPLY, RMIN, RMAX, GATE, BIT)                          \
	{                                                                                          \
		.name = #NAME, .payload = BF_PAYLOAD_##PAYLOAD, .min_fds = MIN, .max_fds = MAX,    \
		.reply_rule = BF_REPLY_##RULE, .reply = BF_PAYLOAD_##REPLY, .reply_min_fds = RMIN, \
		.reply_max_fds = RMAX, .gate = BF_GATE_##GATE, .gate_bit = BIT,                    \
	}

static const struct bf_msg_desc main_table[] = {
#define MAIN(NAME, ...) [BF_FE_##NAME] = DESC(NAME, __VA_ARGS__),
#define BACK(NAME, ...)
#include "messages.def"
#undef MAIN
#undef BACK
};

static const struct bf_msg_desc back_table[] = {
#define MAIN(NAME, ...)
#define BACK(NAME, ...) [BF_BE_##NAME] = DESC(NAME, __VA_ARGS__),
#include "messages.def"
#undef MAIN
#undef BACK
};

#define COUNT(table) ((uint32_t)(sizeof(table) / sizeof((table)[0])))

uint32_t bf_msg_end(enum bf_channel_kind channel)
{
	return channel == BF_CHANNEL_MAIN ? COUNT(main_table) : COUNT(back_table);
}

const struct bf_msg_desc *bf_msg_desc(enum bf_channel_kind channel, uint32_t request)
{
	const struct bf_msg_desc *table = channel == BF_CHANNEL_MAIN ? main_table : back_table;

	if (request >= bf_msg_end(channel) || !table[request].name)
		return NULL;
	return &table[request];
}

const char *bf_msg_name(enum bf_channel_kind channel, uint32_t request)
{
	const struct bf_msg_desc *desc = bf_msg_desc(channel, request);

	return desc ? desc->name : "unknown request";
}

/* The specification's names, which are also those that QEMU's monitor prints. */
static const char *const protocol_feature_names[] = {
	[BF_PROTOCOL_F_MQ] = "MQ",
	[BF_PROTOCOL_F_LOG_SHMFD] = "LOG_SHMFD",
	[BF_PROTOCOL_F_RARP] = "RARP",
	[BF_PROTOCOL_F_REPLY_ACK] = "REPLY_ACK",
	[BF_PROTOCOL_F_MTU] = "MTU",
	[BF_PROTOCOL_F_BACKEND_REQ] = "BACKEND_REQ",
	[BF_PROTOCOL_F_CROSS_ENDIAN] = "CROSS_ENDIAN",
	[BF_PROTOCOL_F_CRYPTO_SESSION] = "CRYPTO_SESSION",
	[BF_PROTOCOL_F_PAGEFAULT] = "PAGEFAULT",
	[BF_PROTOCOL_F_CONFIG] = "CONFIG",
	[BF_PROTOCOL_F_BACKEND_SEND_FD] = "BACKEND_SEND_FD",
	[BF_PROTOCOL_F_HOST_NOTIFIER] = "HOST_NOTIFIER",
	[BF_PROTOCOL_F_INFLIGHT_SHMFD] = "INFLIGHT_SHMFD",
	[BF_PROTOCOL_F_RESET_DEVICE] = "RESET_DEVICE",
	[BF_PROTOCOL_F_INBAND_NOTIFICATIONS] = "INBAND_NOTIFICATIONS",
	[BF_PROTOCOL_F_CONFIGURE_MEM_SLOTS] = "CONFIGURE_MEM_SLOTS",
	[BF_PROTOCOL_F_STATUS] = "STATUS",
	[BF_PROTOCOL_F_XEN_MMAP] = "XEN_MMAP",
	[BF_PROTOCOL_F_SHARED_OBJECT] = "SHARED_OBJECT",
	[BF_PROTOCOL_F_DEVICE_STATE] = "DEVICE_STATE",
	[BF_PROTOCOL_F_GET_VRING_BASE_INFLIGHT] = "GET_VRING_BASE_INFLIGHT",
	[BF_PROTOCOL_F_GPA_ADDRESSES] = "GPA_ADDRESSES",
	[BF_PROTOCOL_F_SHMEM] = "SHMEM",
	[BF_PROTOCOL_F_GET_VRING_BASE_SKIP_DRAIN] = "GET_VRING_BASE_SKIP_DRAIN",
};
_Static_assert(sizeof(protocol_feature_names) / sizeof(protocol_feature_names[0]) ==
		       BF_PROTOCOL_F_NR,
	       "every protocol feature has a name");

const char *bf_protocol_feature_name(unsigned bit)
{
	return bit < BF_PROTOCOL_F_NR ? protocol_feature_names[bit] : NULL;
}
