/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * belfry-blk: a raw disk image as a vhost-user device. Command line and order of set-up; all of it
 * control context. Whatever can be found out to be wrong is found out before the socket exists.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"
#include "devices/common/log.h"
#include "devices/common/postcopy.h"
#include "devices/common/program.h"
#include "image.h"

#define MIN_QUEUE_SIZE 4
#define MAX_QUEUE_SIZE 32768

struct blk_options {
	const char *blk_file;
	uint64_t null_size; /* 0: there is a file */
	const char *serial;
	bool read_only;
	int locking; /* 0 on, 1 off */
	int num_queues;
	int num_threads; /* 0: one for each queue */
	int queue_size;
	int notify; /* enum worker_mode */
	int io;     /* enum blk_io_kind */
	bool postcopy;
};

static const char *const locking_words[] = { "on", "off", NULL };
static const char *const notify_words[] = {
	[WORKER_EVENTFD] = "eventfd",
	[WORKER_DOORBELL] = "doorbell",
	[WORKER_POLL] = "poll",
	NULL,
};
static const char *const io_words[] = { "auto", "uring", "threads", NULL };

static bool parse(int argc, char *argv[], struct program_options *common, struct blk_options *opt,
		  int *status)
{
	struct option_spec common_specs[PROGRAM_NR_OPTIONS];
	const struct option_spec specs[] = {
		{ .name = "blk-file",
		  .kind = OPTION_TEXT,
		  .value = &opt->blk_file,
		  .arg = "PATH",
		  .help = "raw image file or block device" },
		{ .name = "null",
		  .kind = OPTION_SIZE,
		  .value = &opt->null_size,
		  .arg = "SIZE",
		  .help = "no file: a disk of this size that keeps nothing, for measuring" },
		{ .name = "locking",
		  .kind = OPTION_CHOICE,
		  .value = &opt->locking,
		  .arg = "HOW",
		  .choices = locking_words,
		  .help = "on (default): refuse an image that another program writes; off: share it, "
			  "for a live migration" },
		{ .name = "read-only",
		  .kind = OPTION_FLAG,
		  .value = &opt->read_only,
		  .help = "open the image for reading, and say so to the guest" },
		{ .name = "serial",
		  .kind = OPTION_TEXT,
		  .value = &opt->serial,
		  .arg = "ID",
		  .help = "up to 20 bytes of identity (name of the image)" },
		{ .name = "num-queues",
		  .kind = OPTION_NUMBER,
		  .value = &opt->num_queues,
		  .arg = "N",
		  .min = 1,
		  .max = BF_MAX_QUEUES,
		  .help = "queues (1)" },
		{ .name = "num-threads",
		  .kind = OPTION_NUMBER,
		  .value = &opt->num_threads,
		  .arg = "N",
		  .min = 1,
		  .max = BF_MAX_QUEUES,
		  .help = "threads that share the queues (one for each queue)" },
		{ .name = "queue-size",
		  .kind = OPTION_NUMBER,
		  .value = &opt->queue_size,
		  .arg = "N",
		  .min = MIN_QUEUE_SIZE,
		  .max = MAX_QUEUE_SIZE,
		  .help = "most entries of a queue, a power of two (256)" },
		{ .name = "notify",
		  .kind = OPTION_CHOICE,
		  .value = &opt->notify,
		  .arg = "HOW",
		  .choices = notify_words,
		  .help = "eventfd: sleep until kicked (default); doorbell: give the guest a page "
			  "per queue and poll it; poll: watch the rings" },
		{ .name = "io",
		  .kind = OPTION_CHOICE,
		  .value = &opt->io,
		  .arg = "ENGINE",
		  .choices = io_words,
		  .help = "auto (default), uring or threads" },
		postcopy_option(&opt->postcopy),
	};
	const struct option_group groups[] = {
		{ "Connection", common_specs, PROGRAM_NR_OPTIONS },
		{ "Disk", specs, sizeof(specs) / sizeof(specs[0]) },
	};
	const struct option_table table = {
		.program = "belfry-blk",
		.usage = "{--socket-path=PATH [--client] | --fd=FDNUM} {--blk-file=PATH | "
			 "--null=SIZE} [OPTION]...",
		.summary = "Serve a raw disk image to a virtual machine over vhost-user.",
		.capabilities =
			"{\"type\": \"block\", \"features\": [\"read-only\", \"blk-file\"]}",
		.groups = groups,
		.nr_groups = 2,
	};

	program_options(common, common_specs);
	return options_parse(&table, argc, argv, status);
}

