/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Polled doorbell pages. Owns the memfd and our mapping of it; made and dropped on control, watched
 * by one queue thread per page.
 *
 * Why no ring is lost
 *
 * The driver stores the avail index and then, after a full barrier, the doorbell. The watcher does
 * the reverse: it silences the doorbell first and looks at the ring afterwards. So of a store to
 * the doorbell and our exchange, one comes first:
 *  - the store: the exchange read it, and as an acquire it sees the avail index stored before it;
 *  - the exchange: the store is still in the page when the watcher looks next.
 * Looking at the ring first and silencing afterwards would lose what came in between.
 * Several rings before one look are one ring, as with an eventfd.
 *
 * What is stored
 *
 * The queue's index, 16 bits wide; with VIRTIO_F_NOTIFICATION_DATA 32 bits, index and ring
 * position. The value is the guest's and is not used: the page already says which queue. Any change
 * of the 32 bits is a ring. Storing what a silent page holds only silences the guest's own queue.
 *
 * Who holds a page
 *
 * A front end may keep its mapping, and write to it, for as long as it likes. It can be handed to
 * nobody else, or the old holder could silence the new one's rings: after a connection has ended,
 * make new pages for the next. The seals keep every holder from cutting the file under the others.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "doorbell.h"

int doorbell_pages_init(struct doorbell_pages *pages, unsigned nr)
{
	size_t page_size = (size_t)sysconf(_SC_PAGESIZE), len = nr * page_size;
	int fd, ret;
	void *base;

	fd = memfd_create("belfry-doorbells", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)len) ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
		goto err_errno;
	base = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (base == MAP_FAILED)
		goto err_errno;
	memset(base, 0xff, len);
	*pages =
		(struct doorbell_pages){ .fd = fd, .nr = nr, .page_size = page_size, .base = base };
	return 0;

err_errno:
	ret = -errno;
	close(fd);
	return ret;
}

void doorbell_pages_done(struct doorbell_pages *pages)
{
	if (pages->base)
		munmap(pages->base, pages->nr * pages->page_size);
	if (pages->fd >= 0)
		close(pages->fd);
	*pages = (struct doorbell_pages)DOORBELL_PAGES_NONE;
}

uint64_t doorbell_offset(const struct doorbell_pages *pages, unsigned queue)
{
	return (uint64_t)queue * pages->page_size;
}

uint32_t *doorbell_word(const struct doorbell_pages *pages, unsigned queue)
{
	return (void *)(pages->base + queue * pages->page_size);
}

void doorbell_reset(uint32_t *word)
{
	unsigned queue;

	for (queue = 0; queue < 64; queue++)
		__atomic_store_n(doorbell_staggered(word, queue), DOORBELL_SILENT,
				 __ATOMIC_SEQ_CST);
}
