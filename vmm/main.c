/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * belfry-vmm: a small VMM for x86-64 KVM with vhost-user devices.
 *
 * The main thread sets up and then runs the event loop: console, signals, the devices' connections,
 * and the guest's requests to power off or reset. vCPU threads only run the guest and its exits.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "boot/boot.h"
#include "virtio/kinds.h"
#include "base/event_loop.h"
#include "kvm/kvm.h"
#include "machine.h"
#include "options.h"
#include "base/report.h"
#include "stats.h"
#include "kvm/vcpu.h"
#include "kvm/vm_core.h"

struct vmm {
	struct options options;
	struct event_loop *loop;
	struct boot *boot;
	struct machine *machine;
	const struct vhost_user_kind *kinds[OPTIONS_MAX_DEVICES];
	struct vhost_user_options device_options[OPTIONS_MAX_DEVICES];
	struct vhost_user_device *devices[OPTIONS_MAX_DEVICES];
	unsigned nr_devices; /* that exist */
	int kvm_fd;
	int signal_fd;
	unsigned nr_resets;
	struct timespec created, entered; /* process start, first entry into the guest */
	bool failed;
};

static int parse_devices(struct vmm *v)
{
	char err[320];
	unsigned i;

	for (i = 0; i < v->options.nr_devices; i++) {
		const char *spec = v->options.devices[i];

		if (kinds_parse(spec, &v->kinds[i], &v->device_options[i], err, sizeof(err))) {
			report("--device %s: %s", spec, err);
			return -EINVAL;
		}
	}
	return 0;
}

static int create_devices(struct vmm *v)
{
	struct vm *vm = machine_vm(v->machine);
	int rc;

	for (; v->nr_devices < v->options.nr_devices; v->nr_devices++) {
		unsigned i = v->nr_devices;

		rc = vhost_user_device_new(vm, machine_pci(v->machine), v->loop, v->kinds[i],
					   &v->device_options[i], &v->devices[i]);
		if (rc)
			return rc;
	}
	return 0;
}

static json_t *vcpu_stats(const struct vmm *v)
{
	json_t *array = json_array();
	unsigned i;

	for (i = 0; i < machine_nr_cpus(v->machine); i++) {
		json_t *one = stats_of_kvm_fd(vcpu_stats_fd(machine_vcpu(v->machine, i)));

		json_array_append_new(array, one ? one : json_null());
	}
	return array;
}

static json_t *device_stats(const struct vmm *v)
{
	json_t *array = json_array();
	unsigned i;

	for (i = 0; i < v->nr_devices; i++)
		json_array_append_new(array, vhost_user_device_stats(v->devices[i]));
	return array;
}

static json_int_t microseconds_between(const struct timespec *a, const struct timespec *b)
{
	return (json_int_t)(b->tv_sec - a->tv_sec) * 1000000 + (b->tv_nsec - a->tv_nsec) / 1000;
}

static int write_stats(const struct vmm *v)
{
	const struct vm *vm = machine_vm(v->machine);
	json_t *vm_counters, *root;
	int rc;

	if (!v->options.stats)
		return 0;
	vm_counters = stats_of_vm(vm);
	root = json_object();
	json_object_set_new(root, "vcpus", vcpu_stats(v));
	json_object_set_new(root, "vm", vm_counters ? vm_counters : json_null());
	json_object_set_new(root, "memory", stats_of_memory(vm));
	json_object_set_new(root, "devices", device_stats(v));
	json_object_set_new(root, "start",
			    json_pack("{s:I,s:I}", "guest_entered_us",
				      microseconds_between(&v->created, &v->entered), "resets",
				      (json_int_t)v->nr_resets));
	rc = stats_write(v->options.stats, root);
	json_decref(root);
	return rc;
}

static void on_quit(void *opaque)
{
	struct vmm *v = opaque;

	event_loop_quit(v->loop);
}

static void on_signal(void *opaque, uint32_t events)
{
	struct vmm *v = opaque;
	struct signalfd_siginfo info;

	(void)events;
	if (read(v->signal_fd, &info, sizeof(info)) != sizeof(info))
		return;
	if (info.ssi_signo == SIGUSR1)
		write_stats(v);
	else
		event_loop_quit(v->loop);
}

/*
 * A vCPU may be waiting for a device whose new back end does not answer; it must be able to end.
 */
static void stop_machine(struct vmm *v)
{
	unsigned i;

	for (i = 0; i < v->nr_devices; i++)
		vhost_user_device_interrupt(v->devices[i]);
	machine_stop(v->machine);
}

