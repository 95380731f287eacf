/* SPDX-License-Identifier: BSD-3-Clause */
/**
 * belfry/virtq.h - the device side of a virtqueue, split or packed.
 *
 * A back end gets a struct bf_virtq in its vring_start operation and drives it from one thread at a
 * time (the queue context) until vring_stop returns. The pointer stays valid, and counters
 * readable, for the life of the back end; the ring is there only while the vring runs. Nothing here
 * locks, allocates or enters the kernel, except bf_virtq_notify() (a write to the call eventfd) and
 * bf_virtq_drain_kick().
 *
 * Everything in the ring is written by an untrusted driver. It is read once, copied, checked, and
 * only the copy is used. A ring that breaks the rules of virtio 1.2, 2.7 and 2.8 is marked broken: pop
 * gives the error once and for good, the vring's error eventfd is signalled, and nothing else is
 * harmed.
 *
 * The usual loop, in batches:
 *
 *	while ((nr = bf_virtq_pop_batch(vq, chains, 32, iov, 256)) > 0) {
 *		... work on the iov of each chain ...
 *		bf_virtq_push_batch(vq, done, nr);
 *		bf_virtq_notify(vq);
 *	}
 *
 * or one by one, with bf_virtq_pop() and bf_virtq_push().
 *
 * Guest memory may change while a ring runs (memory table, IOTLB, dirty log). Control does that
 * between two calls of the queue context, and holds back what the change took away until the requests
 * popped before it are pushed: pieces of a popped chain stay valid until its push. A device should
 * therefore not keep a chain for longer than its work takes; what it cannot use yet it puts back
 * (bf_virtq_unpop()).
 */
#ifndef BELFRY_VIRTQ_H
#define BELFRY_VIRTQ_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

struct bf_virtq;
struct bf_memory;

/**
 * What a start needs. A back end never sees this: the library starts its vrings. It is for whoever
 * serves a queue without a connection, as a VMM does with a control queue.
 * @memory:    not NULL; a reference is taken
 * @size:      entries, at most 32768; a power of two, unless the ring is packed
 * @base:      the position, as GET_VRING_BASE has it. Split: the next available index in bits 0-15
 *             (the used index is in the ring). Packed: the next available descriptor in bits 0-14,
 *             its wrap counter in bit 15, the next used one in bits 16-30, its wrap counter in
 *             bit 31: a fresh packed ring starts at BF_VIRTQ_PACKED_BASE.
 * @desc_uva, @avail_uva, @used_uva: user addresses (struct bf_memory_region). Packed: the descriptor
 *             ring, the driver's and the device's event suppression area.
 * @features:  accepted by the driver. VIRTIO_F_RING_PACKED, VIRTIO_RING_F_EVENT_IDX,
 *             VIRTIO_RING_F_INDIRECT_DESC and VIRTIO_F_IN_ORDER are looked at.
 * @kick_fd, @call_fd, @err_fd: eventfds, non-blocking, or -1; borrowed until bf_virtq_stop()
 */
struct bf_virtq_setup {
	struct bf_memory *memory;
	uint16_t size;
	uint32_t base;
	uint64_t desc_uva, avail_uva, used_uva;
	uint64_t features;
	int kick_fd, call_fd, err_fd;
};

#define BF_VIRTQ_PACKED_BASE 0x80008000u

/**
 * A virtqueue of one's own, stopped; @queue is only its name. NULL: out of memory. Free it with
 * bf_virtq_free(), which stops it if it runs; NULL is fine.
 */
struct bf_virtq *bf_virtq_new(unsigned queue);
void bf_virtq_free(struct bf_virtq *vq);

/**
 * bf_virtq_start - translate the ring and make it ready, notifications wanted. Control context: no
 * queue context may have @vq, and the same holds for stop. Not while it runs.
 * 0; -EINVAL a bad size, alignment or base; -EFAULT a part of the ring that is not wholly in one
 * region; -ENOMEM. @why (may be NULL) receives a phrase on failure. Counters go on from where they
 * were; an earlier break is forgotten.
 */
int bf_virtq_start(struct bf_virtq *vq, const struct bf_virtq_setup *setup, const char **why);

/**
 * bf_virtq_stop - let go of the ring, the memory and the descriptors. What was pushed and not yet
 * notified is published first, and the driver signalled if it wants to be. Stopped already: no
 * effect.
 */
void bf_virtq_stop(struct bf_virtq *vq);

/**
 * The position, in the form of bf_virtq_setup.base: where the next start goes on. While it runs, and
 * after a stop. What is in flight counts as taken and will not be popped again.
 */
uint32_t bf_virtq_base(const struct bf_virtq *vq);

/**
 * One request: first the pieces that the device reads, then those that it writes.
 * @iov, @nr_iov:  in: the caller's array and its length. A chain that needs more pieces is broken.
 *                 No piece is empty; a buffer that crosses regions of guest memory gives several.
 * @head:          names the chain in bf_virtq_push(): the head of a split ring, the buffer id of a
 *                 packed one; below the size of the ring in both
 * @nr_out, @out_len: pieces iov[0 .. nr_out) to read, and the bytes of them together
 * @nr_in, @in_len:   pieces iov[nr_out .. nr_out + nr_in) to write, and the bytes of them together
 */
