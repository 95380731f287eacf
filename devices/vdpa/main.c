/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * belfry-vdpa: a virtio device on the PCI bus, given to a virtual machine over vhost-user. Command
 * line and order of set-up; control context. What is wrong with the device is found out before the
 * socket exists.
 */
#include <stdio.h>
#include <stdlib.h>

#include "devices/common/log.h"
#include "devices/common/program.h"
#include "kind.h"
#include "sysfs.h"
#include "vdpa.h"

struct vdpa_options {
	const char *device;
	bool offer_config;
};

/* Of the device that is named, if it can be looked at; net is what most are. */
static const char *capabilities(const char *device, char *text, size_t size)
{
	struct sysfs_device seen;
	char bdf[VFIO_BDF_LEN];
	const char *type = NULL;

	if (device && !vfio_bdf_parse(device, bdf) && !sysfs_read_device(SYSFS, bdf, &seen))
		type = kind_name(sysfs_virtio_type(&seen));
	snprintf(text, size, "{\"type\": \"%s\", \"features\": []}", type ? type : "net");
	return text;
}

static bool parse(int argc, char *argv[], struct program_options *common, struct vdpa_options *opt,
		  int *status)
{
	char text[80];
	struct option_spec common_specs[PROGRAM_NR_OPTIONS];
	const struct option_spec specs[] = {
		{ .name = "device",
		  .kind = OPTION_TEXT,
		  .value = &opt->device,
		  .arg = "BDF",
		  .help = "PCI address of the virtio device, bound to vfio-pci (required)" },
		{ .name = "offer-config",
		  .kind = OPTION_FLAG,
		  .value = &opt->offer_config,
		  .help = "net: offer the configuration space too, for link state (QEMU 7.1 to 8.0 "
			  "crash on it)" },
	};
	const struct option_group groups[] = {
		{ "Connection", common_specs, PROGRAM_NR_OPTIONS },
		{ "Device", specs, sizeof(specs) / sizeof(specs[0]) },
	};
	const struct option_table table = {
		.program = "belfry-vdpa",
		.usage = "{--socket-path=PATH [--client] | --fd=FDNUM} --device=BDF [OPTION]...",
		.summary = "Give a virtio PCI device to a virtual machine over vhost-user.",
		.capabilities = capabilities(options_peek(argc, argv, "device"), text, sizeof(text)),
		.groups = groups,
		.nr_groups = 2,
	};

	program_options(common, common_specs);
	return options_parse(&table, argc, argv, status);
}

static int check(const struct vdpa_options *opt, char bdf[VFIO_BDF_LEN])
{
	if (!opt->device) {
		log_error("expected --device=BDF with the PCI address of the device, found none; "
			  "'lspci -D -d 1af4:' lists virtio devices");
		return OPTIONS_EXIT_USAGE;
	}
	if (vfio_bdf_parse(opt->device, bdf)) {
		log_error("--device=%s: expected a PCI address such as 0000:01:00.0 or 01:00.0",
			  opt->device);
		return OPTIONS_EXIT_USAGE;
	}
	return 0;
}

static int serve(const struct program_options *common, const struct vdpa_config *config)
{
	struct program program;
	struct vdpa *vdpa;
	int status;

	if (vdpa_new(config, &vdpa))
		return EXIT_FAILURE;
	program = (struct program){ .opt = common,
				    .be = vdpa_backend(vdpa),
				    .stats = vdpa_stats,
				    .device_event = vdpa_event,
				    .device_fd = vdpa_event_fd(vdpa),
				    .opaque = vdpa };
	status = program_run(&program);
	vdpa_free(vdpa);
	return status;
}

int main(int argc, char *argv[])
{
	struct program_options common = PROGRAM_OPTIONS_DEFAULT;
	struct vdpa_options opt = { 0 };
	struct vdpa_config config;
	char bdf[VFIO_BDF_LEN];
	int status;

	program_start("belfry-vdpa");
	if (!parse(argc, argv, &common, &opt, &status))
		return status;
	status = program_check(&common);
	if (!status)
		status = check(&opt, bdf);
	if (status)
		return status;
	config = (struct vdpa_config){ .bdf = bdf, .offer_config = opt.offer_config };
	return serve(&common, &config);
}
