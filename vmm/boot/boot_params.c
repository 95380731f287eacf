/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The memory map for the kernel, and the page tables and descriptors it is entered with.
 * Main thread, while no vCPU runs; depends on no file.
 */
#include "boot.h"

#include <asm/bootparam.h>
#include <errno.h>
#include <string.h>

#include "boot_layout.h"
#include "../kvm/vm.h"

#define E820_RAM      1
#define E820_RESERVED 2

#define PTE_PRESENT_WRITE 0x3ull
#define PTE_LARGE         0x80ull
#define NR_PTES           512u
#define NR_PDS            4u

static void add_e820(struct boot_params *p, uint64_t gpa, uint64_t size, uint32_t type)
{
	p->e820_table[p->e820_entries++] =
		(struct boot_e820_entry){ .addr = gpa, .size = size, .type = type };
}

void boot_fill_e820(struct boot_params *params, const struct vm *vm)
{
	const struct vm_ram *ram;
	unsigned i, nr = vm_ram(vm, &ram);

	params->e820_entries = 0;
	add_e820(params, 0, BOOT_LOW_END, E820_RAM);
	add_e820(params, BOOT_ACPI_GPA, BOOT_ACPI_SIZE, E820_RESERVED);
	add_e820(params, BOOT_HIGH_START, ram[0].size - BOOT_HIGH_START, E820_RAM);
	/* Linux uses the ECAM only if the memory map reserves it. */
	add_e820(params, VM_ECAM_BASE, VM_ECAM_SIZE, E820_RESERVED);
	for (i = 1; i < nr; i++)
		add_e820(params, ram[i].gpa, ram[i].size, E820_RAM);
}

/* Identity map of the first 4 GiB in pages of 2 MiB. */
static void fill_page_tables(uint64_t *pml4, uint64_t *pdpt, uint64_t *pd)
{
	unsigned i;

	pml4[0] = BOOT_PDPT_GPA | PTE_PRESENT_WRITE;
	for (i = 0; i < NR_PDS; i++)
		pdpt[i] = (BOOT_PD_GPA + i * 4096u) | PTE_PRESENT_WRITE;
	for (i = 0; i < NR_PDS * NR_PTES; i++)
		pd[i] = ((uint64_t)i << 21) | PTE_PRESENT_WRITE | PTE_LARGE;
}

int boot_write_tables(struct vm *vm)
{
	/* Null, unused, 64-bit code at 0x10, data at 0x18: the selectors of the boot protocol. */
	static const uint64_t gdt[BOOT_GDT_SIZE / 8] = { 0, 0, 0x00af9b000000ffffull,
							 0x00cf93000000ffffull };
	uint64_t *pml4 = vm_gpa_to_hva(vm, BOOT_PML4_GPA, 4096);
	uint64_t *pdpt = vm_gpa_to_hva(vm, BOOT_PDPT_GPA, 4096);
	uint64_t *pd = vm_gpa_to_hva(vm, BOOT_PD_GPA, NR_PDS * 4096);
	void *gdt_hva = vm_gpa_to_hva(vm, BOOT_GDT_GPA, sizeof(gdt));

	if (!pml4 || !pdpt || !pd || !gdt_hva)
		return -EFAULT;
	memset(pml4, 0, 4096);
	memset(pdpt, 0, 4096);
	fill_page_tables(pml4, pdpt, pd);
	memcpy(gdt_hva, gdt, sizeof(gdt));
	return 0;
}
