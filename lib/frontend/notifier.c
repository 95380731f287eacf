/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Doorbells: check the page that the back end offers for a queue, map it, have it laid over the
 * queue's notify slot, and take it away again.
 *
 * Control context. The table is fixed, by queue index: registering allocates nothing but the
 * mapping. Nothing here sends: the acknowledgement is channel.c's. No page is ever restored from
 * here: after a withdrawal only the back end can offer one again.
 *
 * Withdrawing a doorbell
 *
 * The page may be under a store of a vCPU at any moment, and a store that hit it a moment ago may
 * not have been looked at by anybody. So, in this order:
 *   1. doorbell_unmap: the caller removes the page from the guest's address space and waits
 *      until no vCPU can still reach it (with KVM: until the memory slot is gone);
 *   2. unmap our own view. Done before 1, a vCPU would fault inside the VMM;
 *   3. signal the kick eventfd once. Whoever polled the page may have stopped before the last store
 *      arrived in it, and the store itself is no kick; this one stands for it;
 *   4. only then whatever made us withdraw: GET_VRING_BASE, reset, closing the main socket.
 * The eventfd was wired underneath all the time, so stores after 1 arrive through it.
 */
#include "frontend.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "../base/check.h"
#include "../base/fd.h"

static uint64_t page_size(void)
{
	return (uint64_t)sysconf(_SC_PAGESIZE);
}

void bf_fe_doorbell_reason(struct bf_frontend *fe, unsigned queue, const char *reason)
{
	struct bf_doorbell *doorbell = &fe->vrings[queue].doorbell;

	snprintf(doorbell->reason, sizeof(doorbell->reason), "%s", reason);
}

void bf_fe_kick(struct bf_frontend *fe, unsigned queue)
{
	bf_eventfd_signal(fe->vrings[queue].kick_fd);
	fe->vrings[queue].doorbell.nr_kicks++;
}

void bf_fe_doorbell_withdraw(struct bf_frontend *fe, unsigned queue, const char *why)
{
	struct bf_doorbell *doorbell = &fe->vrings[queue].doorbell;

	if (!doorbell->page)
		return;
	fe->ops.doorbell_unmap(fe->opaque, queue);
	munmap(doorbell->page, page_size());
	doorbell->page = NULL;
	doorbell->nr_withdrawn++;
	bf_fe_doorbell_reason(fe, queue, why);
	bf_fe_kick(fe, queue);
}

/* Keep why, log it, and return @error. A queue that has a doorbell keeps it: nothing changed. */
static int refuse(struct bf_frontend *fe, uint64_t queue, int error, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

static int refuse(struct bf_frontend *fe, uint64_t queue, int error, const char *format, ...)
{
	char reason[sizeof(fe->vrings[0].doorbell.reason)];
	va_list args;

	va_start(args, format);
	vsnprintf(reason, sizeof(reason), format, args);
	va_end(args);
	if (queue < BF_MAX_QUEUES) {
		fe->vrings[queue].doorbell.nr_refused++;
		if (!fe->vrings[queue].doorbell.page)
			bf_fe_doorbell_reason(fe, (unsigned)queue, reason);
	}
	bf_report_peer(&fe->report, BF_LOG_WARN, "doorbell of queue %llu refused: %s",
		       (unsigned long long)queue, reason);
	return error;
}

/* What holds for registering and for taking back. */
static int check_queue(struct bf_frontend *fe, uint64_t queue)
{
	if (!bf_has(fe->agreed.protocol_features, BF_PROTOCOL_F_HOST_NOTIFIER))
		return refuse(fe, queue, -EOPNOTSUPP, "HOST_NOTIFIER was not agreed");
	if (queue >= fe->nr_queues)
		return refuse(fe, queue, -EINVAL, "the device has %u queues, none of this number",
			      fe->nr_queues);
	return 0;
}

static int check_message(struct bf_frontend *fe, unsigned queue, const struct bf_vring_area *area,
			 unsigned nr_fds)
{
	uint64_t page = page_size();

	if (!fe->vrings[queue].started)
		return refuse(fe, queue, -EINVAL,
			      "the queue is not started; register after SET_VRING_KICK");
	if (nr_fds != 1)
		return refuse(fe, queue, -EBADF, "1 file descriptor expected, %u came", nr_fds);
	if (area->size != page)
		return refuse(fe, queue, -EINVAL,
			      "one host page of %llu bytes expected, %llu offered",
			      (unsigned long long)page, (unsigned long long)area->size);
	if (area->offset % page)
		return refuse(fe, queue, -EINVAL, "offset 0x%llx is not aligned to a page of %llu",
			      (unsigned long long)area->offset, (unsigned long long)page);
	if (area->offset > INT64_MAX - page)
		return refuse(fe, queue, -EOVERFLOW, "offset 0x%llx is beyond any file",
			      (unsigned long long)area->offset);
	return 0;
}

/*
 * Memory that can shrink under the mapping would be a SIGBUS in this process whenever the back end
 * likes. Only memfds can be sealed, and the seal is asked for before the length: then it stays
 * true.
 */
static int check_memory_file(struct bf_frontend *fe, unsigned queue, int fd, uint64_t offset)
{
	int seals = fcntl(fd, F_GET_SEALS);
	struct statfs fs;
	struct stat st;

	if (seals < 0 || !(seals & F_SEAL_SHRINK))
		return refuse(
			fe, queue, -EPERM,
			"the file could shrink under the mapping; use a memfd with F_SEAL_SHRINK");
	if (fstat(fd, &st) < 0 || fstatfs(fd, &fs) < 0)
		return refuse(fe, queue, -errno, "cannot examine the file: %s", strerror(errno));
	if (fs.f_type == HUGETLBFS_MAGIC)
		return refuse(fe, queue, -EINVAL,
			      "a file of huge pages cannot be mapped by one host page");
	if (!bf_range_ok(offset, page_size(), (uint64_t)st.st_size))
		return refuse(fe, queue, -ENXIO,
			      "the file is too short: a page at 0x%llx, the file has 0x%llx bytes",
			      (unsigned long long)offset, (unsigned long long)st.st_size);
	return 0;
}

static int check_file(struct bf_frontend *fe, unsigned queue, int fd, uint64_t offset)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return refuse(fe, queue, -errno, "cannot examine the file: %s", strerror(errno));
	/* A device's page has no length; VFIO devices are files without a type. */
	if (S_ISCHR(st.st_mode) || (st.st_mode & S_IFMT) == 0)
		return 0;
	if (!S_ISREG(st.st_mode))
		return refuse(fe, queue, -ENODEV,
			      "the file is neither a memfd nor a device (mode 0%o)", st.st_mode);
	return check_memory_file(fe, queue, fd, offset);
}

