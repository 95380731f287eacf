/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * belfry-net and the world outside: user networking answers as a network does, and a TAP interface in a
 * network namespace of our own (skipped where there can be none) passes frames both ways, with offloads and
 * without.
 */
#include "net_card.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>

#define ETHERTYPE 0x88b5 /* for local experiments */
#define OFFLOADS                                                                               \
	(BIT(VIRTIO_NET_F_CSUM) | BIT(VIRTIO_NET_F_GUEST_CSUM) | BIT(VIRTIO_NET_F_HOST_TSO4) | \
	 BIT(VIRTIO_NET_F_GUEST_TSO4))

static struct net_test test;
static struct virtio_net_hdr_v1 header;
static uint8_t frame[70000], got[70000];
static const uint8_t our_mac[6] = { 0x52, 0x54, 0, 1, 2, 3 };

static unsigned word(const uint8_t *at)
{
	return at[0] * 256u + at[1];
}

static void set_word(uint8_t *at, unsigned value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
}

static unsigned sum(const uint8_t *at, unsigned len, unsigned s)
{
	for (unsigned i = 0; i < len; i++)
		s += i % 2 ? at[i] : at[i] * 256u;
	while (s > 0xffff)
		s = (s & 0xffff) + (s >> 16);
	return s;
}

/* An IPv4 header, and the pseudo header's sum. */
static unsigned put_ip(const uint8_t *to, uint8_t protocol, uint32_t source, uint32_t destination,
		       unsigned len)
{
	memset(frame, 0, 54);
	memcpy(frame, to, 6);
	memcpy(frame + 6, our_mac, 6);
	set_word(frame + 12, 0x0800);
	frame[14] = 0x45;
	set_word(frame + 16, 20 + len);
	frame[22] = 64;
	frame[23] = protocol;
	source = htonl(source);
	destination = htonl(destination);
	memcpy(frame + 26, &source, 4);
	memcpy(frame + 30, &destination, 4);
	set_word(frame + 24, 0xffff - sum(frame + 14, 20, 0));
	return sum(frame + 26, 8, protocol + len);
}

/* UDP whose checksum is left to the device. */
static void send_udp(const uint8_t *to, uint32_t source, uint32_t destination, unsigned source_port,
		     unsigned port, const void *data, unsigned len)
{
	const struct virtio_net_hdr_v1 h = { .flags = 1, .csum_start = 34, .csum_offset = 6 };
	unsigned pseudo = put_ip(to, 17, source, destination, 8 + len);

	set_word(frame + 34, source_port);
	set_word(frame + 36, port);
	set_word(frame + 38, 8 + len);
	set_word(frame + 40, pseudo);
	memcpy(frame + 42, data, len);
	assert_true(card_try_send(&test.cards[0], 0, &h, frame, 42 + len, 4096));
}

/* The next frame of this kind; others are the network's own. */
static uint32_t receive(unsigned ethertype, unsigned protocol)
{
	for (;;) {
		uint32_t len = card_receive_within(&test, 0, &header, got, WAIT_MS);

		if (!len)
			fail_msg("no frame of type 0x%x, protocol %u", ethertype, protocol);
		if (word(got + 12) == ethertype && (ethertype != 0x0800 || got[23] == protocol))
			return len;
	}
}

#define NET(last) (0x0a000200u + (last))

static unsigned free_port(int *fd, int type)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000001) };
	socklen_t len = sizeof(at);

	*fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(*fd, (void *)&at, sizeof(at)), 0);
	assert_int_equal(getsockname(*fd, (void *)&at, &len), 0);
	return ntohs(at.sin_port);
}

static void arp(uint8_t gateway[6])
{
	static const uint8_t request[] = { 0, 1, 8, 0, 6, 4, 0, 1 };
	const uint32_t us = htonl(NET(15)), host = htonl(NET(2));

	memset(frame, 0, 60);
	memset(frame, 0xff, 6);
	memcpy(frame + 6, our_mac, 6);
	set_word(frame + 12, 0x0806);
	memcpy(frame + 14, request, 8);
	memcpy(frame + 22, our_mac, 6);
	memcpy(frame + 28, &us, 4);
	memcpy(frame + 38, &host, 4);
	card_send(&test, 0, frame, 60);
	assert_true(receive(0x0806, 0) >= 42);
	assert_int_equal(word(got + 20), 2);
	assert_memory_equal(got + 28, &host, 4);
	assert_memory_equal(got + 32, our_mac, 6);
	memcpy(gateway, got + 22, 6);
}

