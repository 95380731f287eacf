/* SPDX-License-Identifier: BSD-3-Clause */
/* The value of --device: kinds, defaults, strictness, and messages that name the key. */
#include "unit/support.h"

#include "vmm/virtio/device_blk.h"
#include "vmm/virtio/device_net.h"
#include "vmm/virtio/kinds.h"

static int parse(const char *spec, struct vhost_user_options *o, char *err, size_t err_len)
{
	const struct vhost_user_kind *kind = NULL;
	int rc = kinds_parse(spec, &kind, o, err, err_len);

	assert_true(rc || kind == (spec[0] == 'n' ? &device_net_kind : &device_blk_kind));
	return rc;
}

static void test_defaults(void **state)
{
	struct vhost_user_options o;
	char err[320] = "";

	(void)state;
	assert_int_equal(parse("blk,socket=/run/a.sock", &o, err, sizeof(err)), 0);
	assert_string_equal(o.socket, "/run/a.sock");
	assert_int_equal(o.nr_queues, 1);
	assert_int_equal(o.queue_size, 256);
	assert_true(o.doorbells);
	assert_false(o.reconnect);
	assert_false(o.server);
	assert_int_equal(parse("net,socket=/run/a.sock", &o, err, sizeof(err)), 0);
	assert_int_equal(o.nr_queues, 2);
	assert_true(o.reconnect);
	assert_false(o.net.has_mac);
	assert_int_equal(o.net.mtu, 0);
}

static void test_all(void **state)
{
	struct vhost_user_options o;
	char err[320] = "";

	(void)state;
	assert_int_equal(parse("blk,notify=eventfd,queue-size=1024,num-queues=256,socket=a=b,"
			       "reconnect=on,server=on",
			       &o, err, sizeof(err)),
			 0);
	assert_string_equal(o.socket, "a=b");
	assert_int_equal(o.nr_queues, 256);
	assert_int_equal(o.queue_size, 1024);
	assert_false(o.doorbells);
	assert_true(o.reconnect);
	assert_true(o.server);
	assert_int_equal(parse("net,socket=a,queues=128,mac=02:Aa:bB:00:1:ff,mtu=65535,reconnect=off",
			       &o, err, sizeof(err)),
			 -EINVAL);
	assert_int_equal(parse("net,socket=a,queues=128,mac=02:Aa:bB:00:01:ff,mtu=65535,"
			       "reconnect=off",
			       &o, err, sizeof(err)),
			 0);
	assert_int_equal(o.nr_queues, 256);
	assert_true(o.net.has_mac);
	assert_memory_equal(o.net.mac, ((uint8_t[]){ 2, 0xaa, 0xbb, 0, 1, 0xff }), 6);
	assert_int_equal(o.net.mtu, 65535);
	assert_false(o.reconnect);
}

static void test_refused(void **state)
{
	/* What is given, and what the message must name. */
	static const char *const cases[][2] = {
		{ "", "blk or net" },
		{ "tape,socket=a", "blk or net" },
		{ "netsocket=a", "blk or net" },
		{ "blk", "blk,socket=PATH" },
		{ "net", "net,socket=PATH" },
		{ "blk,", "socket" },
		{ "blk,num-queues=2", "socket" },
		{ "blk,socket", "socket" },
		{ "blk,socket=", "socket" },
		{ "blk,socket=a,socket=b", "twice" },
		{ "blk,socket=a,num-queues=0", "num-queues=0" },
		{ "blk,socket=a,num-queues=257", "num-queues=257" },
		{ "blk,socket=a,num-queues=-1", "num-queues=-1" },
		{ "blk,socket=a,num-queues= 1", "num-queues= 1" },
		{ "blk,socket=a,num-queues=1x", "num-queues=1x" },
		{ "blk,socket=a,num-queues=99999999999999999999", "num-queues" },
		{ "blk,socket=a,num-queues", "num-queues" },
		{ "blk,socket=a,queue-size=3", "queue-size=3" },
		{ "blk,socket=a,queue-size=1", "queue-size=1" },
		{ "blk,socket=a,queue-size=65536", "queue-size=65536" },
		{ "blk,socket=a,notify=doorbell", "notify=doorbell" },
		{ "blk,socket=a,Notify=auto", "Notify" },
		{ "blk,socket=a,queues=4", "num-queues" },
		{ "blk,socket=a,mac=52:54:00:12:34:56", "mac" },
		{ "blk,socket=a,reconnect=yes", "reconnect=yes" },
		{ "net,socket=a,num-queues=4", "queues, mac, mtu" },
		{ "net,socket=a,queues=0", "queues=0" },
		{ "net,socket=a,queues=129", "128" },
		{ "net,socket=a,mtu=67", "mtu=67" },
		{ "net,socket=a,mtu=65536", "mtu=65536" },
		{ "net,socket=a,mac=", "mac=" },
		{ "net,socket=a,mac=52:54:00:12:34", "six bytes" },
		{ "net,socket=a,mac=52:54:00:12:34:56:78", "six bytes" },
		{ "net,socket=a,mac=52:54:00:12:34:5", "six bytes" },
		{ "net,socket=a,mac=52:54:00:12:34:5g", "six bytes" },
		{ "net,socket=a,mac=0x:54:00:12:34:56", "six bytes" },
		{ "net,socket=a,mac=52:54:00:12: 4:56", "six bytes" },
		{ "net,socket=a,mac=52:54:00:12:-4:56", "six bytes" },
		{ "net,socket=a,mac=52-54-00-12-34-56", "six bytes" },
		{ "net,socket=a,mac=01:00:5e:00:00:01", "group" },
	};
	struct vhost_user_options o, untouched;
	char err[320];
	unsigned i;

	(void)state;
	memset(&untouched, 0x5a, sizeof(untouched));
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		o = untouched;
		err[0] = '\0';
		assert_int_equal(parse(cases[i][0], &o, err, sizeof(err)), -EINVAL);
		assert_non_null(strstr(err, cases[i][1]));
		assert_memory_equal(&o, &untouched, sizeof(o));
	}
}

static void test_long_path(void **state)
{
	struct vhost_user_options o;
	char args[200], err[320];

	(void)state;
	memset(args, 'x', sizeof(args));
	memcpy(args, "blk,socket=", 11);
	args[11 + 107] = '\0';
	assert_int_equal(parse(args, &o, err, sizeof(err)), 0);
	args[11 + 107] = 'x';
	args[11 + 108] = '\0';
	assert_int_equal(parse(args, &o, err, sizeof(err)), -EINVAL);
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
