/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The dirty log of a virtqueue against the memory itself: after each round, every page that differs from
 * what it was has its bit, and every bit has a reason.
 */
#include "fake_packed.h"

#include "lib/mem/iotlb.h"
#include "lib/mem/log.h"
#include "lib/virtq/hold.h"

#define PAGE      4096ull
#define NR_PAGES  (MEMORY_END / PAGE)
#define SLOTS     4u
#define RING      16u
#define IOVA_FLIP 0x100000000ull

static struct fake_packed p;
static struct fake *fake = &p.fake;
static bool packed;
static struct bf_iotlb_table *iotlb;
static struct bf_virtq_extras extras;
static uint8_t *bits; /* of the log, as the front end sees it */
static int log_file;

static struct slot {
	bool busy;
	uint64_t gpa[3];
	uint32_t len[3];
	unsigned nr;
	uint16_t head;
	struct iovec iov[16];
	unsigned nr_out, nr_in;
} slots[SLOTS];

/* With an IOTLB pages lie the other way round: what is one buffer is many pieces. */
static uint64_t iova_of(uint64_t gpa)
{
	if (!iotlb)
		return gpa;
	return IOVA_FLIP + (NR_PAGES - 1 - gpa / PAGE) * PAGE + gpa % PAGE;
}

static struct bf_dirty_log *new_log(uint64_t size)
{
	struct bf_dirty_log *log;

	log_file = make_memfd("bf-dirty", PAGE, 0);
	bits = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, log_file, 0);
	assert_ptr_not_equal(bits, MAP_FAILED);
	assert_int_equal(bf_dirty_log_new(log_file, 0, size, &log), 0);
	close(log_file);
	return log;
}

static void tell_iotlb(void)
{
	iotlb = bf_iotlb_new();
	for (uint64_t gpa = 0; gpa < MEMORY_END; gpa += PAGE)
		if (gpa < HOLE || gpa >= HOLE_END)
			assert_int_equal(bf_iotlb_update(iotlb, fake->memory, iova_of(gpa), PAGE,
							 gpa + UVA_OFFSET, 3),
					 0);
	/* The rings stand in one piece each, elsewhere. */
	assert_int_equal(bf_iotlb_update(iotlb, fake->memory, UVA_OFFSET + RING_GPA,
					 MEMORY_END - RING_GPA, UVA_OFFSET + RING_GPA, 3),
			 0);
}

static void open_all(bool is_packed, bool with_iotlb, uint64_t features, uint64_t log_size)
{
	const char *why = NULL;

	packed = is_packed;
	iotlb = NULL;
	memset(slots, 0, sizeof(slots));
	if (packed)
		packed_init(&p, RING, features);
	else
		fake_init(fake, RING, 0xfff0, features);
	bf_virtq_stop(fake->vq);
	if (with_iotlb)
		tell_iotlb();
	extras = (struct bf_virtq_extras){
		.iotlb = iotlb,
		.log = new_log(log_size),
		/* A packed ring's areas are logged where they are. */
		.log_used = !packed,
		.log_used_gpa = packed ? DEVICE_AREA : RING_GPA + 16 * RING + 4 * KIB,
		.log_fd = -1,
		.post_fd = -1,
	};
	if (bf_virtq_start_with(fake->vq, &fake->setup, &extras, NULL, &why))
		fail_msg("start: %s", why);
	bf_dirty_log_unref(extras.log);
}

static void close_all(void)
{
	bf_virtq_stop(fake->vq);
	bf_iotlb_free(iotlb);
	iotlb = NULL;
	fake_done(fake);
	munmap(bits, PAGE);
	assert_int_equal(count_mappings("bf-dirty"), 0);
}

static unsigned pick(unsigned n)
{
	return (unsigned)rand() % n;
}

