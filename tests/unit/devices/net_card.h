/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Network cards for tests: belfry-net as a process, and for each socket a driver in this process that sends
 * and receives Ethernet frames.
 */
#ifndef TESTS_DEVICES_NET_CARD_H
#define TESTS_DEVICES_NET_CARD_H

#include "../support.h"

#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/wait.h>

#include <jansson.h>

#include <belfry/driver.h>
#include <belfry/socket.h>

#define WAIT_MS    10000
#define MAX_CARDS  4
#define MAX_PAIRS  2
#define RX_BUFFERS 64
#define TX_SLOTS   32
#define TX_SLOT    16384
#define HDR        12

#define BIT(n)    (1ull << (n))
#define MERGEABLE BIT(VIRTIO_NET_F_MRG_RXBUF)

struct tx_slot {
	bool busy;
	uint8_t *bytes; /* [TX_SLOT] */
};

struct card {
	struct bf_driver *drv;
	unsigned nr_pairs;
	uint32_t rx_len; /* of a receive buffer */
	struct tx_slot slots[MAX_PAIRS][TX_SLOTS];
};

/* The program and all its cards. */
struct net_test {
	pid_t pid;
	char folder[32], stats[64];
	char sockets[MAX_CARDS][64];
	unsigned nr;
	struct card cards[MAX_CARDS];
};

/* @options end with NULL. As many sockets as cards. */
static inline void net_run(struct net_test *t, unsigned nr, const char *const *options)
{
	char stats[96], paths[MAX_CARDS][96], ready_option[32], byte;
	const char *argv[40] = { "belfry-net", "--log-level=error" };
	unsigned argc = 2, i;
	int ready[2];

	memset(t, 0, sizeof(*t));
	strcpy(t->folder, "/tmp/belfry-net-XXXXXX");
	assert_non_null(mkdtemp(t->folder));
	snprintf(t->stats, sizeof(t->stats), "%s/stats", t->folder);
	snprintf(stats, sizeof(stats), "--stats=%s", t->stats);
	argv[argc++] = stats;
	for (i = 0; i < nr; i++) {
		snprintf(t->sockets[i], sizeof(t->sockets[i]), "%s/s%u", t->folder, i);
		snprintf(paths[i], sizeof(paths[i]), "--socket-path=%s", t->sockets[i]);
		argv[argc++] = paths[i];
	}
	while (*options)
		argv[argc++] = *options++;
	assert_int_equal(pipe(ready), 0);
	snprintf(ready_option, sizeof(ready_option), "--ready-fd=%d", ready[1]);
	argv[argc++] = ready_option;
	t->nr = nr;
	t->pid = fork();
	assert_true(t->pid >= 0);
	if (!t->pid) {
		close(ready[0]);
		alarm(50);
		execv(BELFRY_NET, (char **)(uintptr_t)argv);
		_exit(127);
	}
	close(ready[1]);
	if (read(ready[0], &byte, 1) != 1)
		fail_msg("belfry-net did not start");
	close(ready[0]);
}

static inline void card_buffer(struct card *card, unsigned pair, void *buffer)
{
	struct iovec iov = { buffer, card->rx_len };

	assert_int_equal(bf_driver_add(card->drv, 2 * pair, &iov, 0, 1, buffer), 0);
}

static inline struct card *card_open(struct net_test *t, unsigned idx, unsigned nr_pairs,
				     uint32_t rx_len, uint64_t features)
{
	const struct bf_driver_config config = {
		.name = "card",
		.nr_queues = 2 * nr_pairs,
		.queue_size = 128,
		.features = features,
		.memory_size =
			nr_pairs * (RX_BUFFERS * (uint64_t)rx_len + TX_SLOTS * TX_SLOT) + (1 << 16),
		.timeout_ms = WAIT_MS,
	};
	struct card *card = &t->cards[idx];
	char error[256] = "";
	int fd = bf_socket_connect(t->sockets[idx]);

	assert_true(fd >= 0);
	card->nr_pairs = nr_pairs;
	card->rx_len = rx_len;
	if (bf_driver_new(&config, fd, &card->drv, error, sizeof(error)))
		fail_msg("%s", error);
	for (unsigned p = 0; p < nr_pairs; p++) {
		for (unsigned i = 0; i < RX_BUFFERS; i++)
			card_buffer(card, p, bf_driver_alloc(card->drv, rx_len, 1));
		for (unsigned i = 0; i < TX_SLOTS; i++)
			card->slots[p][i].bytes = bf_driver_alloc(card->drv, TX_SLOT, 64);
		bf_driver_kick(card->drv, 2 * p);
	}
	return card;
}

static inline void card_close(struct card *card)
{
	bf_driver_free(card->drv);
	card->drv = NULL;
}

