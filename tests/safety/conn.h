/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One connection between a front end that writes raw bytes and a back end of the library, in one thread:
 * what the message matrix, the fault injection and the dispatch fuzzer have in common.
 *
 * The device behind it offers everything that a device can have, and does its rings' work whenever it is
 * told to (conn_turn()): each request's bytes are read and written in full, so that a wrong translation
 * is touched and not only computed.
 */
#ifndef TESTS_SAFETY_CONN_H
#define TESTS_SAFETY_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <belfry/backend.h>

#define QUEUES      4u
#define RING_SIZE   8u
#define MEMORY_SIZE (256u << 10)
#define GPA         0x40000000ull
#define UVA         0x7f0000000000ull
#define IOVA        0x10000000ull
#define CONFIG_SIZE 60u
#define ACK_BIT     bf_bit(BF_VHOST_USER_F_PROTOCOL_FEATURES)

enum conn_kind {
	CONN_DEFAULT,    /* what a device offers when it names no protocol features */
	CONN_EVERYTHING, /* those that have to be named too, but for */
	CONN_POSTCOPY,   /* PAGEFAULT, without which memory slots can be had */
	CONN_OFFLOAD,    /* a device that serves its rings itself */
};

struct conn {
	struct bf_backend *be;
	int fd;   /* the front end's end of the main channel */
	int back; /* of the back-end channel; -1: none */
	enum conn_kind kind;
	struct bf_virtq *vq[QUEUES]; /* NULL: not running */
	bool enabled[QUEUES];        /* as vring_enable said; only CONN_EVERYTHING has that */
	unsigned about_to_start;     /* queue + 1 that vring_enable came for before its start */
	bool offloaded[QUEUES];
	int publish_fd; /* the doorbell page that every vring_start publishes; -1: none */
	bool ended;
	bool packed;             /* what the guest's rings look like */
	uint64_t popped, pushed; /* requests, so that a test can say that it reached the rings */
	uint64_t replies, asked; /* of the back end; by the back end, on its own channel */
	uint32_t last_reply_size;
	uint64_t last_reply; /* first bytes of the last reply's payload */
	uint8_t last_payload[64];
};

/* Descriptors to be sent, made once for the process: nothing is opened for each connection. */
struct conn_fds {
	int memory; /* MEMORY_SIZE bytes: guest memory, log, in-flight region */
	int event;
	int socket;
	int dgram;
	int pipe;
	int page; /* a doorbell page, sealed */
};
extern struct conn_fds conn_fds;
extern uint8_t *conn_memory; /* conn_fds.memory, as the guest sees it */

/* Once. */
void conn_setup(void);

/* The guest's rings: two requests in each, split or packed. */
void conn_fill_rings(bool packed);

/* False: this process is out of something (fault injection). */
bool conn_open(struct conn *conn, enum conn_kind kind);
/* By the front end closing its end and a dispatch (@hang_up), or by freeing the back end. */
void conn_close(struct conn *conn, bool hang_up);

/* Raw bytes, with descriptors. False: the other side is gone. */
bool conn_send(struct conn *conn, const void *bytes, size_t len, const int *fds, unsigned nr_fds);
/* A message; not dispatched yet. */
void conn_say(struct conn *conn, uint32_t request, uint32_t flags, const void *payload,
	      uint32_t size, const int *fds, unsigned nr_fds);
void conn_say_u64(struct conn *conn, uint32_t request, uint64_t value);
void conn_say_state(struct conn *conn, uint32_t request, uint32_t index, uint32_t num);
void conn_say_fd(struct conn *conn, uint32_t request, uint64_t value, int fd);

/* Dispatch until everything sent was read, then read all replies and answer the back end's requests. */
int conn_pump(struct conn *conn);
/* The device's work, bounded. */
void conn_turn(struct conn *conn);

/* Leaks: descriptors, and mappings of files. */
struct conn_left {
	unsigned fds, mappings;
};
struct conn_left conn_left(void);

#endif
