/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a vCPU does when the guest leaves to user space. Runs on the vCPU's thread, without locks;
 * everything goes to a bus, to power control, or ends the vCPU with a message.
 */
#include "vcpu.h"

#include <inttypes.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>

#include "../platform/power.h"
#include "../base/report.h"
#include "vm_core.h"

static void handle_io(struct vm *vm, struct kvm_run *run)
{
	const uint16_t port = run->io.port;
	const unsigned size = run->io.size;
	const bool is_out = run->io.direction == KVM_EXIT_IO_OUT;
	uint8_t *data = (uint8_t *)run + run->io.data_offset;
	uint32_t i;

	/* A string instruction repeats on one port. */
	for (i = 0; i < run->io.count; i++, data += size) {
		if (!is_out)
			bus_read(&vm->pio, port, data, size);
		else if (!power_intercept(vm, port, data, size))
			bus_write(&vm->pio, port, data, size);
	}
}

static void handle_mmio(struct vm *vm, struct kvm_run *run)
{
	if (run->mmio.is_write)
		bus_write(&vm->mmio, run->mmio.phys_addr, run->mmio.data, run->mmio.len);
	else
		bus_read(&vm->mmio, run->mmio.phys_addr, run->mmio.data, run->mmio.len);
}

static uint64_t instruction_pointer(int vcpu_fd)
{
	struct kvm_regs regs;

	return ioctl(vcpu_fd, KVM_GET_REGS, &regs) < 0 ? 0 : regs.rip;
}

static bool fail(struct vm *vm, const struct kvm_run *run, int vcpu_fd, unsigned index)
{
	const uint64_t rip = instruction_pointer(vcpu_fd);

	switch (run->exit_reason) {
	case KVM_EXIT_FAIL_ENTRY:
		report("vCPU %u: the processor refused to enter the guest at rip 0x%" PRIx64
		       ": hardware reason 0x%llx",
		       index, rip, run->fail_entry.hardware_entry_failure_reason);
		break;
	case KVM_EXIT_INTERNAL_ERROR:
		report("vCPU %u: KVM gave up at rip 0x%" PRIx64
		       ": internal error %u (1: an instruction it can not emulate)",
		       index, rip, run->internal.suberror);
		break;
	default:
		report("vCPU %u: unexpected KVM exit %u at rip 0x%" PRIx64, index, run->exit_reason,
		       rip);
	}
	vm_request_failure(vm);
	return false;
}

bool vcpu_handle_exit(struct vm *vm, struct kvm_run *run, int vcpu_fd, unsigned index)
{
	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		handle_io(vm, run);
		return true;
	case KVM_EXIT_MMIO:
		handle_mmio(vm, run);
		return true;
	case KVM_EXIT_INTR:
	case KVM_EXIT_IRQ_WINDOW_OPEN:
		return true;
	case KVM_EXIT_SHUTDOWN: /* a triple fault: on a PC, the chipset's cue to reset */
		report("vCPU %u: triple fault; the machine resets", index);
		vm_request_reset(vm);
		return false;
	case KVM_EXIT_SYSTEM_EVENT:
		if (run->system_event.type == KVM_SYSTEM_EVENT_SHUTDOWN) {
			vm_request_shutdown(vm);
			return false;
		}
		if (run->system_event.type == KVM_SYSTEM_EVENT_RESET) {
			vm_request_reset(vm);
			return false;
		}
		return fail(vm, run, vcpu_fd, index);
	default:
		return fail(vm, run, vcpu_fd, index);
	}
}
