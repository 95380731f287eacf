/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * MSI-X of one function: the capability, the vector table and the pending bits, and the eventfds
 * that raise the vectors.
 *
 * Context: table accesses come on any vCPU thread, binding from the device's control context; the
 * object's own lock is taken last of all and held only over calls into KVM.
 *
 * A source is an eventfd (a queue's call, or the configuration change). While its vector may
 * interrupt, KVM listens to the eventfd; while the vector is masked nobody does, so the eventfd
 * itself remembers the event: it is the pending bit, and raises the interrupt when KVM listens
 * again.
 */
#ifndef VMM_MSIX_H
#define VMM_MSIX_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "pci.h"

#define MSIX_NO_VECTOR   0xffff /* virtio 1.2, 4.1.5.1.3 */
#define MSIX_MAX_VECTORS 2048   /* the table size field has 11 bits */

struct msix_source {
	int fd; /* eventfd, EFD_NONBLOCK; borrowed */
	uint16_t vector;
	bool listening; /* KVM has it as irqfd of the vector's GSI */
	struct msix_source *next;
};

struct msix_vector {
	uint32_t words[4]; /* as the guest sees them: address, upper address, data, control */
	int gsi;           /* -1: not used yet */
};

struct msix {
	pthread_mutex_t lock;
	struct vm *vm;
	struct pci_function *fn;
	unsigned capability;
	uint16_t flags; /* message control, as last written; config[] is under the bus's lock */
	unsigned nr_vectors;
	uint64_t pba_offset;
	struct msix_vector *vectors;
	struct msix_source *sources; /* bound ones */
	struct report_limit limit;
};

/* BAR @bar (even) becomes table and pending bits. 0, -EINVAL too many vectors, -ENOMEM, -ENOSPC. */
int msix_init(struct msix *msix, struct vm *vm, struct pci_function *fn, unsigned bar,
	      unsigned nr_vectors);
void msix_done(struct msix *msix);

/* To be called from the function's config_written, and at its reset. */
void msix_config_written(struct msix *msix, unsigned offset, unsigned len);
void msix_reset(struct msix *msix);

void msix_source_init(struct msix_source *source, int fd);
/*
 * Let @source raise @vector, in place of what it raised before; MSIX_NO_VECTOR: nothing any more.
 * -EINVAL when there is no such vector, -ENOSPC when KVM has no route left: it is unbound then.
 */
int msix_bind(struct msix *msix, struct msix_source *source, uint16_t vector);

#endif