/* A request of up to three buffers in [0, HOLE): some to read, then some to write. */
static void offer_slot(unsigned s)
{
	struct slot *slot = &slots[s];
	unsigned nr_out = pick(3), nr = nr_out + pick(2 + (nr_out < 2));

	slot->nr = nr = nr ? nr : 1;
	for (unsigned i = 0; i < nr; i++) {
		uint16_t flags = (uint16_t)((i >= nr_out ? WRITE : 0) | (i + 1 < nr ? NEXT : 0));

		slot->len[i] = pick(8) ? pick(3 * (unsigned)PAGE) : 0;
		slot->gpa[i] = pick((unsigned)(HOLE - slot->len[i]));
		/* An IOTLB's pages do not go on in the other direction: one page at the most. */
		if (iotlb && slot->gpa[i] % PAGE + slot->len[i] > PAGE)
			slot->len[i] = (uint32_t)(PAGE - slot->gpa[i] % PAGE);
		if (packed)
			put(&p, iova_of(slot->gpa[i]), slot->len[i], flags, (uint16_t)s);
		else
			set_desc(fake, 4 * s + i, iova_of(slot->gpa[i]), slot->len[i], flags,
				 (uint16_t)(4 * s + i + 1));
		if (i < nr_out)
			slot->len[i] = 0; /* from here on: what may be written */
	}
	if (!packed)
		offer(fake, (uint16_t)(4 * s));
	slot->busy = true;
	slot->nr_in = slot->nr_out = 0;
	slot->head = 0xffff;
}

static void pop_some(void)
{
	struct iovec iov[16];

	for (;;) {
		struct bf_chain chain = { .iov = iov, .nr_iov = 16 };
		struct slot *slot;
		int ret = bf_virtq_pop(fake->vq, &chain);

		assert_true(ret >= 0);
		if (!ret)
			return;
		slot = &slots[packed ? chain.head : chain.head / 4];
		slot->head = chain.head;
		slot->nr_out = chain.nr_out;
		slot->nr_in = chain.nr_in;
		memcpy(slot->iov, iov, sizeof(iov));
	}
}

static void may_differ(bool *pages, uint64_t gpa, uint64_t len)
{
	for (uint64_t page = gpa / PAGE; len && page <= (gpa + len - 1) / PAGE; page++)
		pages[page] = true;
}

/* Write some of what may be written, and push. */
static void push_slot(struct slot *slot, bool *pages)
{
	for (unsigned i = slot->nr_out; i < slot->nr_out + slot->nr_in; i++) {
		uint8_t *to = slot->iov[i].iov_base;

		if (pick(4))
			for (size_t b = 0; b < slot->iov[i].iov_len; b += 1 + pick(700))
				to[b] ^= 0xff;
	}
	for (unsigned i = 0; i < slot->nr; i++)
		may_differ(pages, slot->gpa[i], slot->len[i]);
	slot->busy = false;
	bf_virtq_push(fake->vq, slot->head, 1);
}

static void snapshot(uint8_t *copy)
{
	for (uint64_t gpa = 0; gpa < MEMORY_END; gpa += PAGE)
		if (gpa < HOLE || gpa >= HOLE_END)
			memcpy(copy + gpa, at(fake, gpa), PAGE);
}

static void compare_with(const uint8_t *copy, const bool *pages)
{
	for (uint64_t page = 0; page < NR_PAGES; page++) {
		bool there = page * PAGE < HOLE || page * PAGE >= HOLE_END;
		bool differs = there && memcmp(copy + page * PAGE, at(fake, page * PAGE), PAGE);
		bool marked = bits[page / 8] & 1u << page % 8;

		if (differs && !marked)
			fail_msg("page %#lx was written and is not marked", (long)(page * PAGE));
		if (marked && !pages[page])
			fail_msg("page %#lx is marked without a reason", (long)(page * PAGE));
	}
}

static void rounds(bool is_packed, bool with_iotlb, uint64_t features)
{
	static uint8_t copy[MEMORY_END];

	open_all(is_packed, with_iotlb, features, NR_PAGES / 8);
	for (unsigned round = 0; round < 400; round++) {
		bool pages[NR_PAGES] = { false };

		for (unsigned s = 0; s < SLOTS; s++)
			if (!slots[s].busy && pick(2))
				offer_slot(s);
		memset(bits, 0, PAGE);
		snapshot(copy);
		bf_virtq_want_kicks(fake->vq, pick(2));
		pop_some();
		for (unsigned s = 0; s < SLOTS; s++)
			if (slots[s].busy && slots[s].head != 0xffff && pick(3))
				push_slot(&slots[s], pages);
		bf_virtq_notify(fake->vq);
		may_differ(pages, RING_GPA, MEMORY_END - RING_GPA);
		compare_with(copy, pages);
	}
	close_all();
}

static void split_pages(void **state)
{
	(void)state;
	srand(5);
	rounds(false, false, 0);
	rounds(false, false, EVENT_IDX);
	rounds(false, true, EVENT_IDX);
}

