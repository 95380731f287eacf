/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Handlers: the device as such. Config space, status, reset.
 *
 * Control context. Every range is checked here against config_size, so that the device's operations
 * only ever see one that lies inside.
 */
#include "backend.h"

#include <errno.h>
#include <linux/virtio_config.h>

#include "../base/check.h"

/* "GET_CONFIG: in case of an error the payload is zero-length." The connection lives. */
static int no_config(struct bf_backend *be, const struct bf_config *ask, int error, const char *why)
{
	bf_report_error(&be->report, error, "GET_CONFIG of %u bytes at %u: %s", ask->size,
			ask->offset, why);
	bf_report_peer(&be->report, BF_LOG_WARN, "%s", be->report.error);
	return 0;
}

/*
 * The reply has the size that was asked for. Front ends ask for the whole structure that they know,
 * which may be longer than ours: what lies beyond config space reads as zero.
 */
int bf_handle_get_config(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply)
{
	const struct bf_config *ask = &msg->payload.config;
	struct bf_config *answer = &reply->payload.config;
	uint32_t len;
	int ret;

	if (!ask->size || ask->offset >= be->config_size)
		return no_config(be, ask, -EINVAL, "outside config space");
	len = be->config_size - ask->offset;
	if (len > ask->size)
		len = ask->size;
	ret = be->ops->get_config(be->opaque, ask->offset, answer->data, len);
	if (ret)
		return no_config(be, ask, ret, "the device refused");
	answer->offset = ask->offset;
	answer->size = ask->size;
	answer->flags = ask->flags;
	reply->hdr.size = bf_config_wire_size(ask->size);
	return 0;
}

int bf_handle_set_config(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply)
{
	const struct bf_config *write = &msg->payload.config;
	int ret;

	(void)reply;
	if (!be->ops->set_config)
		return bf_report_error(&be->report, -EOPNOTSUPP,
				       "SET_CONFIG: the device has no writable config space");
	/* 0 and 1 are the specification's values; 2 is what some front ends send for a migration.
	 */
	if (write->flags > 2)
		return bf_report_error(
			&be->report, -EINVAL,
			"SET_CONFIG: flags 0x%x; expected 0 (write) or 1 (migration)",
			write->flags);
	if (!write->size || !bf_range_ok(write->offset, write->size, be->config_size))
		return bf_report_error(&be->report, -EINVAL,
				       "SET_CONFIG: %u bytes at %u, config space has %u",
				       write->size, write->offset, be->config_size);
	ret = be->ops->set_config(be->opaque, write->offset, write->data, write->size,
				  write->flags != BF_CONFIG_WRITE);
	if (ret)
		return bf_report_error(&be->report, ret < 0 ? ret : -EIO,
				       "SET_CONFIG: the device refused (error %d)", ret);
	return 0;
}

/*
 * Rings as they were at the beginning; memory, agreements and call eventfds belong to the
 * connection and stay. Without bit 30 "at the beginning" is enabled.
 */
int bf_handle_reset_device(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply)
{
	(void)msg;
	(void)reply;
	for (unsigned i = 0; i < be->nr_queues; i++) {
		bf_vring_reset(be, i, false);
		be->vrings[i].enabled = be->features_set && !be->agreed.protocol_acknowledged;
	}
	be->status = 0;
	bf_shmem_forget(be);
	if (be->ops->reset)
		be->ops->reset(be->opaque);
	return 0;
}

int bf_handle_get_status(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply)
{
	(void)msg;
	bf_msg_set_u64(reply, be->status);
	return 0;
}

/*
 * Kept for the front end to read back. Zero is a reset by the driver, so no ring runs on; but front
 * ends send it also at a mere pause of the machine, which is why the device's own state, rings'
 * positions included, is left to RESET_DEVICE.
 */
int bf_handle_set_status(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply)
{
	uint64_t status = msg->payload.u64;
	int ret;

	(void)reply;
	if (status > UINT8_MAX)
		return bf_report_error(&be->report, -EINVAL,
				       "SET_STATUS: 0x%llx; a device status has 8 bits",
				       (unsigned long long)status);
	if (!status)
		for (unsigned i = 0; i < be->nr_queues; i++)
			bf_vring_unstart(be, i);
	/* What we have found is not for the driver to take back, but by a reset (virtio 1.2, 2.1.2). */
	if (status)
		status |= be->status & VIRTIO_CONFIG_S_NEEDS_RESET;
	be->status = (uint8_t)status;
	if (!be->offload || !be->offload->status)
		return 0;
	ret = be->offload->status(be->opaque, be->status);
	if (ret)
		return bf_report_error(&be->report, ret < 0 ? ret : -EIO,
				       "SET_STATUS: the device did not take 0x%x (error %d)",
				       be->status, ret);
	return 0;
}
