/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Queue pairs: hand-over between control and worker, and what serving means for each direction. Control
 * gives a queue to the worker in net_pair_start() and has it back after net_pair_stop(); serve_*() and
 * finish_*() run on the worker. Knows no port.
 */
#include "pair.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

static struct net_pair *of_rx(struct worker_queue *queue)
{
	return (void *)((char *)queue - offsetof(struct net_pair, rx_queue));
}

static struct net_pair *of_tx(struct worker_queue *queue)
{
	return (void *)((char *)queue - offsetof(struct net_pair, tx_queue));
}

static bool transmit(struct net_pair *pair)
{
	return pair->tx.active && pair->port->ops->transmit(pair->port, pair);
}

static bool serve_tx(struct worker_queue *queue)
{
	struct net_pair *pair = of_tx(queue);

	pair->tx.active = true;
	pair->stalled = queue->parked = false;
	return transmit(pair);
}

static bool serve_rx(struct worker_queue *queue)
{
	struct net_pair *pair = of_rx(queue);
	struct net_rx *rx = &pair->rx;
	bool worked;

	rx->active = true;
	rx->starved = false;
	queue->parked = true; /* buffers in the ring are no work */
	worked = net_rx_drain(rx);
	if (!rx->starved && pair->port->ops->receive)
		worked |= pair->port->ops->receive(pair->port, pair);
	if (pair->stalled) {
		pair->stalled = pair->tx_queue.parked = false;
		transmit(pair);
		/* On from here its own turns go, and the last one asks for kicks: nobody did yet. */
		if (!pair->stalled)
			worker_poke(&pair->tx_queue);
	}
	net_rx_end(rx);
	return worked;
}

/* A disabled transmit queue. It has ops of its own, so that serve_tx() need not ask. */
static bool discard_tx(struct worker_queue *queue)
{
	struct net_pair *pair = of_tx(queue);

	pair->stalled = queue->parked = false;
	return net_tx_discard(&pair->tx, &pair->tx.counters, NET_DROP_DISABLED);
}

/* While spinning: are there packets for which a look at the ring is worth while? */
static bool ready_rx(struct worker_queue *queue)
{
	struct net_pair *pair = of_rx(queue);

	if (!pair->rx.starved)
		return !net_backlog_empty(&pair->rx.backlog);
	return pair->polled && bf_virtq_has_work(pair->rx.vq);
}

static bool arm_rx(struct worker_queue *queue)
{
	return !of_rx(queue)->rx.starved && ready_rx(queue);
}

static void finish_rx(struct worker_queue *queue)
{
	struct net_pair *pair = of_rx(queue);

	net_rx_end(&pair->rx);
	pair->rx.active = false;
}

static void finish_tx(struct worker_queue *queue)
{
	of_tx(queue)->tx.active = false;
}

static const struct worker_ops rx_ops = { .serve = serve_rx, .arm = arm_rx, .ready = ready_rx };
static const struct worker_ops tx_ops = { .serve = serve_tx };
static const struct worker_ops tx_disabled_ops = { .serve = discard_tx };

int net_pair_init(struct net_pair *pair, unsigned idx, struct net_port *port, struct worker *worker,
		  bool polled)
{
	pair->idx = idx;
	pair->port = port;
	pair->worker = worker;
	pair->polled = polled;
	pair->rx_queue.source_fd = pair->tx_queue.source_fd = -1;
	pair->rx_queue.ops = &rx_ops;
	pair->scratch = malloc(NET_PACKET_MAX);
	return pair->scratch ? net_backlog_init(&pair->rx.backlog) : -ENOMEM;
}

void net_pair_done(struct net_pair *pair)
{
	net_backlog_done(&pair->rx.backlog);
	free(pair->scratch);
	pair->scratch = NULL;
}

static struct worker_queue *side(struct net_pair *pair, unsigned queue)
{
	return queue % 2 ? &pair->tx_queue : &pair->rx_queue;
}

static void set_live(struct net_pair *pair, bool on)
{
	if (pair->port->ops->live)
		pair->port->ops->live(pair->port, pair, on);
}

static void begin_side(struct net_pair *pair, unsigned queue)
{
	struct worker_queue *q = side(pair, queue);

	if (queue % 2) {
		q->ops = pair->enabled[1] ? &tx_ops : &tx_disabled_ops;
		net_tx_start(&pair->tx, q->vq, pair->features);
		return;
	}
	net_rx_start(&pair->rx, q->vq, pair->features, pair->polled);
	set_live(pair, true);
}

static void end_side(struct net_pair *pair, unsigned queue)
{
	if (queue % 2)
		return;
	set_live(pair, false);
	net_rx_stop(&pair->rx);
}

