/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A virtqueue in I/O virtual addresses: what is not in the IOTLB is asked for and waited for, and nothing is
 * lost, taken twice, or broken by it. And a queue whose memory is taken away.
 */
#include "fake_packed.h"

#include <signal.h>

#include "lib/mem/iotlb.h"
#include "lib/virtq/hold.h"

#define PAGE 4096ull
#define IOVA 0xabc0000000ull /* of guest-physical 0 */

static struct fake_packed p;
static struct fake *fake = &p.fake;
static bool packed;
static struct bf_iotlb_table *iotlb;
static struct bf_virtq_extras extras;
static struct iovec iov[16];
static int post_fd;

static void tell_of(uint64_t gpa, uint64_t size, unsigned perm)
{
	assert_int_equal(
		bf_iotlb_update(iotlb, fake->memory, IOVA + gpa, size, UVA_OFFSET + gpa, perm), 0);
}

/* The queue sees what was told; the miss is answered. */
static void answered(void)
{
	const char *why;

	bf_virtq_hold(&fake->vq, 1);
	assert_int_equal(bf_virtq_move(fake->vq, &fake->setup, &extras, &why), 0);
	bf_virtq_miss_answered(fake->vq, 0);
	bf_virtq_release(&fake->vq, 1);
}

static void open_all(bool is_packed)
{
	const char *why = NULL;

	packed = is_packed;
	if (packed)
		packed_init(&p, 8, INDIRECT_DESC);
	else
		fake_init(fake, 8, 0, INDIRECT_DESC);
	bf_virtq_stop(fake->vq);
	iotlb = bf_iotlb_new();
	post_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	fake->setup.desc_uva += IOVA - UVA_OFFSET;
	fake->setup.avail_uva += IOVA - UVA_OFFSET;
	fake->setup.used_uva += IOVA - UVA_OFFSET;
	extras = (struct bf_virtq_extras){ .iotlb = iotlb, .log_fd = -1, .post_fd = post_fd };
	tell_of(RING_GPA, 40 * KIB, 3);
	if (bf_virtq_start_with(fake->vq, &fake->setup, &extras, NULL, &why))
		fail_msg("start: %s", why);
}

static void close_all(void)
{
	bf_virtq_stop(fake->vq);
	bf_iotlb_free(iotlb);
	close(post_fd);
	fake_done(fake);
}

/* Request @id, of one buffer; @flags WRITE or INDIRECT. */
static void request(uint16_t id, uint64_t gpa, uint32_t len, uint16_t flags)
{
	if (packed) {
		put(&p, IOVA + gpa, len, flags, id);
		return;
	}
	set_desc(fake, id, IOVA + gpa, len, flags, 0);
	offer(fake, id);
}

static int pop(struct bf_chain *chain)
{
	*chain = (struct bf_chain){ .iov = iov, .nr_iov = 16 };
	return bf_virtq_pop(fake->vq, chain);
}

static void missed(uint64_t gpa, unsigned perm)
{
	struct bf_chain chain;

	assert_int_equal(signals(post_fd), 1);
	assert_int_equal(bf_virtq_take_posted(fake->vq), BF_POST_MISS);
	assert_int_equal(fake->vq->missing_iova, IOVA + gpa);
	assert_int_equal(fake->vq->missing_perm, perm);
	/* Until then there is no work, and it is not asked for again. */
	assert_false(bf_virtq_has_work(fake->vq));
	assert_false(bf_virtq_want_kicks(fake->vq, true));
	assert_int_equal(pop(&chain), 0);
	assert_int_equal(signals(post_fd), 0);
	assert_int_equal(bf_virtq_broken(fake->vq, NULL), 0);
	assert_int_equal(signals(fake->err_fd), 0);
}

static void in_both(void (*test)(void))
{
	for (int i = 0; i < 2; i++) {
		open_all(i);
		test();
		close_all();
	}
}

static void buffer(void)
{
	struct bf_chain chain;

	/* Three pages of which the second is missing; then the third may only be read. */
	tell_of(0x1000, PAGE, 3);
	request(2, 0x1800, 2 * PAGE, WRITE);
	assert_int_equal(pop(&chain), 0);
	missed(0x2000, BF_PERM_WRITE);
	tell_of(0x2000, PAGE, 3);
	tell_of(0x3000, PAGE, 1);
	answered();
	assert_true(bf_virtq_has_work(fake->vq));
	assert_int_equal(pop(&chain), 0);
	missed(0x3000, BF_PERM_WRITE);
	tell_of(0x3000, PAGE, 2);
	answered();
	assert_int_equal(pop(&chain), 1);
	assert_int_equal(chain.head, 2);
	assert_int_equal(chain.in_len, 2 * PAGE);
	assert_ptr_equal(iov[0].iov_base, at(fake, 0x1800));
	assert_int_equal(pop(&chain), 0);
	assert_int_equal(bf_virtq_in_flight(fake->vq), 1);
	/* What may be written only is not there to be read. */
	request(3, 0x3000, 8, 0);
	assert_int_equal(pop(&chain), 0);
	missed(0x3000, BF_PERM_READ);
}

