/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A device that serves its rings by itself: what it is told, in which order, and what it may refuse.
 */
#include "fake_frontend.h"

#include <linux/virtio_config.h>

#define OFFLOAD_FEATURES (FEATURES | bf_bit(VIRTIO_F_RING_PACKED))
#define POSITION         0x1234u

struct hardware {
	struct peer peer; /* first: it is what the other operations get */
	struct bf_offload_vring vring[QUEUES];
	bool has[QUEUES];
	unsigned starts, stops, enables, exchanges, memories, regions;
	int start_error, memory_error, enable_error, status_error;
	uint8_t status;
};

static int hw_start(void *opaque, unsigned queue, const struct bf_offload_vring *vring)
{
	struct hardware *hw = opaque;

	assert_false(hw->has[queue]);
	if (hw->start_error)
		return hw->start_error;
	hw->vring[queue] = *vring;
	hw->has[queue] = true;
	hw->starts++;
	return 0;
}

static uint32_t hw_stop(void *opaque, unsigned queue)
{
	struct hardware *hw = opaque;

	assert_true(hw->has[queue]);
	assert_non_null(bf_backend_memory(hw->peer.be));
	hw->has[queue] = false;
	hw->stops++;
	return POSITION + queue;
}

static int hw_enable(void *opaque, unsigned queue, bool enabled)
{
	struct hardware *hw = opaque;

	assert_true(hw->has[queue]);
	if (hw->enable_error)
		return hw->enable_error;
	hw->vring[queue].enabled = enabled;
	hw->enables++;
	return 0;
}

static int hw_eventfds(void *opaque, unsigned queue, const struct bf_offload_vring *vring)
{
	struct hardware *hw = opaque;

	assert_true(hw->has[queue]);
	/* The former ones are still open here. */
	assert_true(hw->vring[queue].kick_fd < 0 || fcntl(hw->vring[queue].kick_fd, F_GETFD) >= 0);
	hw->vring[queue] = *vring;
	hw->exchanges++;
	return 0;
}

static int hw_memory(void *opaque, const struct bf_memory *memory)
{
	struct hardware *hw = opaque;

	if (!memory)
		for (unsigned i = 0; i < QUEUES; i++)
			assert_false(hw->has[i]);
	if (memory && hw->memory_error)
		return hw->memory_error;
	hw->regions = memory ? bf_memory_nr_regions(memory) : 0;
	hw->memories++;
	return 0;
}

static int hw_status(void *opaque, uint8_t status)
{
	struct hardware *hw = opaque;

	hw->status = status;
	return hw->status_error;
}

static const struct bf_offload_ops hw_ops = {
	.vring_start = hw_start,
	.vring_stop = hw_stop,
	.vring_enable = hw_enable,
	.vring_eventfds = hw_eventfds,
	.memory = hw_memory,
	.status = hw_status,
};

static int not_hardware(void *opaque, unsigned queue, bool enabled)
{
	(void)opaque;
	fail_msg("queue %u: enabled %d: told to the operations for queue threads", queue, enabled);
	return 0;
}

static const struct bf_backend_ops no_queue_threads = {
	.vring_enable = not_hardware,
	.get_config = fake_get_config,
	.set_config = fake_set_config,
	.doorbell_answered = fake_answered,
};

static void begin(struct hardware *hw, uint64_t features)
{
	const struct bf_backend_config config = {
		.ops = &no_queue_threads,
		.offload = &hw_ops,
		.opaque = hw,
		.name = "hw",
		.nr_queues = QUEUES,
		.max_queue_size = 1024,
		.config_size = CONFIG_SIZE,
		.features = OFFLOAD_FEATURES,
	};
	struct peer *peer = &hw->peer;

	memset(hw, 0, sizeof(*hw));
	peer->back = -1;
	assert_int_equal(bf_backend_new(&config, &peer->be), 0);
	peer_connect(peer);
	say_u64(peer, BF_FE_SET_PROTOCOL_FEATURES, get_u64(peer, BF_FE_GET_PROTOCOL_FEATURES));
	assert_int_equal(say_u64(peer, BF_FE_SET_FEATURES, features | ACK_BIT), ACCEPTED);
	open_back(peer);
	assert_int_equal(say_memory(peer, -1, MEMORY_SIZE), ACCEPTED);
	assert_int_equal(hw->regions, 1);
}

