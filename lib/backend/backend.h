/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The back end from the inside: one device, at most one connection, its vrings.
 *
 * Everything here belongs to the control context. vring.vq is the device's queue context's while the
 * vring runs: control changes it only while it holds it (change.h). The state of a vring is what the
 * front end said (fields that survive a stop) and whether the device has it (running), kept apart on
 * purpose.
 */
#ifndef BACKEND_BACKEND_H
#define BACKEND_BACKEND_H

#include <stdbool.h>
#include <stdint.h>

#include <belfry/backend.h>

#include "../base/report.h"
#include "../mem/inflight.h"
#include "../mem/iotlb.h"
#include "../mem/log.h"
#include "../proto/channel.h"
#include "../virtq/virtq.h"
#include "missing.h"

/* Messages of the main channel that one dispatch serves; the rest waits for the next. */
#define BF_BACKEND_BATCH 64
/* Replies that wait for a peer that does not read; above it we do not read either. */
#define BF_BACKEND_OUT_HIGH (256u << 10)
/* Requests on the back-end channel that a peer may leave unanswered. */
#define BF_BACKEND_MAX_ASKED 1024

/* A translation that a vring waits for. */
struct bf_miss {
	bool wanted;
	uint64_t iova;
	unsigned perm;
};

struct bf_vring {
	struct bf_virtq vq;
	struct bf_backend *be;

	/* What the front end said. Ring state is two bits, independent of each other. */
	bool started; /* SET_VRING_KICK or VRING_KICK came, and no GET_VRING_BASE since */
	bool enabled;
	bool addressed; /* @addr is set */
	uint16_t num;   /* 0: not set */
	bool based;     /* @base is set: by the front end, or by a stop */
	uint32_t base;  /* position, as in SET_VRING_BASE; taken from the device at each stop */
	struct bf_vring_addr addr;
	int kick_fd, call_fd, err_fd; /* owned; -1: none */

	/* Whether the device has it: from vring_start until vring_stop. */
	bool running;
	bool pending;   /* it would run, but for a translation of its ring: @miss */
	uint64_t epoch; /* moves at each start: an answer to a request of an earlier run is late */
	struct bf_miss miss;

	bool published;     /* the front end has a page of ours, or is about to decide on one */
	bool published_now; /* in this run */

	bool calling;    /* a VRING_CALL of ours is unanswered */
	bool call_again; /* and another one is due */
};

struct bf_shmem_range; /* shmem.c */

struct bf_backend {
	const struct bf_backend_ops *ops;
	const struct bf_offload_ops *offload; /* NULL: queue threads of this process */
	void *opaque;
	unsigned nr_queues;
	uint16_t max_queue_size;
	uint32_t config_size;
	uint64_t features;          /* offered, without bit 30 */
	uint64_t protocol_features; /* offered */
	uint64_t *shmem_sizes;      /* [nr_shmem] */
	unsigned nr_shmem;
	struct bf_report report;
	int epoll_fd;
	int post_fd; /* queue contexts signal it (posts.c); -1 with offload */

	/* One connection. */
	struct bf_channel main, back;
	uint32_t main_events, back_events; /* armed in epoll; 0: not in it */
	struct bf_agreed agreed;           /* its features are without VHOST_F_LOG_ALL */
	bool features_set;
	bool config_change_held; /* to be told when a vring is started */
	bool fatal;              /* the request that is being refused ends the connection */
	uint8_t status;
	struct bf_memory *memory;            /* NULL: none announced */
	unsigned nr_repeated_regions;        /* announced more than once, and not yet taken back */
	struct bf_iotlb_table *iotlb;        /* NULL: VIRTIO_F_ACCESS_PLATFORM is not agreed */
	struct bf_dirty_log *log;            /* NULL: none announced */
	int log_fd;                          /* -1: none */
	bool log_all;                        /* VHOST_F_LOG_ALL is agreed */
	struct bf_inflight_region *inflight; /* NULL: nothing is tracked */
	struct bf_shmem_range *shmem;        /* what the front end has mapped, or is asked to */
	int uffd;                            /* postcopy: the userfaultfd; -1: none */
	bool listening;                      /* POSTCOPY_LISTEN came */
	struct bf_memory *postcopy_memory;   /* mapped, and waits for the front end's go-ahead */
	struct bf_missing *missing; /* PAGEFAULT is offered: what is in force of it; else NULL */

