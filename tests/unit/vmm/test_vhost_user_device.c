/* SPDX-License-Identifier: BSD-3-Clause */
/* The VMM's vhost-user device over a front-end library that is a script: what is said, and when. */
#include "unit/support.h"

#include <linux/virtio_config.h>

#include "fake_vm.h"
#include "vmm/virtio/device_blk.h"
#include "vmm/virtio/vhost_user_internal.h"

#include <belfry/socket.h>

/* The fake library: one connection, and a diary of the calls. */
struct bf_frontend {
	struct bf_frontend_config config;
};

static struct {
	struct bf_frontend *fe;
	char diary[512];
	uint64_t features;
	unsigned max_queues;
	int fail_connect, fail_attach, fail_features, fail_start, fail_memory, fail_config;
	bool lost;
	struct bf_vring_setup setups[8];
	unsigned nr_setups;
	unsigned nr_config;
	uint8_t written;
} lib;

static int note(const char *what, int err)
{
	size_t used = strlen(lib.diary);

	snprintf(lib.diary + used, sizeof(lib.diary) - used, "%s ", what);
	return lib.lost ? -ENOTCONN : err;
}

static void expect_diary(const char *expected)
{
	assert_string_equal(lib.diary, expected);
	lib.diary[0] = '\0';
}

int bf_socket_connect(const char *path)
{
	(void)path;
	return lib.fail_connect ? lib.fail_connect : dup(0);
}

uint64_t bf_frontend_supported_protocol_features(void)
{
	return bf_bit(BF_PROTOCOL_F_MQ) | bf_bit(BF_PROTOCOL_F_HOST_NOTIFIER);
}

int bf_frontend_new(const struct bf_frontend_config *config, struct bf_frontend **fe)
{
	lib.fe = calloc(1, sizeof(*lib.fe));
	lib.fe->config = *config;
	*fe = lib.fe;
	return 0;
}

void bf_frontend_free(struct bf_frontend *fe)
{
	free(fe);
}

int bf_frontend_attach(struct bf_frontend *fe, int fd)
{
	(void)fe;
	close(fd);
	return lib.fail_attach;
}

void bf_frontend_detach(struct bf_frontend *fe)
{
	(void)fe;
}

int bf_frontend_fd(const struct bf_frontend *fe)
{
	(void)fe;
	return 0;
}

int bf_frontend_dispatch(struct bf_frontend *fe)
{
	(void)fe;
	return 0;
}

const char *bf_frontend_error(const struct bf_frontend *fe)
{
	(void)fe;
	return "scripted";
}

uint64_t bf_frontend_features(const struct bf_frontend *fe)
{
	(void)fe;
	return lib.features;
}

unsigned bf_frontend_max_queues(const struct bf_frontend *fe)
{
	(void)fe;
	return lib.max_queues;
}

int bf_frontend_set_features(struct bf_frontend *fe, uint64_t features)
{
	(void)fe;
	(void)features;
	return note("features", lib.fail_features);
}

int bf_frontend_set_memory(struct bf_frontend *fe, const struct bf_memory_region *regions,
			   unsigned nr)
{
	(void)fe;
	assert_int_equal(regions[0].size, FAKE_RAM_SIZE);
	assert_ptr_equal((void *)(uintptr_t)regions[0].uva, regions[0].hva);
	return note("memory", lib.fail_memory ? lib.fail_memory : (int)nr);
}

int bf_frontend_start_vrings(struct bf_frontend *fe, const struct bf_vring_setup *vrings,
			     unsigned nr)
{
	(void)fe;
	memcpy(lib.setups, vrings, nr * sizeof(*vrings));
	lib.nr_setups = nr;
	return note("start", lib.fail_start);
}

int bf_frontend_stop_vrings(struct bf_frontend *fe, const unsigned *queues, unsigned nr,
			    uint32_t *bases)
{
	(void)fe;
	(void)queues;
	(void)nr;
	(void)bases;
	return note("stop", 0);
}

