/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Requests between pop and push: which are in flight.
 *
 * Queue context, hot. The driver names a request, by the head of its chain or by a buffer id of its
 * choice; the name is bounded and remembered here, for both formats. One name twice in flight would
 * have the device work twice on one request and give back what it does not have. Must not touch the
 * ring: the format does.
 */
#include "virtq.h"

#include <assert.h>
#include <errno.h>

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
	vq->in_flight[head] = (uint16_t)entries;
	vq->nr_in_flight++;
	bf_count(&vq->counters.requests, 1);
	return 1;
}

int bf_virtq_pop(struct bf_virtq *vq, struct bf_chain *chain)
{
	if (vq->broken)
		return vq->broken;
	return vq->format->pop(vq, chain);
}

void bf_virtq_push(struct bf_virtq *vq, uint16_t head, uint32_t len)
{
	unsigned entries;

	/* The device's promise, not the driver's: @head came from pop. */
	assert(head < vq->size && vq->in_flight[head]);
	entries = vq->in_flight[head];
	vq->in_flight[head] = 0;
	vq->nr_in_flight--;
	vq->format->push(vq, head, len, entries);
}
