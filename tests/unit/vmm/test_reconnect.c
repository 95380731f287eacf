/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * vmm/virtio/vhost_user_reconnect.c and _position.c: another back end in the place of one that was
 * lost, at every moment of a guest's life.
 */
#include "fake_library.h"

#include <linux/virtio_config.h>
#include <sys/eventfd.h>
#include <time.h>

#define STATUS      (VM_MMIO64_BASE + 20)
#define FEATURES    (bf_bit(VIRTIO_F_VERSION_1) | bf_bit(28))
#define SOON        5000 /* ms; an attempt is made each 250 */
#define PACKED      bf_bit(VIRTIO_F_RING_PACKED)
#define NEEDS_RESET VIRTIO_CONFIG_S_NEEDS_RESET

static uint16_t *used_idx(struct device_fixture *f, unsigned queue)
{
	return vm_gpa_to_hva(f->vm, f->vdev->queues[queue].device_gpa + 2, 2);
}

static uint16_t *avail_idx(struct device_fixture *f, unsigned queue)
{
	return vm_gpa_to_hva(f->vm, f->vdev->queues[queue].driver_gpa + 2, 2);
}

static uint8_t status(struct device_fixture *f)
{
	return (uint8_t)mmio_read(f->vm, STATUS, 1);
}

/* A driver is at work on two queues. */
static void run(struct device_fixture *f, const char *spec, uint64_t features)
{
	assert_int_equal(device_make(f, spec), 0);
	cfg_write(f->vm, 1, 4, 2, 2);
	mmio_write(f->vm, STATUS, 3, 1); /* a driver is there */
	assert_int_equal(device_accept(f, features), 0);
	device_enable(f, 0);
	device_enable(f, 1);
	assert_int_equal(f->vdev->ops->start(f->vdev), 0);
	lib.diary[0] = '\0';
}

static void packets_go_on_from_the_used_index(void **state)
{
	struct device_fixture *f = *state;

	run(f, "net,socket=a", FEATURES);
	*used_idx(f, 0) = 7;
	*avail_idx(f, 0) = 19;
	*used_idx(f, 1) = *avail_idx(f, 1) = 0xffff;
	lib.fail_connect = -ENOENT;
	device_lose(f);
	assert_false(device_returns(f, 1, 50));
	assert_int_equal(f->device->state, VHOST_USER_RUNNING);
	assert_int_equal(status(f), 3);
	lib.fail_connect = 0;
	assert_true(device_returns(f, 1, SOON));
	expect_diary("s3 features s11 memory start s15 ");
	assert_int_equal(lib.sent_features, FEATURES);
	assert_int_equal(lib.nr_setups, 2);
	assert_int_equal(lib.setups[0].base, 7);
	assert_int_equal(lib.setups[1].base, 0xffff);
	assert_int_equal(lib.setups[1].kick_fd, f->vdev->queues[1].kick_fd);
	assert_int_equal(status(f), 3);
	assert_true(loop_has(bf_frontend_fd(lib.fe)));
	assert_int_equal(lib.nr_made - lib.nr_freed, 1);
	/* And again. */
	*used_idx(f, 0) = 20;
	device_lose(f);
	assert_true(device_returns(f, 2, SOON));
	assert_int_equal(lib.setups[0].base, 20);
}

static void a_disk_goes_on_if_nothing_was_outstanding(void **state)
{
	struct device_fixture *f = *state;

	run(f, "blk,socket=a,num-queues=2,reconnect=on", FEATURES);
	*used_idx(f, 0) = *avail_idx(f, 0) = 300;
	lib.fail_connect = -ECONNREFUSED;
	device_lose(f);
	/* Requests that come meanwhile have been seen by nobody. */
	*avail_idx(f, 0) = 305;
	lib.fail_connect = 0;
	assert_true(device_returns(f, 1, SOON));
	assert_int_equal(lib.setups[0].base, 300);
	assert_int_equal(f->device->state, VHOST_USER_RUNNING);
	assert_int_equal(status(f), 3);
}

