/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A device that dies at every store of in-flight tracking, and its successor.
 *
 * A driver, written plainly and from the specification, makes requests available, and counts. A device
 * serves them through the virtqueue under test and dies at store N: longjmp() out of the middle, and all its
 * private memory is thrown away; shared memory stays as it is at that instruction. The driver goes on. A
 * second device takes over, which may die too, while it recovers or soon after. The last one finishes. At the
 * end each request must have been completed exactly once, must have been served before that, and must have
 * been taken in the order in which it was offered: those in flight first.
 */
#include "../support.h"

#include <linux/virtio_config.h>
#include <signal.h>
#include <sys/wait.h>

#include "lib/virtq/inflight.h"
#include "lib/virtq/virtq.h"

void tracked_store(void);
void *tracked_calloc(size_t nr, size_t size);
void tracked_free(void *memory);

#define UVA      0x7f0000000000ull
#define AVAIL_AT 0x1000
#define USED_AT  0x2000
#define DATA_AT  0x4000
#define STRIDE   32
#define MEMORY   0x8000

#define RING     4 /* split */
#define PACKED   5 /* packed: need not be a power of two */
#define REQUESTS 8
#define MAX_RING 8

enum order { FIRST, LAST, ALTERNATING, NR_ORDERS };
enum variant { PLAIN, POP_BETWEEN, UNPOP, IN_ORDER, NR_VARIANTS };

static struct {
	bool packed;
	uint16_t start; /* index; packed: index and wrap counter */
	unsigned batch;
	enum order order;
	enum variant variant;
	unsigned kills[2]; /* at the nth store of the first device, of the second; 0: lives */
} now;

static struct bf_memory *memory;
static uint8_t *shared;           /* all of it */
static uint8_t *part;             /* the in-flight region's part */
static unsigned served[REQUESTS]; /* times */
static unsigned stores, kill_at;
static bool by_signal;
static jmp_buf death;

static void __attribute__((noreturn)) wrong(const char *what, unsigned request)
{
	fail_msg(
		"%s: request %u; %s ring, start %#x, batch %u, order %u, variant %u, killed at %u and %u",
		what, request, now.packed ? "packed" : "split", now.start, now.batch, now.order,
		now.variant, now.kills[0], now.kills[1]);
	abort();
}

/* --- what dies --- */

static void *allocated[64];

void *tracked_calloc(size_t nr, size_t size)
{
	void *memory_of_it = calloc(nr, size);

	for (unsigned i = 0; i < 64; i++)
		if (!allocated[i])
			return allocated[i] = memory_of_it;
	abort();
}

void tracked_free(void *memory_of_it)
{
	for (unsigned i = 0; memory_of_it && i < 64; i++)
		if (allocated[i] == memory_of_it)
			allocated[i] = NULL;
	free(memory_of_it);
}

void tracked_store(void)
{
	stores++;
	if (!kill_at || stores != kill_at)
		return;
	if (by_signal)
		kill(getpid(), SIGKILL);
	longjmp(death, 1);
}

/* Nothing of a dead device may be used: only its memory is given back, without a look at it. */
static void bury(struct bf_virtq *vq)
{
	free(vq->in_flight);
	bf_memory_unref(vq->memory);
	free(vq);
	for (unsigned i = 0; i < 64; i++) {
		free(allocated[i]);
		allocated[i] = NULL;
	}
}

/* --- the driver --- */

struct raw_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};

struct raw_packed {
	uint64_t addr;
	uint32_t len;
	uint16_t id, flags;
};

struct place {
	unsigned idx;
	bool wrap;
};

static struct {
	unsigned size;
	unsigned offered, completed;
	bool done[REQUESTS];
	struct {
		bool out;
		unsigned request, nr;
	} id[MAX_RING];
	/* Split. */
	bool busy[MAX_RING]; /* descriptors */
	uint16_t avail, used;
	/* Packed. */
	struct place next_avail, next_used;
	unsigned nr_free;
} driver;

