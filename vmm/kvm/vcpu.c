/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The life of a virtual processor and the loop of its thread.
 *
 * Stopping one: `stop` and KVM's immediate_exit are set, then a signal takes the thread out of
 * the guest. Whichever comes first, KVM_RUN returns with EINTR; and since it completes the I/O of
 * the previous exit before it looks at immediate_exit, the loop looks at `stop` only then: a
 * stopped vCPU never owes the guest half an instruction.
 */
#include "vcpu.h"

#include <errno.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../boot/boot_layout.h"
#include "vcpu_cpuid.h"
#include "../base/report.h"
#include "vm_core.h"

#define STACK_SIZE              (512u << 10)
#define MSR_MTRR_DEF_TYPE       0x2ff
#define MTRR_ENABLED_WRITE_BACK ((1u << 11) | 6)

#define BOOT_CS  0x10
#define BOOT_DS  0x18
#define CR0_PE   (1ull << 0)
#define CR0_PG   (1ull << 31)
#define CR4_PAE  (1ull << 5)
#define EFER_LME (1ull << 8)
#define EFER_LMA (1ull << 10)

struct vcpu {
	struct vm *vm;
	unsigned index;
	int fd;
	int stats_fd; /* -1: the kernel has none */
	struct kvm_run *run;
	size_t run_size;
	struct vcpu_state *pristine;
	pthread_t thread;
	bool started;
	atomic_bool stop;
};

static void on_kick(int signal_number)
{
	(void)signal_number; /* its arrival is the message */
}

int vcpu_global_init(void)
{
	struct sigaction sa = { .sa_handler = on_kick };

	return sigaction(SIGRTMIN, &sa, NULL) < 0 ? -errno : 0;
}

static int configure(struct vcpu *vcpu, const struct kvm_cpuid2 *supported, unsigned nr_cpus)
{
	struct kvm_cpuid2 *cpuid = NULL;
	int rc = cpuid_for_vcpu(supported, vcpu->vm->fd, vcpu->index, nr_cpus, &cpuid);

	if (!rc && ioctl(vcpu->fd, KVM_SET_CPUID2, cpuid) < 0)
		rc = -errno;
	if (!rc)
		/* As firmware leaves it: write-back; page tables tell devices apart. */
		rc = vcpu_set_msr(vcpu->fd, MSR_MTRR_DEF_TYPE, MTRR_ENABLED_WRITE_BACK);
	if (!rc)
		rc = vcpu_state_save(vcpu->vm->kvm_fd, vcpu->vm->fd, vcpu->fd, &vcpu->pristine);
	free(cpuid);
	return rc;
}

static int create(struct vcpu *vcpu)
{
	int size = ioctl(vcpu->vm->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	void *run;

	if (size < 0)
		return -errno;
	vcpu->fd = ioctl(vcpu->vm->fd, KVM_CREATE_VCPU, (unsigned long)vcpu->index);
	if (vcpu->fd < 0)
		return -errno;
	run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
	if (run == MAP_FAILED)
		return -errno;
	vcpu->run = run;
	vcpu->run_size = (size_t)size;
	/* Now: a vCPU's ioctls wait while it runs, and a halted guest runs for long. */
	vcpu->stats_fd = ioctl(vcpu->fd, KVM_GET_STATS_FD, NULL);
	return 0;
}

int vcpu_new(struct vm *vm, const struct kvm_cpuid2 *supported, unsigned index, unsigned nr_cpus,
	     struct vcpu **out)
{
	struct vcpu *vcpu = calloc(1, sizeof(*vcpu));
	int rc;

	if (!vcpu)
		return -ENOMEM;
	vcpu->vm = vm;
	vcpu->index = index;
	vcpu->fd = vcpu->stats_fd = -1;
	rc = create(vcpu);
	if (!rc)
		rc = configure(vcpu, supported, nr_cpus);
	if (rc) {
		report("cannot create vCPU %u of %u: %s", index, nr_cpus, strerror(-rc));
		vcpu_free(vcpu);
		return rc;
	}
	*out = vcpu;
	return 0;
}

void vcpu_free(struct vcpu *vcpu)
{
	if (!vcpu)
		return;
	vcpu_stop(vcpu);
	vcpu_state_free(vcpu->pristine);
	if (vcpu->run)
		munmap(vcpu->run, vcpu->run_size);
	if (vcpu->stats_fd >= 0)
		close(vcpu->stats_fd);
	if (vcpu->fd >= 0)
		close(vcpu->fd);
	free(vcpu);
}

static struct kvm_segment flat_segment(uint16_t selector, uint8_t type, bool code)
{
	return (struct kvm_segment){
		.limit = 0xffffffff,
		.selector = selector,
		.type = type,
		.present = 1,
		.s = 1,
		.g = 1,
		.l = code,
		.db = !code,
	};
}

/* Documentation/arch/x86/boot.rst, "64-bit Boot Protocol": long mode, identity map, flat segments.
 */
int vcpu_set_entry(struct vcpu *vcpu, uint64_t rip, uint64_t boot_params_gpa)
{
	struct kvm_regs regs = {
		.rip = rip, .rsi = boot_params_gpa, .rsp = BOOT_STACK_GPA, .rflags = 2
	};
	struct kvm_sregs sregs;

	if (ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) < 0)
		return -errno;
	sregs.cs = flat_segment(BOOT_CS, 11, true);
	sregs.ds = flat_segment(BOOT_DS, 3, false);
	sregs.es = sregs.fs = sregs.gs = sregs.ss = sregs.ds;
	sregs.gdt.base = BOOT_GDT_GPA;
	sregs.gdt.limit = BOOT_GDT_SIZE - 1;
	sregs.cr3 = BOOT_PML4_GPA;
	sregs.cr4 |= CR4_PAE;
	sregs.cr0 |= CR0_PE | CR0_PG;
	sregs.efer |= EFER_LME | EFER_LMA;
	if (ioctl(vcpu->fd, KVM_SET_SREGS, &sregs) < 0 || ioctl(vcpu->fd, KVM_SET_REGS, &regs) < 0)
		return -errno;
	return 0;
}

