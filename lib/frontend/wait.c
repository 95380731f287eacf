/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The synchronous wrapper: send many requests, then run both channels until the last reply is
 * there.
 *
 * Control context; the only place of the front end that blocks. It delivers nothing to the caller
 * except doorbells (see notifier.c): a lost connection or a config change is noted, and reported
 * from dispatch. A request that cannot be sent, or whose reply does not come in time, ends the
 * connection: afterwards nobody could say which reply belongs to which request.
 */
#include "frontend.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct bf_fe_ask {
	struct bf_fe_ask *next;
	struct bf_batch *batch;
	uint32_t request;
	int queue;
	bool waiting; /* linked into the batch */
	bf_use_fn *use;
	void *opaque;
};

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void bf_batch_init(struct bf_batch *batch, struct bf_frontend *fe)
{
	*batch = (struct bf_batch){ .fe = fe, .deadline_ms = now_ms() + fe->timeout_ms };
	batch->tail = &batch->head;
}

/* "SET_VRING_ADDR of queue 3" */
static void describe(const struct bf_fe_ask *ask, char *text, size_t size)
{
	const char *name = bf_msg_name(BF_CHANNEL_MAIN, ask->request);

	if (ask->queue < 0)
		snprintf(text, size, "%s", name);
	else
		snprintf(text, size, "%s of queue %d", name, ask->queue);
}

static void note_refusal(struct bf_batch *batch, const struct bf_fe_ask *ask)
{
	char what[64];

	if (batch->result)
		return;
	batch->result = -EREMOTEIO;
	describe(ask, what, sizeof(what));
	snprintf(batch->refusal, sizeof(batch->refusal), "the back end refused %s", what);
}

/* The first refusal counts; what ends the connection counts more. */
static void note_result(struct bf_batch *batch, const struct bf_fe_ask *ask, int result)
{
	if (result == -EREMOTEIO && ask) {
		note_refusal(batch, ask);
	} else if (result && !batch->broken) {
		batch->result = result;
		batch->broken = true;
	}
}

static void unlink_ask(struct bf_batch *batch, struct bf_fe_ask *ask)
{
	/* Replies come in the order of the requests: it is the head. */
	batch->head = ask->next;
	if (!batch->head)
		batch->tail = &batch->head;
}

static void completed(void *opaque, int result, struct bf_msg *reply)
{
	struct bf_fe_ask *ask = opaque;
	struct bf_batch *batch = ask->batch;

	if (ask->waiting)
		unlink_ask(batch, ask);
	else
		batch->unconfirmed = true;
	if (!result && ask->use)
		result = ask->use(ask->opaque, batch->fe, reply);
	note_result(batch, ask, result);
	free(ask);
}

static short poll_events(const struct bf_channel *channel)
{
	return POLLIN | (bf_channel_wants_write(channel) ? POLLOUT : 0);
}

static int timed_out(struct bf_batch *batch)
{
	char what[64];

	if (!batch->head)
		return bf_report_error(
			&batch->fe->report, -ETIMEDOUT,
			"the back end did not read its socket for %u ms; the connection "
			"is closed",
			batch->fe->timeout_ms);
	describe(batch->head, what, sizeof(what));
	return bf_report_error(
		&batch->fe->report, -ETIMEDOUT,
		"the back end did not answer %s within %u ms; the connection is closed", what,
		batch->fe->timeout_ms);
}

/* Until one of the sockets has something for us. 0 or the error to close with. */
static int wait_events(struct bf_batch *batch)
{
	struct bf_frontend *fe = batch->fe;
	struct pollfd fds[] = {
		{ .fd = fe->main.fd, .events = poll_events(&fe->main) },
		{ .fd = fe->back.fd, .events = poll_events(&fe->back) },
	};
	int64_t left = batch->deadline_ms - now_ms();
	int ready;

	if (left <= 0)
		return timed_out(batch);
	ready = poll(fds, 2, left > INT32_MAX ? INT32_MAX : (int)left);
	if (ready < 0 && errno != EINTR)
		return bf_report_error(&fe->report, -errno, "cannot wait for the back end: %s",
				       strerror(errno));
	return 0;
}

/* Let both channels move on; a failure ends the connection, and with it the batch. */
static void run_channels(struct bf_batch *batch)
{
	struct bf_frontend *fe = batch->fe;
	int ret = wait_events(batch);

	if (!ret)
		ret = bf_fe_serve(fe);
	if (ret < 0) {
		ret = bf_fe_close(fe, ret); /* completes what waits, with this error */
		note_result(batch, NULL, ret);
	}
}

/*
 * While the socket is full, read replies instead of keeping more: kept messages hold duplicates of
 * their descriptors, and hundreds of queues would use up the process's limit. Still no waiting for
 * the reply to anything in particular.
 */
static void make_room(struct bf_batch *batch)
{
	while (!batch->result && bf_channel_wants_write(&batch->fe->main))
		run_channels(batch);
}

void bf_batch_ask(struct bf_batch *batch, struct bf_msg *msg, int queue, bf_use_fn *use,
		  void *opaque)
{
	struct bf_fe_ask *ask;
	unsigned before;
	int ret;

	make_room(batch);
	if (batch->result)
		return;
	before = batch->fe->main.nr_pending;
	ask = malloc(sizeof(*ask));
	if (!ask) {
		batch->result = bf_report_error(&batch->fe->report, -ENOMEM, "out of memory");
		return;
	}
	*ask = (struct bf_fe_ask){
		.batch = batch,
		.request = msg->hdr.request,
		.queue = queue,
		.use = use,
		.opaque = opaque,
	};
	ret = bf_channel_ask(&batch->fe->main, msg, completed, ask);
	if (ret < 0) {
		free(ask);
		note_result(batch, NULL, bf_fe_send_error(batch->fe, ret));
		return;
	}
	if (batch->fe->main.nr_pending == before)
		return; /* completed at once, and freed */
	ask->waiting = true;
	*batch->tail = ask;
	batch->tail = &ask->next;
	batch->unconfirmed = false;
}

static int keep_u64(void *opaque, struct bf_frontend *fe, const struct bf_msg *reply)
{
	(void)fe;
	*(uint64_t *)opaque = reply->payload.u64;
	return 0;
}

void bf_batch_ask_u64(struct bf_batch *batch, uint32_t request, uint64_t *value)
{
	struct bf_msg msg;

	bf_msg_init(&msg, request, 0);
	bf_batch_ask(batch, &msg, -1, keep_u64, value);
}

/* Without acknowledgements, the reply to a question asked last tells that all before it is done. */
static void ask_barrier(struct bf_batch *batch)
{
	struct bf_msg msg;

	bf_msg_init(&msg, BF_FE_GET_FEATURES, 0);
	bf_batch_ask(batch, &msg, -1, NULL, NULL);
}

int bf_batch_wait(struct bf_batch *batch)
{
	struct bf_frontend *fe = batch->fe;

	if (batch->unconfirmed)
		ask_barrier(batch);
	while (batch->head && !batch->broken)
		run_channels(batch);
	if (batch->broken)
		return bf_fe_close(fe, batch->result);
	if (batch->result == -EREMOTEIO)
		bf_report_error(&fe->report, -EREMOTEIO, "%s", batch->refusal);
	return batch->result;
}
