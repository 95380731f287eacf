/* SPDX-License-Identifier: BSD-3-Clause */
/* The command line of belfry-vmm: what is taken, and that every refusal names the culprit. */
#include "unit/support.h"

#include <getopt.h>

#include "vmm/options.h"
#include "vmm/base/report.h"

static char said[1024];

void report(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(said, sizeof(said), fmt, ap);
	va_end(ap);
}

static enum options_result parse(struct options *o, char *const *args)
{
	char *argv[80] = { (char *)(uintptr_t) "belfry-vmm" };
	int argc = 1;

	while (*args)
		argv[argc++] = *args++;
	optind = 0; /* a new scan */
	said[0] = '\0';
	return options_parse(argc, argv, o);
}

#define ARGS(...) ((char *[]){ __VA_ARGS__, NULL })
#define S(x)      ((char *)(uintptr_t)(x))

static void defaults_and_values(void **state)
{
	struct options o = { .kernel = NULL };

	(void)state;
	assert_int_equal(parse(&o, ARGS(S("--kernel"), S("k"))), OPTIONS_RUN);
	assert_string_equal(o.kernel, "k");
	assert_null(o.initrd);
	assert_true(o.memory == 512ull << 20);
	assert_int_equal(o.nr_cpus, 1);
	assert_int_equal(o.nr_devices, 0);
	assert_int_equal(
		parse(&o, ARGS(S("--kernel=k"), S("--initrd=i"), S("--memory=6g"), S("--cpus=4"),
			       S("--device"), S("blk,socket=a"), S("--device"), S("blk,socket=b"),
			       S("--no-reboot"), S("--hugepages"), S("--stats"), S("s"))),
		OPTIONS_RUN);
	assert_true(o.memory == 6ull << 30);
	assert_int_equal(o.nr_cpus, 4);
	assert_int_equal(o.nr_devices, 2);
	assert_string_equal(o.devices[1], "blk,socket=b");
	assert_true(o.no_reboot && o.hugepages);
	assert_string_equal(o.stats, "s");
}

static void refuses(const char *option, const char *arg, const char *named)
{
	struct options o = { .kernel = "untouched" };

	assert_int_equal(parse(&o, ARGS(S("--kernel"), S("k"), S(option), S(arg))), OPTIONS_BAD);
	assert_non_null(strstr(said, named));
	assert_string_equal(o.kernel, "untouched");
}

static void bad_values_are_named(void **state)
{
	static const char *const sizes[] = { "",
					     "0",
					     "x",
					     "-1M",
					     "1",
					     "15M",
					     "513K",
					     "1T",
					     "3M",
					     "1GG",
					     "99999999999999999999",
					     "17179869184G",
					     "300G" };
	static const char *const cpus[] = { "", "0", "-1", "255", "1K", "two", "4294967297" };
	unsigned i;

	(void)state;
	for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		refuses("--memory", sizes[i], "--memory");
	for (i = 0; i < sizeof(cpus) / sizeof(cpus[0]); i++)
		refuses("--cpus", cpus[i], "--cpus");
}

static void bad_options_are_named(void **state)
{
	struct options o = { .kernel = NULL };

	(void)state;
	refuses("--frob", "x", "--frob");
	refuses("left", "over", "left");
	refuses("-k", "x", "-k");
	refuses("--hugepages=1", "x", "--hugepages=1");
	assert_int_equal(parse(&o, ARGS(S("--kernel"))), OPTIONS_BAD);
	assert_non_null(strstr(said, "--kernel needs an argument"));
	assert_int_equal(parse(&o, ARGS(S("--cpus"), S("2"))), OPTIONS_BAD);
	assert_non_null(strstr(said, "--kernel"));
}

static void there_is_an_end_to_devices(void **state)
{
	char *args[2 * OPTIONS_MAX_DEVICES + 5];
	struct options o = { .kernel = NULL };
	unsigned i, n = 0;

	(void)state;
	args[n++] = S("--kernel=k");
	for (i = 0; i < OPTIONS_MAX_DEVICES; i++) {
		args[n++] = S("--device");
		args[n++] = S("blk,socket=s");
	}
	args[n] = NULL;
	assert_int_equal(parse(&o, args), OPTIONS_RUN);
	assert_int_equal(o.nr_devices, OPTIONS_MAX_DEVICES);
	args[n++] = S("--device=one-too-many");
	args[n] = NULL;
	assert_int_equal(parse(&o, args), OPTIONS_BAD);
	assert_non_null(strstr(said, "one-too-many"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults_and_values),
		cmocka_unit_test(bad_values_are_named),
		cmocka_unit_test(bad_options_are_named),
		cmocka_unit_test(there_is_an_end_to_devices),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
