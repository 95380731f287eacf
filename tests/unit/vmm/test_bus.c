/* SPDX-License-Identifier: BSD-3-Clause */
/* The bus: dispatch, overlaps, odd lengths, and removal against a dispatch that is under way. */
#include "unit/support.h"

#include <pthread.h>
#include <stdatomic.h>

#include "vmm/kvm/bus.h"

struct device {
	struct bus *bus;
	struct bus_region region;
	struct bus_region *to_delete; /* by its own write op */
	unsigned nr_reads, nr_writes;
	unsigned last_len;
	uint64_t last_offset;
	atomic_bool entered, release, done;
};

static void dev_read(void *opaque, uint64_t offset, void *data, unsigned len)
{
	struct device *d = opaque;

	d->nr_reads++;
	d->last_offset = offset;
	d->last_len = len;
	memset(data, 0x5a, len);
}

static void dev_write(void *opaque, uint64_t offset, const void *data, unsigned len)
{
	struct device *d = opaque;

	(void)data;
	d->nr_writes++;
	d->last_offset = offset;
	d->last_len = len;
	if (d->to_delete)
		bus_del(d->bus, d->to_delete);
}

static const struct bus_ops ops = { .read = dev_read, .write = dev_write };

static void init(struct device *d, struct bus *bus, uint64_t base, uint64_t size)
{
	*d = (struct device){ .bus = bus };
	d->region = (struct bus_region){
		.base = base, .size = size, .ops = &ops, .opaque = d, .name = "test"
	};
}

static void dispatches_by_address(void **state)
{
	struct bus bus;
	struct device a, b;
	uint32_t value;

	(void)state;
	bus_init(&bus);
	init(&a, &bus, 0x1000, 0x100);
	init(&b, &bus, 0x1100, 0x10);
	assert_int_equal(bus_add(&bus, &b.region), 0);
	assert_int_equal(bus_add(&bus, &a.region), 0);

	assert_true(bus_read(&bus, 0x10fc, &value, 4));
	assert_int_equal(value, 0x5a5a5a5a);
	assert_int_equal(a.last_offset, 0xfc);
	assert_true(bus_write(&bus, 0x1100, &value, 2));
	assert_int_equal(b.nr_writes, 1);
	assert_int_equal(b.last_len, 2);
}

static void unclaimed_reads_give_ones(void **state)
{
	struct bus bus;
	struct device a;
	uint64_t value = 0;

	(void)state;
	bus_init(&bus);
	init(&a, &bus, 0x1000, 0x100);
	assert_int_equal(bus_add(&bus, &a.region), 0);
	assert_false(bus_read(&bus, 0xfff, &value, 1));
	assert_int_equal(value, 0xff);
	assert_false(bus_read(&bus, 0x1100, &value, 8));
	assert_true(value == UINT64_MAX);
	/* Half in, half out is nobody's: a device must never see an offset past its end. */
	assert_false(bus_write(&bus, 0x10fe, &value, 4));
	assert_false(bus_write(&bus, 0x0ffe, &value, 4));
	assert_false(bus_write(&bus, UINT64_MAX, &value, 8));
	assert_int_equal(a.nr_reads + a.nr_writes, 0);
}

static void splits_odd_lengths(void **state)
{
	struct bus bus;
	struct device a;
	uint8_t data[8] = { 0 };

	(void)state;
	bus_init(&bus);
	init(&a, &bus, 0x1000, 0x100);
	assert_int_equal(bus_add(&bus, &a.region), 0);
	assert_true(bus_write(&bus, 0x1001, data, 3));
	assert_int_equal(a.nr_writes, 3);
	assert_int_equal(a.last_len, 1);
	assert_int_equal(a.last_offset, 3);
	assert_false(bus_read(&bus, 0x10fe, data, 3));
	assert_int_equal(a.nr_reads, 2);
	assert_int_equal(data[2], 0xff);
}

static void refuses_overlaps(void **state)
{
	struct bus bus;
	struct device a, b;

	(void)state;
	bus_init(&bus);
	init(&a, &bus, 0x1000, 0x100);
	assert_int_equal(bus_add(&bus, &a.region), 0);
	init(&b, &bus, 0x0f00, 0x101);
	assert_int_equal(bus_add(&bus, &b.region), -EEXIST);
	init(&b, &bus, 0x10ff, 1);
	assert_int_equal(bus_add(&bus, &b.region), -EEXIST);
	init(&b, &bus, 0x0f00, 0x1000);
	assert_int_equal(bus_add(&bus, &b.region), -EEXIST);
	init(&b, &bus, 0x1000, 0x100);
	assert_int_equal(bus_add(&bus, &b.region), -EEXIST);
	init(&b, &bus, UINT64_MAX, 2);
	assert_int_equal(bus_add(&bus, &b.region), -EINVAL);
	init(&b, &bus, 0x2000, 0);
	assert_int_equal(bus_add(&bus, &b.region), -EINVAL);
	init(&b, &bus, 0x0f00, 0x100);
	assert_int_equal(bus_add(&bus, &b.region), 0);
	bus_del(&bus, &a.region);
	bus_del(&bus, &a.region); /* not there any more: nothing happens */
	assert_int_equal(bus_add(&bus, &a.region), 0);
}

static void a_region_may_remove_itself(void **state)
{
	struct bus bus;
	struct device a;

	(void)state;
	bus_init(&bus);
	init(&a, &bus, 0x1000, 0x100);
	a.to_delete = &a.region;
	assert_int_equal(bus_add(&bus, &a.region), 0);
	assert_true(bus_write(&bus, 0x1000, &bus, 4));
	assert_false(bus_write(&bus, 0x1000, &bus, 4));
}

static void slow_write(void *opaque, uint64_t offset, const void *data, unsigned len)
{
	struct device *d = opaque;

	(void)offset;
	(void)data;
	(void)len;
	atomic_store(&d->entered, true);
	while (!atomic_load(&d->release))
		usleep(1000);
	usleep(20000);
	atomic_store(&d->done, true);
}

static const struct bus_ops slow_ops = { .write = slow_write };

static void *write_once(void *opaque)
{
	struct device *d = opaque;
	uint32_t value = 0;

	bus_write(d->bus, d->region.base, &value, 4);
	return NULL;
}

static void removal_waits_for_other_threads(void **state)
{
	struct bus bus;
	struct device a, b;
	pthread_t thread;
	uint32_t value = 0;

	(void)state;
	bus_init(&bus);
	init(&a, &bus, 0x1000, 0x100);
	init(&b, &bus, 0x2000, 0x100);
	a.region.ops = &slow_ops;
	assert_int_equal(bus_add(&bus, &a.region), 0);
	assert_int_equal(bus_add(&bus, &b.region), 0);
	assert_int_equal(pthread_create(&thread, NULL, write_once, &a), 0);
	while (!atomic_load(&a.entered))
		usleep(1000);
	/* Meanwhile the rest of the bus works, and other regions come and go. */
	assert_true(bus_write(&bus, 0x2000, &value, 4));
	bus_del(&bus, &b.region);
	assert_false(atomic_load(&a.done));
	atomic_store(&a.release, true);
	bus_del(&bus, &a.region);
	assert_true(atomic_load(&a.done));
	pthread_join(thread, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(dispatches_by_address),
		cmocka_unit_test(unclaimed_reads_give_ones),
		cmocka_unit_test(splits_odd_lengths),
		cmocka_unit_test(refuses_overlaps),
		cmocka_unit_test(a_region_may_remove_itself),
		cmocka_unit_test(removal_waits_for_other_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
