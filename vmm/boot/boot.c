/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The Linux x86 boot protocol, 64-bit entry (Documentation/arch/x86/boot.rst, version 2.12).
 *
 * Main thread, while no vCPU runs. The kernel file is untrusted: its header is read once into a
 * private copy, and every field is checked before it is used.
 */
#include "boot.h"

#include <asm/bootparam.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "acpi.h"
#include "boot_layout.h"
#include "../base/report.h"
#include "../kvm/vm.h"

#define HEADER_OFFSET    0x1f1u
#define HEADER_MAGIC     0x53726448u /* "HdrS" */
#define BOOT_FLAG        0xaa55u
#define MIN_VERSION      0x020c
#define ENTRY_64_OFFSET  0x200u
#define LOADER_UNDEFINED 0xff
#define PAGE             4096ull
#define MIB(n)           ((n) >> 20)

struct input {
	const char *path;
	int fd;
	uint64_t size;
};

struct boot {
	struct input kernel;
	struct input initrd;
	const char *cmdline;
	struct setup_header header; /* private, checked copy */
	uint64_t payload_offset;    /* of the protected-mode kernel in the file */
};

static int open_input(struct input *in, const char *what, const char *path)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &st) < 0) {
		int rc = -errno;

		report("cannot open the %s '%s': %s", what, path, strerror(-rc));
		if (fd >= 0)
			close(fd);
		return rc;
	}
	if (!S_ISREG(st.st_mode) || st.st_size <= 0) {
		report("the %s '%s' is %s, expected a file with content", what, path,
		       S_ISREG(st.st_mode) ? "empty" : "not a regular file");
		close(fd);
		return -EINVAL;
	}
	*in = (struct input){ .path = path, .fd = fd, .size = (uint64_t)st.st_size };
	return 0;
}

