/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Nothing that the driver can write is read twice: every field of rings, tables and request headers is
 * changed after every single access of the device to that memory (trap.h).
 *
 * The oracle needs no knowledge of the code: whoever reads a field once gets either its old value or its new
 * one. So what comes out when a field changes in the middle is what comes out when it never changed, or
 * what comes out when it had the new value from the beginning; anything else was made of both.
 * (CVE-2020-14375, the repair of CVE-2024-11614, DPDK's "length changed between translate and copy".)
 */
#include "../unit/support.h"

#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>

#include <belfry/memory.h>
#include <belfry/virtq.h>

#include "devices/blk/request.h"
#include "devices/net/tx.h"
#include "trap.h"

#define PAGES      2u
#define WATCHED    (PAGES * 4096u)
#define MEMORY     (16u * 4096u)
#define UVA        0x7f0000000000ull
#define SIZE       8u
#define AVAIL_AT   1024u
#define USED_AT    2048u
#define TABLE_AT   4096u
#define HEADER_AT  4096u
#define BUFFERS    0x4000u /* not watched */
#define MAX_PIECES 12u

struct field {
	unsigned at, size;
	const char *name;
};

/* What the code under test makes of it: compared as bytes, so always zeroed first. */
struct outcome {
	int ret;
	uint64_t word[8];
	unsigned nr;
	struct {
		uint64_t offset, len;
	} piece[MAX_PIECES];
};

struct scenario {
	const char *name;
	void (*fill)(uint8_t *image);
	void (*run)(struct outcome *outcome);
	const struct field *fields;
	unsigned nr_fields;
	uint64_t features;
};

static struct bf_memory *memory;
static uint8_t *hva, *alias; /* as the device has it, and as the driver has it */
static const struct scenario *now;

/* One field gets a value, after access @when; 0: before the first. */
static struct {
	const struct field *field;
	uint64_t value;
	unsigned when;
} change;

static void apply(void)
{
	memcpy(alias + change.field->at, &change.value, change.field->size);
}

static void on_access(void *opaque, unsigned nr, size_t offset, bool write)
{
	(void)opaque;
	(void)offset;
	(void)write;
	if (change.field && nr == change.when)
		apply();
}

struct raw_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t a, b;
};

static void put_desc(uint8_t *image, unsigned at, uint64_t addr, uint32_t len, uint16_t a,
		     uint16_t b)
{
	const struct raw_desc desc = { addr, len, a, b };

	memcpy(image + at, &desc, sizeof(desc));
}

static void put16(uint8_t *image, unsigned at, uint16_t value)
{
	memcpy(image + at, &value, sizeof(value));
}

#define DESC_FIELDS(at, name)                                                                     \
	{ (at), 8, name ".addr" }, { (at) + 8, 4, name ".len" }, { (at) + 12, 2, name ".flags" }, \
	{                                                                                         \
		(at) + 14, 2, name ".next"                                                        \
	}
#define PACKED_FIELDS(at, name)                                                                \
	{ (at), 8, name ".addr" }, { (at) + 8, 4, name ".len" }, { (at) + 12, 2, name ".id" }, \
	{                                                                                      \
		(at) + 14, 2, name ".flags"                                                    \
	}

static const struct field split_fields[] = {
	{ AVAIL_AT, 2, "avail.flags" },     { AVAIL_AT + 2, 2, "avail.idx" },
	{ AVAIL_AT + 4, 2, "avail.ring" },  DESC_FIELDS(0, "desc[0]"),
	DESC_FIELDS(16, "desc[1]"),         DESC_FIELDS(32, "desc[2]"),
	{ AVAIL_AT + 20, 2, "used_event" },
};

static void fill_split(uint8_t *image)
{
	put_desc(image, 0, BUFFERS, 64, VRING_DESC_F_NEXT, 1);
	put_desc(image, 16, BUFFERS + 256, 512, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 2);
	put_desc(image, 32, BUFFERS + 1024, 1, VRING_DESC_F_WRITE, 0);
	put16(image, AVAIL_AT + 2, 1);
}

