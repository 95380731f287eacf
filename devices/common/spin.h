/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Spinning with manners: how a queue thread passes the time while it watches a doorbell.
 */
#ifndef COMMON_SPIN_H
#define COMMON_SPIN_H

/* System calls (looking at the kick eventfd) are worth one in this many rounds. */
#define SPIN_LOOK_ROUNDS 256

struct spin {
	unsigned rounds;
};

/* How many CPUs this process may use now; at least 1. */
unsigned spin_usable_cpus(void);

/* Queue: from here until spin_end() this thread counts as one that never sleeps. */
void spin_begin(struct spin *spin);
void spin_end(struct spin *spin);
/* One round of waiting. Returns non-zero when it is time to look at fds. */
int spin_wait(struct spin *spin);
/* A breath within a round: a hint to the CPU, no system call. */
static inline void spin_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ __volatile__("yield" ::: "memory");
#else
	__asm__ __volatile__("" ::: "memory");
#endif
}
/* There was work: the idle time starts anew. */
static inline void spin_worked(struct spin *spin)
{
	spin->rounds = 0;
}

#endif