	struct bf_vring vrings[]; /* [nr_queues] */
};

/* offer.c: what a device of this kind can do, out of what its program says of it. */
bool bf_offer_config_ok(const struct bf_backend_config *config);
uint64_t bf_offer_features(const struct bf_backend_config *config);
uint64_t bf_offer_protocol_features(const struct bf_backend_config *config);

/* backend.c: end of a connection; leaves the object as new. */
void bf_backend_close(struct bf_backend *be, int error);
void bf_backend_close_back(struct bf_backend *be, int error);
/* Serve @fd as the back-end channel, instead of one before. @fd is owned, also on failure. */
int bf_backend_open_back(struct bf_backend *be, int fd);
/* Arm what each socket is waited for. Call after anything that may have sent. */
void bf_backend_watch(struct bf_backend *be);

/* ask.c: requests of ours. Send @msg, and have @fn called once with what became of it. */
bool bf_backend_can_ask(const struct bf_backend *be);
int bf_backend_ask(struct bf_backend *be, struct bf_msg *msg, bf_reply_fn *fn, void *opaque);

/*
 * vring.c. Start is legal in every state: it does nothing until all that it needs is there, and
 * says why in the report if the vring could not be started. A ring that the IOTLB does not have yet is
 * pending, which is no error. Stop is idempotent.
 */
int bf_vring_start(struct bf_backend *be, unsigned queue);
void bf_vring_stop(struct bf_backend *be, unsigned queue);
/* As stop, but what is in flight may stay in flight, if the in-flight region remembers it. */
void bf_vring_suspend(struct bf_backend *be, unsigned queue);
int bf_vring_start_all(struct bf_backend *be);
void bf_vring_stop_all(struct bf_backend *be);
bool bf_vring_any_running(const struct bf_backend *be);
/* Where it goes on, or begins. */
uint32_t bf_vring_base(const struct bf_backend *be, unsigned queue);
int bf_vring_set_enabled(struct bf_backend *be, unsigned queue, bool enabled);
/* Stop, and forget that it was started. Whatever page the front end had is withdrawn by that. */
void bf_vring_unstart(struct bf_backend *be, unsigned queue);
/* All that the front end said; call and error eventfds only if @everything. */
void bf_vring_reset(struct bf_backend *be, unsigned queue, bool everything);
/* All that a virtqueue is told at its start, or when it is moved, of what is in force now. */
void bf_vring_describe(const struct bf_backend *be, unsigned queue, struct bf_virtq_setup *setup,
		       struct bf_virtq_extras *extras);
/* Descriptors that the front end sends as eventfds: made safe to write to from any thread. */
int bf_vring_check_eventfd(int fd);

/* offload.c: the same hand-over, to a device that serves rings by itself. */
int bf_offload_start(struct bf_backend *be, unsigned queue);
/* A descriptor in the vring was exchanged; the former one is still open. */
int bf_offload_eventfds(struct bf_backend *be, unsigned queue);
int bf_offload_swap_memory(struct bf_backend *be, struct bf_memory *memory);

/* memory.c: @memory (NULL: none) takes the place of what is in force; consumed. */
int bf_backend_swap_memory(struct bf_backend *be, struct bf_memory *memory, bool drain);

/* notifier.c: send what was held back while no vring was started. */
void bf_backend_release_held(struct bf_backend *be);

/* posts.c: what queue contexts want. Of one queue: also after it was stopped. */
void bf_posts_serve(struct bf_backend *be);
void bf_posts_serve_queue(struct bf_backend *be, unsigned queue);

/*
 * iotlb.c. Have @queue wait for a translation of @iova: the front end is asked, unless it has been
 * already. -EFAULT it cannot be asked.
 */
int bf_iotlb_want(struct bf_backend *be, unsigned queue, uint64_t iova, unsigned perm);
/* A queue context waits for one. */
void bf_iotlb_serve_miss(struct bf_backend *be, unsigned queue);

