/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Opening KVM. Main thread, at start. Knows nothing of the machine that will be built on it.
 *
 * A node called /dev/kvm proves little (it is there in containers and in virtual machines without
 * nested virtualisation), so the processor is asked first.
 */
#include "kvm.h"

#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "../base/report.h"

#define CPUID_FEATURES     0x1
#define CPUID_VMX          (1u << 5)
#define CPUID_AMD_FEATURES 0x80000001
#define CPUID_SVM          (1u << 2)

/* clang-format off */
#define NEED(cap) { cap, #cap }

static const struct {
	unsigned long id;
	const char *name;
} needed[] = {
	NEED(KVM_CAP_USER_MEMORY),
	NEED(KVM_CAP_IRQCHIP),
	NEED(KVM_CAP_SET_TSS_ADDR),
	NEED(KVM_CAP_SET_IDENTITY_MAP_ADDR),
	NEED(KVM_CAP_PIT2),
	NEED(KVM_CAP_PIT_STATE2),
	NEED(KVM_CAP_EXT_CPUID),
	NEED(KVM_CAP_MP_STATE),
	NEED(KVM_CAP_VCPU_EVENTS),
	NEED(KVM_CAP_DEBUGREGS),
	NEED(KVM_CAP_XSAVE),
	NEED(KVM_CAP_IMMEDIATE_EXIT),
	NEED(KVM_CAP_IOEVENTFD),
	NEED(KVM_CAP_IOEVENTFD_ANY_LENGTH),
	NEED(KVM_CAP_IRQFD),
	NEED(KVM_CAP_IRQ_ROUTING),
	NEED(KVM_CAP_SIGNAL_MSI),
};
/* clang-format on */

int kvm_extension(int fd, unsigned long capability)
{
	int rc = ioctl(fd, KVM_CHECK_EXTENSION, capability);

	return rc < 0 ? 0 : rc;
}

static bool cpu_virtualises(void)
{
	unsigned eax, ebx, ecx, edx;

	if (__get_cpuid(CPUID_FEATURES, &eax, &ebx, &ecx, &edx) && (ecx & CPUID_VMX))
		return true;
	return __get_cpuid(CPUID_AMD_FEATURES, &eax, &ebx, &ecx, &edx) && (ecx & CPUID_SVM);
}

static void explain_open(int err)
{
	switch (err) {
	case EACCES:
	case EPERM:
		report("cannot open /dev/kvm: permission denied; add yourself to the group that owns "
		       "it (usually: sudo usermod -aG kvm $USER, then log in again)");
		break;
	case ENOENT:
	case ENODEV:
		report("cannot open /dev/kvm: %s; load the module (modprobe kvm_intel or kvm_amd), "
		       "and check that virtualisation is enabled in the firmware",
		       strerror(err));
		break;
	default:
		report("cannot open /dev/kvm: %s", strerror(err));
	}
}

static int check_version(int fd)
{
	int version = ioctl(fd, KVM_GET_API_VERSION, 0);

	if (version == KVM_API_VERSION)
		return 0;
	report("/dev/kvm speaks API version %d, expected %d", version, KVM_API_VERSION);
	return -EPROTONOSUPPORT;
}

static int check_capabilities(int fd)
{
	size_t i;

	for (i = 0; i < sizeof(needed) / sizeof(needed[0]); i++) {
		if (!kvm_extension(fd, needed[i].id)) {
			report("this kernel's KVM lacks %s; Linux 5.10 or later on x86-64 has it",
			       needed[i].name);
			return -EOPNOTSUPP;
		}
	}
	return 0;
}

int kvm_open(int *kvm_fd)
{
	int fd, rc;

	if (!cpu_virtualises()) {
		report("this processor offers no hardware virtualisation (neither vmx nor svm): use a "
		       "machine that does, or run the same command inside the lab: lab/run belfry-vmm ...");
		return -ENODEV;
	}
	fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (fd < 0) {
		rc = -errno;
		explain_open(-rc);
		return rc;
	}
	rc = check_version(fd);
	if (!rc)
		rc = check_capabilities(fd);
	if (rc) {
		close(fd);
		return rc;
	}
	*kvm_fd = fd;
	return 0;
}
