/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The codec: is this message what the table says? Pure functions of bytes; any context.
 *
 * Wire structures are in host byte order, so decoding is checking. Nothing here reads a payload
 * before its size is known to be right, and no handler sees a message that did not pass.
 */
#include "message.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <string.h>
#include <unistd.h>

#include "../base/fd.h"

/* The bytes of the wire, clause "Message Specification" of the protocol. */
_Static_assert(sizeof(struct bf_header) == 12, "wire");
_Static_assert(sizeof(struct bf_vring_state) == 8, "wire");
_Static_assert(sizeof(struct bf_vring_addr) == 40, "wire");
_Static_assert(offsetof(struct bf_vring_addr, log) == 32, "wire");
_Static_assert(sizeof(struct bf_mem_region) == 32, "wire");
_Static_assert(offsetof(struct bf_mem_table, regions) == 8, "wire");
_Static_assert(sizeof(struct bf_mem_reg) == 40, "wire");
_Static_assert(sizeof(struct bf_xen_region) == 40, "wire");
_Static_assert(sizeof(struct bf_xen_reg) == 48, "wire");
_Static_assert(sizeof(struct bf_log_area) == 16, "wire");
_Static_assert(offsetof(struct bf_iotlb, type) == 25, "wire");
_Static_assert(sizeof(struct bf_iotlb) == 32, "wire");
_Static_assert(offsetof(struct bf_config, data) == 12, "wire");
_Static_assert(offsetof(struct bf_inflight, queue_size) == 18, "wire");
_Static_assert(sizeof(struct bf_vring_area) == 24, "wire");
_Static_assert(sizeof(struct bf_uuid) == 16, "wire");
_Static_assert(sizeof(struct bf_device_state) == 8, "wire");
_Static_assert(sizeof(struct bf_shmem_config) == 2056, "wire");
_Static_assert(sizeof(struct bf_shmem_map) == 40, "wire");
_Static_assert(sizeof(union bf_payload) % 8 == 0, "aligned for every member");

/* The in-flight description ends at queue_size; some peers send the padding of their structure. */
#define INFLIGHT_BARE offsetof(struct bf_inflight, pad)

static int fail(int error, const char **why, const char *text)
{
	if (why)
		*why = text;
	return error;
}

int bf_header_check(const struct bf_header *hdr, const char **why)
{
	if ((hdr->flags & BF_FLAGS_VERSION_MASK) != BF_FLAGS_VERSION)
		return fail(-EPROTONOSUPPORT, why, "protocol version 1 expected in the flags");
	if (hdr->size > BF_PAYLOAD_MAX)
		return fail(-EBADMSG, why, "payload larger than that of any message");
	return 0;
}

static bool xen(const struct bf_agreed *agreed)
{
	return bf_has(agreed->protocol_features, BF_PROTOCOL_F_XEN_MMAP);
}

static bool table_size_ok(const struct bf_msg *msg, const struct bf_agreed *agreed)
{
	size_t head = offsetof(struct bf_mem_table, regions);
	size_t each = xen(agreed) ? sizeof(struct bf_xen_region) : sizeof(struct bf_mem_region);

	if (msg->hdr.size < head || msg->payload.table.nr > BF_TABLE_REGIONS)
		return false;
	return msg->hdr.size == head + each * msg->payload.table.nr;
}

static bool config_size_ok(const struct bf_msg *msg)
{
	if (msg->hdr.size < bf_config_wire_size(0) || msg->payload.config.size > BF_CONFIG_MAX)
		return false;
	return msg->hdr.size == bf_config_wire_size(msg->payload.config.size);
}

static bool inflight_size_ok(uint32_t size)
{
	return size == INFLIGHT_BARE || size == sizeof(struct bf_inflight);
}