/* Every third request is of two descriptors: its number to be read, and a byte to be written. */
static unsigned length(unsigned request)
{
	return request % 3 == 1 ? 2 : 1;
}

static uint64_t data(unsigned request)
{
	return DATA_AT + request * STRIDE;
}

static bool offer_split(void)
{
	struct raw_desc *desc = (void *)shared;
	volatile uint16_t *avail = (void *)(shared + AVAIL_AT);
	unsigned r = driver.offered, nr = length(r), got[2] = { 0 }, found = 0;

	/* Heads in an order that is not that of requests. */
	for (unsigned k = 0; k < driver.size && found < nr; k++) {
		unsigned i = (r * 3 + k) % driver.size;

		if (!driver.busy[i])
			got[found++] = i;
	}
	if (found < nr)
		return false;
	desc[got[0]] = (struct raw_desc){ data(r), 8, nr == 2 ? 1 : 0, (uint16_t)got[1] };
	if (nr == 2)
		desc[got[1]] = (struct raw_desc){ data(r) + 8, 8, 2, 0 };
	for (unsigned i = 0; i < nr; i++)
		driver.busy[got[i]] = true;
	driver.id[got[0]].out = true;
	driver.id[got[0]].request = r;
	driver.id[got[0]].nr = nr;
	avail[2 + driver.avail % driver.size] = (uint16_t)got[0];
	avail[1] = ++driver.avail;
	return true;
}

static void step(struct place *place, unsigned nr)
{
	while (nr--) {
		if (++place->idx == driver.size) {
			place->idx = 0;
			place->wrap = !place->wrap;
		}
	}
}

static bool offer_packed(void)
{
	struct raw_packed *ring = (void *)shared;
	unsigned r = driver.offered, nr = length(r), id = 0;
	struct place place = driver.next_avail;

	if (driver.nr_free < nr)
		return false;
	for (unsigned k = 0; k < driver.size; k++) {
		id = (r * 3 + k) % driver.size;
		if (!driver.id[id].out)
			break;
	}
	driver.id[id].out = true;
	driver.id[id].request = r;
	driver.id[id].nr = nr;
	driver.nr_free -= nr;
	for (unsigned i = 0; i < nr; i++) {
		ring[place.idx] = (struct raw_packed){ data(r) + 8 * i, 8, (uint16_t)id, 0 };
		ring[place.idx].flags = (uint16_t)((place.wrap ? 1u << 7 : 1u << 15) |
						   (i + 1 < nr ? 1 : 0) | (i ? 2 : 0));
		step(&place, 1);
	}
	driver.next_avail = place;
	return true;
}

static void complete(unsigned id)
{
	unsigned r;

	if (id >= driver.size || !driver.id[id].out)
		wrong("the device gave back what it does not have", id);
	r = driver.id[id].request;
	if (driver.done[r])
		wrong("completed twice", r);
	if (!served[r])
		wrong("completed, but never served", r);
	driver.done[r] = true;
	driver.completed++;
	driver.id[id].out = false;
}

/* In order one used entry may stand for several requests: all up to its own. */
static unsigned oldest_before(unsigned id)
{
	unsigned oldest = id;

	for (unsigned i = 0; now.variant == IN_ORDER && i < driver.size; i++)
		if (driver.id[i].out && driver.id[i].request < driver.id[oldest].request)
			oldest = i;
	return oldest;
}

static void collect_split(void)
{
	struct raw_desc *desc = (void *)shared;
	volatile uint16_t *used = (void *)(shared + USED_AT);

	while (driver.used != used[1]) {
		uint32_t *elem = (uint32_t *)(void *)(shared + USED_AT + 4) +
				 2 * (driver.used % driver.size);
		unsigned last = elem[0], id;

		do {
			id = last < driver.size ? oldest_before(last) : last;
			complete(id);
			driver.busy[id] = false;
			if (driver.id[id].nr == 2)
				driver.busy[desc[id].next] = false;
			driver.used++;
		} while (id != last);
	}
}

