/* SPDX-License-Identifier: BSD-3-Clause */
/* The dirty log: on and off under a running queue, and exactly the pages that were written. */
#include "load.h"

#include "../../../lib/mem/log.h"

#define LOG_SIZE  (((GPA + MEMORY_SIZE) / 4096 + 7) / 8)
#define USED_PAGE 0x55ull /* where the front end has the used ring logged, outside of memory */

struct log {
	int fd;
	uint8_t *bits;
};

static void log_init(struct log *log)
{
	log->fd = make_memfd("bf-log", LOG_SIZE, 0);
	log->bits = mmap(NULL, LOG_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, log->fd, 0);
	assert_ptr_not_equal(log->bits, MAP_FAILED);
}

static void log_done(struct log *log)
{
	munmap(log->bits, LOG_SIZE);
	close(log->fd);
}

static bool marked(const struct log *log, uint64_t page)
{
	return __atomic_load_n(&log->bits[page / 8], __ATOMIC_ACQUIRE) >> (page % 8) & 1;
}

static unsigned count(const struct log *log)
{
	unsigned nr = 0;

	for (uint64_t i = 0; i < LOG_SIZE; i++)
		nr += (unsigned)__builtin_popcount(log->bits[i]);
	return nr;
}

static int say_log(struct peer *peer, int fd, uint64_t size, uint64_t offset)
{
	const struct bf_log_area area = { size, offset };

	return say(peer, BF_FE_SET_LOG_BASE, &area, sizeof(area), &fd, 1);
}

static int say_features(struct peer *peer, bool log)
{
	return say_u64(peer, BF_FE_SET_FEATURES, LOAD_FEATURES | ACK_BIT | (log ? LOG_BIT : 0));
}

/* The address of queue 0 again, to have its used ring logged or not. */
static int say_used_logged(struct peer *peer, bool log)
{
	return say_addr(peer, (struct bf_vring_addr){ .desc = UVA,
						      .avail = UVA + 1024,
						      .used = UVA + 2048,
						      .flags = log,
						      .log = USED_PAGE * 4096 + 2048 });
}

static void begin(struct echo *echo, struct guest *guest, bool threaded, int *kick)
{
	echo_init(echo, threaded, LOAD_FEATURES, 0);
	guest_init(guest);
	assert_int_equal(say_memory(&echo->peer, guest->fd, MEMORY_SIZE), ACCEPTED);
	assert_int_equal(echo_ring(echo, 0, LOAD_RING, UVA, kick), ACCEPTED);
}

static void end(struct echo *echo, struct guest *guest, int kick)
{
	peer_done(&echo->peer);
	guest_done(guest);
	close(kick);
}

static uint16_t pop(struct echo *echo)
{
	struct iovec iov[8];
	struct bf_chain chain = { .iov = iov, .nr_iov = 8 };

	assert_int_equal(bf_virtq_pop(echo->peer.vq[0], &chain), 1);
	return chain.head;
}

static void push(struct echo *echo, uint16_t head, uint32_t len)
{
	bf_virtq_push(echo->peer.vq[0], head, len);
	bf_virtq_notify(echo->peer.vq[0]);
}

/* One request of @len bytes to write at @offset into memory, served at once. */
static void one(struct echo *echo, struct guest *guest, uint64_t offset, uint32_t len)
{
	guest_offer_in(guest, 0, LOAD_RING, 1, GPA + offset, len);
	push(echo, pop(echo), len);
}

