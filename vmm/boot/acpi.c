/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The ACPI tables (ACPI specification 6.5, chapter 5). Pure; main thread.
 *
 * Fixed hardware, not the hardware-reduced kind: with it Linux sets up PIC, IOAPIC and PIT, which
 * KVM gives us, and needs no interpreter to power off. The FADT says which PC relics are missing
 * (keyboard controller, VGA, CMOS clock), so that the kernel does not wait for them.
 */
#include "acpi.h"

#include <errno.h>
#include <string.h>

#include "dsdt.hex" /* dsdt_aml_code, compiled from dsdt.asl by iasl */
#include "../platform/power.h"
#include "../kvm/vm.h"

#define IOAPIC_GPA 0xfec00000u
#define LAPIC_GPA  0xfee00000u

#define FADT_WBINVD               (1u << 0)
#define FADT_PROC_C1              (1u << 2)
#define FADT_NO_POWER_BUTTON      (1u << 4)
#define FADT_NO_SLEEP_BUTTON      (1u << 5)
#define FADT_NO_RTC_WAKE          (1u << 6)
#define FADT_TMR_32_BIT           (1u << 8)
#define FADT_RESET_REG            (1u << 10)
#define BOOT_ARCH_LEGACY_DEVICES  (1u << 0)
#define BOOT_ARCH_NO_VGA          (1u << 2)
#define BOOT_ARCH_NO_ASPM         (1u << 4)
#define BOOT_ARCH_NO_CMOS_RTC     (1u << 5)
#define PROFILE_ENTERPRISE_SERVER 4

struct area {
	uint8_t *base;
	size_t size;
	size_t used;
	uint64_t gpa;
	int error; /* the first one; everything after it does nothing */
};

struct table {
	struct area *area;
	size_t start;
};

static void put(struct area *a, const void *data, size_t len)
{
	if (a->error)
		return;
	if (len > a->size - a->used) {
		a->error = -ENOSPC;
		return;
	}
	memcpy(a->base + a->used, data, len);
	a->used += len;
}

/* Little-endian, as ACPI is and x86 too. */
static void put8(struct area *a, uint8_t value)
{
	put(a, &value, sizeof(value));
}

static void put16(struct area *a, uint16_t value)
{
	put(a, &value, sizeof(value));
}

static void put32(struct area *a, uint32_t value)
{
	put(a, &value, sizeof(value));
}

static void put64(struct area *a, uint64_t value)
{
	put(a, &value, sizeof(value));
}

static void put_zeroes(struct area *a, size_t len)
{
	while (len--)
		put8(a, 0);
}

static uint8_t checksum(const uint8_t *data, size_t len)
{
	uint8_t sum = 0;

	while (len--)
		sum += *data++;
	return (uint8_t)-sum;
}

static void align(struct area *a, size_t to)
{
	put_zeroes(a, (to - a->used % to) % to);
}

static struct table begin(struct area *a, const char *signature, uint8_t revision)
{
	struct table t = { .area = a };

	align(a, 16);
	t.start = a->used;
	put(a, signature, 4);
	put32(a, 0); /* length: end() */
	put8(a, revision);
	put8(a, 0); /* checksum: end() */
	put(a, "BELFRY", 6);
	put(a, "BELFRYVM", 8);
	put32(a, 1);
	put(a, "BLFR", 4);
	put32(a, 1);
	return t;
}

static uint64_t end(const struct table *t)
{
	uint8_t *p = t->area->base + t->start;
	const uint32_t len = (uint32_t)(t->area->used - t->start);

	if (t->area->error)
		return 0;
	memcpy(p + 4, &len, sizeof(len));
	p[9] = checksum(p, len);
	return t->area->gpa + t->start;
}

static uint64_t add_facs(struct area *a)
{
	uint64_t gpa;

	align(a, 64);
	gpa = a->gpa + a->used;
	put(a, "FACS", 4);
	put32(a, 64);
	put_zeroes(a, 24); /* no wake vector, no global lock owner */
	put8(a, 2);
	put_zeroes(a, 31);
	return gpa;
}

/* The DSDT comes compiled, checksum and all. */
static uint64_t add_dsdt(struct area *a)
{
	uint64_t gpa;

	align(a, 16);
	gpa = a->gpa + a->used;
	put(a, dsdt_aml_code, sizeof(dsdt_aml_code));
	return gpa;
}

/* Generic address structure for ports @port.. of @bits, accessed @access bytes at a time. */
static void put_port(struct area *a, uint16_t port, uint8_t bits, uint8_t access)
{
	put8(a, 1); /* system I/O */
	put8(a, bits);
	put8(a, 0);
	put8(a, access);
	put64(a, port);
}

static void put_fadt_ports(struct area *a)
{
	put32(a, POWER_PM1_EVT_PORT);
	put32(a, 0);
	put32(a, POWER_PM1_CNT_PORT);
	put32(a, 0);
	put32(a, 0); /* PM2 */
	put32(a, POWER_PM_TMR_PORT);
	put32(a, 0);
	put32(a, 0); /* GPE blocks */
	put8(a, 4);
	put8(a, 2);
	put8(a, 0);
	put8(a, 4);
	put8(a, 0);
	put8(a, 0);
	put8(a, 0);
	put8(a, 0);
	put16(a, 0xffff); /* no C2 */
	put16(a, 0xffff); /* no C3 */
	put_zeroes(a, 9); /* cache flushing, duty cycle, clock alarm */
}

