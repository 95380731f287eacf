/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Postcopy: guest memory whose pages come when they are touched ("Migration", postcopy messages).
 *
 *	ADVISE		we open a userfaultfd, which the front end keeps as well
 *	LISTEN		memory that is announced from here on is incomplete
 *	SET_MEM_TABLE	mapped, but not in force; answered by our addresses of it
 *	SET_MEM_TABLE	without regions: the front end knows them now, and serves faults. Registered
 *			with the userfaultfd, and put in force; no answer
 *	END		all pages are there
 *
 * Control context. A page that is touched before it is registered would read as zeroes for good; so
 * memory is not in force, and no ring can run in it, before the second table. What is registered, and
 * what becomes of it when the front end goes in the middle, is missing.c's.
 */
#include "backend.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../base/fd.h"
#include "../mem/map.h"

/*
 * One that sees faults of the kernel too: requests are done by system calls on guest memory. Without
 * privilege that comes from the device node, where there is one.
 */
static int open_userfaultfd(void)
{
	int fd = (int)syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK), error = errno;

#ifdef USERFAULTFD_IOC_NEW
	if (fd < 0) {
		int node = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);

		if (node >= 0)
			fd = ioctl(node, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
		bf_fd_close(&node);
	}
#endif
	return fd < 0 ? -error : fd;
}

int bf_backend_check_postcopy(void)
{
	int fd = open_userfaultfd();

	if (fd < 0)
		return fd;
	bf_fd_close(&fd);
	return 0;
}

static int no_userfaultfd(struct bf_backend *be, int error)
{
	return bf_report_error(&be->report, error,
			       "POSTCOPY_ADVISE: no userfaultfd: %s; it takes CAP_SYS_PTRACE, "
			       "/dev/userfaultfd, or vm.unprivileged_userfaultfd=1",
			       strerror(-error));
}

static int begin(struct bf_backend *be)
{
	struct uffdio_api api = { .api = UFFD_API };
	int fd, ret;

	/* Nobody would see the faults of what the last one registered. */
	if (bf_missing_nr(be->missing))
		return bf_report_error(
			&be->report, -EBUSY,
			"POSTCOPY_ADVISE: memory is still missing after the last one; "
			"POSTCOPY_END comes first");
	fd = open_userfaultfd();
	if (fd < 0)
		return no_userfaultfd(be, fd);
	ret = ioctl(fd, UFFDIO_API, &api) < 0 ? -errno : bf_missing_begin(be->missing, fd);
	if (ret) {
		bf_fd_close(&fd);
		return bf_report_error(&be->report, ret, "POSTCOPY_ADVISE: userfaultfd: %s",
				       strerror(-ret));
	}
	bf_fd_close(&be->uffd);
	be->uffd = fd;
	be->listening = false;
	bf_memory_unref(be->postcopy_memory);
	be->postcopy_memory = NULL;
	return 0;
}

/* No descriptor: it cannot be done here. */
int bf_handle_postcopy_advise(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply)
{
	int ret = begin(be), fd = ret ? ret : bf_fd_dup(be->uffd);

	(void)msg;
	if (fd >= 0)
		bf_msg_lend_fd(reply, fd);
	else
		bf_report_peer(&be->report, BF_LOG_WARN, "refused: %s", be->report.error);
	return 0;
}

int bf_handle_postcopy_listen(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply)
{
	(void)msg;
	(void)reply;
	if (be->uffd < 0)
		return bf_report_error(&be->report, -EINVAL,
				       "POSTCOPY_LISTEN: POSTCOPY_ADVISE comes first");
	if (be->memory)
		return bf_report_error(
			&be->report, -EBUSY,
			"POSTCOPY_LISTEN: there is guest memory already, whose faults "
			"nobody would see");
	be->listening = true;
	return 0;
}

int bf_postcopy_set_mem_table(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply,
			      struct bf_memory *memory)
{
	struct bf_mem_table *table = &reply->payload.table;

	*table = msg->payload.table;
	for (unsigned i = 0; i < table->nr; i++) {
		const struct bf_mem_region *region = &msg->payload.table.regions[i];
		void *hva = bf_memory_from_gpa(memory, region->gpa, region->size);

		table->regions[i].uva = (uintptr_t)hva;
	}
	reply->hdr.size = bf_table_wire_size(table->nr);
	bf_memory_unref(be->postcopy_memory);
	be->postcopy_memory = memory;
	/* It is a reply of its own, whether an acknowledgement was asked for or not. */
	{
		int ret = bf_channel_reply(&be->main, msg, reply);

		return ret ? ret : BF_HANDLED;
	}
}

/*
 * Nothing that fails here can be told: the front end does not wait for an answer. So it ends the
 * connection, as the guest would read zeroes where its memory should be.
 */
int bf_postcopy_go_ahead(struct bf_backend *be)
{
	struct bf_memory *memory = be->postcopy_memory;
	int ret = be->uffd < 0 ? -EINVAL : 0;

	be->postcopy_memory = NULL;
	for (unsigned i = 0; !ret && i < memory->nr; i++)
		ret = bf_missing_add(be->missing, memory->mappings[i]);
	if (ret) {
		bf_memory_unref(memory);
		be->fatal = true;
		return bf_report_error(
			&be->report, ret,
			"SET_MEM_TABLE: guest memory cannot be watched by userfaultfd: %s",
			strerror(-ret));
	}
	if (bf_backend_swap_memory(be, memory, true))
		bf_report_peer(&be->report, BF_LOG_WARN, "%s", be->report.error);
	return BF_HANDLED;
}

/* What is there stays, and any other page would be zeroes. */
void bf_postcopy_end(struct bf_backend *be)
{
	if (be->missing)
		bf_missing_end(be->missing);
	bf_fd_close(&be->uffd);
	be->listening = false;
	bf_memory_unref(be->postcopy_memory);
	be->postcopy_memory = NULL;
}

void bf_backend_give_up_missing(struct bf_backend *be)
{
	if (be->missing)
		bf_missing_give_up(be->missing);
}

int bf_handle_postcopy_end(struct bf_backend *be, struct bf_msg *msg, struct bf_msg *reply)
{
	(void)msg;
	bf_postcopy_end(be);
	bf_msg_set_u64(reply, 0);
	return 0;
}
