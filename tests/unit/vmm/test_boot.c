/* SPDX-License-Identifier: BSD-3-Clause */
/* Loading kernels: a made-up bzImage lands where the protocol says, and every lie in one is told.
 */
#include "unit/support.h"

#include <asm/bootparam.h>

#include "vmm/boot/boot.h"
#include "vmm/boot/boot_layout.h"
#include "vmm/base/report.h"
#include "vmm/kvm/vm.h"

#define RAM_SIZE       (64ull << 20)
#define SETUP_SECTS    1u
#define PAYLOAD_OFFSET ((SETUP_SECTS + 1) * 512u)
#define PAYLOAD_SIZE   4096u
#define HEADER_OFFSET  0x1f1u

struct vm {
	struct vm_ram ram;
};

static struct vm vm;
static char said[1024];
static uint8_t image[PAYLOAD_OFFSET + PAYLOAD_SIZE];

void report(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(said, sizeof(said), fmt, ap);
	va_end(ap);
}

unsigned vm_ram(const struct vm *v, const struct vm_ram **ranges)
{
	*ranges = &v->ram;
	return 1;
}

void *vm_gpa_to_hva(const struct vm *v, uint64_t gpa, uint64_t len)
{
	if (len > v->ram.size || gpa > v->ram.size - len)
		return NULL;
	return (char *)v->ram.hva + gpa;
}

static struct setup_header good_header(void)
{
	return (struct setup_header){
		.setup_sects = SETUP_SECTS,
		.boot_flag = 0xaa55,
		.jump = 0x66eb, /* ends at 0x268 */
		.header = 0x53726448,
		.version = 0x020f,
		.loadflags = LOADED_HIGH,
		.xloadflags = XLF_KERNEL_64,
		.syssize = PAYLOAD_SIZE / 16,
		.initrd_addr_max = 0x7fffffff,
		.kernel_alignment = 0x200000,
		.relocatable_kernel = 1,
		.cmdline_size = 2047,
		.pref_address = 0x1000000,
		.init_size = 0x800000,
	};
}

static void write_file(const char *path, const void *data, size_t len)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, len, f), len);
	fclose(f);
}

static int open_image(const struct setup_header *h, const char *initrd, const char *cmdline,
		      struct boot **boot)
{
	said[0] = '\0';
	memset(image, 0x90, sizeof(image));
	memcpy(image + HEADER_OFFSET, h, sizeof(*h));
	write_file("bzimage.test", image, sizeof(image));
	return boot_open("bzimage.test", initrd, cmdline, boot);
}

static int set_up(void **state)
{
	(void)state;
	vm.ram.size = RAM_SIZE;
	vm.ram.hva =
		mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return vm.ram.hva == MAP_FAILED;
}

static int tear_down(void **state)
{
	(void)state;
	unlink("bzimage.test");
	unlink("initrd.test");
	return munmap(vm.ram.hva, RAM_SIZE);
}

static void loads_what_the_protocol_says(void **state)
{
	const struct setup_header h = good_header();
	const struct boot_params *p = vm_gpa_to_hva(&vm, BOOT_PARAMS_GPA, sizeof(*p));
	const unsigned fds = count_fds();
	struct boot *boot = NULL;
	uint64_t entry = 0;

	(void)state;
	write_file("initrd.test", "an initrd", 9);
	assert_int_equal(open_image(&h, "initrd.test", "console=ttyS0", &boot), 0);
	assert_int_equal(boot_load(boot, &vm, 2, &entry), 0);
	assert_true(entry == 0x1000200);
	assert_memory_equal(vm_gpa_to_hva(&vm, 0x1000000, PAYLOAD_SIZE), image + PAYLOAD_OFFSET,
			    PAYLOAD_SIZE);
	assert_int_equal(p->hdr.header, 0x53726448);
	assert_int_equal(p->hdr.type_of_loader, 0xff);
	assert_string_equal(vm_gpa_to_hva(&vm, p->hdr.cmd_line_ptr, 1), "console=ttyS0");
	assert_int_equal(p->hdr.ramdisk_size, 9);
	assert_true(p->hdr.ramdisk_image % 4096 == 0);
	assert_true(p->hdr.ramdisk_image >= RAM_SIZE - 4096);
	assert_memory_equal(vm_gpa_to_hva(&vm, p->hdr.ramdisk_image, 9), "an initrd", 9);
	assert_memory_equal(vm_gpa_to_hva(&vm, p->acpi_rsdp_addr, 8), "RSD PTR ", 8);
	boot_close(boot);
	assert_int_equal(count_fds(), fds);
}

static void memory_map_has_no_overlaps(void **state)
{
	struct boot_params p = { .e820_entries = 0 };
	unsigned i;

	(void)state;
	boot_fill_e820(&p, &vm);
	for (i = 0; i + 1 < p.e820_entries; i++)
		assert_true(p.e820_table[i].addr + p.e820_table[i].size <=
			    p.e820_table[i + 1].addr);
	assert_true(p.e820_entries >= 4);
}