static void collect_packed(void)
{
	struct raw_packed *ring = (void *)shared;

	for (;;) {
		struct raw_packed *desc = &ring[driver.next_used.idx];
		bool wrap = driver.next_used.wrap;
		unsigned last = desc->id, id;

		if (!!(desc->flags & 1u << 7) != wrap || !!(desc->flags & 1u << 15) != wrap)
			return;
		do {
			id = last < driver.size ? oldest_before(last) : last;
			complete(id);
			step(&driver.next_used, driver.id[id].nr);
			driver.nr_free += driver.id[id].nr;
		} while (id != last);
	}
}

static void drive(void)
{
	if (now.packed)
		collect_packed();
	else
		collect_split();
	while (driver.offered < REQUESTS && (now.packed ? offer_packed() : offer_split()))
		driver.offered++;
}

static void new_driver(void)
{
	memset(&driver, 0, sizeof(driver));
	memset(shared, 0, MEMORY);
	memset(served, 0, sizeof(served));
	for (unsigned r = 0; r < REQUESTS; r++)
		*(uint64_t *)(void *)(shared + data(r)) = r;
	if (now.packed) {
		struct raw_packed *ring = (void *)shared;
		struct place start = { now.start & 0x7fff, now.start >> 15 };

		driver.size = driver.nr_free = PACKED;
		driver.next_avail = driver.next_used = start;
		/* What lies there was used, in this turn or the one before. */
		for (unsigned i = 0; i < PACKED; i++)
			if (i < start.idx ? start.wrap : !start.wrap)
				ring[i].flags = 1u << 7 | 1u << 15;
		return;
	}
	driver.size = RING;
	driver.avail = driver.used = now.start;
	((uint16_t *)(void *)(shared + AVAIL_AT))[1] = now.start;
	((uint16_t *)(void *)(shared + USED_AT))[1] = now.start;
}

/* --- the device --- */

static struct {
	struct bf_virtq *vq;
	unsigned nr_held;
	struct {
		uint16_t head;
		unsigned request;
	} held[MAX_RING];
	int last; /* request popped */
} device;

static void start(uint32_t base)
{
	const struct bf_virtq_setup setup = {
		.memory = memory,
		.size = now.packed ? PACKED : RING,
		.base = base,
		.desc_uva = UVA,
		.avail_uva = UVA + AVAIL_AT,
		.used_uva = UVA + USED_AT,
		.features = (now.packed ? 1ull << VIRTIO_F_RING_PACKED : 0) |
			    (now.variant == IN_ORDER ? 1ull << VIRTIO_F_IN_ORDER : 0),
		.kick_fd = -1,
		.call_fd = -1,
		.err_fd = -1,
	};
	const struct bf_virtq_extras extras = {
		.log_fd = -1, .post_fd = -1, .inflight = part, .inflight_size = MAX_RING
	};
	const char *why = "nothing";

	device.nr_held = 0;
	device.last = -1;
	device.vq = bf_virtq_new(0);
	if (bf_virtq_start_with(device.vq, &setup, &extras, NULL, &why))
		wrong(why, 0);
}

static void hold(const struct bf_chain *chain)
{
	unsigned r = *(uint64_t *)chain->iov[0].iov_base & 0xffffffff;

	if (r >= REQUESTS || chain->nr_out + chain->nr_in != length(r) ||
	    (uint8_t *)chain->iov[0].iov_base != shared + data(r))
		wrong("popped something else", r);
	if (driver.done[r])
		wrong("popped again after it was completed", r);
	if ((int)r <= device.last)
		wrong("popped out of order", r);
	device.last = (int)r;
	device.held[device.nr_held].head = chain->head;
	device.held[device.nr_held++].request = r;
}