static void put_fadt_extended_ports(struct area *a)
{
	put_port(a, POWER_PM1_EVT_PORT, 32, 2);
	put_zeroes(a, 12);
	put_port(a, POWER_PM1_CNT_PORT, 16, 2);
	put_zeroes(a, 24); /* PM1b, PM2 */
	put_port(a, POWER_PM_TMR_PORT, 32, 3);
	put_zeroes(a, 24); /* GPE blocks */
	put_zeroes(a, 24); /* sleep registers of reduced hardware */
}

static uint64_t add_fadt(struct area *a, uint64_t facs, uint64_t dsdt)
{
	struct table t = begin(a, "FACP", 6);

	put32(a, (uint32_t)facs);
	put32(a, (uint32_t)dsdt);
	put8(a, 0);
	put8(a, PROFILE_ENTERPRISE_SERVER);
	put16(a, POWER_SCI_GSI);
	put32(a, 0);      /* no SMI command port: always in ACPI mode */
	put_zeroes(a, 4); /* nothing to write to it */
	put_fadt_ports(a);
	put16(a, BOOT_ARCH_LEGACY_DEVICES | BOOT_ARCH_NO_VGA | BOOT_ARCH_NO_ASPM |
			 BOOT_ARCH_NO_CMOS_RTC);
	put8(a, 0);
	put32(a, FADT_WBINVD | FADT_PROC_C1 | FADT_NO_POWER_BUTTON | FADT_NO_SLEEP_BUTTON |
			 FADT_NO_RTC_WAKE | FADT_TMR_32_BIT | FADT_RESET_REG);
	put_port(a, POWER_RESET_PORT, 8, 1);
	put8(a, POWER_RESET_VALUE);
	put16(a, 0); /* ARM boot flags */
	put8(a, 5);  /* minor version */
	/* One of each pair of pointers: a kernel that finds both may complain. */
	put64(a, 0);
	put64(a, dsdt);
	put_fadt_extended_ports(a);
	put64(a, 0); /* hypervisor vendor */
	return end(&t);
}

static void put_madt_override(struct area *a, uint8_t source, uint32_t gsi, uint16_t flags)
{
	put8(a, 2);
	put8(a, 10);
	put8(a, 0); /* ISA */
	put8(a, source);
	put32(a, gsi);
	put16(a, flags);
}

static uint64_t add_madt(struct area *a, unsigned nr_cpus)
{
	struct table t = begin(a, "APIC", 5);
	unsigned i;

	put32(a, LAPIC_GPA);
	put32(a, 1); /* there are two 8259s */
	for (i = 0; i < nr_cpus; i++) {
		put8(a, 0);
		put8(a, 8);
		put8(a, (uint8_t)i);
		put8(a, (uint8_t)i);
		put32(a, 1); /* enabled */
	}
	put8(a, 1);
	put8(a, 12);
	put8(a, 0); /* IOAPIC id */
	put8(a, 0);
	put32(a, IOAPIC_GPA);
	put32(a, 0); /* its first GSI */
	put_madt_override(a, 0, 2, 0);
	put_madt_override(a, POWER_SCI_GSI, POWER_SCI_GSI, 0xd); /* active high, level */
	put8(a, 4);                                              /* LINT1 of every APIC is NMI */
	put8(a, 6);
	put8(a, 0xff);
	put16(a, 0);
	put8(a, 1);
	return end(&t);
}

static uint64_t add_mcfg(struct area *a)
{
	struct table t = begin(a, "MCFG", 1);

	put_zeroes(a, 8);
	put64(a, VM_ECAM_BASE);
	put16(a, 0); /* segment */
	put8(a, 0);  /* first bus */
	put8(a, VM_ECAM_SIZE / 0x100000 - 1);
	put_zeroes(a, 4);
	return end(&t);
}

static uint64_t add_xsdt(struct area *a, const uint64_t *tables, unsigned nr)
{
	struct table t = begin(a, "XSDT", 1);

	put(a, tables, nr * sizeof(*tables));
	return end(&t);
}

static uint64_t add_rsdp(struct area *a, uint64_t xsdt)
{
	size_t start;

	align(a, 16);
	start = a->used;
	put(a, "RSD PTR ", 8);
	put8(a, 0);
	put(a, "BELFRY", 6);
	put8(a, 2);
	put32(a, 0); /* no RSDT */
	put32(a, 36);
	put64(a, xsdt);
	put_zeroes(a, 4);
	if (a->error)
		return 0;
	a->base[start + 8] = checksum(a->base + start, 20);
	a->base[start + 32] = checksum(a->base + start, 36);
	return a->gpa + start;
}

int acpi_build(void *area, size_t size, uint64_t gpa, unsigned nr_cpus, uint64_t *rsdp_gpa)
{
	struct area a = { .base = area, .size = size, .gpa = gpa };
	uint64_t tables[3], facs, dsdt, rsdp;

	facs = add_facs(&a);
	dsdt = add_dsdt(&a);
	tables[0] = add_fadt(&a, facs, dsdt);
	tables[1] = add_madt(&a, nr_cpus);
	tables[2] = add_mcfg(&a);
	rsdp = add_rsdp(&a, add_xsdt(&a, tables, 3));
	if (!a.error)
		*rsdp_gpa = rsdp;
	return a.error;
}
