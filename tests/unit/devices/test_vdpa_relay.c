/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The relay thread: no kick is lost, none rings after removal, and no descriptor of a hostile peer
 * keeps it waiting or busy. virtio_pci_ring() is this file's.
 */
#include "../support.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/eventfd.h>

#include "devices/vdpa/relay.h"

#define QUEUES 4

static atomic_uint rings[QUEUES];
static atomic_bool slow, inside;

void virtio_pci_ring(const struct virtio_pci *vp, unsigned queue)
{
	(void)vp;
	if (atomic_load(&slow)) {
		atomic_store(&inside, true);
		usleep(5000);
		atomic_store(&inside, false);
	}
	atomic_fetch_add(&rings[queue], 1);
}

static void pause_ms(unsigned ms)
{
	usleep(ms * 1000);
}

static struct relay *begin(void)
{
	struct relay *relay;
	unsigned i;

	for (i = 0; i < QUEUES; i++)
		atomic_store(&rings[i], 0);
	assert_int_equal(relay_new(NULL, QUEUES, &relay), 0);
	return relay;
}

static int make_kick(unsigned count, int flags)
{
	int fd = eventfd(count, flags | EFD_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

static void await_kicks(const struct relay *relay, unsigned queue, uint64_t kicks)
{
	unsigned i;

	for (i = 0; i < 5000 && relay_kicks(relay, queue) != kicks; i++)
		pause_ms(1);
	assert_int_equal(relay_kicks(relay, queue), kicks);
}

static void test_relays(void **state)
{
	struct relay *relay = begin();
	unsigned fds = count_fds(), i;
	int kick[QUEUES];

	(void)state;
	for (i = 0; i < QUEUES; i++) {
		/* Kicks that came before are kicks too. */
		kick[i] = make_kick(i, EFD_NONBLOCK);
		assert_int_equal(relay_add(relay, i, kick[i]), 0);
		assert_int_equal(relay_add(relay, i, kick[i]), -EBUSY);
		await_kicks(relay, i, i);
	}
	assert_int_equal(relay_add(relay, QUEUES, kick[0]), -EINVAL);
	for (i = 0; i < QUEUES; i++)
		eventfd_write(kick[i], 10);
	for (i = 0; i < QUEUES; i++) {
		await_kicks(relay, i, i + 10);
		assert_in_range(atomic_load(&rings[i]), 1, 2);
	}
	assert_true(relay_wakeups(relay) > 0);
	assert_int_equal(relay_kicks(relay, QUEUES), 0);
	for (i = 0; i < QUEUES; i++) {
		relay_remove(relay, i);
		relay_remove(relay, i);
		close(kick[i]);
	}
	assert_int_equal(count_fds(), fds);
	relay_free(relay);
	relay_free(NULL);
}

static void test_removed_is_removed(void **state)
{
	struct relay *relay = begin();
	int kick = make_kick(0, EFD_NONBLOCK);
	unsigned before;
	eventfd_t left;

	(void)state;
	assert_int_equal(relay_add(relay, 1, kick), 0);
	relay_remove(relay, 1);
	before = atomic_load(&rings[1]);
	eventfd_write(kick, 5);
	pause_ms(50);
	assert_int_equal(atomic_load(&rings[1]), before);
	assert_int_equal(eventfd_read(kick, &left), 0);
	assert_int_equal(left, 5);
	/* And again. */
	eventfd_write(kick, 2);
	assert_int_equal(relay_add(relay, 1, kick), 0);
	await_kicks(relay, 1, 2);
	relay_free(relay);
	close(kick);
}

/* Removal waits for a ring that is under way. */
static void test_removal_waits(void **state)
{
	int kick = make_kick(0, EFD_NONBLOCK);
	struct relay *relay = begin();
	unsigned i;

	(void)state;
	atomic_store(&slow, true);
	for (i = 0; i < 20; i++) {
		assert_int_equal(relay_add(relay, 2, kick), 0);
		eventfd_write(kick, 1);
		while (!atomic_load(&inside))
			sched_yield();
		relay_remove(relay, 2);
		assert_false(atomic_load(&inside));
	}
	atomic_store(&slow, false);
	relay_free(relay);
	close(kick);
}

struct kicker {
	atomic_int fd;
	atomic_bool end;
};

static void *kick_on(void *arg)
{
	struct kicker *kicker = arg;

	while (!atomic_load(&kicker->end))
		eventfd_write(atomic_load(&kicker->fd), 1);
	return NULL;
}

/* Removal while kicks pour in: not a ring after it has returned. */
static void test_race(void **state)
{
	struct relay *relay = begin();
	struct kicker kicker = { 0 };
	int kick[2] = { make_kick(0, EFD_NONBLOCK), make_kick(0, EFD_NONBLOCK) };
	pthread_t thread;
	unsigned i, after;

	(void)state;
	atomic_store(&kicker.fd, kick[0]);
	assert_int_equal(pthread_create(&thread, NULL, kick_on, &kicker), 0);
	for (i = 0; i < 2000; i++) {
		assert_int_equal(relay_add(relay, 0, kick[i % 2]), 0);
		if (i % 3 == 0)
			sched_yield();
		relay_remove(relay, 0);
		after = atomic_load(&rings[0]);
		atomic_store(&kicker.fd, kick[(i + 1) % 2]);
		if (i % 5 == 0)
			sched_yield();
		assert_int_equal(atomic_load(&rings[0]), after);
	}
	atomic_store(&kicker.end, true);
	pthread_join(thread, NULL);
	assert_true(atomic_load(&rings[0]) > 0);
	relay_free(relay);
	close(kick[0]);
	close(kick[1]);
}

/* Context switches of the thread named "relay". */
static unsigned long switches(void)
{
	unsigned long nr, sum = 0;
	char path[300], line[128];
	struct dirent *entry;
	bool ours;
	DIR *dir = opendir("/proc/self/task");
	FILE *file;

	assert_non_null(dir);
	while ((entry = readdir(dir))) {
		snprintf(path, sizeof(path), "/proc/self/task/%s/status", entry->d_name);
		file = fopen(path, "re");
		if (!file)
			continue;
		ours = false;
		while (fgets(line, sizeof(line), file)) {
			ours |= !strcmp(line, "Name:\trelay\n");
			if (ours && (sscanf(line, "voluntary_ctxt_switches: %lu", &nr) == 1 ||
				     sscanf(line, "nonvoluntary_ctxt_switches: %lu", &nr) == 1))
				sum += nr;
		}
		fclose(file);
	}
	closedir(dir);
	return sum;
}

static void test_sleeps(void **state)
{
	struct relay *relay = begin();
	int kick = make_kick(1, EFD_NONBLOCK);
	unsigned long before;

	(void)state;
	assert_int_equal(relay_add(relay, 0, kick), 0);
	await_kicks(relay, 0, 1);
	pause_ms(50);
	before = switches();
	assert_true(before > 0);
	pause_ms(300);
	assert_int_equal(switches(), before);
	relay_free(relay);
	close(kick);
}

/*
 * One eventfd for two queues, and blocking: what the first of them reads is not there any more for
 * the second, as if the peer had been quicker. The thread is held up elsewhere meanwhile, so that
 * it hears of both at once.
 */
static void test_never_waits(void **state)
{
	int kick = make_kick(0, 0), same = fcntl(kick, F_DUPFD_CLOEXEC, 0);
	int other = make_kick(0, EFD_NONBLOCK);
	struct relay *relay = begin();

	(void)state;
	assert_int_equal(relay_add(relay, 0, kick), 0);
	assert_int_equal(relay_add(relay, 1, same), 0);
	assert_int_equal(relay_add(relay, 2, other), 0);
	atomic_store(&slow, true);
	eventfd_write(other, 1);
	while (!atomic_load(&inside))
		sched_yield();
	eventfd_write(kick, 1);
	atomic_store(&slow, false);
	while (relay_kicks(relay, 0) + relay_kicks(relay, 1) < 1)
		pause_ms(1);
	pause_ms(20);
	eventfd_write(other, 1);
	await_kicks(relay, 2, 2);
	relay_free(relay);
	close(kick);
	close(same);
	close(other);
}

/* A million kicks in a semaphore are one kick, not a million rounds. */
static void test_semaphore(void **state)
{
	struct relay *relay = begin();
	int kick = make_kick(1000000, EFD_SEMAPHORE);
	uint64_t wakeups;

	(void)state;
	assert_int_equal(relay_add(relay, 1, kick), 0);
	await_kicks(relay, 1, 1);
	wakeups = relay_wakeups(relay);
	pause_ms(100);
	assert_int_equal(relay_wakeups(relay), wakeups);
	assert_int_equal(relay_kicks(relay, 1), 1);
	eventfd_write(kick, 1);
	await_kicks(relay, 1, 2);
	relay_free(relay);
	close(kick);
}

static void test_no_eventfd(void **state)
{
	int file = make_memfd("no kick", 4096, 0);
	struct relay *relay = begin();
	uint64_t wakeups;
	int pair[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	assert_int_equal(relay_add(relay, 0, -1), -EBADF);
	assert_int_equal(relay_add(relay, 0, file), -EPERM);
	assert_int_equal(relay_add(relay, 0, pair[0]), 0);
	assert_int_equal(write(pair[1], "abc", 3), 3);
	pause_ms(20);
	/* Said once, and never looked at again. */
	assert_int_equal(write(pair[1], "12345678", 8), 8);
	close(pair[1]);
	pause_ms(50);
	wakeups = relay_wakeups(relay);
	pause_ms(50);
	assert_int_equal(relay_wakeups(relay), wakeups);
	assert_int_equal(relay_kicks(relay, 0), 0);
	assert_int_equal(atomic_load(&rings[0]), 0);
	relay_remove(relay, 0);
	relay_free(relay);
	close(pair[0]);
	close(file);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_relays),        cmocka_unit_test(test_removed_is_removed),
		cmocka_unit_test(test_removal_waits), cmocka_unit_test(test_race),
		cmocka_unit_test(test_sleeps),        cmocka_unit_test(test_never_waits),
		cmocka_unit_test(test_semaphore),     cmocka_unit_test(test_no_eventfd),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