static void exactly_what_was_written(void **state)
{
	struct leaks before = leaks_now(), logging;
	struct guest guest;
	struct echo echo;
	struct log log;
	int kick, event;

	(void)state;
	log_init(&log);
	begin(&echo, &guest, false, &kick);
	logging = leaks_now();
	assert_int_equal(say_log(&echo.peer, log.fd, LOG_SIZE, 0), ACCEPTED);
	assert_int_equal(count_mappings("bf-log"), 2);
	one(&echo, &guest, 0x20000, 64);
	assert_int_equal(count(&log), 0);

	/* On, without the used ring. */
	assert_int_equal(say_features(&echo.peer, true), ACCEPTED);
	assert_int_equal(bf_backend_features(echo.peer.be), LOAD_FEATURES);
	one(&echo, &guest, 0x20ffe, 4);
	assert_int_equal(count(&log), 2);
	assert_true(marked(&log, (GPA + 0x20000) / 4096));
	assert_true(marked(&log, (GPA + 0x21000) / 4096));
	/* With it. */
	memset(log.bits, 0, LOG_SIZE);
	assert_int_equal(say_used_logged(&echo.peer, true), ACCEPTED);
	one(&echo, &guest, 0x30000, 8192);
	assert_int_equal(count(&log), 3);
	assert_true(marked(&log, USED_PAGE));
	assert_true(marked(&log, (GPA + 0x30000) / 4096));
	assert_true(marked(&log, (GPA + 0x31000) / 4096));
	/* A request that only reads dirties the used ring. */
	memset(log.bits, 0, LOG_SIZE);
	guest_desc(&guest, 0, 1, GPA + 0x40000, 64, 0, 0);
	guest_offer(&guest, 0, LOAD_RING, 1);
	push(&echo, pop(&echo), 0);
	assert_int_equal(count(&log), 1);
	assert_int_equal(say_used_logged(&echo.peer, false), ACCEPTED);
	memset(log.bits, 0, LOG_SIZE);
	one(&echo, &guest, 0x20000, 1);
	assert_int_equal(count(&log), 1);

	/* The eventfd hears of it; an exchange of it as well. */
	assert_int_equal(say_eventfd(&echo.peer, BF_FE_SET_LOG_FD, 0, NULL), CLOSED);
	peer_done(&echo.peer);
	guest_done(&guest);
	close(kick);

	begin(&echo, &guest, false, &kick);
	assert_int_equal(say_log(&echo.peer, log.fd, LOG_SIZE, 0), ACCEPTED);
	assert_int_equal(say_features(&echo.peer, true), ACCEPTED);
	event = eventfd(0, EFD_CLOEXEC);
	assert_int_equal(say(&echo.peer, BF_FE_SET_LOG_FD, NULL, 0, &event, 1), ACCEPTED);
	one(&echo, &guest, 0x20000, 1);
	assert_int_equal(signals(event), 1);
	/* Off: neither. */
	assert_int_equal(say_features(&echo.peer, false), ACCEPTED);
	memset(log.bits, 0, LOG_SIZE);
	one(&echo, &guest, 0x20000, 1);
	assert_int_equal(count(&log), 0);
	assert_int_equal(signals(event), 0);
	/* Any number of times costs nothing. */
	for (unsigned i = 0; i < 1000; i++) {
		assert_int_equal(say_log(&echo.peer, log.fd, LOG_SIZE, 0), ACCEPTED);
		assert_int_equal(say(&echo.peer, BF_FE_SET_LOG_FD, NULL, 0, &event, 1), ACCEPTED);
		assert_int_equal(say_features(&echo.peer, i % 2), ACCEPTED);
	}
	assert_int_equal(count_mappings("bf-log"), 2);
	assert_int_equal(leaks_now().fds, logging.fds + 2);
	assert_int_equal(echo.peer.starts + echo.peer.stops, 1);
	close(event);
	end(&echo, &guest, kick);
	assert_int_equal(count_mappings("bf-log"), 1);
	log_done(&log);
	assert_no_leaks(before, "dirty log");
}

/* The front end goes on to a larger log; what is in flight is marked there. */
static void another_log_with_requests_in_flight(void **state)
{
	struct guest guest;
	struct log log, larger;
	struct echo echo;
	uint16_t head;
	int kick;

	(void)state;
	log_init(&log);
	log_init(&larger);
	begin(&echo, &guest, false, &kick);
	assert_int_equal(say_log(&echo.peer, log.fd, LOG_SIZE, 0), ACCEPTED);
	assert_int_equal(say_features(&echo.peer, true), ACCEPTED);
	guest_offer_in(&guest, 0, LOAD_RING, 1, GPA + 0x20000, 64);
	head = pop(&echo);
	assert_int_equal(say_log(&echo.peer, larger.fd, LOG_SIZE, 0), ACCEPTED);
	/* Memory comes, which finds the ring anew. */
	assert_int_equal(say(&echo.peer, BF_FE_ADD_MEM_REG,
			     &(struct bf_mem_reg){
				     .region = { GPA + MEMORY_SIZE, 4096, UVA + MEMORY_SIZE, 0 } },
			     40, &guest.fd, 1),
			 ACCEPTED);
	assert_int_equal(say_used_logged(&echo.peer, true), ACCEPTED);
	assert_int_equal(echo.peer.stops, 0);
	assert_int_equal(count(&log) + count(&larger), 0);
	push(&echo, head, 64);
	assert_int_equal(count(&log), 0);
	assert_int_equal(count(&larger), 2);
	assert_true(marked(&larger, (GPA + 0x20000) / 4096));
	assert_true(marked(&larger, USED_PAGE));
	end(&echo, &guest, kick);
	log_done(&log);
	log_done(&larger);
}

