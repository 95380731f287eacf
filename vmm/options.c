/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One table of options: it parses the command line and prints --help. Main thread, at start.
 * Checks what can be checked without opening anything.
 */
#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/report.h"
#include "kvm/vm.h"

#define DEFAULT_MEMORY  (512ull << 20)
#define DEFAULT_CMDLINE "console=ttyS0"
#define MIN_MEMORY      (16ull << 20)
#define MEMORY_GRANULE  (2ull << 20)
#define MAX_MEMORY      (VM_MMIO64_BASE - VM_HIGH_RAM + VM_MMIO32_BASE)

/* Each returns 0, or -EINVAL after saying why. @arg is NULL for options without an argument. */
typedef int set_fn(struct options *o, const char *arg);

static int set_kernel(struct options *o, const char *arg)
{
	o->kernel = arg;
	return 0;
}

static int set_initrd(struct options *o, const char *arg)
{
	o->initrd = arg;
	return 0;
}

static int set_cmdline(struct options *o, const char *arg)
{
	o->cmdline = arg;
	return 0;
}

static int parse_size(const char *arg, uint64_t *size)
{
	static const char suffixes[] = "KMG";
	const char *suffix;
	unsigned shift = 0;
	uint64_t value;
	char *end;

	if (*arg < '0' || *arg > '9')
		return -EINVAL;
	errno = 0;
	value = strtoull(arg, &end, 10);
	if (errno)
		return -EINVAL;
	if (*end) {
		suffix = strchr(suffixes, *end & ~0x20);
		if (!suffix || !*suffix || end[1])
			return -EINVAL;
		shift = 10 * (unsigned)(suffix - suffixes + 1);
	}
	if (value > UINT64_MAX >> shift)
		return -EINVAL;
	*size = value << shift;
	return 0;
}

static int set_memory(struct options *o, const char *arg)
{
	uint64_t size;

	if (parse_size(arg, &size)) {
		report("--memory %s: expected a number with K, M or G, for example 512M", arg);
		return -EINVAL;
	}
	if (size < MIN_MEMORY || size > MAX_MEMORY || size % MEMORY_GRANULE) {
		report("--memory %s: expected a multiple of 2M from %lluM to %lluG", arg,
		       MIN_MEMORY >> 20, MAX_MEMORY >> 30);
		return -EINVAL;
	}
	o->memory = size;
	return 0;
}

static int set_hugepages(struct options *o, const char *arg)
{
	(void)arg;
	o->hugepages = true;
	return 0;
}

static int set_cpus(struct options *o, const char *arg)
{
	uint64_t n;

	if (parse_size(arg, &n) || n < 1 || n > OPTIONS_MAX_CPUS) {
		report("--cpus %s: expected a number from 1 to %u", arg, OPTIONS_MAX_CPUS);
		return -EINVAL;
	}
	o->nr_cpus = (unsigned)n;
	return 0;
}

static int set_device(struct options *o, const char *arg)
{
	if (o->nr_devices == OPTIONS_MAX_DEVICES) {
		report("--device %s: the PCI bus has room for %u devices", arg,
		       OPTIONS_MAX_DEVICES);
		return -EINVAL;
	}
	o->devices[o->nr_devices++] = arg;
	return 0;
}

static int set_stats(struct options *o, const char *arg)
{
	o->stats = arg;
	return 0;
}

static int set_no_reboot(struct options *o, const char *arg)
{
	(void)arg;
	o->no_reboot = true;
	return 0;
}

