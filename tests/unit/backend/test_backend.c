/* SPDX-License-Identifier: BSD-3-Clause */
/* The back end with a front end that behaves: negotiation, ring states, memory, config, life cycle.
 */
#include "fake_frontend.h"

static void refuses_a_config_without_sense(void **state)
{
	const struct bf_backend_config good = { .ops = &fake_ops, .nr_queues = 1, .name = "x" };
	struct bf_backend_config bad;
	struct bf_backend *be = NULL;

	(void)state;
	bad = good;
	bad.nr_queues = 0;
	assert_int_equal(bf_backend_new(&bad, &be), -EINVAL);
	bad.nr_queues = BF_MAX_QUEUES + 1;
	assert_int_equal(bf_backend_new(&bad, &be), -EINVAL);
	bad = good;
	bad.max_queue_size = BF_MAX_QUEUE_SIZE + 1;
	assert_int_equal(bf_backend_new(&bad, &be), -EINVAL);
	bad = good;
	bad.config_size = BF_CONFIG_MAX + 1;
	assert_int_equal(bf_backend_new(&bad, &be), -EINVAL);
	bad = good;
	bad.features = bf_bit(BF_VHOST_F_LOG_ALL); /* the library's own */
	assert_int_equal(bf_backend_new(&bad, &be), -EINVAL);
	bad.features = ACK_BIT;
	assert_int_equal(bf_backend_new(&bad, &be), -EINVAL);
	bad = good;
	bad.nr_shmem = 1; /* without sizes */
	assert_int_equal(bf_backend_new(&bad, &be), -EINVAL);
	bad = good;
	bad.ops = NULL;
	assert_int_equal(bf_backend_new(&bad, &be), -EINVAL);
	assert_null(be);
	bf_backend_free(NULL);

	/* The largest device there is. */
	bad = good;
	bad.nr_queues = BF_MAX_QUEUES;
	assert_int_equal(bf_backend_new(&bad, &be), 0);
	assert_int_equal(bf_backend_attach(be, open("/dev/null", O_RDWR)), -ENOTSOCK);
	assert_int_equal(bf_backend_attach(be, socket(AF_UNIX, SOCK_DGRAM, 0)), -EPROTOTYPE);
	assert_int_equal(bf_backend_dispatch(be), 0);
	bf_backend_free(be);
}

static void negotiates(void **state)
{
	struct leaks before = leaks_now();
	struct peer peer;

	(void)state;
	peer_init(&peer, 0);
	assert_int_equal(bf_backend_attach(peer.be, dup(peer.fd)), -EALREADY);
	agree(&peer);
	assert_int_equal(bf_backend_protocol_features(peer.be), OFFERED);
	assert_int_equal(peer.features, FEATURES);
	assert_int_equal(get_u64(&peer, BF_FE_GET_QUEUE_NUM), QUEUES);
	assert_int_equal(get_u64(&peer, BF_FE_GET_MAX_MEM_SLOTS), BF_MAX_REGIONS);
	assert_int_equal(say(&peer, BF_FE_SET_OWNER, NULL, 0, NULL, 0), ACCEPTED);
	assert_int_equal(say(&peer, BF_FE_RESET_OWNER, NULL, 0, NULL, 0), ACCEPTED);
	/* What was not offered is refused, and changes nothing. */
	assert_int_equal(say_u64(&peer, BF_FE_SET_FEATURES, FEATURES | ACK_BIT | 1), REFUSED);
	assert_int_equal(bf_backend_features(peer.be), FEATURES);
	assert_int_equal(say_u64(&peer, BF_FE_SET_PROTOCOL_FEATURES,
				 bf_bit(BF_PROTOCOL_F_INBAND_NOTIFICATIONS)),
			 REFUSED);
	assert_int_equal(bf_backend_protocol_features(peer.be), OFFERED);
	assert_non_null(strstr(bf_backend_error(peer.be), "SET_PROTOCOL_FEATURES"));
	peer_done(&peer);

	/* A device can offer less; config space that it does not have is never offered. */
	peer_init(&peer, bf_bit(BF_PROTOCOL_F_MQ) | bf_bit(BF_PROTOCOL_F_RARP));
	assert_int_equal(get_u64(&peer, BF_FE_GET_PROTOCOL_FEATURES), bf_bit(BF_PROTOCOL_F_MQ));
	peer_done(&peer);
	assert_no_leaks(before, "negotiation");
}