static bool take(unsigned nr)
{
	struct bf_chain chains[MAX_RING];
	struct iovec iov[2 * MAX_RING];
	int got = bf_virtq_pop_batch(device.vq, chains, nr, iov, 2 * MAX_RING);

	if (got < 0)
		wrong("the ring broke", (unsigned)-got);
	for (int i = 0; i < got; i++)
		hold(&chains[i]);
	if (now.variant == UNPOP && got > 1) {
		device.nr_held--;
		device.last = (int)device.held[device.nr_held - 1].request;
		bf_virtq_unpop(device.vq, &device.held[device.nr_held].head, 1);
		return false;
	}
	return got;
}

static void give_one(unsigned turn)
{
	unsigned i = now.order == FIRST || (now.order == ALTERNATING && turn % 2)
			     ? 0
			     : device.nr_held - 1;

	served[device.held[i].request]++;
	bf_virtq_push(device.vq, device.held[i].head, 0);
	for (device.nr_held--; i < device.nr_held; i++)
		device.held[i] = device.held[i + 1];
}

/* The oldest, as one batch: those that have nothing to be written take one used entry together. */
static void give_in_order(unsigned nr)
{
	struct bf_done done[MAX_RING] = { { 0 } };

	for (unsigned i = 0; i < nr; i++) {
		served[device.held[i].request]++;
		done[i].head = device.held[i].head;
	}
	bf_virtq_push_batch(device.vq, done, nr);
	device.nr_held -= nr;
	memmove(device.held, device.held + nr, device.nr_held * sizeof(device.held[0]));
}

static void serve(bool with_driver)
{
	for (unsigned turn = 0;; turn++) {
		/* Some are left, to be popped between a push and its publication. */
		while (now.variant == POP_BETWEEN ? device.nr_held < 2 && take(1) : take(now.batch))
			;
		if (!device.nr_held)
			return;
		if (now.variant == IN_ORDER)
			give_in_order(device.nr_held < now.batch ? device.nr_held : now.batch);
		for (unsigned i = 0; now.variant != IN_ORDER && i < now.batch && device.nr_held;
		     i++) {
			give_one(turn + i);
			if (now.variant == POP_BETWEEN)
				take(1);
		}
		bf_virtq_notify(device.vq);
		if (with_driver)
			drive();
	}
}

/* A device from its start until it has nothing to do, or dies. Did it live? */
static bool live(uint32_t base, unsigned kill)
{
	stores = 0;
	kill_at = kill;
	if (setjmp(death)) {
		kill_at = 0;
		bury(device.vq);
		return false;
	}
	start(base);
	serve(true);
	kill_at = 0;
	bf_virtq_free(device.vq);
	return true;
}

static uint32_t base_of(uint16_t start_at)
{
	return now.packed ? start_at * 0x10001u : start_at;
}

/* What the front end believes the base to be, after a crash: nothing right. */
static uint32_t stale_base(void)
{
	return now.packed ? base_of(now.start) : (uint16_t)(now.start + 12345);
}

/* All of it once. False: the first device has fewer stores than that. */
static bool run(unsigned first, unsigned second)
{
	now.kills[0] = first;
	now.kills[1] = second;
	memset(part, 0, bf_inflight_queue_size(now.packed, MAX_RING));
	new_driver();
	drive();
	if (live(base_of(now.start), first)) {
		if (first)
			return false;
	} else {
		drive();
		if (!live(stale_base(), second)) {
			drive();
			(void)live(stale_base(), 0);
		} else if (second) {
			return false;
		}
	}
	for (unsigned r = 0; r < REQUESTS; r++)
		if (!driver.done[r])
			wrong("lost", r);
	assert_int_equal(driver.completed, REQUESTS);
	return true;
}

static const uint16_t split_starts[] = { 0, 2, 0x7fff, 0xfffe };
/* In the first turn, with the wrap counter 1, in the next one, and just before both ends. */
static const uint16_t packed_starts[] = { 0x8000, 0x8000 | (PACKED - 1), 0, PACKED - 2 };