/* Set up and kicked, not enabled. */
static void give(struct hardware *hw, unsigned queue, int *kick)
{
	set_up(&hw->peer, queue);
	assert_int_equal(say_eventfd(&hw->peer, BF_FE_SET_VRING_KICK, queue, kick), ACCEPTED);
	assert_true(hw->has[queue]);
}

static void gets_rings_in_guest_addresses(void **state)
{
	struct leaks before = leaks_now();
	struct hardware hw;
	int kick;

	(void)state;
	begin(&hw, FEATURES);
	give(&hw, 2, &kick);
	assert_int_equal(hw.vring[2].size, RING_SIZE);
	assert_int_equal(hw.vring[2].desc_gpa, GPA + 2 * 4096);
	assert_int_equal(hw.vring[2].driver_gpa, GPA + 2 * 4096 + 1024);
	assert_int_equal(hw.vring[2].device_gpa, GPA + 2 * 4096 + 2048);
	assert_int_equal(hw.vring[2].base, 0);
	assert_true(hw.vring[2].kick_fd >= 0);
	assert_int_equal(hw.vring[2].call_fd, -1);
	assert_false(hw.vring[2].enabled);
	/* The position is the device's word, and where the next start goes on. */
	assert_int_equal(get_base(&hw.peer, 2), POSITION + 2);
	assert_false(hw.has[2]);
	assert_int_equal(say_eventfd(&hw.peer, BF_FE_SET_VRING_KICK, 2, NULL), ACCEPTED);
	assert_int_equal(hw.vring[2].base, POSITION + 2);
	close(kick);
	peer_done(&hw.peer);
	assert_int_equal(hw.regions, 0);
	assert_int_equal(hw.stops, hw.starts);
	assert_no_leaks(before, "connection");
}

static void enables_without_stopping(void **state)
{
	struct hardware hw;
	int kick;

	(void)state;
	begin(&hw, FEATURES);
	give(&hw, 0, &kick);
	assert_int_equal(say_state(&hw.peer, BF_FE_SET_VRING_ENABLE, 0, 1), ACCEPTED);
	assert_true(hw.vring[0].enabled);
	assert_int_equal(say_state(&hw.peer, BF_FE_SET_VRING_ENABLE, 0, 1), ACCEPTED);
	assert_int_equal(hw.enables, 1);
	hw.enable_error = -EIO;
	assert_int_equal(say_state(&hw.peer, BF_FE_SET_VRING_ENABLE, 0, 0), REFUSED);
	hw.enable_error = 0;
	assert_int_equal(say_state(&hw.peer, BF_FE_SET_VRING_ENABLE, 0, 0), ACCEPTED);
	assert_false(hw.vring[0].enabled);
	assert_int_equal(hw.stops, 0);
	/* Enabled first, started then. */
	assert_int_equal(say_state(&hw.peer, BF_FE_SET_VRING_ENABLE, 1, 1), ACCEPTED);
	set_up(&hw.peer, 1);
	assert_int_equal(say_eventfd(&hw.peer, BF_FE_SET_VRING_KICK, 1, NULL), ACCEPTED);
	assert_true(hw.vring[1].enabled);
	close(kick);
	peer_done(&hw.peer);
}

static void eventfds_change_under_a_running_ring(void **state)
{
	struct leaks before = leaks_now();
	struct hardware hw;
	int kick, call, other;

	(void)state;
	begin(&hw, FEATURES);
	give(&hw, 0, &kick);
	assert_int_equal(say_eventfd(&hw.peer, BF_FE_SET_VRING_CALL, 0, &call), ACCEPTED);
	assert_true(hw.vring[0].call_fd >= 0);
	assert_int_equal(signals(call), 1); /* an interrupt may have gone to the one before */
	assert_int_equal(say_eventfd(&hw.peer, BF_FE_SET_VRING_KICK, 0, &other), ACCEPTED);
	assert_int_equal(hw.exchanges, 2);
	assert_int_equal(hw.starts, 1);
	assert_int_equal(hw.stops, 0);
	close(kick);
	close(call);
	close(other);
	peer_done(&hw.peer);
	assert_no_leaks(before, "eventfds");
}

