/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * CPUID of the vCPUs: everything KVM supports (its own paravirtual leaves included), with the
 * host's topology replaced by ours: one package, @nr_cpus cores, one thread each, APIC id = index.
 *
 * VMX and SVM are taken out: a reset in the middle of the guest's own guest could not be undone
 * by restoring the state that vcpu_state.c saves.
 *
 * Main thread, at start. Bit positions follow the Intel SDM, volume 2, CPUID, and the AMD
 * programmer's manual, volume 3, appendix E.
 */
#include "vcpu_cpuid.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "kvm.h"

#define MAX_ENTRIES 256
#define BIT(n)      (1u << (n))

struct topology {
	unsigned index;
	unsigned nr_cpus;
	unsigned core_bits; /* width of the core's part of an APIC id */
};

static size_t cpuid_size(unsigned nent)
{
	return sizeof(struct kvm_cpuid2) + nent * sizeof(struct kvm_cpuid_entry2);
}

int cpuid_supported(int kvm_fd, struct kvm_cpuid2 **out)
{
	struct kvm_cpuid2 *c = calloc(1, cpuid_size(MAX_ENTRIES));

	if (!c)
		return -ENOMEM;
	c->nent = MAX_ENTRIES;
	if (ioctl(kvm_fd, KVM_GET_SUPPORTED_CPUID, c) < 0) {
		int rc = -errno;

		free(c);
		return rc;
	}
	*out = c;
	return 0;
}

static const struct kvm_cpuid_entry2 *find(const struct kvm_cpuid2 *c, uint32_t function)
{
	unsigned i;

	for (i = 0; i < c->nent; i++)
		if (c->entries[i].function == function)
			return &c->entries[i];
	return NULL;
}

unsigned cpuid_physical_bits(const struct kvm_cpuid2 *supported)
{
	const struct kvm_cpuid_entry2 *e = find(supported, 0x80000008);

	return e && (e->eax & 0xff) ? e->eax & 0xff : 36;
}

static uint32_t highest_leaf(const struct kvm_cpuid2 *supported)
{
	const struct kvm_cpuid_entry2 *e = find(supported, 0);

	return e ? e->eax : 0;
}

static unsigned bits_for(unsigned n)
{
	unsigned bits = 0;

	while ((1u << bits) < n)
		bits++;
	return bits;
}

static void put_bits(uint32_t *reg, unsigned low, unsigned width, uint32_t value)
{
	const uint32_t mask = ((1u << width) - 1) << low;

	*reg = (*reg & ~mask) | ((value << low) & mask);
}

static void patch_features(struct kvm_cpuid_entry2 *e, int vm_fd, const struct topology *t)
{
	put_bits(&e->ebx, 24, 8, t->index);
	put_bits(&e->ebx, 16, 8, t->nr_cpus);
	put_bits(&e->edx, 28, 1, t->nr_cpus > 1); /* HTT: more than one logical processor */
	e->ecx |= BIT(31);                        /* hypervisor present */
	e->ecx &= ~BIT(5);                        /* VMX */
	/* KVM emulates it with its own APIC, and leaves it to us to say so. */
	if (kvm_extension(vm_fd, KVM_CAP_TSC_DEADLINE_TIMER))
		e->ecx |= BIT(24);
}

/* Which processors share a cache: one for levels 1 and 2, all for the others. */
static unsigned cache_sharers(const struct kvm_cpuid_entry2 *e, const struct topology *t)
{
	return ((e->eax >> 5) & 7) < 3 ? 1 : 1u << t->core_bits;
}

static void patch_extended_size(struct kvm_cpuid_entry2 *e, const struct topology *t)
{
	put_bits(&e->ecx, 0, 8, t->nr_cpus - 1);
	put_bits(&e->ecx, 12, 4, t->core_bits);
}

static void patch_amd_ids(struct kvm_cpuid_entry2 *e, const struct topology *t)
{
	e->eax = t->index;
	e->ebx = t->index & 0xff; /* core id; one thread per core */
	e->ecx = 0;
}

static void patch(struct kvm_cpuid_entry2 *e, int vm_fd, const struct topology *t)
{
	switch (e->function) {
	case 1:
		patch_features(e, vm_fd, t);
		break;
	case 4:
		if (e->eax & 0x1f) {
			put_bits(&e->eax, 14, 12, cache_sharers(e, t) - 1);
			put_bits(&e->eax, 26, 6, (1u << t->core_bits) - 1);
		}
		break;
	case 0x80000001:
		e->ecx &= ~BIT(2); /* SVM */
		break;
	case 0x80000008:
		patch_extended_size(e, t);
		break;
	case 0x8000001d:
		if (e->eax & 0x1f)
			put_bits(&e->eax, 14, 12, cache_sharers(e, t) - 1);
		break;
	case 0x8000001e:
		patch_amd_ids(e, t);
		break;
	}
}

/* Leaves that describe the host's own topology, or guests of the guest. */
static int is_replaced(uint32_t function)
{
	return function == 0xb || function == 0x1f || function == 0x8000000a;
}

/* Leaf 0xb: level 0 is the thread, level 1 the core. EDX is the x2APIC id. */
static void add_topology(struct kvm_cpuid2 *c, const struct topology *t)
{
	unsigned level;

	for (level = 0; level < 3; level++) {
		struct kvm_cpuid_entry2 *e = &c->entries[c->nent++];

		*e = (struct kvm_cpuid_entry2){
			.function = 0xb,
			.index = level,
			.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
			.ecx = level,
			.edx = t->index,
		};
		if (level < 2) {
			e->eax = level ? t->core_bits : 0;
			e->ebx = level ? t->nr_cpus : 1;
			e->ecx |= (level + 1) << 8;
		}
	}
}

int cpuid_for_vcpu(const struct kvm_cpuid2 *supported, int vm_fd, unsigned index, unsigned nr_cpus,
		   struct kvm_cpuid2 **out)
{
	const struct topology t = { index, nr_cpus, bits_for(nr_cpus) };
	struct kvm_cpuid2 *c = calloc(1, cpuid_size(supported->nent + 3));
	unsigned i;

	if (!c)
		return -ENOMEM;
	for (i = 0; i < supported->nent; i++) {
		struct kvm_cpuid_entry2 *e = &c->entries[c->nent];

		if (is_replaced(supported->entries[i].function))
			continue;
		*e = supported->entries[i];
		patch(e, vm_fd, &t);
		c->nent++;
	}
	if (highest_leaf(supported) >= 0xb)
		add_topology(c, &t);
	*out = c;
	return 0;
}
