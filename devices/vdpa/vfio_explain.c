/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Why a device cannot be had. Control context, at start and on the way out: may look through /proc.
 *
 * The order of the questions is what makes the answer true. A device that is no virtio device must
 * not be torn from its driver first, and a bound one without an IOMMU still has none.
 */
#include <dirent.h>
#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vfio_explain.h"

const struct vfio_places vfio_real_places = {
	.sys = SYSFS,
	.dev = "/dev",
	.proc = "/proc",
	.driverctl = "/usr/sbin/driverctl",
};

#define COMMAND_LEN 400

/* How @device gets bound to vfio-pci. */
static void bind_command(const struct vfio_places *places, const struct sysfs_device *device,
			 char command[COMMAND_LEN])
{
	const char *bdf = device->bdf;
	char unbind[COMMAND_LEN / 2] = "";

	if (!access(places->driverctl, X_OK)) {
		snprintf(command, COMMAND_LEN, "driverctl set-override %s vfio-pci", bdf);
		return;
	}
	if (device->driver[0])
		snprintf(unbind, sizeof(unbind), "echo %s >/sys/bus/pci/devices/%s/driver/unbind; ",
			 bdf, bdf);
	snprintf(command, COMMAND_LEN,
		 "%secho vfio-pci >/sys/bus/pci/devices/%s/driver_override; "
		 "%secho %s >/sys/bus/pci/drivers_probe",
		 sysfs_has_driver(places->sys, "vfio-pci") ? "" : "modprobe vfio-pci; ", bdf,
		 unbind, bdf);
}

static void explain_driver(const struct vfio_places *places, const struct sysfs_device *facts,
			   char text[EXPLAIN_LEN])
{
	char command[COMMAND_LEN];

	bind_command(places, facts, command);
	if (facts->driver[0])
		snprintf(text, EXPLAIN_LEN,
			 "expected to find it bound to vfio-pci, but the driver %s holds it; "
			 "as root: %s",
			 facts->driver, command);
	else
		snprintf(text, EXPLAIN_LEN,
			 "expected to find it bound to vfio-pci, but no driver holds it%s; "
			 "as root: %s",
			 sysfs_has_driver(places->sys, "vfio-pci") ? ""
								   : ", and vfio-pci is not loaded",
			 command);
}

static void explain_shared_group(const struct vfio_places *places, const struct sysfs_device *facts,
				 const struct sysfs_device *other, char text[EXPLAIN_LEN])
{
	char command[COMMAND_LEN];

	bind_command(places, other, command);
	snprintf(
		text, EXPLAIN_LEN,
		"its IOMMU group %d is shared with %s, which the driver %s holds; the IOMMU cannot "
		"tell the two apart, so both must be free. If nothing needs %s, as root: %s; "
		"otherwise put the device into another slot",
		facts->group, other->bdf, other->driver, other->bdf, command);
}

static void explain_no_iommu(const struct sysfs_device *facts, char text[EXPLAIN_LEN])
{
	snprintf(text, EXPLAIN_LEN,
		 "%s, so its memory accesses cannot be confined to the guest; switch the IOMMU on: "
		 "VT-d or AMD-Vi (also called IOMMU) in the firmware's set-up, and on Intel "
		 "machines intel_iommu=on on the kernel's command line; then reboot",
		 facts->noiommu ? "its group is one of VFIO's no-IOMMU mode, which is refused"
				: "it has no IOMMU group");
}

int vfio_explain_device(const struct vfio_places *places, const char *bdf,
			struct sysfs_device *facts, char text[EXPLAIN_LEN])
{
	struct sysfs_device other;

	if (sysfs_read_device(places->sys, bdf, facts)) {
		snprintf(
			text, EXPLAIN_LEN,
			"there is no such PCI device; \"lspci -D -d 1af4:\" lists the virtio devices");
		return -ENODEV;
	}
	if (!sysfs_is_virtio(facts)) {
		snprintf(text, EXPLAIN_LEN,
			 "expected a virtio device (vendor 1af4, device 1000 to 107f), found "
			 "%04x:%04x of class %06x; \"lspci -D -d 1af4:\" lists the virtio devices",
			 facts->vendor, facts->device, facts->class);
		return -ENXIO;
	}
	if (facts->group < 0 || facts->noiommu) {
		explain_no_iommu(facts, text);
		return -EOPNOTSUPP;
	}
	if (!sysfs_driver_is_vfio(facts->driver)) {
		explain_driver(places, facts, text);
		return -EADDRINUSE;
	}
	if (sysfs_group_blocker(places->sys, facts, &other)) {
		explain_shared_group(places, facts, &other, text);
		return -EBUSY;
	}
	return 0;
}

void vfio_explain_container(const struct vfio_places *places, int error, char text[EXPLAIN_LEN])
{
	if (error == ENOENT || error == ENODEV || error == ENXIO)
		snprintf(text, EXPLAIN_LEN,
			 "%s/vfio/vfio: VFIO is not loaded, or not shown to this container; "
			 "as root: modprobe vfio-pci",
			 places->dev);
	else if (error == EACCES || error == EPERM)
		snprintf(text, EXPLAIN_LEN,
			 "%s/vfio/vfio: no permission to open it; as root: chmod 0666 %s/vfio/vfio "
			 "(what a process may do is decided by the node of the group)",
			 places->dev, places->dev);
	else
		snprintf(text, EXPLAIN_LEN, "%s/vfio/vfio: cannot be opened: %s", places->dev,
			 strerror(error));
}

