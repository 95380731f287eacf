/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Counts the threads that spin, and knows how many CPUs there are for them. Any queue thread.
 *
 * A spinning thread on a CPU of its own should never enter the kernel. But when as many threads
 * spin as this process may use CPUs, each keeps the others, the control thread, and whoever shall
 * ring the doorbell, from running until its time slice is over: milliseconds. Then, and only after
 * a while without work, a round ends with sched_yield().
 */
#include <sched.h>
#include <stdatomic.h>

#include "spin.h"

/* Rounds without work after which a crowded CPU is offered to others: some ten microseconds. */
#define PATIENT_ROUNDS (4 * SPIN_LOOK_ROUNDS)

static atomic_uint nr_spinning;
static atomic_uint nr_cpus;

unsigned spin_usable_cpus(void)
{
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set))
		return 1;
	return (unsigned)CPU_COUNT(&set);
}

void spin_begin(struct spin *spin)
{
	spin->rounds = 0;
	atomic_store_explicit(&nr_cpus, spin_usable_cpus(), memory_order_relaxed);
	atomic_fetch_add_explicit(&nr_spinning, 1, memory_order_relaxed);
}

void spin_end(struct spin *spin)
{
	spin->rounds = 0;
	atomic_fetch_sub_explicit(&nr_spinning, 1, memory_order_relaxed);
}

static int crowded(void)
{
	return atomic_load_explicit(&nr_spinning, memory_order_relaxed) >=
	       atomic_load_explicit(&nr_cpus, memory_order_relaxed);
}

int spin_wait(struct spin *spin)
{
	spin_pause();
	spin->rounds++;
	if (spin->rounds % SPIN_LOOK_ROUNDS)
		return 0;
	if (spin->rounds >= PATIENT_ROUNDS) {
		spin->rounds = PATIENT_ROUNDS;
		if (crowded())
			sched_yield();
	}
	return 1;
}