static void a_buffer_that_is_missing(void **state)
{
	(void)state;
	in_both(buffer);
}

static void empty(void)
{
	struct bf_chain chain;

	request(1, 0x5000, 0, 0);
	assert_int_equal(pop(&chain), 0);
	missed(0x5000, BF_PERM_READ);
	tell_of(0x5000, PAGE, 1);
	answered();
	assert_int_equal(pop(&chain), 1);
	assert_int_equal(chain.nr_out + chain.nr_in, 0);
}

static void an_empty_buffer(void **state)
{
	(void)state;
	in_both(empty);
}

static void table(void)
{
	struct bf_chain chain;

	put_indirect(&p, 0x6ff0, 0, (struct raw_packed){ IOVA + 0x8000, 8, NEXT, 0 });
	put_indirect(&p, 0x6ff0, 1, (struct raw_packed){ IOVA + 0x9000, 8, 0, WRITE });
	if (!packed) {
		set_indirect(fake, 0x6ff0, 0, (struct raw_desc){ IOVA + 0x8000, 8, NEXT, 1 });
		set_indirect(fake, 0x6ff0, 1, (struct raw_desc){ IOVA + 0x9000, 8, WRITE, 0 });
	}
	request(1, 0x6ff0, 32, INDIRECT);
	assert_int_equal(pop(&chain), 0);
	missed(0x6ff0, BF_PERM_READ);
	tell_of(0x6000, PAGE, 1);
	answered();
	assert_int_equal(pop(&chain), 0);
	missed(0x7000, BF_PERM_READ);
	tell_of(0x7000, PAGE, 1);
	tell_of(0x8000, PAGE, 1);
	answered();
	assert_int_equal(pop(&chain), 0);
	missed(0x9000, BF_PERM_WRITE);
	tell_of(0x9000, PAGE, 2);
	answered();
	assert_int_equal(pop(&chain), 1);
	assert_ptr_equal(iov[0].iov_base, at(fake, 0x8000));
	assert_ptr_equal(iov[1].iov_base, at(fake, 0x9000));
}

static void an_indirect_table(void **state)
{
	(void)state;
	in_both(table);
}

/* What comes before the miss in a batch is taken. */
static void batch(void)
{
	struct bf_chain chains[4];

	tell_of(0x1000, PAGE, 3);
	request(4, 0x1000, 100, 0);
	request(5, 0x1100, 100, WRITE);
	request(6, 0xa000, 100, 0);
	request(7, 0x1200, 100, 0);
	assert_int_equal(bf_virtq_pop_batch(fake->vq, chains, 4, iov, 16), 2);
	assert_int_equal(chains[1].head, 5);
	missed(0xa000, BF_PERM_READ);
	tell_of(0xa000, PAGE, 3);
	answered();
	assert_int_equal(bf_virtq_pop_batch(fake->vq, chains, 4, iov, 16), 2);
	assert_int_equal(chains[0].head, 6);
	assert_int_equal(chains[1].head, 7);
	assert_int_equal(bf_virtq_in_flight(fake->vq), 4);
}

static void in_a_batch(void **state)
{
	(void)state;
	in_both(batch);
}

/* The front end says no: the queue breaks, once. */
static void refused(void)
{
	struct bf_chain chain;

	request(1, 0xb000, 100, 0);
	assert_int_equal(pop(&chain), 0);
	missed(0xb000, BF_PERM_READ);
	bf_virtq_hold(&fake->vq, 1);
	bf_virtq_miss_answered(fake->vq, -EFAULT);
	bf_virtq_release(&fake->vq, 1);
	assert_int_equal(pop(&chain), -EFAULT);
	assert_int_equal(bf_virtq_broken(fake->vq, NULL), -EFAULT);
	assert_int_equal(signals(fake->err_fd), 1);
}

static void an_address_that_is_refused(void **state)
{
	(void)state;
	in_both(refused);
}

/* An invalidated page is gone for the next request, and was not for the one before. */
static void invalidated(void)
{
	struct bf_chain chain;

	tell_of(0x1000, 2 * PAGE, 3);
	answered();
	request(1, 0x1000, 2 * PAGE, 0);
	assert_int_equal(pop(&chain), 1);
	assert_int_equal(bf_iotlb_invalidate(iotlb, IOVA + 0x2000, PAGE), 0);
	answered();
	request(2, 0x1000, PAGE, 0);
	request(3, 0x1000, 2 * PAGE, 0);
	assert_int_equal(pop(&chain), 1);
	assert_int_equal(chain.head, 2);
	assert_int_equal(pop(&chain), 0);
	missed(0x2000, BF_PERM_READ);
}

