/* SPDX-License-Identifier: BSD-3-Clause */
/* Guest memory and eventfds change under a running queue thread, which notices nothing. */
#include "load.h"

#define MORE_GPA (GPA + MEMORY_SIZE)
#define MORE_UVA (UVA + MEMORY_SIZE)

static const struct bf_mem_reg more = { .region = { MORE_GPA, 4096, MORE_UVA, 0 } };

static void begin(struct echo *echo, struct guest *guest, bool threaded, int *kick)
{
	echo_init(echo, threaded, LOAD_FEATURES, 0);
	guest_init(guest);
	assert_int_equal(say_memory(&echo->peer, guest->fd, MEMORY_SIZE), ACCEPTED);
	assert_int_equal(echo_ring(echo, 0, LOAD_RING, UVA, kick), ACCEPTED);
	assert_true(echo->peer.running[0]);
}

static void end(struct echo *echo, struct guest *guest, int kick)
{
	peer_done(&echo->peer);
	guest_done(guest);
	close(kick);
}

static int add(struct echo *echo, int fd)
{
	return say(&echo->peer, BF_FE_ADD_MEM_REG, &more, sizeof(more), &fd, 1);
}

static int take_away(struct echo *echo)
{
	return say(&echo->peer, BF_FE_REM_MEM_REG, &more, sizeof(more), NULL, 0);
}

static void no_request_is_lost(void **state)
{
	struct leaks before = leaks_now(), running;
	int kick, page = make_memfd("bf-guest", 4096, 0);
	struct guest guest;
	struct echo echo;
	struct load load;

	(void)state;
	begin(&echo, &guest, true, &kick);
	load_start(&load, &guest, kick);
	running = leaks_now();
	for (unsigned i = 0; i < 200; i++) {
		load_progress(&load, 20);
		assert_int_equal(say_memory(&echo.peer, guest.fd, MEMORY_SIZE), ACCEPTED);
		assert_int_equal(add(&echo, page), ACCEPTED);
		assert_int_equal(take_away(&echo), ACCEPTED);
	}
	assert_no_leaks(running, "600 changes of memory");
	load_finish(&load);
	assert_true(atomic_load(&load.done) > 1000);
	assert_int_equal(echo.peer.starts, 1);
	assert_int_equal(echo.peer.stops, 0);
	end(&echo, &guest, kick);
	close(page);
	assert_no_leaks(before, "load under changes of memory");
}

/* A request that was popped before uses memory that the front end takes away: that is not answered yet. */
static void memory_goes_when_its_requests_are_back(void **state)
{
	int kick, page = make_memfd("bf-guest", 4096, 0);
	struct guest guest;
	struct echo echo;
	uint64_t began;
	uint8_t *mine;

	(void)state;
	mine = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, page, 0);
	begin(&echo, &guest, true, &kick);
	assert_int_equal(add(&echo, page), ACCEPTED);
	atomic_store(&echo.hold_ms, 150);
	guest_offer_in(&guest, 0, LOAD_RING, 3, MORE_GPA, 4096);
	eventfd_write(kick, 1);
	while (!atomic_load(&echo.held))
		echo_sleep(1);
	began = load_now();
	/* What only comes does not wait. */
	assert_int_equal(
		say(&echo.peer, BF_FE_ADD_MEM_REG,
		    &(struct bf_mem_reg){ .region = { MORE_GPA + 4096, 4096, MORE_UVA + 4096, 0 } },
		    sizeof(more), &page, 1),
		ACCEPTED);
	assert_true(load_now() < began + 100);
	assert_int_equal(take_away(&echo), ACCEPTED);
	assert_int_equal(atomic_load(&echo.held), 0);
	assert_int_equal(mine[0], 0x5a);
	assert_int_equal(mine[4095], 0x5a);
	assert_int_equal(guest_used(&guest, 0)[1], 1);
	assert_int_equal(echo.peer.stops, 0);
	end(&echo, &guest, kick);
	munmap(mine, 4096);
	close(page);
}

/* A device that keeps its requests is stopped, which makes it finish, and started again. */
static void a_queue_that_does_not_drain_is_stopped(void **state)
{
	int kick;
	struct guest guest;
	struct echo echo;
	uint64_t began;

	(void)state;
	begin(&echo, &guest, true, &kick);
	atomic_store(&echo.keep, true);
	guest_offer_in(&guest, 0, LOAD_RING, 3, GPA + LOAD_DATA, 4096);
	eventfd_write(kick, 1);
	while (!atomic_load(&echo.held))
		echo_sleep(1);
	began = load_now();
	assert_int_equal(say_memory(&echo.peer, guest.fd, MEMORY_SIZE), ACCEPTED);
	assert_true(load_now() >= began + BF_DRAIN_MS - 50);
	assert_true(load_now() < began + BF_DRAIN_MS + 3000);
	assert_int_equal(echo.peer.stops, 1);
	assert_int_equal(echo.peer.starts, 2);
	assert_int_equal(guest_used(&guest, 0)[1], 1);
	atomic_store(&echo.keep, false);
	/* It goes on where it was. */
	guest_offer_in(&guest, 0, LOAD_RING, 5, GPA + LOAD_DATA, 4096);
	eventfd_write(kick, 1);
	for (unsigned i = 0;
	     i < 1000 && __atomic_load_n(&guest_used(&guest, 0)[1], __ATOMIC_ACQUIRE) != 2; i++)
		echo_sleep(1);
	assert_int_equal(guest_used(&guest, 0)[1], 2);
	end(&echo, &guest, kick);
}

