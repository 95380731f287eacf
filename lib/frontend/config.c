/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Config space, device status, device reset: one question each.
 *
 * Control context; all of it waits. Nothing here keeps a copy of config space.
 */
#include "frontend.h"

#include <errno.h>
#include <string.h>

static int check_feature(struct bf_frontend *fe, unsigned bit)
{
	int ret = bf_fe_check_attached(fe);

	if (ret < 0)
		return ret;
	if (bf_has(fe->agreed.protocol_features, bit))
		return 0;
	return bf_report_error(&fe->report, -EOPNOTSUPP, "the back end does not offer %s",
			       bf_protocol_feature_name(bit));
}

static int check_config_range(struct bf_frontend *fe, uint32_t offset, uint32_t len)
{
	int ret = check_feature(fe, BF_PROTOCOL_F_CONFIG);

	if (ret < 0)
		return ret;
	if (len == 0 || len > BF_CONFIG_MAX || offset > UINT32_MAX - len)
		return bf_report_error(&fe->report, -EINVAL,
				       "config space: 1 to %u bytes expected, got %u at offset %u",
				       BF_CONFIG_MAX, len, offset);
	return 0;
}

static void config_request(struct bf_msg *msg, uint32_t request, uint32_t offset, uint32_t len)
{
	bf_msg_init(msg, request, 0);
	msg->payload.config.offset = offset;
	msg->payload.config.size = len;
	msg->payload.config.flags = BF_CONFIG_WRITE;
	msg->hdr.size = bf_config_wire_size(len);
}

struct config_read {
	uint32_t offset, len;
	void *data;
};

static int take_config(void *opaque, struct bf_frontend *fe, const struct bf_msg *reply)
{
	const struct config_read *read = opaque;
	const struct bf_config *config = &reply->payload.config;

	if (reply->hdr.size == 0)
		return -EREMOTEIO;
	if (config->offset != read->offset || config->size != read->len)
		return bf_report_error(
			&fe->report, -EPROTO,
			"GET_CONFIG: asked for %u bytes at %u, the reply has %u at %u", read->len,
			read->offset, config->size, config->offset);
	memcpy(read->data, config->data, read->len);
	return 0;
}

int bf_frontend_get_config(struct bf_frontend *fe, uint32_t offset, void *data, uint32_t len)
{
	struct config_read read = { .offset = offset, .len = len, .data = data };
	struct bf_batch batch;
	struct bf_msg msg;
	int ret = check_config_range(fe, offset, len);

	if (ret < 0)
		return ret;
	bf_batch_init(&batch, fe);
	config_request(&msg, BF_FE_GET_CONFIG, offset, len);
	bf_batch_ask(&batch, &msg, -1, take_config, &read);
	return bf_batch_wait(&batch);
}

int bf_frontend_set_config(struct bf_frontend *fe, uint32_t offset, const void *data, uint32_t len)
{
	struct bf_batch batch;
	struct bf_msg msg;
	int ret = check_config_range(fe, offset, len);

	if (ret < 0)
		return ret;
	bf_batch_init(&batch, fe);
	config_request(&msg, BF_FE_SET_CONFIG, offset, len);
	memcpy(msg.payload.config.data, data, len);
	bf_batch_ask(&batch, &msg, -1, NULL, NULL);
	return bf_batch_wait(&batch);
}

/* What a reset ends is stopped by us first: not every back end does so on its own. */
static int reset(struct bf_frontend *fe, struct bf_msg *msg)
{
	struct bf_fe_stop stops[BF_MAX_QUEUES];
	struct bf_batch batch;
	int ret;

	bf_batch_init(&batch, fe);
	bf_fe_stop_all_vrings(&batch, "the device was reset", stops);
	bf_batch_ask(&batch, msg, -1, NULL, NULL);
	ret = bf_batch_wait(&batch);
	if (!ret || ret == -EREMOTEIO) {
		int drained = bf_fe_drain_back(fe);

		return drained < 0 ? bf_fe_close(fe, drained) : ret;
	}
	return bf_fe_close(fe, ret); /* some vrings may not have been told to stop */
}

int bf_frontend_set_status(struct bf_frontend *fe, uint8_t status)
{
	struct bf_batch batch;
	struct bf_msg msg;
	int ret = bf_fe_check_attached(fe);

	if (ret < 0)
		return ret;
	if (!bf_has(fe->agreed.protocol_features, BF_PROTOCOL_F_STATUS))
		return 0;
	bf_msg_init(&msg, BF_FE_SET_STATUS, 0);
	bf_msg_set_u64(&msg, status);
	if (status == 0)
		return reset(fe, &msg);
	bf_batch_init(&batch, fe);
	bf_batch_ask(&batch, &msg, -1, NULL, NULL);
	return bf_batch_wait(&batch);
}

int bf_frontend_get_status(struct bf_frontend *fe)
{
	struct bf_batch batch;
	uint64_t status = 0;
	int ret = check_feature(fe, BF_PROTOCOL_F_STATUS);

	if (ret < 0)
		return ret;
	bf_batch_init(&batch, fe);
	bf_batch_ask_u64(&batch, BF_FE_GET_STATUS, &status);
	ret = bf_batch_wait(&batch);
	if (ret < 0)
		return ret;
	if (status > UINT8_MAX) {
		bf_report_error(&fe->report, -EPROTO,
				"GET_STATUS: a status of 8 bits expected, got 0x%llx",
				(unsigned long long)status);
		return bf_fe_close(fe, -EPROTO);
	}
	return (int)status;
}

int bf_frontend_reset_device(struct bf_frontend *fe)
{
	struct bf_msg msg;
	int ret = check_feature(fe, BF_PROTOCOL_F_RESET_DEVICE);

	if (ret < 0)
		return ret;
	bf_msg_init(&msg, BF_FE_RESET_DEVICE, 0);
	return reset(fe, &msg);
}