/* DHCP: discover, and the offer of the first address. */
static void dhcp(void)
{
	static const uint8_t everybody[6] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
	uint8_t message[300] = { 1, 1, 6, 0, 1, 2, 3, 4 };
	static const uint8_t options[] = { 99, 130, 83, 99, 53, 1, 1, 255 };
	const uint32_t offered = htonl(NET(15));

	memcpy(message + 28, our_mac, 6);
	memcpy(message + 236, options, sizeof(options));
	send_udp(everybody, 0, 0xffffffff, 68, 67, message, sizeof(message));
	assert_true(receive(0x0800, 17) > 42 + 240);
	assert_int_equal(word(got + 36), 68);
	assert_int_equal(got[42], 2);
	assert_memory_equal(got + 42 + 4, message + 4, 4);
	assert_memory_equal(got + 42 + 16, &offered, 4);
}

static void test_slirp(void **state)
{
	char forward[64], answer[2000];
	const char *options[] = { "--slirp", forward, NULL };
	struct sockaddr_in from, to = { .sin_family = AF_INET };
	socklen_t from_len = sizeof(from);
	unsigned port, forwarded;
	uint8_t gateway[6];
	int udp, tcp;

	(void)state;
	forwarded = free_port(&tcp, SOCK_STREAM);
	close(tcp);
	snprintf(forward, sizeof(forward), "--hostfwd=tcp:127.0.0.1:%u-:22", forwarded);
	port = free_port(&udp, SOCK_DGRAM);
	net_run(&test, 1, options);
	card_open(&test, 0, 1, 2048, MERGEABLE | OFFLOADS);
	arp(gateway);
	dhcp();
	/* To a socket of the host and back: the checksum was filled in, or nobody would get it. */
	for (unsigned i = 0; i < 1400; i += 333) {
		memset(answer, (int)i, sizeof(answer));
		send_udp(gateway, NET(15), NET(2), 4000, port, answer, i + 1);
		assert_int_equal(recvfrom(udp, got, sizeof(got), 0, (void *)&from, &from_len),
				 i + 1);
		assert_memory_equal(got, answer, i + 1);
		assert_int_equal(sendto(udp, answer, i + 2, 0, (void *)&from, from_len), i + 2);
		receive(0x0800, 17);
		assert_int_equal(word(got + 38), 8 + i + 2);
		assert_int_equal(word(got + 36), 4000);
		assert_memory_equal(got + 42, answer, i + 2);
		assert_int_equal(sum(got + 34, 8 + i + 2, sum(got + 26, 8, 17 + 8 + i + 2)),
				 0xffff);
	}
	close(udp);
	/* A connection to the forwarded port is one to port 22 of the guest. */
	tcp = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	to.sin_port = htons((uint16_t)forwarded);
	to.sin_addr.s_addr = htonl(0x7f000001);
	assert_true(!connect(tcp, (void *)&to, sizeof(to)) || errno == EINPROGRESS);
	receive(0x0800, 6);
	assert_int_equal(word(got + 36), 22);
	assert_int_equal(got[47], 2); /* SYN */
	close(tcp);
	assert_int_equal(net_end(&test), 0);
}

/* The other side of the TAP. */

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		print_message("%s: not written\n", path);
	close(fd);
}