static int read_exactly(const struct input *in, uint64_t offset, void *data, uint64_t len)
{
	ssize_t n;

	while (len) {
		n = pread(in->fd, data, len, (off_t)offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			int rc = n < 0 ? -errno : -ENODATA;

			report("cannot read '%s': %s", in->path,
			       n < 0 ? strerror(-rc) : "it has become shorter");
			return rc;
		}
		data = (char *)data + n;
		offset += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return 0;
}

static int not_bootable(const char *path, const char *why)
{
	report("'%s' cannot be booted: %s; expected an x86-64 Linux bzImage (vmlinuz) of version 3.8 "
	       "or later",
	       path, why);
	return -ENOEXEC;
}

static int check_header(struct boot *b)
{
	const struct setup_header *h = &b->header;
	const char *path = b->kernel.path;
	const unsigned setup_sects = h->setup_sects ? h->setup_sects : 4;

	if (h->boot_flag != BOOT_FLAG || h->header != HEADER_MAGIC)
		return not_bootable(path, "it has no Linux boot header (not a bzImage)");
	if (h->version < MIN_VERSION)
		return not_bootable(path, "its boot protocol is older than 2.12");
	if (!(h->xloadflags & XLF_KERNEL_64) || !(h->loadflags & LOADED_HIGH))
		return not_bootable(path, "it has no 64-bit entry point");
	b->payload_offset = (setup_sects + 1) * 512ull;
	if (b->payload_offset >= b->kernel.size || h->syssize == 0 ||
	    h->syssize * 16ull > b->kernel.size - b->payload_offset + 15)
		return not_bootable(path, "it is truncated");
	if (h->init_size <= ENTRY_64_OFFSET || b->kernel.size - b->payload_offset > h->init_size)
		return not_bootable(path, "its header says it needs less memory than it takes");
	if (h->relocatable_kernel &&
	    (!h->kernel_alignment || (h->kernel_alignment & (h->kernel_alignment - 1))))
		return not_bootable(path, "its alignment is not a power of two");
	return 0;
}

static int read_header(struct boot *b)
{
	uint8_t head[HEADER_OFFSET + sizeof(b->header)];
	size_t len;
	int rc;

	if (b->kernel.size < sizeof(head))
		return not_bootable(b->kernel.path, "it is too short");
	rc = read_exactly(&b->kernel, 0, head, sizeof(head));
	if (rc)
		return rc;
	/* The byte before the magic is a jump over the rest of the header: it tells its end. */
	len = 0x202u + head[0x201] - HEADER_OFFSET;
	len = len < sizeof(b->header) ? len : sizeof(b->header);
	memcpy(&b->header, head + HEADER_OFFSET, len);
	return check_header(b);
}

static int check_cmdline(const struct boot *b)
{
	const size_t len = strlen(b->cmdline);
	const size_t max = b->header.cmdline_size < BOOT_CMDLINE_MAX - 1 ? b->header.cmdline_size
									 : BOOT_CMDLINE_MAX - 1;

	if (len <= max)
		return 0;
	report("--cmdline has %zu characters; this kernel takes %zu", len, max);
	return -E2BIG;
}

int boot_open(const char *kernel, const char *initrd, const char *cmdline, struct boot **out)
{
	struct boot *b = calloc(1, sizeof(*b));
	int rc;

	if (!b)
		return -ENOMEM;
	b->kernel.fd = b->initrd.fd = -1;
	b->cmdline = cmdline;
	rc = open_input(&b->kernel, "kernel", kernel);
	if (!rc && initrd)
		rc = open_input(&b->initrd, "initrd", initrd);
	if (!rc)
		rc = read_header(b);
	if (!rc)
		rc = check_cmdline(b);
	if (rc) {
		boot_close(b);
		return rc;
	}
	*out = b;
	return 0;
}

void boot_close(struct boot *boot)
{
	if (!boot)
		return;
	if (boot->kernel.fd >= 0)
		close(boot->kernel.fd);
	if (boot->initrd.fd >= 0)
		close(boot->initrd.fd);
	free(boot);
}

static bool kernel_fits(uint64_t gpa, uint64_t init_size, uint64_t ram_end)
{
	return gpa >= BOOT_HIGH_START && gpa < ram_end && init_size <= ram_end - gpa;
}

/* The kernel's preferred place, or the first MiB it can be relocated to. */
static int place_kernel(const struct boot *b, uint64_t ram_end, uint64_t *gpa)
{
	const struct setup_header *h = &b->header;
	uint64_t at = h->pref_address;

	if (!kernel_fits(at, h->init_size, ram_end) && h->relocatable_kernel)
		at = (BOOT_HIGH_START + h->kernel_alignment - 1) & ~(h->kernel_alignment - 1ull);
	if (!kernel_fits(at, h->init_size, ram_end)) {
		report("the kernel '%s' does not fit in memory: it needs %" PRIu64
		       " MiB at 0x%" PRIx64 ", and the guest has %" PRIu64
		       " MiB there; give more --memory",
		       b->kernel.path, MIB((uint64_t)h->init_size + 0xfffff), at, MIB(ram_end));
		return -ENOMEM;
	}
	*gpa = at;
	return 0;
}

/* As high as the kernel accepts it, out of the way of the kernel's decompression. */
static int place_initrd(const struct boot *b, uint64_t ram_end, uint64_t kernel_end, uint64_t *gpa)
{
	const uint64_t limit = (uint64_t)b->header.initrd_addr_max + 1;
	const uint64_t end = limit < ram_end ? limit : ram_end;

	if (b->initrd.size > end || ((end - b->initrd.size) & ~(PAGE - 1)) < kernel_end) {
		report("the initrd '%s' does not fit in memory: it has %" PRIu64
		       " MiB, and %" PRIu64 " MiB are free beside the kernel; give more --memory",
		       b->initrd.path, MIB(b->initrd.size + 0xfffff),
		       MIB(end > kernel_end ? end - kernel_end : 0));
		return -ENOMEM;
	}
	*gpa = (end - b->initrd.size) & ~(PAGE - 1);
	return 0;
}

static int load_input(const struct input *in, uint64_t offset, struct vm *vm, uint64_t gpa)
{
	const uint64_t len = in->size - offset;
	void *hva = vm_gpa_to_hva(vm, gpa, len);

	return hva ? read_exactly(in, offset, hva, len) : -EFAULT;
}

static int load_initrd(const struct boot *b, struct vm *vm, uint64_t ram_end, uint64_t kernel_end,
		       struct boot_params *params)
{
	uint64_t gpa;
	int rc;

	if (b->initrd.fd < 0)
		return 0;
	rc = place_initrd(b, ram_end, kernel_end, &gpa);
	if (!rc)
		rc = load_input(&b->initrd, 0, vm, gpa);
	if (rc)
		return rc;
	/* Below VM_MMIO32_BASE, so the extended halves stay zero. */
	params->hdr.ramdisk_image = (uint32_t)gpa;
	params->hdr.ramdisk_size = (uint32_t)b->initrd.size;
	return 0;
}

static int load_zero_page(const struct boot *b, struct vm *vm, const struct boot_params *params)
{
	void *hva = vm_gpa_to_hva(vm, BOOT_PARAMS_GPA, sizeof(*params));
	char *cmdline = vm_gpa_to_hva(vm, BOOT_CMDLINE_GPA, BOOT_CMDLINE_MAX);

	if (!hva || !cmdline)
		return -EFAULT;
	memcpy(hva, params, sizeof(*params));
	memcpy(cmdline, b->cmdline, strlen(b->cmdline) + 1);
	return boot_write_tables(vm);
}

static int load_acpi(struct vm *vm, unsigned nr_cpus, uint64_t *rsdp_gpa)
{
	void *hva = vm_gpa_to_hva(vm, BOOT_ACPI_GPA, BOOT_ACPI_SIZE);

	return hva ? acpi_build(hva, BOOT_ACPI_SIZE, BOOT_ACPI_GPA, nr_cpus, rsdp_gpa) : -EFAULT;
}

int boot_load(const struct boot *boot, struct vm *vm, unsigned nr_cpus, uint64_t *entry)
{
	struct boot_params params = { .hdr = boot->header };
	const struct vm_ram *ram;
	uint64_t kernel_gpa, rsdp_gpa;
	int rc;

	vm_ram(vm, &ram);
	rc = place_kernel(boot, ram[0].size, &kernel_gpa);
	if (!rc)
		rc = load_input(&boot->kernel, boot->payload_offset, vm, kernel_gpa);
	if (!rc)
		rc = load_initrd(boot, vm, ram[0].size, kernel_gpa + boot->header.init_size,
				 &params);
	if (!rc)
		rc = load_acpi(vm, nr_cpus, &rsdp_gpa);
	if (rc)
		return rc;
	params.hdr.type_of_loader = LOADER_UNDEFINED;
	params.hdr.code32_start = (uint32_t)kernel_gpa;
	params.hdr.cmd_line_ptr = BOOT_CMDLINE_GPA;
	params.acpi_rsdp_addr = rsdp_gpa;
	boot_fill_e820(&params, vm);
	rc = load_zero_page(boot, vm, &params);
	if (!rc)
		*entry = kernel_gpa + ENTRY_64_OFFSET;
	return rc;
}