static void expect_needs_reset_then_works(struct device_fixture *f, unsigned nr)
{
	assert_true(device_returns(f, nr, SOON));
	assert_null(strstr(lib.diary, "start"));
	assert_int_equal(f->device->state, VHOST_USER_NEEDS_RESET);
	assert_int_equal(status(f), 3 | NEEDS_RESET);
	mmio_write(f->vm, STATUS, 0, 1);
	assert_int_equal(status(f), 0);
	lib.diary[0] = '\0';
	assert_int_equal(device_accept(f, FEATURES), 0);
	device_enable(f, 0);
	assert_int_equal(f->vdev->ops->start(f->vdev), 0);
	expect_diary("s3 features s11 memory start s15 ");
	assert_int_equal(lib.nr_setups, 1);
	assert_int_equal(lib.setups[0].base, 0);
}

static void a_disk_with_requests_outstanding_needs_a_reset(void **state)
{
	struct device_fixture *f = *state;

	run(f, "blk,socket=a,num-queues=2,reconnect=on", FEATURES);
	*used_idx(f, 1) = 299;
	*avail_idx(f, 1) = 300;
	device_lose(f);
	expect_needs_reset_then_works(f, 1);
}

/* Something still completes requests: two would serve the ring. */
static void a_disk_whose_used_index_moves_needs_a_reset(void **state)
{
	struct device_fixture *f = *state;

	run(f, "blk,socket=a,num-queues=2,reconnect=on", FEATURES);
	*used_idx(f, 0) = *avail_idx(f, 0) = 8;
	lib.fail_connect = -ENOENT;
	device_lose(f);
	*used_idx(f, 0) = 9;
	lib.fail_connect = 0;
	expect_needs_reset_then_works(f, 1);
}

static void a_packed_ring_that_was_used_needs_a_reset(void **state)
{
	struct device_fixture *f = *state;

	lib.features |= PACKED;
	run(f, "net,socket=a", FEATURES | PACKED);
	*(uint8_t *)vm_gpa_to_hva(f->vm, f->vdev->queues[1].desc_gpa + 255, 1) = 1;
	device_lose(f);
	expect_needs_reset_then_works(f, 1);
}

static void a_packed_ring_that_nobody_used_begins_anew(void **state)
{
	struct device_fixture *f = *state;

	lib.features |= PACKED;
	run(f, "net,socket=a", FEATURES | PACKED);
	lib.fail_connect = -ENOENT;
	device_lose(f);
	*(uint8_t *)vm_gpa_to_hva(f->vm, f->vdev->queues[1].desc_gpa, 1) = 1;
	lib.fail_connect = 0;
	assert_true(device_returns(f, 1, SOON));
	assert_int_equal(lib.setups[0].base, 0x80008000);
	assert_int_equal(lib.setups[1].base, 0x80008000);
	assert_int_equal(status(f), 3);
}

static void a_back_end_that_refuses_to_start_needs_a_reset(void **state)
{
	struct device_fixture *f = *state;

	run(f, "net,socket=a", FEATURES);
	lib.fail_start = -EREMOTEIO;
	device_lose(f);
	assert_true(device_returns(f, 1, SOON));
	assert_int_equal(status(f), 3 | NEEDS_RESET);
	assert_int_equal(lib.nr_made, 2);
	lib.fail_start = 0;
	/* Lost once more before the driver did anything: still nothing is started. */
	lib.diary[0] = '\0';
	device_lose(f);
	expect_needs_reset_then_works(f, 2);
}

static void a_back_end_that_dies_in_between_is_no_back_end(void **state)
{
	struct device_fixture *f = *state;

	run(f, "net,socket=a", FEATURES);
	lib.lose_at_start = 1;
	device_lose(f);
	assert_true(device_returns(f, 1, SOON));
	expect_diary("s3 features s11 memory start s3 features s11 memory start s15 ");
	assert_int_equal(lib.nr_made, 3);
	assert_int_equal(lib.nr_freed, 2);
}

