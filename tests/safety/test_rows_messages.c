/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What front ends did to other back ends, once each: the name of a test is the row of docs/safety.md.
 * After each of them nothing is left, and as long as the connection lives its queues run.
 */
#include "../unit/support.h"

#include "lib/mem/log.h"
#include "states.h"

static struct conn_left before;

static void begin(struct conn *conn, const char *state)
{
	before = conn_left();
	assert_true(state_open(state_named(state), conn));
}

static void end(struct conn *conn)
{
	struct conn_left left;

	conn_close(conn, true);
	left = conn_left();
	assert_int_equal(left.fds, before.fds);
	assert_int_equal(left.mappings, before.mappings);
}

/* Say it, ask for an answer: true, it was accepted. */
static bool accepted(struct conn *conn, uint32_t request, const void *payload, uint32_t size,
		     const int *fds, unsigned nr_fds)
{
	uint64_t replies = conn->replies;

	conn_say(conn, request, BF_FLAGS_VERSION | BF_FLAGS_NEED_REPLY, payload, size, fds, nr_fds);
	conn_pump(conn);
	return !conn->ended && conn->replies == replies + 1 && !conn->last_reply;
}

/* The device still gets requests out of its rings. */
static void still_runs(struct conn *conn)
{
	uint16_t *avail = (uint16_t *)(void *)(conn_memory + 1024);
	uint64_t popped = conn->popped;

	assert_false(conn->ended);
	assert_non_null(conn->vq[0]);
	/* Two more entries of the same descriptors. */
	for (uint16_t i = 0; i < 2; i++) {
		avail[2 + avail[1] % RING_SIZE] = (uint16_t)(2 * i);
		avail[1]++;
	}
	conn_turn(conn);
	assert_int_equal(conn->popped, popped + 2);
}

static void cve_2020_10722_log_size_and_offset_that_wrap(void **data)
{
	static const struct bf_log_area areas[] = {
		{ UINT64_MAX - 7, 16 },
		{ 16, UINT64_MAX - 7 },
		{ 1ull << 63, 1ull << 63 },
		{ MEMORY_SIZE, 1 },
		{ 0, 0 },
		{ 8, 0 /* shorter than memory */ },
		{ UINT64_MAX, UINT64_MAX },
	};
	struct conn_left with_log;
	struct conn conn;

	(void)data;
	begin(&conn, "logging");
	with_log = conn_left();
	for (unsigned i = 0; i < sizeof(areas) / sizeof(areas[0]); i++) {
		if (accepted(&conn, BF_FE_SET_LOG_BASE, &areas[i], sizeof(areas[i]),
			     &conn_fds.memory, 1))
			fail_msg("log of %llu bytes at %llu was accepted",
				 (unsigned long long)areas[i].size,
				 (unsigned long long)areas[i].offset);
		assert_int_equal(conn_left().mappings, with_log.mappings);
		still_runs(&conn);
	}
	end(&conn);
}

/* The log is at the end of its file, and shorter than the memory that comes later. */
static void cve_2019_14835_log_shorter_than_what_is_written(void **data)
{
	const uint64_t far = 1ull << 40;
	const struct bf_mem_reg reg = { .region = { far, 65536, UVA + far, 65536 } };
	struct conn conn;

	(void)data;
	begin(&conn, "logging");
	if (!accepted(&conn, BF_FE_ADD_MEM_REG, &reg, sizeof(reg), &conn_fds.memory, 1))
		fail_msg("refused: %s", bf_backend_error(conn.be));
	/* The second descriptor of the first request is written. */
	*(uint64_t *)(void *)(conn_memory + 16) = far;
	still_runs(&conn);
	end(&conn);
}

