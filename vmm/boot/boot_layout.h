/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Where the boot data lies in the first megabyte. All of it but the ACPI area is plain RAM to the
 * kernel, which copies what it needs before it uses that memory.
 */
#ifndef VMM_BOOT_LAYOUT_H
#define VMM_BOOT_LAYOUT_H

#define BOOT_GDT_GPA     0x00000500u
#define BOOT_GDT_SIZE    32u
#define BOOT_STACK_GPA   0x00006ff0u /* grows down */
#define BOOT_PARAMS_GPA  0x00007000u
#define BOOT_PML4_GPA    0x00009000u /* one page */
#define BOOT_PDPT_GPA    0x0000a000u /* one page */
#define BOOT_PD_GPA      0x0000b000u /* four pages: 4 GiB */
#define BOOT_CMDLINE_GPA 0x00020000u
#define BOOT_CMDLINE_MAX 0x00010000u
#define BOOT_LOW_END     0x000a0000u /* the PC's hole begins */
#define BOOT_ACPI_GPA    0x000e0000u
#define BOOT_ACPI_SIZE   0x00020000u
#define BOOT_HIGH_START  0x00100000u

#endif
