/* SPDX-License-Identifier: BSD-3-Clause */
/* --hostfwd rules: those that users write, and what is near them. */
#include "../support.h"

#include <arpa/inet.h>
#include <stdbool.h>

#include "devices/net/forward.h"

static void good(const char *text, bool udp, const char *host, unsigned host_port,
		 const char *guest, unsigned guest_port)
{
	const char *expected;
	struct forward f;

	assert_true(forward_parse(text, &f, &expected));
	assert_int_equal(f.udp, udp);
	assert_int_equal(f.host.s_addr, inet_addr(host));
	assert_int_equal(f.host_port, host_port);
	assert_int_equal(f.guest.s_addr, inet_addr(guest));
	assert_int_equal(f.guest_port, guest_port);
}

static void test_good(void **state)
{
	(void)state;
	good("tcp::8022-:22", false, "0.0.0.0", 8022, "0.0.0.0", 22);
	good("::8022-:22", false, "0.0.0.0", 8022, "0.0.0.0", 22);
	good("udp:127.0.0.1:1-10.0.2.15:65535", true, "127.0.0.1", 1, "10.0.2.15", 65535);
}

static void test_bad(void **state)
{
	static const char *const texts[] = {
		"",
		"tcp",
		"tcp:",
		"tcp::",
		"tcp::22",
		"tcp::22-",
		"tcp::22-:",
		"tcp::22-:0",
		"tcp::0-:22",
		"tcp::65536-:22",
		"tcp::22-:65536",
		"tcp::22-:22x",
		"tcp::22-22",
		"tcp:22-:22",
		"sctp::22-:22",
		"tcp::-22-:22",
		"tcp:: 22-:22",
		"tcp:1.2.3:22-:22",
		"tcp:1.2.3.4.5.6.7.8.9.10.11.12:22-:22",
		"tcp::22-1.2.3.256:22",
		"tcp::22:22",
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		const char *expected = NULL;
		struct forward f = { .host_port = 77 };

		if (forward_parse(texts[i], &f, &expected))
			fail_msg("\"%s\" is taken", texts[i]);
		assert_non_null(expected);
		assert_int_equal(f.host_port, 77);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good),
		cmocka_unit_test(test_bad),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