void bf_frontend_withdraw_doorbells(struct bf_frontend *fe, const char *why)
{
	(void)fe;
	(void)why;
	note("withdraw", 0);
}

int bf_frontend_get_config(struct bf_frontend *fe, uint32_t offset, void *data, uint32_t len)
{
	(void)fe;
	assert_int_equal(offset, 0);
	memset(data, 0x77, len);
	((uint8_t *)data)[32] = lib.written;
	lib.nr_config++;
	return lib.fail_config;
}

int bf_frontend_set_config(struct bf_frontend *fe, uint32_t offset, const void *data, uint32_t len)
{
	(void)fe;
	(void)offset;
	(void)len;
	memcpy(&lib.written, data, 1);
	return note("config", 0);
}

int bf_frontend_set_status(struct bf_frontend *fe, uint8_t status)
{
	char word[16];

	(void)fe;
	snprintf(word, sizeof(word), "s%u", status);
	return note(word, 0);
}

void bf_frontend_doorbell_state(const struct bf_frontend *fe, unsigned queue,
				struct bf_doorbell_state *state)
{
	(void)fe;
	*state = (struct bf_doorbell_state){ .reason = "scripted", .nr_kicks = queue };
}

int event_loop_add(struct event_loop *loop, int fd, uint32_t events,
		   void (*fn)(void *opaque, uint32_t events), void *opaque)
{
	(void)loop;
	(void)fd;
	(void)events;
	(void)fn;
	(void)opaque;
	return 0;
}

void event_loop_del(struct event_loop *loop, int fd)
{
	(void)loop;
	(void)fd;
}

#define BLK_MQ 12

struct fixture {
	struct vm *vm;
	struct pci_bus *bus;
	struct device_blk *blk;
	struct vhost_user_device *device; /* inside blk */
	struct virtio_device *vdev;
	unsigned fds;
};

/* struct device_blk is one pointer; the library's opaque is the same object. */
static int make(struct fixture *f, const char *args)
{
	struct device_blk_options options;
	char err[128];
	int rc;

	assert_int_equal(device_blk_parse(args, &options, err, sizeof(err)), 0);
	rc = device_blk_new(f->vm, f->bus, NULL, &options, &f->blk);
	if (!rc) {
		f->device = lib.fe->config.opaque;
		f->vdev = &f->device->vdev;
	}
	return rc;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	memset(&lib, 0, sizeof(lib));
	lib.features = UINT64_MAX & ~bf_bit(30);
	lib.max_queues = 4;
	f->fds = count_fds();
	f->vm = fake_vm_new();
	f->bus = pci_bus_new(f->vm);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	device_blk_free(f->blk);
	pci_bus_free(f->bus);
	fake_vm_free(f->vm);
	assert_int_equal(count_fds(), f->fds);
	free(f);
	return 0;
}

static void test_offer(void **state)
{
	struct fixture *f = *state;
	uint16_t nr_queues;

	assert_int_equal(make(f, "socket=a,num-queues=3"), 0);
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
	struct fixture *f = *state;

	assert_int_equal(make(f, "blk,socket=a,notify=eventfd"), 0);
	assert_int_equal(lib.fe->config.protocol_features, bf_bit(BF_PROTOCOL_F_MQ));
}

static void test_refused(void **state)
{
	struct fixture *f = *state;

	lib.fail_connect = -ENOENT;
	assert_int_equal(make(f, "socket=a"), -ENOENT);
	lib.fail_connect = 0;
	lib.fail_attach = -EPROTONOSUPPORT;
	assert_int_equal(make(f, "socket=a"), -EPROTONOSUPPORT);
	lib.fail_attach = 0;
	assert_int_equal(make(f, "socket=a,num-queues=5"), -EINVAL);
	lib.fail_config = -EOPNOTSUPP;
	assert_int_equal(make(f, "socket=a"), -EOPNOTSUPP);
	lib.fail_config = 0;
	lib.features &= ~bf_bit(VIRTIO_F_VERSION_1);
	assert_int_equal(make(f, "socket=a"), -EPROTONOSUPPORT);
	assert_null(f->blk);
}

