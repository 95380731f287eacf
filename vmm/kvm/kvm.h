/* SPDX-License-Identifier: BSD-3-Clause */
/* /dev/kvm itself: can this machine run guests, and with what. Main thread, at start. */
#ifndef VMM_KVM_H
#define VMM_KVM_H

/* An open /dev/kvm with everything belfry-vmm needs. On failure says why, and what to do. */
int kvm_open(int *kvm_fd);

/* KVM_CHECK_EXTENSION on a system or VM fd: 0 when missing, else the capability's value. */
int kvm_extension(int fd, unsigned long capability);

#endif
