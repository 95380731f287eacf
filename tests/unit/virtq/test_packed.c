/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The packed virtqueue, device side: against a slow and obvious driver under random schedules, at
 * sizes that are no powers of two, and each rule of notification and position by itself.
 */
#include "buffers.h"
#include "fake_packed.h"

#define MAX_SIZE 64

/* What the driver remembers of a request, by buffer id. */
struct request {
	bool used; /* the id is taken */
	bool popped;
	unsigned nr_descs;
	struct buffers buffers;
};

struct pushed {
	uint16_t id;
	uint32_t len;
};

struct model {
	struct fake_packed p;
	struct request requests[MAX_SIZE];
	unsigned nr_free;         /* descriptors that the driver may write */
	struct place seen;        /* the driver's: where the next used one will be */
	struct place consumed;    /* the device's: where it takes the next one */
	uint16_t queue[MAX_SIZE]; /* made available and not popped, in order */
	unsigned nr_queue;
	struct pushed pushed[MAX_SIZE]; /* and not seen used, in order */
	unsigned nr_pushed, nr_published;
	uint64_t requests_seen, turns;
	bool event_idx, first, kicks_on;
	bool idle; /* the device looked, found nothing, and relies on a kick */
};

static int free_id(const struct model *model)
{
	unsigned start = pick(model->p.size);

	for (unsigned i = 0; i < model->p.size; i++)
		if (!model->requests[(start + i) % model->p.size].used)
			return (int)((start + i) % model->p.size);
	return -1;
}

/* As 2.8.21.1 has it: the flags of the first descriptor are written when all the rest is there. */
static void write_chain(struct model *model, const struct buffers *buffers, uint16_t id)
{
	struct fake_packed *p = &model->p;
	struct raw_packed *first = &p->ring[p->next.idx];
	uint16_t first_flags = 0;

	for (unsigned i = 0; i < buffers->nr; i++) {
		bool last = i + 1 == buffers->nr;
		struct raw_packed *desc = &p->ring[p->next.idx];
		uint16_t flags = (uint16_t)(buffers->desc[i].flags | (last ? 0 : NEXT) |
					    avail_flags(p->next));

		desc->addr = buffers->desc[i].addr;
		desc->len = buffers->desc[i].len;
		/* Only the last one's means anything. */
		desc->id = last ? id : (uint16_t)rand();
		if (i)
			desc->flags = flags;
		else
			first_flags = flags;
		step(p, &p->next);
	}
	__atomic_store_n(&first->flags, first_flags, __ATOMIC_RELEASE);
}

static void write_indirect(struct model *model, const struct buffers *buffers, uint16_t id)
{
	/* A table for each id; one more, across a border, while nobody else can use it. */
	uint64_t gpa = model->nr_queue ? TABLES + id * 128ull : FIRST_END - 24;

	for (unsigned i = 0; i < buffers->nr; i++) {
		/* All but WRITE is reserved and to be ignored. */
		uint16_t flags = (uint16_t)(buffers->desc[i].flags | (rand() & ~WRITE));

		put_indirect(&model->p, gpa, i,
			     (struct raw_packed){ buffers->desc[i].addr, buffers->desc[i].len,
						  (uint16_t)rand(), flags });
	}
	put(&model->p, gpa, 16 * buffers->nr, (uint16_t)(INDIRECT | (pick(2) ? WRITE : 0)), id);
}

static void driver_add(struct model *model, bool indirect)
{
	struct buffers buffers;
	struct place before = model->p.next;
	unsigned want;
	bool kick;
	int id = free_id(model);

	invent(&buffers, model->p.size < MAX_BUFFERS ? model->p.size : MAX_BUFFERS);
	want = indirect ? 1 : buffers.nr;
	if (id < 0 || want > model->nr_free)
		return;
	if (indirect)
		write_indirect(model, &buffers, (uint16_t)id);
	else
		write_chain(model, &buffers, (uint16_t)id);
	model->nr_free -= want;
	model->turns += model->p.next.wrap != before.wrap;
	model->requests[id] =
		(struct request){ .used = true, .nr_descs = want, .buffers = buffers };
	model->queue[model->nr_queue++] = (uint16_t)id;

	kick = tell(&model->p, model->p.device, before, want, model->event_idx);
	if (model->idle)
		assert_true(kick);
	if (!model->kicks_on)
		assert_false(kick);
	model->idle = false;
}

