/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Batches, order and holding, in both formats, against a slow and obvious driver under random schedules:
 * requests of every shape, popped and pushed one by one and together, put back, while control moves the
 * ring to another map of its memory and marks what is in flight. The driver and its memory are raw
 * (fake_driver.h, fake_packed.h); of the library only the calls under test are used.
 */
#include "buffers.h"
#include "fake_packed.h"
#include "lib/mem/map.h"
#include "lib/virtq/hold.h"

#define MAX_SIZE 64
#define IN_ORDER (1ull << VIRTIO_F_IN_ORDER)

struct request {
	bool used, old;
	unsigned nr_descs; /* of the ring; an indirect one takes one */
	bool chained[MAX_SIZE];
	struct buffers buffers;
};

/* Pushed: which entry tells the driver of it. */
struct pushed {
	uint16_t id;
	unsigned together; /* of the first of an entry: how many the entry stands for; else 0 */
	uint16_t named;
	uint32_t len;
};

struct model {
	struct fake_packed p; /* p.fake for both formats */
	bool packed, in_order, event_idx, indirect;
	unsigned size, nr_free;
	struct request requests[MAX_SIZE];
	bool desc_used[MAX_SIZE];
	unsigned next_desc; /* in order */
	uint16_t queue[MAX_SIZE], flying[MAX_SIZE];
	unsigned nr_queue, nr_flying, nr_unpoppable, nr_old;
	struct pushed pushed[MAX_SIZE];
	unsigned nr_pushed, nr_published;
	struct place seen;       /* packed: the driver's */
	uint16_t used_idx, base; /* split: entries seen, and where it began */
	bool first, kicks_on, idle, drained;
	bool plain_only; /* for a while: requests of one piece, long runs of what takes the short way */
	uint64_t nr_popped, together, moves, unpops, plain;
};

static unsigned pieces(const struct buffers *buffers)
{
	unsigned nr = 0;

	for (unsigned i = 0; i < buffers->nr; i++) {
		const struct raw_desc *desc = &buffers->desc[i];

		nr += desc->len != 0;
		nr += desc->addr < FIRST_END && desc->addr + desc->len > FIRST_END;
	}
	return nr;
}

static bool writable(const struct model *model, uint16_t id)
{
	const struct buffers *buffers = &model->requests[id].buffers;

	for (unsigned i = 0; i < buffers->nr; i++)
		if ((buffers->desc[i].flags & WRITE) && buffers->desc[i].len)
			return true;
	return false;
}

/* The driver. */

static unsigned take_desc(struct model *model)
{
	unsigned i = model->in_order ? model->next_desc : pick(model->size);

	while (model->desc_used[i])
		i = (i + 1) % model->size;
	model->desc_used[i] = true;
	model->next_desc = (i + 1) % model->size;
	return i;
}

static int split_add(struct model *model, const struct buffers *buffers, bool indirect)
{
	struct fake *fake = &model->p.fake;
	unsigned head = take_desc(model), at_desc = head;
	struct request *request = &model->requests[head];

	memset(request, 0, sizeof(*request));
	request->chained[head] = true;
	for (unsigned i = 0; i < buffers->nr; i++) {
		bool last = i + 1 == buffers->nr;
		uint16_t flags = (uint16_t)(buffers->desc[i].flags | (last ? 0 : NEXT));
		unsigned next = 0;

		if (indirect) {
			set_indirect(fake, TABLES + head * 128ull, i,
				     (struct raw_desc){ buffers->desc[i].addr, buffers->desc[i].len,
							flags, (uint16_t)(i + 1) });
			continue;
		}
		if (!last)
			request->chained[next = take_desc(model)] = true;
		set_desc(fake, at_desc, buffers->desc[i].addr, buffers->desc[i].len, flags,
			 (uint16_t)next);
		at_desc = next;
	}
	if (indirect)
		set_desc(fake, head, TABLES + head * 128ull, 16 * buffers->nr, INDIRECT, 0);
	offer(fake, (uint16_t)head);
	return (int)head;
}