static const struct {
	const char *name;
	const char *arg; /* its name in --help, or NULL */
	const char *help;
	set_fn *set; /* NULL: --help and --version, served at once */
} table[] = {
	{ "kernel", "FILE", "Linux bzImage to boot (required)", set_kernel },
	{ "initrd", "FILE", "initial RAM disk", set_initrd },
	{ "cmdline", "STRING", "kernel command line (default: " DEFAULT_CMDLINE ")", set_cmdline },
	{ "memory", "SIZE", "guest memory, with K, M or G (default: 512M)", set_memory },
	{ "hugepages", NULL, "take guest memory from huge pages of 2 MiB", set_hugepages },
	{ "cpus", "N", "virtual processors (default: 1)", set_cpus },
	{ "device", "SPEC",
	  "add a device; repeatable:\n"
	  "blk,socket=PATH[,num-queues=N]\n"
	  "net,socket=PATH[,queues=N][,mac=MAC][,mtu=N]\n"
	  "and of either kind:\n"
	  "[,queue-size=N][,notify=auto|eventfd][,reconnect=on|off][,server=on|off]",
	  set_device },
	{ "stats", "FILE", "write statistics as JSON at exit and on SIGUSR1", set_stats },
	{ "no-reboot", NULL, "exit when the guest reboots", set_no_reboot },
	{ "help", NULL, "show this help", NULL },
	{ "version", NULL, "show the version", NULL },
};

#define NR_OPTIONS (sizeof(table) / sizeof(table[0]))

static void print_help(void)
{
	const char *line, *eol;
	char left[32];
	size_t i;

	printf("Usage: belfry-vmm --kernel FILE [OPTION]...\n"
	       "Boot a Linux guest with vhost-user devices.\n\n");
	for (i = 0; i < NR_OPTIONS; i++) {
		snprintf(left, sizeof(left), "--%s%s%s", table[i].name, table[i].arg ? " " : "",
			 table[i].arg ? table[i].arg : "");
		for (line = table[i].help; line; line = eol ? eol + 1 : NULL, left[0] = '\0') {
			eol = strchr(line, '\n');
			printf("  %-18s %.*s\n", left, eol ? (int)(eol - line) : (int)strlen(line),
			       line);
		}
	}
	printf("\nThe console is on stdin and stdout; on a terminal, Ctrl-A x quits.\n"
	       "Exit status: 0 the guest powered off, 1 failure, 2 wrong usage.\n");
}

static void fill_getopt(struct option *long_options)
{
	size_t i;

	for (i = 0; i < NR_OPTIONS; i++)
		long_options[i] = (struct option){
			.name = table[i].name,
			.has_arg = table[i].arg ? required_argument : no_argument,
		};
	long_options[NR_OPTIONS] = (struct option){ .name = NULL };
}

static enum options_result serve_info(const char *name)
{
	if (!strcmp(name, "help"))
		print_help();
	else
		printf("belfry-vmm %s\n", BELFRY_VERSION);
	return fflush(stdout) ? OPTIONS_BAD : OPTIONS_DONE;
}

static enum options_result check(int argc, char **argv, const struct options *o)
{
	if (optind < argc) {
		report("unexpected argument '%s'; see belfry-vmm --help", argv[optind]);
		return OPTIONS_BAD;
	}
	if (!o->kernel) {
		report("--kernel FILE is required; see belfry-vmm --help");
		return OPTIONS_BAD;
	}
	return OPTIONS_RUN;
}

enum options_result options_parse(int argc, char **argv, struct options *options)
{
	struct option long_options[NR_OPTIONS + 1];
	struct options o = {
		.cmdline = DEFAULT_CMDLINE,
		.memory = DEFAULT_MEMORY,
		.nr_cpus = 1,
	};
	enum options_result result;
	int at, c;

	fill_getopt(long_options);
	opterr = 0;
	/* The leading colon tells a missing argument from an unknown option. */
	while ((c = getopt_long(argc, argv, ":", long_options, &at)) != -1) {
		if (c == ':') {
			report("%s needs an argument; see belfry-vmm --help", argv[optind - 1]);
			return OPTIONS_BAD;
		}
		if (c == '?') {
			report("unknown option or argument not allowed: '%s'; see belfry-vmm --help",
			       argv[optind - 1]);
			return OPTIONS_BAD;
		}
		if (!table[at].set)
			return serve_info(table[at].name);
		if (table[at].set(&o, optarg))
			return OPTIONS_BAD;
	}
	result = check(argc, argv, &o);
	if (result == OPTIONS_RUN)
		*options = o;
	return result;
}
