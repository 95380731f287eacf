/* SPDX-License-Identifier: BSD-3-Clause */
/* "IOMMU support": misses asked for, updates and invalidations under a running queue. */
#include "load.h"

#include <linux/virtio_config.h>

#define IOMMU_FEATURES (LOAD_FEATURES | bf_bit(VIRTIO_F_ACCESS_PLATFORM))
#define IOVA           0x10000000ull /* of the first byte of memory; pages are mapped as it pleases */
#define READ_ONLY      1
#define READ_WRITE     3

static int say_iotlb(struct peer *peer, uint8_t type, uint64_t iova, uint64_t size, uint64_t uva,
		     uint8_t perm)
{
	const struct bf_iotlb msg = {
		.iova = iova, .size = size, .uva = uva, .perm = perm, .type = type
	};

	return say(peer, BF_FE_IOTLB_MSG, &msg, sizeof(msg), NULL, 0);
}

static int update(struct peer *peer, uint64_t iova, uint64_t size, uint8_t perm)
{
	return say_iotlb(peer, BF_IOTLB_UPDATE, iova, size, UVA + (iova - IOVA), perm);
}

static int invalidate(struct peer *peer, uint64_t iova, uint64_t size)
{
	return say_iotlb(peer, BF_IOTLB_INVALIDATE, iova, size, 0, 0);
}

/* What the back end asks; 0, or -EAGAIN nothing. */
static int next_miss(struct peer *peer, struct bf_iotlb *miss)
{
	struct bf_header hdr;
	ssize_t got;

	bf_backend_dispatch(peer->be);
	got = read(peer->back, &hdr, sizeof(hdr));
	if (got < 0)
		return -errno;
	assert_int_equal(got, sizeof(hdr));
	assert_int_equal(hdr.request, BF_BE_IOTLB_MSG);
	assert_int_equal(hdr.flags, NEED_REPLY);
	assert_int_equal(read(peer->back, miss, sizeof(*miss)), sizeof(*miss));
	assert_int_equal(miss->type, BF_IOTLB_MISS);
	return 0;
}

static void acknowledge(struct peer *peer, uint64_t value)
{
	send_message(peer->back, BF_BE_IOTLB_MSG, BF_FLAGS_VERSION | BF_FLAGS_REPLY, &value, 8,
		     NULL, 0);
	assert_int_equal(bf_backend_dispatch(peer->be), 0);
}

static void expect_miss(struct peer *peer, uint64_t iova, unsigned perm)
{
	struct bf_iotlb miss;

	assert_int_equal(next_miss(peer, &miss), 0);
	assert_int_equal(miss.iova, iova);
	assert_int_equal(miss.perm, perm);
}

static void expect_nothing(struct peer *peer)
{
	struct bf_iotlb miss;

	assert_int_equal(next_miss(peer, &miss), -EAGAIN);
}

static void begin(struct echo *echo, struct guest *guest, bool threaded)
{
	echo_init(echo, threaded, IOMMU_FEATURES, 0);
	guest_init(guest);
	guest->base = IOVA;
	assert_int_equal(say_memory(&echo->peer, guest->fd, MEMORY_SIZE), ACCEPTED);
}

/* With its ring page mapped, and nothing else. */
static void running(struct echo *echo, struct guest *guest, bool threaded, int *kick)
{
	begin(echo, guest, threaded);
	assert_int_equal(update(&echo->peer, IOVA, 4096, READ_WRITE), ACCEPTED);
	assert_int_equal(echo_ring(echo, 0, LOAD_RING, IOVA, kick), ACCEPTED);
	assert_true(echo->peer.running[0]);
	expect_nothing(&echo->peer);
	assert_true(signals(*kick) == 0);
}

static void end(struct echo *echo, struct guest *guest, int kick)
{
	peer_done(&echo->peer);
	guest_done(guest);
	close(kick);
}