/*
 * Loopback's transmit may be waiting for this queue: it is to look again, and then sees the flag. (Partner:
 * the exchange in worker_poke(); as with any poke, that of a queue without a worker is not needed.)
 */
static void set_rx_disabled(struct net_pair *pair, bool disabled)
{
	if (atomic_exchange(&pair->rx.disabled, disabled) != disabled)
		worker_poke(&pair->tx_queue);
}

/*
 * To the worker, as it is enabled or not. Of a disabled receive queue nothing is to be done, and it is
 * left alone. Going from one to the other is by way of control, since there it takes no thought: between
 * worker_remove() and worker_add() nobody else has the queue.
 */
static int hand_over(struct net_pair *pair, unsigned queue)
{
	bool receives = !(queue % 2);
	int ret;

	if (receives)
		set_rx_disabled(pair, !pair->enabled[0]);
	if (receives && !pair->enabled[0])
		return 0;
	begin_side(pair, queue);
	ret = worker_add(pair->worker, side(pair, queue));
	pair->served[queue % 2] = !ret;
	if (ret)
		end_side(pair, queue);
	return ret;
}

static void take_back(struct net_pair *pair, unsigned queue)
{
	if (!pair->served[queue % 2])
		return;
	worker_remove(side(pair, queue), queue % 2 ? finish_tx : finish_rx);
	pair->served[queue % 2] = false;
	end_side(pair, queue);
}

int net_pair_start(struct net_pair *pair, unsigned queue, struct bf_virtq *vq, uint32_t *word,
		   uint64_t features)
{
	struct worker_queue *q = side(pair, queue);
	int ret;

	q->vq = vq;
	q->word = word;
	pair->features = features;
	ret = hand_over(pair, queue);
	pair->started[queue % 2] = !ret;
	return ret;
}

void net_pair_stop(struct net_pair *pair, unsigned queue)
{
	take_back(pair, queue);
	pair->started[queue % 2] = false;
	if (!(queue % 2))
		set_rx_disabled(pair, false);
}

void net_pair_set_doorbell(struct net_pair *pair, unsigned queue, enum stats_doorbell state)
{
	worker_set_doorbell(side(pair, queue), state);
}

int net_pair_enable(struct net_pair *pair, unsigned queue, bool on)
{
	struct worker_queue *q = side(pair, queue);
	bool changes = pair->enabled[queue % 2] != on;
	int doorbell = atomic_load(&q->doorbell), ret;

	pair->enabled[queue % 2] = on;
	if (!changes || !pair->started[queue % 2])
		return 0;
	take_back(pair, queue);
	ret = hand_over(pair, queue);
	/* Its page is mapped as before. */
	if (!ret)
		net_pair_set_doorbell(pair, queue, (enum stats_doorbell)doorbell);
	return ret;
}

static json_t *drops_json(const struct net_counters *counters)
{
	static const char *const names[NET_NR_DROPS] = {
		[NET_DROP_SHORT] = "short", [NET_DROP_LONG] = "long",
		[NET_DROP_CHAIN] = "chain", [NET_DROP_HEADER] = "header",
		[NET_DROP_ROOM] = "room",   [NET_DROP_SIZE] = "size",
		[NET_DROP_PORT] = "port",   [NET_DROP_DISABLED] = "disabled",
	};
	json_t *drops = json_object();

	for (unsigned i = 0; i < NET_NR_DROPS; i++) {
		json_int_t nr = (json_int_t)__atomic_load_n(&counters->drops[i], __ATOMIC_RELAXED);

		if (nr)
			json_object_set_new(drops, names[i], json_integer(nr));
	}
	return drops;
}

static json_t *queue_json(const struct worker_queue *q, unsigned queue,
			  const struct net_counters *counters)
{
	struct stats_queue stats = {
		.queue = queue,
		.wakeups = __atomic_load_n(&q->wakeups, __ATOMIC_RELAXED),
		.doorbell = (enum stats_doorbell)atomic_load(&q->doorbell),
	};
	json_t *root;

	if (q->counters)
		stats_counters_read(&stats.counters, q->counters);
	root = stats_queue_json(&stats);
	json_object_set_new(
		root, "packets",
		json_integer((json_int_t)__atomic_load_n(&counters->packets, __ATOMIC_RELAXED)));
	json_object_set_new(
		root, "bytes",
		json_integer((json_int_t)__atomic_load_n(&counters->bytes, __ATOMIC_RELAXED)));
	json_object_set_new(root, "drops", drops_json(counters));
	return root;
}

bool net_pair_stats(const struct net_pair *pair, json_t *queues)
{
	return !json_array_append_new(
		       queues, queue_json(&pair->rx_queue, 2 * pair->idx, &pair->rx.counters)) &&
	       !json_array_append_new(
		       queues, queue_json(&pair->tx_queue, 2 * pair->idx + 1, &pair->tx.counters));
}
