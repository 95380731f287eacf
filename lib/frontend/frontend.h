/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The front end's private state, and what its files offer to one another.
 *
 * One control context owns all of it. Layers inside: wait.c asks and waits; negotiate.c, memory.c,
 * vring.c and config.c are made of such batches; channel.c serves the back end's requests and hands
 * doorbell pages to notifier.c; frontend.c opens, closes and dispatches.
 */
#ifndef FRONTEND_FRONTEND_H
#define FRONTEND_FRONTEND_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <belfry/frontend.h>

#include "../base/report.h"
#include "../proto/channel.h"

/* Back-end requests served in a row before the main channel gets its turn. */
#define BF_FE_BACK_BURST 64

struct bf_doorbell {
	void *page;       /* one mapped host page, laid over the queue's notify slot; NULL: none */
	bool memory;      /* of a file, not of a device: it is software that looks at it */
	char reason[160]; /* why there is none; "" while there is one */
	uint64_t nr_mapped, nr_withdrawn, nr_refused, nr_kicks;
};

/* A started vring is one whose set-up has been sent: from then on its doorbell is welcome. */
struct bf_fe_vring {
	bool started;
	int kick_fd; /* borrowed from the caller while started; else -1 */
	struct bf_doorbell doorbell;
};

/* A region that the back end has been told of. */
struct bf_fe_region {
	uint64_t gpa, size, uva, fd_offset;
	int fd;    /* borrowed; used while set_memory runs */
	dev_t dev; /* what fd is: numbers may be reused */
	ino_t ino;
	bool announced;
};

/* Which socket events the epoll set waits for at the moment. */
struct bf_fe_watch {
	uint32_t events; /* 0: not in the set */
};

struct bf_frontend {
	struct bf_frontend_ops ops;
	void *opaque;
	unsigned timeout_ms;
	uint64_t protocol_mask;
	struct bf_report report;

	struct bf_channel main, back;
	struct bf_fe_watch main_watch, back_watch;
	int epoll_fd;
	int wake_fd; /* eventfd in the epoll set: something to deliver from dispatch */
	bool attached;
	int lost; /* error to deliver through disconnected; 0: none */
	bool config_changed;

	/* What this connection agreed on. */
	struct bf_agreed agreed;
	uint64_t offered; /* virtio features, as on the wire */
	bool features_set;
	unsigned nr_queues;
	unsigned max_regions;

	struct bf_fe_region *regions; /* [nr_regions], announced */
	unsigned nr_regions;

	struct bf_fe_vring vrings[BF_MAX_QUEUES];
};

/* frontend.c */

/*
 * End the connection: back-end channel, doorbells, vrings, main socket, in that order. Every
 * request that waits is completed with the error. Idempotent. Returns the error as callers know it
 * (a peer that is gone is -ENOTCONN). An attached front end owes its caller a disconnected
 * afterwards.
 */
int bf_fe_close(struct bf_frontend *fe, int error);
/* The back-end channel alone: doorbells are withdrawn, since nobody could take them back. */
void bf_fe_close_back(struct bf_frontend *fe);
/* Serve what is there on both channels, never blocking. 0, or the error to close with. */
int bf_fe_serve(struct bf_frontend *fe);
/*
 * Sending failed with @error. A peer that hung up may have said before what was wrong: read that
 * first, and return the error it makes.
 */
int bf_fe_send_error(struct bf_frontend *fe, int error);
/* Make the epoll set match what the channels wait for. 0 or negative errno. */
int bf_fe_rearm(struct bf_frontend *fe);
/* Have the caller's loop run dispatch. */
void bf_fe_wake(struct bf_frontend *fe);
/* 0, or -ENOTCONN with its sentence. */
int bf_fe_check_attached(struct bf_frontend *fe);

/* wait.c */

struct bf_fe_ask;

/*
 * Requests sent in a row and awaited together. Lives on the caller's stack: nothing points to it
 * any more when bf_batch_wait() returns, because an abandoned wait closes the connection.
 */
struct bf_batch {
	struct bf_frontend *fe;
	struct bf_fe_ask *head, **tail; /* waiting, in the order of their replies */
	int64_t deadline_ms;            /* monotonic; of the whole batch */
	int result;                     /* first refusal, or what ended the connection */
	bool broken;                    /* the connection must be closed */
	bool unconfirmed;               /* the last request has no reply to wait for */
	char refusal[256];              /* the sentence of the first refusal */
};

/*
 * Look at a reply that passed the table's checks (NULL: none was due). 0; -EPROTO with a sentence,
 * to close the connection; -EREMOTEIO with a sentence: refused.
 */
typedef int bf_use_fn(void *opaque, struct bf_frontend *fe, const struct bf_msg *reply);

void bf_batch_init(struct bf_batch *batch, struct bf_frontend *fe);
/*
 * @queue: for the sentence; -1: the request is not about one. @use may be NULL. After a failure
 * nothing more is sent; bf_batch_wait() tells.
 */
void bf_batch_ask(struct bf_batch *batch, struct bf_msg *msg, int queue, bf_use_fn *use,
		  void *opaque);
/* A request without payload whose reply is a u64, kept in *@value. */
void bf_batch_ask_u64(struct bf_batch *batch, uint32_t request, uint64_t *value);
/* Wait for all replies, serving both channels. The errors of every call that waits. */
int bf_batch_wait(struct bf_batch *batch);

/* negotiate.c */
int bf_fe_handshake(struct bf_frontend *fe);

/* memory.c */
void bf_fe_memory_forget(struct bf_frontend *fe);
/* Where all of [gpa, gpa + len) is in announced memory. 0 and *@uva, or -EFAULT. */
int bf_fe_gpa_to_uva(const struct bf_frontend *fe, uint64_t gpa, uint64_t len, uint64_t *uva);

/* vring.c */
struct bf_fe_stop {
	unsigned queue;
	uint32_t base;
};
/*
 * Stop a vring as part of a batch, if it is started: doorbell withdrawn, then asked where it
 * stands.
 * @stop must live as long as the batch. True if it was started.
 */
bool bf_fe_stop_vring(struct bf_batch *batch, unsigned queue, const char *why,
		      struct bf_fe_stop *stop);
/* For what resets the device: all of them. @stops: [BF_MAX_QUEUES]. */
void bf_fe_stop_all_vrings(struct bf_batch *batch, const char *why, struct bf_fe_stop *stops);

/* notifier.c */
void bf_fe_doorbell_reason(struct bf_frontend *fe, unsigned queue, const char *reason);
/* No-op if there is none. @why is kept. */
void bf_fe_doorbell_withdraw(struct bf_frontend *fe, unsigned queue, const char *why);
/* VRING_HOST_NOTIFIER_MSG; its size has been checked, nothing else. Non-zero refuses. */
/* For the library's own driver, also inside doorbell_map: is @queue's page memory that is polled? */
bool bf_fe_doorbell_is_memory(const struct bf_frontend *fe, unsigned queue);
int bf_fe_doorbell_request(struct bf_frontend *fe, struct bf_msg *msg);
/* The kick that is the library's own. */
void bf_fe_kick(struct bf_frontend *fe, unsigned queue);

/* channel.c */
/* Serve at most @limit requests that are there. 0, or the error to close the connection with. */
int bf_fe_serve_back(struct bf_frontend *fe, unsigned limit);
/* Serve all that is there now, however fast more arrives. */
int bf_fe_drain_back(struct bf_frontend *fe);

#endif
