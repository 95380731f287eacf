/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * belfry-net at work, as a process, on --loopback and --sink: every way of notification and kind of ring,
 * several queues, stopping in the middle, receive buffers that run out, hostile headers.
 */
#include "net_card.h"

#define LOAD 3000

struct mode {
	const char *options[6]; /* end with NULL */
	unsigned nr_pairs;
	uint32_t rx_len;
	uint64_t features;
};

static struct net_test test;
static uint8_t frame[70000], got[70000];

static int set_up(void **state)
{
	const struct mode *mode = *state;

	net_run(&test, 1, mode->options);
	card_open(&test, 0, mode->nr_pairs, mode->rx_len, mode->features);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	return net_end(&test);
}

static uint32_t len_of(unsigned nr)
{
	return nr % 17 ? 60 + nr * 31 % 1400 : 60 + nr * 131 % 9000;
}

static void make_frame(unsigned nr, uint32_t len)
{
	for (uint32_t i = 0; i < len; i++)
		frame[i] = (uint8_t)(nr * 13 + i + i / 256);
	memcpy(frame + 14, &nr, sizeof(nr));
}

/* Everything that is sent comes back, whole, once, in order, in pairs that know nothing of each other. */
static void test_load(void **state)
{
	struct card *card = &test.cards[0];
	unsigned sent[MAX_PAIRS] = { 0 }, seen[MAX_PAIRS] = { 0 }, all = 0, idle = 0;
	const struct virtio_net_hdr_v1 partial = { .flags = 1, .csum_start = 34, .csum_offset = 6 };
	bool large = card->rx_len > 9100 || bf_driver_features(card->drv) & MERGEABLE;

	/* Every third checksum is left to the device, and its guest does not take that back. */
	bool sums = bf_driver_features(card->drv) & BIT(VIRTIO_NET_F_CSUM) &&
		    !(bf_driver_features(card->drv) & BIT(VIRTIO_NET_F_GUEST_CSUM));

	(void)state;
	while (all < LOAD * card->nr_pairs) {
		unsigned before = all;

		for (unsigned p = 0; p < card->nr_pairs; p++) {
			struct virtio_net_hdr_v1 header;
			uint32_t len, expected;

			while (sent[p] < LOAD) {
				len = large ? len_of(sent[p]) : 60 + sent[p] * 31 % 1400;
				make_frame(sent[p] + p, len);
				if (!card_try_send(card, p,
						   sums && sent[p] % 3 == 0 ? &partial : NULL,
						   frame, len, 60 + sent[p] % 3000))
					break;
				sent[p]++;
			}
			while ((len = card_poll(card, p, &header, got))) {
				expected = large ? len_of(seen[p]) : 60 + seen[p] * 31 % 1400;
				make_frame(seen[p] + p, expected);
				assert_int_equal(len, expected);
				if (sums && seen[p] % 3 == 0) {
					assert_true(memcmp(got + 40, frame + 40, 2));
					memcpy(got + 40, frame + 40, 2);
				}
				assert_memory_equal(got, frame, len);
				assert_int_equal(header.flags | header.gso_type, 0);
				seen[p]++;
				all++;
			}
		}
		/* What waits for buffers in converted form does not outlive a stop. */
		if (all / 2000 != before / 2000 && !sums) {
			assert_int_equal(bf_driver_stop(card->drv), 0);
			assert_int_equal(bf_driver_start(card->drv), 0);
		}
		net_turn(&test);
		idle = all == before ? idle + 1 : 0;
		if (idle > 3)
			usleep(200);
		if (idle >= 20000)
			fail_msg("stalls: sent %u, seen %u", sent[0], seen[0]);
	}
}

/*
 * The second packet waits for receive buffers, as a copy: its transmit queue is empty meanwhile. When it has
 * gone, that queue must hear of a third one.
 */
static void test_copy_waits(void **state)
{
	const struct virtio_net_hdr_v1 partial = { .flags = 1, .csum_start = 34, .csum_offset = 6 };
	struct card *card = &test.cards[0];
	struct virtio_net_hdr_v1 header;

	(void)state;
	for (unsigned i = 0; i < 2; i++)
		assert_true(card_try_send(card, 0, &partial, frame, 9000, 4096));
	for (unsigned ms = 0; ms < WAIT_MS && !card_idle(card, 0); ms++)
		usleep(1000);
	assert_true(card_idle(card, 0));
	usleep(20000); /* until nothing is looked at any more */
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(card_receive_within(&test, 0, &header, got, WAIT_MS), 9000);
		usleep(20000);
		if (i == 1)
			assert_true(card_try_send(card, 0, &partial, frame, 9000, 4096));
	}
}