/* An empty piece at the end: no short way takes it, but a walk, which leaves it out. */
static void fill_split_walked(uint8_t *image)
{
	fill_split(image);
	put_desc(image, 32, BUFFERS + 1024, 1, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 3);
	put_desc(image, 48, BUFFERS + 2048, 0, VRING_DESC_F_WRITE, 0);
}

static const struct field plain_fields[] = {
	{ AVAIL_AT + 2, 2, "avail.idx" },
	{ AVAIL_AT + 4, 2, "avail.ring" },
	DESC_FIELDS(0, "desc[0]"),
};

/* One descriptor: the engines have a shorter way for it. */
static void fill_split_plain(uint8_t *image)
{
	put_desc(image, 0, BUFFERS + 128, 64, VRING_DESC_F_WRITE, 0);
	put16(image, AVAIL_AT + 2, 1);
}

static const struct field indirect_fields[] = {
	DESC_FIELDS(0, "desc[0]"),
	DESC_FIELDS(TABLE_AT, "table[0]"),
	DESC_FIELDS(TABLE_AT + 16, "table[1]"),
	{ AVAIL_AT + 4, 2, "avail.ring" },
};

static void fill_split_indirect(uint8_t *image)
{
	put_desc(image, 0, TABLE_AT, 32, VRING_DESC_F_INDIRECT, 0);
	put_desc(image, TABLE_AT, BUFFERS, 64, VRING_DESC_F_NEXT, 1);
	put_desc(image, TABLE_AT + 16, BUFFERS + 256, 512, VRING_DESC_F_WRITE, 0);
	put16(image, AVAIL_AT + 2, 1);
}

static void fill_split_indirect_walked(uint8_t *image)
{
	fill_split_indirect(image);
	put_desc(image, 0, TABLE_AT, 48, VRING_DESC_F_INDIRECT, 0);
	put_desc(image, TABLE_AT + 16, BUFFERS + 256, 512, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE,
		 2);
	put_desc(image, TABLE_AT + 32, BUFFERS + 2048, 0, VRING_DESC_F_WRITE, 0);
}

#define AVAILABLE (1u << 7)

static const struct field packed_fields[] = {
	PACKED_FIELDS(0, "desc[0]"),
	PACKED_FIELDS(16, "desc[1]"),
	PACKED_FIELDS(32, "desc[2]"),
};

static void fill_packed_plain(uint8_t *image)
{
	put_desc(image, 0, BUFFERS + 128, 64, 3, VRING_DESC_F_WRITE | AVAILABLE);
}

static void fill_packed(uint8_t *image)
{
	put_desc(image, 0, BUFFERS, 64, 3, VRING_DESC_F_NEXT | AVAILABLE);
	put_desc(image, 16, BUFFERS + 256, 512, 3,
		 VRING_DESC_F_NEXT | VRING_DESC_F_WRITE | AVAILABLE);
	put_desc(image, 32, BUFFERS + 1024, 1, 3, VRING_DESC_F_WRITE | AVAILABLE);
}

static void fill_packed_walked(uint8_t *image)
{
	fill_packed(image);
	put_desc(image, 32, BUFFERS + 1024, 1, 3,
		 VRING_DESC_F_NEXT | VRING_DESC_F_WRITE | AVAILABLE);
	put_desc(image, 48, BUFFERS + 2048, 0, 3, VRING_DESC_F_WRITE | AVAILABLE);
}

static const struct field packed_indirect_fields[] = {
	PACKED_FIELDS(0, "desc[0]"),
	PACKED_FIELDS(TABLE_AT, "table[0]"),
	PACKED_FIELDS(TABLE_AT + 16, "table[1]"),
};

static void fill_packed_indirect(uint8_t *image)
{
	put_desc(image, 0, TABLE_AT, 32, 3, VRING_DESC_F_INDIRECT | AVAILABLE);
	put_desc(image, TABLE_AT, BUFFERS, 64, 0, 0);
	put_desc(image, TABLE_AT + 16, BUFFERS + 256, 512, 0, VRING_DESC_F_WRITE);
}

