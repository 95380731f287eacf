/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Receive queues. Queue context; no lock but the backlog's, no allocation. Buffers are used in the order
 * in which the driver made them available, and pushed in that order.
 *
 * Running out of buffers
 *
 * While packets find buffers, the driver need not tell us of new ones. When one does not, kicks are asked
 * for, and that has to happen when all buffers there are have been popped: with an event index a kick
 * comes for what is added behind the position that we name, and a buffer that lies there already,
 * but is not enough for the packet, would never be kicked for again. Only then they are put back.
 */
#include "rx.h"

#include "offload.h"

void net_rx_start(struct net_rx *rx, struct bf_virtq *vq, uint64_t features, bool polled)
{
	rx->vq = vq;
	__atomic_store_n(&rx->features, features, __ATOMIC_RELAXED);
	rx->hdr_len = net_header_len(features);
	rx->mergeable = bf_has(features, VIRTIO_NET_F_MRG_RXBUF);
	rx->polled = polled;
	rx->kicks = true; /* as bf_virtq_start() leaves it */
	rx->starved = rx->broken = false; /* active is none of control's: others of the worker look at it */
	net_backlog_open(&rx->backlog);
}

void net_rx_stop(struct net_rx *rx)
{
	net_backlog_close(&rx->backlog);
	rx->vq = NULL;
}

static void tell_kicks(struct net_rx *rx, bool on)
{
	if (rx->kicks == on || rx->polled)
		return;
	rx->kicks = on;
	bf_virtq_want_kicks(rx->vq, on);
}

/* Done chains lie in front of the stock: both are moved to the start of their arrays. */
static void make_room(struct net_rx *rx)
{
	unsigned left = rx->nr_stock - rx->next, first = 0, used = 0;

	if (rx->next)
		bf_virtq_push_batch(rx->vq, rx->done, rx->next);
	if (left)
		first = (unsigned)(rx->chains[rx->next].iov - rx->iov);
	for (unsigned i = 0; i < left; i++) {
		struct bf_chain *chain = &rx->chains[i];

		*chain = rx->chains[rx->next + i];
		chain->iov -= first;
		used += chain->nr_iov;
	}
	if (first)
		memmove(rx->iov, rx->iov + first, used * sizeof(rx->iov[0]));
	rx->nr_stock = left;
	rx->next = 0;
}

static unsigned pieces_used(const struct net_rx *rx)
{
	const struct bf_chain *last;

	if (!rx->nr_stock)
		return 0;
	last = &rx->chains[rx->nr_stock - 1];
	return (unsigned)(last->iov - rx->iov) + last->nr_iov;
}

/* The other CPU had the buffers last: have them on their way before they are written. */
static void prefetch(const struct bf_chain *chains, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++) {
		if (!chains[i].nr_in)
			continue;
		__builtin_prefetch(chains[i].iov->iov_base, 1);
		__builtin_prefetch((uint8_t *)chains[i].iov->iov_base + 64, 1);
	}
}

/* Pop @nr more. False: there are none, or no place for them. */
static bool pop(struct net_rx *rx, unsigned nr)
{
	unsigned used = pieces_used(rx);
	int ret;

	rx->touched = true;
	if (rx->nr_stock + nr > RX_STOCK || RX_PIECES - used < RX_PIECES / 2) {
		make_room(rx);
		used = pieces_used(rx);
		nr = nr < RX_STOCK - rx->nr_stock ? nr : RX_STOCK - rx->nr_stock;
		if (!nr)
			return false;
	}
	ret = bf_virtq_pop_batch(rx->vq, rx->chains + rx->nr_stock, nr, rx->iov + used,
				 RX_PIECES - used);
	if (ret > 0) {
		prefetch(rx->chains + rx->nr_stock, (unsigned)ret);
		rx->nr_stock += (unsigned)ret;
		return true;
	}
	/* What is popped already takes the pieces that a long chain would need. */
	rx->broken = ret < 0;
	return false;
}

void net_rx_stock(struct net_rx *rx, unsigned nr)
{
	if (!rx->broken && rx->nr_stock - rx->next < nr)
		pop(rx, nr - (rx->nr_stock - rx->next));
}

/* Copy as much as fits into the pieces of a chain behind its first @skip bytes. */
struct cursor {
	const struct iovec *iov;
	size_t offset;
};

