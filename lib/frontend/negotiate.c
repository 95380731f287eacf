/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What both sides can: features, protocol features, queues, memory slots, the back-end channel.
 *
 * Control context. A handshake is three round trips: what the back end offers; its protocol
 * features; and everything that follows from our choice, in one.
 */
#include "frontend.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <string.h>
#include <sys/socket.h>

#include "../base/fd.h"

uint64_t bf_frontend_supported_protocol_features(void)
{
	return bf_bit(BF_PROTOCOL_F_MQ) | bf_bit(BF_PROTOCOL_F_REPLY_ACK) |
	       bf_bit(BF_PROTOCOL_F_BACKEND_REQ) | bf_bit(BF_PROTOCOL_F_CONFIG) |
	       bf_bit(BF_PROTOCOL_F_BACKEND_SEND_FD) | bf_bit(BF_PROTOCOL_F_HOST_NOTIFIER) |
	       bf_bit(BF_PROTOCOL_F_RESET_DEVICE) | bf_bit(BF_PROTOCOL_F_CONFIGURE_MEM_SLOTS) |
	       bf_bit(BF_PROTOCOL_F_STATUS);
}

/*
 * Not for the driver: two bits belong to the protocol, and ACCESS_PLATFORM promises the back end an
 * IOTLB, which is not served here.
 */
static uint64_t hidden_features(void)
{
	return bf_bit(BF_VHOST_USER_F_PROTOCOL_FEATURES) | bf_bit(BF_VHOST_F_LOG_ALL) |
	       bf_bit(VIRTIO_F_ACCESS_PLATFORM);
}

/* A page needs a way to come, an fd that may come along, and somebody who lays it. */
static bool can_have_doorbells(const struct bf_frontend *fe, uint64_t features)
{
	return bf_has(features, BF_PROTOCOL_F_BACKEND_REQ) &&
	       bf_has(features, BF_PROTOCOL_F_BACKEND_SEND_FD) && fe->ops.doorbell_map &&
	       fe->ops.doorbell_unmap;
}

static uint64_t choose_protocol_features(const struct bf_frontend *fe, uint64_t offered)
{
	uint64_t features = offered & fe->protocol_mask;

	if (!can_have_doorbells(fe, features))
		features &= ~bf_bit(BF_PROTOCOL_F_HOST_NOTIFIER);
	if (!bf_has(features, BF_PROTOCOL_F_BACKEND_REQ))
		features &= ~bf_bit(BF_PROTOCOL_F_BACKEND_SEND_FD);
	return features;
}

/* What the state of every doorbell says until a page comes. */
static const char *doorbell_reason(const struct bf_frontend *fe, uint64_t offered)
{
	if (bf_has(fe->agreed.protocol_features, BF_PROTOCOL_F_HOST_NOTIFIER))
		return "the back end has not offered a page";
	if (!fe->ops.doorbell_map || !fe->ops.doorbell_unmap)
		return "HOST_NOTIFIER was not agreed: nobody here can map doorbells";
	if (can_have_doorbells(fe, offered) && bf_has(offered, BF_PROTOCOL_F_HOST_NOTIFIER))
		return "HOST_NOTIFIER was not agreed: switched off on our side";
	return "HOST_NOTIFIER was not agreed: the back end does not offer it";
}

static void explain_doorbells(struct bf_frontend *fe, uint64_t offered)
{
	const char *reason = doorbell_reason(fe, offered);

	for (unsigned queue = 0; queue < BF_MAX_QUEUES; queue++)
		bf_fe_doorbell_reason(fe, queue, reason);
}

static int offer(struct bf_frontend *fe)
{
	struct bf_batch batch;
	struct bf_msg msg;
	int ret;

	bf_batch_init(&batch, fe);
	bf_msg_init(&msg, BF_FE_SET_OWNER, 0);
	bf_batch_ask(&batch, &msg, -1, NULL, NULL);
	bf_batch_ask_u64(&batch, BF_FE_GET_FEATURES, &fe->offered);
	ret = bf_batch_wait(&batch);
	if (ret < 0)
		return ret;
	fe->agreed.protocol_offered = bf_has(fe->offered, BF_VHOST_USER_F_PROTOCOL_FEATURES);
	return 0;
}

/* Open our end, and send theirs in @batch. Theirs stays blocking, as back ends expect. */
static int send_back_channel(struct bf_frontend *fe, struct bf_batch *batch)
{
	struct bf_msg msg;
	int fds[2];
	int ret;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
		return bf_report_error(&fe->report, -errno, "cannot make the back-end channel: %s",
				       strerror(errno));
	ret = bf_channel_init(&fe->back, fds[0], BF_CHANNEL_BACK, &fe->report, &fe->agreed);
	if (ret < 0)
		goto close_theirs;
	ret = bf_fe_rearm(fe);
	if (ret < 0)
		goto close_theirs; /* ours goes with the connection */
	bf_msg_init(&msg, BF_FE_SET_BACKEND_REQ_FD, 0);
	bf_msg_lend_fd(&msg, fds[1]);
	bf_batch_ask(batch, &msg, -1, NULL, NULL);
close_theirs:
	bf_fd_close(&fds[1]);
	return ret;
}

