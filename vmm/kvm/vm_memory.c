/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Guest memory: one sealed memfd for all of RAM, and the memory slots laid beside it.
 *
 *   0                RAM, up to VM_MMIO32_BASE of it      memfd offset 0
 *   VM_MMIO32_BASE   PCI 32-bit window
 *   VM_ECAM_BASE     PCI configuration space
 *   0xfec00000       IOAPIC, 0xfee00000 local APICs, 0xfffbc000 KVM's own pages
 *   VM_HIGH_RAM      the rest of RAM                      memfd offset VM_MMIO32_BASE
 *   VM_MMIO64_BASE   PCI 64-bit window
 *
 * The seals let a back end map the memfd without fear of truncation, and keep one from truncating
 * it under us. RAM is fixed for the VM's life, so reading the ranges takes no lock; the slots of
 * devices have one, and may come and go on any thread.
 */
#include "vm_core.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/memfd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kvm.h"
#include "../base/report.h"

#define HUGEPAGE_SIZE    ((uint64_t)2 << 20)
#define MAX_DEVICE_SLOTS 8192

static void explain_short(uint64_t size, bool hugepages, int err)
{
	if (hugepages)
		report("no %" PRIu64
		       " free huge pages of 2 MiB for guest memory (%s): reserve them "
		       "with sysctl vm.nr_hugepages=%" PRIu64 ", or leave out --hugepages",
		       size / HUGEPAGE_SIZE, strerror(err), size / HUGEPAGE_SIZE);
	else
		report("cannot get %" PRIu64 " MiB for guest memory: %s; try a smaller --memory",
		       size >> 20, strerror(err));
}

static int create_memfd(uint64_t size, bool hugepages)
{
	const unsigned flags =
		MFD_CLOEXEC | MFD_ALLOW_SEALING | (hugepages ? MFD_HUGETLB | MFD_HUGE_2MB : 0u);
	int fd = memfd_create("belfry-ram", flags);
	int rc;

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)size) < 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
		rc = -errno;
		close(fd);
		return rc;
	}
	return fd;
}

static int map_ram(struct vm_memory *m, uint64_t size, bool hugepages)
{
	int fd = create_memfd(size, hugepages);
	void *hva;

	if (fd < 0)
		return fd;
	hva = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (hva == MAP_FAILED) {
		int rc = -errno;

		close(fd);
		return rc;
	}
	madvise(hva, size, MADV_DONTDUMP);
	if (!hugepages)
		madvise(hva, size, MADV_HUGEPAGE);
	m->fd = fd;
	m->hva = hva;
	m->size = size;
	return 0;
}

static void add_range(struct vm_memory *m, uint64_t gpa, uint64_t offset, uint64_t size)
{
	m->ranges[m->nr_ranges++] = (struct vm_ram){
		.gpa = gpa,
		.size = size,
		.hva = (char *)m->hva + offset,
		.fd = m->fd,
		.fd_offset = offset,
	};
}

int vm_memory_set_slot(struct vm *vm, unsigned slot, uint64_t gpa, uint64_t size, void *hva)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot,
		.guest_phys_addr = gpa,
		.memory_size = size,
		.userspace_addr = (uintptr_t)hva,
	};

	return ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &region) < 0 ? -errno : 0;
}

static unsigned device_slots(const struct vm *vm)
{
	int all = kvm_extension(vm->fd, KVM_CAP_NR_MEMSLOTS);

	/* KVM before this capability had 32 slots. */
	all = (all > 0 ? all : 32) - VM_MAX_RAM_RANGES;
	return all < MAX_DEVICE_SLOTS ? (unsigned)all : MAX_DEVICE_SLOTS;
}

