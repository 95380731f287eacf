/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Vrings that are started but disabled, for a device that is given them all the same: what it is told, when,
 * and that it is told nothing else. What becomes of a device that is not: test_backend.c.
 */
#include "fake_frontend.h"

struct device {
	struct peer peer;  /* first: the fake operations get it */
	unsigned tells;    /* vring_enable, for any queue */
	bool told[QUEUES]; /* for this start of it */
	bool enabled[QUEUES];
	int refuse; /* what vring_enable says while a queue runs, or is about to */
};

static int on_enable(void *opaque, unsigned queue, bool enabled)
{
	struct device *d = opaque;

	d->tells++;
	/* Before a start, once; then changes only. */
	if (d->peer.running[queue])
		assert_int_equal(d->enabled[queue], !enabled);
	else
		assert_false(d->told[queue]);
	d->told[queue] = true;
	d->enabled[queue] = enabled;
	if (d->refuse && !d->peer.running[queue])
		d->told[queue] = false;
	return d->refuse;
}

static int on_start(void *opaque, unsigned queue, struct bf_virtq *vq)
{
	assert_true(((struct device *)opaque)->told[queue]);
	return fake_start(opaque, queue, vq);
}

static void on_stop(void *opaque, unsigned queue)
{
	((struct device *)opaque)->told[queue] = false;
	fake_stop(opaque, queue);
}

static const struct bf_backend_ops ops = {
	.vring_start = on_start,
	.vring_stop = on_stop,
	.vring_enable = on_enable,
	.set_features = fake_set_features,
	.reset = fake_reset,
	.doorbell_answered = fake_answered,
	.disconnected = fake_disconnected,
};

static void begin(struct device *d)
{
	struct bf_backend_config config = peer_config(&d->peer);

	memset(d, 0, sizeof(*d));
	config.ops = &ops;
	config.config_size = 0;
	peer_init_as(&d->peer, &config);
	agree(&d->peer);
	open_back(&d->peer);
	assert_int_equal(say_memory(&d->peer, -1, MEMORY_SIZE), ACCEPTED);
}

static int kick(struct device *d, unsigned queue)
{
	return say_eventfd(&d->peer, BF_FE_SET_VRING_KICK, queue, NULL);
}

static int enable(struct device *d, unsigned queue, bool on)
{
	return say_state(&d->peer, BF_FE_SET_VRING_ENABLE, queue, on);
}

/* Starts, stops and tells since the last time. */
static void expect(struct device *d, unsigned starts, unsigned stops, unsigned tells)
{
	assert_int_equal(d->peer.starts, starts);
	assert_int_equal(d->peer.stops, stops);
	assert_int_equal(d->tells, tells);
	d->peer.starts = d->peer.stops = d->tells = 0;
}

static void runs_while_disabled(void **state)
{
	struct device d;

	(void)state;
	begin(&d);
	set_up(&d.peer, 1);
	expect(&d, 0, 0, 0);
	assert_int_equal(kick(&d, 1), ACCEPTED);
	expect(&d, 1, 0, 1);
	assert_true(d.peer.running[1] && !d.enabled[1]);
	/* Frozen like any that runs. */
	assert_int_equal(say_state(&d.peer, BF_FE_SET_VRING_BASE, 1, 5), REFUSED);
	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(enable(&d, 1, i % 2), ACCEPTED);
		assert_int_equal(d.enabled[1], i % 2);
		assert_int_equal(enable(&d, 1, i % 2), ACCEPTED);
		expect(&d, 0, 0, i > 0);
	}
	/* With bit 30 the features change no ring's state. */
	assert_int_equal(say_u64(&d.peer, BF_FE_SET_FEATURES, FEATURES | ACK_BIT), ACCEPTED);
	expect(&d, 0, 0, 0);
	peer_done(&d.peer);
	expect(&d, 0, 1, 0);
}

/* A ring that does not run is none of the device's business, but the bit is kept. */
static void is_told_before_each_start(void **state)
{
	struct device d;

	(void)state;
	begin(&d);
	assert_int_equal(enable(&d, 0, 1), ACCEPTED);
	assert_int_equal(enable(&d, 0, 0), ACCEPTED);
	assert_int_equal(enable(&d, 0, 1), ACCEPTED);
	expect(&d, 0, 0, 0);
	set_up(&d.peer, 0);
	assert_int_equal(kick(&d, 0), ACCEPTED);
	expect(&d, 1, 0, 1);
	assert_true(d.enabled[0]);
	/* Another kick eventfd is a stop and a start. */
	assert_int_equal(kick(&d, 0), ACCEPTED);
	expect(&d, 1, 1, 1);
	assert_true(d.enabled[0]);
	assert_int_equal(enable(&d, 0, 0), ACCEPTED);
	expect(&d, 0, 0, 1);
	assert_int_equal(get_base(&d.peer, 0), 0);
	expect(&d, 0, 1, 0);
	assert_int_equal(get_base(&d.peer, 0), 0);
	assert_int_equal(enable(&d, 0, 1), ACCEPTED);
	assert_int_equal(enable(&d, 0, 0), ACCEPTED);
	expect(&d, 0, 0, 0);
	assert_int_equal(kick(&d, 0), ACCEPTED);
	expect(&d, 1, 0, 1);
	assert_false(d.enabled[0]);
	/* All is forgotten. */
	assert_int_equal(enable(&d, 0, 1), ACCEPTED);
	assert_int_equal(say(&d.peer, BF_FE_RESET_DEVICE, NULL, 0, NULL, 0), ACCEPTED);
	expect(&d, 0, 1, 1);
	assert_int_equal(d.peer.resets, 1);
	set_up(&d.peer, 0);
	assert_int_equal(kick(&d, 0), ACCEPTED);
	expect(&d, 1, 0, 1);
	assert_false(d.enabled[0]);
	peer_done(&d.peer);
}