static void fill_packed_indirect_walked(uint8_t *image)
{
	fill_packed_indirect(image);
	put_desc(image, 0, TABLE_AT, 48, 3, VRING_DESC_F_INDIRECT | AVAILABLE);
	put_desc(image, TABLE_AT + 32, BUFFERS + 2048, 0, 0, VRING_DESC_F_WRITE);
}

static void keep_pieces(struct outcome *outcome, const struct iovec *iov, unsigned nr)
{
	outcome->nr = nr;
	for (unsigned i = 0; i < nr; i++) {
		outcome->piece[i].offset = (uint64_t)((uint8_t *)iov[i].iov_base - hva);
		outcome->piece[i].len = iov[i].iov_len;
		/* Whatever it is made of, it lies in memory. */
		assert_true(iov[i].iov_len <= MEMORY &&
			    outcome->piece[i].offset <= MEMORY - iov[i].iov_len);
	}
}

static void run_ring(struct outcome *outcome)
{
	const struct bf_virtq_setup setup = {
		.memory = memory,
		.size = SIZE,
		.base = bf_has(now->features, VIRTIO_F_RING_PACKED) ? BF_VIRTQ_PACKED_BASE : 0,
		.desc_uva = UVA,
		.avail_uva = UVA + AVAIL_AT,
		.used_uva = UVA + USED_AT,
		.features = now->features,
		.kick_fd = -1,
		.call_fd = -1,
		.err_fd = -1,
	};
	struct bf_virtq *vq = bf_virtq_new(0);
	struct iovec iov[MAX_PIECES];
	struct bf_chain chain;

	assert_non_null(vq);
	assert_int_equal(bf_virtq_start(vq, &setup, NULL), 0);
	trap_on(hva, WATCHED, on_access, NULL);
	outcome->ret = bf_virtq_pop_batch(vq, &chain, 1, iov, MAX_PIECES);
	outcome->word[7] = trap_off();
	if (outcome->ret > 0) {
		outcome->word[0] = chain.head;
		outcome->word[1] = chain.nr_out;
		outcome->word[2] = chain.nr_in;
		outcome->word[3] = chain.out_len;
		outcome->word[4] = chain.in_len;
		keep_pieces(outcome, iov, (unsigned)chain.nr_out + chain.nr_in);
		bf_virtq_push(vq, chain.head, 0);
	}
	bf_virtq_free(vq);
}

static const struct field blk_fields[] = {
	{ HEADER_AT, 4, "type" },
	{ HEADER_AT + 4, 4, "reserved" },
	{ HEADER_AT + 8, 8, "sector" },
};

static void fill_blk(uint8_t *image)
{
	const uint64_t sector = 2;

	image[HEADER_AT] = VIRTIO_BLK_T_OUT;
	memcpy(image + HEADER_AT + 8, &sector, sizeof(sector));
}

static void run_blk(struct outcome *outcome)
{
	const struct blk_disk disk = { .nr_sectors = 16, .serial = "serial" };
	struct iovec pieces[] = { { hva + HEADER_AT, 16 },
				  { hva + BUFFERS, 512 },
				  { hva + BUFFERS + 4096, 21 } };
	struct bf_chain chain = {
		.iov = pieces, .nr_out = 2, .nr_in = 1, .out_len = 16 + 512, .in_len = 21
	};
	struct iovec iov[MAX_PIECES];
	struct blk_request req = { 0 };

	trap_on(hva, WATCHED, on_access, NULL);
	outcome->ret = blk_request_parse(&disk, &chain, iov, MAX_PIECES, &req);
	outcome->word[7] = trap_off();
	outcome->word[0] = (uint64_t)req.op;
	outcome->word[1] = req.status;
	outcome->word[2] = req.offset;
	outcome->word[3] = req.len;
	outcome->word[4] = req.written;
	if (req.op == BLK_OP_WRITE || req.op == BLK_OP_READ)
		keep_pieces(outcome, iov, req.nr_iov);
}