static bool is_memory(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
}

bool bf_fe_doorbell_is_memory(const struct bf_frontend *fe, unsigned queue)
{
	return fe->vrings[queue].doorbell.memory;
}

/* Map and have it laid over the notify slot; nothing is left behind on failure. */
static int lay(struct bf_frontend *fe, unsigned queue, int fd, uint64_t offset)
{
	struct bf_doorbell *doorbell = &fe->vrings[queue].doorbell;
	void *page = mmap(NULL, page_size(), PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)offset);
	int ret;

	if (page == MAP_FAILED)
		return refuse(fe, queue, -errno, "the page cannot be mapped: %s", strerror(errno));
	bf_fe_doorbell_withdraw(fe, queue, "replaced by the back end");
	doorbell->memory = is_memory(fd);
	ret = fe->ops.doorbell_map(fe->opaque, queue, page);
	if (ret) {
		munmap(page, page_size());
		return refuse(fe, queue, ret,
			      "the page could not be laid over the notify slot (error %d)", ret);
	}
	doorbell->page = page;
	doorbell->nr_mapped++;
	bf_fe_doorbell_reason(fe, queue, "");
	return 0;
}

static int take_back(struct bf_frontend *fe, unsigned queue, unsigned nr_fds)
{
	if (nr_fds)
		return refuse(fe, queue, -EBADF,
			      "no file descriptor expected with the \"no fd\" bit, %u came",
			      nr_fds);
	bf_fe_doorbell_withdraw(fe, queue, "taken back by the back end");
	return 0;
}

int bf_fe_doorbell_request(struct bf_frontend *fe, struct bf_msg *msg)
{
	const struct bf_vring_area *area = &msg->payload.area;
	uint64_t index = area->index & ~BF_VRING_NOFD; /* reserved bits make it too large */
	unsigned queue;
	int ret = check_queue(fe, index);

	if (ret < 0)
		return ret;
	queue = (unsigned)index;
	if (area->index & BF_VRING_NOFD)
		return take_back(fe, queue, msg->nr_fds);
	ret = check_message(fe, queue, area, msg->nr_fds);
	if (ret < 0)
		return ret;
	ret = check_file(fe, queue, msg->fds[0], area->offset);
	if (ret < 0)
		return ret;
	return lay(fe, queue, msg->fds[0], area->offset);
}

void bf_frontend_withdraw_doorbells(struct bf_frontend *fe, const char *why)
{
	for (unsigned queue = 0; queue < BF_MAX_QUEUES; queue++)
		bf_fe_doorbell_withdraw(fe, queue, why);
}

void bf_frontend_doorbell_state(const struct bf_frontend *fe, unsigned queue,
				struct bf_doorbell_state *state)
{
	const struct bf_doorbell *doorbell = &fe->vrings[queue].doorbell;

	*state = (struct bf_doorbell_state){
		.mapped = doorbell->page != NULL,
		.reason = doorbell->reason,
		.nr_mapped = doorbell->nr_mapped,
		.nr_withdrawn = doorbell->nr_withdrawn,
		.nr_refused = doorbell->nr_refused,
		.nr_kicks = doorbell->nr_kicks,
	};
}
