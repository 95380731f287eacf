/* SPDX-License-Identifier: BSD-3-Clause */
/* The options of vhost-user devices: defaults, strictness, and messages that name the key. */
#include "unit/support.h"

#include "vmm/virtio/vhost_user_device.h"

static void test_defaults(void **state)
{
	struct vhost_user_options o;
	char err[256] = "";

	(void)state;
	assert_int_equal(vhost_user_options_parse("socket=/run/a.sock", &o, err, sizeof(err)), 0);
	assert_string_equal(o.socket, "/run/a.sock");
	assert_int_equal(o.nr_queues, 1);
	assert_int_equal(o.queue_size, 256);
	assert_true(o.doorbells);
}

static void test_all(void **state)
{
	struct vhost_user_options o;
	char err[256] = "";

	(void)state;
	assert_int_equal(vhost_user_options_parse("notify=eventfd,queue-size=1024,num-queues=256,"
						  "socket=a=b",
						  &o, err, sizeof(err)),
			 0);
	assert_string_equal(o.socket, "a=b");
	assert_int_equal(o.nr_queues, 256);
	assert_int_equal(o.queue_size, 1024);
	assert_false(o.doorbells);
}

static void test_refused(void **state)
{
	/* What is given, and what the message must name. */
	static const char *const cases[][2] = {
		{ "", "socket" },
		{ "num-queues=2", "socket" },
		{ "socket", "socket" },
		{ "socket=", "socket" },
		{ "socket=a,socket=b", "twice" },
		{ "socket=a,num-queues=0", "num-queues=0" },
		{ "socket=a,num-queues=257", "num-queues=257" },
		{ "socket=a,num-queues=-1", "num-queues=-1" },
		{ "socket=a,num-queues= 1", "num-queues= 1" },
		{ "socket=a,num-queues=1x", "num-queues=1x" },
		{ "socket=a,num-queues=99999999999999999999", "num-queues" },
		{ "socket=a,num-queues", "num-queues" },
		{ "socket=a,queue-size=3", "queue-size=3" },
		{ "socket=a,queue-size=1", "queue-size=1" },
		{ "socket=a,queue-size=65536", "queue-size=65536" },
		{ "socket=a,notify=doorbell", "notify=doorbell" },
		{ "socket=a,Notify=auto", "Notify" },
		{ "socket=a,queues=4", "queues" },
	};
	struct vhost_user_options o, untouched;
	char err[256];
	unsigned i;

	(void)state;
	memset(&untouched, 0x5a, sizeof(untouched));
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		o = untouched;
		err[0] = '\0';
		assert_int_equal(vhost_user_options_parse(cases[i][0], &o, err, sizeof(err)),
				 -EINVAL);
		assert_non_null(strstr(err, cases[i][1]));
		assert_memory_equal(&o, &untouched, sizeof(o));
	}
}

static void test_long_path(void **state)
{
	struct vhost_user_options o;
	char args[200], err[256];

	(void)state;
	memset(args, 'x', sizeof(args));
	memcpy(args, "socket=", 7);
	args[7 + 107] = '\0';
	assert_int_equal(vhost_user_options_parse(args, &o, err, sizeof(err)), 0);
	args[7 + 107] = 'x';
	args[7 + 108] = '\0';
	assert_int_equal(vhost_user_options_parse(args, &o, err, sizeof(err)), -EINVAL);
	assert_non_null(strstr(err, "108"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_all),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_long_path),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
