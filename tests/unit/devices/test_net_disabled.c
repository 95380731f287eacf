/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * belfry-net with queues that the front end has disabled and not stopped ("Ring states"): what is sent on one
 * comes back and goes nowhere, one that receives is given nothing; and enabled again, all is as before.
 */
#include <belfry/frontend.h>
#include <belfry/protocol.h>

#include "net_card.h"

#define LEN 200

static struct net_test test;
static uint8_t frame[LEN], got[70000];
static unsigned number;

struct mode {
	const char *options[6]; /* end with NULL */
	unsigned nr_cards;
	uint64_t features;
};

static int set_up(void **state)
{
	const struct mode *mode = *state;

	net_run(&test, mode->nr_cards, mode->options);
	for (unsigned i = 0; i < mode->nr_cards; i++)
		card_open(&test, i, 1, 2048, mode->features);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	return net_end(&test);
}

static void enable(unsigned card, unsigned queue, bool on)
{
	struct bf_frontend *fe = bf_driver_frontend(test.cards[card].drv);

	assert_int_equal(bf_frontend_enable_vrings(fe, &queue, 1, on), 0);
}

/* To everybody, with a number. */
static void put_frame(void)
{
	memset(frame, 0xff, 6);
	memset(frame + 6, 0x52, LEN - 6);
	number++;
	memcpy(frame + 14, &number, sizeof(number));
}

static void send_frame(unsigned card)
{
	put_frame();
	card_send(&test, card, frame, LEN);
}

/* The last one that was sent, and none of those before it. */
static void expect_last(unsigned card)
{
	struct virtio_net_hdr_v1 header;

	assert_int_equal(card_receive_within(&test, card, &header, got, WAIT_MS), LEN);
	assert_memory_equal(got, frame, LEN);
}

static void wait_idle(unsigned card)
{
	for (unsigned ms = 0; ms < WAIT_MS && !card_idle(&test.cards[card], 0); ms++) {
		net_turn(&test);
		usleep(1000);
	}
	assert_true(card_idle(&test.cards[card], 0));
}

static void expect_nothing(unsigned card)
{
	struct virtio_net_hdr_v1 header;

	assert_int_equal(card_receive_within(&test, card, &header, got, 20), 0);
}

static json_int_t count(unsigned card, unsigned queue, const char *name)
{
	json_t *root = net_stats(&test), *cards = json_object_get(root, "devices");
	json_int_t value = net_number(cards ? json_array_get(cards, card) : root, queue, name);

	json_decref(root);
	return value;
}

/* Packets from card 0 to @to, one at a time, with naps in between: kicks work. */
static void expect_traffic(unsigned to)
{
	for (unsigned i = 0; i < 8; i++) {
		send_frame(0);
		expect_last(to);
		usleep(i % 2 ? 3000 : 0);
	}
}

/* More than there are slots, and than one batch; then single ones, for which the worker has to wake up. */
static void test_transmit(void **state)
{
	const unsigned nr = 3 * TX_SLOTS, naps = 3;
	json_int_t sent;

	(void)state;
	expect_traffic(1);
	for (unsigned round = 1; round <= 2; round++) {
		sent = count(0, 1, "packets");
		enable(0, 1, false);
		for (unsigned i = 0; i < nr; i++)
			send_frame(0);
		wait_idle(0);
		for (unsigned i = 0; i < naps; i++) {
			usleep(3000);
			send_frame(0);
			wait_idle(0);
		}
		expect_nothing(1);
		assert_int_equal(count(0, 1, "disabled"), round * (nr + naps));
		assert_int_equal(count(0, 1, "packets"), sent);
		/* The other direction knows nothing of it. */
		send_frame(1);
		expect_last(0);
		enable(0, 1, true);
		expect_traffic(1);
	}
	assert_int_equal(count(1, 0, "disabled"), 0);
}

static bool connected(unsigned card)
{
	json_t *root = net_stats(&test);
	bool is = json_is_true(json_object_get(
		json_array_get(json_object_get(root, "devices"), card), "connected"));

	json_decref(root);
	return is;
}