/* Success only if the program ends by itself as it should. */
static inline int net_end(struct net_test *t)
{
	int status;

	for (unsigned i = 0; i < t->nr; i++)
		card_close(&t->cards[i]);
	kill(t->pid, SIGTERM);
	waitpid(t->pid, &status, 0);
	unlink(t->stats);
	rmdir(t->folder);
	return WIFEXITED(status) && !WEXITSTATUS(status) ? 0 : -1;
}

/* What must go on while anybody waits: each card's side of the protocol. */
static inline void net_turn(struct net_test *t)
{
	for (unsigned i = 0; i < t->nr; i++)
		if (t->cards[i].drv)
			assert_true(bf_driver_dispatch(t->cards[i].drv) >= 0);
}

static inline void card_reap(struct card *card, unsigned pair)
{
	struct tx_slot *slot;
	uint32_t len;

	while ((slot = bf_driver_get(card->drv, 2 * pair + 1, &len))) {
		assert_true(slot->busy);
		assert_int_equal(len, 0);
		slot->busy = false;
	}
}

static inline bool card_idle(struct card *card, unsigned pair)
{
	card_reap(card, pair);
	for (unsigned i = 0; i < TX_SLOTS; i++)
		if (card->slots[pair][i].busy)
			return false;
	return true;
}

/* False: all slots are busy. The packet is sent in pieces of @piece bytes, the rest in the 64th. */
static inline bool card_try_send(struct card *card, unsigned pair,
				 const struct virtio_net_hdr_v1 *header, const void *frame,
				 uint32_t len, uint32_t piece)
{
	struct tx_slot *slot = card->slots[pair];
	struct iovec iov[64];
	unsigned nr = 0;
	uint32_t at = 0;

	card_reap(card, pair);
	for (unsigned i = 0; i < TX_SLOTS && slot->busy; i++)
		slot++;
	if (slot == card->slots[pair] + TX_SLOTS)
		return false;
	memset(slot->bytes, 0, HDR);
	if (header)
		memcpy(slot->bytes, header, HDR);
	memcpy(slot->bytes + HDR, frame, len);
	for (len += HDR; at < len && nr < 64; at += iov[nr++].iov_len)
		iov[nr] = (struct iovec){ slot->bytes + at,
					  nr == 63 || len - at < piece ? len - at : piece };
	if (bf_driver_add(card->drv, 2 * pair + 1, iov, nr, 0, slot))
		return false;
	slot->busy = true;
	bf_driver_kick(card->drv, 2 * pair + 1);
	return true;
}

static inline void card_send(struct net_test *t, unsigned idx, const void *frame, uint32_t len)
{
	for (unsigned ms = 0; ms < WAIT_MS; ms++) {
		if (card_try_send(&t->cards[idx], 0, NULL, frame, len, 4096))
			return;
		net_turn(t);
		usleep(1000);
	}
	fail_msg("card %u cannot send", idx);
}

/* A packet that is there, put together: its length, or 0. Its buffers are offered again. */
static inline uint32_t card_poll(struct card *card, unsigned pair, struct virtio_net_hdr_v1 *header,
				 uint8_t *frame)
{
	uint32_t len, total = 0;
	uint8_t *buffer = bf_driver_get(card->drv, 2 * pair, &len);
	unsigned nr = 1;

	if (!buffer)
		return 0;
	assert_true(len >= HDR);
	memcpy(header, buffer, HDR);
	assert_true(header->num_buffers >= 1);
	/* All buffers of a packet come together. */
	for (unsigned skip = HDR;; skip = 0) {
		assert_non_null(buffer);
		memcpy(frame + total, buffer + skip, len - skip);
		total += len - skip;
		card_buffer(card, pair, buffer);
		if (nr++ == header->num_buffers)
			break;
		buffer = bf_driver_get(card->drv, 2 * pair, &len);
	}
	bf_driver_kick(card->drv, 2 * pair);
	return total;
}

static inline uint32_t card_receive_within(struct net_test *t, unsigned idx,
					   struct virtio_net_hdr_v1 *header, uint8_t *frame,
					   unsigned wait_ms)
{
	for (unsigned ms = 0; ms < wait_ms; ms++) {
		uint32_t len = card_poll(&t->cards[idx], 0, header, frame);

		if (len)
			return len;
		net_turn(t);
		bf_driver_wait(t->cards[idx].drv, 0, 1);
	}
	return 0;
}

static inline json_t *net_stats(struct net_test *t)
{
	json_t *root = NULL;

	unlink(t->stats);
	kill(t->pid, SIGUSR1);
	for (int i = 0; i < 2000 && !root; i++) {
		usleep(2000);
		root = json_load_file(t->stats, 0, NULL);
	}
	assert_non_null(root);
	return root;
}

/* A number of @queue, or one of its drops. */
static inline json_int_t net_number(json_t *root, unsigned queue, const char *name)
{
	json_t *q = json_array_get(json_object_get(root, "queues"), queue);
	json_t *number = json_object_get(q, name);

	if (!number)
		number = json_object_get(json_object_get(q, "drops"), name);
	return json_integer_value(number);
}

#endif
