/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The split virtqueue, device side: against a slow and obvious model under random schedules, and
 * each notification rule by itself.
 */
#include "buffers.h"
#include "fake_driver.h"

#define EVENT_IDX     (1ull << VIRTIO_RING_F_EVENT_IDX)
#define INDIRECT_DESC (1ull << VIRTIO_RING_F_INDIRECT_DESC)
#define MAX_SIZE      64

/* What the driver remembers of a request. */
struct request {
	bool used; /* this head is taken */
	bool popped;
	unsigned descs[MAX_SIZE], nr_descs;
	struct buffers buffers;
};

struct model {
	struct fake fake;
	struct request requests[MAX_SIZE]; /* by head */
	bool desc_taken[MAX_SIZE];
	uint16_t queue[MAX_SIZE]; /* offered and not popped, in order */
	unsigned nr_queue;
	uint16_t pushed[2 * MAX_SIZE]; /* pushed and not seen used, in order */
	uint32_t pushed_len[2 * MAX_SIZE];
	unsigned nr_pushed, nr_published;
	uint16_t last_used; /* the driver's position in the used ring */
	uint64_t requests_seen;
};

static int free_desc(struct model *model)
{
	unsigned start = pick(model->fake.size);

	for (unsigned i = 0; i < model->fake.size; i++) {
		unsigned d = (start + i) % model->fake.size;

		if (!model->desc_taken[d]) {
			model->desc_taken[d] = true;
			return (int)d;
		}
	}
	return -1;
}

static void link_flags(struct raw_desc *desc, bool last, uint16_t next)
{
	desc->flags &= WRITE;
	if (!last) {
		desc->flags |= NEXT;
		desc->next = next;
	} else {
		desc->next = (uint16_t)rand(); /* meaningless, so anything */
	}
}

/* Put a request into the ring, in one table or in none. Returns false if there is no room. */
static bool driver_add(struct model *model, bool indirect)
{
	struct request draft = { .used = true };
	unsigned want;
	uint16_t head;

	invent(&draft.buffers, MAX_BUFFERS);
	want = indirect ? 1 : draft.buffers.nr;
	for (; draft.nr_descs < want; draft.nr_descs++) {
		int d = free_desc(model);

		if (d < 0) {
			for (unsigned i = 0; i < draft.nr_descs; i++)
				model->desc_taken[draft.descs[i]] = false;
			return false;
		}
		draft.descs[draft.nr_descs] = (unsigned)d;
	}
	head = (uint16_t)draft.descs[0];
	if (indirect) {
		/* A table for each head; one more, across a border, while nobody else can use it.
		 */
		uint64_t gpa =
			model->nr_queue ? HOLE_END + 16 * KIB + head * 128ull : FIRST_END - 24;

		for (unsigned i = 0; i < draft.buffers.nr; i++) {
			struct raw_desc desc = draft.buffers.desc[i];

			link_flags(&desc, i + 1 == draft.buffers.nr, (uint16_t)(i + 1));
			set_indirect(&model->fake, gpa, i, desc);
		}
		/* The write flag of the descriptor that refers to a table is to be ignored. */
		set_desc(&model->fake, head, gpa, 16 * draft.buffers.nr,
			 (uint16_t)(INDIRECT | (pick(2) ? WRITE : 0)), (uint16_t)rand());
	} else {
		for (unsigned i = 0; i < want; i++) {
			struct raw_desc desc = draft.buffers.desc[i];

			link_flags(&desc, i + 1 == want,
				   i + 1 == want ? 0 : (uint16_t)draft.descs[i + 1]);
			model->fake.desc[draft.descs[i]] = desc;
		}
	}
	model->requests[head] = draft;
	model->queue[model->nr_queue++] = head;
	offer(&model->fake, head);
	return true;
}

