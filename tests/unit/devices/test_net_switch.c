/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * belfry-net --switch with three guests: who gets what, what happens to those who do not receive, and what
 * is done for those who take no offloads. On one thread, where packets go from ring to ring, and on
 * several, where they wait in between.
 */
#include "net_card.h"

#define NR        3
#define ETHERTYPE 0x88b5 /* for local experiments */
#define ALL_OFFLOADS                                                                           \
	(BIT(VIRTIO_NET_F_CSUM) | BIT(VIRTIO_NET_F_GUEST_CSUM) | BIT(VIRTIO_NET_F_HOST_TSO4) | \
	 BIT(VIRTIO_NET_F_GUEST_TSO4))
#define NOBODY    9
#define BROADCAST 0xff
#define GROUP     0x33

static struct net_test test;
static uint8_t frame[70000], got[70000];

static int set_up(void **state)
{
	const char *const *options = *state;

	net_run(&test, NR, options);
	for (unsigned i = 0; i < NR; i++)
		card_open(&test, i, 1, 2048, MERGEABLE | (i == 2 ? 0 : ALL_OFFLOADS));
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	return net_end(&test);
}

static void put_mac(uint8_t *at, unsigned who)
{
	memset(at, who == BROADCAST ? 0xff : 0, 6);
	if (who == GROUP)
		at[0] = 0x33;
	else if (who != BROADCAST) {
		at[0] = 0x52;
		at[5] = (uint8_t)who;
	}
}

/* A small frame with a number in it. */
static void send_frame(unsigned from, unsigned source, unsigned to, unsigned nr)
{
	memset(frame, 0, 60);
	put_mac(frame, to);
	put_mac(frame + 6, source);
	frame[12] = ETHERTYPE >> 8;
	frame[13] = ETHERTYPE & 0xff;
	memcpy(frame + 14, &nr, sizeof(nr));
	card_send(&test, from, frame, 60);
}

static unsigned next_number(unsigned who)
{
	struct virtio_net_hdr_v1 header;
	unsigned nr;

	assert_int_equal(card_receive_within(&test, who, &header, got, WAIT_MS), 60);
	memcpy(&nr, got + 14, sizeof(nr));
	return nr;
}

static unsigned mark = 1000;

/* Each gets exactly these since last time: a broadcast from everybody else marks the end. */
static void expect(unsigned who, const unsigned *numbers)
{
	mark++;
	send_frame(who ? 0 : 1, who ? 0 : 1, BROADCAST, mark);
	for (; *numbers; numbers++)
		assert_int_equal(next_number(who), *numbers);
	assert_int_equal(next_number(who), mark);
	/* The others get the mark as well. */
	for (unsigned i = 0; i < NR; i++) {
		if (i == who || i == (who ? 0 : 1))
			continue;
		assert_int_equal(next_number(i), mark);
	}
}

#define GETS(who, ...) expect(who, (const unsigned[]){ __VA_ARGS__ 0 })

static void test_learning(void **state)
{
	(void)state;
	/* Unknown: everybody but the sender. */
	send_frame(0, 0, 1, 1);
	assert_int_equal(next_number(1), 1);
	assert_int_equal(next_number(2), 1);
	/* Known: one. */
	send_frame(1, 1, 0, 2);
	assert_int_equal(next_number(0), 2);
	GETS(2, );
	send_frame(0, 0, 1, 3);
	assert_int_equal(next_number(1), 3);
	GETS(2, );
	/* Groups: everybody else. */
	send_frame(0, 0, BROADCAST, 4);
	send_frame(0, 0, GROUP, 5);
	for (unsigned i = 1; i < NR; i++) {
		assert_int_equal(next_number(i), 4);
		assert_int_equal(next_number(i), 5);
	}
	/* Itself, and an address that has moved. */
	send_frame(0, 0, 0, 6);
	for (unsigned ms = 0; ms < WAIT_MS && !card_idle(&test.cards[0], 0); ms++)
		usleep(1000);
	send_frame(2, 0, BROADCAST, 7);
	assert_int_equal(next_number(0), 7);
	assert_int_equal(next_number(1), 7);
	send_frame(1, 1, 0, 8);
	assert_int_equal(next_number(2), 8);
	/* Nobody's is everybody's. */
	send_frame(1, 1, NOBODY, 9);
	assert_int_equal(next_number(0), 9);
	assert_int_equal(next_number(2), 9);
}

/* A guest goes, and with it what was known of it; another comes in its place. */
static void test_leaves(void **state)
{
	(void)state;
	send_frame(1, 1, BROADCAST, 1);
	assert_int_equal(next_number(0), 1);
	assert_int_equal(next_number(2), 1);
	send_frame(0, 0, 1, 2);
	assert_int_equal(next_number(1), 2);
	card_close(&test.cards[1]);
	send_frame(0, 0, 1, 3);
	assert_int_equal(next_number(2), 3);
	card_open(&test, 1, 1, 2048, MERGEABLE);
	send_frame(1, 1, BROADCAST, 4);
	assert_int_equal(next_number(0), 4);
	assert_int_equal(next_number(2), 4);
	send_frame(0, 0, 1, 5);
	assert_int_equal(next_number(1), 5);
}