static int packed_add(struct model *model, const struct buffers *buffers, bool indirect)
{
	struct fake_packed *p = &model->p;
	struct raw_packed *first = &p->ring[p->next.idx];
	uint16_t first_flags = avail_flags(p->next);
	uint16_t id = (uint16_t)pick(model->size);

	while (model->requests[id].used)
		id = (uint16_t)((id + 1) % model->size);
	memset(&model->requests[id], 0, sizeof(model->requests[id]));
	for (unsigned i = 0; i < buffers->nr; i++) {
		const struct raw_desc *buffer = &buffers->desc[i];
		uint16_t flags = (uint16_t)(buffer->flags | (i + 1 == buffers->nr ? 0 : NEXT));

		if (indirect) {
			put_indirect(
				p, TABLES + id * 128ull, i,
				(struct raw_packed){ buffer->addr, buffer->len, 0, buffer->flags });
			continue;
		}
		p->ring[p->next.idx].addr = buffer->addr;
		p->ring[p->next.idx].len = buffer->len;
		p->ring[p->next.idx].id = id;
		if (i)
			p->ring[p->next.idx].flags = (uint16_t)(flags | avail_flags(p->next));
		else
			first_flags |= flags;
		step(p, &p->next);
	}
	if (indirect) {
		*first = (struct raw_packed){ TABLES + id * 128ull, 16 * buffers->nr, id,
					      first->flags };
		first_flags |= INDIRECT;
		step(p, &p->next);
	}
	__atomic_store_n(&first->flags, first_flags, __ATOMIC_RELEASE);
	return id;
}

/* Of what was just added: is the device to be kicked? */
static bool wants_kick(const struct model *model, struct place before, unsigned nr_descs)
{
	struct fake fake = model->p.fake;

	if (model->packed)
		return tell(&model->p, model->p.device, before, nr_descs, model->event_idx);
	if (model->event_idx)
		return *avail_event(&fake) == (uint16_t)(fake.avail[1] - 1);
	return !(fake.used[0] & 1);
}

static void driver_add(struct model *model)
{
	bool indirect = model->indirect && pick(2), simple = pick(3);
	struct place before = model->p.next;
	struct buffers buffers;
	unsigned descs;
	bool kick;
	int id;

	invent(&buffers, simple ? 1 : model->size < MAX_BUFFERS ? model->size : MAX_BUFFERS);
	if (model->plain_only) {
		indirect = false;
		buffers.nr = 1;
		buffers.desc[0] =
			(struct raw_desc){ pick(30000), 1 + pick(3000), pick(2) * WRITE, 0 };
	}
	descs = indirect ? 1 : buffers.nr;
	if (descs > model->nr_free)
		return;
	id = model->packed ? packed_add(model, &buffers, indirect)
			   : split_add(model, &buffers, indirect);
	model->requests[id].used = true;
	model->requests[id].nr_descs = descs;
	model->requests[id].buffers = buffers;
	model->nr_free -= descs;
	model->queue[model->nr_queue++] = (uint16_t)id;
	kick = wants_kick(model, before, descs);
	if (model->idle)
		assert_true(kick);
	model->idle = false;
}

static void finish(struct model *model, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++) {
		struct request *request = &model->requests[model->pushed[i].id];

		for (unsigned d = 0; d < model->size; d++)
			if (request->chained[d])
				model->desc_used[d] = false;
		for (unsigned d = 0; model->packed && d < request->nr_descs; d++)
			step(&model->p, &model->seen);
		model->nr_free += request->nr_descs;
		request->used = false;
	}
	model->used_idx = (uint16_t)(model->used_idx + nr);
	model->nr_pushed -= nr;
	model->nr_published -= nr;
	memmove(model->pushed, model->pushed + nr, model->nr_pushed * sizeof(model->pushed[0]));
}

/* The next entry, and all that it stands for. */
static void driver_get(struct model *model)
{
	struct fake *fake = &model->p.fake;
	const struct pushed *pushed = &model->pushed[0];

	if (model->packed)
		assert_int_equal(is_used(&model->p, model->seen), model->nr_published != 0);
	else
		assert_int_equal(fake->used[1], (uint16_t)(model->used_idx + model->nr_published));
	if (!model->nr_published)
		return;
	if (model->packed) {
		const struct raw_packed *desc = &model->p.ring[model->seen.idx];

		assert_int_equal(desc->id, pushed->named);
		assert_int_equal(desc->len, pushed->len);
		assert_int_equal(!!(desc->flags & WRITE), pushed->len != 0);
	} else {
		assert_int_equal(used_elem(fake, model->used_idx)[0], pushed->named);
		assert_int_equal(used_elem(fake, model->used_idx)[1], pushed->len);
	}
	assert_true(pushed->together > 0);
	model->together += pushed->together - 1;
	finish(model, pushed->together);
}