static void device_pop(struct model *model)
{
	struct iovec iov[MAX_PIECES];
	struct bf_chain chain = { .iov = iov, .nr_iov = MAX_PIECES };
	struct request *request;
	int ret = bf_virtq_pop(model->fake.vq, &chain);

	assert_int_equal(ret, model->nr_queue ? 1 : 0);
	if (!ret)
		return;
	assert_int_equal(chain.head, model->queue[0]);
	memmove(model->queue, model->queue + 1, --model->nr_queue * sizeof(model->queue[0]));
	request = &model->requests[chain.head];
	request->popped = true;
	model->requests_seen++;
	check_chain(&model->fake, &request->buffers, &chain);
}

static void device_push(struct model *model)
{
	unsigned start = pick(model->fake.size);

	for (unsigned i = 0; i < model->fake.size; i++) {
		uint16_t head = (uint16_t)((start + i) % model->fake.size);

		if (!model->requests[head].popped)
			continue;
		model->requests[head].popped = false;
		model->pushed[model->nr_pushed] = head;
		model->pushed_len[model->nr_pushed] = (uint32_t)rand();
		bf_virtq_push(model->fake.vq, head, model->pushed_len[model->nr_pushed]);
		model->nr_pushed++;
		return;
	}
}

/* What the specification says of a call, counted out one index at a time. */
static bool call_due(struct model *model, uint16_t from, unsigned nr, bool event_idx)
{
	if (!event_idx)
		return !(model->fake.avail[0] & 1);
	for (unsigned i = 0; i < nr; i++)
		if ((uint16_t)(from + i) == *used_event(&model->fake))
			return true;
	return false;
}

static void device_notify(struct model *model, bool event_idx, bool *first)
{
	unsigned nr = model->nr_pushed - model->nr_published;
	uint16_t from = (uint16_t)(model->last_used + model->nr_published);
	bool expected = nr && (*first || call_due(model, from, nr, event_idx));

	assert_int_equal(model->fake.used[1], from);
	assert_int_equal(bf_virtq_notify(model->fake.vq), expected);
	assert_int_equal(signals(model->fake.call_fd), expected);
	model->nr_published = model->nr_pushed;
	assert_int_equal(model->fake.used[1], (uint16_t)(from + nr));
	if (nr)
		*first = false;
}

static void driver_get(struct model *model)
{
	volatile uint32_t *elem = used_elem(&model->fake, model->last_used);
	struct request *request;

	if (!model->nr_published)
		return;
	assert_int_equal(elem[0], model->pushed[0]);
	assert_int_equal(elem[1], model->pushed_len[0]);
	request = &model->requests[elem[0]];
	for (unsigned i = 0; i < request->nr_descs; i++)
		model->desc_taken[request->descs[i]] = false;
	request->used = false;
	model->last_used++;
	model->nr_published--;
	model->nr_pushed--;
	memmove(model->pushed, model->pushed + 1, model->nr_pushed * sizeof(model->pushed[0]));
	memmove(model->pushed_len, model->pushed_len + 1,
		model->nr_pushed * sizeof(model->pushed_len[0]));
}

static void run_model(unsigned seed, unsigned size, uint64_t features, unsigned steps)
{
	struct model *model = calloc(1, sizeof(*model));
	bool event_idx = features & EVENT_IDX, first = true;
	/* Both indices wrap on the way. */
	uint16_t base = (uint16_t)(65536 - steps / 40);

	assert_non_null(model);
	srand(seed);
	fake_init(&model->fake, size, base, features);
	model->last_used = base;
	for (unsigned i = 0; i < steps; i++) {
		switch (pick(8)) {
		case 0:
		case 1:
			driver_add(model, features & INDIRECT_DESC && pick(2));
			break;
		case 2:
		case 3:
			device_pop(model);
			break;
		case 4:
			device_push(model);
			break;
		case 5:
			device_notify(model, event_idx, &first);
			break;
		case 6:
			driver_get(model);
			break;
		case 7:
			model->fake.avail[0] = (uint16_t)pick(2);
			*used_event(&model->fake) = (uint16_t)(model->last_used + pick(2 * size));
			break;
		}
		assert_int_equal(bf_virtq_has_work(model->fake.vq), model->nr_queue != 0);
	}
	assert_true((uint16_t)(base + model->requests_seen) < base);
	assert_int_equal(bf_virtq_counters(model->fake.vq)->requests, model->requests_seen);
	assert_int_equal(bf_virtq_broken(model->fake.vq, NULL), 0);
	fake_done(&model->fake);
	free(model);
}

