/* SPDX-License-Identifier: BSD-3-Clause */
/* What a vCPU says of itself. Main thread, at start. */
#ifndef VMM_VCPU_CPUID_H
#define VMM_VCPU_CPUID_H

struct kvm_cpuid2;

/* What this host's KVM can offer; freed by free(). */
int cpuid_supported(int kvm_fd, struct kvm_cpuid2 **out);

/* A copy of @supported for vCPU @index of @nr_cpus, APIC id = index; freed by free(). */
int cpuid_for_vcpu(const struct kvm_cpuid2 *supported, int vm_fd, unsigned index, unsigned nr_cpus,
		   struct kvm_cpuid2 **out);

/* Width of a guest-physical address. */
unsigned cpuid_physical_bits(const struct kvm_cpuid2 *supported);

#endif
