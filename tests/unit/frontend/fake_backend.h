/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A back end of a few lines on a thread of its own, raw bytes over a socket pair. It answers as
 * told by its fields, misbehaves at one chosen request, and keeps what it saw. It shares no code
 * with the library, so that both cannot be wrong together.
 *
 * The test's thread may read the log after fake_sync() or fake_stop(), and owns the test's end of
 * the back-end channel (fake_back_*) except while a hook runs.
 */
#ifndef TESTS_FRONTEND_FAKE_BACKEND_H
#define TESTS_FRONTEND_FAKE_BACKEND_H

#include "../support.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include <belfry/frontend.h>

enum misdeed {
	NO_MISDEED,
	WRONG_REQUEST, /* the reply names another request */
	NO_REPLY_FLAG,
	EXTRA_FLAG, /* need_reply in a reply */
	VERSION_0,
	VERSION_2,
	SIZE_0,
	SIZE_4,
	SIZE_9,
	SIZE_HUGE, /* 2^32 - 1 */
	ONE_FD,    /* where none belongs */
	NINE_FDS,
	TWICE, /* the reply comes two times */
	CLOSE, /* instead of a reply */
	CLOSE_IN_HEADER,
	CLOSE_IN_BODY,
	SILENT,
	SLOW,          /* one byte each 40 ms */
	FAILURE,       /* an acknowledgement of 1 */
	CONFIG_OFFSET, /* a config reply of another offset, */
	CONFIG_SIZE,   /* of another size, */
	CONFIG_EMPTY,  /* without a payload */
	BASE_INDEX,    /* GET_VRING_BASE about another queue, */
	BASE_RANGE,    /* beyond 16 bits */
};

struct seen {
	uint32_t request;
	uint32_t flags;
	uint64_t u64; /* first 8 payload bytes */
	uint64_t words[6];
	unsigned nr_fds;
};

#define MAX_SEEN 4096

struct fake {
	/* Set before fake_start(). */
	uint64_t features, protocol_features, nr_queues, max_slots;
	uint32_t vring_base;
	uint32_t bad_request; /* where to misbehave */
	enum misdeed misdeed;
	int bad_nr;       /* at the nth such request, from 0 */
	unsigned hold_ms; /* answer only after this long without another request; counts rounds */
	/* Runs on the fake's thread before the reply to @request is sent. */
	void (*hook)(struct fake *fake, uint32_t request);
	void *opaque;

	int fd;      /* the fake's end of the main channel */
	int peer_fd; /* the front end's end, for bf_frontend_attach() */
	int back_fd; /* what SET_BACKEND_REQ_FD brought; -1 */
	pthread_t thread;
	bool running;
	atomic_uint nr_seen;
	struct seen seen[MAX_SEEN];
	unsigned rounds;
	unsigned nr_bad; /* of bad_request seen */
	uint64_t acked_protocol;
	uint8_t config[4096];
};

#define ALL_FEATURES                                                     \
	(bf_bit(32) | bf_bit(34) | bf_bit(33) | bf_bit(26) | bf_bit(9) | \
	 bf_bit(BF_VHOST_USER_F_PROTOCOL_FEATURES))
#define DRIVER_FEATURES (bf_bit(32) | bf_bit(9))

/* Well-behaved, with everything that the front end knows. */
void fake_init(struct fake *fake);
void fake_start(struct fake *fake);
/* Close the fake's sockets and join. */
void fake_stop(struct fake *fake);
/* Wait until @nr requests have been seen. */
void fake_sync(struct fake *fake, unsigned nr);
/* How many of @request were seen, and the @nth of them. */
unsigned fake_count(struct fake *fake, uint32_t request);
const struct seen *fake_nth(struct fake *fake, uint32_t request, unsigned nth);

/* Send raw bytes with descriptors. */
void send_bytes(int fd, const void *bytes, size_t len, const int *fds, unsigned nr_fds);
/* A request on the back-end channel. */
void fake_back_send(struct fake *fake, uint32_t request, uint32_t flags, const void *payload,
		    uint32_t size, const int *fds, unsigned nr_fds);
/* The next acknowledgement there: its value. Waits up to 2 s, fails the test otherwise. */
uint64_t fake_back_ack(struct fake *fake);

/* A front end whose operations note what happened. */
struct front {
	struct bf_frontend *fe;
	unsigned nr_map, nr_unmap, nr_config, nr_lost;
	int lost_error;
	int map_result;
	void *pages[BF_MAX_QUEUES];
	unsigned requests_at_unmap; /* what the fake had seen by then */
	struct fake *fake;
	char log[1024]; /* the last line */
};
void front_init(struct front *front, struct fake *fake, uint64_t protocol_features,
		unsigned timeout_ms);
/* Dispatch until the fd is quiet. The last error. */
int front_dispatch(struct front *front);

/* Guest memory of @size bytes at guest address 0x100000. */
struct guest {
	struct bf_memory_region region;
	int kick_fd, call_fd;
};
#define GUEST_GPA 0x100000ull
void guest_init(struct guest *guest, uint64_t size);
void guest_done(struct guest *guest);
/* A ring of 256 entries in there, one per queue. */
struct bf_vring_setup guest_vring(const struct guest *guest, unsigned queue);

#endif
