/* SPDX-License-Identifier: BSD-3-Clause */
/**
 * belfry/frontend.h - the front end of vhost-user, for VMMs.
 *
 * One struct bf_frontend is one connection to one back end: one device with all its queues.
 * It speaks the protocol, keeps both channels pipelined, announces guest memory, starts and stops
 * vrings, and checks and maps the doorbell pages (host notifiers) that the back end offers.
 * It knows nothing of PCI or KVM: the caller lays the page over the guest's notify slot in the
 * doorbell_map operation.
 *
 * Context: a connection belongs to one control context, that is, to one thread at a time (or to
 * whoever holds the caller's lock for it). The library starts no thread and owns no loop: poll
 * bf_frontend_fd() for reading and call bf_frontend_dispatch(). Calls marked "waits" send requests
 * and serve both channels until the replies are there, at most the configured timeout; operations
 * other than doorbell_map and doorbell_unmap never run inside them, only inside dispatch.
 *
 * Errors are negative errno; bf_frontend_error() has the sentence for people. Every call that waits
 * can fail with
 *   -ENOTCONN    not attached, or the connection was lost (also while waiting)
 *   -ETIMEDOUT   no reply in time; the connection is closed, since replies can no longer be matched
 *   -EPROTO      the back end broke the protocol; the connection is closed
 *   -EREMOTEIO   the back end answered the request with a failure; the connection stays
 *   -ENOMEM, -EMFILE, ...  this process ran out of something
 * A back end that cannot acknowledge (no BF_PROTOCOL_F_REPLY_ACK) is asked for its features last, so
 * that no call returns before the back end has seen its requests; a failure then shows only by the
 * connection being closed.
 */
#ifndef BELFRY_FRONTEND_H
#define BELFRY_FRONTEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <belfry/log.h>
#include <belfry/memory.h>
#include <belfry/protocol.h>