static void device_pop(struct model *model)
{
	struct iovec iov[MAX_PIECES];
	struct bf_chain chain = { .iov = iov, .nr_iov = MAX_PIECES };
	struct request *request;
	int ret = bf_virtq_pop(model->p.fake.vq, &chain);

	assert_int_equal(ret, model->nr_queue ? 1 : 0);
	if (!ret) {
		model->idle = model->kicks_on;
		return;
	}
	assert_int_equal(chain.head, model->queue[0]);
	memmove(model->queue, model->queue + 1, --model->nr_queue * sizeof(model->queue[0]));
	request = &model->requests[chain.head];
	request->popped = true;
	model->requests_seen++;
	for (unsigned i = 0; i < request->nr_descs; i++)
		step(&model->p, &model->consumed);
	check_chain(&model->p.fake, &request->buffers, &chain);
}

static void device_push(struct model *model)
{
	unsigned start = pick(model->p.size);

	for (unsigned i = 0; i < model->p.size; i++) {
		uint16_t id = (uint16_t)((start + i) % model->p.size);

		if (!model->requests[id].popped)
			continue;
		model->requests[id].popped = false;
		model->pushed[model->nr_pushed] =
			(struct pushed){ id, pick(4) ? (uint32_t)rand() : 0 };
		bf_virtq_push(model->p.fake.vq, id, model->pushed[model->nr_pushed].len);
		model->nr_pushed++;
		return;
	}
}

/* Descriptors of the pushed requests [from, to). */
static unsigned count_descs(const struct model *model, unsigned from, unsigned to)
{
	unsigned nr = 0;

	for (; from < to; from++)
		nr += model->requests[model->pushed[from].id].nr_descs;
	return nr;
}

static struct place published(const struct model *model)
{
	struct place place = model->seen;

	for (unsigned i = count_descs(model, 0, model->nr_published); i; i--)
		step(&model->p, &place);
	return place;
}

static bool call_expected(const struct model *model)
{
	return model->nr_pushed > model->nr_published &&
	       (model->first ||
		tell(&model->p, model->p.driver, published(model),
		     count_descs(model, model->nr_published, model->nr_pushed), model->event_idx));
}

static void device_notify(struct model *model)
{
	bool expected = call_expected(model);

	/* Nothing of the batch is visible before. */
	if (model->nr_pushed > model->nr_published)
		assert_false(is_used(&model->p, published(model)));
	assert_int_equal(bf_virtq_notify(model->p.fake.vq), expected);
	assert_int_equal(signals(model->p.fake.call_fd), expected);
	if (model->nr_pushed > model->nr_published)
		model->first = false;
	model->nr_published = model->nr_pushed;
}

static void driver_get(struct model *model)
{
	const struct raw_packed *desc = &model->p.ring[model->seen.idx];
	struct request *request;

	assert_int_equal(is_used(&model->p, model->seen), model->nr_published != 0);
	if (!model->nr_published)
		return;
	assert_int_equal(desc->id, model->pushed[0].id);
	assert_int_equal(!!(desc->flags & WRITE), model->pushed[0].len != 0);
	assert_int_equal(desc->len, model->pushed[0].len);
	request = &model->requests[desc->id];
	for (unsigned i = 0; i < request->nr_descs; i++)
		step(&model->p, &model->seen);
	model->nr_free += request->nr_descs;
	request->used = false;
	model->nr_published--;
	model->nr_pushed--;
	memmove(model->pushed, model->pushed + 1, model->nr_pushed * sizeof(model->pushed[0]));
}

static void driver_wants(struct model *model)
{
	struct place place = model->seen;

	for (unsigned i = pick(2 * model->p.size); i; i--)
		step(&model->p, &place);
	model->p.driver->position = encode(place);
	/* Reserved bits are anything. */
	model->p.driver->flags = (uint16_t)(pick(3) | (rand() & ~3));
}

static void device_wants(struct model *model)
{
	bool on = pick(3), more = bf_virtq_want_kicks(model->p.fake.vq, on);

	assert_int_equal(more, on && model->nr_queue);
	model->kicks_on = on;
	model->idle = on && !more;
}

/* A stop and a start at the position that it left; what is in flight would never come back. */
static void restart(struct model *model)
{
	uint32_t base = encode(model->consumed);
	struct place used;
	bool expected;

	for (unsigned id = 0; id < model->p.size; id++)
		if (model->requests[id].popped)
			return;
	expected = call_expected(model);
	used = published(model);
	for (unsigned i = count_descs(model, model->nr_published, model->nr_pushed); i; i--)
		step(&model->p, &used);
	base |= (uint32_t)encode(used) << 16;
	assert_int_equal(bf_virtq_base(model->p.fake.vq), base);
	bf_virtq_stop(model->p.fake.vq);
	assert_int_equal(signals(model->p.fake.call_fd), expected);
	assert_int_equal(bf_virtq_base(model->p.fake.vq), base);
	model->nr_published = model->nr_pushed;
	model->p.fake.setup.base = base;
	fake_start(&model->p.fake);
	model->first = model->kicks_on = true;
	model->idle = !model->nr_queue;
}

