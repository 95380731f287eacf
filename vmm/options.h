/* SPDX-License-Identifier: BSD-3-Clause */
/* The command line of belfry-vmm. */
#ifndef VMM_OPTIONS_H
#define VMM_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#define OPTIONS_MAX_DEVICES 31  /* slots of the PCI bus beside the host bridge */
#define OPTIONS_MAX_CPUS    254 /* 8-bit APIC ids, without the broadcast and the IOAPIC's */

/* All strings are borrowed from argv. */
struct options {
	const char *kernel;
	const char *initrd; /* or NULL */
	const char *cmdline;
	uint64_t memory; /* bytes */
	bool hugepages;
	unsigned nr_cpus;
	const char *devices[OPTIONS_MAX_DEVICES];
	unsigned nr_devices;
	const char *stats; /* or NULL */
	bool no_reboot;
};

enum options_result {
	OPTIONS_RUN,
	OPTIONS_DONE, /* --help or --version has been served: exit 0 */
	OPTIONS_BAD,  /* it has been said what is wrong: exit 2 */
};

enum options_result options_parse(int argc, char **argv, struct options *options);

#endif
