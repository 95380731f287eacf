/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The ACPI tables: linked as they should be, checksums right, and every one of them understood by
 * a disassembler that is not ours (iasl -d).
 */
#include "unit/support.h"

#include <sys/wait.h>

#include "vmm/boot/acpi.h"
#include "vmm/platform/power.h"
#include "vmm/kvm/vm.h"

#define GPA  0xe0000ull
#define SIZE 0x20000u

static uint8_t area[SIZE];

static uint8_t sum(const uint8_t *p, size_t len)
{
	uint8_t s = 0;

	while (len--)
		s += *p++;
	return s;
}

static uint8_t *at(uint64_t gpa, size_t len)
{
	assert_true(gpa >= GPA && gpa - GPA <= SIZE - len);
	return area + (gpa - GPA);
}

static uint32_t get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static uint64_t get64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static uint8_t *checked_table(uint64_t gpa, const char *signature)
{
	uint8_t *t = at(gpa, 36);
	uint32_t len = get32(t + 4);

	at(gpa, len);
	assert_memory_equal(t, signature, 4);
	assert_int_equal(sum(t, len), 0);
	return t;
}

static uint8_t *build(unsigned nr_cpus)
{
	uint64_t rsdp_gpa = 0;
	uint8_t *rsdp;

	memset(area, 0xcc, sizeof(area));
	assert_int_equal(acpi_build(area, sizeof(area), GPA, nr_cpus, &rsdp_gpa), 0);
	assert_int_equal(rsdp_gpa % 16, 0);
	rsdp = at(rsdp_gpa, 36);
	assert_memory_equal(rsdp, "RSD PTR ", 8);
	assert_int_equal(sum(rsdp, 20), 0);
	assert_int_equal(sum(rsdp, 36), 0);
	return checked_table(get64(rsdp + 24), "XSDT");
}

static void tables_are_linked(void **state)
{
	uint8_t *xsdt = build(3), *fadt, *facs;

	(void)state;
	assert_int_equal(get32(xsdt + 4), 36 + 3 * 8);
	fadt = checked_table(get64(xsdt + 36), "FACP");
	checked_table(get64(xsdt + 44), "APIC");
	checked_table(get64(xsdt + 52), "MCFG");
	assert_int_equal(get32(fadt + 4), 276);
	checked_table(get32(fadt + 40), "DSDT");
	assert_int_equal(get64(fadt + 140), get32(fadt + 40));
	facs = at(get32(fadt + 36), 64);
	assert_memory_equal(facs, "FACS", 4);
	assert_int_equal((facs - area) % 64, 0);
}

/* Offsets as in table 5.9 of the ACPI specification. */
static void fadt_names_our_ports(void **state)
{
	uint8_t *fadt = checked_table(get64(build(1) + 36), "FACP");

	(void)state;
	assert_int_equal(get32(fadt + 56), POWER_PM1_EVT_PORT);
	assert_int_equal(get32(fadt + 64), POWER_PM1_CNT_PORT);
	assert_int_equal(get32(fadt + 76), POWER_PM_TMR_PORT);
	assert_int_equal(fadt[88], 4);
	assert_int_equal(fadt[89], 2);
	assert_int_equal(fadt[91], 4);
	assert_int_equal(get64(fadt + 116 + 4), POWER_RESET_PORT);
	assert_int_equal(fadt[128], POWER_RESET_VALUE);
	assert_true(get32(fadt + 112) & (1u << 10)); /* RESET_REG_SUP */
	assert_int_equal(get64(fadt + 148 + 4), POWER_PM1_EVT_PORT);
	assert_int_equal(get64(fadt + 172 + 4), POWER_PM1_CNT_PORT);
	assert_int_equal(get64(fadt + 208 + 4), POWER_PM_TMR_PORT);
}

static void madt_lists_every_cpu(void **state)
{
	const unsigned counts[] = { 1, 2, 254 };
	unsigned i, nr_cpus;

	(void)state;
	for (i = 0; i < 3; i++) {
		uint8_t *madt = checked_table(get64(build(counts[i]) + 44), "APIC");
		uint8_t *p = madt + 44, *end = madt + get32(madt + 4);

		for (nr_cpus = 0; p < end; p += p[1]) {
			assert_true(p[1] >= 2);
			if (p[0] == 0) {
				assert_int_equal(p[3], nr_cpus);
				nr_cpus++;
			}
		}
		assert_ptr_equal(p, end);
		assert_int_equal(nr_cpus, counts[i]);
	}
}

static void mcfg_names_the_ecam(void **state)
{
	uint8_t *mcfg = checked_table(get64(build(1) + 52), "MCFG");

	(void)state;
	assert_true(get64(mcfg + 44) == VM_ECAM_BASE);
	assert_int_equal(mcfg[54], 0);
	assert_int_equal((mcfg[55] + 1) * 0x100000, VM_ECAM_SIZE);
}

static void says_when_there_is_no_room(void **state)
{
	uint64_t rsdp = 7;
	size_t size;

	(void)state;
	for (size = 0; size < 1024; size += 37)
		assert_int_equal(acpi_build(area, size, GPA, 254, &rsdp), -ENOSPC);
	assert_int_equal(rsdp, 7);
}

static int disassemble(const char *dir, const uint8_t *table)
{
	char path[256], command[600];
	size_t len = get32(table + 4);
	FILE *f;
	int rc;

	snprintf(path, sizeof(path), "%s/%.4s.aml", dir, (const char *)table);
	f = fopen(path, "w");
	assert_non_null(f);
	assert_int_equal(fwrite(table, 1, len, f), len);
	fclose(f);
	/* It says "Invalid" or "Error" in what it writes, and exits 0 all the same. */
	snprintf(command, sizeof(command),
		 "cd %s && iasl -d %.4s.aml >%.4s.log 2>&1 && ! grep -iE 'error|invalid|unknown' "
		 "%.4s.log %.4s.dsl",
		 dir, (const char *)table, (const char *)table, (const char *)table,
		 (const char *)table);
	rc = system(command);
	return WIFEXITED(rc) ? WEXITSTATUS(rc) : -1;
}

static void iasl_understands_every_table(void **state)
{
	char dir[] = "/tmp/belfry-acpi-XXXXXX", command[64];
	uint8_t *xsdt = build(4);
	unsigned i;
	int failed = 0;

	(void)state;
	assert_non_null(mkdtemp(dir));
	failed |= disassemble(dir, xsdt);
	for (i = 36; i < get32(xsdt + 4); i += 8)
		failed |= disassemble(dir, at(get64(xsdt + i), 36));
	failed |= disassemble(dir, at(get32(at(get64(xsdt + 36), 44) + 40), 36)); /* DSDT */
	failed |= disassemble(dir, at(get32(at(get64(xsdt + 36), 44) + 36), 36)); /* FACS */
	snprintf(command, sizeof(command), "rm -r %s", dir);
	assert_int_equal(system(command), 0);
	assert_int_equal(failed, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tables_are_linked),
		cmocka_unit_test(fadt_names_our_ports),
		cmocka_unit_test(madt_lists_every_cpu),
		cmocka_unit_test(mcfg_names_the_ecam),
		cmocka_unit_test(says_when_there_is_no_room),
		cmocka_unit_test(iasl_understands_every_table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
