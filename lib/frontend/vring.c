/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Vrings: set up, start, enable, disable, stop; all of a call's vrings in one pipeline.
 *
 * Control context. A vring counts as started from the moment its set-up is sent, because a doorbell
 * may arrive before the last reply; and as stopped from before GET_VRING_BASE is sent, whatever the
 * answer. What the back-end channel still holds of the time before is served before a vring starts
 * again, so that no doorbell of an earlier start is taken for one of this.
 */
#include "frontend.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <stdlib.h>
#include <string.h>

#include "../base/check.h"

/* The three parts of a ring: bytes and alignment ("Virtqueues" in the virtio specification). */
struct part {
	const char *name;
	uint64_t gpa, len, align;
};

static bool packed(const struct bf_frontend *fe)
{
	return bf_has(fe->agreed.features, VIRTIO_F_RING_PACKED);
}

static void ring_parts(const struct bf_frontend *fe, const struct bf_vring_setup *vring,
		       struct part parts[3])
{
	uint64_t n = vring->size;

	parts[0] = (struct part){ "descriptors", vring->desc_gpa, 16 * n, 16 };
	if (packed(fe)) {
		parts[1] = (struct part){ "driver event area", vring->avail_gpa, 4, 4 };
		parts[2] = (struct part){ "device event area", vring->used_gpa, 4, 4 };
	} else {
		/* With the event index, whether used or not. */
		parts[1] = (struct part){ "available ring", vring->avail_gpa, 6 + 2 * n, 2 };
		parts[2] = (struct part){ "used ring", vring->used_gpa, 6 + 8 * n, 4 };
	}
}

static int locate(struct bf_frontend *fe, unsigned queue, const struct part *part, uint64_t *uva)
{
	if (part->gpa % part->align)
		return bf_report_error(
			&fe->report, -EINVAL,
			"queue %u: %s at guest address 0x%llx, aligned to %llu expected", queue,
			part->name, (unsigned long long)part->gpa, (unsigned long long)part->align);
	if (bf_fe_gpa_to_uva(fe, part->gpa, part->len, uva) < 0)
		return bf_report_error(
			&fe->report, -EINVAL,
			"queue %u: %s, 0x%llx bytes at guest address 0x%llx, not inside "
			"one announced memory region",
			queue, part->name, (unsigned long long)part->len,
			(unsigned long long)part->gpa);
	return 0;
}

static int check_size(struct bf_frontend *fe, const struct bf_vring_setup *vring)
{
	bool ok = vring->size > 0 && vring->size <= BF_MAX_QUEUE_SIZE;

	if (ok && !packed(fe))
		ok = bf_is_power_of_two(vring->size);
	if (!ok)
		return bf_report_error(
			&fe->report, -EINVAL,
			"queue %u: size %u; up to %u expected, a power of two unless "
			"packed",
			vring->queue, vring->size, BF_MAX_QUEUE_SIZE);
	if (!packed(fe) && vring->base > UINT16_MAX)
		return bf_report_error(&fe->report, -EINVAL,
				       "queue %u: base 0x%x, a split ring's has 16 bits",
				       vring->queue, vring->base);
	return 0;
}

static int check_vring(struct bf_frontend *fe, const struct bf_vring_setup *vring,
		       struct bf_vring_addr *where)
{
	struct part parts[3];
	int ret;

	if (vring->queue >= fe->nr_queues)
		return bf_report_error(&fe->report, -EINVAL,
				       "queue %u does not exist: the back end has %u", vring->queue,
				       fe->nr_queues);
	if (fe->vrings[vring->queue].started)
		return bf_report_error(&fe->report, -EBUSY, "queue %u is started already",
				       vring->queue);
	if (vring->kick_fd < 0)
		return bf_report_error(&fe->report, -EINVAL, "queue %u: no kick eventfd",
				       vring->queue);
	ret = check_size(fe, vring);
	if (ret < 0)
		return ret;
	*where = (struct bf_vring_addr){ .index = vring->queue };
	ring_parts(fe, vring, parts);
	ret = locate(fe, vring->queue, &parts[0], &where->desc);
	if (!ret)
		ret = locate(fe, vring->queue, &parts[1], &where->avail);
	if (!ret)
		ret = locate(fe, vring->queue, &parts[2], &where->used);
	return ret;
}

static int check_vrings(struct bf_frontend *fe, const struct bf_vring_setup *vrings, unsigned nr,
			struct bf_vring_addr *where)
{
	bool seen[BF_MAX_QUEUES] = { false };

	for (unsigned i = 0; i < nr; i++) {
		int ret = check_vring(fe, &vrings[i], &where[i]);

		if (ret < 0)
			return ret;
		if (seen[vrings[i].queue])
			return bf_report_error(&fe->report, -EINVAL, "queue %u is named twice",
					       vrings[i].queue);
		seen[vrings[i].queue] = true;
	}
	return 0;
}