static const struct field net_fields[] = {
	{ HEADER_AT, 1, "flags" },          { HEADER_AT + 1, 1, "gso_type" },
	{ HEADER_AT + 2, 2, "hdr_len" },    { HEADER_AT + 4, 2, "gso_size" },
	{ HEADER_AT + 6, 2, "csum_start" }, { HEADER_AT + 8, 2, "csum_offset" },
};

static void fill_net(uint8_t *image)
{
	const struct virtio_net_hdr_v1 header = {
		.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
		.hdr_len = 54,
		.gso_size = 100,
		.csum_start = 34,
		.csum_offset = 16,
	};

	memcpy(image + HEADER_AT, &header, sizeof(header));
}

static void open_packet(struct outcome *outcome, struct iovec *pieces, unsigned nr, uint64_t len)
{
	static struct net_tx tx;
	struct bf_chain chain = { .iov = pieces, .nr_out = (uint16_t)nr, .out_len = len };
	struct net_packet packet;
	bool opened;

	net_tx_start(&tx, NULL, now->features);
	memset(&packet, 0, sizeof(packet));
	trap_on(hva, WATCHED, on_access, NULL);
	opened = net_tx_open(&tx, &chain, &packet);
	outcome->word[7] = trap_off();
	outcome->ret = opened;
	if (!opened)
		return;
	outcome->word[0] = packet.meta.flags | (uint64_t)packet.meta.gso_type << 8 |
			   (uint64_t)packet.meta.hdr_len << 16 |
			   (uint64_t)packet.meta.gso_size << 32;
	outcome->word[1] = packet.meta.csum_start | (uint64_t)packet.meta.csum_offset << 16;
	outcome->word[2] = packet.len;
	keep_pieces(outcome, packet.iov, packet.nr_iov);
}

static void run_net(struct outcome *outcome)
{
	struct iovec pieces[] = { { hva + HEADER_AT, 12 + 400 } };

	open_packet(outcome, pieces, 1, 412);
}

static void run_net_spread(struct outcome *outcome)
{
	struct iovec pieces[] = { { hva + HEADER_AT, 4 },
				  { hva + HEADER_AT + 4, 8 },
				  { hva + BUFFERS, 400 } };

	open_packet(outcome, pieces, 3, 412);
}

#define B(bit) (1ull << (bit))
#define ALL_NET                                                                     \
	(B(VIRTIO_F_VERSION_1) | B(VIRTIO_NET_F_CSUM) | B(VIRTIO_NET_F_HOST_TSO4) | \
	 B(VIRTIO_NET_F_HOST_TSO6))
#define FIELDS(f) f, sizeof(f) / sizeof((f)[0])
#define INDIRECT  B(VIRTIO_RING_F_INDIRECT_DESC)
#define EVENT     B(VIRTIO_RING_F_EVENT_IDX)
#define PACKED    B(VIRTIO_F_RING_PACKED)

static const struct scenario scenarios[] = {
	{ "split chain", fill_split, run_ring, FIELDS(split_fields), INDIRECT },
	{ "split chain, event index", fill_split, run_ring, FIELDS(split_fields),
	  INDIRECT | EVENT },
	{ "split, indirect table", fill_split_indirect, run_ring, FIELDS(indirect_fields),
	  INDIRECT },
	{ "split chain, walked", fill_split_walked, run_ring, FIELDS(split_fields), INDIRECT },
	{ "split, indirect table, walked", fill_split_indirect_walked, run_ring,
	  FIELDS(indirect_fields), INDIRECT },
	{ "split, one descriptor", fill_split_plain, run_ring, FIELDS(plain_fields), INDIRECT },
	{ "packed, one descriptor", fill_packed_plain, run_ring, FIELDS(packed_fields),
	  INDIRECT | PACKED },
	{ "packed chain", fill_packed, run_ring, FIELDS(packed_fields), INDIRECT | PACKED },
	{ "packed, indirect table", fill_packed_indirect, run_ring, FIELDS(packed_indirect_fields),
	  INDIRECT | PACKED },
	{ "packed chain, walked", fill_packed_walked, run_ring, FIELDS(packed_fields),
	  INDIRECT | PACKED },
	{ "packed, indirect table, walked", fill_packed_indirect_walked, run_ring,
	  FIELDS(packed_indirect_fields), INDIRECT | PACKED },
	{ "blk header", fill_blk, run_blk, FIELDS(blk_fields), 0 },
	{ "net header", fill_net, run_net, FIELDS(net_fields), ALL_NET },
	{ "net header in pieces", fill_net, run_net_spread, FIELDS(net_fields), ALL_NET },
};

