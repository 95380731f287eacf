/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Handlers: negotiation. Virtio features, protocol features, owner, queue number, back-end channel.
 *
 * Control context. Must not change a ring's state on SET_FEATURES with bit 30: it is sent again in
 * the middle of operation.
 */
#include "backend.h"

#include <errno.h>
#include <linux/virtio_config.h>

int bf_handle_get_features(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply)
{
	(void)msg;
	bf_msg_set_u64(reply, be->features | bf_bit(BF_VHOST_USER_F_PROTOCOL_FEATURES));
	return 0;
}

/* "IOMMU support": ring and buffer addresses become I/O virtual ones. No vring runs. */
static int prepare_iotlb(struct bf_backend *be, uint64_t features)
{
	if (!bf_has(features, VIRTIO_F_ACCESS_PLATFORM)) {
		bf_iotlb_free(be->iotlb);
		be->iotlb = NULL;
		return 0;
	}
	if (!be->iotlb)
		be->iotlb = bf_iotlb_new();
	return be->iotlb ? 0 : bf_report_error(&be->report, -ENOMEM, "no memory for an IOTLB");
}

/* @features: without the wire's own bits. */
static int accept_features(struct bf_backend *be, uint64_t features)
{
	int ret;

	if (be->features_set && features == be->agreed.features)
		return 0;
	if (bf_vring_any_running(be))
		return bf_report_error(&be->report, -EBUSY,
				       "SET_FEATURES: features change while vrings run; stop them "
				       "first (GET_VRING_BASE)");
	ret = be->ops->set_features ? be->ops->set_features(be->opaque, features) : 0;
	if (ret)
		return bf_report_error(&be->report, ret < 0 ? ret : -EIO,
				       "SET_FEATURES: the device refused 0x%llx (error %d)",
				       (unsigned long long)features, ret);
	ret = prepare_iotlb(be, features);
	if (ret)
		return ret;
	be->agreed.features = features;
	be->features_set = true;
	return 0;
}

int bf_handle_set_features(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply)
{
	bool acknowledged = bf_has(msg->payload.u64, BF_VHOST_USER_F_PROTOCOL_FEATURES);
	uint64_t features = msg->payload.u64 & ~bf_bit(BF_VHOST_USER_F_PROTOCOL_FEATURES);
	int ret;

	(void)reply;
	if (features & ~be->features)
		return bf_report_error(&be->report, -EINVAL,
				       "SET_FEATURES: 0x%llx was not offered (offered: 0x%llx)",
				       (unsigned long long)(features & ~be->features),
				       (unsigned long long)be->features);
	ret = accept_features(be, features & ~bf_bit(BF_VHOST_F_LOG_ALL));
	/* In the middle of a migration it is sent again for this bit alone. */
	if (!ret)
		ret = bf_log_set_all(be, bf_has(features, BF_VHOST_F_LOG_ALL));
	if (ret)
		return ret;
	be->agreed.protocol_acknowledged = acknowledged;
	if (acknowledged)
		return 0;
	/* "Ring states": without it rings are enabled from the beginning. */
	ret = 0;
	for (unsigned i = 0; i < be->nr_queues; i++) {
		int one = bf_vring_set_enabled(be, i, true);

		ret = ret ? ret : one;
	}
	return ret;
}

/* SET_OWNER says nothing that a connection does not; RESET_OWNER is deprecated and to be ignored.
 */
int bf_handle_owner(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply)
{
	(void)be;
	(void)msg;
	(void)reply;
	return 0;
}

int bf_handle_get_protocol_features(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply)
{
	(void)msg;
	bf_msg_set_u64(reply, be->protocol_features);
	return 0;
}

int bf_handle_set_protocol_features(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply)
{
	uint64_t features = msg->payload.u64;

	(void)reply;
	if (features & ~be->protocol_features)
		return bf_report_error(
			&be->report, -EINVAL,
			"SET_PROTOCOL_FEATURES: 0x%llx was not offered (offered: 0x%llx)",
			(unsigned long long)(features & ~be->protocol_features),
			(unsigned long long)be->protocol_features);
	if (features != be->agreed.protocol_features && bf_vring_any_running(be))
		return bf_report_error(&be->report, -EBUSY,
				       "SET_PROTOCOL_FEATURES: features change while vrings run");
	if (bf_has(features, BF_PROTOCOL_F_INBAND_NOTIFICATIONS) &&
	    !(bf_has(features, BF_PROTOCOL_F_BACKEND_REQ) &&
	      bf_has(features, BF_PROTOCOL_F_REPLY_ACK))) {
		/* "the back-end must close the connection" */
		be->fatal = true;
		return bf_report_error(
			&be->report, -EPROTO,
			"SET_PROTOCOL_FEATURES: in-band notifications need a back-end "
			"channel (bit 5) and acknowledgements (bit 3)");
	}
	be->agreed.protocol_features = features;
	return 0;
}

int bf_handle_get_queue_num(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply)
{
	(void)msg;
	bf_msg_set_u64(reply, be->nr_queues);
	return 0;
}

/* A second channel replaces the first; what was asked there will not be answered any more. */
int bf_handle_set_backend_req_fd(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply)
{
	int ret;

	(void)reply;
	ret = bf_backend_open_back(be, bf_msg_take_fd(msg, 0));
	if (ret < 0)
		return bf_report_error(
			&be->report, ret,
			"SET_BACKEND_REQ_FD: expected a connected AF_UNIX stream socket "
			"(error %d)",
			ret);
	return 0;
}
