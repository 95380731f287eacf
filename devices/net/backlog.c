/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A ring of bytes with packets in it. Any thread puts, under a lock; one thread takes, without. Each
 * record is one piece: where it would cross the end of the ring, a mark sends the reader to the start.
 * Owns copies only, so that nothing of a guest's is held here. No allocation after init.
 */
#include "backlog.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "offload.h"

struct record {
	uint32_t size; /* of the record, with padding */
	uint32_t len;  /* of the packet; WRAP: nothing here, go on at the start */
	struct net_meta meta;
	uint8_t bytes[];
};

#define RECORD_ALIGN 8u
#define WRAP         UINT32_MAX

static size_t mapped_len(void)
{
	return BACKLOG_BYTES + (size_t)sysconf(_SC_PAGESIZE);
}

int net_backlog_init(struct net_backlog *backlog)
{
	/* The page behind it belongs to nobody: a record that does not end where it should stops there. */
	void *base = mmap(NULL, mapped_len(), PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (base == MAP_FAILED)
		return -errno;
	if (mprotect(base, BACKLOG_BYTES, PROT_READ | PROT_WRITE)) {
		int error = errno;

		munmap(base, mapped_len());
		return -error;
	}
	backlog->base = base;
	pthread_mutex_init(&backlog->lock, NULL);
	return 0;
}

void net_backlog_done(struct net_backlog *backlog)
{
	if (!backlog->base)
		return;
	munmap(backlog->base, mapped_len());
	pthread_mutex_destroy(&backlog->lock);
	backlog->base = NULL;
}

static struct record *record_at(const struct net_backlog *backlog, uint64_t position)
{
	return (void *)(backlog->base + position % BACKLOG_BYTES);
}

static bool put_locked(struct net_backlog *backlog, const struct net_packet *packet)
{
	uint64_t head = atomic_load_explicit(&backlog->head, memory_order_relaxed);
	/* Acquire: the reader is done with what it gave back. Partner: net_backlog_drop(). */
	uint64_t tail = atomic_load_explicit(&backlog->tail, memory_order_acquire);
	uint32_t size = (uint32_t)(sizeof(struct record) + packet->len + RECORD_ALIGN - 1) &
			~(RECORD_ALIGN - 1);
	uint32_t to_end = (uint32_t)(BACKLOG_BYTES - head % BACKLOG_BYTES);
	uint32_t skip = size > to_end ? to_end : 0;
	struct record *record;

	if (BACKLOG_BYTES - (head - tail) < (uint64_t)skip + size)
		return false;
	if (skip) {
		/* The end is a multiple of RECORD_ALIGN, so that these two words fit. */
		record = record_at(backlog, head);
		record->size = skip;
		record->len = WRAP;
	}
	record = record_at(backlog, head + skip);
	record->size = size;
	record->len = packet->len;
	record->meta = packet->meta;
	net_gather(record->bytes, packet->iov, packet->nr_iov, 0, packet->len);
	/* Release: the record before the position. Partner: net_backlog_peek(). */
	atomic_store_explicit(&backlog->head, head + skip + size, memory_order_release);
	return true;
}

bool net_backlog_put(struct net_backlog *backlog, const struct net_packet *packet)
{
	bool put;

	pthread_mutex_lock(&backlog->lock);
	put = net_backlog_is_open(backlog) && put_locked(backlog, packet);
	pthread_mutex_unlock(&backlog->lock);
	return put;
}

struct putter {
	struct net_backlog *backlog;
	int missed;
};

static bool emit(void *opaque, const struct net_packet *packet)
{
	struct putter *putter = opaque;

	putter->missed += !net_backlog_put(putter->backlog, packet);
	return true;
}

int net_backlog_put_as(struct net_backlog *backlog, const struct net_packet *packet,
		       uint64_t features, uint8_t *scratch)
{
	struct putter putter = { .backlog = backlog };

	if (net_meta_accepted(&packet->meta, features))
		return !net_backlog_put(backlog, packet);
	net_gather(scratch, packet->iov, packet->nr_iov, 0, packet->len);
	if (!net_offload(scratch, packet->len, &packet->meta, features, emit, &putter))
		return -EBADMSG;
	return putter.missed;
}

bool net_backlog_peek(const struct net_backlog *backlog, struct net_packet *packet,
		      struct iovec *iov)
{
	uint64_t tail = atomic_load_explicit(&backlog->tail, memory_order_relaxed);
	struct record *record;

	if (net_backlog_empty(backlog))
		return false;
	record = record_at(backlog, tail);
	if (record->len == WRAP)
		record = record_at(backlog, tail + record->size);
	*iov = (struct iovec){ record->bytes, record->len };
	*packet = (struct net_packet){
		.meta = record->meta, .len = record->len, .nr_iov = 1, .iov = iov
	};
	return true;
}

void net_backlog_drop(struct net_backlog *backlog)
{
	uint64_t tail = atomic_load_explicit(&backlog->tail, memory_order_relaxed);
	const struct record *record = record_at(backlog, tail);

	if (record->len == WRAP) {
		tail += record->size;
		record = record_at(backlog, tail);
	}
	/* Release: the record was used. Partner: put_locked(). */
	atomic_store_explicit(&backlog->tail, tail + record->size, memory_order_release);
}

void net_backlog_open(struct net_backlog *backlog)
{
	pthread_mutex_lock(&backlog->lock);
	atomic_store(&backlog->open, true);
	pthread_mutex_unlock(&backlog->lock);
}

void net_backlog_close(struct net_backlog *backlog)
{
	pthread_mutex_lock(&backlog->lock);
	atomic_store(&backlog->open, false);
	pthread_mutex_unlock(&backlog->lock);
	while (!net_backlog_empty(backlog))
		net_backlog_drop(backlog);
}
