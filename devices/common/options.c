/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Option table to getopt_long() and --help. Control context, once at start; prints --help,
 * --version and --print-capabilities on standard output and mistakes on stderr. Decides nothing
 * about what options mean together: that is the program's.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "options.h"

#define MAX_OPTIONS 64
/* Beyond every character, so that no short option exists. */
#define FIRST_VALUE 256

enum { VALUE_HELP = FIRST_VALUE, VALUE_VERSION, VALUE_CAPABILITIES, VALUE_SPECS };

struct parser {
	const struct option_table *table;
	const struct option_spec *specs[MAX_OPTIONS];
	struct option longs[MAX_OPTIONS + 4];
};

static void build(struct parser *p, const struct option_table *table)
{
	static const struct option own[] = {
		{ "help", no_argument, NULL, VALUE_HELP },
		{ "version", no_argument, NULL, VALUE_VERSION },
		{ "print-capabilities", no_argument, NULL, VALUE_CAPABILITIES },
	};
	unsigned nr = 0, group, i;

	memset(p, 0, sizeof(*p));
	p->table = table;
	for (group = 0; group < table->nr_groups; group++) {
		for (i = 0; i < table->groups[group].nr && nr < MAX_OPTIONS; i++, nr++) {
			const struct option_spec *spec = &table->groups[group].specs[i];

			p->specs[nr] = spec;
			p->longs[nr].name = spec->name;
			p->longs[nr].has_arg =
				spec->kind == OPTION_FLAG ? no_argument : required_argument;
			p->longs[nr].val = VALUE_SPECS + (int)nr;
		}
	}
	memcpy(p->longs + nr, own, sizeof(own));
}

static void print_option(const char *name, const char *arg, const char *help)
{
	char left[64];

	snprintf(left, sizeof(left), "--%s%s%s", name, arg ? "=" : "", arg ? arg : "");
	if (strlen(left) > 26)
		printf("  %s\n  %-26s %s\n", left, "", help);
	else
		printf("  %-26s %s\n", left, help);
}