/* What it took from a packed ring before it died is known to it alone. */
static void a_packed_ring_that_it_began_is_used(void **state)
{
	struct device_fixture *f = *state;

	lib.features |= PACKED;
	run(f, "net,socket=a", FEATURES | PACKED);
	lib.lose_at_start = 1;
	device_lose(f);
	*(uint8_t *)vm_gpa_to_hva(f->vm, f->vdev->queues[1].desc_gpa, 1) = 1;
	assert_true(device_returns(f, 1, SOON));
	assert_int_equal(status(f), 3 | NEEDS_RESET);
}

static void the_offer_must_cover_what_the_driver_uses(void **state)
{
	struct device_fixture *f = *state;
	uint64_t before = lib.features;

	run(f, "net,socket=a", FEATURES);
	lib.features &= ~bf_bit(28);
	device_lose(f);
	assert_false(device_returns(f, 1, 700));
	expect_diary("");
	lib.features = before;
	lib.max_queues = 1;
	assert_false(device_returns(f, 1, 700));
	lib.max_queues = 4;
	assert_true(device_returns(f, 1, SOON));
}

/* Nobody uses it yet: the next driver is offered what the new one has. */
static void without_a_driver_the_offer_may_change(void **state)
{
	struct device_fixture *f = *state;

	assert_int_equal(device_make(f, "net,socket=a"), 0);
	assert_true(bf_has(f->vdev->features, 28));
	lib.features &= ~bf_bit(28);
	device_lose(f);
	assert_true(device_returns(f, 1, SOON));
	expect_diary("");
	assert_false(bf_has(f->vdev->features, 28));
}

static void a_reset_in_between_ends_at_once(void **state)
{
	struct device_fixture *f = *state;

	run(f, "net,socket=a", FEATURES);
	*used_idx(f, 0) = 7;
	lib.fail_connect = -ENOENT;
	device_lose(f);
	lib.diary[0] = '\0';
	mmio_write(f->vm, STATUS, 0, 1);
	assert_int_equal(status(f), 0);
	expect_diary("");
	/* And the device can be set up for whoever comes: from the beginning, and only what is set up. */
	*used_idx(f, 1) = 0;
	assert_int_equal(device_accept(f, FEATURES), 0);
	device_enable(f, 1);
	assert_int_equal(f->vdev->ops->start(f->vdev), 0);
	expect_diary("");
	lib.fail_connect = 0;
	assert_true(device_returns(f, 1, SOON));
	expect_diary("s3 features s11 memory start s15 ");
	assert_int_equal(lib.nr_setups, 1);
	assert_int_equal(lib.setups[0].queue, 1);
	assert_int_equal(lib.setups[0].base, 0);
}

static void a_queue_reset_in_between_is_kept(void **state)
{
	struct device_fixture *f = *state;

	run(f, "net,socket=a", FEATURES);
	lib.fail_connect = -ENOENT;
	device_lose(f);
	assert_int_equal(f->vdev->ops->queue_stop(f->vdev, 0), 0);
	assert_int_equal(f->vdev->ops->queue_stop(f->vdev, 1), 0);
	*used_idx(f, 1) = 99; /* of another life */
	assert_int_equal(f->vdev->ops->queue_start(f->vdev, 1), 0);
	lib.fail_connect = 0;
	assert_true(device_returns(f, 1, SOON));
	assert_int_equal(lib.nr_setups, 1);
	assert_int_equal(lib.setups[0].queue, 1);
	assert_int_equal(lib.setups[0].base, 0);
}

