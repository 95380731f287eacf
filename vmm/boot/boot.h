/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Loading a Linux kernel and an initrd into guest memory. Main thread, while no vCPU runs.
 *
 * The files stay open between loads, so that a reboot finds them even if they have been replaced.
 */
#ifndef VMM_BOOT_H
#define VMM_BOOT_H

#include <stdint.h>

struct boot;
struct boot_params;
struct vm;

/* Opens and checks the files; @initrd may be NULL. Reports its errors. @cmdline is borrowed. */
int boot_open(const char *kernel, const char *initrd, const char *cmdline, struct boot **out);
void boot_close(struct boot *boot);

/*
 * Fill guest memory with kernel, initrd, command line, zero page, page tables, GDT and ACPI tables
 * for @nr_cpus. On success *@entry is where the boot processor starts, with the zero page at
 * BOOT_PARAMS_GPA. Reports its errors.
 */
int boot_load(const struct boot *boot, struct vm *vm, unsigned nr_cpus, uint64_t *entry);

/* boot_params.c: the parts of the zero page and of low memory that depend on no file. */
void boot_fill_e820(struct boot_params *params, const struct vm *vm);
int boot_write_tables(struct vm *vm);

#endif