/* Once it was answered that the log is on, nothing is written that is not marked. */
static void on_means_on(void **state)
{
	struct guest guest;
	struct echo echo;
	struct log log;
	uint64_t began;
	int kick;

	(void)state;
	log_init(&log);
	begin(&echo, &guest, true, &kick);
	assert_int_equal(say_log(&echo.peer, log.fd, LOG_SIZE, 0), ACCEPTED);
	atomic_store(&echo.hold_ms, 150);
	guest_offer_in(&guest, 0, LOAD_RING, 1, GPA + 0x20000, 64);
	eventfd_write(kick, 1);
	while (!atomic_load(&echo.held))
		echo_sleep(1);
	began = load_now();
	assert_int_equal(say_features(&echo.peer, true), ACCEPTED);
	assert_int_equal(atomic_load(&echo.held), 0);
	assert_true(load_now() >= began + 50);
	assert_int_equal(guest.mem[0x20000], 0x5a);
	assert_int_equal(echo.peer.stops, 0);
	end(&echo, &guest, kick);
	log_done(&log);
}

/* On and off under load; every page that is written while it is on has its bit. */
static void under_load(void **state)
{
	struct guest guest;
	struct echo echo;
	struct load load;
	struct log log;
	int kick;

	(void)state;
	log_init(&log);
	begin(&echo, &guest, true, &kick);
	assert_int_equal(say_log(&echo.peer, log.fd, LOG_SIZE, 0), ACCEPTED);
	load_start(&load, &guest, kick);
	for (unsigned i = 0; i < 100; i++) {
		assert_int_equal(say_features(&echo.peer, true), ACCEPTED);
		assert_int_equal(say_used_logged(&echo.peer, true), ACCEPTED);
		/* All slots, each at least once; those in flight may be from before. */
		load_progress(&load, 3 * LOAD_SLOTS);
		for (unsigned slot = 0; slot < LOAD_SLOTS; slot++)
			assert_true(marked(&log, (GPA + LOAD_DATA + 8192 * slot) / 4096 + 1));
		assert_true(marked(&log, USED_PAGE));
		assert_int_equal(say_used_logged(&echo.peer, false), ACCEPTED);
		assert_int_equal(say_features(&echo.peer, false), ACCEPTED);
		assert_int_equal(count(&log), LOAD_SLOTS + 1);
		memset(log.bits, 0, LOG_SIZE);
		load_progress(&load, LOAD_SLOTS);
		assert_int_equal(count(&log), 0);
	}
	load_finish(&load);
	assert_int_equal(echo.peer.starts + echo.peer.stops, 1);
	end(&echo, &guest, kick);
	log_done(&log);
}