static bool size_ok(enum bf_payload_kind kind, const struct bf_msg *msg,
		    const struct bf_agreed *agreed)
{
	uint32_t size = msg->hdr.size;

	switch (kind) {
	case BF_PAYLOAD_NONE:
		return size == 0;
	case BF_PAYLOAD_U64:
	case BF_PAYLOAD_VRING_FD:
		return size == sizeof(uint64_t);
	case BF_PAYLOAD_STATE:
		return size == sizeof(struct bf_vring_state);
	case BF_PAYLOAD_ADDR:
		return size == sizeof(struct bf_vring_addr);
	case BF_PAYLOAD_TABLE:
		return table_size_ok(msg, agreed);
	case BF_PAYLOAD_REG:
		return size == (xen(agreed) ? sizeof(struct bf_xen_reg) : sizeof(struct bf_mem_reg));
	case BF_PAYLOAD_LOG:
		return size == (bf_has(agreed->protocol_features, BF_PROTOCOL_F_LOG_SHMFD) ?
					sizeof(struct bf_log_area) :
					sizeof(uint64_t));
	case BF_PAYLOAD_LOG_REPLY:
		return size <= sizeof(uint64_t);
	case BF_PAYLOAD_IOTLB:
		return size == sizeof(struct bf_iotlb);
	case BF_PAYLOAD_CONFIG:
		return config_size_ok(msg);
	case BF_PAYLOAD_INFLIGHT:
		return inflight_size_ok(size);
	case BF_PAYLOAD_INFLIGHT_ASK:
		return !size || inflight_size_ok(size);
	case BF_PAYLOAD_AREA:
		return size == sizeof(struct bf_vring_area);
	case BF_PAYLOAD_SESSION:
		return size >= sizeof(uint64_t) && size <= sizeof(struct bf_crypto_session);
	case BF_PAYLOAD_UUID:
		return size == sizeof(struct bf_uuid);
	case BF_PAYLOAD_DEVICE_STATE:
		return size == sizeof(struct bf_device_state);
	case BF_PAYLOAD_SHMEM_CONFIG:
		return size == sizeof(struct bf_shmem_config);
	case BF_PAYLOAD_SHMEM_MAP:
		return size == sizeof(struct bf_shmem_map);
	}
	return false;
}

/* Descriptors that the content itself asks for; -1: the bounds of the table are all there is. */
static int fds_by_content(enum bf_payload_kind kind, const struct bf_msg *msg,
			  const struct bf_agreed *agreed)
{
	switch (kind) {
	case BF_PAYLOAD_TABLE:
		return (int)msg->payload.table.nr;
	case BF_PAYLOAD_VRING_FD:
		return msg->payload.u64 & BF_VRING_NOFD ? 0 : 1;
	case BF_PAYLOAD_AREA:
		return msg->payload.area.index & BF_VRING_NOFD ? 0 : 1;
	case BF_PAYLOAD_LOG:
		return bf_has(agreed->protocol_features, BF_PROTOCOL_F_LOG_SHMFD) ? 1 : 0;
	default:
		return -1;
	}
}

static bool fds_ok(unsigned nr, unsigned min, unsigned max, int by_content)
{
	if (nr < min || nr > max)
		return false;
	return by_content < 0 || nr == (unsigned)by_content;
}

static bool gate_open(const struct bf_msg_desc *desc, const struct bf_agreed *agreed)
{
	uint64_t protocol = agreed->protocol_features;

	switch (desc->gate) {
	case BF_GATE_NONE:
		return true;
	case BF_GATE_PROTOCOL:
		return bf_has(protocol, desc->gate_bit);
	case BF_GATE_VIRTIO:
		return bf_has(agreed->features, desc->gate_bit);
	case BF_GATE_OFFERED:
		return agreed->protocol_offered;
	case BF_GATE_ACKNOWLEDGED:
		return agreed->protocol_acknowledged;
	case BF_GATE_POSTCOPY:
		return bf_has(protocol, BF_PROTOCOL_F_PAGEFAULT) &&
		       !bf_has(protocol, BF_PROTOCOL_F_CONFIGURE_MEM_SLOTS);
	case BF_GATE_DEVICE:
		return agreed->gpu;
	}
	return false;
}

int bf_request_check(enum bf_channel_kind channel, const struct bf_msg *msg,
		     const struct bf_agreed *agreed, const char **why)
{
	const struct bf_msg_desc *desc = bf_msg_desc(channel, msg->hdr.request);

	if (!desc)
		return fail(-ENOMSG, why, "no such request in the protocol");
	if (msg->hdr.flags & ~(BF_FLAGS_VERSION_MASK | BF_FLAGS_NEED_REPLY))
		return fail(-EBADMSG, why, "a request's flags are version and need_reply only");
	if (!size_ok(desc->payload, msg, agreed))
		return fail(-EBADMSG, why, "payload size does not fit the request");
	if (!fds_ok(msg->nr_fds, desc->min_fds, desc->max_fds,
		    fds_by_content(desc->payload, msg, agreed)))
		return fail(-EBADF, why, "number of file descriptors does not fit the request");
	if (!gate_open(desc, agreed))
		return fail(-EOPNOTSUPP, why, "its feature was not agreed");
	return 0;
}