static void memory_changes_under_running_rings(void **state)
{
	struct leaks before = leaks_now();
	const struct bf_mem_region extra = { GPA + (1ull << 30), MEMORY_SIZE, UVA + (1ull << 30),
					     0 };
	const struct bf_mem_reg add = { .region = extra };
	struct hardware hw;
	int kick, memory = make_memfd("bf-guest", MEMORY_SIZE, 0);

	(void)state;
	begin(&hw, FEATURES);
	give(&hw, 0, &kick);
	assert_int_equal(say(&hw.peer, BF_FE_ADD_MEM_REG, &add, sizeof(add), &memory, 1), ACCEPTED);
	assert_int_equal(hw.regions, 2);
	assert_int_equal(say(&hw.peer, BF_FE_REM_MEM_REG, &add, sizeof(add), NULL, 0), ACCEPTED);
	assert_int_equal(hw.regions, 1);
	assert_int_equal(hw.stops, 0);

	/* A device that cannot use it: nothing has changed. */
	hw.memory_error = -ENOMEM;
	assert_int_equal(say(&hw.peer, BF_FE_ADD_MEM_REG, &add, sizeof(add), &memory, 1), REFUSED);
	assert_true(hw.has[0]);
	assert_int_equal(bf_memory_nr_regions(bf_backend_memory(hw.peer.be)), 1);
	hw.memory_error = 0;

	/* A table without the ring: stopped before the memory goes, and the front end is told. */
	assert_int_equal(say_memory(&hw.peer, memory, 4096 / 2), REFUSED);
	assert_false(hw.has[0]);
	assert_int_equal(hw.stops, 1);
	close(memory);
	close(kick);
	peer_done(&hw.peer);
	assert_no_leaks(before, "memory");
}

static void packed_rings_have_wide_positions(void **state)
{
	const struct bf_vring_addr addr = ring_addr(0);
	struct hardware hw;

	(void)state;
	begin(&hw, OFFLOAD_FEATURES);
	/* Any size, and both indices with their wrap counters. */
	assert_int_equal(say_state(&hw.peer, BF_FE_SET_VRING_NUM, 0, 7), ACCEPTED);
	assert_int_equal(say_state(&hw.peer, BF_FE_SET_VRING_BASE, 0, 0x80038005), ACCEPTED);
	assert_int_equal(say_addr(&hw.peer, addr), ACCEPTED);
	assert_int_equal(say_eventfd(&hw.peer, BF_FE_SET_VRING_KICK, 0, NULL), ACCEPTED);
	assert_int_equal(hw.vring[0].size, 7);
	assert_int_equal(hw.vring[0].base, 0x80038005);
	peer_done(&hw.peer);

	/* A front end that names no position means the beginning, which is not 0. */
	begin(&hw, OFFLOAD_FEATURES);
	assert_int_equal(say_state(&hw.peer, BF_FE_SET_VRING_NUM, 0, 7), ACCEPTED);
	assert_int_equal(say_addr(&hw.peer, addr), ACCEPTED);
	assert_int_equal(say_eventfd(&hw.peer, BF_FE_SET_VRING_KICK, 0, NULL), ACCEPTED);
	assert_int_equal(hw.vring[0].base, BF_VIRTQ_PACKED_BASE);
	peer_done(&hw.peer);

	begin(&hw, FEATURES);
	assert_int_equal(say_state(&hw.peer, BF_FE_SET_VRING_NUM, 0, 7), REFUSED);
	assert_int_equal(say_state(&hw.peer, BF_FE_SET_VRING_BASE, 0, 0x80038005), REFUSED);
	peer_done(&hw.peer);
}