static void yc_d20795a_log_that_is_replaced_again_and_again(void **data)
{
	const uint64_t size = (GPA + MEMORY_SIZE) / BF_LOG_PAGE / 8;
	const struct bf_log_area area = { size, 65536 };
	struct conn_left with_log;
	struct conn conn;

	(void)data;
	begin(&conn, "logging");
	with_log = conn_left();
	for (unsigned i = 0; i < 100; i++) {
		assert_true(accepted(&conn, BF_FE_SET_LOG_BASE, &area, sizeof(area),
				     &conn_fds.memory, 1));
		assert_true(accepted(&conn, BF_FE_SET_LOG_FD, NULL, 0, &conn_fds.event, 1));
	}
	assert_int_equal(conn_left().mappings, with_log.mappings);
	assert_int_equal(conn_left().fds, with_log.fds);
	still_runs(&conn);
	end(&conn);
}

static void cve_2020_10726_get_inflight_fd_again_and_again(void **data)
{
	const struct bf_inflight ask = { .nr_queues = QUEUES, .queue_size = RING_SIZE };
	const struct bf_inflight set = { .mmap_size = 16384,
					 .mmap_offset = 131072,
					 .nr_queues = QUEUES,
					 .queue_size = RING_SIZE };
	struct conn_left after_one;
	struct conn conn;

	(void)data;
	begin(&conn, "memory");
	for (unsigned i = 0; i < 1000; i++) {
		conn_say(&conn, BF_FE_GET_INFLIGHT_FD, BF_FLAGS_VERSION, &ask, sizeof(ask), NULL,
			 0);
		conn_pump(&conn);
		assert_true(conn.last_reply); /* mmap_size */
		assert_true(accepted(&conn, BF_FE_SET_INFLIGHT_FD, &set, sizeof(set),
				     &conn_fds.memory, 1));
		if (!i)
			after_one = conn_left();
	}
	assert_int_equal(conn_left().fds, after_one.fds);
	assert_int_equal(conn_left().mappings, after_one.mappings);
	end(&conn);
}

static void cve_2021_3839_inflight_region_of_too_many_queues(void **data)
{
	static const struct bf_inflight sets[] = {
		{ 16384, 131072, 5, 8, { 0 } },           { 16384, 131072, 65535, 65535, { 0 } },
		{ 16384, 131072, 0, 8, { 0 } },           { 16384, 131072, 4, 0, { 0 } },
		{ 16384, 131072, 4, 2048, { 0 } },        { 64, 131072, 4, 8, { 0 } },
		{ UINT64_MAX, 0, 4, 8, { 0 } },           { 16384, MEMORY_SIZE, 4, 8, { 0 } },
		{ UINT64_MAX - 4095, 4096, 4, 8, { 0 } }, { 16384, UINT64_MAX - 4095, 4, 8, { 0 } },
		{ 16384, MEMORY_SIZE - 64, 4, 8, { 0 } }, { 0, 0, 4, 8, { 0 } },
	};
	struct conn conn;

	(void)data;
	for (unsigned i = 0; i < sizeof(sets) / sizeof(sets[0]); i++) {
		begin(&conn, "rings set up");
		if (accepted(&conn, BF_FE_SET_INFLIGHT_FD, &sets[i], sizeof(sets[i]),
			     &conn_fds.memory, 1))
			fail_msg("set %u was accepted", i);
		/* What is asked for is bounded before anything of that size is made. */
		conn_say(&conn, BF_FE_GET_INFLIGHT_FD, BF_FLAGS_VERSION, &sets[i], sizeof(sets[i]),
			 NULL, 0);
		conn_pump(&conn);
		if (!conn.ended && (sets[i].nr_queues > QUEUES || sets[i].queue_size > 1024 ||
				    !sets[i].nr_queues || !sets[i].queue_size))
			assert_int_equal(conn.last_reply, 0);
		end(&conn);
	}
}