static void *vcpu_thread(void *opaque)
{
	struct vcpu *vcpu = opaque;

	for (;;) {
		unsigned removed = vm_slots_removed(vcpu->vm);

		if (ioctl(vcpu->fd, KVM_RUN, 0) == 0) {
			if (!vcpu_handle_exit(vcpu->vm, vcpu->run, vcpu->fd, vcpu->index))
				return NULL;
		} else if (errno == EINTR || errno == EAGAIN) {
			/* EAGAIN: it was woken while it waits for its SIPI. */
			if (atomic_load(&vcpu->stop))
				return NULL;
		} else if (errno == EFAULT && vm_recover_fault(vcpu->vm, removed)) {
			/* A doorbell page has vanished; the store is done again, by eventfd. */
			continue;
		} else {
			report("vCPU %u: KVM_RUN failed: %s", vcpu->index, strerror(errno));
			vm_request_failure(vcpu->vm);
			return NULL;
		}
	}
}

int vcpu_start(struct vcpu *vcpu)
{
	sigset_t all, kick, before;
	pthread_attr_t attr;
	char name[16];
	int rc;

	atomic_store(&vcpu->stop, false);
	__atomic_store_n(&vcpu->run->immediate_exit, 0, __ATOMIC_SEQ_CST);

	/* The thread inherits a mask in which the kick gets through, and a failing store's signal. */
	sigfillset(&all);
	sigemptyset(&kick);
	sigaddset(&kick, SIGRTMIN);
	sigaddset(&kick, SIGBUS);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pthread_sigmask(SIG_UNBLOCK, &kick, NULL);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	rc = -pthread_create(&vcpu->thread, &attr, vcpu_thread, vcpu);
	pthread_attr_destroy(&attr);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (rc) {
		report("cannot start the thread of vCPU %u: %s", vcpu->index, strerror(-rc));
		return rc;
	}
	vcpu->started = true;
	snprintf(name, sizeof(name), "vcpu%u", vcpu->index);
	pthread_setname_np(vcpu->thread, name);
	return 0;
}

void vcpu_stop(struct vcpu *vcpu)
{
	if (!vcpu->started)
		return;
	atomic_store(&vcpu->stop, true);
	__atomic_store_n(&vcpu->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
	pthread_kill(vcpu->thread, SIGRTMIN);
	pthread_join(vcpu->thread, NULL);
	vcpu->started = false;
}

int vcpu_reset(struct vcpu *vcpu)
{
	return vcpu_state_restore(vcpu->fd, vcpu->pristine);
}

int vcpu_stats_fd(const struct vcpu *vcpu)
{
	return vcpu->stats_fd;
}
