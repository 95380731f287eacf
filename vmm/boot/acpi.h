/* SPDX-License-Identifier: BSD-3-Clause */
/* The ACPI tables. Pure: bytes into a buffer, no VM, no files. */
#ifndef VMM_ACPI_H
#define VMM_ACPI_H

#include <stddef.h>
#include <stdint.h>

/*
 * Build RSDP, XSDT, FADT, FACS, DSDT, MADT and MCFG for @nr_cpus at @area, which the guest sees at
 * @gpa (page aligned). 0 and where the RSDP is, or -ENOSPC.
 */
int acpi_build(void *area, size_t size, uint64_t gpa, unsigned nr_cpus, uint64_t *rsdp_gpa);

#endif