/* False: no right to. This process moves, and so does the program that it starts. */
static bool own_namespace(void)
{
	if (unshare(CLONE_NEWNET) && unshare(CLONE_NEWUSER | CLONE_NEWNET))
		return false;
	write_file("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
	return true;
}

static int open_tap_side(void)
{
	struct sockaddr_ll at = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL) };
	struct ifreq ifr = { .ifr_name = "belfry0", .ifr_flags = IFF_UP };
	struct timeval patience = { .tv_sec = 10 };
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL)), on = 1;

	assert_true(fd >= 0);
	assert_int_equal(ioctl(fd, SIOCSIFFLAGS, &ifr), 0);
	at.sll_ifindex = (int)if_nametoindex("belfry0");
	assert_int_equal(setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)), 0);
	assert_int_equal(bind(fd, (void *)&at, sizeof(at)), 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	return fd;
}

/* What the guest sent: with a header of 10 bytes. */
static uint32_t side_receive(int fd, unsigned ethertype, struct virtio_net_hdr *h, uint8_t *to)
{
	for (;;) {
		struct iovec iov[2] = { { h, sizeof(*h) }, { to, 70000 } };
		struct sockaddr_ll from;
		struct msghdr message = { .msg_iov = iov,
					  .msg_iovlen = 2,
					  .msg_name = &from,
					  .msg_namelen = sizeof(from) };
		ssize_t len = recvmsg(fd, &message, 0);

		if (len < 0)
			fail_msg("nothing came out of the TAP");
		if (from.sll_pkttype != PACKET_OUTGOING && word(to + 12) == ethertype)
			return (uint32_t)len - sizeof(*h);
	}
}

static void side_send(int fd, const struct virtio_net_hdr *h, const void *data, size_t len)
{
	struct iovec iov[2] = { { (void *)(uintptr_t)h, sizeof(*h) },
				{ (void *)(uintptr_t)data, len } };

	assert_int_equal(writev(fd, iov, 2), sizeof(*h) + len);
}

/* Plain frames of all sizes, both ways; a burst that needs more buffers than there are loses nothing. */
static void pass_frames(int fd)
{
	const struct virtio_net_hdr none = { 0 };
	struct virtio_net_hdr h;

	for (uint32_t len = 60; len <= 1514; len += 97) {
		memset(frame, (int)len, len);
		memset(frame, 0xff, 6);
		set_word(frame + 12, ETHERTYPE);
		card_send(&test, 0, frame, len);
		assert_int_equal(side_receive(fd, ETHERTYPE, &h, got), len);
		assert_memory_equal(got, frame, len);
		side_send(fd, &none, frame, len);
		assert_int_equal(receive(ETHERTYPE, 0), len);
		assert_memory_equal(got, frame, len);
	}
	for (unsigned i = 0; i < 400; i++) {
		set_word(frame + 14, i);
		side_send(fd, &none, frame, 600);
	}
	for (unsigned i = 0; i < 400; i++) {
		assert_int_equal(receive(ETHERTYPE, 0), 600);
		assert_int_equal(word(got + 14), i);
	}
}

/* TCP of @len bytes to be cut every 1000. */
static void put_tcp(unsigned len)
{
	unsigned pseudo =
		put_ip((const uint8_t[]){ 2, 2, 2, 2, 2, 2 }, 6, NET(15), NET(2), 20 + len);

	set_word(frame + 34, 1000);
	set_word(frame + 36, 2000);
	frame[46] = 0x50;
	frame[47] = 0x10;
	set_word(frame + 50, pseudo);
	for (unsigned i = 0; i < len; i++)
		frame[54 + i] = (uint8_t)(i * 7 + i / 256);
}

