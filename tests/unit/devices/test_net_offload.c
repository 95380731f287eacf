/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Software checksums and segmentation, against a receiver written independently: it takes segments apart
 * byte by byte, sums word by word, and must get back the one packet that was sent.
 */
#include "../support.h"

#include <stdbool.h>

#include "devices/net/offload.h"

#define CSUM VIRTIO_NET_HDR_F_NEEDS_CSUM

/* Everything a packet can be. */
struct shape {
	bool v6, udp;
	unsigned tags, ip_options, l4_options; /* bytes; of IPv6, an extension header */
	unsigned payload, gso_size;
	uint8_t tcp_flags;
};

struct built {
	uint8_t bytes[NET_PACKET_MAX];
	uint32_t len, l3, l4, payload;
	struct net_meta meta;
	struct shape shape;
};

static unsigned word(const uint8_t *at)
{
	return at[0] * 256u + at[1];
}

static void set_word(uint8_t *at, unsigned value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
}

/* The Internet checksum as RFC 1071 describes it. */
static unsigned slow_sum(const uint8_t *at, unsigned len, unsigned sum)
{
	for (unsigned i = 0; i < len; i++)
		sum += i % 2 ? at[i] : at[i] * 256u;
	while (sum > 0xffff)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

static unsigned pseudo(const uint8_t *p, const struct built *b, unsigned l4_len)
{
	unsigned sum = (b->shape.udp ? 17 : 6) + l4_len % 0x10000 + l4_len / 0x10000;

	return b->shape.v6 ? slow_sum(p + b->l3 + 8, 32, sum) : slow_sum(p + b->l3 + 12, 8, sum);
}

static void build(struct built *b, const struct shape *s)
{
	unsigned ip_len = (s->v6 ? 40 : 20) + s->ip_options;
	unsigned l4_len = (s->udp ? 8 : 20) + s->l4_options;
	uint8_t *ip, *l4;

	memset(b, 0, sizeof(*b));
	b->shape = *s;
	b->l3 = 14 + 4 * s->tags;
	b->l4 = b->l3 + ip_len;
	b->payload = b->l4 + l4_len;
	b->len = b->payload + s->payload;
	for (unsigned i = 0; i < b->len; i++)
		b->bytes[i] = (uint8_t)(i * 31 + i / 251);
	for (unsigned i = 0; i < s->tags; i++)
		set_word(b->bytes + 12 + 4 * i, i + 1 == s->tags ? 0x8100 : 0x88a8);
	set_word(b->bytes + b->l3 - 2, s->v6 ? 0x86dd : 0x0800);
	ip = b->bytes + b->l3;
	l4 = b->bytes + b->l4;
	if (s->v6) {
		ip[0] = 0x60;
		set_word(ip + 4, b->len - b->l3 - 40);
		ip[6] = s->ip_options ? 0 : s->udp ? 17 : 6;
		if (s->ip_options)
			ip[40] = s->udp ? 17 : 6;
	} else {
		ip[0] = (uint8_t)(0x40 | ip_len / 4);
		set_word(ip + 2, b->len - b->l3);
		set_word(ip + 4, 0xfffe); /* wraps at the third segment */
		ip[9] = s->udp ? 17 : 6;
	}
	if (!s->udp) {
		set_word(l4 + 4, 0xffff); /* the sequence number wraps too */
		set_word(l4 + 6, 0xff00);
		l4[12] = (uint8_t)(l4_len / 4 << 4);
		l4[13] = s->tcp_flags;
	} else {
		set_word(l4 + 4, b->len - b->l4);
	}
	b->meta = (struct net_meta){ .flags = CSUM,
				     .gso_type = s->udp  ? NET_GSO_UDP_L4
						 : s->v6 ? 4
							 : 1,
				     .gso_size = (uint16_t)s->gso_size,
				     .csum_start = (uint16_t)b->l4,
				     .csum_offset = s->udp ? 6 : 16 };
	if (!s->gso_size)
		b->meta.gso_type = 0;
	set_word(l4 + b->meta.csum_offset, pseudo(b->bytes, b, b->len - b->l4));
}

/* The receiver. */
struct taken {
	const struct built *b;
	uint8_t payload[NET_PACKET_MAX];
	unsigned len, nr;
	unsigned stop_after;
};

static void check_segment(struct taken *t, const uint8_t *p, unsigned len)
{
	const struct built *b = t->b;
	unsigned payload = len - b->payload;
	bool last = t->len + payload == b->shape.payload;
	const uint8_t *ip = p + b->l3, *l4 = p + b->l4;

	assert_true(payload <= b->shape.gso_size || !b->shape.gso_size);
	if (!last && b->shape.gso_size)
		assert_int_equal(payload, b->shape.gso_size);
	assert_memory_equal(p, b->bytes, b->l3);
	if (b->shape.v6) {
		assert_int_equal(word(ip + 4), len - b->l3 - 40);
	} else {
		assert_int_equal(word(ip + 2), len - b->l3);
		if (b->shape.gso_size) {
			assert_int_equal(word(ip + 4), (0xfffe + t->nr) & 0xffff);
			assert_int_equal(slow_sum(ip, b->l4 - b->l3, 0), 0xffff);
		}
		assert_memory_equal(ip + 12, b->bytes + b->l3 + 12, b->l4 - b->l3 - 12);
	}
	if (b->shape.udp) {
		assert_int_equal(word(l4 + 4), len - b->l4);
		assert_true(word(l4 + 6) != 0);
	} else {
		uint32_t sequence = 0xffffff00u + t->len;
		uint8_t flags = b->shape.tcp_flags;

		assert_int_equal(word(l4 + 4), sequence >> 16);
		assert_int_equal(word(l4 + 6), sequence & 0xffff);
		if (!last)
			flags &= (uint8_t)~0x09; /* FIN, PSH */
		if (t->nr)
			flags &= 0x7f; /* CWR */
		assert_int_equal(l4[13], flags);
		assert_memory_equal(l4 + 20, b->bytes + b->l4 + 20, b->shape.l4_options);
	}
	/* Everything but the pseudo header must sum up to all ones with it. */
	assert_int_equal(slow_sum(l4, len - b->l4, pseudo(p, b, len - b->l4)), 0xffff);
}

static bool take(void *opaque, const struct net_packet *packet)
{
	struct taken *t = opaque;
	static uint8_t p[NET_PACKET_MAX];
	static const struct net_meta plain;

	assert_memory_equal(&packet->meta, &plain, sizeof(plain));
	net_gather(p, packet->iov, packet->nr_iov, 0, packet->len);
	check_segment(t, p, packet->len);
	memcpy(t->payload + t->len, p + t->b->payload, packet->len - t->b->payload);
	t->len += packet->len - t->b->payload;
	t->nr++;
	return t->nr != t->stop_after;
}

static void cut(const struct shape *s)
{
	static struct built b;
	static struct taken t;
	static uint8_t copy[NET_PACKET_MAX];
	unsigned expected = 1;

	build(&b, s);
	memset(&t, 0, sizeof(t));
	t.b = &b;
	memcpy(copy, b.bytes, b.len);
	assert_true(net_offload(copy, b.len, &b.meta, 0, take, &t));
	if (s->gso_size && s->payload)
		expected = (s->payload + s->gso_size - 1) / s->gso_size;
	assert_int_equal(t.nr, expected);
	assert_int_equal(t.len, s->payload);
	assert_memory_equal(t.payload, b.bytes + b.payload, s->payload);
}

static void test_segments(void **state)
{
	static const unsigned payloads[] = { 0, 1, 99, 100, 101, 200, 1459, 1460, 1461, 30000 };
	static const unsigned sizes[] = { 100, 536, 1459, 1460 };
	struct shape s = { 0 };

	(void)state;
	for (unsigned kind = 0; kind < 4 * 3 * 2 * 3; kind++) {
		s.v6 = kind & 1;
		s.udp = kind & 2;
		s.tags = kind / 4 % 3;
		s.ip_options = kind / 12 % 2 ? 8 : 0;
		s.l4_options = s.udp ? 0 : kind / 24 % 3 * 12;
		s.tcp_flags = kind % 2 ? 0x99 : 0x18;
		for (unsigned i = 0; i < sizeof(payloads) / sizeof(payloads[0]); i++) {
			s.payload = payloads[i];
			s.gso_size = sizes[(i + kind) % 4];
			cut(&s);
		}
	}
	cut(&(struct shape){ .payload = 65535 - 40, .gso_size = 1448, .tcp_flags = 0x10 });
	cut(&(struct shape){ .udp = true, .payload = NET_SEGMENTS_MAX, .gso_size = 1 });
}

/* One checksum to fill in, of odd and even lengths, and one that comes out as zero. */
static void test_checksums(void **state)
{
	struct shape s = { 0 };
	static struct built b;
	static struct taken t;

	(void)state;
	for (unsigned i = 0; i < 600; i++) {
		s = (struct shape){ .v6 = i & 1, .udp = i & 2, .payload = i };
		cut(&s);
	}
	s = (struct shape){ .udp = true, .payload = 2 };
	build(&b, &s);
	set_word(b.bytes + b.payload, 0);
	set_word(b.bytes + b.payload, 0xffff - slow_sum(b.bytes + b.l4, b.len - b.l4, 0));
	memset(&t, 0, sizeof(t));
	t.b = &b;
	assert_true(net_offload(b.bytes, b.len, &b.meta, 0, take, &t));
	assert_int_equal(t.nr, 1);
	assert_int_equal(word(b.bytes + b.l4 + 6), 0xffff);
}

static bool count(void *opaque, const struct net_packet *packet)
{
	(void)packet;
	++*(unsigned *)opaque;
	return true;
}

/* A packet that is not what its header says is refused whole. */
static void refuse(struct built *b, const char *what)
{
	unsigned nr = 0;

	if (net_offload(b->bytes, b->len, &b->meta, 0, count, &nr) || nr)
		fail_msg("%s: taken apart", what);
}

static void test_refused(void **state)
{
	static const struct shape tcp = { .payload = 4000, .gso_size = 1000 };
	static const struct shape udp6 = {
		.v6 = true, .udp = true, .payload = 4000, .gso_size = 1000
	};
	static struct built b;

	(void)state;
#define WITH(shape, change)  \
	build(&b, &(shape)); \
	change;              \
	refuse(&b, #change)
	WITH(tcp, b.bytes[12] = 9);
	WITH(tcp, b.bytes[b.l3] = 0x46);
	WITH(tcp, b.bytes[b.l3] = 0x35);
	WITH(tcp, b.bytes[b.l3] = 0x65);
	WITH(tcp, b.bytes[b.l3 + 9] = 17);
	WITH(tcp, b.bytes[b.l4 + 12] = 0x40);
	WITH(tcp, b.meta.csum_start = (uint16_t)b.l3);
	WITH(tcp, b.meta.csum_start = (uint16_t)(b.l4 + 2));
	WITH(tcp, b.meta.csum_start = (uint16_t)(b.len - 2));
	WITH(tcp, b.meta.csum_offset = 6);
	WITH(tcp, b.meta.gso_type = 4);
	WITH(tcp, b.meta.gso_type = NET_GSO_UDP_L4);
	WITH(tcp, b.meta.gso_size = 1);
	WITH(tcp, b.len = b.l4 + 19);
	WITH(tcp, b.len = 14);
	WITH(udp6, b.bytes[b.l3 + 6] = 6);
	WITH(udp6, b.bytes[b.l3] = 0x45);
	WITH(udp6, b.meta.csum_offset = 16);
	WITH(udp6, b.len = b.l4 + 7);
	/* Headers longer than any: an IPv6 packet with extensions up to 300 bytes. */
	WITH(udp6, b.meta.csum_start = 300);
	/* Three tags. */
	build(&b, &(struct shape){ .tags = 2, .payload = 4000, .gso_size = 1000 });
	set_word(b.bytes + b.l3 - 2, 0x8100);
	refuse(&b, "three tags");
	build(&b, &(struct shape){ .udp = true, .payload = NET_SEGMENTS_MAX + 1, .gso_size = 1 });
	refuse(&b, "too many segments");
}

/* Any bytes behind any header that passed the checks: nothing outside is read (AddressSanitizer). */
static void test_random(void **state)
{
	uint8_t *packet;
	unsigned nr = 0;

	(void)state;
	srand(7);
	for (unsigned i = 0; i < 200000; i++) {
		uint32_t len = 14 + (uint32_t)rand() % 200;
		struct virtio_net_hdr_v1 raw;
		struct net_meta meta;

		packet = malloc(len);
		for (uint32_t b = 0; b < len; b++)
			packet[b] = (uint8_t)(rand() % 4 ? 0x45 : rand());
		if (rand() % 2)
			set_word(packet + 12, rand() % 2 ? 0x86dd : 0x0800);
		raw = (struct virtio_net_hdr_v1){ .flags = 1,
						  .gso_type = (uint8_t)(1 + rand() % 5),
						  .gso_size = (uint16_t)(1 + rand() % 50),
						  .csum_start = (uint16_t)(14 + rand() % 80),
						  .csum_offset = rand() % 2 ? 16 : 6 };
		if (net_meta_read(&raw, len, ~0ull, &meta))
			net_offload(packet, len, &meta, 0, count, &nr);
		free(packet);
	}
	assert_true(nr > 0);
}

/* The receiver may stop in the middle, and may take what was sent as it is. */
static void test_receiver(void **state)
{
	static const struct shape tcp = { .payload = 4000, .gso_size = 1000, .tcp_flags = 0x10 };
	static struct built b;
	static struct taken t;
	unsigned nr = 0;

	(void)state;
	build(&b, &tcp);
	t = (struct taken){ .b = &b, .stop_after = 2 };
	assert_true(net_offload(b.bytes, b.len, &b.meta, 0, take, &t));
	assert_int_equal(t.nr, 2);
	build(&b, &tcp);
	assert_true(net_offload(b.bytes, b.len, &b.meta,
				bf_bit(VIRTIO_NET_F_GUEST_CSUM) | bf_bit(VIRTIO_NET_F_GUEST_TSO4),
				count, &nr));
	assert_int_equal(nr, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_segments), cmocka_unit_test(test_checksums),
		cmocka_unit_test(test_refused),  cmocka_unit_test(test_random),
		cmocka_unit_test(test_receiver),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