static void fill(struct bf_chain *chain, size_t skip, struct cursor *from, size_t len)
{
	const struct iovec *to = chain->iov;

	while (len) {
		size_t now = from->iov->iov_len - from->offset;

		if (!now) {
			from->iov++;
			from->offset = 0;
			continue;
		}
		if (skip >= to->iov_len) {
			skip -= to++->iov_len;
			continue;
		}
		now = now < to->iov_len - skip ? now : to->iov_len - skip;
		now = now < len ? now : len;
		memcpy((uint8_t *)to->iov_base + skip,
		       (uint8_t *)from->iov->iov_base + from->offset, now);
		from->offset += now;
		skip += now;
		len -= now;
	}
}

static void put_header(struct net_rx *rx, struct bf_chain *chain, const struct net_meta *meta,
		       uint16_t nr_buffers)
{
	struct virtio_net_hdr_v1 raw;
	struct iovec piece = { &raw, sizeof(raw) };
	struct cursor cursor = { &piece, 0 };

	net_meta_write(meta, nr_buffers, &raw);
	if (chain->iov->iov_len >= NET_HDR_LEN && rx->hdr_len == NET_HDR_LEN)
		memcpy(chain->iov->iov_base, &raw, NET_HDR_LEN);
	else
		fill(chain, 0, &cursor, rx->hdr_len);
}

static enum net_rx_result drop(struct net_rx *rx, enum net_drop why)
{
	net_count_drops(&rx->counters, why, 1);
	return NET_RX_DROPPED;
}

static void finish(struct net_rx *rx, uint32_t len)
{
	rx->done[rx->next] = (struct bf_done){ rx->chains[rx->next].head, len };
	rx->next++;
}

/* Buffers that cannot even take a header go back unused. False: there are no others. */
static bool usable(struct net_rx *rx)
{
	for (;;) {
		if (rx->next == rx->nr_stock && !pop(rx, 1))
			return false;
		if (rx->chains[rx->next].in_len >= rx->hdr_len && !rx->chains[rx->next].nr_out)
			return true;
		net_count_drops(&rx->counters, NET_DROP_CHAIN, 1);
		finish(rx, 0);
	}
}

/* Are all of the ring's descriptors in the stock? Then there will never be more buffers. */
static bool whole_ring(const struct net_rx *rx)
{
	unsigned pieces = pieces_used(rx);

	if (rx->next)
		return false; /* some come back */
	return pieces >= bf_virtq_size(rx->vq);
}

/*
 * How many buffers the packet takes, all of them popped; 0 and *@why when it does not fit. Only in
 * mergeable ones it may take several.
 */
static unsigned measure(struct net_rx *rx, uint64_t total, enum net_rx_result *why)
{
	uint64_t room = 0;
	unsigned nr = 0;

	*why = NET_RX_NO_ROOM;
	if (!usable(rx))
		return 0;
	if (!rx->mergeable) {
		if (rx->chains[rx->next].in_len >= total)
			return 1;
		*why = drop(rx, NET_DROP_SIZE);
		return 0;
	}
	while (room < total) {
		const struct bf_chain *chain;

		if (rx->next + nr == rx->nr_stock && !pop(rx, RX_BATCH)) {
			if (nr == RX_STOCK || whole_ring(rx))
				*why = drop(rx, NET_DROP_SIZE);
			return 0;
		}
		chain = &rx->chains[rx->next + nr++];
		if (chain->nr_out) {
			*why = drop(rx, NET_DROP_CHAIN);
			return 0;
		}
		room += chain->in_len;
	}
	return nr;
}

/*
 * A packet does not fit into the buffers there are. Buffers that come while we ask for kicks may not be
 * enough either, and then we ask again: none of them is kicked for.
 */
static enum net_rx_result no_room(struct net_rx *rx, uint64_t total, unsigned *nr)
{
	enum net_rx_result why = NET_RX_NO_ROOM;

