/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reading KVM's binary statistics and this process's memory, and writing JSON files. Main thread;
 * the vCPUs may run meanwhile.
 *
 * The format of a statistics descriptor is described in Documentation/virt/kvm/api.rst,
 * KVM_GET_STATS_FD: a header, one description per counter, a block of values.
 */
#include "stats.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/report.h"
#include "kvm/vm_core.h"

#define MAX_COUNTERS 4096u
#define MAX_NAME     256u
#define MAX_VALUES   1024u

/* From the kernel, but a file format all the same: the sizes are checked before they are used. */
static bool is_sane(const struct kvm_stats_header *h)
{
	return h->name_size > 0 && h->name_size <= MAX_NAME && h->num_desc <= MAX_COUNTERS;
}

static json_t *read_values(int fd, uint64_t offset, unsigned nr)
{
	uint64_t values[MAX_VALUES];
	json_t *array;
	unsigned i;

	if (!nr || nr > MAX_VALUES ||
	    pread(fd, values, nr * sizeof(values[0]), (off_t)offset) !=
		    (ssize_t)(nr * sizeof(values[0])))
		return NULL;
	if (nr == 1)
		return json_integer((json_int_t)values[0]);
	array = json_array();
	for (i = 0; i < nr; i++)
		json_array_append_new(array, json_integer((json_int_t)values[i]));
	return array;
}

json_t *stats_of_kvm_fd(int fd)
{
	struct kvm_stats_header h;
	struct kvm_stats_desc *desc;
	size_t size;
	uint32_t i;
	json_t *out;

	if (fd < 0 || pread(fd, &h, sizeof(h), 0) != sizeof(h) || !is_sane(&h))
		return NULL;
	size = sizeof(*desc) + h.name_size;
	desc = calloc(1, size + 1); /* one more, so that the name ends */
	out = json_object();
	for (i = 0; desc && i < h.num_desc; i++) {
		if (pread(fd, desc, size, (off_t)(h.desc_offset + i * size)) != (ssize_t)size)
			break;
		json_object_set_new(
			out, desc->name,
			read_values(fd, (uint64_t)h.data_offset + desc->offset, desc->size));
	}
	free(desc);
	return out;
}

json_t *stats_of_vm(const struct vm *vm)
{
	int fd = ioctl(vm->fd, KVM_GET_STATS_FD, NULL);
	json_t *out = stats_of_kvm_fd(fd);

	if (fd >= 0)
		close(fd);
	return out;
}

struct resident {
	uint64_t ram;     /* guest RAM that is there */
	uint64_t beyond;  /* everything else of this process */
	uint64_t private; /* the part of it that no other process shares */
};

/* A line of smaps under a mapping, "Rss:   12 kB"; huge pages are not in Rss. */
static void count_line(struct resident *r, const char *line, bool is_ram)
{
	uint64_t kb;

	if (sscanf(line, "Rss: %" SCNu64 " kB", &kb) == 1)
		*(is_ram ? &r->ram : &r->beyond) += kb << 10;
	else if (is_ram && sscanf(line, "Shared_Hugetlb: %" SCNu64 " kB", &kb) == 1)
		r->ram += kb << 10;
	else if (is_ram && sscanf(line, "Private_Hugetlb: %" SCNu64 " kB", &kb) == 1)
		r->ram += kb << 10;
	else if (!is_ram && (sscanf(line, "Private_Clean: %" SCNu64 " kB", &kb) == 1 ||
			     sscanf(line, "Private_Dirty: %" SCNu64 " kB", &kb) == 1))
		r->private += kb << 10;
}

static int read_smaps(const struct vm_memory *m, struct resident *r)
{
	const uint64_t ram = (uintptr_t)m->hva;
	FILE *f = fopen("/proc/self/smaps", "re");
	uint64_t start, end;
	bool is_ram = false;
	char line[512];

	if (!f)
		return -errno;
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " ", &start, &end) == 2)
			is_ram = start >= ram && start - ram < m->size;
		else
			count_line(r, line, is_ram);
	}
	fclose(f);
	return 0;
}

json_t *stats_of_memory(const struct vm *vm)
{
	struct resident r = { .ram = 0 };
	json_t *out = json_pack("{s:I}", "ram_bytes", (json_int_t)vm->memory.size);

	if (read_smaps(&vm->memory, &r))
		return out;
	json_object_set_new(out, "rss_bytes", json_integer((json_int_t)(r.ram + r.beyond)));
	json_object_set_new(out, "ram_resident_bytes", json_integer((json_int_t)r.ram));
	json_object_set_new(out, "beyond_ram_bytes", json_integer((json_int_t)r.beyond));
	json_object_set_new(out, "beyond_ram_private_bytes", json_integer((json_int_t)r.private));
	return out;
}

int stats_write(const char *path, const json_t *root)
{
	char *tmp = NULL;
	int rc = 0;

	if (asprintf(&tmp, "%s.tmp", path) < 0)
		return -ENOMEM;
	if (json_dump_file(root, tmp, JSON_INDENT(2)) < 0 || rename(tmp, path) < 0) {
		rc = errno ? -errno : -EIO;
		report("cannot write the statistics to '%s': %s", path, strerror(-rc));
		unlink(tmp);
	}
	free(tmp);
	return rc;
}