/* Started and enabled are two bits; with all the rest, in whatever order they come. */
static void runs_when_everything_is_there(void **state)
{
	(void)state;
	for (unsigned first = 0; first < 5; first++) {
		struct peer peer;

		peer_init(&peer, 0);
		agree(&peer);
		for (unsigned step = 0; step < 5; step++) {
			assert_int_equal(peer.starts, 0);
			switch ((first + step) % 5) {
			case 0:
				assert_int_equal(say_memory(&peer, -1, MEMORY_SIZE), ACCEPTED);
				break;
			case 1:
				assert_int_equal(
					say_state(&peer, BF_FE_SET_VRING_NUM, 1, RING_SIZE),
					ACCEPTED);
				break;
			case 2:
				assert_int_equal(say_addr(&peer, ring_addr(1)), ACCEPTED);
				break;
			case 3:
				assert_int_equal(say_eventfd(&peer, BF_FE_SET_VRING_KICK, 1, NULL),
						 ACCEPTED);
				break;
			case 4:
				assert_int_equal(say_state(&peer, BF_FE_SET_VRING_ENABLE, 1, 1),
						 ACCEPTED);
				break;
			}
		}
		assert_int_equal(peer.starts, 1);
		assert_true(peer.running[1]);
		assert_int_equal(bf_virtq_queue(peer.vq[1]), 1);
		assert_int_equal(bf_virtq_size(peer.vq[1]), RING_SIZE);

		assert_int_equal(say_state(&peer, BF_FE_SET_VRING_ENABLE, 1, 0), ACCEPTED);
		assert_int_equal(say_state(&peer, BF_FE_SET_VRING_ENABLE, 1, 0), ACCEPTED);
		assert_int_equal(peer.stops, 1);
		assert_int_equal(say_state(&peer, BF_FE_SET_VRING_ENABLE, 1, 1), ACCEPTED);
		assert_int_equal(peer.starts, 2);
		/* Stops, twice; stays enabled: the next kick starts it. */
		assert_int_equal(get_base(&peer, 1), 0);
		assert_int_equal(get_base(&peer, 1), 0);
		assert_int_equal(peer.stops, 2);
		assert_int_equal(say_eventfd(&peer, BF_FE_SET_VRING_KICK, 1, NULL), ACCEPTED);
		assert_int_equal(peer.starts, 3);
		peer_done(&peer);
		assert_int_equal(peer.stops, 3);
	}
}

static void without_bit_30_rings_are_enabled(void **state)
{
	struct peer peer;

	(void)state;
	peer_init(&peer, 0);
	say_u64(&peer, BF_FE_SET_PROTOCOL_FEATURES, bf_bit(BF_PROTOCOL_F_REPLY_ACK));
	assert_int_equal(say_u64(&peer, BF_FE_SET_FEATURES, FEATURES), ACCEPTED);
	assert_int_equal(say_memory(&peer, -1, MEMORY_SIZE), ACCEPTED);
	set_up(&peer, 0);
	assert_int_equal(say_eventfd(&peer, BF_FE_SET_VRING_KICK, 0, NULL), ACCEPTED);
	assert_true(peer.running[0]);
	/* Without the acknowledgement the message is not agreed. */
	assert_int_equal(say_state(&peer, BF_FE_SET_VRING_ENABLE, 0, 0), REFUSED);
	assert_true(peer.running[0]);
	peer_done(&peer);
}