/* The device. */

static void took(struct model *model, unsigned nr)
{
	memcpy(model->flying + model->nr_flying, model->queue, nr * sizeof(model->queue[0]));
	model->nr_flying += nr;
	model->nr_unpoppable += nr;
	model->nr_queue -= nr;
	memmove(model->queue, model->queue + nr, model->nr_queue * sizeof(model->queue[0]));
	model->nr_popped += nr;
}

static void device_pop(struct model *model)
{
	struct iovec iov[4 * MAX_PIECES];
	struct bf_chain chains[16];
	unsigned nr = 1 + pick(16), nr_iov = MAX_PIECES + pick(3 * MAX_PIECES), used = 0;
	unsigned most = nr < model->nr_queue ? nr : model->nr_queue, taken;
	int ret = bf_virtq_pop_batch(model->p.fake.vq, chains, nr, iov, nr_iov);
	const char *why;

	if (bf_virtq_broken(model->p.fake.vq, &why))
		fail_msg("%s", why);
	assert_true(ret >= 0);
	taken = (unsigned)ret;
	assert_true(taken <= most);
	for (unsigned i = 0; i < taken; i++) {
		const struct buffers *buffers = &model->requests[model->queue[i]].buffers;

		assert_int_equal(chains[i].head, model->queue[i]);
		assert_ptr_equal(chains[i].iov, iov + used);
		assert_int_equal(chains[i].nr_iov, pieces(buffers));
		check_chain(&model->p.fake, buffers, &chains[i]);
		used += chains[i].nr_iov;
		model->plain += buffers->nr == 1;
	}
	assert_true(used <= nr_iov);
	if (taken < most)
		assert_true(taken && (used == nr_iov ||
				      used + pieces(&model->requests[model->queue[taken]].buffers) >
					      nr_iov));
	if (!taken)
		model->idle = model->kicks_on;
	took(model, taken);
}

static void device_pop_one(struct model *model)
{
	struct iovec iov[MAX_PIECES];
	struct bf_chain chain = { .iov = iov, .nr_iov = MAX_PIECES };
	int ret = bf_virtq_pop(model->p.fake.vq, &chain);

	assert_int_equal(ret, model->nr_queue ? 1 : 0);
	assert_int_equal(chain.nr_iov, MAX_PIECES);
	if (!ret) {
		model->idle = model->kicks_on;
		return;
	}
	assert_int_equal(chain.head, model->queue[0]);
	check_chain(&model->p.fake, &model->requests[chain.head].buffers, &chain);
	took(model, 1);
}

static void landed(struct model *model, unsigned i)
{
	struct request *request = &model->requests[model->flying[i]];

	if (request->old && !--model->nr_old)
		model->drained = true;
	request->old = false;
	memmove(model->flying + i, model->flying + i + 1,
		(--model->nr_flying - i) * sizeof(model->flying[0]));
	if (model->nr_unpoppable > model->nr_flying - i)
		model->nr_unpoppable = model->nr_flying - i;
}

static void device_unpop(struct model *model)
{
	unsigned nr = pick(model->nr_unpoppable + 1), from = model->nr_flying - nr;
	unsigned left = model->nr_unpoppable - nr;

	bf_virtq_unpop(model->p.fake.vq, model->flying + from, nr);
	memmove(model->queue + nr, model->queue, model->nr_queue * sizeof(model->queue[0]));
	memcpy(model->queue, model->flying + from, nr * sizeof(model->queue[0]));
	model->nr_queue += nr;
	while (model->nr_flying > from)
		landed(model, model->nr_flying - 1);
	model->nr_unpoppable = left;
	model->nr_popped -= nr;
	model->unpops += nr;
	if (nr)
		model->idle = false;
}