/* A vCPU may find out before the loop does: the driver must not pay for it. */
static void a_loss_within_a_start_is_a_loss(void **state)
{
	struct device_fixture *f = *state;

	assert_int_equal(device_make(f, "net,socket=a"), 0);
	assert_int_equal(device_accept(f, FEATURES), 0);
	device_enable(f, 0);
	lib.lose_at_start = 1;
	assert_int_equal(f->vdev->ops->start(f->vdev), 0);
	*used_idx(f, 0) = 3; /* it did something before it went */
	loop_fire(bf_frontend_fd(f->device->frontend));
	assert_true(device_returns(f, 1, SOON));
	assert_int_equal(lib.setups[0].base, 3);
	assert_int_equal(f->device->state, VHOST_USER_RUNNING);
}

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* It accepts, and then says nothing: nobody who holds the device's lock waits for it. */
static void a_peer_that_hangs_holds_up_nobody(void **state)
{
	struct device_fixture *f = *state;
	uint64_t begin;

	run(f, "net,socket=a", FEATURES);
	__atomic_store_n(&lib.hang, true, __ATOMIC_RELEASE);
	device_lose(f);
	while (__atomic_load_n(&lib.nr_made, __ATOMIC_ACQUIRE) < 2)
		usleep(1000);
	begin = now_ms();
	mmio_write(f->vm, STATUS, 0, 1);
	json_decref(vhost_user_device_stats(f->device));
	vhost_user_device_free(f->device);
	f->device = NULL;
	assert_in_range(now_ms() - begin, 0, 200);
}

/* The machine resets: an attempt is broken off, and others follow. */
static void an_interrupted_attempt_is_made_again(void **state)
{
	struct device_fixture *f = *state;

	run(f, "net,socket=a", FEATURES);
	__atomic_store_n(&lib.hang, true, __ATOMIC_RELEASE);
	device_lose(f);
	while (__atomic_load_n(&lib.nr_made, __ATOMIC_ACQUIRE) < 2)
		usleep(1000);
	vhost_user_device_interrupt(f->device);
	while (__atomic_load_n(&lib.nr_freed, __ATOMIC_ACQUIRE) < 1)
		usleep(1000);
	__atomic_store_n(&lib.hang, false, __ATOMIC_RELEASE);
	assert_false(device_returns(f, 1, 600));
	vhost_user_device_reset(f->device);
	assert_true(device_returns(f, 1, SOON));
}

static void a_server_waits_for_the_next(void **state)
{
	struct device_fixture *f = *state;

	run(f, "net,socket=/nowhere/a,server=on", FEATURES);
	*used_idx(f, 0) = 7;
	device_lose(f);
	assert_false(device_returns(f, 1, 600));
	assert_int_equal(lib.nr_made, 1);
	eventfd_write(lib.listen_fd, 1);
	assert_true(device_returns(f, 1, SOON));
	assert_int_equal(lib.setups[0].base, 7);
	device_lose(f); /* and is freed while it waits */
}

static void freed_while_away(void **state)
{
	struct device_fixture *f = *state;

	run(f, "net,socket=a", FEATURES);
	lib.fail_connect = -ENOENT;
	device_lose(f);
}

#define T(name) cmocka_unit_test_setup_teardown(name, device_setup, device_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(packets_go_on_from_the_used_index),
		T(a_disk_goes_on_if_nothing_was_outstanding),
		T(a_disk_with_requests_outstanding_needs_a_reset),
		T(a_disk_whose_used_index_moves_needs_a_reset),
		T(a_packed_ring_that_was_used_needs_a_reset),
		T(a_packed_ring_that_nobody_used_begins_anew),
		T(a_back_end_that_refuses_to_start_needs_a_reset),
		T(a_back_end_that_dies_in_between_is_no_back_end),
		T(a_packed_ring_that_it_began_is_used),
		T(the_offer_must_cover_what_the_driver_uses),
		T(without_a_driver_the_offer_may_change),
		T(a_reset_in_between_ends_at_once),
		T(a_queue_reset_in_between_is_kept),
		T(a_loss_within_a_start_is_a_loss),
		T(a_peer_that_hangs_holds_up_nobody),
		T(an_interrupted_attempt_is_made_again),
		T(a_server_waits_for_the_next),
		T(freed_while_away),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
