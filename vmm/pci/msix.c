/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * MSI-X: the table, the masks, and which eventfds KVM listens to.
 *
 * Runs on vCPU threads and control contexts under its own lock, and calls only KVM with it held.
 * Whatever changes (an entry, a mask, the enable bit, a binding) ends in one function, refresh():
 * it brings KVM in line with the registers. No path touches an irqfd on its own, so that a vector
 * that is reconfigured under load can neither lose a source nor keep a stale one.
 */
#include "msix.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include <linux/pci_regs.h>

#include "../kvm/vm.h"

#define ENTRY_SIZE 16
enum { WORD_ADDRESS, WORD_UPPER, WORD_DATA, WORD_CONTROL };

static bool may_interrupt(const struct msix *msix, const struct msix_vector *vector)
{
	return (msix->flags & PCI_MSIX_FLAGS_ENABLE) && !(msix->flags & PCI_MSIX_FLAGS_MASKALL) &&
	       !(vector->words[WORD_CONTROL] & PCI_MSIX_ENTRY_CTRL_MASKBIT);
}

static void drain(int fd)
{
	uint64_t count;

	/* EAGAIN, nothing was pending, is as good. */
	if (read(fd, &count, sizeof(count)) < 0)
		return;
}

static void listen_to(struct msix *msix, struct msix_vector *vector, struct msix_source *source)
{
	int err = vm_irqfd_add(msix->vm, vector->gsi, source->fd);

	if (err) {
		report_limited(&msix->limit, "%s: vector %u has no interrupt: KVM_IRQFD: %s",
			       msix->fn->name, source->vector, strerror(-err));
		return;
	}
	source->listening = true;
	/*
	 * What was pending has been raised by the addition. KVM leaves the count in the eventfd,
	 * and the next mask and unmask would raise it again. Later signals KVM consumes itself.
	 */
	drain(source->fd);
}

static void unlisten(struct msix *msix, struct msix_source *source)
{
	if (!source->listening)
		return;
	vm_irqfd_del(msix->vm, msix->vectors[source->vector].gsi, source->fd);
	source->listening = false;
}

static int route(struct msix *msix, struct msix_vector *vector)
{
	uint64_t address = vector->words[WORD_ADDRESS] | (uint64_t)vector->words[WORD_UPPER] << 32;
	int err = vm_msi_set(msix->vm, vector->gsi, address, vector->words[WORD_DATA]);

	if (err)
		report_limited(&msix->limit,
			       "%s: vector %u has no interrupt: the guest set address 0x%llx: %s",
			       msix->fn->name, (unsigned)(vector - msix->vectors),
			       (unsigned long long)address, strerror(-err));
	return err;
}

/* Bring KVM in line with one vector. @changed: its message was written, or may have been. */
static void refresh(struct msix *msix, unsigned idx, bool changed)
{
	struct msix_vector *vector = &msix->vectors[idx];
	bool live = vector->gsi >= 0 && may_interrupt(msix, vector);
	struct msix_source *source;

	if (live && changed)
		live = route(msix, vector) == 0;
	for (source = msix->sources; source; source = source->next) {
		if (source->vector != idx)
			continue;
		if (!live)
			unlisten(msix, source);
		else if (!source->listening)
			listen_to(msix, vector, source);
	}
}

static void refresh_all(struct msix *msix)
{
	unsigned i;

	for (i = 0; i < msix->nr_vectors; i++)
		if (msix->vectors[i].gsi >= 0)
			refresh(msix, i, true);
}

static bool pending(struct msix *msix, unsigned idx)
{
	struct msix_source *source;

	for (source = msix->sources; source; source = source->next) {
		struct pollfd pfd = { .fd = source->fd, .events = POLLIN };

		if (source->vector == idx && !source->listening && poll(&pfd, 1, 0) == 1)
			return true;
	}
	return false;
}

