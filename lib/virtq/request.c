/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Requests between pop and push: which are in flight.
 *
 * Queue context, hot. The driver names a request, by the head of its chain or by a buffer id of its
 * choice; the name is bounded and remembered here, for both formats. One name twice in flight would
 * have the device work twice on one request and give back what it does not have. Must not touch the
 * ring: the format does. A batch enters the virtqueue once ("Holding a queue", hold.h).
 */
#include "request.h"

#include <errno.h>

#include "hold.h"

int bf_virtq_take(struct bf_virtq *vq, uint16_t head, unsigned entries)
{
	/*
	 * A buffer id may be any number below the size of the ring: no more can be outstanding
	 * (virtio 1.2, 2.8.22 has the driver assert it), and the protocol's in-flight region is an
	 * array that is indexed by it.
	 */
	if (head >= vq->size)
		return bf_virtq_break(vq, -EBADMSG, "request is named %u, the ring has %u entries",
				      head, vq->size);
	if (vq->in_flight[head])
		return bf_virtq_break(vq, -EBADMSG,
				      "request %u made available again while it is in flight",
				      head);
	vq->in_flight[head] = entries;
	vq->nr_in_flight++;
	return 1;
}

/* Requests of a process before us come first; the in-flight region names them. */
static int __attribute__((noinline)) pop_again(struct bf_virtq *vq, struct bf_chain *chains,
					       unsigned nr, struct iovec *iov, unsigned nr_iov)
{
	unsigned taken = 0, used = 0;

	while (taken < nr && bf_inflight_nr_again(vq)) {
		struct bf_chain *chain = &chains[taken];
		int ret;

		chain->iov = iov + used;
		chain->nr_iov = nr_iov - used;
		vq->iov_rest = used;
		ret = bf_inflight_pop_again(vq, chain);
		if (ret <= 0)
			return taken ? (int)taken : ret;
		if (vq->in_order)
			bf_order_add(vq, chain, 1);
		if (vq->dirty)
			bf_dirty_taken(vq, chain->head);
		chain->nr_iov = (unsigned)chain->nr_out + chain->nr_in;
		used += chain->nr_iov;
		taken++;
	}
	return (int)taken;
}

static int pop(struct bf_virtq *vq, struct bf_chain *chains, unsigned nr, struct iovec *iov,
	       unsigned nr_iov)
{
	int ret;

	if (__builtin_expect(vq->broken, 0))
		return vq->broken;
	if (__builtin_expect(bf_memory_cut(vq->memory), 0))
		return bf_virtq_break(vq, -EFAULT,
				      "guest memory was cut: its file shrank under the mapping");
	if (__builtin_expect(vq->waiting, 0))
		return 0;
	if (__builtin_expect(!!vq->inflight, 0) && bf_inflight_nr_again(vq))
		ret = pop_again(vq, chains, nr, iov, nr_iov);
	else
		ret = vq->format->pop(vq, chains, nr, iov, nr_iov);
	if (ret > 0)
		bf_count(&vq->counters.requests, (unsigned)ret);
	return ret;
}

int bf_virtq_pop_batch(struct bf_virtq *vq, struct bf_chain *chains, unsigned nr, struct iovec *iov,
		       unsigned nr_iov)
{
	int ret;

	if (!nr)
		return 0;
	bf_virtq_enter(vq);
	ret = pop(vq, chains, nr, iov, nr_iov);
	bf_virtq_leave(vq);
	return ret;
}

int bf_virtq_pop(struct bf_virtq *vq, struct bf_chain *chain)
{
	unsigned nr_iov = chain->nr_iov;
	int ret = bf_virtq_pop_batch(vq, chain, 1, chain->iov, nr_iov);

	chain->nr_iov = nr_iov;
	return ret;
}

/* What a device wrote is logged before the driver can know; the region hears of it when it is filled in. */
static void __attribute__((noinline))
push_recorded(struct bf_virtq *vq, const struct bf_done *done, unsigned nr)
{
	for (unsigned i = 0; vq->dirty && i < nr; i++)
		bf_dirty_pushed(vq, done[i].head);
	vq->format->push(vq, done, nr);
	for (unsigned i = 0; vq->inflight && i < nr; i++)
		bf_inflight_pushed(vq, done[i].head);
}

void bf_virtq_push_batch(struct bf_virtq *vq, const struct bf_done *done, unsigned nr)
{
	if (!nr)
		return;
	bf_virtq_enter(vq);
	if (bf_virtq_recorded(vq))
		push_recorded(vq, done, nr);
	else
		vq->format->push(vq, done, nr);
	bf_virtq_leave(vq);
}

void bf_virtq_push(struct bf_virtq *vq, uint16_t head, uint32_t len)
{
	const struct bf_done done = { head, len };

	bf_virtq_push_batch(vq, &done, 1);
}

static void unpop(struct bf_virtq *vq, uint16_t head)
{
	uint32_t taken = bf_virtq_give(vq->in_flight, vq->size, head);
	bool again = vq->inflight && bf_inflight_is_again(vq, head);

	bf_virtq_gone(vq, 1, !!(taken & BF_TAKEN_OLD));
	if (vq->in_order) {
		vq->order_in = (uint16_t)((vq->order_in ? vq->order_in : vq->size) - 1);
		assert(vq->order[vq->order_in] == head);
	}
	if (vq->dirty)
		bf_dirty_unpopped(vq, head);
	if (again) {
		bf_inflight_unpop_again(vq, head);
		return;
	}
	if (vq->inflight)
		bf_inflight_untaken(vq, head);
	vq->format->unpop(vq, taken & BF_TAKEN_ENTRIES);
}

void bf_virtq_unpop(struct bf_virtq *vq, const uint16_t *heads, unsigned nr)
{
	bf_virtq_enter(vq);
	for (unsigned i = nr; i--;)
		unpop(vq, heads[i]);
	/* They will be popped, and counted, again. */
	bf_count(&vq->counters.requests, -(uint64_t)nr);
	bf_virtq_leave(vq);
}