/* With bit 30 it is sent again in the middle of operation, and changes no ring's state. */
/* As QEMU 7.2 does with net devices. */
static void enabled_before_features(void **state)
{
	struct peer peer;
	int kick;

	(void)state;
	peer_init(&peer, 0);
	say_u64(&peer, BF_FE_SET_PROTOCOL_FEATURES, get_u64(&peer, BF_FE_GET_PROTOCOL_FEATURES));
	assert_int_equal(say_state(&peer, BF_FE_SET_VRING_ENABLE, 0, 1), ACCEPTED);
	assert_int_equal(say_u64(&peer, BF_FE_SET_FEATURES, FEATURES | ACK_BIT), ACCEPTED);
	assert_int_equal(say_memory(&peer, -1, MEMORY_SIZE), ACCEPTED);
	set_up(&peer, 0);
	assert_int_equal(say_eventfd(&peer, BF_FE_SET_VRING_KICK, 0, &kick), ACCEPTED);
	assert_true(peer.running[0]);
	close(kick);
	peer_done(&peer);
}

static void features_again_change_nothing(void **state)
{
	struct peer peer;

	(void)state;
	peer_ready(&peer);
	start(&peer, 0, NULL);
	set_up(&peer, 1);
	assert_int_equal(say_eventfd(&peer, BF_FE_SET_VRING_KICK, 1, NULL), ACCEPTED);
	assert_int_equal(say_u64(&peer, BF_FE_SET_FEATURES, FEATURES | ACK_BIT), ACCEPTED);
	assert_true(peer.running[0]);
	assert_false(peer.running[1]);
	assert_int_equal(peer.starts + peer.stops, 1);
	/* Others than those the rings run with: not now. */
	assert_int_equal(say_u64(&peer, BF_FE_SET_FEATURES, ACK_BIT), REFUSED);
	assert_int_equal(bf_backend_features(peer.be), FEATURES);
	peer_done(&peer);
}

static void a_running_ring_is_frozen(void **state)
{
	struct bf_vring_addr addr = ring_addr(0);
	struct peer peer;

	(void)state;
	peer_ready(&peer);
	start(&peer, 0, NULL);
	assert_int_equal(say_state(&peer, BF_FE_SET_VRING_NUM, 0, 16), REFUSED);
	assert_int_equal(say_state(&peer, BF_FE_SET_VRING_BASE, 0, 5), REFUSED);
	addr.used += 4;
	assert_int_equal(say_addr(&peer, addr), REFUSED);
	/* The same again, and the log flag, are no change. */
	assert_int_equal(say_state(&peer, BF_FE_SET_VRING_NUM, 0, RING_SIZE), ACCEPTED);
	addr = ring_addr(0);
	addr.flags = 1;
	addr.log = 0x1234;
	assert_int_equal(say_addr(&peer, addr), ACCEPTED);
	addr.flags = 2;
	assert_int_equal(say_addr(&peer, addr), REFUSED);
	assert_int_equal(peer.starts, 1);
	assert_int_equal(peer.stops, 0);
	assert_int_equal(bf_virtq_size(peer.vq[0]), RING_SIZE);
	peer_done(&peer);
}