int vm_memory_init(struct vm *vm, uint64_t size, bool hugepages)
{
	struct vm_memory *m = &vm->memory;
	unsigned i;
	int rc = map_ram(m, size, hugepages);

	if (rc) {
		explain_short(size, hugepages, -rc);
		return rc;
	}
	if (size <= VM_MMIO32_BASE) {
		add_range(m, 0, 0, size);
	} else {
		add_range(m, 0, 0, VM_MMIO32_BASE);
		add_range(m, VM_HIGH_RAM, VM_MMIO32_BASE, size - VM_MMIO32_BASE);
	}
	for (i = 0; i < m->nr_ranges; i++) {
		rc = vm_memory_set_slot(vm, i, m->ranges[i].gpa, m->ranges[i].size,
					m->ranges[i].hva);
		if (rc) {
			report("KVM refused guest memory: %s", strerror(-rc));
			return rc;
		}
	}
	vm->slots.max = device_slots(vm);
	return 0;
}

void vm_memory_done(struct vm *vm)
{
	if (vm->memory.hva)
		munmap(vm->memory.hva, vm->memory.size);
	if (vm->memory.fd >= 0)
		close(vm->memory.fd);
	free(vm->slots.used);
}

unsigned vm_ram(const struct vm *vm, const struct vm_ram **ranges)
{
	*ranges = vm->memory.ranges;
	return vm->memory.nr_ranges;
}

void *vm_gpa_to_hva(const struct vm *vm, uint64_t gpa, uint64_t len)
{
	const struct vm_memory *m = &vm->memory;
	unsigned i;

	for (i = 0; i < m->nr_ranges; i++) {
		const struct vm_ram *r = &m->ranges[i];

		if (gpa >= r->gpa && len <= r->size && gpa - r->gpa <= r->size - len)
			return (char *)r->hva + (gpa - r->gpa);
	}
	return NULL;
}

/* An unused index, growing the table by doubling. Called with the lock held. */
static int take_slot(struct vm_slots *s)
{
	unsigned i, nr;
	bool *grown;

	for (i = 0; i < s->nr; i++)
		if (!s->used[i])
			break;
	if (i == s->nr) {
		if (s->nr >= s->max)
			return -ENOSPC;
		nr = s->nr ? s->nr * 2 : 16;
		nr = nr < s->max ? nr : s->max;
		grown = realloc(s->used, nr * sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		memset(grown + s->nr, 0, (nr - s->nr) * sizeof(*grown));
		s->used = grown;
		s->nr = nr;
	}
	s->used[i] = true;
	return (int)i;
}

int vm_slot_add(struct vm *vm, uint64_t gpa, uint64_t size, void *hva)
{
	struct vm_slots *s = &vm->slots;
	int slot, rc;

	pthread_mutex_lock(&s->lock);
	slot = take_slot(s);
	if (slot >= 0) {
		rc = vm_memory_set_slot(vm, VM_MAX_RAM_RANGES + (unsigned)slot, gpa, size, hva);
		if (rc) {
			s->used[slot] = false;
			slot = rc;
		}
	}
	pthread_mutex_unlock(&s->lock);
	return slot;
}

void vm_slot_del(struct vm *vm, int slot)
{
	struct vm_slots *s = &vm->slots;

	if (slot < 0)
		return;
	pthread_mutex_lock(&s->lock);
	if ((unsigned)slot < s->nr && s->used[slot]) {
		/* KVM returns from this after every vCPU has left the old address map. */
		vm_memory_set_slot(vm, VM_MAX_RAM_RANGES + (unsigned)slot, 0, 0, NULL);
		s->used[slot] = false;
		atomic_fetch_add(&s->nr_removed, 1);
	}
	pthread_mutex_unlock(&s->lock);
}

void vm_on_fault(struct vm *vm, bool (*fn)(void *opaque), void *opaque)
{
	vm->on_fault = fn;
	vm->fault_opaque = opaque;
}

unsigned vm_slots_removed(struct vm *vm)
{
	return atomic_load(&vm->slots.nr_removed);
}

bool vm_recover_fault(struct vm *vm, unsigned removed)
{
	if (vm->on_fault && vm->on_fault(vm->fault_opaque))
		return true;
	return vm_slots_removed(vm) != removed; /* another vCPU was here first */
}
