/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The driver side and the device side of one ring, in all combinations of features, under random
 * schedules and at the largest and oddest sizes: what one gives the other gets. Each side also has a model
 * of its own (test_batches.c, test_driver_ring.c); here they have to agree about order, events and the
 * ends of the ring.
 */
#include "../support.h"

#include <linux/virtio_config.h>
#include <sys/eventfd.h>

#include "lib/base/endian.h"
#include "lib/base/shared.h"
#include "lib/virtq/driver_ring.h"
#include "lib/virtq/virtq.h"

#define UVA               0x100000000ull
#define EVENTS            (1ull << VIRTIO_RING_F_EVENT_IDX)
#define INDIRECT          (1ull << VIRTIO_RING_F_INDIRECT_DESC)
#define PACKED            (1ull << VIRTIO_F_RING_PACKED)
#define IN_ORDER          (1ull << VIRTIO_F_IN_ORDER)
#define NOTIFICATION_DATA (1ull << 38) /* not in every uapi header */
#define MAX               32768u

struct message {
	unsigned nr_out, nr_in;
	uint32_t len; /* what the device said */
	bool with_driver, with_device;
};

struct pair {
	struct bf_memory *memory;
	struct bf_virtq *vq;
	struct bf_virtq_setup setup;
	struct bf_driver_ring driver;
	uint8_t *base;
	unsigned size;
	bool in_order;
	struct message *messages; /* [MAX] */
	uint16_t *flying;         /* heads, in the order of pop */
	struct message **by_head; /* [MAX] */
	unsigned nr_flying, next, oldest, outstanding, unpublished;
	uint64_t finished;
};

static unsigned pick(unsigned n)
{
	return (unsigned)rand() % n;
}

static void start(struct pair *pair, uint64_t features)
{
	const char *why = "";
	int ret;

	assert_int_equal(
		bf_driver_ring_init(&pair->driver, (uint16_t)pair->size, pair->base, 0, features),
		0);
	ret = bf_virtq_start(pair->vq, &pair->setup, &why);
	if (ret)
		fail_msg("start: %d %s", ret, why);
}

static void open_pair(struct pair *pair, unsigned size, uint64_t features)
{
	bool packed = features & PACKED;
	struct bf_memory_region region = { .uva = UVA };
	struct bf_driver_layout layout;

	memset(pair, 0, sizeof(*pair));
	bf_driver_ring_layout((uint16_t)size, packed, &layout);
	region.size = layout.size + 65536;
	region.fd = make_memfd("bf-pair", region.size, 0);
	assert_int_equal(bf_memory_new(&region, 1, &pair->memory), 0);
	pair->base = bf_memory_from_gpa(pair->memory, 0, region.size);
	pair->size = size;
	pair->in_order = features & IN_ORDER;
	pair->messages = calloc(MAX, sizeof(*pair->messages));
	pair->flying = calloc(MAX, sizeof(*pair->flying));
	pair->by_head = calloc(MAX, sizeof(*pair->by_head));
	assert_true(pair->messages && pair->flying && pair->by_head);
	pair->setup = (struct bf_virtq_setup){
		.memory = pair->memory,
		.size = (uint16_t)size,
		.base = packed ? BF_VIRTQ_PACKED_BASE : 0,
		.desc_uva = UVA + layout.desc,
		.avail_uva = UVA + layout.avail,
		.used_uva = UVA + layout.used,
		.features = features,
		.kick_fd = -1,
		.call_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC),
		.err_fd = -1,
	};
	pair->vq = bf_virtq_new(0);
	start(pair, features);
}

static void close_pair(struct pair *pair)
{
	bf_virtq_free(pair->vq);
	bf_driver_ring_done(&pair->driver);
	bf_memory_unref(pair->memory);
	close(pair->setup.call_fd);
	free(pair->messages);
	free(pair->flying);
	free(pair->by_head);
}

/* The driver sends @nr_out + @nr_in pieces, whose first names the message. */
static bool submit(struct pair *pair, unsigned nr_out, unsigned nr_in)
{
	struct message *message = &pair->messages[pair->next % MAX];
	struct bf_piece pieces[12];
	int ret;

	if (message->with_driver)
		return false;
	for (unsigned i = 0; i < nr_out + nr_in; i++)
		pieces[i] = (struct bf_piece){ (pair->next % MAX) & ~0xfffull, 1 + i };
	ret = bf_driver_ring_add(&pair->driver, pieces, nr_out, nr_in, message);
	if (ret) {
		assert_int_equal(ret, -ENOSPC);
		return false;
	}
	*message = (struct message){ .nr_out = nr_out, .nr_in = nr_in, .with_driver = true };
	pair->next++;
	pair->unpublished++;
	pair->outstanding++;
	return true;
}