/* One request through a ring, with the front end's memory behind it. */
static void serves_a_request(void **state)
{
	int memory = make_memfd("bf-guest", MEMORY_SIZE, 0), kick, call;
	struct iovec iov[4];
	struct bf_chain chain = { .iov = iov, .nr_iov = 4 };
	struct bf_vring_addr addr = ring_addr(2);
	struct peer peer;
	uint8_t *guest;

	(void)state;
	guest = mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
	peer_init(&peer, 0);
	agree(&peer);
	assert_int_equal(say_memory(&peer, memory, MEMORY_SIZE), ACCEPTED);
	set_up(&peer, 2);
	assert_int_equal(say_state(&peer, BF_FE_SET_VRING_BASE, 2, 65535), ACCEPTED);
	assert_int_equal(say_eventfd(&peer, BF_FE_SET_VRING_CALL, 2, &call), ACCEPTED);
	assert_int_equal(say_eventfd(&peer, BF_FE_SET_VRING_KICK, 2, &kick), ACCEPTED);
	*(uint16_t *)(void *)(guest + (addr.avail - UVA) + 2) = 65535;
	assert_int_equal(say_state(&peer, BF_FE_SET_VRING_ENABLE, 2, 1), ACCEPTED);

	assert_int_equal(bf_virtq_pop(peer.vq[2], &chain), 0);
	/* Descriptor 5: 512 bytes to read at 64 KiB; entry 65535 of the avail ring is slot 7. */
	*(uint64_t *)(void *)(guest + (addr.desc - UVA) + 80) = GPA + 65536;
	*(uint32_t *)(void *)(guest + (addr.desc - UVA) + 88) = 512;
	*(uint16_t *)(void *)(guest + (addr.avail - UVA) + 4 + 14) = 5;
	*(uint16_t *)(void *)(guest + (addr.avail - UVA) + 2) = 0;
	strcpy((char *)guest + 65536, "hello");
	assert_int_equal(eventfd_write(kick, 1), 0);
	assert_int_equal(bf_virtq_drain_kick(peer.vq[2]), 1);
	assert_int_equal(bf_virtq_pop(peer.vq[2], &chain), 1);
	assert_int_equal(chain.nr_out, 1);
	assert_string_equal(iov[0].iov_base, "hello");
	bf_virtq_push(peer.vq[2], chain.head, 3);
	assert_true(bf_virtq_notify(peer.vq[2]));
	assert_int_equal(signals(call), 1);
	assert_int_equal(*(uint16_t *)(void *)(guest + (addr.used - UVA) + 2), 1);
	assert_int_equal(*(uint32_t *)(void *)(guest + (addr.used - UVA) + 4), 5);

	/* Another call eventfd under the running ring: told once, and used from then on. */
	close(call);
	assert_int_equal(say_eventfd(&peer, BF_FE_SET_VRING_CALL, 2, &call), ACCEPTED);
	assert_int_equal(signals(call), 1);
	assert_true(peer.running[2]);
	assert_int_equal(get_base(&peer, 2), 0);
	assert_int_equal(bf_virtq_counters(peer.vq[2])->requests, 1);
	peer_done(&peer);
	munmap(guest, MEMORY_SIZE);
	close(memory);
	close(kick);
	close(call);
}

static void memory_changes_under_running_rings(void **state)
{
	struct leaks before = leaks_now();
	struct bf_mem_reg reg = { .region = { GPA + MEMORY_SIZE, 4096, UVA + MEMORY_SIZE, 0 } };
	struct bf_mem_reg first = { .region = { GPA, MEMORY_SIZE, UVA, 0 } };
	struct bf_mem_reg overlap = reg;
	int more = make_memfd("bf-guest", 4096, 0), err;
	struct bf_memory *map;
	struct peer peer;

	(void)state;
	peer_ready(&peer);
	start(&peer, 0, NULL);
	start(&peer, 3, NULL);
	assert_int_equal(say_eventfd(&peer, BF_FE_SET_VRING_ERR, 3, &err), ACCEPTED);
	peer.starts = peer.stops = 0;
	map = bf_memory_ref(bf_backend_memory(peer.be));
	assert_int_equal(say(&peer, BF_FE_ADD_MEM_REG, &reg, sizeof(reg), &more, 1), ACCEPTED);
	/* The device does not notice. */
	assert_int_equal(peer.starts, 0);
	assert_int_equal(peer.stops, 0);
	assert_int_equal(bf_memory_nr_regions(bf_backend_memory(peer.be)), 2);
	bf_memory_unref(map);
	/* The same again, as QEMU does for each queue pair, changes nothing; an overlap is none. */
	assert_int_equal(say(&peer, BF_FE_ADD_MEM_REG, &reg, sizeof(reg), &more, 1), ACCEPTED);
	assert_int_equal(bf_memory_nr_regions(bf_backend_memory(peer.be)), 2);
	overlap.region.gpa += 1ull << 30;
	assert_int_equal(say(&peer, BF_FE_ADD_MEM_REG, &overlap, sizeof(reg), &more, 1), REFUSED);
	overlap = reg;
	overlap.region.uva += 1ull << 30;
	assert_int_equal(say(&peer, BF_FE_ADD_MEM_REG, &overlap, sizeof(reg), &more, 1), REFUSED);
	/* Some front ends send a descriptor with the removal. It comes as often as the announcement. */
	assert_int_equal(say(&peer, BF_FE_REM_MEM_REG, &reg, sizeof(reg), &more, 1), ACCEPTED);
	assert_int_equal(bf_memory_nr_regions(bf_backend_memory(peer.be)), 1);
	assert_int_equal(say(&peer, BF_FE_REM_MEM_REG, &reg, sizeof(reg), NULL, 0), ACCEPTED);
	assert_int_equal(say(&peer, BF_FE_REM_MEM_REG, &reg, sizeof(reg), NULL, 0), REFUSED);
	assert_int_equal(peer.starts + peer.stops, 0);

	/* Less memory: ring 0 is in it, ring 3 is not any more. */
	assert_int_equal(say_memory(&peer, -1, 8192), REFUSED);
	assert_true(peer.running[0]);
	assert_false(peer.running[3]);
	assert_int_equal(signals(err), 1);
	assert_non_null(strstr(bf_backend_error(peer.be), "queue 3 cannot start"));
	/* And back. */
	assert_int_equal(say_memory(&peer, -1, MEMORY_SIZE), ACCEPTED);
	assert_true(peer.running[3]);
	/* None left: everything stands still, and goes on when there is some. */
	assert_int_equal(say(&peer, BF_FE_REM_MEM_REG, &first, sizeof(first), NULL, 0), ACCEPTED);
	assert_null(bf_backend_memory(peer.be));
	assert_false(peer.running[0]);
	assert_int_equal(say(&peer, BF_FE_ADD_MEM_REG, &first, sizeof(first), &more, 1), REFUSED);
	assert_int_equal(say_memory(&peer, -1, MEMORY_SIZE), ACCEPTED);
	assert_true(peer.running[0]);
	peer_done(&peer);
	close(more);
	close(err);
	assert_no_leaks(before, "memory changes");
}