static uint8_t pending_byte(struct msix *msix, uint64_t offset)
{
	unsigned first = (unsigned)offset * 8;
	unsigned bit;
	uint8_t byte = 0;

	for (bit = 0; bit < 8; bit++)
		if (first + bit < msix->nr_vectors && pending(msix, first + bit))
			byte |= (uint8_t)(1u << bit);
	return byte;
}

static void table_read(void *opaque, uint64_t offset, void *data, unsigned len)
{
	struct msix *msix = opaque;
	uint64_t table_len = (uint64_t)msix->nr_vectors * ENTRY_SIZE;
	uint64_t pba_len = (msix->nr_vectors + 63) / 64 * 8;
	uint8_t *bytes = data;
	unsigned i;

	memset(data, 0, len);
	pthread_mutex_lock(&msix->lock);
	for (i = 0; i < len; i++, offset++) {
		if (offset < table_len)
			bytes[i] = ((const uint8_t *)msix->vectors[offset / ENTRY_SIZE]
					    .words)[offset % ENTRY_SIZE];
		else if (offset >= msix->pba_offset && offset - msix->pba_offset < pba_len)
			bytes[i] = pending_byte(msix, offset - msix->pba_offset);
	}
	pthread_mutex_unlock(&msix->lock);
}

/* PCI 3.0, 6.8.2: aligned dwords and qwords only; anything else is undefined, and does nothing
 * here. */
static void table_write(void *opaque, uint64_t offset, const void *data, unsigned len)
{
	struct msix *msix = opaque;
	unsigned idx = (unsigned)(offset / ENTRY_SIZE);
	struct msix_vector *vector;
	unsigned word, end;

	if ((len != 4 && len != 8) || offset % len || idx >= msix->nr_vectors)
		return;
	pthread_mutex_lock(&msix->lock);
	vector = &msix->vectors[idx];
	word = (unsigned)(offset % ENTRY_SIZE) / 4;
	for (end = word + len / 4; word < end; word++) {
		memcpy(&vector->words[word], data, 4);
		data = (const uint8_t *)data + 4;
	}
	vector->words[WORD_CONTROL] &= PCI_MSIX_ENTRY_CTRL_MASKBIT;
	refresh(msix, idx, true);
	pthread_mutex_unlock(&msix->lock);
}

static const struct bus_ops table_ops = { .read = table_read, .write = table_write };

void msix_config_written(struct msix *msix, unsigned offset, unsigned len)
{
	unsigned flags = msix->capability + PCI_MSIX_FLAGS;

	if (offset >= flags + 2 || offset + len <= flags)
		return;
	pthread_mutex_lock(&msix->lock);
	msix->flags = pci_get16(msix->fn->config + flags);
	refresh_all(msix);
	pthread_mutex_unlock(&msix->lock);
}

/* Every vector masked, its message zero (PCI 3.0, 6.8.2.9). */
static void clear_vectors(struct msix *msix)
{
	unsigned i;

	for (i = 0; i < msix->nr_vectors; i++) {
		struct msix_vector *vector = &msix->vectors[i];

		memset(vector->words, 0, sizeof(vector->words));
		vector->words[WORD_CONTROL] = PCI_MSIX_ENTRY_CTRL_MASKBIT;
	}
}

static void release_gsis(struct msix *msix)
{
	unsigned i;

	for (i = 0; i < msix->nr_vectors; i++) {
		if (msix->vectors[i].gsi >= 0)
			vm_msi_free(msix->vm, msix->vectors[i].gsi);
		msix->vectors[i].gsi = -1;
	}
}

static void unbind_all(struct msix *msix)
{
	while (msix->sources) {
		struct msix_source *source = msix->sources;

		unlisten(msix, source);
		msix->sources = source->next;
		source->next = NULL;
		source->vector = MSIX_NO_VECTOR;
	}
}