static void test_notifications(void **state)
{
	const struct mode *mode = *state;
	bool doorbell = !strcmp(mode->options[1], "--notify=doorbell");
	const struct bf_driver_counters *counters;
	json_t *root;

	counters = bf_driver_counters(test.cards[0].drv, 1);
	make_frame(1, 100);
	for (unsigned i = 0; i < 200; i++) {
		struct virtio_net_hdr_v1 header;

		card_send(&test, 0, frame, 100);
		assert_int_equal(card_receive_within(&test, 0, &header, got, WAIT_MS), 100);
		/* Time to fall asleep, or settle. */
		usleep(i % 10 ? 0 : 2000);
	}
	root = net_stats(&test);
	assert_int_equal(net_number(root, 0, "packets"), 200);
	assert_int_equal(net_number(root, 1, "packets"), 200);
	assert_int_equal(net_number(root, 1, "bytes"), 20000);
	if (doorbell)
		assert_true(counters->doorbells > 10);
	else if (!strcmp(mode->options[1], "--notify=eventfd"))
		assert_true(counters->kicks > 10 && net_number(root, 1, "wakeups") > 10);
	else
		assert_int_equal(counters->kicks, 0);
	json_decref(root);
}

/* While nothing is to be done the program sleeps: receive buffers in the ring are not work. */
static void test_sleeps(void **state)
{
	char path[64], text[512];
	unsigned long before, after;
	FILE *file;

	(void)state;
	snprintf(path, sizeof(path), "/proc/%d/stat", (int)test.pid);
	make_frame(1, 100);
	for (unsigned i = 0; i < 2; i++) {
		struct virtio_net_hdr_v1 header;

		card_send(&test, 0, frame, 100);
		assert_int_equal(card_receive_within(&test, 0, &header, got, WAIT_MS), 100);
	}
	for (unsigned i = 0; i < 2; i++) {
		unsigned long user, system;

		usleep(i ? 400000 : 20000);
		file = fopen(path, "r");
		assert_non_null(fgets(text, sizeof(text), file));
		fclose(file);
		assert_int_equal(sscanf(strrchr(text, ')'),
					") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
					&user, &system),
				 2);
		before = i ? before : user + system;
		after = user + system;
	}
	assert_true(after - before <= 3);
}

/* A header for a frame of 1000 bytes, in every piece size: dropped or passed on as it is, and never more. */
static void test_hostile(void **state)
{
	static const struct {
		struct virtio_net_hdr_v1 header;
		bool fits;
	} cases[] = {
		{ { .flags = 1, .csum_start = 34, .csum_offset = 16 }, true },
		{ { .flags = 1, .csum_start = 999, .csum_offset = 0 }, false },
		{ { .flags = 1, .csum_start = 0xffff, .csum_offset = 0xffff }, false },
		{ { .flags = 1, .csum_start = 34, .csum_offset = 0xffff }, false },
		{ { .flags = 1,
		    .gso_type = 1,
		    .hdr_len = 0xffff,
		    .gso_size = 100,
		    .csum_start = 34,
		    .csum_offset = 16 },
		  true },
		{ { .gso_type = 1, .gso_size = 100 }, false },
		{ { .flags = 1, .gso_type = 1, .csum_start = 34, .csum_offset = 16 }, false },
		{ { .flags = 1,
		    .gso_type = 0x55,
		    .gso_size = 1,
		    .csum_start = 34,
		    .csum_offset = 16 },
		  false },
	};
	static const uint32_t pieces[] = { 2000, 1, 12, 11, 37 };
	struct card *card = &test.cards[0];
	unsigned dropped = 0;
	json_t *root;

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		for (unsigned j = 0; j < 5; j++) {
			struct virtio_net_hdr_v1 header;
			uint32_t len = 1000;

			make_frame(i, len);
			while (!card_try_send(card, 0, &cases[i].header, frame, len, pieces[j]))
				usleep(100);
			dropped += !cases[i].fits;
			make_frame(99, 100);
			card_send(&test, 0, frame, 100);
			if (cases[i].fits) {
				assert_int_equal(
					card_receive_within(&test, 0, &header, got, WAIT_MS), len);
				assert_int_equal(header.flags, cases[i].header.flags);
				assert_int_equal(header.gso_type, cases[i].header.gso_type);
				assert_true(header.hdr_len <= len);
			}
			assert_int_equal(card_receive_within(&test, 0, &header, got, WAIT_MS), 100);
		}
	}
	root = net_stats(&test);
	assert_int_equal(net_number(root, 1, "header"), dropped);
	json_decref(root);
}

