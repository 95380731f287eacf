/* SPDX-License-Identifier: BSD-3-Clause */
/* Facts from a made-up sysfs, and the sentences that come of them. */
#include "../support.h"

#include <ftw.h>
#include <sys/stat.h>

#include "devices/vdpa/sysfs.h"
#include "devices/vdpa/vfio_explain.h"

#define NIC  "0000:01:00.0"
#define DISK "0000:01:00.1"

static char root[] = "/tmp/belfry-sysfs-XXXXXX";
static char sys[64], dev[64], proc[64];
static struct vfio_places places;

static void __attribute__((format(printf, 1, 2))) make_dirs(const char *format, ...)
{
	char path[512], *slash;
	va_list args;

	va_start(args, format);
	vsnprintf(path, sizeof(path), format, args);
	va_end(args);
	for (slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		mkdir(path, 0755);
		*slash = '/';
	}
	assert_true(!mkdir(path, 0755) || errno == EEXIST);
}

static void __attribute__((format(printf, 2, 3)))
put_text(const char *text, const char *format, ...)
{
	char path[512];
	va_list args;
	FILE *file;

	va_start(args, format);
	vsnprintf(path, sizeof(path), format, args);
	va_end(args);
	file = fopen(path, "we");
	assert_non_null(file);
	fprintf(file, "%s\n", text);
	fclose(file);
}

static void __attribute__((format(printf, 2, 3)))
put_link(const char *target, const char *format, ...)
{
	char path[512];
	va_list args;

	va_start(args, format);
	vsnprintf(path, sizeof(path), format, args);
	va_end(args);
	unlink(path);
	if (target)
		assert_int_equal(symlink(target, path), 0);
}

static void put_device(const char *bdf, const char *vendor, const char *device)
{
	make_dirs("%s/bus/pci/devices/%s", sys, bdf);
	put_text(vendor, "%s/bus/pci/devices/%s/vendor", sys, bdf);
	put_text(device, "%s/bus/pci/devices/%s/device", sys, bdf);
	put_text("0x0001", "%s/bus/pci/devices/%s/subsystem_device", sys, bdf);
	put_text("0x020000", "%s/bus/pci/devices/%s/class", sys, bdf);
}

static void put_driver(const char *bdf, const char *driver)
{
	char target[256];

	snprintf(target, sizeof(target), "../../../../bus/pci/drivers/%s", driver);
	put_link(*driver ? target : NULL, "%s/bus/pci/devices/%s/driver", sys, bdf);
}

