/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * examples/backend.c does what its first lines say: random bytes into a driver's buffers, over one
 * connection and the next, by split rings and packed ones.
 *
 * argv[1]: the program.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include <belfry/driver.h>
#include <belfry/socket.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

static const char *program;
static char path[64];
static pid_t child;

static int start(void **state)
{
	(void)state;
	snprintf(path, sizeof(path), "/tmp/belfry-example-%d", (int)getpid());
	child = fork();
	if (!child) {
		execl(program, program, path, (char *)NULL);
		_exit(127);
	}
	return child < 0;
}

static int end(void **state)
{
	(void)state;
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	unlink(path);
	return 0;
}

static struct bf_driver *connect_driver(uint64_t features)
{
	const struct bf_driver_config config = {
		.name = "driver", .nr_queues = 1, .queue_size = 16, .features = features, .memory_size = 1 << 16
	};
	struct bf_driver *drv;
	char error[256];
	int fd = -1;

	for (int i = 0; i < 1000 && fd < 0; i++) {
		fd = bf_socket_connect(path);
		if (fd < 0)
			usleep(5000);
	}
	assert_true(fd >= 0);
	if (bf_driver_new(&config, fd, &drv, error, sizeof(error)))
		fail_msg("%s", error);
	return drv;
}

static void get(struct bf_driver *drv, struct iovec *iov, unsigned nr_in, uint32_t expected)
{
	uint32_t len = 0;

	assert_int_equal(bf_driver_add(drv, 0, iov, 0, nr_in, iov), 0);
	bf_driver_kick(drv, 0);
	assert_int_equal(bf_driver_wait(drv, 0, 10000), 1);
	assert_ptr_equal(bf_driver_get(drv, 0, &len), iov);
	assert_int_equal(len, expected);
}

static bool any_byte_set(const uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (bytes[i])
			return true;
	return false;
}

static void fills_buffers(uint64_t features)
{
	struct bf_driver *drv = connect_driver(features);
	uint8_t *a = bf_driver_alloc(drv, 4096, 64), *b = bf_driver_alloc(drv, 64, 64);
	struct iovec iov[] = { { a, 4096 }, { b, 64 } };

	for (int i = 0; i < 100; i++) {
		memset(a, 0, 4096);
		memset(b, 0, 64);
		get(drv, iov, 2, 4096 + 64);
		/* 64 zero bytes by chance: not in the life of this universe. */
		assert_true(any_byte_set(a, 64));
		assert_true(any_byte_set(a + 4096 - 64, 64));
		assert_true(any_byte_set(b, 64));
	}
	bf_driver_free(drv);
}

static void split(void **state)
{
	(void)state;
	fills_buffers(0);
}

static void again_with_indirect_and_event_index(void **state)
{
	(void)state;
	fills_buffers(bf_bit(VIRTIO_RING_F_INDIRECT_DESC) | bf_bit(VIRTIO_RING_F_EVENT_IDX));
}

int main(int argc, char *argv[])
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(split),
		cmocka_unit_test(again_with_indirect_and_event_index),
	};

	if (argc != 2)
		return 1;
	program = argv[1];
	return cmocka_run_group_tests(tests, start, end);
}