static int pop(struct echo *echo, struct iovec iov[8])
{
	struct bf_chain chain = { .iov = iov, .nr_iov = 8 };

	return bf_virtq_pop(echo->peer.vq[0], &chain);
}

/* A ring starts when all of it is there, and each part is asked for once. */
static void a_ring_waits_for_its_translations(void **state)
{
	struct leaks before = leaks_now();
	struct guest guest;
	struct echo echo;
	struct peer *peer = &echo.peer;
	int kick, call;

	(void)state;
	begin(&echo, &guest, false);
	assert_int_equal(echo_ring(&echo, 0, LOAD_RING, IOVA, &kick), ACCEPTED);
	assert_int_equal(peer->starts, 0);
	expect_miss(peer, IOVA, READ_ONLY);
	/* Whatever makes it try again does not ask again. */
	assert_int_equal(say_eventfd(peer, BF_FE_SET_VRING_CALL, 0, &call), ACCEPTED);
	assert_int_equal(say_state(peer, BF_FE_SET_VRING_ENABLE, 0, 1), ACCEPTED);
	/* Something else that comes is not it. */
	assert_int_equal(update(peer, IOVA + 0x20000, 4096, READ_WRITE), ACCEPTED);
	/* The acknowledgement says no more than that an update is on its way. */
	acknowledge(peer, 0);
	expect_nothing(peer);
	/* Descriptors and available ring only: half of the page. */
	assert_int_equal(update(peer, IOVA, 2048, READ_ONLY), ACCEPTED);
	assert_int_equal(peer->starts, 0);
	expect_miss(peer, IOVA + 2048, READ_WRITE);
	/* To be read is not enough for a used ring. */
	assert_int_equal(update(peer, IOVA + 2048, 2048, READ_ONLY), ACCEPTED);
	assert_int_equal(peer->starts, 0);
	expect_nothing(peer);
	assert_int_equal(update(peer, IOVA + 2048, 2048, READ_WRITE), ACCEPTED);
	assert_int_equal(peer->starts, 1);
	assert_true(peer->running[0]);
	expect_nothing(peer);
	acknowledge(peer, 0);
	close(call);
	close(kick);
	/* A connection that ends with a ring waiting; the next one asks again. */
	for (unsigned i = 0; i < 2; i++) {
		if (i)
			bf_backend_detach(peer->be);
		else
			close(peer->fd);
		bf_backend_dispatch(peer->be);
		if (i)
			close(peer->fd);
		peer_connect(peer);
		say_u64(peer, BF_FE_SET_PROTOCOL_FEATURES,
			get_u64(peer, BF_FE_GET_PROTOCOL_FEATURES));
		assert_int_equal(say_u64(peer, BF_FE_SET_FEATURES, IOMMU_FEATURES | ACK_BIT),
				 ACCEPTED);
		open_back(peer);
		assert_int_equal(say_memory(peer, guest.fd, MEMORY_SIZE), ACCEPTED);
		assert_int_equal(echo_ring(&echo, 0, LOAD_RING, IOVA, &kick), ACCEPTED);
		assert_int_equal(peer->starts, 1);
		expect_miss(peer, IOVA, READ_ONLY);
		if (!i)
			close(kick);
	}
	end(&echo, &guest, kick);
	assert_no_leaks(before, "a ring waits");
}

