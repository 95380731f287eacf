/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A driver on another CPU that changes every field that it shares with the device, all the time, while the
 * device works: descriptors, available entries and indices, flags, event areas, indirect tables, request
 * headers, packet headers, the in-flight region. What test_double_fetch.c does at each access in turn, this
 * does everywhere at once and at full speed.
 *
 * Oracles: the sanitizers; every piece lies in guest memory, lengths add up, no head comes twice
 * (fuzz/guest.c); a block request stays inside the disk and its chain, a packet's header inside the packet;
 * and the device gets something done.
 */
#include "../unit/support.h"

#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "devices/blk/request.h"
#include "devices/net/tx.h"
#include "lib/mem/inflight.h"
#include "tests/fuzz/guest.h"

#define SIZE    8u
#define RUN_NS  250000000ull
#define HEADERS 0x2000u /* request and packet headers, in the low part of memory */

#define INDIRECT (1ull << VIRTIO_RING_F_INDIRECT_DESC)
#define EVENT    (1ull << VIRTIO_RING_F_EVENT_IDX)
#define PACKED   (1ull << VIRTIO_F_RING_PACKED)

static struct guest guest;
static uint8_t *inflight;
static atomic_bool stop_flipping;
static atomic_ullong flips;

struct raw_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t a, b;
};

/* Mostly what a device takes, sometimes what it may not. */
static struct raw_desc some_desc(unsigned *seed, bool packed, unsigned i)
{
	static const uint64_t addresses[] = { HEADERS,       HEADERS + 16, 0x1000,
					      FIRST_END - 8, TABLES,       HOLE - 8 };
	static const uint32_t lengths[] = { 16, 12, 64, 512, 513, 32 };
	unsigned r = (unsigned)rand_r(seed);
	struct raw_desc desc = { addresses[r % 6], lengths[r / 8 % 6], 0, 0 };
	uint16_t flags = (uint16_t)(r >> 8 & 3);

	if (r >> 10 & 1 && desc.addr == TABLES) {
		flags = VRING_DESC_F_INDIRECT;
		desc.len = 32;
	}
	if (!(r >> 11 & 63))
		desc.addr = UINT64_MAX - (r & 0xff);
	if (!(r >> 17 & 63))
		desc.len = UINT32_MAX;
	if (packed) {
		desc.a = (uint16_t)(r >> 23 & 31 ? i : r & 15);
		desc.b = flags | (r >> 28 & 1 ? 1u << 7 : 1u << 15);
	} else {
		desc.a = flags;
		desc.b = (uint16_t)(r >> 23 & 7);
	}
	return desc;
}

static void store16(uint8_t *at, uint16_t value)
{
	__atomic_store_n((uint16_t *)(void *)at, value, __ATOMIC_RELAXED);
}

static void flip_ring(unsigned *seed, bool packed)
{
	unsigned r = (unsigned)rand_r(seed), i = r % SIZE;
	struct raw_desc desc = some_desc(seed, packed, i);
	uint8_t *driver = guest.ring + DRIVER - RING;

	switch (r >> 4 & 7) {
	case 0:
	case 1:
		*(volatile struct raw_desc *)(void *)(guest.ring + 16 * i) = desc;
		break;
	case 2: /* one field of it */
		*(volatile uint32_t *)(void *)(guest.ring + 16 * i + (r >> 8 & 3) * 4) =
			r >> 10 & 1 ? desc.len : (uint32_t)rand_r(seed);
		break;
	case 3:
		*(volatile struct raw_desc *)(void *)(guest.ring + TABLES - RING + 16 * (i & 3)) =
			some_desc(seed, packed, i);
		break;
	case 4: /* available entry, or the driver's event area */
		store16(driver + 4 + 2 * i, (uint16_t)(r >> 8 & 0xff ? r >> 8 & 7 : r));
		break;
	case 5: /* an available index; rarely, since it nearly always breaks the ring */
		if (!(r >> 8 & 0xff))
			store16(driver + 2, (uint16_t)(r >> 16));
		break;
	case 6: /* flags, used_event; and what is the device's to write */
		store16(r >> 8 & 1 ? driver : driver + 4 + 2 * SIZE, (uint16_t)(r >> 9));
		break;
	default:
		store16(guest.ring + DEVICE - RING + (r >> 8 & 63) * 2, (uint16_t)(r >> 14));
	}
}