static void test_receive(void **state)
{
	(void)state;
	expect_traffic(1);
	for (unsigned round = 1; round <= 2; round++) {
		uint64_t requests = (uint64_t)count(1, 0, "requests");

		enable(1, 0, false);
		for (unsigned i = 0; i < 10; i++)
			send_frame(0);
		wait_idle(0);
		expect_nothing(1);
		assert_int_equal(count(1, 0, "disabled"), round * 10);
		/* Its ring was left alone. */
		assert_int_equal(count(1, 0, "requests"), requests);
		send_frame(1);
		expect_last(0);
		/* What came meanwhile is gone. */
		enable(1, 0, true);
		expect_traffic(1);
	}
	/* A card whose guest has gone is not one that is disabled. */
	enable(1, 0, false);
	card_close(&test.cards[1]);
	for (unsigned ms = 0; ms < WAIT_MS && connected(1); ms++)
		usleep(1000);
	send_frame(0);
	wait_idle(0);
	assert_int_equal(count(1, 0, "disabled"), 20);
}

/*
 * Said by hand, without acknowledgement, on another descriptor of the card's connection: what the driver has
 * no call for. What the driver asks for afterwards is done afterwards.
 */
static void say(int front, uint32_t request, const void *payload)
{
	struct {
		struct bf_header hdr;
		uint8_t payload[8];
	} message = { .hdr = { request, BF_FLAGS_VERSION, 8 } };

	memcpy(message.payload, payload, 8);
	assert_int_equal(write(front, &message, sizeof(message)), sizeof(message));
}

/* Queues that are disabled before they start, and enabled before: both ways at the first look at the ring. */
static void test_start(void **state)
{
	const struct bf_vring_state on = { .index = 1, .num = 1 };
	const uint64_t polled = 1 | BF_VRING_NOFD;
	const struct mode *mode = *state;
	int front;

	card_close(&test.cards[0]);
	/* The lowest that is free is the next connection's. */
	front = open("/dev/null", O_RDONLY);
	close(front);
	card_open(&test, 0, 1, 2048, mode->features);
	front = dup(front);
	expect_traffic(0);
	enable(0, 1, false);
	for (unsigned round = 0; round < 5; round++) {
		/* Another kick descriptor is a stop and a start. */
		say(front, BF_FE_SET_VRING_KICK, &polled);
		enable(0, 0, true); /* no change, but when it is answered that has been done */
		send_frame(0);
	}
	wait_idle(0);
	expect_nothing(0);
	assert_int_equal(count(0, 1, "disabled"), 5);
	assert_int_equal(bf_driver_stop(test.cards[0].drv), 0);
	say(front, BF_FE_SET_VRING_ENABLE, &on);
	assert_int_equal(bf_driver_start(test.cards[0].drv), 0);
	expect_traffic(0);
	assert_int_equal(count(0, 1, "disabled"), 5);
	close(front);
}

/* Until all receive buffers are full, and the rest waits. */
static void fill_loopback(void)
{
	unsigned sent = 0;

	for (unsigned ms = 0; ms < 50; ms++) {
		put_frame();
		if (!card_try_send(&test.cards[0], 0, NULL, frame, LEN, 4096)) {
			usleep(1000);
			continue;
		}
		sent++;
		ms = 0;
	}
	assert_int_equal(sent, RX_BUFFERS + TX_SLOTS);
}

static void empty_loopback(void)
{
	struct virtio_net_hdr_v1 header;

	for (unsigned i = 0; i < RX_BUFFERS; i++)
		assert_int_equal(card_receive_within(&test, 0, &header, got, WAIT_MS), LEN);
}

/* What is sent while there is nobody to receive it is dropped; a full ring that waits for that, too. */
static void test_loopback(void **state)
{
	(void)state;
	expect_traffic(0);
	enable(0, 0, false);
	for (unsigned i = 0; i < 3 * TX_SLOTS; i++)
		send_frame(0);
	wait_idle(0);
	expect_nothing(0);
	assert_int_equal(count(0, 0, "disabled"), 3 * TX_SLOTS);
	enable(0, 0, true);
	expect_traffic(0);

	for (unsigned queue = 0; queue < 2; queue++) {
		json_int_t before = count(0, queue, "disabled");

		fill_loopback();
		enable(0, queue, false);
		wait_idle(0);
		assert_int_equal(count(0, queue, "disabled"), before + TX_SLOTS);
		/* It need not wait any more, and has to be woken up. */
		usleep(20000);
		send_frame(0);
		wait_idle(0);
		enable(0, queue, true);
		empty_loopback();
		expect_traffic(0);
	}
}