/* One guest takes nothing: the others notice nothing, and what waits for it is bounded. */
static void test_deaf(void **state)
{
	unsigned i, first, last = 0, nr = 0;
	struct virtio_net_hdr_v1 header;
	json_t *root, *devices, *drops;

	(void)state;
	for (i = 1; i <= 32000; i++) {
		send_frame(0, 0, BROADCAST, i);
		for (unsigned j = i - 15; i % 16 == 0 && j <= i; j++)
			assert_int_equal(next_number(1), j);
	}
	root = net_stats(&test);
	devices = json_object_get(root, "devices");
	drops = json_object_get(
		json_array_get(json_object_get(json_array_get(devices, 2), "queues"), 0), "drops");
	assert_true(json_integer_value(json_object_get(drops, "room")) > 1000);
	json_decref(root);
	/* It wakes up: the oldest are there, in order, then it is one like any other. */
	while (card_receive_within(&test, 2, &header, got, nr ? 300 : WAIT_MS)) {
		memcpy(&first, got + 14, sizeof(first));
		assert_int_equal(first, last + 1);
		last = first;
		nr++;
	}
	assert_true(nr > 10000 && nr < 32000);
	send_frame(0, 0, BROADCAST, 50000);
	assert_int_equal(next_number(2), 50000);
}

static unsigned sum(const uint8_t *at, unsigned len, unsigned s)
{
	for (unsigned i = 0; i < len; i++)
		s += i % 2 ? at[i] : at[i] * 256u;
	while (s > 0xffff)
		s = (s & 0xffff) + (s >> 16);
	return s;
}

/* A TCP segment of 9000 bytes to be cut: whole for who takes it, cut and summed for who does not. */
static void test_offloads(void **state)
{
	struct virtio_net_hdr_v1 header = { .flags = 1,
					    .gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
					    .hdr_len = 54,
					    .gso_size = 1000,
					    .csum_start = 34,
					    .csum_offset = 16 };
	struct virtio_net_hdr_v1 back;
	unsigned len = 54 + 9000;

	(void)state;
	memset(frame, 0, 54);
	put_mac(frame, BROADCAST);
	put_mac(frame + 6, 0);
	frame[12] = 8;
	frame[14] = 0x45;
	frame[16] = (uint8_t)((len - 14) >> 8);
	frame[17] = (uint8_t)(len - 14);
	frame[22] = 64;
	frame[23] = 6;
	frame[46] = 0x50;
	for (unsigned i = 54; i < len; i++)
		frame[i] = (uint8_t)(i * 7);
	/* The sum of the pseudo header: addresses are zero. */
	frame[50] = (uint8_t)((6 + len - 34) >> 8);
	frame[51] = (uint8_t)(6 + len - 34);
	assert_true(card_try_send(&test.cards[0], 0, &header, frame, len, 3000));
	assert_int_equal(card_receive_within(&test, 1, &back, got, WAIT_MS), len);
	assert_memory_equal(got, frame, len);
	assert_int_equal(back.flags, 1);
	assert_int_equal(back.gso_type, VIRTIO_NET_HDR_GSO_TCPV4);
	assert_int_equal(back.gso_size, 1000);
	for (unsigned i = 0; i < 9; i++) {
		assert_int_equal(card_receive_within(&test, 2, &back, got, WAIT_MS), 1054);
		assert_int_equal(back.flags | back.gso_type, 0);
		assert_memory_equal(got + 54, frame + 54 + 1000 * i, 1000);
		assert_int_equal(sum(got + 14, 20, 0), 0xffff);
		assert_int_equal(sum(got + 34, 1020, 6 + 1020), 0xffff);
	}
}

static const char *const one_thread[] = { "--switch", "--notify=eventfd", NULL };
static const char *const threads[] = { "--switch", "--notify=eventfd", "--num-threads=3", NULL };
static const char *const polling[] = { "--switch", "--notify=poll", "--num-threads=2", NULL };
static const char *const ringing[] = { "--switch", "--notify=doorbell", NULL };

#define RUN(function, mode)                                                                 \
	{                                                                                   \
#function " " #mode, function, set_up, tear_down, (void *)(uintptr_t)(mode) \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		RUN(test_learning, one_thread), RUN(test_learning, threads),
		RUN(test_learning, polling),    RUN(test_learning, ringing),
		RUN(test_leaves, one_thread),   RUN(test_leaves, threads),
		RUN(test_deaf, one_thread),     RUN(test_deaf, threads),
		RUN(test_offloads, one_thread), RUN(test_offloads, threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