static void refuses_rings_outside_of_memory(void **state)
{
	struct bf_vring_addr addr = ring_addr(0);
	struct hardware hw;

	(void)state;
	begin(&hw, FEATURES);
	assert_int_equal(say_state(&hw.peer, BF_FE_SET_VRING_NUM, 0, 1024), ACCEPTED);
	/* Begins inside, ends outside: 1,024 used entries are 8,198 bytes. */
	addr.used = UVA + MEMORY_SIZE - 8196;
	assert_int_equal(say_addr(&hw.peer, addr), ACCEPTED);
	assert_int_equal(say_eventfd(&hw.peer, BF_FE_SET_VRING_KICK, 0, NULL), REFUSED);
	addr.used = UVA + MEMORY_SIZE - 8198 - 2;
	assert_int_equal(say_addr(&hw.peer, addr), ACCEPTED);
	assert_true(hw.has[0]);
	get_base(&hw.peer, 0);
	addr.desc += 8;
	assert_int_equal(say_addr(&hw.peer, addr), ACCEPTED);
	assert_int_equal(say_eventfd(&hw.peer, BF_FE_SET_VRING_KICK, 0, NULL), REFUSED);
	/* And what the device itself refuses. */
	hw.start_error = -ENOSPC;
	assert_int_equal(say_addr(&hw.peer, ring_addr(0)), REFUSED);
	assert_false(hw.has[0]);
	peer_done(&hw.peer);
}

static void status_reaches_the_device(void **state)
{
	struct hardware hw;
	int kick;

	(void)state;
	begin(&hw, FEATURES);
	give(&hw, 0, &kick);
	assert_int_equal(say_u64(&hw.peer, BF_FE_SET_STATUS, 15), ACCEPTED);
	assert_int_equal(hw.status, 15);
	hw.status_error = -EIO;
	assert_int_equal(say_u64(&hw.peer, BF_FE_SET_STATUS, 15), REFUSED);
	hw.status_error = 0;
	assert_int_equal(say_u64(&hw.peer, BF_FE_SET_STATUS, 0), ACCEPTED);
	assert_false(hw.has[0]);
	assert_int_equal(hw.status, 0);
	close(kick);
	peer_done(&hw.peer);
}

static void publishes_later_than_the_start(void **state)
{
	struct hardware hw;
	int kick, page = make_memfd("bf-page", 4096, 0);

	(void)state;
	begin(&hw, FEATURES);
	give(&hw, 0, &kick);
	assert_int_equal(bf_backend_publish_doorbell(hw.peer.be, 1, page, 0), -EINVAL);
	assert_int_equal(bf_backend_publish_doorbell(hw.peer.be, 0, page, 0), 0);
	get_base(&hw.peer, 0);
	assert_int_equal(bf_backend_publish_doorbell(hw.peer.be, 0, page, 0), -EINVAL);
	close(page);
	close(kick);
	peer_done(&hw.peer);
}

static void refuses_a_device_without_sense(void **state)
{
	struct bf_backend_config config = { .ops = &no_queue_threads,
					    .offload = &hw_ops,
					    .nr_queues = 1,
					    .name = "hw" };
	struct bf_offload_ops ops = hw_ops;
	struct bf_backend *be = NULL;

	(void)state;
	config.offload = NULL;
	assert_int_equal(bf_backend_new(&config, &be), -EINVAL);
	config.offload = &ops;
	ops.memory = NULL;
	assert_int_equal(bf_backend_new(&config, &be), -EINVAL);
	ops = hw_ops;
	ops.vring_enable = NULL;
	ops.status = NULL;
	assert_int_equal(bf_backend_new(&config, &be), 0);
	bf_backend_free(be);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(gets_rings_in_guest_addresses),
		cmocka_unit_test(enables_without_stopping),
		cmocka_unit_test(eventfds_change_under_a_running_ring),
		cmocka_unit_test(memory_changes_under_running_rings),
		cmocka_unit_test(packed_rings_have_wide_positions),
		cmocka_unit_test(refuses_rings_outside_of_memory),
		cmocka_unit_test(status_reaches_the_device),
		cmocka_unit_test(publishes_later_than_the_start),
		cmocka_unit_test(refuses_a_device_without_sense),
	};

	return cmocka_run_group_tests_name("offload", tests, NULL, NULL);
}