static void packed_pages(void **state)
{
	(void)state;
	srand(6);
	rounds(true, false, 0);
	rounds(true, false, EVENT_IDX);
	rounds(true, true, EVENT_IDX);
}

static bool is_marked(uint64_t gpa)
{
	return bits[gpa / PAGE / 8] & 1u << gpa / PAGE % 8;
}

/* One request of one page to be written, at @gpa. */
static void simple_offer(uint64_t gpa)
{
	set_desc(fake, 0, gpa, PAGE, WRITE, 0);
	offer(fake, 0);
}

static void pop_simple(void)
{
	struct iovec iov[4];
	struct bf_chain chain = { .iov = iov, .nr_iov = 4 };

	assert_int_equal(bf_virtq_pop(fake->vq, &chain), 1);
}

static void a_log_that_is_shorter_than_memory(void **state)
{
	(void)state;
	open_all(false, false, 0, 1);
	simple_offer(9 * PAGE);
	pop_simple();
	bf_virtq_push(fake->vq, 0, 1);
	bf_virtq_notify(fake->vq);
	simple_offer(7 * PAGE);
	pop_simple();
	bf_virtq_push(fake->vq, 0, 1);
	bf_virtq_notify(fake->vq);
	assert_int_equal(bits[0], 0x80);
	for (unsigned i = 1; i < PAGE; i++)
		assert_int_equal(bits[i], 0);
	close_all();
}

/* The used ring is logged where SET_VRING_ADDR says, if it says so. */
static void the_used_ring_is_logged_where_it_was_told(void **state)
{
	int eventfd_of_log = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	const char *why;

	(void)state;
	open_all(false, false, 0, NR_PAGES / 8);
	munmap(bits, PAGE);
	extras.log = new_log(NR_PAGES / 8);
	extras.log_used_gpa = 5 * PAGE + 3;
	extras.log_fd = eventfd_of_log;
	assert_int_equal(bf_virtq_move(fake->vq, &fake->setup, &extras, &why), 0);
	memset(bits, 0, PAGE);
	simple_offer(0);
	pop_simple();
	bf_virtq_push(fake->vq, 0, 1);
	bf_virtq_notify(fake->vq);
	assert_true(is_marked(5 * PAGE));
	assert_true(is_marked(0));
	assert_false(is_marked(RING_GPA + 4 * KIB));
	assert_int_equal(signals(eventfd_of_log), 1);

	extras.log_used = false;
	assert_int_equal(bf_virtq_move(fake->vq, &fake->setup, &extras, &why), 0);
	memset(bits, 0, PAGE);
	simple_offer(PAGE);
	pop_simple();
	bf_virtq_push(fake->vq, 0, 1);
	bf_virtq_notify(fake->vq);
	assert_false(is_marked(5 * PAGE));
	assert_true(is_marked(PAGE));
	bf_dirty_log_unref(extras.log);
	close(eventfd_of_log);
	close_all();
}

/* What is in flight is remembered when a log takes the place of another; what is put back is not marked. */
static void another_log_and_unpop(void **state)
{
	struct bf_dirty_log *second;
	uint8_t *first_bits;
	const uint16_t head = 0;
	const char *why;

	(void)state;
	open_all(false, false, 0, NR_PAGES / 8);
	simple_offer(3 * PAGE);
	pop_simple();
	first_bits = bits;
	second = new_log(NR_PAGES / 8);
	extras.log = second;
	assert_int_equal(bf_virtq_move(fake->vq, &fake->setup, &extras, &why), 0);
	bf_dirty_log_unref(second);
	memset(first_bits, 0, PAGE);
	bf_virtq_push(fake->vq, 0, 1);
	assert_true(is_marked(3 * PAGE));
	bf_virtq_notify(fake->vq);
	assert_int_equal(first_bits[0], 0);
	munmap(first_bits, PAGE);

	simple_offer(4 * PAGE);
	pop_simple();
	bf_virtq_unpop(fake->vq, &head, 1);
	assert_false(is_marked(4 * PAGE));
	/* The driver may change it meanwhile: what counts is the last pop. */
	set_desc(fake, 0, 6 * PAGE, PAGE, WRITE, 0);
	pop_simple();
	bf_virtq_push(fake->vq, 0, 1);
	assert_true(is_marked(6 * PAGE));
	assert_false(is_marked(4 * PAGE));
	bf_virtq_notify(fake->vq);

	/* Logging ends, and begins while a request is in flight: that one is not known. */
	simple_offer(8 * PAGE);
	pop_simple();
	extras.log = NULL;
	assert_int_equal(bf_virtq_move(fake->vq, &fake->setup, &extras, &why), 0);
	bf_virtq_push(fake->vq, 0, 1);
	assert_false(is_marked(8 * PAGE));
	close_all();
}

