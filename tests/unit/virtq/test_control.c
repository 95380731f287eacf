/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What control does with a virtqueue of a connection: starts in an IOTLB, misses and their answers, what is
 * posted, calls in the band, other eventfds, and a map whose file was cut.
 */
#include "fake_packed.h"

#include <signal.h>
#include <sys/wait.h>

#include "lib/virtq/hold.h"

#define SIZE   8
#define IOVA   0x10000000ull /* of RING_GPA */
#define BUFFER 0x20000000ull /* of guest-physical 0 */

static struct bf_virtq_extras none(void)
{
	return (struct bf_virtq_extras){ .log_fd = -1, .post_fd = -1 };
}

/* The ring of fake_init(), by I/O virtual addresses. */
static void iotlb_init(struct fake *fake, struct bf_iotlb_table **iotlb, int post_fd)
{
	struct bf_virtq_extras extras = none();
	uint64_t missing = 0;

	fake_init(fake, SIZE, 0, 0);
	bf_virtq_stop(fake->vq);
	*iotlb = bf_iotlb_new();
	assert_non_null(*iotlb);
	extras.iotlb = *iotlb;
	extras.post_fd = post_fd;
	fake->setup.desc_uva = IOVA;
	fake->setup.avail_uva = IOVA + 16 * SIZE;
	fake->setup.used_uva = IOVA + 16 * SIZE + 4 * KIB;

	/* Nothing there; then only the first page: the next question is for what is behind it. */
	assert_int_equal(bf_virtq_start_with(fake->vq, &fake->setup, &extras, &missing, NULL),
			 -EAGAIN);
	assert_int_equal(missing, IOVA);
	assert_int_equal(bf_iotlb_update(*iotlb, fake->memory, IOVA, 4 * KIB, UVA_OFFSET + RING_GPA,
					 BF_PERM_READ),
			 0);
	assert_int_equal(bf_virtq_start_with(fake->vq, &fake->setup, &extras, &missing, NULL),
			 -EAGAIN);
	assert_int_equal(missing, fake->setup.used_uva);
	/* Reading is not enough for the used ring. */
	assert_int_equal(bf_iotlb_update(*iotlb, fake->memory, IOVA + 4 * KIB, 4 * KIB,
					 UVA_OFFSET + RING_GPA + 4 * KIB, BF_PERM_READ),
			 0);
	assert_int_equal(bf_virtq_start_with(fake->vq, &fake->setup, &extras, &missing, NULL),
			 -EAGAIN);
	assert_int_equal(bf_iotlb_update(*iotlb, fake->memory, IOVA + 4 * KIB, 4 * KIB,
					 UVA_OFFSET + RING_GPA + 4 * KIB,
					 BF_PERM_READ | BF_PERM_WRITE),
			 0);
	assert_int_equal(bf_virtq_start_with(fake->vq, &fake->setup, &extras, &missing, NULL), 0);
}

static void take_over(struct fake *fake, const struct bf_iotlb_table *iotlb, int error)
{
	struct bf_virtq_extras extras = none();

	extras.iotlb = iotlb;
	bf_virtq_hold(&fake->vq, 1);
	assert_int_equal(bf_virtq_move(fake->vq, &fake->setup, &extras, NULL), 0);
	bf_virtq_miss_answered(fake->vq, error);
	bf_virtq_release(&fake->vq, 1);
}