static struct outcome run(const struct scenario *scenario)
{
	struct outcome outcome;

	memset(&outcome, 0, sizeof(outcome));
	memset(alias, 0, WATCHED);
	scenario->fill(alias);
	now = scenario;
	if (change.field && !change.when)
		apply();
	scenario->run(&outcome);
	return outcome;
}

/* Accesses differ in number with what was read; they are not part of what came out. */
static bool same(struct outcome a, struct outcome b)
{
	a.word[7] = b.word[7] = 0;
	return !memcmp(&a, &b, sizeof(a));
}

/* Every value for the field that is worth it, with what tells apart "available" left as it is. */
static unsigned nr_values(void)
{
	return 9;
}

static uint64_t value(const struct scenario *s, const struct field *field, unsigned i)
{
	static const uint64_t values[] = { 0, 1, 2, 3, 4, 64, SIZE, 0xfff0, UINT64_MAX };
	uint64_t v = values[i];

	if (bf_has(s->features, VIRTIO_F_RING_PACKED) && strstr(field->name, "desc") &&
	    strstr(field->name, ".flags"))
		v = (v & 7) | AVAILABLE;
	if (strstr(field->name, ".addr"))
		v = i % 2 ? v : BUFFERS + 512 * i;
	return v;
}

static unsigned try_field(const struct scenario *s, const struct field *field,
			  const struct outcome *clean)
{
	unsigned tries = 0;

	for (unsigned i = 0; i < nr_values(); i++) {
		struct outcome before, during;

		change.field = field;
		change.value = value(s, field, i);
		change.when = 0;
		before = run(s);
		for (change.when = 1; change.when <= clean->word[7]; change.when++) {
			during = run(s);
			tries++;
			if (same(during, *clean) || same(during, before))
				continue;
			fail_msg(
				"%s: %s becomes 0x%llx after access %u: what comes out (%d) was made "
				"of the old value (%d) and of the new one (%d)",
				s->name, field->name, (unsigned long long)change.value, change.when,
				during.ret, clean->ret, before.ret);
		}
	}
	change.field = NULL;
	return tries;
}

static void no_field_is_read_twice(void **state)
{
	int fd = make_memfd("bf-safety", MEMORY, 0);
	const struct bf_memory_region region = { .gpa = 0, .uva = UVA, .size = MEMORY, .fd = fd };

	(void)state;
	if (!trap_possible())
		skip();
	alias = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true(alias != MAP_FAILED);
	assert_int_equal(bf_memory_new(&region, 1, &memory), 0);
	hva = bf_memory_from_gpa(memory, 0, MEMORY);
	assert_non_null(hva);
	for (unsigned i = 0; i < sizeof(scenarios) / sizeof(scenarios[0]); i++) {
		const struct scenario *s = &scenarios[i];
		struct outcome clean;
		unsigned tries = 0;

		change.field = NULL;
		clean = run(s);
		/* The scenario has to be served, and its accesses seen. */
		assert_true(clean.ret >= 0 && clean.nr && clean.word[7]);
		for (unsigned f = 0; f < s->nr_fields; f++)
			tries += try_field(s, &s->fields[f], &clean);
		print_message("# %s: %u accesses, %u fields, %u changes in the middle\n", s->name,
			      (unsigned)clean.word[7], s->nr_fields, tries);
	}
	bf_memory_unref(memory);
	munmap(alias, MEMORY);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(no_field_is_read_twice) };

	return cmocka_run_group_tests_name("double_fetch", tests, NULL, NULL);
}