static void a_ring_that_the_front_end_does_not_have(void **state)
{
	struct guest guest;
	struct echo echo;
	struct peer *peer = &echo.peer;
	int kick, err;

	(void)state;
	begin(&echo, &guest, false);
	assert_int_equal(say_eventfd(peer, BF_FE_SET_VRING_ERR, 0, &err), ACCEPTED);
	assert_int_equal(echo_ring(&echo, 0, LOAD_RING, IOVA, &kick), ACCEPTED);
	expect_miss(peer, IOVA, READ_ONLY);
	acknowledge(peer, 1);
	assert_int_equal(peer->starts, 0);
	assert_int_equal(signals(err), 1);
	/* Set up again, it is asked for again. */
	assert_int_equal(say_state(peer, BF_FE_SET_VRING_ENABLE, 0, 1), ACCEPTED);
	expect_miss(peer, IOVA, READ_ONLY);
	assert_int_equal(update(peer, IOVA, 4096, READ_WRITE), ACCEPTED);
	assert_true(peer->running[0]);
	close(err);
	end(&echo, &guest, kick);

	/* Nobody to ask: that is the kick's failure. */
	begin(&echo, &guest, false);
	close(peer->back);
	peer->back = -1;
	bf_backend_dispatch(peer->be);
	assert_int_equal(echo_ring(&echo, 0, LOAD_RING, IOVA, &kick), REFUSED);
	assert_non_null(strstr(bf_backend_error(peer->be), "back-end channel"));
	end(&echo, &guest, kick);
}

static void a_buffer_is_asked_for_and_kicked_for(void **state)
{
	struct iovec iov[8];
	struct guest guest;
	struct echo echo;
	struct peer *peer = &echo.peer;
	int kick;

	(void)state;
	running(&echo, &guest, false, &kick);
	guest_offer_in(&guest, 0, LOAD_RING, 1, IOVA + 0x20000, 8192);
	assert_int_equal(pop(&echo, iov), 0);
	assert_int_equal(pop(&echo, iov), 0);
	expect_miss(peer, IOVA + 0x20000, 2);
	expect_nothing(peer);
	acknowledge(peer, 0);
	assert_int_equal(signals(kick), 0);
	/* One page of two: it goes on, and misses the other. */
	assert_int_equal(update(peer, IOVA + 0x20000, 4096, READ_WRITE), ACCEPTED);
	assert_int_equal(signals(kick), 1);
	assert_int_equal(pop(&echo, iov), 0);
	expect_miss(peer, IOVA + 0x21000, 2);
	/* Faster than the acknowledgement. */
	assert_int_equal(update(peer, IOVA + 0x21000, 4096, READ_WRITE), ACCEPTED);
	acknowledge(peer, 0);
	assert_int_equal(signals(kick), 1);
	assert_int_equal(pop(&echo, iov), 1);
	assert_int_equal(iov[0].iov_len, 8192);
	memset(iov[0].iov_base, 0x33, 8192);
	assert_int_equal(guest.mem[0x21fff], 0x33);
	assert_int_equal(bf_virtq_broken(peer->vq[0], NULL), 0);

	/* An update that is there before the post is looked at: nothing is asked. */
	guest_offer_in(&guest, 0, LOAD_RING, 2, IOVA + 0x30000, 64);
	assert_int_equal(pop(&echo, iov), 0);
	assert_int_equal(update(peer, IOVA + 0x30000, 4096, READ_WRITE), ACCEPTED);
	bf_backend_dispatch(peer->be);
	assert_true(signals(kick) > 0);
	assert_int_equal(pop(&echo, iov), 1);
	end(&echo, &guest, kick);
}

