/* SPDX-License-Identifier: BSD-3-Clause */
/* The VMM's vhost-user device over a front-end library that is a script: what is said, and when. */
#include "fake_library.h"

#include <linux/virtio_config.h>

#define BLK_MQ 12

static void test_offer(void **state)
{
	struct device_fixture *f = *state;
	uint16_t nr_queues;

	assert_int_equal(device_make(f, "blk,socket=a,num-queues=3"), 0);
	assert_string_equal(f->device->name, "blk0");
	assert_true(bf_has(f->vdev->features, VIRTIO_F_VERSION_1));
	assert_true(bf_has(f->vdev->features, VIRTIO_F_RING_RESET));
	assert_true(bf_has(f->vdev->features, BLK_MQ));
	assert_false(bf_has(f->vdev->features, VIRTIO_F_ACCESS_PLATFORM));
	assert_false(bf_has(f->vdev->features, 7)); /* SCSI commands */
	assert_false(bf_has(f->vdev->features, 30));
	assert_false(bf_has(f->vdev->features, 26)); /* LOG_ALL */
	/* The guest sets up as many queues as it reads here. */
	assert_int_equal(f->vdev->ops->config_read(f->vdev, 34, &nr_queues, 2), 0);
	assert_int_equal(nr_queues, 3);
	assert_true(bf_has(lib.fe->config.protocol_features, BF_PROTOCOL_F_HOST_NOTIFIER));
}

static void test_notify_eventfd(void **state)
{
	struct device_fixture *f = *state;

	assert_int_equal(device_make(f, "blk,socket=a,notify=eventfd"), 0);
	assert_int_equal(lib.fe->config.protocol_features,
			 bf_bit(BF_PROTOCOL_F_MQ) | bf_bit(BF_PROTOCOL_F_CONFIG));
}

static void test_refused(void **state)
{
	struct device_fixture *f = *state;

	lib.fail_connect = -ENOENT;
	assert_int_equal(device_make(f, "blk,socket=a"), -ENOENT);
	assert_int_equal(device_make(f, "net,socket=a"), -ENOENT); /* also where it reconnects */
	lib.fail_connect = 0;
	lib.fail_attach = -EPROTONOSUPPORT;
	assert_int_equal(device_make(f, "blk,socket=a"), -EPROTONOSUPPORT);
	lib.fail_attach = 0;
	assert_int_equal(device_make(f, "blk,socket=a,num-queues=5"), -EINVAL);
	assert_int_equal(device_make(f, "net,socket=a,queues=3"), -EINVAL);
	lib.fail_config = -EOPNOTSUPP;
	assert_int_equal(device_make(f, "blk,socket=a"), -EOPNOTSUPP);
	lib.fail_config = 0;
	lib.features &= ~bf_bit(VIRTIO_F_VERSION_1);
	assert_int_equal(device_make(f, "blk,socket=a"), -EPROTONOSUPPORT);
	assert_null(f->device);
}

static void test_start_and_reset(void **state)
{
	struct device_fixture *f = *state;

	assert_int_equal(device_make(f, "blk,socket=a,num-queues=3"), 0);
	assert_int_equal(device_accept(f, bf_bit(VIRTIO_F_VERSION_1)), 0);
	expect_diary("s3 features s11 ");
	device_enable(f, 0);
	device_enable(f, 2);
	assert_int_equal(f->vdev->ops->start(f->vdev), 0);
	expect_diary("memory start s15 ");
	assert_int_equal(lib.nr_setups, 2); /* in one go */
	assert_int_equal(lib.setups[1].queue, 2);
	assert_int_equal(lib.setups[1].desc_gpa, 0x86000);
	assert_int_equal(lib.setups[1].size, 16);
	assert_int_equal(lib.setups[1].base, 0);
	assert_false(lib.setups[1].disabled);
	assert_int_equal(lib.setups[1].kick_fd, f->vdev->queues[2].kick_fd);
	assert_int_equal(lib.setups[1].call_fd, f->vdev->queues[2].call_fd);
	f->vdev->ops->reset(f->vdev);
	expect_diary("stop s0 ");
	f->vdev->ops->reset(f->vdev);
	expect_diary("s0 ");
	/* RAM has not changed since. */
	assert_int_equal(f->vdev->ops->start(f->vdev), 0);
	expect_diary("start s15 ");
}

static void test_packed_base(void **state)
{
	struct device_fixture *f = *state;

	lib.features |= bf_bit(VIRTIO_F_RING_PACKED);
	assert_int_equal(device_make(f, "blk,socket=a"), 0);
	assert_int_equal(device_accept(f, bf_bit(VIRTIO_F_RING_PACKED)), 0);
	device_enable(f, 0);
	assert_int_equal(f->vdev->ops->start(f->vdev), 0);
	assert_int_equal(lib.setups[0].base, 0x80008000); /* both wrap counters */
}