static void agrees_with_the_model(void **state)
{
	(void)state;
	for (unsigned seed = 1; seed <= 20; seed++) {
		run_model(seed, 4, 0, 4000);
		run_model(seed, 16, EVENT_IDX, 4000);
		run_model(seed, 8, INDIRECT_DESC, 4000);
		run_model(seed, 64, EVENT_IDX | INDIRECT_DESC, 4000);
	}
}

static struct bf_chain pop_one(struct fake *fake)
{
	static struct iovec iov[8];
	struct bf_chain chain = { .iov = iov, .nr_iov = 8 };

	assert_int_equal(bf_virtq_pop(fake->vq, &chain), 1);
	return chain;
}

static int pop_none(struct fake *fake)
{
	struct iovec iov[8];
	struct bf_chain chain = { .iov = iov, .nr_iov = 8 };

	return bf_virtq_pop(fake->vq, &chain);
}

/* A driver's question after it moved the index from @before: does the device want a kick? */
static bool wants_kick(struct fake *fake, uint16_t before, bool event_idx)
{
	if (!event_idx)
		return !(fake->used[0] & 1);
	for (uint16_t i = before; i != fake->avail[1]; i++)
		if (i == *avail_event(fake))
			return true;
	return false;
}

static void add_one(struct fake *fake, uint16_t head)
{
	set_desc(fake, head, 0x100, 16, 0, 0);
	offer(fake, head);
}

/* While kicks are wanted, every request that comes after an empty look is kicked for. */
static void kicks_are_never_lost(void **state)
{
	(void)state;
	for (int event_idx = 0; event_idx < 2; event_idx++) {
		struct fake fake;

		fake_init(&fake, 8, 65530, event_idx ? EVENT_IDX : 0);
		for (unsigned i = 0; i < 30; i++) {
			uint16_t before = fake.avail[1];
			struct bf_chain chain;

			assert_int_equal(pop_none(&fake), 0);
			add_one(&fake, (uint16_t)(i % 8));
			assert_true(wants_kick(&fake, before, event_idx));
			chain = pop_one(&fake);
			bf_virtq_push(fake.vq, chain.head, 0);
			bf_virtq_notify(fake.vq);
		}
		fake_done(&fake);
	}
}

static void kicks_can_be_turned_off(void **state)
{
	(void)state;
	for (int event_idx = 0; event_idx < 2; event_idx++) {
		struct fake fake;
		uint16_t before;

		fake_init(&fake, 8, 0, event_idx ? EVENT_IDX : 0);
		/* The first is always kicked for: it was wanted at the start. */
		add_one(&fake, 0);
		assert_true(wants_kick(&fake, 0, event_idx));
		assert_false(bf_virtq_want_kicks(fake.vq, false));
		pop_one(&fake);
		assert_int_equal(pop_none(&fake), 0);
		before = fake.avail[1];
		add_one(&fake, 1);
		assert_false(wants_kick(&fake, before, event_idx));
		/* Turning it on finds what came in between. */
		assert_true(bf_virtq_want_kicks(fake.vq, true));
		pop_one(&fake);
		assert_false(bf_virtq_want_kicks(fake.vq, true));
		before = fake.avail[1];
		add_one(&fake, 2);
		assert_true(wants_kick(&fake, before, event_idx));
		fake_done(&fake);
	}
}

static void counts_and_drains_kicks(void **state)
{
	struct fake fake;
	uint64_t three = 3;

	(void)state;
	fake_init(&fake, 8, 0, 0);
	assert_int_equal(bf_virtq_drain_kick(fake.vq), 0);
	assert_int_equal(write(fake.kick_fd, &three, sizeof(three)), sizeof(three));
	assert_int_equal(bf_virtq_kick_fd(fake.vq), fake.kick_fd);
	assert_int_equal(bf_virtq_drain_kick(fake.vq), 3);
	assert_int_equal(bf_virtq_counters(fake.vq)->kicks, 3);
	fake_done(&fake);
}