static void a_buffer_that_is_refused_breaks_its_queue(void **state)
{
	struct iovec iov[8];
	struct guest guest;
	struct echo echo;
	struct peer *peer = &echo.peer;
	int kick, err;

	(void)state;
	running(&echo, &guest, false, &kick);
	assert_int_equal(say_eventfd(peer, BF_FE_SET_VRING_ERR, 0, &err), ACCEPTED);
	guest_offer_in(&guest, 0, LOAD_RING, 1, IOVA + 0x20000, 64);
	assert_int_equal(pop(&echo, iov), 0);
	expect_miss(peer, IOVA + 0x20000, 2);
	acknowledge(peer, 1);
	assert_int_equal(signals(kick), 1);
	assert_int_equal(pop(&echo, iov), -EFAULT);
	assert_int_equal(signals(err), 1);
	bf_backend_dispatch(peer->be);
	assert_int_equal(get_u64(peer, BF_FE_GET_STATUS), VIRTIO_CONFIG_S_NEEDS_RESET);
	close(err);
	end(&echo, &guest, kick);

	/* The channel goes while a miss is unanswered. */
	running(&echo, &guest, false, &kick);
	guest_offer_in(&guest, 0, LOAD_RING, 1, IOVA + 0x20000, 64);
	assert_int_equal(pop(&echo, iov), 0);
	expect_miss(peer, IOVA + 0x20000, 2);
	close(peer->back);
	peer->back = -1;
	bf_backend_dispatch(peer->be);
	assert_int_equal(pop(&echo, iov), -EFAULT);
	end(&echo, &guest, kick);

	/* Or has gone before. */
	running(&echo, &guest, false, &kick);
	close(peer->back);
	peer->back = -1;
	guest_offer_in(&guest, 0, LOAD_RING, 1, IOVA + 0x20000, 64);
	bf_backend_dispatch(peer->be);
	assert_int_equal(pop(&echo, iov), 0);
	bf_backend_dispatch(peer->be);
	assert_int_equal(pop(&echo, iov), -EFAULT);
	end(&echo, &guest, kick);
}

static void updates_that_may_not_be(void **state)
{
	const struct {
		const char *what;
		uint8_t type;
		uint64_t iova, size, uva;
		uint8_t perm;
	} rows[] = {
		{ "miss", BF_IOTLB_MISS, IOVA, 4096, UVA, 3 },
		{ "access failure", BF_IOTLB_ACCESS_FAIL, IOVA, 4096, UVA, 3 },
		{ "type 0", 0, IOVA, 4096, UVA, 3 },
		{ "type 255", 255, IOVA, 4096, UVA, 3 },
		{ "before memory", BF_IOTLB_UPDATE, IOVA, 4096, UVA - 1, 3 },
		{ "behind memory", BF_IOTLB_UPDATE, IOVA, 4096, UVA + MEMORY_SIZE, 3 },
		{ "across its end", BF_IOTLB_UPDATE, IOVA, 8192, UVA + MEMORY_SIZE - 4096, 3 },
		{ "guest-physical", BF_IOTLB_UPDATE, IOVA, 4096, GPA, 3 },
		{ "nothing", BF_IOTLB_UPDATE, IOVA, 0, UVA, 3 },
		{ "no permission", BF_IOTLB_UPDATE, IOVA, 4096, UVA, 0 },
		{ "iova wraps", BF_IOTLB_UPDATE, UINT64_MAX - 4095, 8192, UVA, 3 },
		{ "uva wraps", BF_IOTLB_UPDATE, IOVA, 4096, UINT64_MAX - 10, 3 },
		{ "everything", BF_IOTLB_UPDATE, 0, UINT64_MAX, UVA, 3 },
	};
	struct guest guest;
	struct echo echo;
	int kick;

	(void)state;
	running(&echo, &guest, false, &kick);
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (say_iotlb(&echo.peer, rows[i].type, rows[i].iova, rows[i].size, rows[i].uva,
			      rows[i].perm) != REFUSED)
			fail_msg("%s: not refused", rows[i].what);
	assert_true(echo.peer.running[0]);
	assert_int_equal(echo.peer.stops, 0);
	end(&echo, &guest, kick);
}

