/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Life cycle of a back end: made, attached to a connection, detached, made ready for the next.
 *
 * Control context. Owns the epoll fd, both channels and all that they share. Must not know any message:
 * those are dispatch.c and the handlers.
 */
#include "backend.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "../base/fd.h"
#include "../base/fence.h"

/*
 * Bit 30 counts as acknowledged until SET_FEATURES says otherwise: QEMU up to 8.0 enables the vrings
 * of a net device before that.
 */
static void forget_agreements(struct bf_backend *be)
{
	be->agreed = (struct bf_agreed){
		.protocol_offered = true,
		.protocol_acknowledged = true,
		.gpu = be->ops->set_gpu_socket != NULL,
	};
	be->features_set = false;
	be->log_all = false;
	be->fatal = false;
}

static void init_vrings(struct bf_backend *be)
{
	for (unsigned i = 0; i < be->nr_queues; i++) {
		struct bf_vring *vring = &be->vrings[i];

		bf_virtq_init(&vring->vq, i);
		vring->be = be;
		vring->kick_fd = vring->call_fd = vring->err_fd = -1;
	}
}

static struct bf_backend *allocate(unsigned nr_queues)
{
	const size_t align = _Alignof(struct bf_backend);
	struct bf_backend *be;
	size_t size;

	size = sizeof(*be) + nr_queues * sizeof(struct bf_vring);
	size = (size + align - 1) & ~(align - 1);
	be = aligned_alloc(align, size);
	if (!be)
		return NULL;
	memset(be, 0, size);
	be->nr_queues = nr_queues;
	be->epoll_fd = be->post_fd = be->main.fd = be->back.fd = be->log_fd = be->uffd = -1;
	init_vrings(be);
	return be;
}

/* What queue contexts tell control by (posts.c): always in the set. */
static int open_posts(struct bf_backend *be)
{
	struct epoll_event event = { .events = EPOLLIN };

	be->post_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (be->post_fd < 0 || epoll_ctl(be->epoll_fd, EPOLL_CTL_ADD, be->post_fd, &event) < 0)
		return -errno;
	return 0;
}

static int copy_shmem_sizes(struct bf_backend *be, const struct bf_backend_config *config)
{
	if (!config->nr_shmem)
		return 0;
	be->shmem_sizes = calloc(config->nr_shmem, sizeof(*be->shmem_sizes));
	if (!be->shmem_sizes)
		return -ENOMEM;
	memcpy(be->shmem_sizes, config->shmem_sizes, config->nr_shmem * sizeof(*be->shmem_sizes));
	be->nr_shmem = config->nr_shmem;
	return 0;
}

int bf_backend_new(const struct bf_backend_config *config, struct bf_backend **made)
{
	struct bf_backend *be;
	int ret;

	if (!bf_offer_config_ok(config))
		return -EINVAL;
	be = allocate(config->nr_queues);
	if (!be)
		return -ENOMEM;
	be->ops = config->ops;
	be->offload = config->offload;
	be->opaque = config->opaque;
	be->max_queue_size = config->max_queue_size ? config->max_queue_size : BF_MAX_QUEUE_SIZE;
	be->config_size = config->config_size;
	be->features = bf_offer_features(config);
	be->protocol_features = bf_offer_protocol_features(config);
	forget_agreements(be);
	bf_report_init(&be->report, &config->log, "backend", config->name);

	ret = copy_shmem_sizes(be, config);
	if (!ret && bf_has(be->protocol_features, BF_PROTOCOL_F_PAGEFAULT))
		ret = bf_missing_new(&be->missing);
	if (ret)
		goto free_be;
	be->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	ret = be->epoll_fd < 0 ? -errno : 0;
	if (!ret && !be->offload) {
		bf_fence_register();
		ret = open_posts(be);
	}
	if (ret)
		goto free_be;
	*made = be;
	return 0;

free_be:
	bf_backend_free(be);
	return ret;
}

void bf_backend_free(struct bf_backend *be)
{
	if (!be)
		return;
	bf_backend_detach(be);
	bf_fd_close(&be->post_fd);
	bf_fd_close(&be->epoll_fd);
	bf_missing_free(be->missing);
	free(be->shmem_sizes);
	free(be);
}

static int watch(struct bf_backend *be, int fd, uint32_t events, uint32_t *armed)
{
	struct epoll_event event = { .events = events };

	if (events == *armed)
		return 0;
	if (epoll_ctl(be->epoll_fd, *armed ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event) < 0)
		return -errno;
	*armed = events;
	return 0;
}

/*
 * Before the socket is closed: a duplicate of it in another process would keep it in the epoll set.
 */