/* Which entry tells of which: what 2.7.9 and 2.8.8 allow, used as far as it goes. */
static void group(struct model *model, struct pushed *pushed, unsigned nr)
{
	for (unsigned i = 0; i < nr;) {
		unsigned last = i;

		while (model->in_order && last + 1 < nr && !writable(model, pushed[last].id))
			last++;
		pushed[i].together = last + 1 - i;
		pushed[i].named = pushed[last].id;
		pushed[i].len = pushed[last].len;
		i = last + 1;
	}
}

static void device_push(struct model *model, bool singly)
{
	unsigned nr = 1 + pick(12);
	struct pushed *pushed = model->pushed + model->nr_pushed;
	struct bf_done done[12];

	if (nr > model->nr_flying)
		nr = model->nr_flying;
	if (singly && nr)
		nr = 1;
	for (unsigned i = 0; i < nr; i++) {
		unsigned which = model->in_order ? 0 : pick(model->nr_flying);
		uint16_t id = model->flying[which];

		done[i].head = id;
		done[i].len = writable(model, id) && pick(4) ? (uint32_t)rand() : 0;
		pushed[i] = (struct pushed){ .id = id, .len = done[i].len };
		landed(model, which);
	}
	group(model, pushed, nr);
	if (singly && nr)
		bf_virtq_push(model->p.fake.vq, done[0].head, done[0].len);
	else
		bf_virtq_push_batch(model->p.fake.vq, done, nr);
	model->nr_pushed += nr;
}

static bool call_expected(const struct model *model)
{
	struct fake fake = model->p.fake;
	unsigned nr = model->nr_pushed - model->nr_published, descs = 0;
	struct place place = model->seen;

	if (!nr || model->first)
		return nr;
	if (!model->packed && !model->event_idx)
		return !(fake.avail[0] & 1);
	if (!model->packed)
		return (uint16_t)(*used_event(&fake) - fake.used[1]) < nr;
	for (unsigned i = 0; i < model->nr_pushed; i++) {
		unsigned n = model->requests[model->pushed[i].id].nr_descs;

		if (i >= model->nr_published)
			descs += n;
		for (; i < model->nr_published && n; n--)
			step(&model->p, &place);
	}
	return tell(&model->p, model->p.driver, place, descs, model->event_idx);
}

static void device_notify(struct model *model)
{
	bool expected = call_expected(model);

	assert_int_equal(bf_virtq_notify(model->p.fake.vq), expected);
	assert_int_equal(signals(model->p.fake.call_fd), expected);
	if (model->nr_pushed > model->nr_published)
		model->first = false;
	model->nr_published = model->nr_pushed;
}

static void wants(struct model *model)
{
	struct fake *fake = &model->p.fake;

	if (pick(2)) {
		model->kicks_on = pick(3);
		model->idle = model->kicks_on && !model->nr_queue;
		assert_int_equal(bf_virtq_want_kicks(fake->vq, model->kicks_on),
				 model->kicks_on && model->nr_queue);
		return;
	}
	if (!model->packed) {
		fake->avail[0] = (uint16_t)pick(2);
		*used_event(fake) = (uint16_t)(fake->used[1] + pick(4) - 1);
		return;
	}
	model->p.driver->position = (uint16_t)(pick(model->size) | pick(2) << 15);
	model->p.driver->flags = (uint16_t)pick(3);
}

/* Control: the same memory, mapped anew; what was given out counts as old. */
static void move(struct model *model)
{
	struct fake *fake = &model->p.fake;
	const struct bf_virtq_extras extras = { .log_fd = -1, .post_fd = -1 };
	struct bf_memory_region regions[3];
	struct bf_memory *old = fake->memory;

	for (unsigned i = 0; i < 3; i++) {
		regions[i] = old->mappings[i]->region;
		regions[i].fd = fcntl(regions[i].fd, F_DUPFD_CLOEXEC, 0);
		regions[i].hva = NULL;
	}
	assert_int_equal(bf_memory_new(regions, 3, &fake->memory), 0);
	bf_virtq_hold(&fake->vq, 1);
	fake->setup.memory = fake->memory;
	assert_int_equal(bf_virtq_move(fake->vq, &fake->setup, &extras, NULL), 0);
	bf_virtq_mark_old(fake->vq);
	bf_virtq_release(&fake->vq, 1);
	bf_memory_unref(old);
	for (unsigned i = 0; i < model->nr_flying; i++)
		model->requests[model->flying[i]].old = true;
	model->nr_old = model->nr_flying;
	if (model->packed) {
		model->p.ring = at(fake, RING_GPA);
		model->p.driver = at(fake, DRIVER_AREA);
		model->p.device = at(fake, DEVICE_AREA);
	} else {
		fake->desc = at(fake, RING_GPA);
		fake->avail = at(fake, RING_GPA + 16 * fake->size);
		fake->used = at(fake, RING_GPA + 16 * fake->size + 4 * KIB);
	}
	model->moves++;
}