struct bf_chain {
	struct iovec *iov;
	unsigned nr_iov;
	uint16_t head;
	uint16_t nr_out;
	uint16_t nr_in;
	uint64_t out_len;
	uint64_t in_len;
};

/**
 * bf_virtq_pop - take the next request. 1 one was taken, 0 there is none, or what broke the ring:
 * -EFAULT an address not in guest memory; -ELOOP a chain longer than the ring, or than what of a
 * packed one is not in flight, or an indirect table longer than the ring and than 1,024; -EBADMSG any other
 * violation (index or buffer id out of range, more made available than the ring can hold, a head or
 * id that is still in flight, a readable piece after a writable one, nested indirect); -E2BIG more
 * pieces than iov. While kicks are wanted, 0 says also that the next request will be kicked for.
 */
int bf_virtq_pop(struct bf_virtq *vq, struct bf_chain *chain);

/**
 * bf_virtq_pop_batch - take up to @nr requests.
 * @chains: [@nr], filled in from the front; head and the counts as above, and iov, nr_iov: its
 *          pieces, in @iov
 * @iov:    [@nr_iov], shared by all of them
 * How many were taken: fewer than @nr when there are no more, when @iov is used up, or when the ring
 * broke behind them; the error comes with the next call then. 0 and errors as bf_virtq_pop(); -E2BIG
 * only for a request that alone needs more than @nr_iov pieces.
 */
int bf_virtq_pop_batch(struct bf_virtq *vq, struct bf_chain *chains, unsigned nr, struct iovec *iov,
		       unsigned nr_iov);

/**
 * bf_virtq_unpop - put back the last @nr requests popped, none of which was pushed: the next pop
 * gives them again. @heads: [@nr] their heads, in the order in which they were popped. Requests that
 * were in flight at a crash and were given again are put back like any other.
 */
void bf_virtq_unpop(struct bf_virtq *vq, const uint16_t *heads, unsigned nr);

/**
 * bf_virtq_push - give a request back, @len bytes written. In any order. The driver sees it with
 * the next bf_virtq_notify(). @head must be in flight: that is the caller's promise, asserted.
 */
void bf_virtq_push(struct bf_virtq *vq, uint16_t head, uint32_t len);

/** A finished request: @len bytes written to it. */
struct bf_done {
	uint16_t head;
	uint32_t len;
};

/**
 * bf_virtq_push_batch - give back [@nr] requests, as bf_virtq_push() does each. With
 * VIRTIO_F_IN_ORDER agreed, requests are pushed in the order in which they were popped (asserted), and
 * those that have no piece to write share the used entry of the one behind them in the batch (virtio 1.2,
 * 2.7.9 and 2.8.8 have the device tell of the last of several only; what it does not name counts as
 * written in full).
 */
void bf_virtq_push_batch(struct bf_virtq *vq, const struct bf_done *done, unsigned nr);

/**
 * bf_virtq_notify - publish what was pushed and signal the driver unless it asked not to be.
 * Returns true if it was signalled. Nothing pushed: no effect.
 */
bool bf_virtq_notify(struct bf_virtq *vq);

/**
 * Ask the driver to notify us of new requests (@on), or not to. Off is a hint. Before sleeping,
 * turn on and look once more: the return value says that requests are there already, and that
 * sleeping would lose them. With a doorbell that is polled leave it on: the doorbell is the
 * notification.
 */
bool bf_virtq_want_kicks(struct bf_virtq *vq, bool on);

/** Are there requests to pop? Reads the driver's index; no barrier beyond that. */
bool bf_virtq_has_work(struct bf_virtq *vq); /* false when broken */

/** The kick eventfd, non-blocking, borrowed while the vring runs; -1 when there is none (then
 * poll). */
int bf_virtq_kick_fd(const struct bf_virtq *vq);
/** Empty the kick eventfd. Returns how many signals there were, 0 if none. Counted as kicks. */
uint64_t bf_virtq_drain_kick(struct bf_virtq *vq);

/** Its number in the device; its entries while it runs; requests that were popped and not pushed. */
unsigned bf_virtq_queue(const struct bf_virtq *vq);
unsigned bf_virtq_size(const struct bf_virtq *vq);
unsigned bf_virtq_in_flight(const struct bf_virtq *vq);

/**
 * 0, or the negative errno that broke it. @reason (may be NULL): receives a sentence, or NULL. A
 * broken ring stays broken until it is started anew. What is in flight may still be pushed.
 */
int bf_virtq_broken(const struct bf_virtq *vq, const char **reason);

/**
 * Plain integers, written by the queue context, readable at any time (a torn set is possible). They
 * count over the life of the queue, across stop and start.
 */
struct bf_virtq_counters {
	uint64_t requests; /* popped */
	uint64_t kicks;    /* signals read from the kick eventfd, added up */
	uint64_t
		doorbells; /* rings seen in a polled doorbell page; counted by the device program */
	uint64_t calls;    /* signals to the driver */
	uint64_t suppressed; /* signals that the driver did not want */
	uint64_t errors;     /* times the ring was found broken */
};
struct bf_virtq_counters *bf_virtq_counters(struct bf_virtq *vq);

#ifdef __cplusplus
}
#endif
#endif
