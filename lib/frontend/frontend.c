/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Life cycle of a connection: make, attach, dispatch, close; and the one fd that a loop polls.
 *
 * Control context. Nothing here blocks; what waits is in wait.c. The caller's operations
 * (config_changed, disconnected) run as the last act of dispatch and nowhere else, so that they may
 * call anything, even bf_frontend_free().
 */
#include "frontend.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "../base/fd.h"

#define DEFAULT_TIMEOUT_MS 10000

static void init_vrings(struct bf_frontend *fe)
{
	for (unsigned queue = 0; queue < BF_MAX_QUEUES; queue++) {
		fe->vrings[queue].kick_fd = -1;
		bf_fe_doorbell_reason(fe, queue, "no back end has been attached yet");
	}
}

static int make_event_fds(struct bf_frontend *fe)
{
	struct epoll_event event = { .events = EPOLLIN };

	fe->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (fe->epoll_fd < 0)
		return -errno;
	fe->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (fe->wake_fd < 0)
		return -errno;
	if (epoll_ctl(fe->epoll_fd, EPOLL_CTL_ADD, fe->wake_fd, &event) < 0)
		return -errno;
	return 0;
}

int bf_frontend_new(const struct bf_frontend_config *config, struct bf_frontend **out)
{
	struct bf_frontend *fe = calloc(1, sizeof(*fe));
	int ret;

	if (!fe)
		return -ENOMEM;
	fe->main.fd = fe->back.fd = fe->epoll_fd = fe->wake_fd = -1;
	if (config->ops)
		fe->ops = *config->ops;
	fe->opaque = config->opaque;
	fe->timeout_ms = config->timeout_ms ? config->timeout_ms : DEFAULT_TIMEOUT_MS;
	fe->protocol_mask = bf_frontend_supported_protocol_features();
	if (config->protocol_features)
		fe->protocol_mask &= config->protocol_features;
	bf_report_init(&fe->report, &config->log, "frontend", config->name);
	init_vrings(fe);
	ret = make_event_fds(fe);
	if (ret < 0) {
		bf_frontend_free(fe);
		return ret;
	}
	*out = fe;
	return 0;
}

void bf_frontend_free(struct bf_frontend *fe)
{
	if (!fe)
		return;
	bf_frontend_detach(fe);
	bf_fd_close(&fe->wake_fd);
	bf_fd_close(&fe->epoll_fd);
	free(fe);
}

int bf_frontend_attach(struct bf_frontend *fe, int fd)
{
	int ret;

	if (fe->main.fd >= 0) {
		bf_fd_close(&fd);
		return bf_report_error(&fe->report, -EALREADY,
				       "a back end is attached already; detach it first");
	}
	fe->lost = 0;
	fe->config_changed = false;
	ret = bf_channel_init(&fe->main, fd, BF_CHANNEL_MAIN, &fe->report, &fe->agreed);
	if (ret < 0)
		return bf_report_error(&fe->report, ret, "cannot use the socket: %s",
				       strerror(-ret));
	ret = bf_fe_rearm(fe);
	if (!ret)
		ret = bf_fe_handshake(fe);
	if (ret < 0)
		return bf_fe_close(fe, ret);
	fe->attached = true;
	return 0;
}

void bf_frontend_detach(struct bf_frontend *fe)
{
	bf_fe_close(fe, -ENOTCONN);
	fe->lost = 0;
	fe->config_changed = false;
	bf_eventfd_drain(fe->wake_fd);
}

bool bf_frontend_attached(const struct bf_frontend *fe)
{
	return fe->attached;
}

int bf_fe_check_attached(struct bf_frontend *fe)
{
	if (fe->attached)
		return 0;
	/* Why the last connection ended says more than that there is none. */
	if (fe->lost)
		return -ENOTCONN;
	return bf_report_error(&fe->report, -ENOTCONN, "no back end is attached");
}

const char *bf_frontend_error(const struct bf_frontend *fe)
{
	return fe->report.error;
}

int bf_frontend_fd(const struct bf_frontend *fe)
{
	return fe->epoll_fd;
}

void bf_fe_wake(struct bf_frontend *fe)
{
	bf_eventfd_signal(fe->wake_fd);
}

static int rearm_one(struct bf_frontend *fe, const struct bf_channel *channel,
		     struct bf_fe_watch *watch)
{
	struct epoll_event event = { .events = EPOLLIN };

