/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What only network cards are told by a front end: the MTU, and to announce a guest that has moved here. By
 * hand over the socket, on a switch where another guest listens. And what is offered.
 */
#include "net_card.h"

#include <belfry/protocol.h>

static struct net_test test;
static int front;

struct __attribute__((packed)) message {
	struct bf_header header;
	uint64_t value;
};

/* The answer's value; without one, what an acknowledgement says. */
static uint64_t ask(uint32_t request, uint32_t size, uint64_t value, bool reply)
{
	struct message m = {
		{ request, BF_FLAGS_VERSION | (reply ? 0 : BF_FLAGS_NEED_REPLY), size }, value
	};

	assert_int_equal(write(front, &m, sizeof(m.header) + size), sizeof(m.header) + size);
	assert_int_equal(recv(front, &m, sizeof(m.header) + 8, MSG_WAITALL), sizeof(m.header) + 8);
	assert_int_equal(m.header.request, request);
	return m.value;
}

static uint64_t offered(void)
{
	return ask(BF_FE_GET_FEATURES, 0, 0, true);
}

static uint64_t offered_protocol(void)
{
	return ask(BF_FE_GET_PROTOCOL_FEATURES, 0, 0, true);
}

static void start(const char *const *options, unsigned nr)
{
	net_run(&test, nr, options);
	front = bf_socket_connect(test.sockets[nr - 1]);
	assert_true(front >= 0);
	assert_int_equal(fcntl(front, F_SETFL, 0), 0); /* to wait for answers */
}

static void end(void)
{
	close(front);
	assert_int_equal(net_end(&test), 0);
}

static void test_rarp_and_mtu(void **state)
{
	static const char *const options[] = { "--switch", "--mtu=1400", NULL };
	static const uint8_t mac[8] = { 0x52, 0x54, 0, 9, 8, 7 };
	static const uint8_t rarp[] = { 0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3 };
	struct virtio_net_hdr_v1 header;
	uint8_t got[2048];
	uint64_t value;
	uint64_t agreed = bf_bit(BF_PROTOCOL_F_MTU) | bf_bit(BF_PROTOCOL_F_RARP) |
			  bf_bit(BF_PROTOCOL_F_REPLY_ACK);

	(void)state;
	start(options, 2);
	card_open(&test, 0, 1, 2048, MERGEABLE);
	assert_true(bf_has(offered(), BF_VHOST_USER_F_PROTOCOL_FEATURES));
	assert_true((offered_protocol() & agreed) == agreed);
	{
		struct message m = { { BF_FE_SET_PROTOCOL_FEATURES, BF_FLAGS_VERSION, 8 }, agreed };

		assert_int_equal(write(front, &m, 20), 20);
	}
	assert_int_equal(ask(BF_FE_NET_SET_MTU, 8, 1400, false), 0);
	assert_int_equal(ask(BF_FE_NET_SET_MTU, 8, 68, false), 0);
	assert_true(ask(BF_FE_NET_SET_MTU, 8, 1401, false));
	assert_true(ask(BF_FE_NET_SET_MTU, 8, 67, false));
	assert_true(ask(BF_FE_NET_SET_MTU, 8, 0x10000 + 1400, false));
	memcpy(&value, mac, 8);
	assert_int_equal(ask(BF_FE_SEND_RARP, 8, value, false), 0);
	assert_int_equal(card_receive_within(&test, 0, &header, got, WAIT_MS), 60);
	for (unsigned i = 0; i < 6; i++)
		assert_int_equal(got[i], 0xff);
	assert_memory_equal(got + 6, mac, 6);
	assert_memory_equal(got + 12, rarp, sizeof(rarp));
	assert_memory_equal(got + 22, mac, 6);
	assert_memory_equal(got + 32, mac, 6);
	end();
}

/* Each port offers what it can serve, and front ends of the wrong kind are not given a config space. */
static void test_offers(void **state)
{
	static const char *const sink[] = { "--sink", "--queues=2", NULL };
	static const char *const slirp[] = { "--slirp", "--offer-config", "--mac=52:54:00:01:02:03",
					     NULL };
	uint64_t features;

	(void)state;
	start(sink, 1);
	features = offered();
	assert_true(bf_has(features, VIRTIO_NET_F_MQ) && bf_has(features, VIRTIO_NET_F_MTU));
	assert_true(bf_has(features, VIRTIO_NET_F_HOST_TSO4));
	assert_false(bf_has(features, VIRTIO_NET_F_HOST_UFO) ||
		     bf_has(features, VIRTIO_NET_F_GUEST_TSO4) ||
		     bf_has(features, VIRTIO_NET_F_CTRL_VQ) ||
		     bf_has(features, VIRTIO_NET_F_STATUS) || bf_has(features, VIRTIO_NET_F_MAC));
	assert_false(bf_has(offered_protocol(), BF_PROTOCOL_F_CONFIG));
	end();
	start(slirp, 1);
	features = offered();
	assert_true(bf_has(features, VIRTIO_NET_F_STATUS) && bf_has(features, VIRTIO_NET_F_MAC));
	assert_false(bf_has(features, VIRTIO_NET_F_MQ) || bf_has(features, VIRTIO_NET_F_MTU));
	assert_true(bf_has(offered_protocol(), BF_PROTOCOL_F_CONFIG));
	end();
}

/* Exit status 2 for what makes no sense together, 1 for what cannot be had. */
static void test_command_line(void **state)
{
	static const struct {
		const char *options[4];
		int status;
	} cases[] = {
		{ { "--sink", "--loopback" }, 2 },
		{ { "--sink", "--drop" }, 2 },
		{ { "--sink", "--hostfwd=tcp::1-:2" }, 2 },
		{ { "--mac=52:54:00:01:02:03" }, 2 },
		{ { "--offer-config", "--mac=53:54:00:01:02:03" }, 2 },
		{ { "--offer-config", "--mac=52:54:00:01:02" }, 2 },
		{ { "--queue-size=100" }, 2 },
		{ { "--switch", "--postcopy" }, 2 },
		{ { "--queues=0" }, 2 },
		{ { "--sink", "--socket-path=/nonexistent/b" }, 2 },
		{ { "--hostfwd=nonsense" }, 1 },
		{ { "--tap=a-name-that-is-too-long" }, 1 },
		{ { "--print-capabilities", "--sink", "--queues=0" }, 0 },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		pid_t pid = fork();
		int status;

		if (!pid) {
			const char *const *o = cases[i].options;
			int null = open("/dev/null", O_WRONLY);

			dup2(null, 1);
			dup2(null, 2);
			alarm(20);
			execl(BELFRY_NET, "belfry-net", "--socket-path=/nonexistent/a", o[0], o[1],
			      o[2], NULL);
			_exit(127);
		}
		waitpid(pid, &status, 0);
		if (!WIFEXITED(status) || WEXITSTATUS(status) != cases[i].status)
			fail_msg("case %u: status 0x%x", i, status);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rarp_and_mtu),
		cmocka_unit_test(test_offers),
		cmocka_unit_test(test_command_line),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
