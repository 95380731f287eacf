/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The VM object: its life, its buses, ioeventfds, and requests to end or reset the machine.
 *
 * vm_new() and vm_free() belong to the main thread; everything in vm.h may be called from any.
 * Knows no device.
 */
#include "vm_core.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "../base/report.h"

/*
 * Four pages that Intel's VMX needs for guests in real mode, below the firmware's place at the
 * end of 4 GiB: nothing else of the address map lies there.
 */
#define IDENTITY_MAP_GPA 0xfffbc000ull
#define TSS_GPA          0xfffbd000ull

static int create_vm_fd(int kvm_fd)
{
	int fd;

	do
		fd = ioctl(kvm_fd, KVM_CREATE_VM, 0);
	while (fd < 0 && errno == EINTR);
	return fd < 0 ? -errno : fd;
}

static int create_platform(struct vm *vm)
{
	struct kvm_pit_config pit = { .flags = KVM_PIT_SPEAKER_DUMMY };
	uint64_t identity_map = IDENTITY_MAP_GPA;

	if (ioctl(vm->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map) < 0 ||
	    ioctl(vm->fd, KVM_SET_TSS_ADDR, TSS_GPA) < 0 ||
	    ioctl(vm->fd, KVM_CREATE_IRQCHIP, 0) < 0 || ioctl(vm->fd, KVM_CREATE_PIT2, &pit) < 0)
		return -errno;
	return 0;
}

static int init_kvm(struct vm *vm)
{
	int rc = create_vm_fd(vm->kvm_fd);

	if (rc >= 0) {
		vm->fd = rc;
		rc = create_platform(vm);
	}
	if (!rc)
		rc = vm_irq_init(vm);
	if (rc)
		report("KVM refused to create a virtual machine: %s", strerror(-rc));
	return rc;
}

int vm_new(int kvm_fd, uint64_t ram_size, bool hugepages, struct vm **out)
{
	struct vm *vm = calloc(1, sizeof(*vm));
	int rc;

	if (!vm)
		return -ENOMEM;
	vm->kvm_fd = kvm_fd;
	vm->fd = -1;
	vm->memory.fd = -1;
	bus_init(&vm->mmio);
	bus_init(&vm->pio);
	pthread_mutex_init(&vm->slots.lock, NULL);
	pthread_mutex_init(&vm->irq.lock, NULL);
	vm->request_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	rc = vm->request_fd < 0 ? -errno : 0;
	if (!rc)
		rc = init_kvm(vm);
	if (!rc)
		rc = vm_memory_init(vm, ram_size, hugepages);
	if (rc) {
		vm_free(vm);
		return rc;
	}
	*out = vm;
	return 0;
}

void vm_free(struct vm *vm)
{
	if (!vm)
		return;
	/* The VM goes first: its slots still point into the memory. */
	if (vm->fd >= 0)
		close(vm->fd);
	vm_irq_done(vm);
	vm_memory_done(vm);
	if (vm->request_fd >= 0)
		close(vm->request_fd);
	pthread_mutex_destroy(&vm->slots.lock);
	pthread_mutex_destroy(&vm->irq.lock);
	free(vm);
}

struct bus *vm_mmio_bus(struct vm *vm)
{
	return &vm->mmio;
}

struct bus *vm_pio_bus(struct vm *vm)
{
	return &vm->pio;
}

static int set_ioeventfd(struct vm *vm, uint64_t gpa, int fd, uint32_t flags)
{
	/* Length 0: any length matches, and the kernel need not decode the instruction. */
	struct kvm_ioeventfd ioev = { .addr = gpa, .len = 0, .fd = fd, .flags = flags };

	return ioctl(vm->fd, KVM_IOEVENTFD, &ioev) < 0 ? -errno : 0;
}

int vm_ioeventfd_add(struct vm *vm, uint64_t gpa, int fd)
{
	return set_ioeventfd(vm, gpa, fd, 0);
}

void vm_ioeventfd_del(struct vm *vm, uint64_t gpa, int fd)
{
	set_ioeventfd(vm, gpa, fd, KVM_IOEVENTFD_FLAG_DEASSIGN);
}

static void request(struct vm *vm, unsigned bits)
{
	const uint64_t one = 1;

	atomic_fetch_or(&vm->requests, bits);
	if (write(vm->request_fd, &one, sizeof(one)) < 0)
		return; /* the counter is full: the main loop is already called */
}

void vm_request_shutdown(struct vm *vm)
{
	request(vm, VM_REQUEST_SHUTDOWN);
}

void vm_request_reset(struct vm *vm)
{
	request(vm, VM_REQUEST_RESET);
}

void vm_request_failure(struct vm *vm)
{
	request(vm, VM_REQUEST_FAILURE);
}

unsigned vm_take_requests(struct vm *vm)
{
	uint64_t count;

	if (read(vm->request_fd, &count, sizeof(count)) < 0)
		return 0;
	return atomic_exchange(&vm->requests, 0);
}