	if (channel->fd < 0)
		return 0;
	if (bf_channel_wants_write(channel))
		event.events |= EPOLLOUT;
	if (event.events == watch->events)
		return 0;
	if (epoll_ctl(fe->epoll_fd, watch->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, channel->fd,
		      &event) < 0)
		return bf_report_error(&fe->report, -errno, "cannot watch the socket: %s",
				       strerror(errno));
	watch->events = event.events;
	return 0;
}

int bf_fe_rearm(struct bf_frontend *fe)
{
	int ret = rearm_one(fe, &fe->main, &fe->main_watch);

	return ret < 0 ? ret : rearm_one(fe, &fe->back, &fe->back_watch);
}

/* Out of the epoll set while the fd is still ours: the set is keyed by open file, not by fd. */
static void unwatch(struct bf_frontend *fe, const struct bf_channel *channel,
		    struct bf_fe_watch *watch)
{
	if (watch->events)
		epoll_ctl(fe->epoll_fd, EPOLL_CTL_DEL, channel->fd, NULL);
	watch->events = 0;
}

void bf_fe_close_back(struct bf_frontend *fe)
{
	if (fe->back.fd < 0)
		return;
	unwatch(fe, &fe->back, &fe->back_watch);
	bf_channel_done(&fe->back, -ENOTCONN);
	bf_frontend_withdraw_doorbells(fe, "the connection to the back end is closed");
}

static void forget_agreement(struct bf_frontend *fe)
{
	fe->agreed = (struct bf_agreed){ 0 };
	fe->offered = 0;
	fe->features_set = false;
	fe->nr_queues = 0;
	fe->max_regions = 0;
	bf_fe_memory_forget(fe);
}

static void forget_vrings(struct bf_frontend *fe)
{
	for (unsigned queue = 0; queue < BF_MAX_QUEUES; queue++) {
		fe->vrings[queue].started = false;
		fe->vrings[queue].kick_fd = -1;
	}
}

int bf_fe_close(struct bf_frontend *fe, int error)
{
	if (error == -ECONNRESET || error == -EPIPE)
		error = -ENOTCONN;
	if (fe->main.fd < 0)
		return error;
	bf_fe_close_back(fe);
	forget_vrings(fe);
	unwatch(fe, &fe->main, &fe->main_watch);
	bf_channel_done(&fe->main, error);
	forget_agreement(fe);
	if (fe->attached) {
		fe->lost = error;
		bf_fe_wake(fe);
	}
	fe->attached = false;
	return error;
}

static int flush(struct bf_channel *channel)
{
	int ret = bf_channel_wants_write(channel) ? bf_channel_flush(channel) : 0;

	return ret == -EAGAIN ? 0 : ret;
}

/* A peer that closed this channel is noticed on reading, after its last request. */
static int flush_back(struct bf_channel *channel)
{
	int ret = flush(channel);

	return ret == -EPIPE || ret == -ECONNRESET ? 0 : ret;
}

int bf_fe_send_error(struct bf_frontend *fe, int error)
{
	int why = 0;

	if (error == -EPIPE || error == -ECONNRESET)
		why = bf_channel_dispatch_replies(&fe->main);
	return why < 0 ? why : error;
}

int bf_fe_serve(struct bf_frontend *fe)
{
	int ret = bf_fe_send_error(fe, flush(&fe->main));

	if (!ret)
		ret = flush_back(&fe->back);
	if (!ret)
		ret = bf_fe_serve_back(fe, BF_FE_BACK_BURST);
	if (!ret)
		ret = bf_channel_dispatch_replies(&fe->main);
	if (!ret)
		ret = bf_fe_rearm(fe);
	return ret;
}

static int deliver_lost(struct bf_frontend *fe)
{
	int error = fe->lost;

	fe->lost = 0;
	fe->config_changed = false;
	bf_eventfd_drain(fe->wake_fd);
	if (fe->ops.disconnected)
		fe->ops.disconnected(fe->opaque, error);
	return error; /* the operation may have freed fe */
}

int bf_frontend_dispatch(struct bf_frontend *fe)
{
	bf_eventfd_drain(fe->wake_fd);
	if (fe->main.fd >= 0) {
		int ret = bf_fe_serve(fe);

		if (ret < 0)
			bf_fe_close(fe, ret);
	}
	if (fe->lost)
		return deliver_lost(fe);
	if (fe->config_changed) {
		fe->config_changed = false;
		bf_eventfd_drain(fe->wake_fd);
		if (fe->ops.config_changed)
			fe->ops.config_changed(fe->opaque);
	}
	return 0;
}