static void a_miss_waits_for_its_answer(void **state)
{
	struct iovec iov[4];
	struct bf_chain chain = { .iov = iov, .nr_iov = 4 };
	struct bf_iotlb_table *iotlb;
	struct fake fake;
	int post_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);

	(void)state;
	iotlb_init(&fake, &iotlb, post_fd);
	set_desc(&fake, 1, BUFFER + 100, 200, WRITE, 0);
	offer(&fake, 1);
	assert_true(bf_virtq_has_work(fake.vq));
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(bf_virtq_pop(fake.vq, &chain), 0);
		assert_false(bf_virtq_has_work(fake.vq));
		assert_false(bf_virtq_want_kicks(fake.vq, true));
	}
	/* Told once. */
	assert_int_equal(signals(post_fd), 1);
	assert_int_equal(bf_virtq_take_posted(fake.vq), BF_POST_MISS);
	/* And not looked at again until there is an answer. */
	assert_int_equal(bf_virtq_pop(fake.vq, &chain), 0);
	assert_int_equal(bf_virtq_take_posted(fake.vq), 0);
	assert_int_equal(fake.vq->missing_iova, BUFFER + 100);
	assert_int_equal(fake.vq->missing_perm, BF_PERM_WRITE);

	assert_int_equal(
		bf_iotlb_update(iotlb, fake.memory, BUFFER, 4 * KIB, UVA_OFFSET, BF_PERM_WRITE), 0);
	take_over(&fake, iotlb, 0);
	assert_true(bf_virtq_has_work(fake.vq));
	assert_int_equal(bf_virtq_pop(fake.vq, &chain), 1);
	assert_ptr_equal(iov[0].iov_base, at(&fake, 100));
	assert_int_equal(chain.in_len, 200);
	/* A page that may only be written is no place to read from. */
	set_desc(&fake, 2, BUFFER, 16, 0, 0);
	offer(&fake, 2);
	assert_int_equal(bf_virtq_pop(fake.vq, &chain), 0);
	assert_int_equal(bf_virtq_take_posted(fake.vq), BF_POST_MISS);
	assert_int_equal(fake.vq->missing_perm, BF_PERM_READ);

	/* The answer is no. */
	take_over(&fake, iotlb, -EFAULT);
	assert_int_equal(bf_virtq_pop(fake.vq, &chain), -EFAULT);
	assert_int_equal(bf_virtq_take_posted(fake.vq), BF_POST_BROKEN);
	assert_int_equal(signals(fake.err_fd), 1);
	fake_done(&fake);
	bf_iotlb_free(iotlb);
	close(post_fd);
}

/* The ring itself goes: a move fails, and leaves everything as it was. */
static void a_ring_that_goes_is_not_moved(void **state)
{
	struct bf_virtq_extras extras = none();
	struct bf_iotlb_table *iotlb;
	struct fake fake;
	struct bf_virtq before;

	(void)state;
	iotlb_init(&fake, &iotlb, -1);
	extras.iotlb = iotlb;
	assert_int_equal(bf_iotlb_invalidate(iotlb, IOVA + 4 * KIB, 4 * KIB), 0);
	bf_virtq_hold(&fake.vq, 1);
	before = *fake.vq;
	assert_int_equal(bf_virtq_move(fake.vq, &fake.setup, &extras, NULL), -EFAULT);
	assert_memory_equal(&before, fake.vq, sizeof(before));
	/* A stop while it is held does not wait for anybody. */
	bf_virtq_stop(fake.vq);
	bf_virtq_release(&fake.vq, 1);
	fake_done(&fake);
	bf_iotlb_free(iotlb);
}

static void gpa_and_bad_starts(void **state)
{
	static _Alignas(64) uint8_t region[1024];
	struct bf_virtq_extras extras = none();
	struct fake fake;
	struct bf_virtq before;

	(void)state;
	fake_init(&fake, SIZE, 7, 0);
	bf_virtq_stop(fake.vq);
	before = *fake.vq;
	extras.ring_gpa = true;
	assert_int_equal(bf_virtq_start_with(fake.vq, &fake.setup, &extras, NULL, NULL), -EFAULT);
	assert_memory_equal(&before, fake.vq, sizeof(before));
	/* Found, but there are requests of before, and their record is too small. */
	extras.ring_gpa = false;
	extras.inflight = region;
	extras.inflight_size = SIZE / 2;
	assert_int_equal(bf_virtq_start_with(fake.vq, &fake.setup, &extras, NULL, NULL), -EINVAL);
	assert_memory_equal(&before, fake.vq, sizeof(before));
	extras = none();
	extras.ring_gpa = true;
	fake.setup.desc_uva -= UVA_OFFSET;
	fake.setup.avail_uva -= UVA_OFFSET;
	fake.setup.used_uva -= UVA_OFFSET;
	assert_int_equal(bf_virtq_start_with(fake.vq, &fake.setup, &extras, NULL, NULL), 0);
	assert_int_equal(bf_virtq_base(fake.vq), 7);
	fake_done(&fake);
}

