/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * For LD_PRELOAD with belfry-blk --io=threads: a flush takes a while, as on a real disk. Requests that
 * came later are finished meanwhile, so that one who is killed leaves a hole in what is in flight. Any
 * thread; it does nothing else.
 */
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define FLUSH_MS 400

int fdatasync(int fd);

int fdatasync(int fd)
{
	const struct timespec pause = { .tv_nsec = FLUSH_MS * 1000000L };

	nanosleep(&pause, NULL);
	return (int)syscall(SYS_fdatasync, fd);
}