/* The position goes on at the base that was given, the used index where memory has it. */
static void goes_on_after_a_stop(void **state)
{
	struct fake fake;
	struct bf_chain chain;

	(void)state;
	fake_init(&fake, 8, 65535, 0);
	for (uint16_t i = 0; i < 3; i++)
		add_one(&fake, i);
	pop_one(&fake);
	chain = pop_one(&fake);
	bf_virtq_push(fake.vq, 0, 7);
	bf_virtq_push(fake.vq, chain.head, 8);
	/* The first notify of a run always calls: what the driver was told before is not known. */
	fake.avail[0] = 1;
	assert_true(bf_virtq_notify(fake.vq));
	assert_int_equal(fake.used[1], 1);
	bf_virtq_stop(fake.vq);
	assert_int_equal(bf_virtq_base(fake.vq), 1);
	bf_virtq_stop(fake.vq);

	/* The two need not be equal: a stop may have left a request that was never answered. */
	fake.setup.base = 1;
	fake.used[1] = 0;
	fake_start(&fake);
	chain = pop_one(&fake);
	assert_int_equal(chain.head, 2);
	bf_virtq_push(fake.vq, 2, 9);
	assert_true(bf_virtq_notify(fake.vq));
	assert_int_equal(fake.used[1], 1);
	assert_int_equal(used_elem(&fake, 0)[0], 2);
	assert_int_equal(used_elem(&fake, 0)[1], 9);
	assert_int_equal(bf_virtq_counters(fake.vq)->requests, 3);
	assert_int_equal(bf_virtq_counters(fake.vq)->calls, 2);
	/* A second one has nothing to say, and the driver does not want to hear of the third. */
	assert_false(bf_virtq_notify(fake.vq));
	add_one(&fake, 3);
	bf_virtq_push(fake.vq, pop_one(&fake).head, 0);
	assert_false(bf_virtq_notify(fake.vq));
	assert_int_equal(bf_virtq_counters(fake.vq)->suppressed, 1);
	fake_done(&fake);
}

/* A table in two regions, one of its descriptors straddling the border; direct ones before it. */
static void indirect_table_across_a_border(void **state)
{
	struct fake fake;
	struct bf_chain chain;

	(void)state;
	fake_init(&fake, 8, 0, INDIRECT_DESC);
	set_indirect(&fake, FIRST_END - 24, 0, (struct raw_desc){ 0x200, 5, NEXT, 1 });
	set_indirect(&fake, FIRST_END - 24, 1, (struct raw_desc){ 0x300, 6, NEXT | WRITE, 2 });
	set_indirect(&fake, FIRST_END - 24, 2, (struct raw_desc){ FIRST_END - 1, 2, WRITE, 0 });
	set_desc(&fake, 4, 0x100, 4, NEXT, 2);
	set_desc(&fake, 2, FIRST_END - 24, 48, INDIRECT, 0);
	offer(&fake, 4);
	chain = pop_one(&fake);
	assert_int_equal(chain.nr_out, 2);
	assert_int_equal(chain.out_len, 9);
	assert_int_equal(chain.nr_in, 3);
	assert_int_equal(chain.in_len, 8);
	assert_ptr_equal(chain.iov[1].iov_base, at(&fake, 0x200));
	assert_ptr_equal(chain.iov[2].iov_base, at(&fake, 0x300));
	assert_ptr_equal(chain.iov[4].iov_base, at(&fake, FIRST_END));
	assert_int_equal(bf_virtq_in_flight(fake.vq), 1);
	fake_done(&fake);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(agrees_with_the_model),
		cmocka_unit_test(kicks_are_never_lost),
		cmocka_unit_test(kicks_can_be_turned_off),
		cmocka_unit_test(counts_and_drains_kicks),
		cmocka_unit_test(goes_on_after_a_stop),
		cmocka_unit_test(indirect_table_across_a_border),
	};

	return cmocka_run_group_tests_name("split", tests, NULL, NULL);
}