static void a_device_that_cannot_start(void **state)
{
	struct peer peer;

	(void)state;
	peer_ready(&peer);
	set_up(&peer, 0);
	assert_int_equal(say_state(&peer, BF_FE_SET_VRING_ENABLE, 0, 1), ACCEPTED);
	peer.start_error = -ENOSPC;
	assert_int_equal(say_eventfd(&peer, BF_FE_SET_VRING_KICK, 0, NULL), REFUSED);
	assert_non_null(strstr(bf_backend_error(peer.be), "could not start"));
	/* No thread to be had: an error like any other. */
	peer.start_error = -EAGAIN;
	assert_int_equal(say_eventfd(&peer, BF_FE_SET_VRING_KICK, 0, NULL), REFUSED);
	peer.start_error = 0;
	assert_int_equal(say_eventfd(&peer, BF_FE_SET_VRING_KICK, 0, NULL), ACCEPTED);
	assert_true(peer.running[0]);
	peer_done(&peer);
}

/* A packed ring may have any number of entries, a split one powers of two. */
static void sizes_that_are_no_power_of_two(void **state)
{
	struct bf_backend_config config;
	struct peer peer;

	(void)state;
	config = peer_config(&peer);
	config.max_queue_size = 100;
	config.features |= bf_bit(34); /* RING_PACKED */
	peer_init_as(&peer, &config);
	say_u64(&peer, BF_FE_SET_PROTOCOL_FEATURES, get_u64(&peer, BF_FE_GET_PROTOCOL_FEATURES));
	assert_int_equal(say_u64(&peer, BF_FE_SET_FEATURES, FEATURES | ACK_BIT), ACCEPTED);
	assert_int_equal(say_state(&peer, BF_FE_SET_VRING_NUM, 0, 100), REFUSED);
	assert_int_equal(say_state(&peer, BF_FE_SET_VRING_NUM, 0, 64), ACCEPTED);
	assert_int_equal(say_u64(&peer, BF_FE_SET_FEATURES, FEATURES | bf_bit(34) | ACK_BIT), ACCEPTED);
	assert_int_equal(say_state(&peer, BF_FE_SET_VRING_NUM, 0, 100), ACCEPTED);
	assert_int_equal(say_state(&peer, BF_FE_SET_VRING_NUM, 0, 101), REFUSED);
	assert_int_equal(say_state(&peer, BF_FE_SET_VRING_NUM, 0, 1), ACCEPTED);
	peer_done(&peer);
}

