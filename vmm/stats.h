/* SPDX-License-Identifier: BSD-3-Clause */
/* Statistics as JSON. Main thread. */
#ifndef VMM_STATS_H
#define VMM_STATS_H

#include <jansson.h>
#include <stdint.h>

struct vm;

/* KVM's counters behind a descriptor of KVM_GET_STATS_FD, by name; NULL when there are none. */
json_t *stats_of_kvm_fd(int fd);
/* The same of the VM as a whole. */
json_t *stats_of_vm(const struct vm *vm);
/* Guest memory, and what this process takes beyond it. */
json_t *stats_of_memory(const struct vm *vm);

/* Write @root to @path through @path.tmp, so that a reader never sees half of it. Reports errors.
 */
int stats_write(const char *path, const json_t *root);

#endif