/* Shorter than the header, empty of data, longer than any packet, to be written. */
static void test_bad_chains(void **state)
{
	struct card *card = &test.cards[0];
	uint8_t *memory = bf_driver_alloc(card->drv, 4096, 64);
	struct iovec iov[24] = { { memory, 12 }, { memory + 12, 100 } };
	json_t *root;

	(void)state;
#define BAD(nr_out, nr_in)                                                                   \
	do {                                                                                 \
		struct virtio_net_hdr_v1 header;                                             \
		struct tx_slot slot = { .busy = true };                                      \
		assert_int_equal(bf_driver_add(card->drv, 1, iov, nr_out, nr_in, &slot), 0); \
		bf_driver_kick(card->drv, 1);                                                \
		make_frame(99, 100);                                                         \
		card_send(&test, 0, frame, 100);                                             \
		assert_int_equal(card_receive_within(&test, 0, &header, got, WAIT_MS), 100); \
		for (unsigned ms = 0; ms < WAIT_MS && slot.busy; ms++, usleep(1000))         \
			card_reap(card, 0);                                                  \
		assert_false(slot.busy);                                                     \
	} while (0)
	BAD(1, 0);
	BAD(1, 1);
	BAD(0, 2);
	iov[1].iov_len = 13;
	BAD(2, 0);
	for (unsigned i = 0; i < 24; i++)
		iov[i] = (struct iovec){ memory, 4096 };
	BAD(24, 0);
	root = net_stats(&test);
	assert_int_equal(net_number(root, 1, "short"), 2);
	assert_int_equal(net_number(root, 1, "chain"), 2);
	assert_int_equal(net_number(root, 1, "long"), 1);
	json_decref(root);
}

static void test_sink(void **state)
{
	struct card *card = &test.cards[0];
	struct virtio_net_hdr_v1 header;
	uint64_t bytes = 0;
	json_t *root;

	(void)state;
	for (unsigned i = 0; i < 1000; i++) {
		make_frame(i, len_of(i));
		card_send(&test, 0, frame, len_of(i));
		bytes += len_of(i);
	}
	for (unsigned i = 0; i < WAIT_MS && !card_idle(card, 0); i++)
		usleep(1000);
	assert_true(card_idle(card, 0));
	root = net_stats(&test);
	assert_int_equal(net_number(root, 1, "packets"), 1000);
	assert_int_equal(net_number(root, 1, "bytes"), bytes);
	assert_int_equal(net_number(root, 0, "packets"), 0);
	json_decref(root);
	assert_int_equal(card_poll(card, 0, &header, got), 0);
}

#define EVENT   BIT(VIRTIO_RING_F_EVENT_IDX)
#define PACKED  BIT(VIRTIO_F_RING_PACKED)
#define INORDER BIT(VIRTIO_F_IN_ORDER)
#define OFFLOADS                                                                               \
	(BIT(VIRTIO_NET_F_CSUM) | BIT(VIRTIO_NET_F_GUEST_CSUM) | BIT(VIRTIO_NET_F_HOST_TSO4) | \
	 BIT(VIRTIO_NET_F_GUEST_TSO4))

static const struct mode sleeping = { { "--loopback", "--notify=eventfd", "--queues=2" },
				      2,
				      2048,
				      MERGEABLE | EVENT | BIT(VIRTIO_NET_F_MQ) };
static const struct mode plain = { { "--loopback", "--notify=eventfd" }, 1, 2048, OFFLOADS };
static const struct mode ringing = { { "--loopback", "--notify=doorbell", "--queues=2",
				       "--num-threads=1" },
				     2,
				     2048,
				     MERGEABLE | EVENT | PACKED | BIT(VIRTIO_NET_F_MQ) };
static const struct mode polling = {
	{ "--loopback", "--notify=poll" }, 1, 500, MERGEABLE | INORDER | OFFLOADS
};
static const struct mode packed = { { "--loopback", "--notify=poll" }, 1, 9200, PACKED | INORDER };
static const struct mode sums = {
	{ "--loopback", "--notify=eventfd" }, 1, 150, MERGEABLE | EVENT | BIT(VIRTIO_NET_F_CSUM)
};
static const struct mode sink = { { "--sink", "--notify=eventfd" }, 1, 2048, MERGEABLE };
static const struct mode drop = { { "--drop", "--notify=poll" }, 1, 2048, MERGEABLE };

#define RUN(function, mode)                                                                    \
	{                                                                                      \
#function " " #mode, function, set_up, tear_down, (void *)(uintptr_t) & (mode) \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		RUN(test_load, sleeping),
		RUN(test_load, plain),
		RUN(test_load, ringing),
		RUN(test_load, polling),
		RUN(test_load, packed),
		RUN(test_load, sums),
		RUN(test_copy_waits, sums),
		RUN(test_notifications, plain),
		RUN(test_notifications, sleeping),
		RUN(test_notifications, ringing),
		RUN(test_notifications, polling),
		RUN(test_sleeps, sleeping),
		RUN(test_hostile, plain),
		RUN(test_hostile, polling),
		RUN(test_bad_chains, plain),
		RUN(test_sink, sink),
		RUN(test_sink, drop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