/* A log for a device that no log was made for, too short, beyond its file; and memory that grows. */
static void sizes(void **state)
{
	const struct bf_mem_reg more = { .region = { GPA + (1ull << 30), 4096, UVA + (1ull << 30),
						     0 } };
	struct guest guest;
	struct log log;
	struct echo echo;
	int kick;

	(void)state;
	log_init(&log);
	begin(&echo, &guest, false, &kick);
	assert_int_equal(say_log(&echo.peer, log.fd, LOG_SIZE - 1, 0), REFUSED);
	assert_int_equal(say_log(&echo.peer, log.fd, LOG_SIZE, 4096), REFUSED);
	assert_int_equal(say_log(&echo.peer, log.fd, UINT64_MAX, UINT64_MAX), REFUSED);
	assert_int_equal(count_mappings("bf-log"), 1);
	assert_int_equal(say_log(&echo.peer, log.fd, LOG_SIZE, 0), ACCEPTED);
	assert_int_equal(say_features(&echo.peer, true), ACCEPTED);
	/* More memory than the log has bits for: the front end brings a longer one, soon. */
	assert_int_equal(say(&echo.peer, BF_FE_ADD_MEM_REG, &more, sizeof(more), &guest.fd, 1),
			 ACCEPTED);
	one(&echo, &guest, 1ull << 30, 64);
	assert_int_equal(count(&log), 0);
	assert_int_equal(say_log(&echo.peer, log.fd, LOG_SIZE, 0), REFUSED);
	end(&echo, &guest, kick);
	log_done(&log);
}

/* It ends with the connection: the next one is not logged because of this one. */
static void not_for_the_next_connection(void **state)
{
	struct guest guest;
	struct log log;
	struct echo echo;
	struct peer *peer = &echo.peer;
	int kick;

	(void)state;
	log_init(&log);
	begin(&echo, &guest, false, &kick);
	assert_int_equal(say_log(peer, log.fd, LOG_SIZE, 0), ACCEPTED);
	assert_int_equal(say_features(peer, true), ACCEPTED);
	close(peer->fd);
	bf_backend_dispatch(peer->be);
	assert_int_equal(count_mappings("bf-log"), 1);
	close(kick);
	for (unsigned with_base = 0; with_base < 2; with_base++) {
		peer_connect(peer);
		say_u64(peer, BF_FE_SET_PROTOCOL_FEATURES,
			get_u64(peer, BF_FE_GET_PROTOCOL_FEATURES));
		assert_int_equal(say_features(peer, !with_base), ACCEPTED);
		if (with_base)
			assert_int_equal(say_log(peer, log.fd, LOG_SIZE, 0), ACCEPTED);
		assert_int_equal(say_memory(peer, guest.fd, MEMORY_SIZE), ACCEPTED);
		memset(guest.mem, 0, 4096);
		assert_int_equal(echo_ring(&echo, 0, LOAD_RING, UVA, &kick), ACCEPTED);
		one(&echo, &guest, 0x20000, 64);
		assert_int_equal(count(&log), 0);
		close(peer->fd);
		bf_backend_dispatch(peer->be);
		close(kick);
	}
	peer->fd = -1;
	peer_done(peer);
	guest_done(&guest);
	log_done(&log);
}

/* Without LOG_SHMFD there is nothing to map; with it the reply comes whether it was asked for or not. */
static void the_reply_of_set_log_base(void **state)
{
	const struct bf_log_area area = { LOG_SIZE, 0 };
	struct guest guest;
	struct log log;
	struct echo echo;
	uint64_t value = 7;
	int kick;

	(void)state;
	log_init(&log);
	begin(&echo, &guest, false, &kick);
	send_message(echo.peer.fd, BF_FE_SET_LOG_BASE, BF_FLAGS_VERSION, &area, sizeof(area),
		     &log.fd, 1);
	assert_int_equal(bf_backend_dispatch(echo.peer.be), 0);
	assert_int_equal(read_reply(echo.peer.fd, BF_FE_SET_LOG_BASE, &value, 8), 8);
	assert_int_equal(value, 0);
	end(&echo, &guest, kick);

	echo_init(&echo, false, LOAD_FEATURES,
		  bf_bit(BF_PROTOCOL_F_REPLY_ACK) | bf_bit(BF_PROTOCOL_F_BACKEND_REQ));
	assert_int_equal(say_u64(&echo.peer, BF_FE_SET_LOG_BASE, 0x1000), REFUSED);
	peer_done(&echo.peer);
	log_done(&log);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(exactly_what_was_written),
		cmocka_unit_test(another_log_with_requests_in_flight),
		cmocka_unit_test(on_means_on),
		cmocka_unit_test(under_load),
		cmocka_unit_test(sizes),
		cmocka_unit_test(not_for_the_next_connection),
		cmocka_unit_test(the_reply_of_set_log_base),
	};

	return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