static unsigned long runs;

/* Every order and batch of this variant, killed once at every store. */
static void kill_everywhere(bool packed, enum variant variant)
{
	for (unsigned s = 0; s < 4; s++) {
		for (unsigned o = 0; o < (variant == IN_ORDER ? 1 : NR_ORDERS); o++) {
			for (unsigned b = 1; b <= 4; b++) {
				now.packed = packed;
				now.start = packed ? packed_starts[s] : split_starts[s];
				now.batch = b;
				now.order = (enum order)o;
				now.variant = variant;
				for (unsigned n = 0; run(n, 0); n++)
					runs++;
			}
		}
	}
}

/* Killed at every store, and the successor at every one of its first stores. */
static void kill_twice(bool packed)
{
	for (unsigned b = 1; b <= 4; b++) {
		now.packed = packed;
		now.start = packed ? packed_starts[1] : 0xfffe;
		now.batch = b;
		now.order = ALTERNATING;
		now.variant = POP_BETWEEN;
		for (unsigned n = 1; run(n, 0); n++)
			for (unsigned m = 1; m < 60 && run(n, m); m++)
				runs++;
	}
}

static void split_killed_at_every_store(void **state)
{
	(void)state;
	for (unsigned v = 0; v < NR_VARIANTS; v++)
		kill_everywhere(false, (enum variant)v);
	assert_true(runs > 5000);
}

static void packed_killed_at_every_store(void **state)
{
	(void)state;
	for (unsigned v = 0; v < NR_VARIANTS; v++)
		kill_everywhere(true, (enum variant)v);
}

static void split_killed_again(void **state)
{
	(void)state;
	kill_twice(false);
}

static void packed_killed_again(void **state)
{
	(void)state;
	kill_twice(true);
}

/* Some of the same by SIGKILL: a process that takes what there is, and gives back two at a time. */
static void killed_by_signal(bool packed)
{
	now.packed = packed;
	now.start = packed ? packed_starts[1] : 0xfffe;
	now.batch = 2;
	now.order = LAST;
	now.variant = PLAIN;
	for (unsigned n = packed ? 1 : 2;; n += 7) {
		int status;
		pid_t child;

		now.kills[0] = n;
		memset(part, 0, bf_inflight_queue_size(packed, MAX_RING));
		new_driver();
		drive();
		/* The child's count of services dies with it. */
		for (unsigned r = 0; r < driver.offered; r++)
			served[r] = 1;
		child = fork();
		assert_true(child >= 0);
		if (!child) {
			by_signal = true;
			stores = 0;
			kill_at = n;
			start(base_of(now.start));
			serve(false);
			_exit(0);
		}
		assert_int_equal(waitpid(child, &status, 0), child);
		if (WIFEXITED(status))
			break;
		assert_int_equal(WTERMSIG(status), SIGKILL);
		drive();
		(void)live(stale_base(), 0);
		for (unsigned r = 0; r < REQUESTS; r++)
			if (!driver.done[r])
				wrong("lost", r);
	}
}

static void killed_by_signals(void **state)
{
	(void)state;
	killed_by_signal(false);
	killed_by_signal(true);
}

static int set_up(void **state)
{
	struct bf_memory_region region = { .size = MEMORY, .uva = UVA };

	(void)state;
	region.fd = make_memfd("bf-kill", MEMORY, 0);
	assert_int_equal(bf_memory_new(&region, 1, &memory), 0);
	shared = bf_memory_from_gpa(memory, 0, MEMORY);
	part = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return part == MAP_FAILED ? -1 : 0;
}

static int tear_down(void **state)
{
	(void)state;
	munmap(part, 4096);
	bf_memory_unref(memory);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(split_killed_at_every_store),
		cmocka_unit_test(packed_killed_at_every_store),
		cmocka_unit_test(split_killed_again),
		cmocka_unit_test(packed_killed_again),
		cmocka_unit_test(killed_by_signals),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