/*
 * On a vCPU's thread: the guest touched a page that is in its map and not there any more. Only a
 * doorbell can be that, a page of hardware that was unplugged or switched off.
 */
static bool on_fault(void *opaque)
{
	struct vmm *v = opaque;
	unsigned i, nr = 0;

	for (i = 0; i < v->nr_devices; i++)
		nr += vhost_user_device_withdraw(v->devices[i], "a doorbell page has vanished");
	return nr > 0;
}

static int reset(struct vmm *v)
{
	unsigned i;
	int rc = machine_reset(v->machine);

	for (i = 0; i < v->nr_devices; i++)
		vhost_user_device_reset(v->devices[i]);
	v->nr_resets++;
	return rc ? rc : machine_start(v->machine, v->boot);
}

/*
 * When several came together, the guest gets the more final one. It runs on until it is stopped, and
 * Linux asks for a reset several times: what comes meanwhile is not for the guest that is booted next.
 */
static void on_request(void *opaque, uint32_t events)
{
	struct vmm *v = opaque;
	unsigned requests = vm_take_requests(machine_vm(v->machine));

	(void)events;
	if (requests) {
		stop_machine(v);
		requests |= vm_take_requests(machine_vm(v->machine));
	}
	if (requests & VM_REQUEST_FAILURE)
		v->failed = true;
	if ((requests & VM_REQUEST_RESET) && !(requests & ~(unsigned)VM_REQUEST_RESET) &&
	    !v->options.no_reboot) {
		v->failed = reset(v) != 0;
		if (!v->failed)
			return;
	}
	if (requests)
		event_loop_quit(v->loop);
}

/* All signals that mean something come through the loop; every thread started later inherits it. */
static int open_signals(struct vmm *v)
{
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	v->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return v->signal_fd < 0 ? -errno : 0;
}

static int open_loop(struct vmm *v)
{
	int rc = event_loop_new(&v->loop);

	if (!rc)
		rc = open_signals(v);
	if (!rc)
		rc = event_loop_add(v->loop, v->signal_fd, EPOLLIN, on_signal, v);
	if (rc)
		report("cannot set up the event loop: %s", strerror(-rc));
	return rc;
}

static int build(struct vmm *v)
{
	const struct machine_config config = {
		.memory = v->options.memory,
		.hugepages = v->options.hugepages,
		.nr_cpus = v->options.nr_cpus,
	};
	int rc = boot_open(v->options.kernel, v->options.initrd, v->options.cmdline, &v->boot);

	if (!rc)
		rc = kvm_open(&v->kvm_fd);
	if (!rc)
		rc = machine_new(v->kvm_fd, &config, &v->machine);
	if (!rc)
		rc = create_devices(v);
	if (!rc)
		vm_on_fault(machine_vm(v->machine), on_fault, v);
	if (!rc)
		rc = machine_open_console(v->machine, v->loop, on_quit, v);
	if (!rc)
		rc = event_loop_add(v->loop, machine_vm(v->machine)->request_fd, EPOLLIN,
				    on_request, v);
	return rc;
}

static int run(struct vmm *v)
{
	int rc = machine_start(v->machine, v->boot);

	if (rc)
		return rc;
	clock_gettime(CLOCK_MONOTONIC, &v->entered);
	rc = event_loop_run(v->loop);
	stop_machine(v);
	if (!rc)
		rc = v->failed ? -EIO : 0;
	return write_stats(v) ? -EIO : rc;
}

static void tear_down(struct vmm *v)
{
	if (v->machine)
		stop_machine(v);
	while (v->nr_devices)
		vhost_user_device_free(v->devices[--v->nr_devices]);
	machine_free(v->machine);
	boot_close(v->boot);
	if (v->kvm_fd >= 0)
		close(v->kvm_fd);
	if (v->signal_fd >= 0)
		close(v->signal_fd);
	event_loop_free(v->loop);
}

int main(int argc, char **argv)
{
	static struct vmm v = { .kvm_fd = -1, .signal_fd = -1 };
	int rc;

	clock_gettime(CLOCK_MONOTONIC, &v.created);
	switch (options_parse(argc, argv, &v.options)) {
	case OPTIONS_DONE:
		return EXIT_SUCCESS;
	case OPTIONS_BAD:
		return 2;
	case OPTIONS_RUN:
		break;
	}
	if (parse_devices(&v))
		return 2;
	rc = open_loop(&v);
	if (!rc)
		rc = build(&v);
	if (!rc)
		rc = run(&v);
	tear_down(&v);
	return rc ? EXIT_FAILURE : EXIT_SUCCESS;
}