static void one_step(struct model *model)
{
	struct bf_virtq *vq = model->p.fake.vq;
	unsigned posted, choice = pick(64);

	switch (choice) {
	case 0:
		if (!pick(4))
			move(model);
		else
			model->plain_only = pick(2);
		break;
	case 1 ... 4:
		wants(model);
		break;
	case 5 ... 24:
		driver_add(model);
		break;
	case 25 ... 32:
		device_pop(model);
		break;
	case 33 ... 34:
		device_pop_one(model);
		break;
	case 35 ... 36:
		device_unpop(model);
		break;
	case 37 ... 44:
		device_push(model, choice == 37);
		break;
	case 45 ... 48:
		device_notify(model);
		break;
	default:
		driver_get(model);
		break;
	}
	assert_int_equal(bf_virtq_has_work(vq), model->nr_queue != 0);
	assert_int_equal(bf_virtq_in_flight(vq), model->nr_flying);
	assert_int_equal(bf_virtq_drained(vq), model->nr_old == 0);
	posted = bf_virtq_take_posted(vq);
	assert_int_equal(posted, model->drained ? BF_POST_DRAINED : 0);
	model->drained = false;
}

static void run_model(unsigned seed, bool packed, unsigned size, uint64_t features, unsigned steps)
{
	struct model *model = calloc(1, sizeof(*model));

	assert_non_null(model);
	srand(seed);
	if (packed) {
		packed_init(&model->p, size, features);
		model->seen = model->p.next;
	} else {
		/* Near the end, so that the indices wrap. */
		model->used_idx = model->base = (uint16_t)(0 - pick(500));
		fake_init(&model->p.fake, size, model->base, features);
	}
	model->packed = packed;
	model->size = model->nr_free = size;
	model->event_idx = features & EVENT_IDX;
	model->indirect = features & INDIRECT_DESC;
	model->in_order = features & IN_ORDER;
	model->first = model->kicks_on = model->idle = true;
	for (unsigned i = 0; i < steps; i++)
		one_step(model);
	assert_int_equal(bf_virtq_counters(model->p.fake.vq)->requests, model->nr_popped);
	assert_int_equal(bf_virtq_broken(model->p.fake.vq, NULL), 0);
	assert_true(model->moves && model->unpops && model->plain);
	assert_int_equal(model->in_order && size >= 8, model->together && size >= 8);
	fake_done(&model->p.fake);
	free(model);
}

static void run_all(bool packed, const unsigned *sizes, unsigned nr_sizes)
{
	for (unsigned i = 0; i < nr_sizes; i++)
		for (unsigned f = 0; f < 8; f++)
			for (unsigned seed = 1; seed <= 2; seed++)
				run_model(seed * 100 + f, packed, sizes[i],
					  (f & 1 ? EVENT_IDX : 0) | (f & 2 ? INDIRECT_DESC : 0) |
						  (f & 4 ? IN_ORDER : 0),
					  4000);
}

static void split_agrees_with_the_model(void **state)
{
	const unsigned sizes[] = { 1, 2, 8, 64 };

	(void)state;
	run_all(false, sizes, 4);
}

static void packed_agrees_with_the_model(void **state)
{
	const unsigned sizes[] = { 1, 3, 13, 64 };

	(void)state;
	run_all(true, sizes, 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(split_agrees_with_the_model),
		cmocka_unit_test(packed_agrees_with_the_model),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