static enum bf_payload_kind reply_kind(const struct bf_msg_desc *desc, uint32_t request_id,
				       enum bf_channel_kind channel, const struct bf_msg *reply)
{
	/* "GET_CONFIG: zero-length payload = error"; whoever asked decides what that means. */
	if (channel == BF_CHANNEL_MAIN && request_id == BF_FE_GET_CONFIG && reply->hdr.size == 0)
		return BF_PAYLOAD_NONE;
	return desc->reply;
}

int bf_reply_check(enum bf_channel_kind channel, uint32_t request, const struct bf_msg *reply,
		   const struct bf_agreed *agreed, const char **why)
{
	const struct bf_msg_desc *desc = bf_msg_desc(channel, request);

	if (!desc)
		return fail(-ENOMSG, why, "no such request in the protocol");
	if (reply->hdr.request != request)
		return fail(-EBADMSG, why, "replies come in the order of the requests");
	if (reply->hdr.flags != (BF_FLAGS_VERSION | BF_FLAGS_REPLY))
		return fail(-EBADMSG, why, "a reply's flags are version and reply, nothing else");
	if (!size_ok(reply_kind(desc, request, channel, reply), reply, agreed))
		return fail(-EBADMSG, why, "payload size does not fit the reply");
	if (!fds_ok(reply->nr_fds, desc->reply_min_fds, desc->reply_max_fds, -1))
		return fail(-EBADF, why, "number of file descriptors does not fit the reply");
	return 0;
}

bool bf_reply_expected(enum bf_channel_kind channel, const struct bf_header *hdr,
		       const struct bf_agreed *agreed)
{
	const struct bf_msg_desc *desc = bf_msg_desc(channel, hdr->request);

	if (!desc)
		return false;
	if (desc->reply_rule == BF_REPLY_ALWAYS)
		return true;
	if (desc->reply_rule == BF_REPLY_WITH_LOG_SHMFD &&
	    bf_has(agreed->protocol_features, BF_PROTOCOL_F_LOG_SHMFD))
		return true;
	return (hdr->flags & BF_FLAGS_NEED_REPLY) &&
	       bf_has(agreed->protocol_features, BF_PROTOCOL_F_REPLY_ACK);
}

/* Zeroed as a whole: padding of a reply never carries what was in this memory before. */
void bf_msg_init(struct bf_msg *msg, uint32_t request, uint32_t flags)
{
	memset(msg, 0, sizeof(*msg));
	msg->hdr.request = request;
	msg->hdr.flags = BF_FLAGS_VERSION | flags;
	for (unsigned i = 0; i < BF_MAX_FDS; i++)
		msg->fds[i] = -1;
}

void bf_msg_set(struct bf_msg *msg, const void *payload, size_t size)
{
	memcpy(msg->payload.bytes, payload, size);
	msg->hdr.size = (uint32_t)size;
}

void bf_msg_set_u64(struct bf_msg *msg, uint64_t value)
{
	msg->payload.u64 = value;
	msg->hdr.size = sizeof(value);
}

void bf_msg_set_state(struct bf_msg *msg, uint32_t index, uint32_t num)
{
	msg->payload.state = (struct bf_vring_state){ .index = index, .num = num };
	msg->hdr.size = sizeof(msg->payload.state);
}

void bf_msg_lend_fd(struct bf_msg *msg, int fd)
{
	msg->fds[msg->nr_fds++] = fd;
}

int bf_msg_take_fd(struct bf_msg *msg, unsigned i)
{
	return i < msg->nr_fds ? bf_fd_take(&msg->fds[i]) : -1;
}

void bf_msg_close_fds(struct bf_msg *msg)
{
	for (unsigned i = 0; i < msg->nr_fds; i++)
		bf_fd_close(&msg->fds[i]);
	msg->nr_fds = 0;
}