static void pass_offloads(int fd, bool guest_takes)
{
	const struct virtio_net_hdr out = { .flags = 1,
					    .gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
					    .hdr_len = 54,
					    .gso_size = 1000,
					    .csum_start = 34,
					    .csum_offset = 16 };
	struct virtio_net_hdr_v1 card_header = { 0 };
	struct virtio_net_hdr h;

	memcpy(&card_header, &out, sizeof(out));
	put_tcp(20000);
	side_send(fd, &out, frame, 54 + 20000);
	if (guest_takes) {
		assert_int_equal(receive(0x0800, 6), 54 + 20000);
		assert_int_equal(header.gso_type, VIRTIO_NET_HDR_GSO_TCPV4);
		assert_int_equal(header.gso_size, 1000);
		assert_int_equal(header.flags, 1);
		assert_memory_equal(got, frame, 54 + 20000);
		put_tcp(9000);
		assert_true(card_try_send(&test.cards[0], 0, &card_header, frame, 54 + 9000, 4096));
		assert_int_equal(side_receive(fd, 0x0800, &h, got), 54 + 9000);
		assert_int_equal(h.gso_type, VIRTIO_NET_HDR_GSO_TCPV4);
		assert_int_equal(h.gso_size, 1000);
		assert_memory_equal(got, frame, 54 + 9000);
		return;
	}
	for (unsigned i = 0; i < 20; i++) {
		assert_int_equal(receive(0x0800, 6), 54 + 1000);
		assert_int_equal(header.gso_type | header.flags, 0);
		assert_memory_equal(got + 54, frame + 54 + 1000 * i, 1000);
		assert_int_equal(sum(got + 34, 1020, sum(got + 26, 8, 6 + 1020)), 0xffff);
	}
}

static void run_tap(const char *const *options, unsigned pairs, uint64_t features)
{
	int fd;

	if (!own_namespace()) {
		print_message("no network namespace: no TAP\n");
		skip();
	}
	net_run(&test, 1, options);
	card_open(&test, 0, pairs, 2048, features);
	fd = open_tap_side();
	pass_frames(fd);
	pass_offloads(fd, features & BIT(VIRTIO_NET_F_GUEST_TSO4));
	close(fd);
	assert_int_equal(net_end(&test), 0);
}

static void test_tap(void **state)
{
	static const char *const options[] = { "--tap=belfry0", NULL };

	(void)state;
	run_tap(options, 1, MERGEABLE | OFFLOADS);
}

static void test_tap_plain(void **state)
{
	static const char *const options[] = { "--tap=belfry0", "--notify=poll", NULL };

	(void)state;
	run_tap(options, 1, 0);
}

/* The guest uses one of two pairs: all frames come there, whatever the kernel would spread them by. */
static void test_tap_queues(void **state)
{
	static const char *const options[] = { "--tap=belfry0", "--queues=2", "--notify=doorbell",
					       NULL };

	(void)state;
	run_tap(options, 1, MERGEABLE | BIT(VIRTIO_RING_F_EVENT_IDX) | BIT(VIRTIO_F_RING_PACKED));
}

/* Both pairs: frames of many flows, each once in one of them. */
static void test_tap_both(void **state)
{
	static const char *const options[] = { "--tap=belfry0", "--queues=2", NULL };
	const struct virtio_net_hdr none = { 0 };
	unsigned seen[2] = { 0 }, nr = 0;
	bool there[200] = { false };
	int fd;

	(void)state;
	if (!own_namespace())
		skip();
	net_run(&test, 1, options);
	card_open(&test, 0, 2, 2048, MERGEABLE | BIT(VIRTIO_NET_F_MQ));
	fd = open_tap_side();
	for (unsigned i = 0; i < 200; i++) {
		put_ip((const uint8_t[]){ 2, 2, 2, 2, 2, 2 }, 17, NET(2), NET(15), 100);
		set_word(frame + 34, 1000 + i * 7);
		set_word(frame + 36, 2000 + i * 13);
		set_word(frame + 50, i);
		side_send(fd, &none, frame, 134);
	}
	for (unsigned ms = 0; nr < 200 && ms < WAIT_MS; ms++) {
		for (unsigned p = 0; p < 2; p++) {
			while (card_poll(&test.cards[0], p, &header, got)) {
				if (word(got + 12) != 0x0800)
					continue;
				assert_false(there[word(got + 50)]);
				there[word(got + 50)] = true;
				seen[p]++;
				nr++;
			}
		}
		net_turn(&test);
		usleep(1000);
	}
	assert_int_equal(nr, 200);
	assert_true(seen[0] > 10 && seen[1] > 10);
	close(fd);
	assert_int_equal(net_end(&test), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_slirp),     cmocka_unit_test(test_tap),
		cmocka_unit_test(test_tap_plain), cmocka_unit_test(test_tap_queues),
		cmocka_unit_test(test_tap_both),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