	if (rx->broken)
		return drop(rx, NET_DROP_ROOM);
	rx->kicks = !rx->polled;
	while (rx->kicks && bf_virtq_want_kicks(rx->vq, true)) {
		unsigned before = rx->nr_stock - rx->next;

		*nr = measure(rx, total, &why);
		if (*nr)
			return NET_RX_DONE;
		if (why == NET_RX_DROPPED)
			return why;
		if (rx->nr_stock - rx->next != before)
			continue;
		if (!bf_virtq_has_work(rx->vq))
			break; /* waits for a translation, or is broken: both are heard of */
		/* There are more, but no place for them: that of what is done already, or none ever. */
		if (!rx->next)
			return drop(rx, NET_DROP_SIZE);
		make_room(rx);
	}
	rx->starved = true;
	return NET_RX_NO_ROOM;
}

enum net_rx_result net_rx_put(struct net_rx *rx, const struct net_packet *packet)
{
	uint64_t left = rx->hdr_len + (uint64_t)packet->len;
	struct cursor from = { packet->iov, 0 };
	enum net_rx_result why;
	unsigned nr, skip = rx->hdr_len;

	rx->touched = true;
	nr = measure(rx, left, &why);
	if (!nr && why == NET_RX_NO_ROOM)
		why = no_room(rx, left, &nr);
	if (!nr)
		return why;
	put_header(rx, &rx->chains[rx->next], &packet->meta, (uint16_t)nr);
	while (nr--) {
		struct bf_chain *chain = &rx->chains[rx->next];
		uint64_t now = left < chain->in_len ? left : chain->in_len;

		fill(chain, skip, &from, now - skip);
		finish(rx, (uint32_t)now);
		left -= now;
		skip = 0;
	}
	rx->packets++;
	rx->bytes += packet->len;
	return NET_RX_DONE;
}

void net_rx_end(struct net_rx *rx)
{
	uint16_t heads[RX_STOCK];
	unsigned left = rx->nr_stock - rx->next, nr_done = rx->next;

	rx->touched = false;
	for (unsigned i = 0; i < left; i++)
		heads[i] = rx->chains[rx->next + i].head;
	if (left)
		bf_virtq_unpop(rx->vq, heads, left);
	rx->nr_stock = rx->next = 0;
	if (!nr_done)
		return;
	bf_virtq_push_batch(rx->vq, rx->done, nr_done);
	bf_virtq_notify(rx->vq);
	net_count(&rx->counters, rx->packets, rx->bytes);
	rx->packets = rx->bytes = 0;
	if (!rx->starved)
		tell_kicks(rx, false);
}

enum net_rx_result net_rx_queue(struct net_rx *rx, const struct net_packet *packet,
				uint8_t *scratch)
{
	uint64_t features = __atomic_load_n(&rx->features, __ATOMIC_RELAXED);
	int missed;

	if (!net_backlog_is_open(&rx->backlog))
		return drop(rx, atomic_load(&rx->disabled) ? NET_DROP_DISABLED : NET_DROP_PORT);
	missed = net_backlog_put_as(&rx->backlog, packet, features, scratch);
	if (missed < 0)
		return drop(rx, NET_DROP_HEADER);
	if (!missed)
		return NET_RX_DONE;
	net_count_drops(&rx->counters, NET_DROP_ROOM, (unsigned)missed);
	return NET_RX_DROPPED;
}

enum net_rx_result net_rx_deliver(struct net_rx *rx, const struct net_packet *packet,
				  uint8_t *scratch)
{
	enum net_rx_result ret;

	if (net_meta_accepted(&packet->meta, rx->features) && net_backlog_empty(&rx->backlog)) {
		ret = net_rx_put(rx, packet);
		return ret == NET_RX_NO_ROOM ? net_rx_queue(rx, packet, scratch) : ret;
	}
	ret = net_rx_queue(rx, packet, scratch);
	if (!rx->starved)
		net_rx_drain(rx);
	return ret;
}

bool net_rx_drain(struct net_rx *rx)
{
	struct net_packet packet;
	bool worked = false;
	struct iovec iov;
	unsigned i;

	for (i = 0; i < RX_BATCH && net_backlog_peek(&rx->backlog, &packet, &iov); i++) {
		/* The driver may have been another when it was put there. */
		if (!net_meta_accepted(&packet.meta, rx->features))
			drop(rx, NET_DROP_HEADER);
		else if (net_rx_put(rx, &packet) == NET_RX_NO_ROOM)
			break;
		net_backlog_drop(&rx->backlog);
		worked = true;
	}
	return worked;
}