static void flip_rest(unsigned *seed)
{
	unsigned r = (unsigned)rand_r(seed);

	/* Headers: small numbers are the ones that mean something. */
	guest.low[HEADERS + (r & 31)] = (uint8_t)(r >> 8 & 1 ? r >> 9 & 7 : r >> 9);
	inflight[(r >> 17) % 512] = (uint8_t)(r >> 9);
}

struct flipper {
	bool packed;
	unsigned seed;
};

static void *flip(void *opaque)
{
	struct flipper *flipper = opaque;
	uint64_t nr = 0;

	while (!atomic_load_explicit(&stop_flipping, memory_order_relaxed)) {
		flip_ring(&flipper->seed, flipper->packed);
		flip_rest(&flipper->seed);
		nr++;
	}
	atomic_fetch_add(&flips, nr);
	return NULL;
}

/* Of this thread: what others do with the machine is not measured. */
static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* What a driver does at a reset: a good ring, which is not left alone even while it is being made. */
static uint32_t fill_ring(bool packed)
{
	uint8_t *driver = guest.ring + DRIVER - RING;
	uint16_t used = *(uint16_t *)(void *)(guest.ring + DEVICE - RING + 2);

	for (uint16_t i = 0; i < SIZE; i++) {
		const struct raw_desc desc = { 0x1000u * i, 64, packed ? i : i % 2 * 2u,
					       packed ? 1u << 7 : 0 };

		*(volatile struct raw_desc *)(void *)(guest.ring + 16 * i) = desc;
		store16(driver + 4 + 2 * i, i);
	}
	store16(driver + 2, (uint16_t)(used + SIZE));
	return packed ? BF_VIRTQ_PACKED_BASE : used;
}

/* Restarted whenever the ring breaks: a driver that resets its device. */
static void serve_while_flipped(uint64_t features, bool tracked)
{
	struct flipper flipper = { features & PACKED, 7 };
	const struct bf_virtq_extras extras = {
		.log_fd = -1, .post_fd = -1, .inflight = inflight, .inflight_size = SIZE
	};
	uint64_t end = now_ns() + RUN_NS, popped = guest.popped, slowest = 0, starts = 0;
	pthread_t thread;
	unsigned seed = 3;

	memset(guest.ring, 0, MEMORY_END - RING);
	memset(inflight, 0, 512);
	atomic_store(&stop_flipping, false);
	assert_int_equal(pthread_create(&thread, NULL, flip, &flipper), 0);
	for (uint64_t now = now_ns(); now < end;) {
		uint64_t before = now;
		uint32_t base = fill_ring(features & PACKED);

		/* Left as the last run and the driver made it, or fresh. */
		if (starts++ % 4)
			memset(inflight, 0, 512);
		if (guest_start_with(&guest, SIZE, base, features, tracked ? &extras : NULL)) {
			for (unsigned i = 0; i < 64 && !bf_virtq_broken(guest.vq, NULL); i++)
				guest_do(&guest, (uint8_t)rand_r(&seed) & 0x7f);
			guest_end(&guest);
		}
		now = now_ns();
		if (now - before > slowest)
			slowest = now - before;
	}
	atomic_store(&stop_flipping, true);
	pthread_join(thread, NULL);
	print_message("# %llu starts, %llu requests, slowest run of 64 operations %llu us\n",
		      (unsigned long long)starts, (unsigned long long)(guest.popped - popped),
		      (unsigned long long)(slowest / 1000));
	assert_true(guest.popped - popped > 100);
	assert_true(slowest < 1000000000ull);
}

static void split_ring(void **state)
{
	(void)state;
	serve_while_flipped(INDIRECT, false);
	serve_while_flipped(INDIRECT | EVENT, false);
}

static void packed_ring(void **state)
{
	(void)state;
	serve_while_flipped(INDIRECT | PACKED, false);
	serve_while_flipped(INDIRECT | EVENT | PACKED, false);
}