/*
 * The longest requests: an IOTLB in crumbs makes 61,440 pieces of 15 buffers. There is room for one such
 * request at a time; the next one waits until it is back.
 */
static void the_pool_is_used_up(void **state)
{
	static struct iovec iov[65535];
	struct bf_chain chain = { .iov = iov, .nr_iov = 65535 };
	const char *why;

	(void)state;
	open_all(false, false, 1ull << VIRTIO_RING_F_INDIRECT_DESC, NR_PAGES / 8);
	bf_virtq_stop(fake->vq);
	munmap(bits, PAGE);
	iotlb = bf_iotlb_new();
	assert_int_equal(bf_iotlb_update(iotlb, fake->memory, UVA_OFFSET + RING_GPA,
					 MEMORY_END - RING_GPA, UVA_OFFSET + RING_GPA, 3),
			 0);
	/* Backwards, 16 bytes each. */
	for (uint64_t i = 0; i < 4095; i++)
		assert_int_equal(bf_iotlb_update(iotlb, fake->memory, i * 16, 16,
						 UVA_OFFSET + (4095 - i) * 16, 3),
				 0);
	extras.iotlb = iotlb;
	extras.log = new_log(NR_PAGES / 8);
	assert_int_equal(bf_virtq_start_with(fake->vq, &fake->setup, &extras, NULL, &why), 0);
	bf_dirty_log_unref(extras.log);
	for (unsigned r = 0; r < 2; r++) {
		uint64_t table = MEMORY_END - PAGE + r * 512;

		for (unsigned i = 0; i < 15; i++)
			set_indirect(fake, table, i,
				     (struct raw_desc){ 0, 4095 * 16,
							(uint16_t)(WRITE | (i < 14 ? NEXT : 0)),
							(uint16_t)(i + 1) });
		set_desc(fake, r, UVA_OFFSET + table, 15 * 16, INDIRECT, 0);
		offer(fake, (uint16_t)r);
	}
	assert_int_equal(bf_virtq_pop(fake->vq, &chain), 1);
	assert_int_equal(chain.nr_in, 15 * 4095);
	chain.nr_iov = 65535;
	assert_int_equal(bf_virtq_pop(fake->vq, &chain), 0);
	assert_int_equal(bf_virtq_broken(fake->vq, NULL), 0);
	assert_true(bf_virtq_has_work(fake->vq));
	bf_virtq_push(fake->vq, 0, 1);
	chain.nr_iov = 65535;
	assert_int_equal(bf_virtq_pop(fake->vq, &chain), 1);
	assert_int_equal(chain.head, 1);
	bf_virtq_push(fake->vq, 1, 1);
	bf_virtq_notify(fake->vq);
	for (unsigned page = 0; page < 16; page++)
		assert_true(is_marked(page * PAGE));

	/* What becomes no request takes no room: here, each time, for a miss at its end. */
	set_indirect(fake, MEMORY_END - PAGE, 0,
		     (struct raw_desc){ 0, 4095 * 16, WRITE | NEXT, 1 });
	set_indirect(fake, MEMORY_END - PAGE, 1, (struct raw_desc){ HOLE, 16, WRITE, 0 });
	set_desc(fake, 0, UVA_OFFSET + MEMORY_END - PAGE, 32, INDIRECT, 0);
	offer(fake, 0);
	for (unsigned i = 0; i < 20; i++) {
		chain.nr_iov = 65535;
		fake->vq->missing_iova = 0;
		assert_int_equal(bf_virtq_pop(fake->vq, &chain), 0);
		assert_int_equal(fake->vq->missing_iova, HOLE);
		bf_virtq_miss_answered(fake->vq, 0);
	}
	assert_false(is_marked(16 * PAGE));
	close_all();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(split_pages),
		cmocka_unit_test(packed_pages),
		cmocka_unit_test(a_log_that_is_shorter_than_memory),
		cmocka_unit_test(the_used_ring_is_logged_where_it_was_told),
		cmocka_unit_test(another_log_and_unpop),
		cmocka_unit_test(the_pool_is_used_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