static void put_group(const char *bdf, int group)
{
	char target[256];

	make_dirs("%s/kernel/iommu_groups/%d/devices/%s", sys, group, bdf);
	put_text("DMA", "%s/kernel/iommu_groups/%d/name", sys, group);
	snprintf(target, sizeof(target), "../../../../kernel/iommu_groups/%d", group);
	put_link(target, "%s/bus/pci/devices/%s/iommu_group", sys, bdf);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

/* A device that nothing speaks against. */
static int set_up(void **state)
{
	(void)state;
	snprintf(root, sizeof(root), "/tmp/belfry-sysfs-XXXXXX");
	assert_non_null(mkdtemp(root));
	snprintf(sys, sizeof(sys), "%s/sys", root);
	snprintf(dev, sizeof(dev), "%s/dev", root);
	snprintf(proc, sizeof(proc), "%s/proc", root);
	places = (struct vfio_places){ sys, dev, proc, "" };
	make_dirs("%s/bus/pci/drivers/vfio-pci", sys);
	make_dirs("%s/vfio", dev);
	make_dirs("%s/self", proc);
	put_device(NIC, "0x1af4", "0x1041");
	put_driver(NIC, "vfio-pci");
	put_group(NIC, 7);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	return nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void test_bdf(void **state)
{
	static const struct {
		const char *text, *bdf;
	} cases[] = {
		{ "0000:01:00.0", "0000:01:00.0" },
		{ "01:00.0", "0000:01:00.0" },
		{ "1:0.7", "0000:01:00.7" },
		{ "aB:1F.3", "0000:ab:1f.3" },
		{ "10000:e1:00.0", "10000:e1:00.0" },
		{ "ffffffff:ff:1f.7", "ffffffff:ff:1f.7" },
		{ "", NULL },
		{ "01:00", NULL },
		{ "01:00.8", NULL },
		{ "01:20.0", NULL },
		{ "100:00.0", NULL },
		{ "01:00.0 ", NULL },
		{ "01:00.00", NULL },
		{ ":01:00.0", NULL },
		{ "0000:01:00.0:", NULL },
		{ "123456789:01:00.0", NULL },
		{ "0x00:01:00.0", NULL },
		{ "-1:00.0", NULL },
		{ "../../../etc", NULL },
		{ "0000:0000:01:00.0", NULL },
		{ "eth0", NULL },
	};
	char bdf[VFIO_BDF_LEN];
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		snprintf(bdf, sizeof(bdf), "untouched");
		assert_int_equal(vfio_bdf_parse(cases[i].text, bdf), cases[i].bdf ? 0 : -EINVAL);
		assert_string_equal(bdf, cases[i].bdf ? cases[i].bdf : "untouched");
	}
}

static void test_facts(void **state)
{
	struct sysfs_device device;

	(void)state;
	assert_int_equal(sysfs_read_device(sys, "0000:02:00.0", &device), -ENODEV);
	assert_int_equal(sysfs_read_device(sys, NIC, &device), 0);
	assert_string_equal(device.bdf, NIC);
	assert_int_equal(device.vendor, 0x1af4);
	assert_int_equal(device.device, 0x1041);
	assert_int_equal(device.class, 0x020000);
	assert_string_equal(device.driver, "vfio-pci");
	assert_int_equal(device.group, 7);
	assert_false(device.noiommu);
	assert_int_equal(sysfs_virtio_type(&device), 1);
	assert_false(sysfs_is_transitional(&device));

	put_device(DISK, "0x1af4", "0x1001");
	assert_int_equal(sysfs_read_device(sys, DISK, &device), 0);
	assert_string_equal(device.driver, "");
	assert_int_equal(device.group, -1);
	assert_true(sysfs_is_transitional(&device));
	assert_int_equal(sysfs_virtio_type(&device), 1); /* subsystem */
	assert_true(sysfs_driver_is_vfio("vfio-pci"));
	assert_true(sysfs_driver_is_vfio("mlx5_vfio_pci"));
	assert_false(sysfs_driver_is_vfio("virtio-pci"));
	assert_false(sysfs_driver_is_vfio("pci"));
}

/* The sentence must have @words, the words one after the other. */
static int explain(const char *const *words)
{
	struct sysfs_device facts;
	char text[EXPLAIN_LEN];
	const char *at = text;
	int ret = vfio_explain_device(&places, NIC, &facts, text);

	assert_int_not_equal(ret, 0);
	for (; *words; words++) {
		if (!strstr(at, *words))
			fail_msg("\"%s\" is not in \"%s\"", *words, at);
		at = strstr(at, *words) + strlen(*words);
	}
	return ret;
}

#define EXPLAIN(...) explain((const char *const[]){ __VA_ARGS__, NULL })

static void test_nothing_against_it(void **state)
{
	struct sysfs_device facts;
	char text[EXPLAIN_LEN];

	(void)state;
	assert_int_equal(vfio_explain_device(&places, NIC, &facts, text), 0);
	assert_int_equal(facts.group, 7);
	/* A device does not stand in its own way. */
	put_driver(NIC, "virtio-pci");
	assert_int_equal(sysfs_read_device(sys, NIC, &facts), 0);
	assert_int_equal(sysfs_group_blocker(sys, &facts, &facts), 0);
	put_driver(NIC, "vfio-pci");
	/* Neighbours that do no harm. */
	put_device(DISK, "0x1af4", "0x1042");
	put_group(DISK, 7);
	assert_int_equal(vfio_explain_device(&places, NIC, &facts, text), 0);
	put_driver(DISK, "pcieport");
	assert_int_equal(vfio_explain_device(&places, NIC, &facts, text), 0);
	put_driver(DISK, "vfio-pci");
	assert_int_equal(vfio_explain_device(&places, NIC, &facts, text), 0);
}

static void test_device(void **state)
{
	struct sysfs_device facts;
	char text[EXPLAIN_LEN];

	(void)state;
	assert_int_equal(vfio_explain_device(&places, "0000:09:00.0", &facts, text), -ENODEV);
	assert_non_null(strstr(text, "no such PCI device"));
	assert_non_null(strstr(text, "lspci"));

	/* Not torn from its driver before it is known to be the right device. */
	put_device(NIC, "0x8086", "0x100e");
	put_driver(NIC, "e1000e");
	assert_int_equal(EXPLAIN("virtio device", "8086:100e", "020000"), -ENXIO);
}

static void test_iommu(void **state)
{
	(void)state;
	put_driver(NIC, "virtio-pci");
	put_link(NULL, "%s/bus/pci/devices/%s/iommu_group", sys, NIC);
	assert_int_equal(EXPLAIN("no IOMMU group", "VT-d", "intel_iommu=on"), -EOPNOTSUPP);
	put_group(NIC, 7);
	put_text("vfio-noiommu", "%s/kernel/iommu_groups/7/name", sys);
	assert_int_equal(EXPLAIN("no-IOMMU mode", "refused", "intel_iommu=on"), -EOPNOTSUPP);
}

static void test_driver(void **state)
{
	(void)state;
	put_driver(NIC, "virtio-pci");
	assert_int_equal(EXPLAIN("expected", "vfio-pci", "virtio-pci holds it",
				 "echo vfio-pci >/sys/bus/pci/devices/" NIC "/driver_override",
				 "echo " NIC " >/sys/bus/pci/devices/" NIC "/driver/unbind",
				 "echo " NIC " >/sys/bus/pci/drivers_probe"),
			 -EADDRINUSE);
	places.driverctl = "/bin/sh"; /* anything that can be run */
	assert_int_equal(EXPLAIN("virtio-pci holds it", "driverctl set-override " NIC " vfio-pci"),
			 -EADDRINUSE);
	places.driverctl = "";
	put_driver(NIC, "");
	assert_int_equal(EXPLAIN("no driver holds it; as root: echo vfio-pci"), -EADDRINUSE);
	make_dirs("%s/bus/pci/drivers", sys);
	{
		char path[128];

		snprintf(path, sizeof(path), "%s/bus/pci/drivers/vfio-pci", sys);
		assert_int_equal(rmdir(path), 0);
	}
	assert_int_equal(EXPLAIN("no driver holds it, and vfio-pci is not loaded",
				 "modprobe vfio-pci; echo vfio-pci"),
			 -EADDRINUSE);
}

static void test_shared_group(void **state)
{
	struct sysfs_device facts;
	char text[EXPLAIN_LEN];

	(void)state;
	put_device(DISK, "0x8086", "0x2922");
	put_group(DISK, 7);
	put_driver(DISK, "ahci");
	assert_int_equal(EXPLAIN("group 7", "shared with " DISK, "driver ahci",
				 "/devices/" DISK "/driver_override"),
			 -EBUSY);
	assert_int_equal(sysfs_read_device(sys, NIC, &facts), 0);
	vfio_explain_not_viable(&places, &facts, text);
	assert_non_null(strstr(text, "driver ahci"));
	put_driver(DISK, "");
	vfio_explain_not_viable(&places, &facts, text);
	assert_non_null(strstr(text, "not viable"));
	assert_non_null(strstr(text, "/sys/kernel/iommu_groups/7/devices/"));
}

static void test_group_node(void **state)
{
	struct sysfs_device facts;
	char text[EXPLAIN_LEN], node[128], path[128];

	(void)state;
	assert_int_equal(sysfs_read_device(sys, NIC, &facts), 0);
	snprintf(node, sizeof(node), "%s/vfio/7", dev);
	put_text("", "%s", node);
	assert_int_equal(chmod(node, 0600), 0);
	vfio_explain_group(&places, &facts, EACCES, text);
	assert_non_null(strstr(text, "no permission"));
	assert_non_null(strstr(text, node));
	assert_non_null(strstr(text, "mode 0600"));
	assert_non_null(strstr(text, "chown "));

	vfio_explain_group(&places, &facts, EBUSY, text);
	assert_non_null(strstr(text, "in use by another process"));
	assert_non_null(strstr(text, "fuser -v "));
	make_dirs("%s/4711/fd", proc);
	put_text("qemu-system-x86", "%s/4711/comm", proc);
	put_link("/dev/null", "%s/4711/fd/0", proc);
	put_link(node, "%s/4711/fd/3", proc);
	vfio_explain_group(&places, &facts, EBUSY, text);
	assert_non_null(strstr(text, "in use by qemu-system-x86 (process 4711)"));
	put_link("anon_inode:[vfio-device]", "%s/4711/fd/3", proc);
	vfio_explain_group(&places, &facts, EBUSY, text);
	assert_non_null(strstr(text, "most likely by qemu-system-x86 (process 4711)"));

	vfio_explain_group(&places, &facts, ENOENT, text);
	assert_non_null(strstr(text, "container"));
	vfio_explain_group(&places, &facts, EMFILE, text);
	assert_non_null(strstr(text, strerror(EMFILE)));

	vfio_explain_container(&places, ENOENT, text);
	assert_non_null(strstr(text, "modprobe vfio-pci"));
	vfio_explain_container(&places, EACCES, text);
	snprintf(path, sizeof(path), "chmod 0666 %s/vfio/vfio", dev);
	assert_non_null(strstr(text, path));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bdf),
		cmocka_unit_test_setup_teardown(test_facts, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_nothing_against_it, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_device, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_iommu, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_driver, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_shared_group, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_group_node, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
