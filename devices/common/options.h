/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Command lines of back-end programs: one table of options, from which parsing and --help are made.
 *
 * --help, --version and --print-capabilities are every program's own. --print-capabilities wins
 * over everything, bad options included, as the vhost-user back-end conventions ask.
 */
#ifndef COMMON_OPTIONS_H
#define COMMON_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

/* Exit status of a command line that makes no sense. */
#define OPTIONS_EXIT_USAGE 2

/* In brackets: what option_spec.value points to. */
enum option_kind {
	OPTION_FLAG,   /* bool: given or not */
	OPTION_TEXT,   /* const char *: not empty; borrowed from argv */
	OPTION_NUMBER, /* int: decimal, min .. max */
	OPTION_OCTAL,  /* int: octal, min .. max */
	OPTION_CHOICE, /* int: index into choices */
	OPTION_LIST,   /* struct option_list: as TEXT, each time it is given */
	OPTION_SIZE,   /* uint64_t: bytes, or with a suffix K, M, G or T; not 0 */
};

#define OPTION_LIST_MAX 64

struct option_list {
	const char *items[OPTION_LIST_MAX];
	unsigned nr;
};

struct option_spec {
	const char *name; /* without "--" */
	enum option_kind kind;
	void *value; /* holds the default; written when the option is given, the last one wins */
	const char *arg; /* name of the argument in --help; NULL for a flag */
	int min, max;
	const char *const *choices; /* ends with NULL */
	const char *help;
};

struct option_group {
	const char *title;
	const struct option_spec *specs;
	unsigned nr;
};

struct option_table {
	const char *program;
	const char *usage;        /* what follows the program's name */
	const char *summary;      /* one line */
	const char *capabilities; /* JSON text */
	const struct option_group *groups;
	unsigned nr_groups;
};

/*
 * True: go on. False: leave with *@status, everything is said already.
 */
bool options_parse(const struct option_table *table, int argc, char *const argv[], int *status);

/*
 * The argument of --@name, the last one, without judging anything; NULL if there is none. For
 * capabilities that depend on an option, since nothing else of the command line counts then.
 */
const char *options_peek(int argc, char *const argv[], const char *name);

#endif