/* Without bit 30 all are enabled: those that run hear of it, the others when they start. */
static void without_bit_30(void **state)
{
	struct device d;

	(void)state;
	begin(&d);
	set_up(&d.peer, 0);
	assert_int_equal(kick(&d, 0), ACCEPTED);
	expect(&d, 1, 0, 1);
	assert_int_equal(say_u64(&d.peer, BF_FE_SET_FEATURES, FEATURES), ACCEPTED);
	expect(&d, 0, 0, 1);
	assert_true(d.enabled[0]);
	set_up(&d.peer, 3);
	assert_int_equal(kick(&d, 3), ACCEPTED);
	expect(&d, 1, 0, 1);
	assert_true(d.enabled[3]);
	peer_done(&d.peer);
}

static void the_device_refuses(void **state)
{
	struct device d;
	int error;

	(void)state;
	begin(&d);
	set_up(&d.peer, 0);
	assert_int_equal(say_eventfd(&d.peer, BF_FE_SET_VRING_ERR, 0, &error), ACCEPTED);
	d.refuse = -ENOSPC;
	assert_int_equal(kick(&d, 0), REFUSED);
	expect(&d, 0, 0, 1);
	assert_int_equal(signals(error), 1);
	assert_non_null(strstr(bf_backend_error(d.peer.be), "could not start"));
	/* It is tried again with whatever comes. */
	d.refuse = 0;
	assert_int_equal(enable(&d, 0, 1), ACCEPTED);
	expect(&d, 1, 0, 1);
	/* A ring of which nobody knows how it is does not run. */
	d.refuse = -ENOSPC;
	assert_int_equal(enable(&d, 0, 0), REFUSED);
	expect(&d, 0, 1, 1);
	assert_int_equal(signals(error), 1);
	assert_non_null(strstr(bf_backend_error(d.peer.be), "could not disable"));
	d.refuse = 0;
	assert_int_equal(enable(&d, 0, 0), ACCEPTED);
	expect(&d, 1, 0, 1);
	assert_false(d.enabled[0]);
	close(error);
	peer_done(&d.peer);
}

/* What the device takes from a disabled ring counts like anything it takes; and memory may change. */
static void serves_while_disabled(void **state)
{
	int fd = make_memfd("bf-guest", MEMORY_SIZE, 0);
	uint8_t *mem = mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	uint16_t *avail = (uint16_t *)(void *)(mem + 1024);
	uint16_t *used = (uint16_t *)(void *)(mem + 2048);
	const uint64_t buffer = GPA + 8192;
	const uint32_t len = 64;
	struct iovec iov[2];
	struct bf_chain chain = { .iov = iov, .nr_iov = 2 };
	struct device d;

	(void)state;
	begin(&d);
	assert_int_equal(say_memory(&d.peer, fd, MEMORY_SIZE), ACCEPTED);
	memcpy(mem, &buffer, 8);
	memcpy(mem + 8, &len, 4);
	set_up(&d.peer, 0);
	assert_int_equal(kick(&d, 0), ACCEPTED);
	avail[1] = 1;
	assert_int_equal(say_memory(&d.peer, fd, MEMORY_SIZE), ACCEPTED);
	expect(&d, 1, 0, 1);
	assert_int_equal(bf_virtq_pop(d.peer.vq[0], &chain), 1);
	assert_int_equal(chain.out_len, len);
	bf_virtq_push(d.peer.vq[0], chain.head, 0);
	bf_virtq_notify(d.peer.vq[0]);
	assert_int_equal(used[1], 1);
	assert_int_equal(get_base(&d.peer, 0), 1);
	munmap(mem, MEMORY_SIZE);
	close(fd);
	peer_done(&d.peer);
}

/* The page belongs to the vring's run, not to its being enabled. */
static void keeps_its_doorbell(void **state)
{
	struct bf_header hdr;
	char rest[64];
	struct device d;

	(void)state;
	begin(&d);
	d.peer.publish_fd = make_memfd("bf-page", 4096, 0);
	set_up(&d.peer, 0);
	assert_int_equal(kick(&d, 0), ACCEPTED);
	assert_int_equal(d.peer.publish_ret, 0);
	assert_int_equal(read(d.peer.back, &hdr, sizeof(hdr)), sizeof(hdr));
	assert_int_equal(hdr.request, BF_BE_VRING_HOST_NOTIFIER_MSG);
	assert_int_equal(read(d.peer.back, rest, sizeof(rest)), hdr.size);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(enable(&d, 0, !(i % 2)), ACCEPTED);
	assert_int_equal(read(d.peer.back, &hdr, sizeof(hdr)), -1);
	assert_int_equal(errno, EAGAIN);
	expect(&d, 1, 0, 4);
	close(d.peer.publish_fd);
	peer_done(&d.peer);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(runs_while_disabled),
		cmocka_unit_test(is_told_before_each_start),
		cmocka_unit_test(without_bit_30),
		cmocka_unit_test(the_device_refuses),
		cmocka_unit_test(serves_while_disabled),
		cmocka_unit_test(keeps_its_doorbell),
	};

	return cmocka_run_group_tests_name("enable", tests, NULL, NULL);
}