static void explain_permission(const struct vfio_places *places, int group, char text[EXPLAIN_LEN])
{
	char path[PATH_MAX], owner[SYSFS_NAME_LEN] = "nobody known", me[SYSFS_NAME_LEN];
	struct passwd *user;
	struct group *team;
	struct stat st;

	snprintf(path, sizeof(path), "%s/vfio/%d", places->dev, group);
	user = getpwuid(geteuid());
	snprintf(me, sizeof(me), "%.32s", user ? user->pw_name : "$USER");
	if (!stat(path, &st)) {
		char uid[16], gid[16];

		snprintf(uid, sizeof(uid), "%u", st.st_uid);
		snprintf(gid, sizeof(gid), "%u", st.st_gid);
		user = getpwuid(st.st_uid);
		team = getgrgid(st.st_gid);
		snprintf(owner, sizeof(owner), "%.20s:%.20s, mode %04o", user ? user->pw_name : uid,
			 team ? team->gr_name : gid, st.st_mode & 07777);
	}
	snprintf(text, EXPLAIN_LEN,
		 "no permission to open %.64s, which belongs to %s; as root: chown %s %.64s "
		 "(a udev rule for SUBSYSTEM==\"vfio\" makes it last)",
		 path, owner, me, path);
}

/* Whether the process has this node open. */
static bool has_open(const char *proc, const char *pid, const char *node)
{
	char path[PATH_MAX], target[PATH_MAX];
	struct dirent *entry;
	bool found = false;
	ssize_t got;
	DIR *dir;

	snprintf(path, sizeof(path), "%s/%s/fd", proc, pid);
	dir = opendir(path);
	if (!dir)
		return false;
	while (!found && (entry = readdir(dir))) {
		got = readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1);
		if (got <= 0)
			continue;
		target[got] = '\0';
		found = !strcmp(target, node);
	}
	closedir(dir);
	return found;
}

static void read_comm(const char *proc, const char *pid, char comm[SYSFS_NAME_LEN])
{
	char path[PATH_MAX];
	FILE *file;

	snprintf(comm, SYSFS_NAME_LEN, "?");
	snprintf(path, sizeof(path), "%s/%s/comm", proc, pid);
	file = fopen(path, "re");
	if (!file)
		return;
	if (fgets(comm, SYSFS_NAME_LEN, file))
		comm[strcspn(comm, "\n")] = '\0';
	fclose(file);
}

/* "NAME (process PID)" of the first that has the node open. False: none was seen. */
static bool find_holder(const char *proc, const char *node, char holder[COMMAND_LEN])
{
	char comm[SYSFS_NAME_LEN];
	struct dirent *entry;
	bool found = false;
	DIR *dir = opendir(proc);

	if (!dir)
		return false;
	while (!found && (entry = readdir(dir))) {
		if (entry->d_name[0] < '1' || entry->d_name[0] > '9')
			continue;
		found = has_open(proc, entry->d_name, node);
		if (!found)
			continue;
		read_comm(proc, entry->d_name, comm);
		snprintf(holder, COMMAND_LEN, "%s (process %.16s)", comm, entry->d_name);
	}
	closedir(dir);
	return found;
}

static void explain_busy(const struct vfio_places *places, int group, char text[EXPLAIN_LEN])
{
	char node[PATH_MAX], holder[COMMAND_LEN];

	snprintf(node, sizeof(node), "%s/vfio/%d", places->dev, group);
	if (find_holder(places->proc, node, holder))
		snprintf(text, EXPLAIN_LEN,
			 "it is in use by %s, which has %.64s open; end that one first", holder,
			 node);
	else if (find_holder(places->proc, "anon_inode:[vfio-device]", holder))
		snprintf(text, EXPLAIN_LEN,
			 "it is in use by another process, most likely by %s, which has a VFIO "
			 "device open; a front end does while it has doorbells; end it first",
			 holder);
	else
		snprintf(text, EXPLAIN_LEN,
			 "it is in use by another process, which has %.64s open; end that one "
			 "first (as root: fuser -v %.64s)",
			 node, node);
}

void vfio_explain_group(const struct vfio_places *places, const struct sysfs_device *facts,
			int error, char text[EXPLAIN_LEN])
{
	if (error == EACCES || error == EPERM)
		explain_permission(places, facts->group, text);
	else if (error == EBUSY)
		explain_busy(places, facts->group, text);
	else if (error == ENOENT)
		snprintf(text, EXPLAIN_LEN,
			 "%s/vfio/%d is not there, though the device is bound to %s: a container "
			 "must be given the node (--device %s/vfio/%d)",
			 places->dev, facts->group, facts->driver, places->dev, facts->group);
	else
		snprintf(text, EXPLAIN_LEN, "%s/vfio/%d: cannot be opened: %s", places->dev,
			 facts->group, strerror(error));
}

void vfio_explain_not_viable(const struct vfio_places *places, const struct sysfs_device *facts,
			     char text[EXPLAIN_LEN])
{
	struct sysfs_device other;

	if (sysfs_group_blocker(places->sys, facts, &other))
		explain_shared_group(places, facts, &other, text);
	else
		snprintf(
			text, EXPLAIN_LEN,
			"its IOMMU group %d is not viable: a device of it is in use by the kernel; "
			"\"lspci -k -s BDF\" for each of "
			"/sys/kernel/iommu_groups/%d/devices/ shows which, and all of them "
			"belong to vfio-pci",
			facts->group, facts->group);
}
