/* SPDX-License-Identifier: BSD-3-Clause */
/**
 * belfry/backend.h - the back end of vhost-user, for devices.
 *
 * One struct bf_backend is one device; it serves one connection at a time, and when that ends it
 * can be attached to the next. The library speaks the protocol, maps guest memory, keeps the state
 * of the vrings, and registers doorbell pages with the front end; the device does the work.
 *
 * Context: control and queue, as in docs/architecture.md. Everything here belongs to the control
 * context, the one that calls bf_backend_dispatch(); virtq.h is for the queue context. The one
 * point of hand-over is vring_start (control gives the virtqueue to the device's queue thread) and
 * vring_stop (returns when the thread has let go of it). Guest memory, IOTLB, dirty log and eventfds
 * change under a running queue thread, which notices nothing: the library holds it between two of its
 * calls, and answers the front end when the requests popped before have been pushed. A queue whose
 * requests do not come back within BF_DRAIN_MS is stopped and started instead; that is also what becomes
 * of requests that only the control context itself could finish. Another kick eventfd, which the device
 * polls by its number, is a stop and a start.
 *
 * A device that serves rings by itself (hardware) has struct bf_offload_ops instead of queue threads;
 * its vrings go on running under a change of memory or of an eventfd.
 *
 * Errors are negative errno; bf_backend_error() has the sentence for people.
 */
#ifndef BELFRY_BACKEND_H
#define BELFRY_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <belfry/log.h>
#include <belfry/memory.h>
#include <belfry/protocol.h>
#include <belfry/virtq.h>