static void close_channel(struct bf_backend *be, struct bf_channel *channel, uint32_t *armed,
			  int error)
{
	if (channel->fd >= 0 && *armed)
		epoll_ctl(be->epoll_fd, EPOLL_CTL_DEL, channel->fd, NULL);
	*armed = 0;
	bf_channel_done(channel, error);
}

void bf_backend_watch(struct bf_backend *be)
{
	if (be->main.fd >= 0) {
		uint32_t in = be->main.out_bytes < BF_BACKEND_OUT_HIGH ? EPOLLIN : 0;

		/* Cannot fail: the socket is in the set, and a change allocates nothing. */
		watch(be, be->main.fd, in | (bf_channel_wants_write(&be->main) ? EPOLLOUT : 0),
		      &be->main_events);
	}
	if (be->back.fd >= 0)
		watch(be, be->back.fd, EPOLLIN | (bf_channel_wants_write(&be->back) ? EPOLLOUT : 0),
		      &be->back_events);
}

static int check_socket(int fd)
{
	int domain = 0, type = 0;
	socklen_t len = sizeof(int);

	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) < 0 ||
	    getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0)
		return -errno;
	return domain == AF_UNIX && type == SOCK_STREAM ? 0 : -EPROTOTYPE;
}

int bf_backend_attach(struct bf_backend *be, int fd)
{
	int ret = be->main.fd >= 0 ? -EALREADY : check_socket(fd);

	if (ret < 0) {
		bf_fd_close(&fd);
		return ret;
	}
	ret = bf_channel_init(&be->main, fd, BF_CHANNEL_MAIN, &be->report, &be->agreed);
	if (ret < 0)
		return ret;
	ret = watch(be, be->main.fd, EPOLLIN, &be->main_events);
	if (ret < 0) {
		close_channel(be, &be->main, &be->main_events, ret);
		return ret;
	}
	bf_report_log(&be->report, BF_LOG_INFO, "attached");
	return 0;
}

int bf_backend_open_back(struct bf_backend *be, int fd)
{
	struct epoll_event event = { .events = EPOLLIN };
	int ret = check_socket(fd);

	/* What can fail comes before the old channel is given up. */
	if (!ret && epoll_ctl(be->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
		ret = -errno;
	if (ret < 0) {
		bf_fd_close(&fd);
		return ret;
	}
	bf_backend_close_back(be, -ECONNRESET);
	ret = bf_channel_init(&be->back, fd, BF_CHANNEL_BACK, &be->report, &be->agreed);
	be->back_events = ret < 0 ? 0 : EPOLLIN;
	return ret;
}

void bf_backend_close_back(struct bf_backend *be, int error)
{
	close_channel(be, &be->back, &be->back_events, error);
}

/* What belongs to the front end, or is shared with it. No vring runs. */
static void drop_shared(struct bf_backend *be)
{
	bf_postcopy_end(be);
	bf_shmem_forget(be);
	bf_iotlb_free(be->iotlb);
	be->iotlb = NULL;
	bf_memory_unref(be->memory);
	be->memory = NULL;
	be->nr_repeated_regions = 0;
	bf_dirty_log_unref(be->log);
	be->log = NULL;
	bf_fd_close(&be->log_fd);
	bf_inflight_free(be->inflight);
	be->inflight = NULL;
}

/*
 * The order: memory that is missing, so that no queue context waits for it; queue contexts let go; then
 * memory, then the sockets. Nothing of the peer's remains.
 */
void bf_backend_close(struct bf_backend *be, int error)
{
	bf_backend_give_up_missing(be);
	for (unsigned i = 0; i < be->nr_queues; i++)
		bf_vring_reset(be, i, true);
	if (be->offload && be->memory)
		be->offload->memory(be->opaque, NULL);
	drop_shared(be);
	bf_backend_close_back(be, error);
	close_channel(be, &be->main, &be->main_events, error);
	bf_eventfd_drain(be->post_fd);
	forget_agreements(be);
	be->config_change_held = false;
	be->status = 0;
}

void bf_backend_detach(struct bf_backend *be)
{
	if (be->main.fd < 0)
		return;
	bf_backend_close(be, -ECONNABORTED);
	bf_report_log(&be->report, BF_LOG_INFO, "detached");
}

bool bf_backend_attached(const struct bf_backend *be)
{
	return be->main.fd >= 0;
}

int bf_backend_fd(const struct bf_backend *be)
{
	return be->epoll_fd;
}

const char *bf_backend_error(const struct bf_backend *be)
{
	return be->report.error;
}

uint64_t bf_backend_features(const struct bf_backend *be)
{
	return be->agreed.features;
}

uint64_t bf_backend_protocol_features(const struct bf_backend *be)
{
	return be->agreed.protocol_features;
}

struct bf_memory *bf_backend_memory(const struct bf_backend *be)
{
	return be->memory;
}