static void cve_2022_0669_descriptors_with_get_inflight_fd(void **data)
{
	const struct bf_inflight ask = { .nr_queues = QUEUES, .queue_size = RING_SIZE };
	const int fds[8] = { conn_fds.memory, conn_fds.event, conn_fds.memory, conn_fds.memory,
			     conn_fds.memory, conn_fds.event, conn_fds.memory, conn_fds.memory };
	struct conn_left ended;
	struct conn conn;

	(void)data;
	/* Bytes that end the connection without any: what is left then. */
	begin(&conn, "memory");
	assert_false(accepted(&conn, BF_FE_GET_INFLIGHT_FD, &ask, 3, NULL, 0));
	assert_true(conn.ended);
	ended = conn_left();
	end(&conn);
	for (unsigned nr = 1; nr <= 8; nr++) {
		begin(&conn, "memory");
		assert_false(accepted(&conn, BF_FE_GET_INFLIGHT_FD, &ask, sizeof(ask), fds, nr));
		assert_true(conn.ended);
		/* At once, and not only when the back end goes away. */
		assert_int_equal(conn_left().fds, ended.fds);
		end(&conn);
	}
}

/* The first region is mapped already when the second one turns out to be none. */
static void dpdk_mmap_fails_in_the_middle_of_set_mem_table(void **data)
{
	const struct bf_mem_table table = { .nr = 2,
					    .regions = { { GPA, 65536, UVA, 0 },
							 { GPA + 65536, 65536, UVA + 65536, 0 } } };
	const int fds[][2] = { { conn_fds.memory, conn_fds.pipe },
			       { conn_fds.pipe, conn_fds.memory },
			       { conn_fds.memory, conn_fds.event },
			       { conn_fds.memory, conn_fds.socket } };
	struct conn_left running;
	struct conn conn;

	(void)data;
	begin(&conn, "running");
	running = conn_left();
	for (unsigned i = 0; i < 4; i++) {
		assert_false(accepted(&conn, BF_FE_SET_MEM_TABLE, &table, 8 + 64, fds[i], 2));
		assert_int_equal(conn_left().mappings, running.mappings);
		assert_int_equal(conn_left().fds, running.fds);
		still_runs(&conn);
	}
	end(&conn);
}

static void cve_2013_2016_config_space_past_its_end(void **data)
{
	static const uint32_t ranges[][2] = { { CONFIG_SIZE, 8 },
					      { CONFIG_SIZE - 4, 8 },
					      { UINT32_MAX, 8 },
					      { UINT32_MAX - 3, 8 },
					      { 0, 256 /* lenient: QEMU asks for it */ },
					      { 1, BF_CONFIG_MAX },
					      { 0x80000000u, 8 } };
	static const uint32_t requests[] = { BF_FE_GET_CONFIG, BF_FE_SET_CONFIG };
	struct conn conn;

	(void)data;
	for (unsigned i = 0; i < 2 * sizeof(ranges) / sizeof(ranges[0]); i++) {
		const uint32_t *range = ranges[i / 2];
		static uint8_t payload[sizeof(struct bf_config)];
		struct bf_header hdr = { requests[i % 2], BF_FLAGS_VERSION | BF_FLAGS_NEED_REPLY,
					 12 + range[1] };
		static uint8_t bytes[sizeof(hdr) + sizeof(payload)];

		begin(&conn, "running, everything named");
		memcpy(bytes, &hdr, sizeof(hdr));
		memcpy(bytes + 12, range, 8);
		assert_true(conn_send(&conn, bytes, sizeof(hdr) + hdr.size, NULL, 0));
		conn_pump(&conn); /* the device aborts on a range that is not its own */
		if (requests[i % 2] == BF_FE_SET_CONFIG)
			assert_true(conn.ended || conn.last_reply);
		end(&conn);
	}
}