static void enable(struct fixture *f, unsigned queue)
{
	f->vdev->queues[queue].enabled = true;
	f->vdev->queues[queue].size = 64;
	f->vdev->queues[queue].desc_gpa = 0x1000 * queue;
}

static void test_start_and_reset(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(make(f, "socket=a,num-queues=3"), 0);
	assert_int_equal(f->vdev->ops->set_features(f->vdev, bf_bit(VIRTIO_F_VERSION_1)), 0);
	expect_diary("s3 features s11 ");
	enable(f, 0);
	enable(f, 2);
	assert_int_equal(f->vdev->ops->start(f->vdev), 0);
	expect_diary("memory start s15 ");
	assert_int_equal(lib.nr_setups, 2); /* in one go */
	assert_int_equal(lib.setups[1].queue, 2);
	assert_int_equal(lib.setups[1].desc_gpa, 0x2000);
	assert_int_equal(lib.setups[1].size, 64);
	assert_int_equal(lib.setups[1].base, 0);
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
	struct fixture *f = *state;

	assert_int_equal(make(f, "socket=a"), 0);
	f->vdev->driver_features = bf_bit(VIRTIO_F_RING_PACKED);
	enable(f, 0);
	assert_int_equal(f->vdev->ops->start(f->vdev), 0);
	assert_int_equal(lib.setups[0].base, 0x80008000); /* both wrap counters */
}

static void test_queue_reset(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(make(f, "socket=a,num-queues=2"), 0);
	enable(f, 0);
	enable(f, 1);
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
	struct fixture *f = *state;

	assert_int_equal(make(f, "socket=a"), 0);
	lib.fail_features = -EREMOTEIO;
	assert_int_equal(f->vdev->ops->set_features(f->vdev, 0), -EREMOTEIO);
	enable(f, 0);
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
	struct fixture *f = *state;
	uint8_t byte = 1;

	assert_int_equal(make(f, "socket=a"), 0);
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

/* The back end dies under a running device: the guest is told, and nothing waits for it any more.
 */
static void test_death(void **state)
{
	struct fixture *f = *state;
	uint64_t status;

	assert_int_equal(make(f, "socket=a"), 0);
	cfg_write(f->vm, 1, 4, 2, 2);
	status = f->device->transport ? VM_MMIO64_BASE + 20 : 0;
	mmio_write(f->vm, status, 3, 1);
	enable(f, 0);
	assert_int_equal(f->vdev->ops->start(f->vdev), 0);
	lib.diary[0] = '\0';
	lib.lost = true;
	lib.fe->config.ops->disconnected(lib.fe->config.opaque, -ECONNRESET);
	assert_int_equal(mmio_read(f->vm, status, 1), 3 | VIRTIO_CONFIG_S_NEEDS_RESET);
	mmio_write(f->vm, status, 0, 1);
	assert_int_equal(mmio_read(f->vm, status, 1), 0);
	expect_diary("");
	assert_int_equal(f->vdev->ops->set_features(f->vdev, 0), -ENOTCONN);
	assert_int_equal(f->vdev->ops->start(f->vdev), -ENOTCONN);
	device_blk_reset(f->blk);
}

static void test_stats(void **state)
{
	struct fixture *f = *state;
	json_t *stats, *queue;

	assert_int_equal(make(f, "socket=a,num-queues=2"), 0);
	stats = device_blk_stats(f->blk);
	assert_string_equal(json_string_value(json_object_get(stats, "name")), "blk0");
	assert_string_equal(json_string_value(json_object_get(stats, "state")), "idle");
	assert_int_equal(json_array_size(json_object_get(stats, "queues")), 2);
	queue = json_array_get(json_object_get(stats, "queues"), 1);
	assert_string_equal(json_string_value(json_object_get(queue, "doorbell_reason")),
			    "scripted");
	assert_int_equal(json_integer_value(json_object_get(queue, "vmm_kicks")), 1);
	json_decref(stats);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

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
