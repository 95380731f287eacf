/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A virtual processor: its KVM fd, the thread that runs it, what it does on an exit.
 *
 * _new, _start, _stop, _reset and _free run on the main thread. Between _start and the return of
 * _stop the vCPU belongs to its own thread.
 */
#ifndef VMM_VCPU_H
#define VMM_VCPU_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct kvm_cpuid2;
struct kvm_run;
struct vcpu;
struct vcpu_state;
struct vm;

/* Once per process, before the first _start: the signal that makes a vCPU leave the guest. */
int vcpu_global_init(void);

/* vCPU @index of @nr_cpus, in its state after power-on; reports its errors. */
int vcpu_new(struct vm *vm, const struct kvm_cpuid2 *supported, unsigned index, unsigned nr_cpus,
	     struct vcpu **out);
void vcpu_free(struct vcpu *vcpu);

/* The boot processor's registers at the kernel's entry; the others wait for a SIPI. */
int vcpu_set_entry(struct vcpu *vcpu, uint64_t rip, uint64_t boot_params_gpa);

int vcpu_start(struct vcpu *vcpu);
/* Returns when the thread has ended, at an instruction boundary. Idempotent. */
void vcpu_stop(struct vcpu *vcpu);
/* Back to the state after power-on. The vCPU must be stopped. */
int vcpu_reset(struct vcpu *vcpu);

/* A descriptor of the vCPU's KVM counters, borrowed; -1 if the kernel has none. Any time. */
int vcpu_stats_fd(const struct vcpu *vcpu);

/* vcpu_state.c: the state after power-on of a vCPU's registers, kept for _restore. */
int vcpu_state_save(int kvm_fd, int vm_fd, int vcpu_fd, struct vcpu_state **out);
int vcpu_state_restore(int vcpu_fd, const struct vcpu_state *state);
int vcpu_set_msr(int vcpu_fd, uint32_t index, uint64_t value);
void vcpu_state_free(struct vcpu_state *state);

/* vcpu_exit.c: serve one exit. False: the vCPU can not go on (it has been said why). */
bool vcpu_handle_exit(struct vm *vm, struct kvm_run *run, int vcpu_fd, unsigned index);

#endif