static void test_queue_reset(void **state)
{
	struct device_fixture *f = *state;

	assert_int_equal(device_make(f, "blk,socket=a,num-queues=2"), 0);
	device_enable(f, 0);
	device_enable(f, 1);
	assert_int_equal(f->vdev->ops->start(f->vdev), 0);
	expect_diary("memory start s15 ");
	assert_int_equal(f->vdev->ops->queue_stop(f->vdev, 1), 0);
	assert_int_equal(f->vdev->ops->queue_stop(f->vdev, 1), 0);
	expect_diary("stop ");
	assert_int_equal(f->vdev->ops->queue_start(f->vdev, 1), 0);
	assert_int_equal(lib.nr_setups, 1);
	assert_int_equal(lib.setups[0].queue, 1);
}

static void test_failures(void **state)
{
	struct device_fixture *f = *state;

	assert_int_equal(device_make(f, "blk,socket=a"), 0);
	lib.fail_features = -EREMOTEIO;
	assert_int_equal(f->vdev->ops->set_features(f->vdev, 0), -EREMOTEIO);
	device_enable(f, 0);
	lib.fail_memory = -E2BIG;
	assert_int_equal(f->vdev->ops->start(f->vdev), -E2BIG);
	lib.fail_memory = 0;
	lib.fail_start = -EREMOTEIO;
	lib.diary[0] = '\0';
	assert_int_equal(f->vdev->ops->start(f->vdev), -EREMOTEIO);
	expect_diary("memory start ");
	f->vdev->ops->reset(f->vdev);
	expect_diary("s0 "); /* nothing runs, nothing to stop */
}

static void test_config(void **state)
{
	struct device_fixture *f = *state;
	uint8_t byte = 1;

	assert_int_equal(device_make(f, "blk,socket=a"), 0);
	assert_int_equal(lib.nr_config, 1);
	assert_int_equal(f->vdev->ops->config_read(f->vdev, 0, &byte, 1), 0);
	assert_int_equal(lib.nr_config, 1); /* from the copy */
	byte = 1;
	assert_int_equal(f->vdev->ops->config_write(f->vdev, 32, &byte, 1), 0);
	assert_int_equal(f->vdev->ops->config_read(f->vdev, 32, &byte, 1), 0);
	assert_int_equal(byte, 1);
	lib.written = 9;
	lib.fe->config.ops->config_changed(lib.fe->config.opaque);
	assert_int_equal(f->vdev->ops->config_read(f->vdev, 32, &byte, 1), 0);
	assert_int_equal(byte, 9);
}

/*
 * The back end dies under a running disk, which does not reconnect unless told to: the guest is
 * told, and nothing waits for it any more.
 */
static void test_death(void **state)
{
	const uint64_t status = VM_MMIO64_BASE + 20;
	struct device_fixture *f = *state;

	assert_int_equal(device_make(f, "blk,socket=a"), 0);
	cfg_write(f->vm, 1, 4, 2, 2);
	mmio_write(f->vm, status, 3, 1);
	device_enable(f, 0);
	assert_int_equal(f->vdev->ops->start(f->vdev), 0);
	lib.diary[0] = '\0';
	device_lose(f);
	assert_int_equal(mmio_read(f->vm, status, 1), 3 | VIRTIO_CONFIG_S_NEEDS_RESET);
	assert_int_equal(f->device->state, VHOST_USER_FAILED);
	mmio_write(f->vm, status, 0, 1);
	assert_int_equal(mmio_read(f->vm, status, 1), 0);
	expect_diary("");
	assert_int_equal(f->vdev->ops->set_features(f->vdev, 0), -ENOTCONN);
	assert_int_equal(f->vdev->ops->start(f->vdev), -ENOTCONN);
	vhost_user_device_reset(f->device);
	assert_int_equal(lib.nr_made, 1);
}

static void test_stats(void **state)
{
	struct device_fixture *f = *state;
	json_t *stats, *queue;

	assert_int_equal(device_make(f, "blk,socket=a,num-queues=2"), 0);
	stats = vhost_user_device_stats(f->device);
	assert_string_equal(json_string_value(json_object_get(stats, "name")), "blk0");
	assert_string_equal(json_string_value(json_object_get(stats, "state")), "idle");
	assert_true(json_is_true(json_object_get(stats, "connected")));
	assert_int_equal(json_array_size(json_object_get(stats, "queues")), 2);
	queue = json_array_get(json_object_get(stats, "queues"), 1);
	assert_string_equal(json_string_value(json_object_get(queue, "doorbell_reason")),
			    "scripted");
	assert_int_equal(json_integer_value(json_object_get(queue, "vmm_kicks")), 1);
	json_decref(stats);
}

#define T(name) cmocka_unit_test_setup_teardown(name, device_setup, device_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_offer),           T(test_notify_eventfd), T(test_refused),
		T(test_start_and_reset), T(test_packed_base),    T(test_queue_reset),
		T(test_failures),        T(test_config),         T(test_death),
		T(test_stats),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