static int get_config(struct peer *peer, struct bf_config *config)
{
	send_message(peer->fd, BF_FE_GET_CONFIG, BF_FLAGS_VERSION, config, 12 + config->size, NULL,
		     0);
	assert_int_equal(bf_backend_dispatch(peer->be), 0);
	return read_reply(peer->fd, BF_FE_GET_CONFIG, config, sizeof(*config));
}

static int set_config(struct peer *peer, uint32_t offset, uint32_t size, uint32_t flags)
{
	struct bf_config config = { .offset = offset, .size = size, .flags = flags };

	memset(config.data, 0xee, sizeof(config.data));
	return say(peer, BF_FE_SET_CONFIG, &config, 12 + size, NULL, 0);
}

static void config_space(void **state)
{
	struct bf_config config = { .offset = 4, .size = 8 };
	struct peer peer;

	(void)state;
	peer_ready(&peer);
	assert_int_equal(get_config(&peer, &config), 12 + 8);
	assert_int_equal(config.offset, 4);
	assert_int_equal(config.size, 8);
	assert_int_equal(config.data[0], 4);
	assert_int_equal(config.data[7], 11);
	/* A front end that knows a longer structure: the size it asked for, zeros behind ours. */
	config = (struct bf_config){ .offset = 0, .size = BF_CONFIG_MAX };
	memset(config.data, 0xff, sizeof(config.data));
	assert_int_equal(get_config(&peer, &config), 12 + BF_CONFIG_MAX);
	assert_int_equal(config.data[CONFIG_SIZE - 1], CONFIG_SIZE - 1);
	for (unsigned i = CONFIG_SIZE; i < BF_CONFIG_MAX; i++)
		assert_int_equal(config.data[i], 0);
	/* Failure is an empty payload. */
	config = (struct bf_config){ .offset = CONFIG_SIZE, .size = 1 };
	assert_int_equal(get_config(&peer, &config), 0);
	config = (struct bf_config){ .offset = UINT32_MAX, .size = 4096 };
	assert_int_equal(get_config(&peer, &config), 0);
	config = (struct bf_config){ .offset = 0, .size = 0 };
	assert_int_equal(get_config(&peer, &config), 0);

	assert_int_equal(set_config(&peer, 10, 2, 0), ACCEPTED);
	assert_false(peer.config_migration);
	assert_int_equal(peer.config[10], 0xee);
	assert_int_equal(peer.config[12], 12);
	assert_int_equal(set_config(&peer, 12, 1, 1), ACCEPTED);
	assert_true(peer.config_migration);
	assert_int_equal(set_config(&peer, 12, 1, 2), ACCEPTED);
	assert_int_equal(set_config(&peer, 12, 1, 4), REFUSED);
	assert_int_equal(set_config(&peer, CONFIG_SIZE - 1, 2, 0), REFUSED);
	assert_int_equal(set_config(&peer, UINT32_MAX, 2, 0), REFUSED);
	assert_int_equal(set_config(&peer, 0, 0, 0), REFUSED);
	peer_done(&peer);
}

static void status_and_reset(void **state)
{
	struct peer peer;

	(void)state;
	peer_ready(&peer);
	start(&peer, 0, NULL);
	assert_int_equal(say_u64(&peer, BF_FE_SET_STATUS, 0xf), ACCEPTED);
	assert_int_equal(get_u64(&peer, BF_FE_GET_STATUS), 0xf);
	assert_int_equal(say_u64(&peer, BF_FE_SET_STATUS, 0x100), REFUSED);
	assert_int_equal(say(&peer, BF_FE_RESET_DEVICE, NULL, 0, NULL, 0), ACCEPTED);
	assert_int_equal(peer.resets, 1);
	assert_int_equal(get_u64(&peer, BF_FE_GET_STATUS), 0);
	assert_non_null(bf_backend_memory(peer.be));
	/* Nothing of the ring is remembered. */
	assert_int_equal(say_eventfd(&peer, BF_FE_SET_VRING_KICK, 0, NULL), ACCEPTED);
	assert_false(peer.running[0]);
	start(&peer, 0, NULL);
	assert_int_equal(say_u64(&peer, BF_FE_SET_STATUS, 0), ACCEPTED);
	assert_false(peer.running[0]);
	peer_done(&peer);
}