static void one_step(struct model *model, bool indirect)
{
	switch (pick(40)) {
	case 0:
		restart(model);
		break;
	case 1 ... 4:
		driver_wants(model);
		break;
	case 5 ... 8:
		device_wants(model);
		break;
	case 9 ... 18:
		driver_add(model, indirect && pick(2));
		break;
	case 19 ... 26:
		device_pop(model);
		break;
	case 27 ... 30:
		device_push(model);
		break;
	case 31 ... 34:
		device_notify(model);
		break;
	default:
		driver_get(model);
		break;
	}
	assert_int_equal(bf_virtq_has_work(model->p.fake.vq), model->nr_queue != 0);
}

static void run_model(unsigned seed, unsigned size, uint64_t features, unsigned steps)
{
	struct model *model = calloc(1, sizeof(*model));

	assert_non_null(model);
	srand(seed);
	packed_init(&model->p, size, features);
	model->nr_free = size;
	model->seen = model->consumed = model->p.next;
	model->event_idx = features & EVENT_IDX;
	model->first = model->kicks_on = model->idle = true;
	for (unsigned i = 0; i < steps; i++)
		one_step(model, features & INDIRECT_DESC);
	assert_true(model->turns > 4);
	assert_int_equal(bf_virtq_counters(model->p.fake.vq)->requests, model->requests_seen);
	assert_int_equal(bf_virtq_broken(model->p.fake.vq, NULL), 0);
	fake_done(&model->p.fake);
	free(model);
}

static void agrees_with_the_model(void **state)
{
	const unsigned sizes[] = { 1, 2, 3, 5, 7, 8, 13, 61, 64 };

	(void)state;
	for (unsigned seed = 1; seed <= 6; seed++)
		for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
			for (unsigned f = 0; f < 4; f++)
				run_model(seed * 100 + f, sizes[i],
					  (f & 1 ? EVENT_IDX : 0) | (f & 2 ? INDIRECT_DESC : 0),
					  3000);
}

static struct bf_chain pop_one(struct fake_packed *p)
{
	static struct iovec iov[8];
	struct bf_chain chain = { .iov = iov, .nr_iov = 8 };

	assert_int_equal(bf_virtq_pop(p->fake.vq, &chain), 1);
	return chain;
}

static int pop_none(struct fake_packed *p)
{
	struct iovec iov[8];
	struct bf_chain chain = { .iov = iov, .nr_iov = 8 };

	return bf_virtq_pop(p->fake.vq, &chain);
}

static void kicks_can_be_turned_off(void **state)
{
	(void)state;
	for (int event_idx = 0; event_idx < 2; event_idx++) {
		struct fake_packed p;
		struct place before;

		packed_init(&p, 5, event_idx ? EVENT_IDX : 0);
		assert_int_equal(p.device->flags, event_idx ? DESC : ENABLE);
		assert_false(bf_virtq_want_kicks(p.fake.vq, false));
		assert_int_equal(p.device->flags, DISABLE);
		for (uint16_t id = 0; id < 5; id++)
			put(&p, 0x100, 16, 0, id);
		for (unsigned i = 0; i < 5; i++)
			bf_virtq_push(p.fake.vq, pop_one(&p).head, 0);
		bf_virtq_notify(p.fake.vq);
		/* Looking in vain does not turn them on. */
		assert_int_equal(pop_none(&p), 0);
		before = p.next;
		put(&p, 0x100, 16, 0, 1);
		assert_false(tell(&p, p.device, before, 1, event_idx));
		/* Turning them on finds what came in between. */
		assert_true(bf_virtq_want_kicks(p.fake.vq, true));
		pop_one(&p);
		assert_false(bf_virtq_want_kicks(p.fake.vq, true));
		before = p.next;
		put(&p, 0x100, 16, 0, 2);
		assert_true(tell(&p, p.device, before, 1, event_idx));
		fake_done(&p.fake);
	}
}