static int check_queue_num(struct bf_frontend *fe, uint64_t nr)
{
	if (nr == 0)
		return bf_report_error(
			&fe->report, -EPROTO,
			"GET_QUEUE_NUM: at least 1 queue expected, the back end has 0");
	if (nr > BF_MAX_QUEUES)
		bf_report_log(&fe->report, BF_LOG_INFO,
			      "the back end has %llu queues; the protocol can name %u of them",
			      (unsigned long long)nr, BF_MAX_QUEUES);
	fe->nr_queues = nr > BF_MAX_QUEUES ? BF_MAX_QUEUES : (unsigned)nr;
	return 0;
}

/* Everything that follows from the choice, in one round trip. */
static int settle(struct bf_frontend *fe, uint64_t features)
{
	uint64_t nr_queues = BF_MAX_QUEUES, nr_slots = BF_TABLE_REGIONS;
	struct bf_batch batch;
	struct bf_msg msg;
	int ret = 0;
	int waited;

	bf_batch_init(&batch, fe);
	/* Not to be acknowledged: whether REPLY_ACK holds for this very message is open. */
	bf_msg_init(&msg, BF_FE_SET_PROTOCOL_FEATURES, 0);
	bf_msg_set_u64(&msg, features);
	bf_batch_ask(&batch, &msg, -1, NULL, NULL);
	fe->agreed.protocol_features = features;
	if (bf_has(features, BF_PROTOCOL_F_MQ))
		bf_batch_ask_u64(&batch, BF_FE_GET_QUEUE_NUM, &nr_queues);
	if (bf_has(features, BF_PROTOCOL_F_CONFIGURE_MEM_SLOTS))
		bf_batch_ask_u64(&batch, BF_FE_GET_MAX_MEM_SLOTS, &nr_slots);
	if (bf_has(features, BF_PROTOCOL_F_BACKEND_REQ))
		ret = send_back_channel(fe, &batch);
	waited = bf_batch_wait(&batch);
	if (waited < 0)
		return waited;
	fe->max_regions = nr_slots > BF_MAX_REGIONS ? BF_MAX_REGIONS : (unsigned)nr_slots;
	return ret < 0 ? ret : check_queue_num(fe, nr_queues);
}

int bf_fe_handshake(struct bf_frontend *fe)
{
	uint64_t offered = 0;
	int ret = offer(fe);

	if (ret < 0)
		return ret;
	fe->nr_queues = BF_MAX_QUEUES;
	fe->max_regions = BF_TABLE_REGIONS;
	if (fe->agreed.protocol_offered) {
		struct bf_batch batch;

		bf_batch_init(&batch, fe);
		bf_batch_ask_u64(&batch, BF_FE_GET_PROTOCOL_FEATURES, &offered);
		ret = bf_batch_wait(&batch);
		if (!ret)
			ret = settle(fe, choose_protocol_features(fe, offered));
	}
	explain_doorbells(fe, offered);
	return ret;
}

uint64_t bf_frontend_features(const struct bf_frontend *fe)
{
	return fe->offered & ~hidden_features();
}

uint64_t bf_frontend_protocol_features(const struct bf_frontend *fe)
{
	return fe->agreed.protocol_features;
}

unsigned bf_frontend_max_queues(const struct bf_frontend *fe)
{
	return fe->nr_queues;
}

int bf_frontend_set_features(struct bf_frontend *fe, uint64_t features)
{
	uint64_t surplus = features & ~bf_frontend_features(fe);
	struct bf_batch batch;
	struct bf_msg msg;
	int ret = bf_fe_check_attached(fe);

	if (ret < 0)
		return ret;
	if (surplus)
		return bf_report_error(&fe->report, -EINVAL,
				       "features 0x%llx are not offered by the back end",
				       (unsigned long long)surplus);
	bf_batch_init(&batch, fe);
	bf_msg_init(&msg, BF_FE_SET_FEATURES, 0);
	bf_msg_set_u64(&msg, features | (fe->offered & bf_bit(BF_VHOST_USER_F_PROTOCOL_FEATURES)));
	bf_batch_ask(&batch, &msg, -1, NULL, NULL);
	ret = bf_batch_wait(&batch);
	if (ret < 0)
		return ret;
	fe->agreed.features = features;
	fe->agreed.protocol_acknowledged = fe->agreed.protocol_offered;
	fe->features_set = true;
	return 0;
}