static void an_address_that_is_invalidated(void **state)
{
	(void)state;
	in_both(invalidated);
}

/* A start asks for each part of the ring, each time for the first byte that is missing. */
static void a_ring_that_is_missing(void **state)
{
	uint64_t missing, used = 16 * 8 + 4 * KIB;
	const char *why;

	(void)state;
	open_all(false);
	bf_virtq_stop(fake->vq);
	bf_iotlb_clear(iotlb);
	assert_int_equal(bf_virtq_start_with(fake->vq, &fake->setup, &extras, &missing, &why),
			 -EAGAIN);
	assert_int_equal(missing, IOVA + RING_GPA);
	tell_of(RING_GPA, used, 3);
	assert_int_equal(bf_virtq_start_with(fake->vq, &fake->setup, &extras, &missing, &why),
			 -EAGAIN);
	assert_int_equal(missing, IOVA + RING_GPA + used);
	/* The used ring is written. */
	tell_of(RING_GPA + used, PAGE, 1);
	assert_int_equal(bf_virtq_start_with(fake->vq, &fake->setup, &extras, &missing, &why),
			 -EAGAIN);
	/* In two entries that touch, with unlike permissions. */
	tell_of(RING_GPA + used, 8, 3);
	tell_of(RING_GPA + used + 8, PAGE, 2);
	assert_int_equal(bf_virtq_start_with(fake->vq, &fake->setup, &extras, &missing, &why), 0);
	close_all();
}

/* The file behind the queue's memory is cut: the queue breaks, and nothing else does. */
static void memory_that_is_cut(void **state)
{
	int fd = make_memfd("bf-cut", 128 * KIB, 0);
	const struct bf_memory_region region = { .size = 128 * KIB,
						 .uva = UVA_OFFSET,
						 .fd = dup(fd) };
	struct sigaction cmockas;
	struct bf_chain chain;
	const char *reason;

	(void)state;
	/* cmocka has a handler of its own while a test runs. */
	sigaction(SIGBUS, NULL, &cmockas);
	assert_int_equal(bf_memory_guard(), 0);
	fake_init(fake, 8, 0, 0);
	bf_virtq_stop(fake->vq);
	bf_memory_unref(fake->memory);
	assert_int_equal(bf_memory_new(&region, 1, &fake->memory), 0);
	fake->setup.memory = fake->memory;
	fake->setup.desc_uva = UVA_OFFSET;
	fake->setup.avail_uva = UVA_OFFSET + 0x1000;
	fake->setup.used_uva = UVA_OFFSET + 0x2000;
	fake->desc = at(fake, 0);
	fake->avail = at(fake, 0x1000);
	fake->used = at(fake, 0x2000);
	fake_start(fake);
	set_desc(fake, 1, 0x10000, 100, WRITE, 0);
	offer(fake, 1);
	offer(fake, 2);
	chain = (struct bf_chain){ .iov = iov, .nr_iov = 16 };
	assert_int_equal(bf_virtq_pop(fake->vq, &chain), 1);
	assert_int_equal(ftruncate(fd, 0x3000), 0);
	/* The device writes into what is gone; later it finds the queue broken. */
	memset(iov[0].iov_base, 1, 100);
	bf_virtq_push(fake->vq, 1, 100);
	bf_virtq_notify(fake->vq);
	assert_int_equal(bf_virtq_pop(fake->vq, &chain), -EFAULT);
	assert_int_equal(bf_virtq_broken(fake->vq, &reason), -EFAULT);
	assert_non_null(reason);
	assert_int_equal(signals(fake->err_fd), 1);
	/* Also when the ring itself goes. */
	assert_int_equal(ftruncate(fd, 0), 0);
	bf_virtq_notify(fake->vq);
	assert_int_equal(bf_virtq_pop(fake->vq, &chain), -EFAULT);
	fake_done(fake);
	close(fd);
	sigaction(SIGBUS, &cmockas, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_buffer_that_is_missing),
		cmocka_unit_test(an_empty_buffer),
		cmocka_unit_test(an_indirect_table),
		cmocka_unit_test(in_a_batch),
		cmocka_unit_test(an_address_that_is_refused),
		cmocka_unit_test(an_address_that_is_invalidated),
		cmocka_unit_test(a_ring_that_is_missing),
		cmocka_unit_test(memory_that_is_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