/* Only the position that was asked for, in the turn that was asked for. */
static void calls_for_one_descriptor(void **state)
{
	struct fake_packed p;

	(void)state;
	packed_init(&p, 3, EVENT_IDX);
	p.driver->flags = DISABLE;
	put(&p, 0, 1, 0, 0);
	bf_virtq_push(p.fake.vq, pop_one(&p).head, 0);
	assert_true(bf_virtq_notify(p.fake.vq)); /* the first one, always */
	p.driver->flags = DESC;
	p.driver->position = 1; /* index 1 of the second turn */
	for (unsigned i = 1; i < 12; i++) {
		put(&p, 0, 1, 0, 0);
		bf_virtq_push(p.fake.vq, pop_one(&p).head, 0);
		assert_int_equal(bf_virtq_notify(p.fake.vq), i == 4 || i == 10);
	}
	/* Nonsense is a call. */
	p.driver->position = 3;
	put(&p, 0, 1, 0, 0);
	bf_virtq_push(p.fake.vq, pop_one(&p).head, 0);
	assert_true(bf_virtq_notify(p.fake.vq));
	p.driver->flags = RESERVED;
	put(&p, 0, 1, 0, 0);
	bf_virtq_push(p.fake.vq, pop_one(&p).head, 0);
	assert_true(bf_virtq_notify(p.fake.vq));
	fake_done(&p.fake);
}

/* The event that lies inside a chain is passed with the chain. */
static void calls_for_the_middle_of_a_chain(void **state)
{
	struct fake_packed p;

	(void)state;
	packed_init(&p, 5, EVENT_IDX);
	put(&p, 0, 1, 0, 0);
	bf_virtq_push(p.fake.vq, pop_one(&p).head, 0);
	bf_virtq_notify(p.fake.vq);
	p.driver->flags = DESC;
	p.driver->position = 0x8003;
	put(&p, 0, 1, 0, 0);
	put(&p, 0, 1, NEXT, 0);
	put(&p, 0, 1, 0, 1);
	bf_virtq_push(p.fake.vq, pop_one(&p).head, 0);
	assert_false(bf_virtq_notify(p.fake.vq));
	bf_virtq_push(p.fake.vq, pop_one(&p).head, 0);
	assert_true(bf_virtq_notify(p.fake.vq));
	fake_done(&p.fake);
}

/* Without the feature, "one descriptor" is no thing to ask for. */
static void desc_without_the_feature_is_enable(void **state)
{
	struct fake_packed p;

	(void)state;
	packed_init(&p, 3, 0);
	p.driver->flags = DESC;
	p.driver->position = 2;
	for (unsigned i = 0; i < 7; i++) {
		put(&p, 0, 1, 0, 2);
		bf_virtq_push(p.fake.vq, pop_one(&p).head, 0);
		assert_true(bf_virtq_notify(p.fake.vq));
	}
	fake_done(&p.fake);
}

/* Three chains at once: the last is visible only through the first (2.8.9). */
static void a_batch_is_seen_at_once(void **state)
{
	struct place first = { 0, true }, second = { 2, true }, third = { 3, true };
	struct fake_packed p;

	(void)state;
	packed_init(&p, 4, 0);
	put(&p, 0, 8, NEXT | WRITE, 77);
	put(&p, 64, 8, WRITE, 3);
	put(&p, 128, 8, WRITE, 1);
	put(&p, 192, 8, 0, 0);
	for (unsigned i = 0; i < 3; i++)
		pop_one(&p);
	bf_virtq_push(p.fake.vq, 3, 16);
	bf_virtq_push(p.fake.vq, 0, 0);
	bf_virtq_push(p.fake.vq, 1, 8);
	assert_false(is_used(&p, first));
	assert_true(bf_virtq_notify(p.fake.vq));
	assert_true(is_used(&p, first) && is_used(&p, second) && is_used(&p, third));
	assert_int_equal(p.ring[0].id, 3);
	assert_int_equal(p.ring[0].len, 16);
	assert_int_equal(p.ring[2].id, 0);
	assert_int_equal(p.ring[2].flags & WRITE, 0);
	assert_int_equal(p.ring[3].id, 1);
	fake_done(&p.fake);
}