static void one_object_many_connections(void **state)
{
	struct leaks before = leaks_now();
	struct pollfd ready;
	struct peer peer;

	(void)state;
	peer_init(&peer, 0);
	ready = (struct pollfd){ .fd = bf_backend_fd(peer.be), .events = POLLIN };
	for (unsigned i = 1; i <= 5; i++) {
		agree(&peer);
		open_back(&peer);
		assert_int_equal(say_memory(&peer, -1, MEMORY_SIZE), ACCEPTED);
		start(&peer, 0, NULL);
		start(&peer, 1, NULL);
		assert_int_equal(poll(&ready, 1, 0), 0);
		if (i % 2) {
			close(peer.fd);
			assert_int_equal(poll(&ready, 1, 0), 1);
			assert_int_equal(bf_backend_dispatch(peer.be), 0);
			assert_int_equal(peer.ended, (i + 1) / 2);
			assert_int_equal(peer.end_error, 0);
		} else {
			bf_backend_detach(peer.be);
			bf_backend_detach(peer.be);
			assert_int_equal(peer.ended, i / 2);
			close(peer.fd);
		}
		assert_int_equal(poll(&ready, 1, 0), 0);
		assert_int_equal(peer.starts, peer.stops);
		assert_int_equal(bf_backend_protocol_features(peer.be), 0);
		assert_int_equal(bf_backend_features(peer.be), 0);
		peer_connect(&peer);
	}
	/* The counters are the queue's, whoever connects. */
	assert_int_equal(bf_virtq_counters(peer.vq[0])->errors, 0);
	peer_done(&peer);
	assert_no_leaks(before, "five connections");
}

/* A front end that sends and does not read is not served on, and loses nothing when it reads. */
static void a_front_end_that_does_not_read(void **state)
{
	unsigned sent = 0, got = 0;
	struct pollfd ready;
	struct peer peer;
	uint64_t value;

	(void)state;
	peer_init(&peer, 0);
	ready = (struct pollfd){ .fd = bf_backend_fd(peer.be), .events = POLLIN };
	while (sent < 200000) {
		const struct bf_header hdr = { BF_FE_GET_FEATURES, 1, 0 };

		if (write(peer.fd, &hdr, sizeof(hdr)) == sizeof(hdr)) {
			sent++;
			continue;
		}
		/* Both directions full: it waits for us, and does not turn in circles. */
		if (poll(&ready, 1, 0) == 0)
			break;
		assert_int_equal(bf_backend_dispatch(peer.be), 0);
	}
	assert_true(sent < 200000);
	for (;;) {
		int ret = read_reply(peer.fd, BF_FE_GET_FEATURES, &value, sizeof(value));

		if (ret > 0) {
			got++;
			continue;
		}
		if (poll(&ready, 1, 0) == 0)
			break;
		assert_int_equal(bf_backend_dispatch(peer.be), 0);
	}
	assert_int_equal(got, sent);
	peer_done(&peer);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(refuses_a_config_without_sense),
		cmocka_unit_test(negotiates),
		cmocka_unit_test(runs_when_everything_is_there),
		cmocka_unit_test(without_bit_30_rings_are_enabled),
		cmocka_unit_test(enabled_before_features),
		cmocka_unit_test(features_again_change_nothing),
		cmocka_unit_test(a_running_ring_is_frozen),
		cmocka_unit_test(serves_a_request),
		cmocka_unit_test(memory_changes_under_running_rings),
		cmocka_unit_test(a_device_that_cannot_start),
		cmocka_unit_test(sizes_that_are_no_power_of_two),
		cmocka_unit_test(config_space),
		cmocka_unit_test(status_and_reset),
		cmocka_unit_test(one_object_many_connections),
		cmocka_unit_test(a_front_end_that_does_not_read),
	};

	return cmocka_run_group_tests_name("backend", tests, NULL, NULL);
}
