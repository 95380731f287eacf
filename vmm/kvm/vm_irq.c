/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Interrupts: the routing table (legacy pins and MSI), irqfds, and direct injection.
 *
 * Any thread; the table has a lock. KVM takes routes only as a whole, so the table is kept here
 * and handed over again on every change; unchanged routes (a vector masked and unmasked) are not.
 *
 * Legacy GSIs are wired as on a PC: each reaches the PIC and the IOAPIC, the timer's GSI 0 the
 * IOAPIC's pin 2. The MADT says the same.
 */
#include "vm_core.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "kvm.h"

#define PIC_PINS           8
#define MAX_LEGACY_ENTRIES (2 * VM_NR_LEGACY_GSIS)

static unsigned legacy_entries(struct kvm_irq_routing_entry *e)
{
	unsigned gsi, n = 0;

	for (gsi = 0; gsi < VM_NR_LEGACY_GSIS; gsi++) {
		if (gsi < 2 * PIC_PINS && gsi != 2) /* input 2 is the second PIC's cascade */
			e[n++] = (struct kvm_irq_routing_entry){
				.gsi = gsi,
				.type = KVM_IRQ_ROUTING_IRQCHIP,
				.u.irqchip = { .irqchip = gsi < PIC_PINS ? KVM_IRQCHIP_PIC_MASTER
									 : KVM_IRQCHIP_PIC_SLAVE,
					       .pin = gsi % PIC_PINS },
			};
		if (gsi != 2)
			e[n++] = (struct kvm_irq_routing_entry){
				.gsi = gsi,
				.type = KVM_IRQ_ROUTING_IRQCHIP,
				.u.irqchip = { .irqchip = KVM_IRQCHIP_IOAPIC,
					       .pin = gsi ? gsi : 2 },
			};
	}
	return n;
}

/* Called with the lock held. */
static int commit(struct vm *vm)
{
	const struct vm_irq *irq = &vm->irq;
	struct kvm_irq_routing *table;
	unsigned i;
	int rc;

	table = calloc(1, sizeof(*table) + (MAX_LEGACY_ENTRIES + irq->nr_routes) *
						   sizeof(table->entries[0]));
	if (!table)
		return -ENOMEM;
	table->nr = legacy_entries(table->entries);
	for (i = 0; i < irq->nr_routes; i++) {
		const struct vm_route *r = &irq->routes[i];

		if (r->used && r->set)
			table->entries[table->nr++] = (struct kvm_irq_routing_entry){
				.gsi = VM_NR_LEGACY_GSIS + i,
				.type = KVM_IRQ_ROUTING_MSI,
				.u.msi = { .address_lo = (uint32_t)r->address,
					   .address_hi = (uint32_t)(r->address >> 32),
					   .data = r->data },
			};
	}
	rc = ioctl(vm->fd, KVM_SET_GSI_ROUTING, table) < 0 ? -errno : 0;
	free(table);
	return rc;
}

int vm_irq_init(struct vm *vm)
{
	int max = kvm_extension(vm->fd, KVM_CAP_IRQ_ROUTING);

	if (max <= MAX_LEGACY_ENTRIES)
		return -EOPNOTSUPP;
	vm->irq.max_routes = (unsigned)max - MAX_LEGACY_ENTRIES;
	return commit(vm);
}

void vm_irq_done(struct vm *vm)
{
	free(vm->irq.routes);
}

/* Called with the lock held. */
static int grow(struct vm_irq *irq)
{
	unsigned nr = irq->nr_routes ? irq->nr_routes * 2 : 16;
	struct vm_route *grown;

	if (irq->nr_routes >= irq->max_routes)
		return -ENOSPC;
	nr = nr < irq->max_routes ? nr : irq->max_routes;
	grown = realloc(irq->routes, nr * sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	memset(grown + irq->nr_routes, 0, (nr - irq->nr_routes) * sizeof(*grown));
	irq->routes = grown;
	irq->nr_routes = nr;
	return 0;
}

int vm_msi_alloc(struct vm *vm)
{
	struct vm_irq *irq = &vm->irq;
	unsigned i;
	int rc = 0;

	pthread_mutex_lock(&irq->lock);
	for (i = 0; i < irq->nr_routes; i++)
		if (!irq->routes[i].used)
			break;
	if (i == irq->nr_routes)
		rc = grow(irq);
	if (!rc) {
		irq->routes[i] = (struct vm_route){ .used = true };
		rc = (int)(VM_NR_LEGACY_GSIS + i);
	}
	pthread_mutex_unlock(&irq->lock);
	return rc;
}

/* The route of a GSI that vm_msi_alloc() gave out, or NULL. Called with the lock held. */
static struct vm_route *route_of(struct vm_irq *irq, int gsi)
{
	const unsigned i = (unsigned)gsi - VM_NR_LEGACY_GSIS;

	return gsi >= VM_NR_LEGACY_GSIS && i < irq->nr_routes && irq->routes[i].used
		       ? &irq->routes[i]
		       : NULL;
}

void vm_msi_free(struct vm *vm, int gsi)
{
	struct vm_irq *irq = &vm->irq;
	struct vm_route *r;
	bool was_set;

	pthread_mutex_lock(&irq->lock);
	r = route_of(irq, gsi);
	if (r) {
		was_set = r->set;
		*r = (struct vm_route){ .used = false };
		if (was_set)
			commit(vm);
	}
	pthread_mutex_unlock(&irq->lock);
}

int vm_msi_set(struct vm *vm, int gsi, uint64_t address, uint32_t data)
{
	const struct vm_route wanted = {
		.used = true, .set = true, .address = address, .data = data
	};
	struct vm_irq *irq = &vm->irq;
	struct vm_route *r, before;
	int rc = 0;

	pthread_mutex_lock(&irq->lock);
	r = route_of(irq, gsi);
	if (!r) {
		rc = -EINVAL;
	} else if (!r->set || r->address != address || r->data != data) {
		before = *r;
		*r = wanted;
		rc = commit(vm);
		if (rc)
			*r = before;
	}
	pthread_mutex_unlock(&irq->lock);
	return rc;
}

static int set_irqfd(struct vm *vm, int gsi, int fd, uint32_t flags)
{
	struct kvm_irqfd irqfd = { .fd = (uint32_t)fd, .gsi = (uint32_t)gsi, .flags = flags };

	return ioctl(vm->fd, KVM_IRQFD, &irqfd) < 0 ? -errno : 0;
}

int vm_irqfd_add(struct vm *vm, int gsi, int fd)
{
	return set_irqfd(vm, gsi, fd, 0);
}

void vm_irqfd_del(struct vm *vm, int gsi, int fd)
{
	set_irqfd(vm, gsi, fd, KVM_IRQFD_FLAG_DEASSIGN);
}

int vm_msi_send(struct vm *vm, uint64_t address, uint32_t data)
{
	struct kvm_msi msi = {
		.address_lo = (uint32_t)address,
		.address_hi = (uint32_t)(address >> 32),
		.data = data,
	};

	/* 0 from KVM means that the guest's APIC did not take it, which is no error of ours. */
	return ioctl(vm->fd, KVM_SIGNAL_MSI, &msi) < 0 ? -errno : 0;
}

void vm_irq_line(struct vm *vm, unsigned gsi, bool high)
{
	struct kvm_irq_level level = { .irq = gsi, .level = high };

	ioctl(vm->fd, KVM_IRQ_LINE, &level);
}