static void in_flight_region(void **state)
{
	(void)state;
	serve_while_flipped(INDIRECT, true);
	serve_while_flipped(INDIRECT | PACKED, true);
}

static bool lies_in(const struct iovec *pieces, unsigned nr, const uint8_t *at, size_t len)
{
	for (unsigned i = 0; i < nr; i++) {
		const uint8_t *base = pieces[i].iov_base;

		if (at >= base && at + len <= base + pieces[i].iov_len)
			return true;
	}
	return false;
}

static void one_blk_request(void)
{
	const struct blk_disk disk = { .nr_sectors = 4, .serial = "serial" };
	struct iovec pieces[] = { { guest.low + HEADERS, 5 },
				  { guest.low + HEADERS + 5, 11 },
				  { guest.low + 0x4000, 512 },
				  { guest.low + 0x5000, 513 } };
	struct bf_chain chain = {
		.iov = pieces, .nr_out = 3, .nr_in = 1, .out_len = 528, .in_len = 513
	};
	struct iovec iov[8];
	struct blk_request req;

	assert_int_equal(blk_request_parse(&disk, &chain, iov, 8, &req), 0);
	assert_true(req.status_byte == guest.low + 0x5000 + 512);
	if (req.op == BLK_OP_READ || req.op == BLK_OP_WRITE) {
		uint64_t sum = 0;

		assert_true(req.offset / 512 + req.len / 512 <= 4 && req.len == 512);
		for (unsigned i = 0; i < req.nr_iov; i++) {
			assert_true(lies_in(pieces, 4, iov[i].iov_base, iov[i].iov_len));
			sum += iov[i].iov_len;
		}
		assert_int_equal(sum, req.len);
	}
	assert_true(req.written <= 512);
}

static void one_packet(void)
{
	static struct net_tx tx;
	struct iovec pieces[] = { { guest.low + HEADERS, 112 } };
	struct bf_chain chain = { .iov = pieces, .nr_out = 1, .out_len = 112 };
	struct net_packet packet;

	tx.features = bf_bit(VIRTIO_F_VERSION_1) | bf_bit(VIRTIO_NET_F_CSUM) |
		      bf_bit(VIRTIO_NET_F_HOST_TSO4) | bf_bit(VIRTIO_NET_F_HOST_TSO6);
	tx.hdr_len = net_header_len(tx.features);
	if (!net_tx_open(&tx, &chain, &packet))
		return;
	assert_int_equal(packet.len, 100);
	if (packet.meta.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)
		assert_true((unsigned)packet.meta.csum_start + packet.meta.csum_offset + 2 <= 100);
	if (packet.meta.gso_type) {
		assert_true(packet.meta.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM);
		assert_true(packet.meta.gso_size && packet.meta.hdr_len <= 100);
	}
}

static void request_headers(void **state)
{
	struct flipper flipper = { false, 11 };
	pthread_t thread;
	uint64_t end = now_ns() + RUN_NS;

	(void)state;
	atomic_store(&stop_flipping, false);
	assert_int_equal(pthread_create(&thread, NULL, flip, &flipper), 0);
	while (now_ns() < end)
		for (unsigned i = 0; i < 100; i++) {
			one_blk_request();
			one_packet();
		}
	atomic_store(&stop_flipping, true);
	pthread_join(thread, NULL);
	print_message("# %llu changes by the driver in all\n",
		      (unsigned long long)atomic_load(&flips));
	assert_true(atomic_load(&flips) > 10000);
}

static int setup(void **state)
{
	(void)state;
	guest_init(&guest);
	inflight = aligned_alloc(BF_INFLIGHT_ALIGN, 512);
	return inflight ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	free(inflight);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(split_ring),
		cmocka_unit_test(packed_ring),
		cmocka_unit_test(in_flight_region),
		cmocka_unit_test(request_headers),
	};

	_Static_assert(16 + SIZE * 16 <= 512 && 32 + SIZE * 32 <= 512, "a queue's part");
	return cmocka_run_group_tests_name("flipper", tests, setup, teardown);
}