#ifdef __cplusplus
extern "C" {
#endif

struct bf_frontend;

/** What the library asks of its caller. All run on the control context. Any may be NULL. */
struct bf_frontend_ops {
	/**
	 * Lay a doorbell page over the notify slot of @queue, so that the guest's store reaches it.
	 * @page: host address of one mapped host page, valid until doorbell_unmap returns.
	 * The eventfd path must stay wired underneath. May run inside a call that waits; must not
	 * call back into the library. Non-zero refuses: the queue stays on its eventfd and the back
	 * end is told. NULL (or doorbell_unmap NULL): HOST_NOTIFIER is never agreed.
	 */
	int (*doorbell_map)(void *opaque, unsigned queue, void *page);
	/**
	 * Take it away again. On return no store of the guest can reach the page any more
	 * (the grace period is the caller's to wait out); the library then unmaps the page and
	 * signals the queue's kick eventfd once, so that nothing is lost. Same rules as above.
	 */
	void (*doorbell_unmap)(void *opaque, unsigned queue);
	/**
	 * The back end says that config space changed, once for any number of such messages. Runs in
	 * dispatch; may call anything, even bf_frontend_free().
	 */
	void (*config_changed)(void *opaque);
	/**
	 * The connection is gone: the peer closed it or broke the protocol. Doorbells are already
	 * withdrawn, vrings are stopped, -ENOTCONN from now on until attached again.
	 * @error: negative errno, -ENOTCONN if the peer closed; bf_frontend_error() has the text.
	 * Runs in dispatch, once; may call anything, even bf_frontend_free(). Not called for an
	 * attach that failed, nor after bf_frontend_detach() or another attach.
	 */
	void (*disconnected)(void *opaque, int error);
};

/** Protocol features that the library serves as front end; the default mask. Bit numbers as mask. */
uint64_t bf_frontend_supported_protocol_features(void);

struct bf_frontend_config {
	const struct bf_frontend_ops *ops; /* borrowed for the life of the object; may be NULL */
	void *opaque;                      /* handed to the operations */
	const char *name;                  /* tag in messages, e.g. "blk0"; copied */
	unsigned timeout_ms;               /* longest wait of one round trip; 0: 10 s */
	uint64_t protocol_features;        /* agree to no others; 0: all supported */
	struct bf_log log;
};

/**
 * bf_frontend_new - make a front end that is not connected yet.
 * Returns 0 and *@fe; -ENOMEM, or the errno of epoll_create1() and eventfd().
 */
int bf_frontend_new(const struct bf_frontend_config *config, struct bf_frontend **fe);
/** Withdraws doorbells, closes the connection, frees. Does not wait for the peer. NULL is fine. */
void bf_frontend_free(struct bf_frontend *fe);

/**
 * bf_frontend_attach - take a connected socket and shake hands (waits).
 * @fd: connected AF_UNIX stream socket (bf_socket_connect(), or accepted); owned from here on,
 *      also on failure.
 * Negotiates features and protocol features, asks for the number of queues and memory slots, sends
 * the back-end channel, in three round trips. -EALREADY if attached; -EPROTONOSUPPORT if the peer is
 * of another version. After a disconnect the same object can be attached again.
 */
int bf_frontend_attach(struct bf_frontend *fe, int fd);
/** Withdraw doorbells and close the connection. Idempotent; does not wait for the peer. */
void bf_frontend_detach(struct bf_frontend *fe);
bool bf_frontend_attached(const struct bf_frontend *fe);

/** An fd to poll for reading for the life of the object. Borrowed. */
int bf_frontend_fd(const struct bf_frontend *fe);
/**
 * Serve what is there; never blocks. 0, or the error that ended the connection (already reported
 * through disconnected).
 */
int bf_frontend_dispatch(struct bf_frontend *fe);

/** The last error as a sentence, "" if none. Borrowed, until the next call. */
const char *bf_frontend_error(const struct bf_frontend *fe);

/* What the back end offered. Valid while attached, else 0. */
/**
 * virtio features for the driver: never bits 30 and 26, which belong to the protocol, nor
 * ACCESS_PLATFORM, since the library serves no IOTLB.
 */
uint64_t bf_frontend_features(const struct bf_frontend *fe);
uint64_t bf_frontend_protocol_features(const struct bf_frontend *fe); /* agreed */
/** Queues that the device has: GET_QUEUE_NUM with BF_PROTOCOL_F_MQ, else BF_MAX_QUEUES: unknown. */
unsigned bf_frontend_max_queues(const struct bf_frontend *fe);

/**
 * bf_frontend_set_features - tell which virtio features the driver accepted (waits). Needed once on
 * every connection before vrings start.
 * -EINVAL if @features has a bit that was not offered.
 */
int bf_frontend_set_features(struct bf_frontend *fe, uint64_t features);

/**
 * bf_frontend_set_memory - announce guest memory (waits). Replaces the table.
 * @regions: [@nr]; their fds and mappings are borrowed until the next call or detach.
 * Announces only RAM that the back end can map and that cannot shrink under it: an fd, sealed
 * against shrinking or not a regular file. Regions without an fd (fd < 0) are left out; the number
 * announced is returned. uaddr of the protocol is the region's hva.
 * -EINVAL unaligned, empty, overlapping, or beyond the fd's length; -EPERM an fd that could shrink;
 * -E2BIG more than the back end takes: nothing was sent then. After -EREMOTEIO the library counts as
 * announced what the back end acknowledged (slots), or nothing (a table).
 */
int bf_frontend_set_memory(struct bf_frontend *fe, const struct bf_memory_region *regions,
			   unsigned nr);

/** A vring as the driver has set it up. */
struct bf_vring_setup {
	unsigned queue;
	uint16_t size;                          /* entries */
	uint64_t desc_gpa, avail_gpa, used_gpa; /* packed: desc ring, driver area, device area */
	uint32_t base;                          /* 0 for a fresh split ring; as GET_VRING_BASE gave */
	int kick_fd;                            /* eventfd; borrowed while the vring is started */
	int call_fd;                            /* eventfd; borrowed for the call; -1: none */
	int err_fd;                             /* eventfd; borrowed for the call; -1: none */
	bool disabled;                          /* start, but leave off: bf_frontend_enable_vrings() */
};

/**
 * bf_frontend_start_vrings - set up, start and enable vrings, all pipelined (waits).
 * @vrings: [@nr]. -EINVAL a queue number not below bf_frontend_max_queues() or named twice, a ring
 * unaligned or not in announced memory (each part inside one region), bad size or base, no kick
 * eventfd, features not set; -EBUSY a queue that is started: nothing was sent then. When the back end
 * refuses one, all of @vrings are stopped again. Doorbell pages for these queues are accepted from
 * here on. Each kick eventfd is signalled once after the start, for back ends that wait for it.
 */
int bf_frontend_start_vrings(struct bf_frontend *fe, const struct bf_vring_setup *vrings,
			     unsigned nr);
/**
 * bf_frontend_stop_vrings - stop vrings, all pipelined (waits).
 * @queues: [@nr]; @bases: [@nr] where each ring stands, or NULL.
 * Withdraws their doorbells first. Queues not started are passed over (base 0). On any error the
 * vrings count as stopped all the same, and @bases is untouched.
 */
int bf_frontend_stop_vrings(struct bf_frontend *fe, const unsigned *queues, unsigned nr,
			    uint32_t *bases);
/**
 * bf_frontend_enable_vrings - enable or disable vrings that are started, all pipelined (waits).
 * @queues: [@nr]. A disabled vring keeps its place and its doorbell; a net device drops what comes
 * for it. -EINVAL a queue that is not started. Without VHOST_USER_F_PROTOCOL_FEATURES every vring is
 * enabled from its start on: enabling is then a no-op, and disabling -EOPNOTSUPP.
 */
int bf_frontend_enable_vrings(struct bf_frontend *fe, const unsigned *queues, unsigned nr,
			      bool enable);
/**
 * Withdraw the doorbells of all queues, because the guest moved or disabled the notify region.
 * @why: for the statistics. Sends nothing: the queues go on by their eventfds. Never waits.
 */
void bf_frontend_withdraw_doorbells(struct bf_frontend *fe, const char *why);

/**
 * Config space (waits). Range [@offset, @offset + @len), 0 < @len <= BF_CONFIG_MAX, else -EINVAL.
 * -EOPNOTSUPP if the back end serves none. Some back ends ignore the offset of a read, or refuse to
 * read past the structure of their device: ask at 0, for what the device type has.
 */
int bf_frontend_get_config(struct bf_frontend *fe, uint32_t offset, void *data, uint32_t len);
int bf_frontend_set_config(struct bf_frontend *fe, uint32_t offset, const void *data, uint32_t len);

/**
 * Device status (waits); a no-op returning 0 without BF_PROTOCOL_F_STATUS.
 * bf_frontend_get_status() returns the status, or negative errno; -EOPNOTSUPP without the feature.
 * Status 0 is a reset: vrings that are started are stopped first, and where they stood is lost.
 */
int bf_frontend_set_status(struct bf_frontend *fe, uint8_t status);
int bf_frontend_get_status(struct bf_frontend *fe);
/** RESET_DEVICE (waits); stops vrings likewise. -EOPNOTSUPP if not agreed: stop the vrings instead. */
int bf_frontend_reset_device(struct bf_frontend *fe);

/** What became of a queue's doorbell. Valid for any queue below BF_MAX_QUEUES. */
struct bf_doorbell_state {
	bool mapped;
	const char *reason;   /* why not mapped, a sentence; "" while mapped. Borrowed until the next call */
	uint64_t nr_mapped;   /* accepted so far */
	uint64_t nr_withdrawn;
	uint64_t nr_refused;
	uint64_t nr_kicks;    /* signals on the kick eventfd by the library itself */
};
void bf_frontend_doorbell_state(const struct bf_frontend *fe, unsigned queue,
				struct bf_doorbell_state *state);

#ifdef __cplusplus
}
#endif
#endif