/* Taken back: nothing new uses it, and the answer comes when what is in flight is back. */
static void an_invalidation_waits_for_requests(void **state)
{
	struct bf_iotlb miss;
	struct guest guest;
	struct echo echo;
	struct peer *peer = &echo.peer;
	uint64_t began;
	int kick;

	(void)state;
	running(&echo, &guest, true, &kick);
	assert_int_equal(update(peer, IOVA + 0x20000, 8192, READ_WRITE), ACCEPTED);
	atomic_store(&echo.hold_ms, 150);
	guest_offer_in(&guest, 0, LOAD_RING, 1, IOVA + 0x20000, 64);
	eventfd_write(kick, 1);
	while (!atomic_load(&echo.held))
		echo_sleep(1);
	began = load_now();
	assert_int_equal(invalidate(peer, IOVA + 0x20000, 4096), ACCEPTED);
	assert_int_equal(atomic_load(&echo.held), 0);
	assert_true(load_now() >= began + 50);
	assert_int_equal(guest.mem[0x20000], 0x5a);
	atomic_store(&echo.hold_ms, 0);
	/* The other page is still there, this one is not. */
	guest_offer_in(&guest, 0, LOAD_RING, 2, IOVA + 0x21000, 64);
	guest_offer_in(&guest, 0, LOAD_RING, 3, IOVA + 0x20000, 64);
	eventfd_write(kick, 1);
	for (unsigned i = 0; i < 2000 && next_miss(peer, &miss); i++)
		echo_sleep(1);
	assert_int_equal(miss.iova, IOVA + 0x20000);
	assert_int_equal(__atomic_load_n(&guest_used(&guest, 0)[1], __ATOMIC_ACQUIRE), 2);
	assert_int_equal(update(peer, IOVA + 0x20000, 4096, READ_WRITE), ACCEPTED);
	acknowledge(peer, 0);
	for (unsigned i = 0;
	     i < 2000 && __atomic_load_n(&guest_used(&guest, 0)[1], __ATOMIC_ACQUIRE) != 3; i++)
		echo_sleep(1);
	assert_int_equal(guest_used(&guest, 0)[1], 3);
	assert_int_equal(peer->starts, 1);
	assert_int_equal(peer->stops, 0);
	end(&echo, &guest, kick);
}

static void a_ring_that_is_taken_back(void **state)
{
	struct iovec iov[8];
	struct guest guest;
	struct echo echo;
	struct peer *peer = &echo.peer;
	int kick;

	(void)state;
	running(&echo, &guest, false, &kick);
	assert_int_equal(update(peer, IOVA + 0x20000, 4096, READ_WRITE), ACCEPTED);
	guest_offer_in(&guest, 0, LOAD_RING, 1, IOVA + 0x20000, 64);
	assert_int_equal(pop(&echo, iov), 1);
	bf_virtq_push(peer->vq[0], 1, 64);
	assert_int_equal(invalidate(peer, IOVA, 4096), ACCEPTED);
	assert_int_equal(peer->stops, 1);
	expect_miss(peer, IOVA, READ_ONLY);
	assert_int_equal(update(peer, IOVA, 4096, READ_WRITE), ACCEPTED);
	acknowledge(peer, 0);
	assert_int_equal(peer->starts, 2);
	/* It goes on. */
	guest_offer_in(&guest, 0, LOAD_RING, 5, IOVA + 0x20000, 64);
	assert_int_equal(pop(&echo, iov), 1);
	bf_virtq_push(peer->vq[0], 5, 64);
	/* Its translation is replaced by one to another page, where there is a copy of it. */
	bf_virtq_notify(peer->vq[0]);
	memcpy(guest.mem + 0x8000, guest.mem, 4096);
	assert_int_equal(say_iotlb(peer, BF_IOTLB_UPDATE, IOVA, 4096, UVA + 0x8000, READ_WRITE),
			 ACCEPTED);
	guest_desc(&guest, 8, 6, IOVA + 0x20000, 64, 2, 0);
	guest_offer(&guest, 8, LOAD_RING, 6);
	assert_int_equal(pop(&echo, iov), 1);
	assert_int_equal(peer->starts, 2);
	bf_virtq_push(peer->vq[0], 6, 64);
	/* All of it: a size of 0 is 2^64. Then what wraps is cut off. */
	assert_int_equal(invalidate(peer, 0, 0), ACCEPTED);
	assert_int_equal(peer->stops, 2);
	assert_int_equal(update(peer, IOVA, 4096, READ_WRITE), ACCEPTED);
	assert_int_equal(peer->starts, 3);
	assert_int_equal(invalidate(peer, IOVA, UINT64_MAX), ACCEPTED);
	assert_int_equal(peer->stops, 3);
	/* Waiting, it is stopped by the front end, and forgotten. */
	assert_int_equal(get_base(peer, 0), 3);
	assert_int_equal(update(peer, IOVA, 4096, READ_WRITE), ACCEPTED);
	assert_int_equal(peer->starts, 3);
	end(&echo, &guest, kick);
}