static int check(struct blk_options *opt)
{
	if (!opt->blk_file == !opt->null_size) {
		log_error("expected --blk-file=PATH with the disk image, or --null=SIZE for none; "
			  "found %s",
			  opt->blk_file ? "both" : "neither");
		return OPTIONS_EXIT_USAGE;
	}
	if (opt->queue_size & (opt->queue_size - 1)) {
		log_error("--queue-size: expected a power of two, found %d", opt->queue_size);
		return OPTIONS_EXIT_USAGE;
	}
	if (opt->serial && strlen(opt->serial) > BLK_ID_SIZE) {
		log_error("--serial: expected at most %d bytes, found %zu", BLK_ID_SIZE,
			  strlen(opt->serial));
		return OPTIONS_EXIT_USAGE;
	}
	if (!opt->serial) {
		const char *path = opt->blk_file ? opt->blk_file : "null";
		const char *slash = strrchr(path, '/');

		opt->serial = slash ? slash + 1 : path;
	}
	return 0;
}

/* Does the engine that was asked for work at all? Otherwise it would only show at the first start.
 */
static int check_engine(enum blk_io_kind kind, int image_fd)
{
	struct blk_io *io;
	int ret = blk_io_new(kind, image_fd, MIN_QUEUE_SIZE, &io);

	if (ret) {
		log_error("--io=%s: cannot be used: %s; --io=threads always works", io_words[kind],
			  strerror(-ret));
		return ret;
	}
	log_debug("I/O by %s", blk_io_name(io));
	blk_io_free(io);
	return 0;
}

static int serve(const struct program_options *common, const struct blk_options *opt,
		 const struct blk_image *image)
{
	const struct blk_device_config config = {
		.image = image,
		.serial = opt->serial,
		.nr_queues = (unsigned)opt->num_queues,
		.queue_size = (uint16_t)opt->queue_size,
		.nr_threads = (unsigned)(opt->num_threads ? opt->num_threads : opt->num_queues),
		.notify = (enum worker_mode)opt->notify,
		.io_kind = (enum blk_io_kind)opt->io,
		.postcopy = opt->postcopy,
	};
	struct blk_device *device;
	struct program program;
	int status;

	if (image->fd >= 0 && check_engine(config.io_kind, image->fd))
		return EXIT_FAILURE;
	if (blk_device_new(&config, &device))
		return EXIT_FAILURE;
	program = (struct program){ .opt = common,
				    .be = blk_device_backend(device),
				    .stats = blk_device_stats,
				    .device_fd = -1,
				    .postcopy = opt->postcopy,
				    .opaque = device };
	status = program_run(&program);
	blk_device_free(device);
	return status;
}

static int open_image(const struct blk_options *opt, struct blk_image *image)
{
	if (opt->null_size)
		return blk_image_null(image, opt->null_size, opt->read_only);
	return blk_image_open(image, opt->blk_file, opt->read_only, opt->locking == 0);
}

int main(int argc, char *argv[])
{
	struct program_options common = PROGRAM_OPTIONS_DEFAULT;
	struct blk_options opt = { .num_queues = 1, .queue_size = 256 };
	struct blk_image image = BLK_IMAGE_NONE;
	int status;

	program_start("belfry-blk");
	if (!parse(argc, argv, &common, &opt, &status))
		return status;
	status = program_check(&common);
	if (!status)
		status = check(&opt);
	if (!status)
		status = postcopy_check(opt.postcopy);
	if (status)
		return status;
	if (open_image(&opt, &image))
		return EXIT_FAILURE;
	status = serve(&common, &opt, &image);
	blk_image_close(&image);
	return status;
}