#ifdef __cplusplus
extern "C" {
#endif

struct bf_backend;

/** How long a change under running queues waits for requests that were popped before it. */
#define BF_DRAIN_MS 1000

/**
 * The device. All run on the control context, inside dispatch, publish, detach or free. None may
 * call dispatch, attach, detach or free, except that disconnected may attach the next connection.
 */
struct bf_backend_ops {
	/**
	 * A vring is ready: started (SET_VRING_KICK arrived), set up, and enabled, unless the device
	 * has vring_enable. Give @vq to a queue thread, which must look at the ring once without
	 * waiting for a kick. This is also the place to call bf_backend_publish_doorbell(), each
	 * time: a vring is stopped and started also for a change of memory or of an eventfd, and a
	 * page that is not published again is withdrawn. Non-zero: the front end is told that its
	 * request failed, and the vring does not run.
	 */
	int (*vring_start)(void *opaque, unsigned queue, struct bf_virtq *vq);
	/**
	 * Finish what is in flight, push and notify it, and let go of the virtqueue: on return no
	 * thread touches it or guest memory. What is abandoned instead is not offered again when
	 * the vring goes on: fit only for an end of the connection. Must not fail.
	 */
	void (*vring_stop)(void *opaque, unsigned queue);
	/**
	 * GET_VRING_BASE_SKIP_DRAIN: as vring_stop, but what is in flight need not be finished: it is
	 * recorded in the in-flight region and given again to whoever goes on. On return nothing of
	 * it may touch guest memory any more. NULL: vring_stop is used, which is always right.
	 */
	void (*vring_suspend)(void *opaque, unsigned queue);
	/**
	 * "If ring is started but disabled, the back-end must process the ring without causing any
	 * side effects": a network card takes what the guest sends and drops it, and gives it nothing
	 * to receive. A device that has this operation is given its vrings as soon as they are started
	 * and set up, enabled or not. It hears how a vring is right before vring_start, since the queue
	 * thread looks at the ring at once, and at each change while it runs; never otherwise. On
	 * return nothing of the former state happens any more. Non-zero: the front end is told that
	 * its request failed, and the vring does not run (vring_stop is called if it did). NULL: a
	 * vring is stopped while it is disabled, which is right for a device whose requests can wait.
	 */
	int (*vring_enable)(void *opaque, unsigned queue, bool enabled);
	/**
	 * A driver broke its ring (@reason: a sentence; it has been logged). The front end has been
	 * told, and DEVICE_NEEDS_RESET is in the status. The queue thread got the error from pop. May
	 * be NULL.
	 */
	void (*vring_broken)(void *opaque, unsigned queue, const char *reason);
	/**
	 * Config space, for BF_PROTOCOL_F_CONFIG; the range lies inside config_size. NULL: not
	 * served. set_config: non-zero refuses. @migration: not a guest's write.
	 */
	int (*get_config)(void *opaque, uint32_t offset, void *data, uint32_t len);
	int (*set_config)(void *opaque, uint32_t offset, const void *data, uint32_t len,
			  bool migration);
	/** The virtio features that the driver accepted, a subset of those offered. May be NULL. */
	int (*set_features)(void *opaque, uint64_t features);
	/** Device reset: all vrings are stopped already. May be NULL. */
	void (*reset)(void *opaque);
	/**
	 * Topics of single device types, each behind its protocol feature, which is offered only if the
	 * operations are there. Non-zero: refused (negative errno).
	 */
	int (*set_mtu)(void *opaque, uint16_t mtu);              /* NET_SET_MTU; BF_PROTOCOL_F_MTU */
	int (*send_rarp)(void *opaque, const uint8_t mac[6]);    /* SEND_RARP; BF_PROTOCOL_F_RARP */
	/** GPU_SET_SOCKET. @fd: owned by the device on success. */
	int (*set_gpu_socket)(void *opaque, int fd);
	/**
	 * BF_PROTOCOL_F_CRYPTO_SESSION. @session: the description as it came, @len bytes, private
	 * memory. *@id: of the new session. Non-zero refuses: the front end is answered with an error.
	 */
	int (*create_session)(void *opaque, const void *session, size_t len, uint64_t *id);
	int (*close_session)(void *opaque, uint64_t id);
	/**
	 * BF_PROTOCOL_F_SHARED_OBJECT: the dma-buf of this object of ours, borrowed; or negative errno.
	 */
	int (*get_shared_object)(void *opaque, const uint8_t uuid[16]);
	/**
	 * BF_PROTOCOL_F_DEVICE_STATE, while all vrings are stopped. @fd: owned by the device on success;
	 * write the state to it and close it (save), or read it to the end (load). *@other_fd: -1, or
	 * one that the front end shall use instead (owned by the caller). check: how it went, 0 or
	 * negative errno; it is asked after the end of the transfer.
	 */
	int (*device_state)(void *opaque, bool load, int fd, int *other_fd);
	int (*check_device_state)(void *opaque);
	/**
	 * The front end's answer about a doorbell. @published: to bf_backend_publish_doorbell(), and
	 * @result 0 says that the driver's stores now reach the page; otherwise to a withdrawal, by
	 * bf_backend_withdraw_doorbell() or by the library when a page was not published again.
	 * @result negative: refused (-EREMOTEIO) or the back-end channel is gone; the queue is served
	 * by its eventfd. The library signals the queue's own kick eventfd once in every case, since
	 * a kick may have fallen in between. An answer for an earlier run of the queue is dropped.
	 * May be NULL.
	 */
	void (*doorbell_answered)(void *opaque, unsigned queue, bool published, int result);
	/**
	 * The connection ended. Vrings are stopped, guest memory is unmapped. @error: 0 the front
	 * end closed it between messages, else negative errno. Runs in dispatch. May be NULL.
	 */
	void (*disconnected)(void *opaque, int error);
};

/**
 * A vring as the front end has set it up, for a device that serves rings by itself.
 *
 * Addresses are guest-physical; each part of the ring lies wholly in one region of the current map.
 * Split: descriptor table, available ring, used ring. Packed: descriptor ring, driver area, device
 * area.
 */
struct bf_offload_vring {
	uint16_t size; /* entries */
	uint64_t desc_gpa, driver_gpa, device_gpa;
	/**
	 * Where to go on, as in SET_VRING_BASE. Split: next entry of the available ring. Packed: next
	 * available in bits 0-14, its wrap counter in 15, next used in 16-30, its wrap counter in 31.
	 */
	uint32_t base;
	bool enabled;
	int kick_fd, call_fd; /* eventfds, borrowed until vring_stop or vring_eventfds; -1: none */
};

/**
 * A device whose rings are served by hardware: the library translates, the device is told what to
 * do, and nothing here touches a ring. Same context and rules as bf_backend_ops.
 */
struct bf_offload_ops {
	/**
	 * A vring is started and set up, enabled or not. Doorbells may be published from here on
	 * until vring_stop: also later, when the device as a whole is started. Non-zero: the front
	 * end is told that its request failed, and the vring does not run.
	 */
	int (*vring_start)(void *opaque, unsigned queue, const struct bf_offload_vring *vring);
	/** On return the device touches neither ring nor buffers. Returns the base to go on from. */
	uint32_t (*vring_stop)(void *opaque, unsigned queue);
	/** SET_VRING_ENABLE of a vring that the device has. Non-zero refuses. May be NULL. */
	int (*vring_enable)(void *opaque, unsigned queue, bool enabled);
	/** Another kick or call eventfd. The former ones are closed when this returns. */
	int (*vring_eventfds)(void *opaque, unsigned queue, const struct bf_offload_vring *vring);
	/**
	 * Guest memory becomes @memory (NULL: none), under vrings that may be running: make it
	 * accessible, and what is not in it inaccessible. Non-zero: nothing has changed, the request
	 * is refused. With NULL it must not fail; vrings are stopped then.
	 */
	int (*memory)(void *opaque, const struct bf_memory *memory);
	/**
	 * SET_STATUS (BF_PROTOCOL_F_STATUS); at 0 the vrings are stopped already. Non-zero: the front
	 * end is told that its request failed. May be NULL.
	 */
	int (*status)(void *opaque, uint8_t status);
};

struct bf_backend_config {
	const struct bf_backend_ops *ops; /* borrowed for the life of the object */
	/** NULL, or: rings are served by the device, and ops->vring_start, vring_stop are not used. */
	const struct bf_offload_ops *offload; /* borrowed likewise */
	void *opaque;
	const char *name;           /* tag in messages; copied */
	unsigned nr_queues;         /* 1 .. BF_MAX_QUEUES */
	/** Entries, 0: BF_MAX_QUEUE_SIZE. Any number: a split ring has the powers of two up to it. */
	uint16_t max_queue_size;
	uint32_t config_size;       /* bytes of config space; 0: none */
	/**
	 * Virtio features to offer. The library adds bit 30, and VHOST_F_LOG_ALL where it can log (rings
	 * that queue threads serve). VIRTIO_F_ACCESS_PLATFORM: the driver may use an IOMMU, and the
	 * library translates; not with offload.
	 */
	uint64_t features;
	/**
	 * Offer no others; 0: all that are right for a device of this kind, judged by its operations.
	 * Never offered unless named here, since front ends agree to them without serving them or mean
	 * something else by them: INBAND_NOTIFICATIONS, GPA_ADDRESSES, PAGEFAULT, CROSS_ENDIAN, SHMEM.
	 * PAGEFAULT takes the place of CONFIGURE_MEM_SLOTS: the protocol forbids postcopy with both.
	 * XEN_MMAP is not served, and not offered whoever names it. With offload, what needs rings in our
	 * hands is not offered: LOG_SHMFD, INFLIGHT_SHMFD and what builds on it, INBAND_NOTIFICATIONS,
	 * GPA_ADDRESSES, PAGEFAULT.
	 */
	uint64_t protocol_features;
	/** BF_PROTOCOL_F_SHMEM: sizes by shared memory id, [@nr_shmem] <= 256; copied. 0: none. */
	const uint64_t *shmem_sizes;
	unsigned nr_shmem;
	struct bf_log log;
};

/**
 * Protocol features that the library offers as back end for a device that has every operation: all that
 * it serves, but for those that are offered only when they are named (bf_backend_config).
 */
uint64_t bf_backend_supported_protocol_features(void);
/**
 * May this process have what BF_PROTOCOL_F_PAGEFAULT takes, a userfaultfd that sees faults of the kernel
 * too? To be asked before it is offered: later it costs the guest. 0; -EPERM without CAP_SYS_PTRACE,
 * /dev/userfaultfd and vm.unprivileged_userfaultfd=1; -ENOSYS, or another errno of userfaultfd().
 */
int bf_backend_check_postcopy(void);

/**
 * 0 and *@be; -EINVAL a config that makes no sense; -ENOMEM; errno of epoll_create1(), eventfd() or
 * epoll_ctl().
 */
int bf_backend_new(const struct bf_backend_config *config, struct bf_backend **be);
/** Stops vrings, closes, unmaps, frees. NULL is fine. */
void bf_backend_free(struct bf_backend *be);

/**
 * bf_backend_attach - serve a connected socket. @fd: AF_UNIX stream, owned from here on, also on
 * failure. Never waits. -EALREADY if attached; -EPROTOTYPE, -ENOTSOCK if it is something else; errno of
 * fcntl() or epoll_ctl().
 */
int bf_backend_attach(struct bf_backend *be, int fd);
/**
 * End the connection from this side: vrings stop, doorbells are gone with it. disconnected is not
 * called. Idempotent.
 */
void bf_backend_detach(struct bf_backend *be);
bool bf_backend_attached(const struct bf_backend *be);

/**
 * bf_backend_give_up_missing - nobody waits for pages of a postcopy migration any more.
 *
 * Whoever touches guest memory that is still missing waits for the front end, bf_backend_dispatch()
 * included, which then cannot see that the front end is gone. A program that offers PAGEFAULT watches its
 * socket (POLLRDHUP) on another thread, and calls this. Memory that may be missing is lost then: system
 * calls on it fail with EFAULT and queues on it break, for which bf_memory_guard() has to be in force.
 * Without effect when nothing is missing. Any thread, until bf_backend_free(). The end of a connection
 * does it too.
 */
void bf_backend_give_up_missing(struct bf_backend *be);

/** An fd to poll for reading for the life of the object. Borrowed. */
int bf_backend_fd(const struct bf_backend *be);
/**
 * Serve what is there: what queue contexts want of control, answers to our requests, a bounded number
 * of messages. Never blocks on the peer; a change of memory, IOTLB or log waits for the device's own
 * requests, as said above. 0, also when the front end closed the connection between messages; or the
 * error that ended it (already reported through disconnected): -EPROTONOSUPPORT another version,
 * -EPROTO, -EBADMSG, -EBADF, -ENOMSG bytes that are not the protocol, or why a request was refused whose
 * reply has no room for failure. Any other refused request is answered with failure, and the connection
 * lives.
 */
int bf_backend_dispatch(struct bf_backend *be);
const char *bf_backend_error(const struct bf_backend *be);

/** Accepted virtio features (without bits 26 and 30, which are the wire's), and agreed protocol features. */
uint64_t bf_backend_features(const struct bf_backend *be);
uint64_t bf_backend_protocol_features(const struct bf_backend *be);
/** The current map of guest memory, or NULL. Borrowed; bf_memory_ref() to keep it. */
struct bf_memory *bf_backend_memory(const struct bf_backend *be);

/**
 * bf_backend_publish_doorbell - hand the front end the page that rings @queue.
 * @fd: borrowed, sent. @offset: of the page in it, e.g. a VFIO region offset.
 * Sends and returns: requests for any number of queues are on their way together, and each answer
 * comes to doorbell_answered. (Without REPLY_ACK there is no answer: the result is 0, and the
 * operation runs before this returns.) Legal from vring_start on until vring_stop. -EOPNOTSUPP if not
 * agreed (the queue is served by its eventfd: say so once); -EINVAL a queue that is not running, no
 * descriptor, or an @offset that is not page-aligned; -ENOBUFS a front end that answers nothing or does
 * not read; -EPIPE it has closed the channel; -ENOTCONN; -ENOMEM.
 */
int bf_backend_publish_doorbell(struct bf_backend *be, unsigned queue, int fd, uint64_t offset);
/** Take it back, so that kicks come by eventfd again. Answered like publish, and the same errors. */
int bf_backend_withdraw_doorbell(struct bf_backend *be, unsigned queue);

/**
 * BF_PROTOCOL_F_SHARED_OBJECT, on the back-end channel: announce an object of ours, take it back.
 * Sends and returns. -EOPNOTSUPP not agreed, or no back-end channel; -ENOBUFS the front end answers
 * nothing or does not read; -EPIPE it has closed the channel; -ENOTCONN not attached; -ENOMEM.
 */
int bf_backend_add_shared_object(struct bf_backend *be, const uint8_t uuid[16]);
int bf_backend_remove_shared_object(struct bf_backend *be, const uint8_t uuid[16]);
/**
 * Ask for somebody else's object. @found runs in a later dispatch, or when the connection ends:
 * @fd is owned by it, or negative errno: -ENOENT there is none, -EBADF the front end sent none, or what
 * ended the connection. Errors as above; then @found does not run.
 */
typedef void bf_found_fn(void *opaque, int fd);
int bf_backend_lookup_shared_object(struct bf_backend *be, const uint8_t uuid[16], bf_found_fn *found,
				    void *opaque);

/**
 * BF_PROTOCOL_F_SHMEM: have the front end map [fd_offset, +len) of @fd (borrowed) at @shm_offset of
 * shared memory @id, into the guest; and take exactly that mapping away. @done (may be NULL) hears the
 * answer: 0, -EREMOTEIO the front end refused, or what ended the connection. -EINVAL outside of the
 * announced size, over another mapping, or not exactly one mapping; other errors as above. All mappings
 * are gone after RESET_DEVICE and with the connection.
 */
typedef void bf_answer_fn(void *opaque, int result);
int bf_backend_map_shmem(struct bf_backend *be, uint8_t id, int fd, uint64_t fd_offset,
			 uint64_t shm_offset, uint64_t len, bool writable, bf_answer_fn *done,
			 void *opaque);
int bf_backend_unmap_shmem(struct bf_backend *be, uint8_t id, uint64_t shm_offset, uint64_t len,
			   bf_answer_fn *done, void *opaque);

/**
 * Tell the front end that config space changed; at once, or, while no vring is started and the
 * front end must be left alone, when the first is. -EOPNOTSUPP without back-end channel, or CONFIG not
 * agreed; -ENOBUFS; -EPIPE; -ENOTCONN; -ENOMEM.
 */
int bf_backend_config_changed(struct bf_backend *be);

#ifdef __cplusplus
}
#endif
#endif