static void ask_state(struct bf_batch *batch, uint32_t request, unsigned queue, uint32_t num)
{
	struct bf_msg msg;

	bf_msg_init(&msg, request, 0);
	bf_msg_set_state(&msg, queue, num);
	bf_batch_ask(batch, &msg, (int)queue, NULL, NULL);
}

static void ask_fd(struct bf_batch *batch, uint32_t request, unsigned queue, int fd)
{
	struct bf_msg msg;

	bf_msg_init(&msg, request, 0);
	bf_msg_set_u64(&msg, fd < 0 ? queue | BF_VRING_NOFD : queue);
	if (fd >= 0)
		bf_msg_lend_fd(&msg, fd);
	bf_batch_ask(batch, &msg, (int)queue, NULL, NULL);
}

static void ask_vring(struct bf_batch *batch, const struct bf_vring_setup *vring,
		      const struct bf_vring_addr *where)
{
	bool acknowledged;
	struct bf_msg msg;

	ask_state(batch, BF_FE_SET_VRING_NUM, vring->queue, vring->size);
	ask_state(batch, BF_FE_SET_VRING_BASE, vring->queue, vring->base);
	bf_msg_init(&msg, BF_FE_SET_VRING_ADDR, 0);
	bf_msg_set(&msg, where, sizeof(*where));
	bf_batch_ask(batch, &msg, (int)vring->queue, NULL, NULL);
	ask_fd(batch, BF_FE_SET_VRING_CALL, vring->queue, vring->call_fd);
	ask_fd(batch, BF_FE_SET_VRING_ERR, vring->queue, vring->err_fd);
	/* Without bit 30, SET_FEATURES has enabled all rings ("Ring states"). */
	acknowledged = batch->fe->agreed.protocol_acknowledged;
	/* A stop leaves a ring enabled: what is to be off must not run for a moment. */
	if (acknowledged && vring->disabled)
		ask_state(batch, BF_FE_SET_VRING_ENABLE, vring->queue, 0);
	ask_fd(batch, BF_FE_SET_VRING_KICK, vring->queue, vring->kick_fd);
	if (acknowledged && !vring->disabled)
		ask_state(batch, BF_FE_SET_VRING_ENABLE, vring->queue, 1);
}

static void mark_started(struct bf_frontend *fe, const struct bf_vring_setup *vring)
{
	fe->vrings[vring->queue].started = true;
	fe->vrings[vring->queue].kick_fd = vring->kick_fd;
	if (bf_has(fe->agreed.protocol_features, BF_PROTOCOL_F_HOST_NOTIFIER))
		bf_fe_doorbell_reason(
			fe, vring->queue,
			"the back end has not offered a page since the queue started");
}

/* Take a start back. What the back end thinks of it matters no more; the first sentence does. */
static void undo_start(struct bf_frontend *fe, const struct bf_vring_setup *vrings, unsigned nr)
{
	struct bf_fe_stop stops[BF_MAX_QUEUES];
	struct bf_batch batch;
	char error[sizeof(fe->report.error)];
	int ret;

	memcpy(error, fe->report.error, sizeof(error));
	bf_batch_init(&batch, fe);
	for (unsigned i = 0; i < nr; i++)
		bf_fe_stop_vring(&batch, vrings[i].queue, "the queue could not be started",
				 &stops[i]);
	ret = bf_batch_wait(&batch);
	if (!ret)
		ret = bf_fe_drain_back(fe);
	if (ret < 0 && fe->attached)
		bf_fe_close(fe, ret);
	memcpy(fe->report.error, error, sizeof(error));
}

static int start(struct bf_frontend *fe, const struct bf_vring_setup *vrings, unsigned nr,
		 const struct bf_vring_addr *where)
{
	struct bf_batch batch;
	int ret = bf_fe_drain_back(fe);

	if (ret < 0)
		return bf_fe_close(fe, ret);
	bf_batch_init(&batch, fe);
	for (unsigned i = 0; i < nr; i++) {
		mark_started(fe, &vrings[i]);
		ask_vring(&batch, &vrings[i], &where[i]);
	}
	ret = bf_batch_wait(&batch);
	if (ret < 0) {
		if (fe->attached)
			undo_start(fe, vrings, nr);
		return ret;
	}
	/* Back ends of an older text start at the first kick: "Starting and stopping a ring". */
	for (unsigned i = 0; i < nr; i++)
		bf_fe_kick(fe, vrings[i].queue);
	return 0;
}

int bf_frontend_start_vrings(struct bf_frontend *fe, const struct bf_vring_setup *vrings,
			     unsigned nr)
{
	struct bf_vring_addr *where;
	int ret = bf_fe_check_attached(fe);

	if (ret < 0 || nr == 0)
		return ret;
	if (!fe->features_set)
		return bf_report_error(&fe->report, -EINVAL,
				       "vrings cannot start before bf_frontend_set_features()");
	if (nr > BF_MAX_QUEUES)
		return bf_report_error(&fe->report, -EINVAL, "%u queues to start, %u at most", nr,
				       BF_MAX_QUEUES);
	where = calloc(nr, sizeof(*where));
	if (!where)
		return bf_report_error(&fe->report, -ENOMEM, "out of memory");
	ret = check_vrings(fe, vrings, nr, where);
	if (!ret)
		ret = start(fe, vrings, nr, where);
	free(where);
	return ret;
}

