/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The pristine state of a vCPU: read right after creation, put back at a reset.
 *
 * Main thread, while the vCPU does not run. Of the MSRs those are written that differ from their
 * pristine value, so that one KVM lists but does not let us write matters only if the guest
 * changed it. Paravirtual areas (clock, steal time, asynchronous page faults) are MSRs too: KVM
 * must stop writing to them before the next kernel owns that memory.
 */
#include "vcpu.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "kvm.h"
#include "../base/report.h"

#define MSR_TSC  0x10
#define MAX_MSRS 1024

struct vcpu_state {
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_xcrs xcrs;
	bool has_xcrs; /* not where the processor lacks XSAVE */
	struct kvm_debugregs debugregs;
	struct kvm_lapic_state lapic;
	struct kvm_mp_state mp_state;
	struct kvm_vcpu_events events;
	struct kvm_xsave *xsave;
	struct kvm_msr_entry *msrs;
	unsigned nr_msrs;
};

/* struct kvm_msrs with room for one entry. */
union one_msr {
	struct kvm_msrs msrs;
	uint8_t room[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)];
};

static int get_msr(int vcpu_fd, uint32_t index, uint64_t *value)
{
	union one_msr m = { .msrs.nmsrs = 1 };

	m.msrs.entries[0].index = index;
	if (ioctl(vcpu_fd, KVM_GET_MSRS, &m) != 1)
		return -ENXIO;
	*value = m.msrs.entries[0].data;
	return 0;
}

int vcpu_set_msr(int vcpu_fd, uint32_t index, uint64_t value)
{
	union one_msr m = { .msrs.nmsrs = 1 };

	m.msrs.entries[0] = (struct kvm_msr_entry){ .index = index, .data = value };
	return ioctl(vcpu_fd, KVM_SET_MSRS, &m) == 1 ? 0 : -ENXIO;
}

static int list_msrs(int kvm_fd, struct kvm_msr_list **out)
{
	struct kvm_msr_list *list = calloc(1, sizeof(*list) + MAX_MSRS * sizeof(list->indices[0]));

	if (!list)
		return -ENOMEM;
	list->nmsrs = MAX_MSRS;
	if (ioctl(kvm_fd, KVM_GET_MSR_INDEX_LIST, list) < 0) {
		int rc = -errno;

		free(list);
		return rc;
	}
	*out = list;
	return 0;
}

static int save_msrs(struct vcpu_state *s, int kvm_fd, int vcpu_fd)
{
	struct kvm_msr_list *list = NULL;
	uint64_t value;
	unsigned i;
	int rc = list_msrs(kvm_fd, &list);

	if (!list)
		return rc;
	s->msrs = calloc(list->nmsrs, sizeof(*s->msrs));
	rc = s->msrs ? 0 : -ENOMEM;
	for (i = 0; !rc && i < list->nmsrs; i++) {
		const uint32_t index = list->indices[i];

		/* The list is the host's; this vCPU's CPUID may leave some out. */
		if (!get_msr(vcpu_fd, index, &value))
			s->msrs[s->nr_msrs++] =
				(struct kvm_msr_entry){ .index = index, .data = value };
	}
	free(list);
	return rc;
}

static int restore_msrs(const struct vcpu_state *s, int vcpu_fd)
{
	uint64_t now;
	unsigned i;

	for (i = 0; i < s->nr_msrs; i++) {
		const struct kvm_msr_entry *e = &s->msrs[i];

		if (e->index == MSR_TSC)
			continue;
		if (get_msr(vcpu_fd, e->index, &now) || now == e->data)
			continue;
		if (vcpu_set_msr(vcpu_fd, e->index, e->data))
			report("reset: MSR 0x%x keeps its value: KVM refuses the one from power-on",
			       e->index);
	}
	/* Zero is KVM's sign for "powered on with all the others": the TSCs stay in step. */
	return vcpu_set_msr(vcpu_fd, MSR_TSC, 0);
}

static int save_xsave(struct vcpu_state *s, int vm_fd, int vcpu_fd)
{
	int size = kvm_extension(vm_fd, KVM_CAP_XSAVE2);
	const bool large = size > (int)sizeof(*s->xsave);

	s->xsave = calloc(1, large ? (size_t)size : sizeof(*s->xsave));
	if (!s->xsave)
		return -ENOMEM;
	return ioctl(vcpu_fd, large ? KVM_GET_XSAVE2 : KVM_GET_XSAVE, s->xsave) < 0 ? -errno : 0;
}

static int save_registers(struct vcpu_state *s, int vcpu_fd)
{
	if (ioctl(vcpu_fd, KVM_GET_REGS, &s->regs) < 0 ||
	    ioctl(vcpu_fd, KVM_GET_SREGS, &s->sregs) < 0 ||
	    (s->has_xcrs && ioctl(vcpu_fd, KVM_GET_XCRS, &s->xcrs) < 0) ||
	    ioctl(vcpu_fd, KVM_GET_DEBUGREGS, &s->debugregs) < 0 ||
	    ioctl(vcpu_fd, KVM_GET_LAPIC, &s->lapic) < 0 ||
	    ioctl(vcpu_fd, KVM_GET_MP_STATE, &s->mp_state) < 0 ||
	    ioctl(vcpu_fd, KVM_GET_VCPU_EVENTS, &s->events) < 0)
		return -errno;
	return 0;
}

int vcpu_state_save(int kvm_fd, int vm_fd, int vcpu_fd, struct vcpu_state **out)
{
	struct vcpu_state *s = calloc(1, sizeof(*s));
	int rc;

	if (!s)
		return -ENOMEM;
	s->has_xcrs = kvm_extension(vm_fd, KVM_CAP_XCRS);
	rc = save_registers(s, vcpu_fd);
	if (!rc)
		rc = save_xsave(s, vm_fd, vcpu_fd);
	if (!rc)
		rc = save_msrs(s, kvm_fd, vcpu_fd);
	if (rc) {
		vcpu_state_free(s);
		return rc;
	}
	*out = s;
	return 0;
}

/*
 * The order matters: the APIC base (in sregs) decides what the APIC's registers mean, the APIC must
 * be there before the run state, and pending events are set last because the others may clear them.
 */
int vcpu_state_restore(int vcpu_fd, const struct vcpu_state *state)
{
	struct vcpu_state s = *state; /* the ioctls are not const-correct */
	int rc;

	if ((s.has_xcrs && ioctl(vcpu_fd, KVM_SET_XCRS, &s.xcrs) < 0) ||
	    ioctl(vcpu_fd, KVM_SET_XSAVE, s.xsave) < 0 ||
	    ioctl(vcpu_fd, KVM_SET_SREGS, &s.sregs) < 0)
		return -errno;
	rc = restore_msrs(&s, vcpu_fd);
	if (rc)
		return rc;
	s.events.flags |= KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SIPI_VECTOR |
			  KVM_VCPUEVENT_VALID_SHADOW;
	if (ioctl(vcpu_fd, KVM_SET_REGS, &s.regs) < 0 ||
	    ioctl(vcpu_fd, KVM_SET_LAPIC, &s.lapic) < 0 ||
	    ioctl(vcpu_fd, KVM_SET_DEBUGREGS, &s.debugregs) < 0 ||
	    ioctl(vcpu_fd, KVM_SET_MP_STATE, &s.mp_state) < 0 ||
	    ioctl(vcpu_fd, KVM_SET_VCPU_EVENTS, &s.events) < 0)
		return -errno;
	return 0;
}

void vcpu_state_free(struct vcpu_state *state)
{
	if (!state)
		return;
	free(state->xsave);
	free(state->msrs);
	free(state);
}
