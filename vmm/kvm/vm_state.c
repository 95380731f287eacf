/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The pristine state of the in-kernel PICs, IOAPIC and PIT, and its return at a reset.
 *
 * KVM has no reset of its own for them, so their state is read right after creation. Main thread,
 * while no vCPU runs. The vCPUs' part is in vcpu_state.c.
 */
#include "vm_core.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#define NR_CHIPS 3 /* KVM_IRQCHIP_PIC_MASTER, _PIC_SLAVE, _IOAPIC */

struct vm_state {
	struct kvm_irqchip chips[NR_CHIPS];
	struct kvm_pit_state2 pit;
};

int vm_state_save(struct vm *vm, struct vm_state **out)
{
	struct vm_state *s = calloc(1, sizeof(*s));
	unsigned i;
	int rc = 0;

	if (!s)
		return -ENOMEM;
	for (i = 0; i < NR_CHIPS && !rc; i++) {
		s->chips[i].chip_id = i;
		if (ioctl(vm->fd, KVM_GET_IRQCHIP, &s->chips[i]) < 0)
			rc = -errno;
	}
	if (!rc && ioctl(vm->fd, KVM_GET_PIT2, &s->pit) < 0)
		rc = -errno;
	if (rc) {
		free(s);
		return rc;
	}
	*out = s;
	return 0;
}

int vm_state_restore(struct vm *vm, const struct vm_state *state)
{
	struct vm_state copy = *state; /* the ioctls are not const-correct */
	unsigned i;

	for (i = 0; i < NR_CHIPS; i++)
		if (ioctl(vm->fd, KVM_SET_IRQCHIP, &copy.chips[i]) < 0)
			return -errno;
	return ioctl(vm->fd, KVM_SET_PIT2, &copy.pit) < 0 ? -errno : 0;
}

void vm_state_free(struct vm_state *state)
{
	free(state);
}