static void publish(struct pair *pair)
{
	bf_driver_ring_publish(&pair->driver);
	pair->unpublished = 0;
}

/* The device gets them in the order in which they were sent. */
static unsigned take(struct pair *pair, unsigned nr)
{
	struct bf_chain chains[32];
	struct iovec iov[32 * 12];
	int ret = bf_virtq_pop_batch(pair->vq, chains, nr, iov, 32 * 12);
	const char *why;

	if (bf_virtq_broken(pair->vq, &why))
		fail_msg("%s", why);
	assert_true(ret >= 0);
	for (int i = 0; i < ret; i++) {
		struct message *message = &pair->messages[pair->oldest++ % MAX];

		assert_true(message->with_driver && !message->with_device);
		assert_int_equal(chains[i].nr_out, message->nr_out);
		assert_int_equal(chains[i].nr_in, message->nr_in);
		for (unsigned b = 0; b < chains[i].nr_iov; b++)
			assert_int_equal(chains[i].iov[b].iov_len, 1 + b);
		message->with_device = true;
		pair->by_head[chains[i].head] = message;
		pair->flying[pair->nr_flying++] = chains[i].head;
	}
	return (unsigned)ret;
}

static void give_back(struct pair *pair, unsigned nr)
{
	struct bf_done done[32];

	if (nr > pair->nr_flying)
		nr = pair->nr_flying;
	for (unsigned i = 0; i < nr; i++) {
		unsigned which = pair->in_order ? 0 : pick(pair->nr_flying);
		uint16_t head = pair->flying[which];
		struct message *message = pair->by_head[head];

		message->len = message->nr_in ? 1 + pick(1000) : 0;
		message->with_device = false;
		done[i] = (struct bf_done){ head, message->len };
		memmove(pair->flying + which, pair->flying + which + 1,
			(--pair->nr_flying - which) * sizeof(*pair->flying));
	}
	bf_virtq_push_batch(pair->vq, done, nr);
}

static unsigned receive(struct pair *pair)
{
	struct message *message;
	unsigned nr = 0;
	uint32_t len;

	while ((message = bf_driver_ring_get(&pair->driver, &len))) {
		assert_true(message->with_driver && !message->with_device);
		assert_int_equal(len, message->len);
		message->with_driver = false;
		pair->finished++;
		pair->outstanding--;
		nr++;
	}
	assert_int_equal(pair->driver.broken, 0);
	return nr;
}

static uint64_t calls(struct pair *pair)
{
	uint64_t count;

	return read(pair->setup.call_fd, &count, sizeof(count)) == sizeof(count) ? count : 0;
}

static void settle(struct pair *pair)
{
	publish(pair);
	while (take(pair, 32) || pair->nr_flying)
		give_back(pair, 32);
	bf_virtq_notify(pair->vq);
	receive(pair);
	assert_int_equal(pair->outstanding, 0);
}

/* Sleepers are woken: who went to sleep because there was nothing hears of what comes. */
static void sleep_and_wake(struct pair *pair)
{
	settle(pair);
	calls(pair);
	assert_false(bf_virtq_want_kicks(pair->vq, true));
	assert_true(submit(pair, 1, 0));
	assert_true(bf_driver_ring_publish(&pair->driver));
	assert_true(bf_virtq_want_kicks(pair->vq, true));
	assert_int_equal(take(pair, 32), 1);

	assert_false(bf_driver_ring_want_calls(&pair->driver, true));
	give_back(pair, 1);
	assert_true(bf_virtq_notify(pair->vq));
	assert_int_equal(calls(pair), 1);
	/* It is there already, whoever asks again. */
	assert_true(bf_driver_ring_want_calls(&pair->driver, true));
	assert_int_equal(receive(pair), 1);
	bf_driver_ring_want_calls(&pair->driver, false);
	bf_virtq_want_kicks(pair->vq, pick(2));
}

/* In order, the one entry of two requests is taken; the second of them is finished all the same. */
static void sleep_inside_a_batch(struct pair *pair)
{
	struct message *message;

	settle(pair);
	assert_true(submit(pair, 1, 0) && submit(pair, 1, 0));
	publish(pair);
	assert_int_equal(take(pair, 32), 2);
	give_back(pair, 2);
	bf_virtq_notify(pair->vq);
	message = bf_driver_ring_get(&pair->driver, NULL);
	assert_non_null(message);
	message->with_driver = false;
	pair->outstanding--;
	assert_true(bf_driver_ring_want_calls(&pair->driver, true));
	bf_driver_ring_want_calls(&pair->driver, false);
	assert_int_equal(receive(pair), 1);
}

