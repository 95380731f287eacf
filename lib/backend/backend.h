/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The back end from the inside: one device, at most one connection, its vrings.
 *
 * Everything here belongs to the control context, except vring.vq while the vring runs: then it is
 * the device's queue context that has it. The state of a vring is what the front end said (fields
 * that survive a stop) and whether the device has it (running), kept apart on purpose.
 */
#ifndef BACKEND_BACKEND_H
#define BACKEND_BACKEND_H

#include <stdbool.h>
#include <stdint.h>

#include <belfry/backend.h>

#include "../base/report.h"
#include "../proto/channel.h"
#include "../virtq/virtq.h"

/* Messages of the main channel that one dispatch serves; the rest waits for the next. */
#define BF_BACKEND_BATCH 64
/* Replies that wait for a peer that does not read; above it we do not read either. */
#define BF_BACKEND_OUT_HIGH (256u << 10)
/* Requests on the back-end channel that a peer may leave unanswered. */
#define BF_BACKEND_MAX_ASKED 1024

struct bf_vring {
	struct bf_virtq vq;

	/* What the front end said. Ring state is two bits, independent of each other. */
	bool started; /* SET_VRING_KICK came, and no GET_VRING_BASE since */
	bool enabled;
	bool addressed; /* @addr is set */
	uint16_t num;   /* 0: not set */
	bool based;     /* @base is set: by the front end, or by a stop */
	uint32_t base;  /* position, as in SET_VRING_BASE; taken from the device at each stop */
	struct bf_vring_addr addr;
	int kick_fd, call_fd, err_fd; /* owned; -1: none */

	/* Whether the device has it: from vring_start until vring_stop. */
	bool running;
	uint64_t epoch; /* moves at each start: an answer to a request of an earlier run is late */

	bool published;     /* the front end has a page of ours, or is about to decide on one */
	bool published_now; /* in this run */
};

struct bf_backend {
	const struct bf_backend_ops *ops;
	const struct bf_offload_ops *offload; /* NULL: queue threads of this process */
	void *opaque;
	unsigned nr_queues;
	uint16_t max_queue_size;
	uint32_t config_size;
	uint64_t features;          /* offered, without bit 30 */
	uint64_t protocol_features; /* offered */
	struct bf_report report;
	int epoll_fd;

	/* One connection. */
	struct bf_channel main, back;
	uint32_t main_events, back_events; /* armed in epoll; 0: not in it */
	struct bf_agreed agreed;
	bool features_set;
	bool config_change_held; /* to be told when a vring is started */
	uint8_t status;
	struct bf_memory *memory; /* NULL: none announced */

	struct bf_vring vrings[]; /* [nr_queues] */
};

/* backend.c: end of a connection; leaves the object as new. */
void bf_backend_close(struct bf_backend *be, int error);
void bf_backend_close_back(struct bf_backend *be, int error);
/* Serve @fd as the back-end channel, instead of one before. @fd is owned, also on failure. */
int bf_backend_open_back(struct bf_backend *be, int fd);
/* Arm what each socket is waited for. Call after anything that may have sent. */
void bf_backend_watch(struct bf_backend *be);

/*
 * vring.c. Start is legal in every state: it does nothing until all that it needs is there, and
 * says why in the report if the vring could not be started. Stop is idempotent.
 */
int bf_vring_start(struct bf_backend *be, unsigned queue);
void bf_vring_stop(struct bf_backend *be, unsigned queue);
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

/* offload.c: the same hand-over, to a device that serves rings by itself. */
int bf_offload_start(struct bf_backend *be, unsigned queue);
/* A descriptor in the vring was exchanged; the former one is still open. */
int bf_offload_eventfds(struct bf_backend *be, unsigned queue);
int bf_offload_swap_memory(struct bf_backend *be, struct bf_memory *memory);

/* notifier.c: send what was held back while no vring was started. */
void bf_backend_release_held(struct bf_backend *be);

/*
 * Handlers. @msg has passed the table's checks; descriptors are taken out of it or closed by
 * dispatch.
 * @reply is begun: filled in by those whose request has a reply of its own. 0, or negative errno
 * with a sentence in the report: the request is refused, or ends the connection if it needs a
 * reply.
 */
typedef int bf_handler_fn(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply);

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

bf_handler_fn bf_handle_set_vring_num;
bf_handler_fn bf_handle_set_vring_addr;
bf_handler_fn bf_handle_set_vring_base;
bf_handler_fn bf_handle_get_vring_base;
bf_handler_fn bf_handle_set_vring_kick;
bf_handler_fn bf_handle_set_vring_call;
bf_handler_fn bf_handle_set_vring_err;
bf_handler_fn bf_handle_set_vring_enable;

bf_handler_fn bf_handle_get_config;
bf_handler_fn bf_handle_set_config;
bf_handler_fn bf_handle_reset_device;
bf_handler_fn bf_handle_get_status;
bf_handler_fn bf_handle_set_status;

#endif