/* The new map is the one that counts, at once: the ring lies in another file, and so do the buffers. */
static void the_ring_moves(void **state)
{
	struct bf_chain chain;
	struct iovec iov[8];
	struct guest first, second;
	struct echo echo;
	int kick;

	(void)state;
	begin(&echo, &first, false, &kick);
	guest_init(&second);
	/* The same ring so far: three requests taken and given back. */
	for (unsigned i = 0; i < 3; i++) {
		guest_offer_in(&first, 0, LOAD_RING, (uint16_t)i, GPA + LOAD_DATA, 64);
		chain = (struct bf_chain){ .iov = iov, .nr_iov = 8 };
		assert_int_equal(bf_virtq_pop(echo.peer.vq[0], &chain), 1);
		bf_virtq_push(echo.peer.vq[0], chain.head, 64);
		bf_virtq_notify(echo.peer.vq[0]);
	}
	memcpy(second.mem, first.mem, MEMORY_SIZE);
	memset(first.mem, 0xff, MEMORY_SIZE);
	assert_int_equal(say_memory(&echo.peer, second.fd, MEMORY_SIZE), ACCEPTED);
	guest_offer_in(&second, 0, LOAD_RING, 7, GPA + LOAD_DATA, 64);
	chain = (struct bf_chain){ .iov = iov, .nr_iov = 8 };
	assert_int_equal(bf_virtq_pop(echo.peer.vq[0], &chain), 1);
	assert_int_equal(chain.head, 7);
	memset(iov[0].iov_base, 0x77, 64);
	bf_virtq_push(echo.peer.vq[0], chain.head, 64);
	bf_virtq_notify(echo.peer.vq[0]);
	assert_int_equal(second.mem[LOAD_DATA], 0x77);
	assert_int_equal(guest_used(&second, 0)[1], 4);
	assert_int_equal(echo.peer.starts, 1);
	guest_done(&second);
	end(&echo, &first, kick);
}

static void five_hundred_and_twelve_regions(void **state)
{
	int kick, page = make_memfd("bf-guest", 4096, 0);
	struct leaks before;
	struct guest guest;
	struct echo echo;
	struct load load;
	struct bf_mem_reg reg;

	(void)state;
	begin(&echo, &guest, true, &kick);
	before = leaks_now();
	load_start(&load, &guest, kick);
	for (unsigned i = 1; i < BF_MAX_REGIONS; i++) {
		reg = (struct bf_mem_reg){ .region = { MORE_GPA + i * 8192ull, 4096,
						       MORE_UVA + i * 8192ull, 0 } };
		assert_int_equal(say(&echo.peer, BF_FE_ADD_MEM_REG, &reg, sizeof(reg), &page, 1),
				 ACCEPTED);
	}
	assert_int_equal(bf_memory_nr_regions(bf_backend_memory(echo.peer.be)), BF_MAX_REGIONS);
	assert_int_equal(add(&echo, page), REFUSED);
	for (unsigned i = 1; i < BF_MAX_REGIONS; i++) {
		reg = (struct bf_mem_reg){ .region = { MORE_GPA + i * 8192ull, 4096,
						       MORE_UVA + i * 8192ull, 0 } };
		assert_int_equal(say(&echo.peer, BF_FE_REM_MEM_REG, &reg, sizeof(reg), NULL, 0),
				 ACCEPTED);
	}
	load_finish(&load);
	assert_int_equal(echo.peer.starts + echo.peer.stops, 1);
	assert_no_leaks(before, "512 regions");
	end(&echo, &guest, kick);
	close(page);
}

/* Call and error eventfds by holding; the former is closed, the new one is told once. */
static void eventfds_under_load(void **state)
{
	struct leaks before;
	struct guest guest;
	struct echo echo;
	struct load load;
	int kick, call;

	(void)state;
	begin(&echo, &guest, true, &kick);
	assert_int_equal(say_eventfd(&echo.peer, BF_FE_SET_VRING_CALL, 0, NULL), ACCEPTED);
	assert_int_equal(say_eventfd(&echo.peer, BF_FE_SET_VRING_ERR, 0, NULL), ACCEPTED);
	before = leaks_now();
	load_start(&load, &guest, kick);
	for (unsigned i = 0; i < 100; i++) {
		assert_int_equal(say_eventfd(&echo.peer, BF_FE_SET_VRING_CALL, 0, &call), ACCEPTED);
		assert_int_equal(say_eventfd(&echo.peer, BF_FE_SET_VRING_ERR, 0, NULL), ACCEPTED);
		assert_true(signals(call) > 0);
		load_progress(&load, 2 * LOAD_SLOTS);
		assert_true(signals(call) > 0);
		close(call);
	}
	/* None at all: the driver polls. */
	assert_int_equal(say_u64(&echo.peer, BF_FE_SET_VRING_CALL, BF_VRING_NOFD), ACCEPTED);
	load_progress(&load, 50);
	assert_int_equal(say_eventfd(&echo.peer, BF_FE_SET_VRING_CALL, 0, NULL), ACCEPTED);
	assert_int_equal(echo.peer.starts + echo.peer.stops, 1);
	load_finish(&load);
	assert_no_leaks(before, "eventfds");
	end(&echo, &guest, kick);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_request_is_lost),
		cmocka_unit_test(memory_goes_when_its_requests_are_back),
		cmocka_unit_test(a_queue_that_does_not_drain_is_stopped),
		cmocka_unit_test(the_ring_moves),
		cmocka_unit_test(five_hundred_and_twelve_regions),
		cmocka_unit_test(eventfds_under_load),
	};

	return cmocka_run_group_tests_name("swap", tests, NULL, NULL);
}