static void one_step(struct pair *pair)
{
	unsigned most = pair->size < 10 ? pair->size : 10;

	switch (pick(12)) {
	case 0 ... 3:
		submit(pair, 1, pick(2));
		break;
	case 4:
		submit(pair, 1 + pick((most + 1) / 2), most > 1 ? pick(most / 2) : 0);
		break;
	case 5:
		publish(pair);
		break;
	case 6 ... 7:
		take(pair, 1 + pick(32));
		break;
	case 8 ... 9:
		give_back(pair, 1 + pick(12));
		break;
	case 10:
		bf_virtq_notify(pair->vq);
		receive(pair);
		break;
	default:
		if (!pick(20))
			sleep_and_wake(pair);
		else if (!pick(20))
			sleep_inside_a_batch(pair);
		break;
	}
}

static void run(unsigned seed, unsigned size, uint64_t features)
{
	struct pair pair;

	srand(seed);
	open_pair(&pair, size, features);
	for (unsigned i = 0; i < 12000; i++)
		one_step(&pair);
	settle(&pair);
	assert_int_equal(pair.driver.nr_free, size);
	assert_true(pair.finished > 300);
	close_pair(&pair);
}

static void agree(void **state)
{
	const unsigned split[] = { 2, 8, 128 }, packed[] = { 2, 3, 7, 100 };
	const uint64_t orders[] = { 0, IN_ORDER };

	(void)state;
	for (unsigned o = 0; o < 2; o++)
		for (unsigned f = 0; f < 4; f++) {
			uint64_t features =
				orders[o] | (f & 1 ? EVENTS : 0) | (f & 2 ? INDIRECT : 0);

			for (unsigned i = 0; i < 3; i++)
				run(1 + f, split[i], features);
			for (unsigned i = 0; i < 4; i++)
				run(1 + f, packed[i], features | PACKED);
		}
}

/* The ring full, several times around, so that indices of 16 bits wrap. */
static void fill_and_empty(struct pair *pair, unsigned rounds)
{
	for (unsigned r = 0; r < rounds; r++) {
		unsigned sent = 0, taken = 0, nr, received;

		while (submit(pair, 1, 0))
			sent++;
		assert_int_equal(sent, pair->size);
		publish(pair);
		assert_true(bf_virtq_has_work(pair->vq));
		while ((nr = take(pair, 32)))
			taken += nr;
		assert_int_equal(taken, pair->size);
		assert_false(bf_virtq_has_work(pair->vq));
		/* From the front: random would take long, and in order it has to be so. */
		for (unsigned i = 0; i < pair->size; i += nr) {
			struct bf_done done[32];

			nr = pair->size - i < 32 ? pair->size - i : 32;
			for (unsigned d = 0; d < nr; d++) {
				done[d] = (struct bf_done){ pair->flying[i + d], 0 };
				pair->by_head[pair->flying[i + d]]->with_device = false;
			}
			bf_virtq_push_batch(pair->vq, done, nr);
		}
		pair->nr_flying = 0;
		bf_virtq_notify(pair->vq);
		received = receive(pair);
		assert_int_equal(received, pair->size);
	}
}

static void largest_sizes(void **state)
{
	const uint64_t features[] = { 0, EVENTS, IN_ORDER };

	(void)state;
	for (unsigned f = 0; f < 3; f++) {
		struct pair pair;

		open_pair(&pair, MAX, features[f]);
		fill_and_empty(&pair, 5);
		close_pair(&pair);
		open_pair(&pair, MAX, features[f] | PACKED);
		fill_and_empty(&pair, 5);
		close_pair(&pair);
		open_pair(&pair, MAX - 1, features[f] | PACKED);
		fill_and_empty(&pair, 5);
		close_pair(&pair);
	}
}

static void too_large(void **state)
{
	struct pair pair;

	(void)state;
	open_pair(&pair, 8, PACKED);
	bf_virtq_stop(pair.vq);
	pair.setup.size = 32769;
	assert_int_equal(bf_virtq_start(pair.vq, &pair.setup, NULL), -EINVAL);
	pair.setup.size = 0;
	assert_int_equal(bf_virtq_start(pair.vq, &pair.setup, NULL), -EINVAL);
	close_pair(&pair);
}

/*
 * Ring reset (virtio 1.2, 2.6.1): the back end sees a stop, and a start from the beginning, with requests
 * in flight that nobody will ask for again; the size may be another.
 */