/* handle_log.c: VHOST_F_LOG_ALL goes on or off, under running queues. 0 or -ENOMEM. */
int bf_log_set_all(struct bf_backend *be, bool on);
/* The log flag or address of a vring has changed. */
int bf_log_readdress(struct bf_backend *be, unsigned queue);
/* Does anybody log? */
static inline bool bf_log_active(const struct bf_backend *be)
{
	return be->log_all && be->log;
}

/* shmem.c: the front end has dropped all mappings, as it does at a reset of the device. */
void bf_shmem_forget(struct bf_backend *be);

/* postcopy.c */
void bf_postcopy_end(struct bf_backend *be);
/* SET_MEM_TABLE while listening: map, tell the addresses, and wait for the go-ahead. */
int bf_postcopy_set_mem_table(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply,
			      struct bf_memory *memory);
/* The empty SET_MEM_TABLE that gives it. */
int bf_postcopy_go_ahead(struct bf_backend *be);

/*
 * Handlers. @msg has passed the table's checks; descriptors are taken out of it or closed by
 * dispatch.
 * @reply is begun: filled in by those whose request has a reply of its own; descriptors in it are
 * closed after it was sent. 0, or BF_HANDLED: it was answered already, or is not to be; or negative
 * errno with a sentence in the report: the request is refused, or ends the connection if it needs a
 * reply.
 */
#define BF_HANDLED 1
typedef int bf_handler_fn(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply);

/* A refusal that is the content of a reply: logs the report's sentence. Returns 0. */
int bf_reply_failure(struct bf_backend *be, struct bf_msg *reply, uint64_t value);
/* The vring of a message, whose index is @index in the width of the wire; or NULL and a sentence. */
struct bf_vring *bf_find_vring(struct bf_backend *be, const struct bf_msg *msg, uint64_t index);

bf_handler_fn bf_handle_get_features;
bf_handler_fn bf_handle_set_features;
bf_handler_fn bf_handle_owner;
bf_handler_fn bf_handle_get_protocol_features;
bf_handler_fn bf_handle_set_protocol_features;
bf_handler_fn bf_handle_get_queue_num;
bf_handler_fn bf_handle_set_backend_req_fd;

bf_handler_fn bf_handle_set_mem_table;
bf_handler_fn bf_handle_get_max_mem_slots;
bf_handler_fn bf_handle_add_mem_reg;
bf_handler_fn bf_handle_rem_mem_reg;
bf_handler_fn bf_handle_postcopy_advise;
bf_handler_fn bf_handle_postcopy_listen;
bf_handler_fn bf_handle_postcopy_end;
bf_handler_fn bf_handle_iotlb_msg;
bf_handler_fn bf_handle_set_log_base;
bf_handler_fn bf_handle_set_log_fd;
bf_handler_fn bf_handle_get_inflight_fd;
bf_handler_fn bf_handle_set_inflight_fd;

bf_handler_fn bf_handle_set_vring_num;
bf_handler_fn bf_handle_set_vring_addr;
bf_handler_fn bf_handle_set_vring_base;
bf_handler_fn bf_handle_get_vring_base;
bf_handler_fn bf_handle_get_vring_base_skip_drain;
bf_handler_fn bf_handle_set_vring_kick;
bf_handler_fn bf_handle_set_vring_call;
bf_handler_fn bf_handle_set_vring_err;
bf_handler_fn bf_handle_set_vring_enable;
bf_handler_fn bf_handle_set_vring_endian;
bf_handler_fn bf_handle_vring_kick;

bf_handler_fn bf_handle_get_config;
bf_handler_fn bf_handle_set_config;
bf_handler_fn bf_handle_reset_device;
bf_handler_fn bf_handle_get_status;
bf_handler_fn bf_handle_set_status;

bf_handler_fn bf_handle_net_set_mtu;
bf_handler_fn bf_handle_send_rarp;
bf_handler_fn bf_handle_gpu_set_socket;
bf_handler_fn bf_handle_create_crypto_session;
bf_handler_fn bf_handle_close_crypto_session;
bf_handler_fn bf_handle_get_shared_object;
bf_handler_fn bf_handle_set_device_state_fd;
bf_handler_fn bf_handle_check_device_state;
bf_handler_fn bf_handle_get_shmem_config;

#endif
