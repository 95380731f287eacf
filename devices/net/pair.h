/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A receive and a transmit queue, as virtio numbers them: 2n and 2n + 1 are pair n. Both belong to one
 * worker, so that a packet can go from one ring to the other without a lock.
 */
#ifndef NET_PAIR_H
#define NET_PAIR_H

#include <jansson.h>

#include "devices/common/worker.h"
#include "port.h"
#include "rx.h"
#include "tx.h"

struct net_pair {
	struct worker_queue rx_queue, tx_queue;
	struct net_port *port;
	struct worker *worker;
	unsigned idx;
	bool polled; /* --notify=poll */
	/* Worker: transmitting waits for receive buffers of this pair; net_pair_stall(). */
	bool stalled;
	uint8_t *scratch; /* [NET_PACKET_MAX]: the worker's, a place for one packet */
	struct net_tx tx;
	struct net_rx rx;
	/* Control, by direction: what the front end said; vring_start to vring_stop; the worker has it. */
	bool enabled[2], started[2], served[2];
	uint64_t features; /* control: of the driver */
} __attribute__((aligned(64)));

/* Control. In place, zeroed. 0 or negative errno. */
int net_pair_init(struct net_pair *pair, unsigned idx, struct net_port *port, struct worker *worker,
		  bool polled);
/* Neither queue runs. Of initialised or zeroed. */
void net_pair_done(struct net_pair *pair);

/*
 * Control. @queue: of the device. @word: of its doorbell, or NULL. 0 or negative errno. A queue that is not
 * enabled has no side effects: what is sent on it is dropped, and nothing is received.
 */
int net_pair_start(struct net_pair *pair, unsigned queue, struct bf_virtq *vq, uint32_t *word,
		   uint64_t features);
void net_pair_stop(struct net_pair *pair, unsigned queue);
/* Control: before the start, and at any time while it runs. 0 or negative errno: then it is not served. */
int net_pair_enable(struct net_pair *pair, unsigned queue, bool on);
void net_pair_set_doorbell(struct net_pair *pair, unsigned queue, enum stats_doorbell state);

/* Worker: transmit is not to be called before there are receive buffers again. */
static inline void net_pair_stall(struct net_pair *pair)
{
	pair->stalled = true;
	pair->tx_queue.parked = true;
}

/* For --stats: both queues' objects appended to @queues. False: no memory. */
bool net_pair_stats(const struct net_pair *pair, json_t *queues);

#endif