static void ring_reset(void **state)
{
	const uint64_t features[] = { 0, IN_ORDER, PACKED, PACKED | IN_ORDER, PACKED | EVENTS };

	(void)state;
	for (unsigned f = 0; f < sizeof(features) / sizeof(features[0]); f++) {
		struct bf_driver_layout layout;
		struct pair pair;

		open_pair(&pair, 16, features[f]);
		for (unsigned i = 0; i < 5; i++)
			submit(&pair, 1, 1);
		publish(&pair);
		assert_int_equal(take(&pair, 3), 3);
		give_back(&pair, 1);
		bf_virtq_stop(pair.vq);

		/* The driver forgets everything, and has zeroed the ring. */
		bf_driver_ring_done(&pair.driver);
		memset(pair.base, 0, 16 * 1024);
		memset(pair.messages, 0, MAX * sizeof(*pair.messages));
		pair.nr_flying = pair.outstanding = pair.unpublished = 0;
		pair.oldest = pair.next;
		pair.size = pair.setup.size = 8;
		bf_driver_ring_layout(8, features[f] & PACKED, &layout);
		pair.setup.avail_uva = UVA + layout.avail;
		pair.setup.used_uva = UVA + layout.used;
		start(&pair, features[f]);
		fill_and_empty(&pair, 5);
		close_pair(&pair);
	}
}

/* VIRTIO_F_NOTIFICATION_DATA is between driver and transport: a kick by eventfd carries nothing. */
static void notification_data(void **state)
{
	(void)state;
	run(9, 8, NOTIFICATION_DATA);
	run(9, 8, NOTIFICATION_DATA | EVENTS | PACKED);
}

/* In order, a batch of requests without anything written takes one used entry. */
static void one_entry_for_a_batch(void **state)
{
	struct pair pair;
	struct bf_used *used;
	struct bf_packed_desc *ring;

	(void)state;
	open_pair(&pair, 8, IN_ORDER);
	used = pair.driver.used;
	memset(used->ring, 0xff, 8 * sizeof(used->ring[0]));
	for (unsigned i = 0; i < 4; i++)
		assert_true(submit(&pair, 1, 0));
	assert_true(submit(&pair, 1, 1));
	publish(&pair);
	assert_int_equal(take(&pair, 32), 5);
	give_back(&pair, 5);
	bf_virtq_notify(pair.vq);
	assert_int_equal(bf_load16(&used->idx), 5);
	/* At the place of the first, the last of those that nothing is written to; the next wrote. */
	assert_int_equal(bf_from_le32(used->ring[0].id), 4);
	assert_int_equal(bf_from_le32(used->ring[1].id), 0xffffffff);
	assert_int_equal(bf_from_le32(used->ring[4].id), 0xffffffff);
	assert_int_equal(receive(&pair), 5);
	close_pair(&pair);

	open_pair(&pair, 8, IN_ORDER | PACKED);
	ring = pair.driver.ring;
	for (unsigned i = 0; i < 4; i++)
		assert_true(submit(&pair, 1, 0));
	publish(&pair);
	assert_int_equal(take(&pair, 32), 4);
	give_back(&pair, 4);
	bf_virtq_notify(pair.vq);
	assert_int_equal(bf_from_le16(ring[0].id), 3);
	assert_true(bf_from_le16(ring[0].flags) & BF_PACKED_USED);
	assert_false(bf_from_le16(ring[1].flags) & BF_PACKED_USED);
	assert_int_equal(receive(&pair), 4);
	close_pair(&pair);
}

/* HB-4: what a device may not say breaks the driver's ring, and nothing else. */
static void device_that_lies(void **state)
{
	const uint64_t features[] = { 0, IN_ORDER, PACKED, PACKED | IN_ORDER };

	(void)state;
	for (unsigned f = 0; f < 4; f++)
		for (unsigned id = 0; id < 3; id++) {
			/* Not outstanding; out of range; the largest. */
			const uint16_t lies[] = { 5, 8, 0xffff };
			struct pair pair;

			open_pair(&pair, 8, features[f]);
			assert_true(submit(&pair, 1, 0));
			publish(&pair);
			if (features[f] & PACKED) {
				pair.driver.ring[0].id = bf_to_le16(lies[id]);
				bf_store16(&pair.driver.ring[0].flags,
					   BF_PACKED_AVAIL | BF_PACKED_USED);
			} else {
				pair.driver.used->ring[0].id = bf_to_le32(lies[id]);
				bf_store16(&pair.driver.used->idx, 1);
			}
			assert_null(bf_driver_ring_get(&pair.driver, NULL));
			assert_int_equal(pair.driver.broken, -EPIPE);
			close_pair(&pair);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(agree),
		cmocka_unit_test(largest_sizes),
		cmocka_unit_test(too_large),
		cmocka_unit_test(ring_reset),
		cmocka_unit_test(notification_data),
		cmocka_unit_test(one_entry_for_a_batch),
		cmocka_unit_test(device_that_lies),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