void msix_reset(struct msix *msix)
{
	pthread_mutex_lock(&msix->lock);
	pci_set16(msix->fn->config + msix->capability + PCI_MSIX_FLAGS,
		  (uint16_t)(msix->nr_vectors - 1));
	msix->flags = 0;
	unbind_all(msix);
	release_gsis(msix);
	clear_vectors(msix);
	pthread_mutex_unlock(&msix->lock);
}

void msix_source_init(struct msix_source *source, int fd)
{
	*source = (struct msix_source){ .fd = fd, .vector = MSIX_NO_VECTOR };
}

static void unbind(struct msix *msix, struct msix_source *source)
{
	struct msix_source **link;

	if (source->vector == MSIX_NO_VECTOR)
		return;
	unlisten(msix, source);
	for (link = &msix->sources; *link && *link != source; link = &(*link)->next)
		;
	if (*link)
		*link = source->next;
	source->next = NULL;
	source->vector = MSIX_NO_VECTOR;
}

static int ensure_gsi(struct msix *msix, struct msix_vector *vector)
{
	int gsi;

	if (vector->gsi >= 0)
		return 0;
	gsi = vm_msi_alloc(msix->vm);
	if (gsi < 0)
		return gsi;
	vector->gsi = gsi;
	return 0;
}

int msix_bind(struct msix *msix, struct msix_source *source, uint16_t vector)
{
	int err = 0;

	pthread_mutex_lock(&msix->lock);
	if (source->vector != vector) {
		unbind(msix, source);
		if (vector != MSIX_NO_VECTOR)
			err = vector < msix->nr_vectors ? ensure_gsi(msix, &msix->vectors[vector])
							: -EINVAL;
		if (!err && vector != MSIX_NO_VECTOR) {
			source->vector = vector;
			source->next = msix->sources;
			msix->sources = source;
			refresh(msix, vector, true);
		}
	}
	pthread_mutex_unlock(&msix->lock);
	return err;
}

int msix_init(struct msix *msix, struct vm *vm, struct pci_function *fn, unsigned bar,
	      unsigned nr_vectors)
{
	uint64_t table_len = (uint64_t)nr_vectors * ENTRY_SIZE;
	unsigned i;
	int at;

	memset(msix, 0, sizeof(*msix));
	if (nr_vectors < 1 || nr_vectors > MSIX_MAX_VECTORS)
		return -EINVAL;
	msix->vectors = calloc(nr_vectors, sizeof(*msix->vectors));
	if (!msix->vectors)
		return -ENOMEM;
	at = pci_capability_add(fn, PCI_CAP_ID_MSIX, PCI_CAP_MSIX_SIZEOF);
	if (at < 0) {
		free(msix->vectors);
		msix->vectors = NULL;
		return at;
	}
	msix->vm = vm;
	msix->fn = fn;
	msix->capability = (unsigned)at;
	msix->nr_vectors = nr_vectors;
	msix->pba_offset = (table_len + 4095) & ~4095ull;
	for (i = 0; i < nr_vectors; i++)
		msix->vectors[i].gsi = -1;
	clear_vectors(msix);
	pthread_mutex_init(&msix->lock, NULL);

	pci_set16(fn->config + at + PCI_MSIX_FLAGS, (uint16_t)(nr_vectors - 1));
	pci_set16(fn->writable + at + PCI_MSIX_FLAGS,
		  PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
	pci_set32(fn->config + at + PCI_MSIX_TABLE, bar);
	pci_set32(fn->config + at + PCI_MSIX_PBA, (uint32_t)msix->pba_offset | bar);
	pci_bar_init(fn, bar, msix->pba_offset + 4096, false, &table_ops, msix);
	return 0;
}

void msix_done(struct msix *msix)
{
	if (!msix->vectors)
		return;
	unbind_all(msix);
	release_gsis(msix);
	pthread_mutex_destroy(&msix->lock);
	free(msix->vectors);
	msix->vectors = NULL;
}