static int print_help(const struct option_table *table)
{
	unsigned group, i;

	printf("Usage: %s %s\n%s\n", table->program, table->usage, table->summary);
	for (group = 0; group < table->nr_groups; group++) {
		printf("\n%s:\n", table->groups[group].title);
		for (i = 0; i < table->groups[group].nr; i++) {
			const struct option_spec *spec = &table->groups[group].specs[i];

			print_option(spec->name, spec->arg, spec->help);
		}
	}
	printf("\nInformation:\n");
	print_option("print-capabilities", NULL,
		     "what this program can do, as JSON; wins over all");
	print_option("help", NULL, "this text");
	print_option("version", NULL, "the version");
	return fflush(stdout) ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int print_line(const char *text)
{
	return puts(text) < 0 || fflush(stdout) ? EXIT_FAILURE : EXIT_SUCCESS;
}

static bool set_number(const struct option_spec *spec, int base, const char *text)
{
	char *end;
	long value;

	errno = 0;
	value = strtol(text, &end, base);
	if (errno || *end || end == text || *text == ' ' || *text == '+' || value < spec->min ||
	    value > spec->max) {
		log_error(base == 8 ? "--%s: expected an octal number from %o to %o, found \"%s\""
				    : "--%s: expected a number from %d to %d, found \"%s\"",
			  spec->name, (unsigned)spec->min, (unsigned)spec->max, text);
		return false;
	}
	*(int *)spec->value = (int)value;
	return true;
}

static bool set_choice(const struct option_spec *spec, const char *text)
{
	char list[256] = "";
	size_t len = 0;
	int i;

	for (i = 0; spec->choices[i]; i++) {
		if (!strcmp(text, spec->choices[i])) {
			*(int *)spec->value = i;
			return true;
		}
		len += snprintf(list + len, sizeof(list) - len, "%s%s", i ? ", " : "",
				spec->choices[i]);
		if (len >= sizeof(list))
			break;
	}
	log_error("--%s: expected one of %s, found \"%s\"", spec->name, list, text);
	return false;
}

static bool set_size(const struct option_spec *spec, const char *text)
{
	static const char suffixes[] = "KMGT";
	unsigned long long value;
	const char *suffix;
	unsigned shift = 0;
	char *end;

	errno = 0;
	value = strtoull(text, &end, 10);
	suffix = *end ? strchr(suffixes, *end) : NULL;
	if (suffix) {
		shift = 10 * (unsigned)(suffix - suffixes + 1);
		end++;
	}
	if (errno || *end || *text < '0' || *text > '9' || !value || value > UINT64_MAX >> shift) {
		log_error("--%s: expected a size like 4096, 512K or 10G, found \"%s\"", spec->name,
			  text);
		return false;
	}
	*(uint64_t *)spec->value = (uint64_t)value << shift;
	return true;
}

static bool set_text(const struct option_spec *spec, const char *text)
{
	if (!*text) {
		log_error("--%s: expected %s, found nothing", spec->name, spec->arg);
		return false;
	}
	*(const char **)spec->value = text;
	return true;
}

static bool add_text(const struct option_spec *spec, const char *text)
{
	struct option_list *list = spec->value;

	if (!*text || list->nr == OPTION_LIST_MAX) {
		log_error("--%s: expected %s at most %d times, found %s", spec->name, spec->arg,
			  OPTION_LIST_MAX, *text ? "more" : "nothing");
		return false;
	}
	list->items[list->nr++] = text;
	return true;
}

static bool set_option(const struct option_spec *spec, const char *text)
{
	switch (spec->kind) {
	case OPTION_FLAG:
		*(bool *)spec->value = true;
		return true;
	case OPTION_TEXT:
		return set_text(spec, text);
	case OPTION_NUMBER:
		return set_number(spec, 10, text);
	case OPTION_OCTAL:
		return set_number(spec, 8, text);
	case OPTION_CHOICE:
		return set_choice(spec, text);
	case OPTION_LIST:
		return add_text(spec, text);
	case OPTION_SIZE:
		return set_size(spec, text);
	}
	return false;
}

static int usage_error(const struct option_table *table)
{
	log_error("try \"%s --help\"", table->program);
	return OPTIONS_EXIT_USAGE;
}

/* What getopt_long() answers for none of ours. @arg: the word on the command line. */
static int report_mistake(const struct parser *p, int value, const char *arg)
{
	if (value == ':')
		log_error("%s needs an argument", arg);
	else if (optopt >= FIRST_VALUE)
		log_error("%s: this option takes no argument", arg);
	else
		log_error("%s: no such option, or short for more than one", arg);
	return usage_error(p->table);
}

static bool asks_capabilities(int argc, char *const argv[])
{
	int i;

	for (i = 1; i < argc && strcmp(argv[i], "--"); i++) {
		if (!strcmp(argv[i], "--print-capabilities"))
			return true;
	}
	return false;
}

/* One option. True: go on. */
static bool take_option(const struct parser *p, int value, const char *word, int *status)
{
	switch (value) {
	case VALUE_HELP:
		*status = print_help(p->table);
		return false;
	case VALUE_VERSION:
		*status = printf("%s %s\n", p->table->program, BELFRY_VERSION) < 0;
		return false;
	case VALUE_CAPABILITIES:
		*status = print_line(p->table->capabilities);
		return false;
	case ':':
	case '?':
		*status = report_mistake(p, value, word);
		return false;
	}
	if (set_option(p->specs[value - VALUE_SPECS], optarg))
		return true;
	*status = usage_error(p->table);
	return false;
}

bool options_parse(const struct option_table *table, int argc, char *const argv[], int *status)
{
	struct parser p;
	int value;

	if (asks_capabilities(argc, argv)) {
		*status = print_line(table->capabilities);
		return false;
	}
	build(&p, table);
	optind = 0; /* glibc: start anew, whatever was parsed before */
	opterr = 0;
	while ((value = getopt_long(argc, argv, ":", p.longs, NULL)) != -1) {
		if (!take_option(&p, value, argv[optind - 1], status))
			return false;
	}
	if (optind < argc) {
		log_error("\"%s\" is left over: every setting is an option", argv[optind]);
		*status = usage_error(table);
		return false;
	}
	return true;
}

const char *options_peek(int argc, char *const argv[], const char *name)
{
	size_t len = strlen(name);
	const char *found = NULL;
	int i;

	for (i = 1; i < argc && strcmp(argv[i], "--"); i++) {
		if (strncmp(argv[i], "--", 2) || strncmp(argv[i] + 2, name, len))
			continue;
		if (argv[i][len + 2] == '=')
			found = argv[i] + len + 3;
		else if (!argv[i][len + 2] && i + 1 < argc)
			found = argv[++i];
	}
	return found;
}