static int take_base(void *opaque, struct bf_frontend *fe, const struct bf_msg *reply)
{
	struct bf_fe_stop *stop = opaque;
	const struct bf_vring_state *state = &reply->payload.state;

	if (state->index != stop->queue)
		return bf_report_error(&fe->report, -EPROTO,
				       "GET_VRING_BASE: asked for queue %u, the reply is about %u",
				       stop->queue, state->index);
	if (!packed(fe) && state->num > UINT16_MAX)
		return bf_report_error(
			&fe->report, -EPROTO,
			"GET_VRING_BASE of queue %u: 16 bits expected of a split ring, "
			"got 0x%x",
			stop->queue, state->num);
	stop->base = state->num;
	return 0;
}

bool bf_fe_stop_vring(struct bf_batch *batch, unsigned queue, const char *why,
		      struct bf_fe_stop *stop)
{
	struct bf_frontend *fe = batch->fe;
	struct bf_msg msg;

	*stop = (struct bf_fe_stop){ .queue = queue };
	if (!fe->vrings[queue].started)
		return false;
	fe->vrings[queue].started = false; /* first: no new doorbell from here on */
	bf_fe_doorbell_withdraw(fe, queue, why);
	if (bf_has(fe->agreed.protocol_features, BF_PROTOCOL_F_HOST_NOTIFIER))
		bf_fe_doorbell_reason(fe, queue, why);
	fe->vrings[queue].kick_fd = -1;
	bf_msg_init(&msg, BF_FE_GET_VRING_BASE, 0);
	bf_msg_set_state(&msg, queue, 0);
	bf_batch_ask(batch, &msg, (int)queue, take_base, stop);
	return true;
}

void bf_fe_stop_all_vrings(struct bf_batch *batch, const char *why, struct bf_fe_stop *stops)
{
	for (unsigned queue = 0; queue < BF_MAX_QUEUES; queue++)
		bf_fe_stop_vring(batch, queue, why, &stops[queue]);
}

static int stop_all(struct bf_frontend *fe, const unsigned *queues, unsigned nr,
		    struct bf_fe_stop *stops)
{
	struct bf_batch batch;
	bool any = false;
	int ret;

	bf_batch_init(&batch, fe);
	for (unsigned i = 0; i < nr; i++)
		any |= bf_fe_stop_vring(&batch, queues[i], "the queue is stopped", &stops[i]);
	if (!any)
		return 0;
	ret = bf_batch_wait(&batch);
	if (!ret)
		ret = bf_fe_drain_back(fe);
	return ret < 0 && fe->attached ? bf_fe_close(fe, ret) : ret;
}

int bf_frontend_stop_vrings(struct bf_frontend *fe, const unsigned *queues, unsigned nr,
			    uint32_t *bases)
{
	struct bf_fe_stop *stops;
	int ret = bf_fe_check_attached(fe);

	if (ret < 0 || nr == 0)
		return ret;
	for (unsigned i = 0; i < nr; i++) {
		if (queues[i] >= BF_MAX_QUEUES)
			return bf_report_error(&fe->report, -EINVAL, "queue %u does not exist",
					       queues[i]);
	}
	stops = calloc(nr, sizeof(*stops));
	if (!stops)
		return bf_report_error(&fe->report, -ENOMEM, "out of memory");
	ret = stop_all(fe, queues, nr, stops);
	for (unsigned i = 0; !ret && bases && i < nr; i++)
		bases[i] = stops[i].base;
	free(stops);
	return ret;
}

static int check_enable(struct bf_frontend *fe, const unsigned *queues, unsigned nr)
{
	int ret = bf_fe_check_attached(fe);

	for (unsigned i = 0; !ret && i < nr; i++) {
		if (queues[i] >= BF_MAX_QUEUES || !fe->vrings[queues[i]].started)
			ret = bf_report_error(&fe->report, -EINVAL, "queue %u is not started",
					      queues[i]);
	}
	return ret;
}

int bf_frontend_enable_vrings(struct bf_frontend *fe, const unsigned *queues, unsigned nr,
			      bool enable)
{
	struct bf_batch batch;
	int ret = check_enable(fe, queues, nr);

	if (ret < 0 || nr == 0)
		return ret;
	if (!fe->agreed.protocol_acknowledged)
		return enable ? 0 :
				bf_report_error(&fe->report, -EOPNOTSUPP,
						"rings cannot be disabled: the back end does not "
						"offer VHOST_USER_F_PROTOCOL_FEATURES");
	bf_batch_init(&batch, fe);
	for (unsigned i = 0; i < nr; i++)
		ask_state(&batch, BF_FE_SET_VRING_ENABLE, queues[i], enable);
	return bf_batch_wait(&batch);
}