/* Memory goes, and what the IOTLB says of it with it. */
static void memory_under_the_iotlb(void **state)
{
	const struct bf_mem_reg more = { .region = { GPA + MEMORY_SIZE, 4096, UVA + MEMORY_SIZE,
						     0 } };
	struct iovec iov[8];
	struct guest guest;
	struct echo echo;
	struct peer *peer = &echo.peer;
	int kick;

	(void)state;
	running(&echo, &guest, false, &kick);
	assert_int_equal(say(peer, BF_FE_ADD_MEM_REG, &more, sizeof(more), &guest.fd, 1), ACCEPTED);
	assert_int_equal(update(peer, IOVA + MEMORY_SIZE, 4096, READ_WRITE), ACCEPTED);
	guest_offer_in(&guest, 0, LOAD_RING, 1, IOVA + MEMORY_SIZE, 64);
	assert_int_equal(pop(&echo, iov), 1);
	bf_virtq_push(peer->vq[0], 1, 64);
	assert_int_equal(say(peer, BF_FE_REM_MEM_REG, &more, sizeof(more), NULL, 0), ACCEPTED);
	guest_offer_in(&guest, 0, LOAD_RING, 2, IOVA + MEMORY_SIZE, 64);
	assert_int_equal(pop(&echo, iov), 0);
	expect_miss(peer, IOVA + MEMORY_SIZE, 2);
	/* The same memory, mapped anew: the ring is where it was. */
	assert_int_equal(say_memory(peer, guest.fd, MEMORY_SIZE), ACCEPTED);
	assert_int_equal(peer->starts, 1);
	assert_int_equal(peer->stops, 0);
	/* All of it gone, and back. */
	assert_int_equal(say(peer, BF_FE_REM_MEM_REG,
			     &(struct bf_mem_reg){ .region = { GPA, MEMORY_SIZE, UVA, 0 } }, 40,
			     NULL, 0),
			 ACCEPTED);
	assert_int_equal(update(peer, IOVA, 4096, READ_WRITE), REFUSED);
	assert_int_equal(say_memory(peer, guest.fd, MEMORY_SIZE), ACCEPTED);
	assert_int_equal(peer->starts, 1);
	assert_int_equal(update(peer, IOVA, 4096, READ_WRITE), ACCEPTED);
	assert_int_equal(peer->starts, 2);
	end(&echo, &guest, kick);
}

/* Two queues miss the same page: one question, and both go on. */
static void one_question_for_two_queues(void **state)
{
	struct guest guest;
	struct echo echo;
	struct peer *peer = &echo.peer;
	int kicks[2];

	(void)state;
	begin(&echo, &guest, false);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(say_state(peer, BF_FE_SET_VRING_NUM, i, 8), ACCEPTED);
		/* Both rings in one page. */
		assert_int_equal(
			say_addr(peer, (struct bf_vring_addr){ .index = i,
							       .desc = IOVA,
							       .avail = IOVA + 1024 + 512 * i,
							       .used = IOVA + 2048 + 512 * i }),
			ACCEPTED);
		assert_int_equal(say_state(peer, BF_FE_SET_VRING_ENABLE, i, 1), ACCEPTED);
		assert_int_equal(say_eventfd(peer, BF_FE_SET_VRING_KICK, i, &kicks[i]), ACCEPTED);
	}
	expect_miss(peer, IOVA, READ_ONLY);
	expect_nothing(peer);
	assert_int_equal(update(peer, IOVA, 4096, READ_WRITE), ACCEPTED);
	assert_int_equal(peer->starts, 2);
	close(kicks[1]);
	end(&echo, &guest, kicks[0]);
}