static void moves_a_kernel_that_would_not_fit(void **state)
{
	struct setup_header h = good_header();
	struct boot *boot = NULL;
	uint64_t entry = 0;

	(void)state;
	h.pref_address = RAM_SIZE;
	assert_int_equal(open_image(&h, NULL, "", &boot), 0);
	assert_int_equal(boot_load(boot, &vm, 1, &entry), 0);
	assert_true(entry == 0x200200);
	boot_close(boot);

	h.relocatable_kernel = 0;
	assert_int_equal(open_image(&h, NULL, "", &boot), 0);
	assert_int_equal(boot_load(boot, &vm, 1, &entry), -ENOMEM);
	assert_non_null(strstr(said, "does not fit"));
	boot_close(boot);
}

static void says_when_the_initrd_does_not_fit(void **state)
{
	const struct setup_header h = good_header();
	struct boot *boot = NULL;
	uint64_t entry = 0;

	(void)state;
	write_file("initrd.test", "x", 1);
	assert_int_equal(truncate("initrd.test", 48 << 20), 0);
	assert_int_equal(open_image(&h, "initrd.test", "", &boot), 0);
	assert_int_equal(boot_load(boot, &vm, 1, &entry), -ENOMEM);
	assert_non_null(strstr(said, "initrd"));
	boot_close(boot);
}

#define LIE(field, value)                                                    \
	do {                                                                 \
		struct setup_header h = good_header();                       \
		struct boot *boot = NULL;                                    \
		h.field = (value);                                           \
		assert_int_equal(open_image(&h, NULL, "", &boot), -ENOEXEC); \
		assert_null(boot);                                           \
		assert_non_null(strstr(said, "cannot be booted"));           \
	} while (0)

static void every_lie_in_the_header_is_told(void **state)
{
	const unsigned fds = count_fds();

	(void)state;
	LIE(boot_flag, 0);
	LIE(header, 0x53726447);
	LIE(version, 0x020b);
	LIE(xloadflags, 0);
	LIE(loadflags, 0);
	LIE(setup_sects, 255);
	LIE(syssize, 0);
	LIE(syssize, PAYLOAD_SIZE / 16 + 1);
	LIE(syssize, 0xffffffff);
	LIE(init_size, 0);
	LIE(init_size, PAYLOAD_SIZE - 1);
	LIE(kernel_alignment, 0);
	LIE(kernel_alignment, 3);
	assert_int_equal(count_fds(), fds);
}

/* Addresses in the header may be anything: nothing may be written outside RAM. */
static void wild_addresses_do_not_fit(void **state)
{
	static const uint64_t wild[] = { 0, 0xfffff, RAM_SIZE - 1, 0xfffffffffffff000ull,
					 UINT64_MAX };
	struct boot *boot = NULL;
	uint64_t entry;
	unsigned i;

	(void)state;
	for (i = 0; i < sizeof(wild) / sizeof(wild[0]); i++) {
		struct setup_header h = good_header();

		h.pref_address = wild[i];
		h.relocatable_kernel = 0;
		assert_int_equal(open_image(&h, NULL, "", &boot), 0);
		assert_int_equal(boot_load(boot, &vm, 1, &entry), -ENOMEM);
		boot_close(boot);
		h = good_header();
		h.kernel_alignment = 0x80000000;
		h.pref_address = wild[i];
		assert_int_equal(open_image(&h, NULL, "", &boot), 0);
		assert_int_equal(boot_load(boot, &vm, 1, &entry), -ENOMEM);
		boot_close(boot);
	}
}

static void files_that_are_none(void **state)
{
	struct setup_header h = good_header();
	struct boot *boot = NULL;

	(void)state;
	assert_int_equal(boot_open("no.such.file", NULL, "", &boot), -ENOENT);
	assert_non_null(strstr(said, "no.such.file"));
	assert_int_equal(boot_open("/", NULL, "", &boot), -EINVAL);
	assert_int_equal(boot_open("/dev/null", NULL, "", &boot), -EINVAL);
	write_file("bzimage.test", "MZ", 2);
	assert_int_equal(boot_open("bzimage.test", NULL, "", &boot), -ENOEXEC);
	assert_int_equal(open_image(&h, "no.such.initrd", "", &boot), -ENOENT);
	assert_non_null(strstr(said, "initrd"));
	h.cmdline_size = 3;
	assert_int_equal(open_image(&h, NULL, "four", &boot), -E2BIG);
	assert_null(boot);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(loads_what_the_protocol_says),
		cmocka_unit_test(memory_map_has_no_overlaps),
		cmocka_unit_test(moves_a_kernel_that_would_not_fit),
		cmocka_unit_test(says_when_the_initrd_does_not_fit),
		cmocka_unit_test(every_lie_in_the_header_is_told),
		cmocka_unit_test(wild_addresses_do_not_fit),
		cmocka_unit_test(files_that_are_none),
	};
	char dir[] = "/tmp/belfry-boot-XXXXXX";
	int failed;

	if (!mkdtemp(dir) || chdir(dir))
		return 1;
	failed = cmocka_run_group_tests(tests, set_up, tear_down);
	rmdir(dir);
	return failed;
}
