/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One message in memory, and the table of all messages.
 *
 * A message owns its file descriptors: whoever takes one leaves -1 in its place, and
 * bf_msg_close_fds() closes the rest. The table (messages.def) is the single place that knows each
 * message's name, payload, descriptors, reply rule and condition; checks run from it before any
 * handler sees a message. Pure: no socket, no allocation, no logging. Any context.
 */
#ifndef PROTO_MESSAGE_H
#define PROTO_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <belfry/protocol.h>

/* Largest payload of any message: a config read of BF_CONFIG_MAX bytes. */
#define BF_PAYLOAD_MAX (sizeof(struct bf_config))

union bf_payload {
	uint64_t u64;
	struct bf_vring_state state;
	struct bf_vring_addr addr;
	struct bf_mem_table table;
	struct bf_mem_reg reg;
	struct bf_xen_table xen_table;
	struct bf_xen_reg xen_reg;
	struct bf_log_area log;
	struct bf_iotlb iotlb;
	struct bf_config config;
	struct bf_inflight inflight;
	struct bf_vring_area area;
	struct bf_crypto_session session;
	struct bf_uuid uuid;
	struct bf_device_state device_state;
	struct bf_shmem_config shmem_config;
	struct bf_shmem_map shmem_map;
	uint8_t bytes[BF_PAYLOAD_MAX];
};

struct bf_msg {
	struct bf_header hdr;
	union bf_payload payload;
	int fds[BF_MAX_FDS];
	unsigned nr_fds;
};

/* Which socket, and so whose requests. */
enum bf_channel_kind {
	BF_CHANNEL_MAIN, /* requests of the front end */
	BF_CHANNEL_BACK, /* requests of the back end */
};

enum bf_payload_kind {
	BF_PAYLOAD_NONE,
	BF_PAYLOAD_U64,
	BF_PAYLOAD_VRING_FD, /* u64: queue and "no fd" bit; the descriptor count follows the bit */
	BF_PAYLOAD_STATE,
	BF_PAYLOAD_ADDR,
	BF_PAYLOAD_TABLE, /* as many descriptors as regions */
	BF_PAYLOAD_REG,
	BF_PAYLOAD_LOG,   /* u64, or struct bf_log_area with LOG_SHMFD */
	BF_PAYLOAD_LOG_REPLY, /* anything up to a u64: implementations differ */
	BF_PAYLOAD_IOTLB,
	BF_PAYLOAD_CONFIG,
	BF_PAYLOAD_INFLIGHT,
	BF_PAYLOAD_INFLIGHT_ASK, /* the same, or nothing: some front ends do not say for what */
	BF_PAYLOAD_AREA, /* struct bf_vring_area; the descriptor count follows its "no fd" bit */
	BF_PAYLOAD_SESSION,
	BF_PAYLOAD_UUID,
	BF_PAYLOAD_DEVICE_STATE,
	BF_PAYLOAD_SHMEM_CONFIG,
	BF_PAYLOAD_SHMEM_MAP,
};

enum bf_reply_rule {
	BF_REPLY_ACK,    /* u64, only if REPLY_ACK is agreed and need_reply is set; 0 is success */
	BF_REPLY_ALWAYS, /* its own body, always */
	BF_REPLY_WITH_LOG_SHMFD, /* SET_LOG_BASE: always with LOG_SHMFD, else like BF_REPLY_ACK */
};

/* When a message is legal. */
enum bf_gate_kind {
	BF_GATE_NONE,
	BF_GATE_PROTOCOL,      /* @gate_bit of the agreed protocol features */
	BF_GATE_VIRTIO,        /* @gate_bit of the virtio features that were acknowledged */
	BF_GATE_OFFERED,       /* bit 30 was offered (GET_PROTOCOL_FEATURES comes before any agreement) */
	BF_GATE_ACKNOWLEDGED,  /* bit 30 was acknowledged */
	BF_GATE_POSTCOPY,      /* PAGEFAULT without CONFIGURE_MEM_SLOTS */
	BF_GATE_DEVICE,        /* belongs to one device type (gpu) */
};

struct bf_msg_desc {
	const char *name;
	enum bf_payload_kind payload;
	uint8_t min_fds, max_fds;
	enum bf_reply_rule reply_rule;
	enum bf_payload_kind reply;
	uint8_t reply_min_fds, reply_max_fds;
	enum bf_gate_kind gate;
	uint8_t gate_bit;
};

/* What has been agreed on a connection, as far as the checks need it. */
struct bf_agreed {
	bool protocol_offered;      /* bit 30 in what the back end offers */
	bool protocol_acknowledged; /* bit 30 in SET_FEATURES */
	bool gpu;                   /* the device is one that takes GPU_SET_SOCKET */
	uint64_t features;          /* acknowledged virtio features */
	uint64_t protocol_features;
};

/* NULL: no such message. */
const struct bf_msg_desc *bf_msg_desc(enum bf_channel_kind channel, uint32_t request);
/* Name for people; "unknown request" if none. */
const char *bf_msg_name(enum bf_channel_kind channel, uint32_t request);
/* Number of ids, one beyond the largest. */
uint32_t bf_msg_end(enum bf_channel_kind channel);
/* Names for people of feature bits; NULL past the last. */
const char *bf_protocol_feature_name(unsigned bit);

/*
 * Checks. 0 or: -EPROTONOSUPPORT another version; -ENOMSG no such request; -EOPNOTSUPP not agreed;
 * -EBADMSG wrong flags, size or relation between size and content; -EBADF wrong number of
 * descriptors. *@why (if not NULL) gets a phrase: what was expected.
 *
 * bf_header_check() runs on the header alone, before the payload is read: after it, hdr.size is at
 * most BF_PAYLOAD_MAX. The message check needs the whole message.
 */
int bf_header_check(const struct bf_header *hdr, const char **why);
int bf_request_check(enum bf_channel_kind channel, const struct bf_msg *msg,
		     const struct bf_agreed *agreed, const char **why);
int bf_reply_check(enum bf_channel_kind channel, uint32_t request, const struct bf_msg *reply,
		   const struct bf_agreed *agreed, const char **why);

/* Does this request get a reply, and is the reply a bare acknowledgement? */
bool bf_reply_expected(enum bf_channel_kind channel, const struct bf_header *hdr,
		       const struct bf_agreed *agreed);

/*
 * Begin a request or a reply with an empty payload and no descriptors. The size follows from
 * bf_msg_set_*() below, or is set by hand for payloads of variable length.
 */
void bf_msg_init(struct bf_msg *msg, uint32_t request, uint32_t flags);
void bf_msg_set_u64(struct bf_msg *msg, uint64_t value);
void bf_msg_set_state(struct bf_msg *msg, uint32_t index, uint32_t num);
/* @payload: exactly @size bytes of wire structure. */
void bf_msg_set(struct bf_msg *msg, const void *payload, size_t size);
/* Lend a descriptor to a message that is about to be sent: the message does not own it. */
void bf_msg_lend_fd(struct bf_msg *msg, int fd);

/* Size on the wire of a config or table payload with @n bytes or regions. */
static inline uint32_t bf_config_wire_size(uint32_t n)
{
	return (uint32_t)offsetof(struct bf_config, data) + n;
}
static inline uint32_t bf_table_wire_size(uint32_t n)
{
	return (uint32_t)(offsetof(struct bf_mem_table, regions) + n * sizeof(struct bf_mem_region));
}

/* Take descriptor @i out of a received message; it is the caller's then. */
int bf_msg_take_fd(struct bf_msg *msg, unsigned i);
/* Close what nobody took. */
void bf_msg_close_fds(struct bf_msg *msg);

#endif