static void cve_2017_17381_kick_of_a_ring_that_is_not_set_up(void **data)
{
	const uint64_t queue = 1, one = 1;
	const struct bf_vring_addr addr = {
		.index = 1, .desc = UVA + 4096, .avail = UVA + 5120, .used = UVA + 6144
	};
	const struct bf_vring_state enable = { 1, 1 };
	struct conn conn;

	(void)data;
	begin(&conn, "running");
	/* All but its size; and queue 2 not even that. */
	assert_true(accepted(&conn, BF_FE_SET_VRING_ADDR, &addr, sizeof(addr), NULL, 0));
	assert_true(accepted(&conn, BF_FE_SET_VRING_KICK, &queue, 8, &conn_fds.event, 1));
	assert_true(accepted(&conn, BF_FE_SET_VRING_ENABLE, &enable, sizeof(enable), NULL, 0));
	conn_say_fd(&conn, BF_FE_SET_VRING_KICK, 2, conn_fds.event);
	assert_int_equal(write(conn_fds.event, &one, sizeof(one)), sizeof(one));
	conn_pump(&conn);
	conn_turn(&conn);
	assert_null(conn.vq[1]);
	assert_null(conn.vq[2]);
	still_runs(&conn);
	end(&conn);
}

static void rust_vmm_38c442d_nothing_of_ours_in_the_padding_of_a_reply(void **data)
{
	struct bf_inflight ask = { .nr_queues = QUEUES, .queue_size = RING_SIZE };
	const uint8_t zero[4] = { 0 };
	struct conn conn;

	(void)data;
	begin(&conn, "memory");
	memset(ask.pad, 0xee, sizeof(ask.pad));
	conn_say(&conn, BF_FE_GET_INFLIGHT_FD, BF_FLAGS_VERSION, &ask, sizeof(ask), NULL, 0);
	conn_pump(&conn);
	assert_int_equal(conn.last_reply_size, sizeof(ask));
	assert_memory_equal(conn.last_payload + offsetof(struct bf_inflight, pad), zero, 4);
	conn_say(&conn, BF_FE_GET_SHMEM_CONFIG, BF_FLAGS_VERSION, NULL, 0, NULL, 0);
	conn_pump(&conn);
	assert_int_equal(conn.last_reply_size, sizeof(struct bf_shmem_config));
	assert_memory_equal(conn.last_payload + 4, zero, 4);
	end(&conn);
}

/* A front end that never stops may not keep a thread for itself that serves others too. */
static void cve_2019_3900_one_dispatch_is_bounded(void **data)
{
	static struct {
		struct bf_header hdr[500];
	} many;
	uint8_t answer[sizeof(struct bf_header) + 8];
	struct conn conn;
	unsigned nr = 0;

	(void)data;
	begin(&conn, "running");
	for (unsigned i = 0; i < 500; i++)
		many.hdr[i] = (struct bf_header){ BF_FE_GET_FEATURES, BF_FLAGS_VERSION, 0 };
	assert_true(conn_send(&conn, &many, sizeof(many), NULL, 0));
	bf_backend_dispatch(conn.be);
	while (recv(conn.fd, answer, sizeof(answer), MSG_DONTWAIT) == sizeof(answer))
		nr++;
	assert_in_range(nr, 1, 100);
	conn.replies = 0;
	conn_pump(&conn);
	assert_int_equal(conn.replies, 500 - nr);
	end(&conn);
}

static int setup(void **data)
{
	(void)data;
	conn_setup();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cve_2020_10722_log_size_and_offset_that_wrap),
		cmocka_unit_test(cve_2019_14835_log_shorter_than_what_is_written),
		cmocka_unit_test(yc_d20795a_log_that_is_replaced_again_and_again),
		cmocka_unit_test(cve_2020_10726_get_inflight_fd_again_and_again),
		cmocka_unit_test(cve_2021_3839_inflight_region_of_too_many_queues),
		cmocka_unit_test(cve_2022_0669_descriptors_with_get_inflight_fd),
		cmocka_unit_test(dpdk_mmap_fails_in_the_middle_of_set_mem_table),
		cmocka_unit_test(cve_2013_2016_config_space_past_its_end),
		cmocka_unit_test(cve_2017_17381_kick_of_a_ring_that_is_not_set_up),
		cmocka_unit_test(rust_vmm_38c442d_nothing_of_ours_in_the_padding_of_a_reply),
		cmocka_unit_test(cve_2019_3900_one_dispatch_is_bounded),
	};

	return cmocka_run_group_tests_name("rows_messages", tests, setup, NULL);
}