static void in_band_calls_and_breaks_are_posted(void **state)
{
	struct iovec iov[4];
	struct bf_chain chain = { .iov = iov, .nr_iov = 4 };
	struct bf_virtq_extras extras = none();
	struct fake fake;

	(void)state;
	fake_init(&fake, SIZE, 0, 0);
	bf_virtq_stop(fake.vq);
	fake.setup.call_fd = -1;
	extras.in_band = true;
	extras.post_fd = fake.kick_fd;
	assert_int_equal(bf_virtq_start_with(fake.vq, &fake.setup, &extras, NULL, NULL), 0);
	set_desc(&fake, 0, 0, 16, 0, 0);
	offer(&fake, 0);
	assert_int_equal(bf_virtq_pop(fake.vq, &chain), 1);
	bf_virtq_push(fake.vq, 0, 0);
	assert_int_equal(bf_virtq_take_posted(fake.vq), 0);
	assert_true(bf_virtq_notify(fake.vq));
	assert_int_equal(signals(fake.kick_fd), 1);
	assert_int_equal(bf_virtq_take_posted(fake.vq), BF_POST_CALL);
	assert_int_equal(bf_virtq_counters(fake.vq)->calls, 1);
	offer(&fake, SIZE);
	assert_int_equal(bf_virtq_pop(fake.vq, &chain), -EBADMSG);
	assert_int_equal(bf_virtq_take_posted(fake.vq), BF_POST_BROKEN);
	assert_int_equal(signals(fake.kick_fd), 1);
	fake_done(&fake);
}

static void other_eventfds(void **state)
{
	struct fake fake;
	int call_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);

	(void)state;
	fake_init(&fake, SIZE, 0, 0);
	bf_virtq_hold(&fake.vq, 1);
	bf_virtq_set_eventfds(fake.vq, fake.kick_fd, call_fd, -1);
	bf_virtq_release(&fake.vq, 1);
	assert_int_equal(signals(call_fd), 1);
	assert_int_equal(signals(fake.call_fd), 0);
	/* The same again: nobody can have missed anything. */
	bf_virtq_set_eventfds(fake.vq, -1, call_fd, -1);
	assert_int_equal(signals(call_fd), 0);
	assert_int_equal(bf_virtq_kick_fd(fake.vq), -1);
	fake_done(&fake);
	close(call_fd);
}

static void cut_memory_breaks(void **state)
{
	struct iovec iov[4];
	struct bf_chain chain = { .iov = iov, .nr_iov = 4 };
	const struct bf_memory_region *ring;
	struct fake fake;
	const char *why = NULL;
	int ret = 0;

	(void)state;
	assert_int_equal(bf_memory_guard(), 0);
	fake_init(&fake, SIZE, 0, 0);
	assert_int_equal(bf_virtq_pop(fake.vq, &chain), 0);
	ring = bf_memory_region(fake.memory, 2);
	assert_int_equal(ftruncate(ring->fd, 0), 0);
	/* The call that touches it finds zeroes; the next one knows. */
	for (unsigned i = 0; !ret && i < 2; i++)
		ret = bf_virtq_pop(fake.vq, &chain);
	assert_int_equal(ret, -EFAULT);
	assert_int_equal(bf_virtq_broken(fake.vq, &why), -EFAULT);
	assert_non_null(strstr(why, "cut"));
	assert_int_equal(signals(fake.err_fd), 1);
	fake_done(&fake);
}

/* A device that pushes out of the order that was agreed has a bug: it ends there, in a child here. */
static void order_is_asserted(void **state)
{
	struct iovec iov[4];
	struct bf_chain chains[2];
	struct fake fake;
	int status = 0;
	pid_t child;

	(void)state;
	fake_init(&fake, SIZE, 0, 1ull << VIRTIO_F_IN_ORDER);
	for (uint16_t i = 0; i < 2; i++) {
		set_desc(&fake, i, 0, 16, 0, 0);
		offer(&fake, i);
	}
	assert_int_equal(bf_virtq_pop_batch(fake.vq, chains, 2, iov, 4), 2);
	child = fork();
	assert_true(child >= 0);
	if (!child) {
		signal(SIGABRT, SIG_DFL);
		close(STDERR_FILENO);
		bf_virtq_push(fake.vq, chains[1].head, 0);
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	bf_virtq_push(fake.vq, chains[0].head, 0);
	bf_virtq_push(fake.vq, chains[1].head, 0);
	fake_done(&fake);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_miss_waits_for_its_answer),
		cmocka_unit_test(a_ring_that_goes_is_not_moved),
		cmocka_unit_test(gpa_and_bad_starts),
		cmocka_unit_test(in_band_calls_and_breaks_are_posted),
		cmocka_unit_test(other_eventfds),
		cmocka_unit_test(cut_memory_breaks),
		cmocka_unit_test(order_is_asserted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