/* The ring itself is taken back, from under a thread that is at work in it. */
static void the_ring_under_load(void **state)
{
	struct guest guest;
	struct echo echo;
	struct load load;
	struct peer *peer = &echo.peer;
	int kick;

	(void)state;
	running(&echo, &guest, true, &kick);
	assert_int_equal(update(peer, IOVA + LOAD_DATA, LOAD_SLOTS * 8192, READ_WRITE), ACCEPTED);
	load_start(&load, &guest, kick);
	for (unsigned i = 1; i <= 100; i++) {
		load_progress(&load, 20);
		assert_int_equal(invalidate(peer, IOVA, 4096), ACCEPTED);
		assert_int_equal(peer->stops, i);
		expect_miss(peer, IOVA, READ_ONLY);
		assert_int_equal(update(peer, IOVA, 4096, READ_WRITE), ACCEPTED);
		acknowledge(peer, 0);
		assert_int_equal(peer->starts, i + 1);
	}
	load_finish(&load);
	end(&echo, &guest, kick);
}

/* The front end takes pages back and gives them again, while requests use them all the time. */
static void under_load(void **state)
{
	struct leaks before = leaks_now();
	struct guest guest;
	struct echo echo;
	struct load load;
	struct peer *peer = &echo.peer;
	unsigned misses = 0;
	uint64_t until;
	int kick;

	(void)state;
	running(&echo, &guest, true, &kick);
	load_start(&load, &guest, kick);
	until = load_now() + 1000;
	for (unsigned i = 0; load_now() < until; i++) {
		struct bf_iotlb miss;

		while (!next_miss(peer, &miss)) {
			misses++;
			assert_int_equal(update(peer, miss.iova & ~4095ull, 4096, READ_WRITE),
					 ACCEPTED);
			acknowledge(peer, 0);
		}
		if (i % 8 == 7)
			assert_int_equal(invalidate(peer,
						    IOVA + LOAD_DATA + 8192 * (i / 8 % LOAD_SLOTS),
						    8192),
					 ACCEPTED);
		sched_yield();
	}
	atomic_store(&load.stop, true);
	/* All that is out comes back. */
	for (unsigned i = 0; i < 200; i++) {
		struct bf_iotlb miss;

		while (!next_miss(peer, &miss)) {
			assert_int_equal(update(peer, miss.iova & ~4095ull, 4096, READ_WRITE),
					 ACCEPTED);
			acknowledge(peer, 0);
		}
		echo_sleep(1);
	}
	load_finish(&load);
	assert_true(misses > 50);
	assert_true(atomic_load(&load.done) > 200);
	assert_int_equal(peer->starts + peer->stops, 1);
	end(&echo, &guest, kick);
	assert_no_leaks(before, "IOTLB under load");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_ring_waits_for_its_translations),
		cmocka_unit_test(a_ring_that_the_front_end_does_not_have),
		cmocka_unit_test(a_buffer_is_asked_for_and_kicked_for),
		cmocka_unit_test(a_buffer_that_is_refused_breaks_its_queue),
		cmocka_unit_test(updates_that_may_not_be),
		cmocka_unit_test(an_invalidation_waits_for_requests),
		cmocka_unit_test(a_ring_that_is_taken_back),
		cmocka_unit_test(memory_under_the_iotlb),
		cmocka_unit_test(one_question_for_two_queues),
		cmocka_unit_test(the_ring_under_load),
		cmocka_unit_test(under_load),
	};

	return cmocka_run_group_tests_name("iotlb", tests, NULL, NULL);
}