/* It goes to and fro while packets are on their way, and over a stop. Every slot comes back. */
static void test_toggling(void **state)
{
	const struct mode *mode = *state;
	struct card *card = &test.cards[0];
	unsigned to = mode->nr_cards - 1, received = 0, sent = 0;

	for (unsigned i = 0; i < 400; i++) {
		struct virtio_net_hdr_v1 header;

		for (unsigned j = 0; j < 4; j++) {
			put_frame();
			sent += card_try_send(card, 0, NULL, frame, LEN, 4096);
		}
		while (card_poll(&test.cards[to], 0, &header, got))
			received++;
		enable(i % 3 ? 0 : to, i % 3 ? 1 : 0, i % 2);
		if (i % 100 == 99) {
			assert_int_equal(bf_driver_stop(card->drv), 0);
			assert_int_equal(bf_driver_start(card->drv), 0);
		}
		net_turn(&test);
	}
	enable(0, 1, true);
	enable(to, 0, true);
	wait_idle(0);
	for (unsigned quiet = 0; quiet < 20; quiet++) {
		struct virtio_net_hdr_v1 header;

		while (card_receive_within(&test, to, &header, got, 1)) {
			received++;
			quiet = 0;
		}
	}
	assert_true(received <= sent && sent > 100);
	assert_true(count(0, 1, "disabled") > 0);
	expect_traffic(to);
}

/* A page that was mapped is looked at again. */
static void test_doorbell(void **state)
{
	const struct bf_driver_counters *counters = bf_driver_counters(test.cards[0].drv, 1);
	uint64_t kicks, doorbells;

	(void)state;
	expect_traffic(1);
	enable(0, 1, false);
	usleep(20000); /* until it is not looked at any more: then the driver has to ring */
	doorbells = counters->doorbells;
	send_frame(0);
	wait_idle(0);
	assert_int_equal(counters->doorbells, doorbells + 1);
	enable(0, 1, true);
	kicks = counters->kicks;
	expect_traffic(1);
	assert_int_equal(counters->kicks, kicks);
}

#define EVENT  BIT(VIRTIO_RING_F_EVENT_IDX)
#define PACKED BIT(VIRTIO_F_RING_PACKED)

static const struct mode sleeping = { { "--switch", "--notify=eventfd" }, 2, MERGEABLE | EVENT };
static const struct mode apart = { { "--switch", "--notify=eventfd", "--num-threads=2" },
				   2,
				   MERGEABLE | PACKED };
static const struct mode ringing = { { "--switch", "--notify=doorbell" },
				     2,
				     MERGEABLE | PACKED | EVENT };
static const struct mode polling = { { "--switch", "--notify=poll" }, 2, MERGEABLE };
static const struct mode loop = { { "--loopback", "--notify=eventfd" }, 1, EVENT };
static const struct mode loop_ringing = { { "--loopback", "--notify=doorbell" },
					  1,
					  MERGEABLE | PACKED | EVENT };
static const struct mode loop_polling = { { "--loopback", "--notify=poll" }, 1, MERGEABLE };

#define RUN(function, mode)                                                                    \
	{                                                                                      \
#function " " #mode, function, set_up, tear_down, (void *)(uintptr_t) & (mode) \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		RUN(test_transmit, sleeping),     RUN(test_transmit, apart),
		RUN(test_transmit, ringing),      RUN(test_transmit, polling),
		RUN(test_receive, sleeping),      RUN(test_receive, apart),
		RUN(test_receive, ringing),       RUN(test_receive, polling),
		RUN(test_loopback, loop),         RUN(test_loopback, loop_ringing),
		RUN(test_loopback, loop_polling), RUN(test_toggling, sleeping),
		RUN(test_toggling, apart),        RUN(test_toggling, ringing),
		RUN(test_toggling, loop),         RUN(test_toggling, loop_polling),
		RUN(test_doorbell, ringing),      RUN(test_start, loop_polling),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