/* A stop loses nothing that was given back, and the base says where both sides are. */
static void goes_on_after_a_stop(void **state)
{
	struct fake_packed p;

	(void)state;
	packed_init_at(&p, 3, (struct place){ 2, false }, 0);
	assert_int_equal(bf_virtq_base(p.fake.vq), 0x00020002);
	p.driver->flags = DISABLE;
	for (uint16_t id = 0; id < 3; id++)
		put(&p, 0, 8, WRITE, id);
	pop_one(&p);
	pop_one(&p);
	bf_virtq_push(p.fake.vq, 1, 8);
	/* The first call of a run is made always: what the driver was told before is not known. */
	bf_virtq_stop(p.fake.vq);
	assert_int_equal(signals(p.fake.call_fd), 1);
	assert_true(is_used(&p, (struct place){ 2, false }));
	assert_int_equal(p.ring[2].id, 1);
	assert_int_equal(bf_virtq_base(p.fake.vq), 0x80008001);
	bf_virtq_stop(p.fake.vq);

	/* Request 0 is lost, and with it its place: the driver has two descriptors to go round. */
	p.fake.setup.base = bf_virtq_base(p.fake.vq);
	fake_start(&p.fake);
	assert_int_equal(bf_virtq_in_flight(p.fake.vq), 0);
	assert_int_equal(pop_one(&p).head, 2);
	bf_virtq_push(p.fake.vq, 2, 4);
	assert_true(bf_virtq_notify(p.fake.vq));
	assert_int_equal(p.ring[0].id, 2);
	put(&p, 0, 8, WRITE, 1);
	put(&p, 0, 8, WRITE, 2);
	assert_int_equal(pop_one(&p).head, 1);
	assert_int_equal(pop_one(&p).head, 2);
	put(&p, 0, 8, WRITE, 0); /* over what was not given back */
	assert_int_equal(pop_none(&p), -EBADMSG);
	fake_done(&p.fake);
}

/* The feature is read at each start: one virtqueue may be packed now and split then. */
static void split_after_packed(void **state)
{
	struct fake_packed p;
	struct fake split;

	(void)state;
	packed_init(&p, 4, 0);
	bf_virtq_stop(p.fake.vq);
	assert_int_equal(bf_virtq_base(p.fake.vq), BF_VIRTQ_PACKED_BASE);
	fake_init(&split, 4, 7, 0);
	p.fake.setup = split.setup;
	fake_start(&p.fake);
	assert_int_equal(bf_virtq_base(p.fake.vq), 7);
	assert_int_equal(split.used[0], 0);
	fake_done(&p.fake);
	fake_done(&split);
}

/* The largest ring, and every place of it, twice round. */
static void the_largest_ring(void **state)
{
	const uint64_t size = 32768, bytes = 16 * size + 4096;
	struct bf_memory_region region = { .uva = UVA_OFFSET, .size = bytes };
	struct fake_packed p = { .size = (unsigned)size, .next = { 0, true } };
	struct bf_virtq_setup setup;
	struct bf_memory *memory;

	(void)state;
	region.fd = make_memfd("bf-large", bytes, 0);
	assert_int_equal(bf_memory_new(&region, 1, &memory), 0);
	setup = (struct bf_virtq_setup){ .memory = memory,
					 .size = (uint16_t)size,
					 .base = BF_VIRTQ_PACKED_BASE,
					 .desc_uva = UVA_OFFSET,
					 .avail_uva = UVA_OFFSET + 16 * size,
					 .used_uva = UVA_OFFSET + 16 * size + 64,
					 .features = PACKED | EVENT_IDX,
					 .kick_fd = -1,
					 .call_fd = -1,
					 .err_fd = -1 };
	p.fake.vq = bf_virtq_new(0);
	p.ring = bf_memory_from_uva(memory, UVA_OFFSET, 1);
	assert_int_equal(bf_virtq_start(p.fake.vq, &setup, NULL), 0);
	for (unsigned turn = 0; turn < 3; turn++) {
		for (unsigned i = 0; i < size; i++)
			put(&p, 0, 1, 0, (uint16_t)(size - 1 - i));
		for (unsigned i = 0; i < size; i++)
			assert_int_equal(pop_one(&p).head, size - 1 - i);
		assert_int_equal(pop_none(&p), 0);
		assert_int_equal(bf_virtq_in_flight(p.fake.vq), size);
		for (unsigned i = 0; i < size; i++)
			bf_virtq_push(p.fake.vq, (uint16_t)i, 0);
		bf_virtq_notify(p.fake.vq);
		for (unsigned i = 0; i < size; i++)
			assert_true(is_used(&p, (struct place){ i, !(turn & 1) }));
		assert_int_equal(bf_virtq_base(p.fake.vq), turn & 1 ? 0x80008000 : 0);
	}
	bf_virtq_free(p.fake.vq);
	bf_memory_unref(memory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(agrees_with_the_model),
		cmocka_unit_test(kicks_can_be_turned_off),
		cmocka_unit_test(calls_for_one_descriptor),
		cmocka_unit_test(calls_for_the_middle_of_a_chain),
		cmocka_unit_test(desc_without_the_feature_is_enable),
		cmocka_unit_test(a_batch_is_seen_at_once),
		cmocka_unit_test(goes_on_after_a_stop),
		cmocka_unit_test(split_after_packed),
		cmocka_unit_test(the_largest_ring),
	};

	return cmocka_run_group_tests_name("packed", tests, NULL, NULL);
}
