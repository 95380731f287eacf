/* SPDX-License-Identifier: BSD-3-Clause */
/* The option table: every kind of option, every kind of mistake, and what is printed where. */
#include "../support.h"

#include <stdbool.h>

#include "devices/common/log.h"
#include "devices/common/options.h"

static const char *const colours[] = { "red", "green", NULL };

struct values {
	bool flag;
	const char *text;
	int number, mode, colour;
	uint64_t size;
	bool go_on;
	int status;
	char out[4096], err[4096];
};

static void slurp(int fd, char *text, size_t len)
{
	ssize_t nr;

	lseek(fd, 0, SEEK_SET);
	nr = read(fd, text, len - 1);
	assert_true(nr >= 0);
	text[nr] = '\0';
	close(fd);
}

/* Standard output and stderr go to files meanwhile. */
static void run(struct values *v, char *argv[])
{
	const struct option_spec specs[] = {
		{ .name = "flag", .kind = OPTION_FLAG, .value = &v->flag, .help = "a flag" },
		{ .name = "text", .kind = OPTION_TEXT, .value = &v->text, .arg = "WORD" },
		{ .name = "number",
		  .kind = OPTION_NUMBER,
		  .value = &v->number,
		  .arg = "N",
		  .min = 1,
		  .max = 256,
		  .help = "a number" },
		{ .name = "mode",
		  .kind = OPTION_OCTAL,
		  .value = &v->mode,
		  .arg = "M",
		  .max = 0777,
		  .help = "a mode" },
		{ .name = "colour",
		  .kind = OPTION_CHOICE,
		  .value = &v->colour,
		  .arg = "C",
		  .choices = colours,
		  .help = "a colour" },
		{ .name = "size",
		  .kind = OPTION_SIZE,
		  .value = &v->size,
		  .arg = "SIZE",
		  .help = "a size" },
	};
	const struct option_group group = { "Things", specs, 6 };
	const struct option_table table = { .program = "prog",
					    .usage = "[OPTION]...",
					    .summary = "Does things.",
					    .capabilities = "{\"type\": \"x\"}",
					    .groups = &group,
					    .nr_groups = 1 };
	int saved_out = dup(1), saved_err = dup(2);
	int out = make_memfd("out", 0, 0), err = make_memfd("err", 0, 0);
	int argc = 0;

	memset(v, 0, sizeof(*v));
	v->status = -1;
	while (argv[argc])
		argc++;
	fflush(stdout);
	dup2(out, 1);
	dup2(err, 2);
	v->go_on = options_parse(&table, argc, argv, &v->status);
	fflush(stdout);
	dup2(saved_out, 1);
	dup2(saved_err, 2);
	close(saved_out);
	close(saved_err);
	slurp(out, v->out, sizeof(v->out));
	slurp(err, v->err, sizeof(v->err));
}

#define RUN(v, ...) run((v), (char *[]){ (char *)"prog", ##__VA_ARGS__, NULL })

static void test_good(void **state)
{
	struct values v;

	(void)state;
	RUN(&v, (char *)"--flag", (char *)"--text=a=b", (char *)"--number", (char *)"256",
	    (char *)"--mode=660", (char *)"--colour=green");
	assert_true(v.go_on);
	assert_true(v.flag);
	assert_string_equal(v.text, "a=b");
	assert_int_equal(v.number, 256);
	assert_int_equal(v.mode, 0660);
	assert_int_equal(v.colour, 1);
	assert_string_equal(v.out, "");
	assert_string_equal(v.err, "");
	RUN(&v);
	assert_true(v.go_on);
	RUN(&v, (char *)"--size=4096");
	assert_int_equal(v.size, 4096);
	RUN(&v, (char *)"--size=3K");
	assert_int_equal(v.size, 3 << 10);
	RUN(&v, (char *)"--size=5G");
	assert_int_equal(v.size, 5ull << 30);
	RUN(&v, (char *)"--size=16777215T");
	assert_int_equal(v.size, 16777215ull << 40);
}

static void test_mistakes(void **state)
{
	static const struct {
		const char *word, *said;
	} table[] = {
		{ "--nothing", "--nothing: no such option" },
		{ "-x", "no such option" },
		{ "--flag=1", "takes no argument" },
		{ "--text", "needs an argument" },
		{ "--text=", "expected WORD, found nothing" },
		{ "--number=0", "from 1 to 256, found \"0\"" },
		{ "--number=257", "found \"257\"" },
		{ "--number=4294967297", "found \"4294967297\"" },
		{ "--number=99999999999999999999", "found \"99999999999999999999\"" },
		{ "--number=-1", "found \"-1\"" },
		{ "--number=1x", "found \"1x\"" },
		{ "--number= 1", "found \" 1\"" },
		{ "--number=", "found \"\"" },
		{ "--mode=8", "octal number from 0 to 777, found \"8\"" },
		{ "--mode=1000", "octal number" },
		{ "--size=0", "expected a size like 4096, 512K or 10G, found \"0\"" },
		{ "--size=-1", "expected a size" },
		{ "--size=1KB", "expected a size" },
		{ "--size=1k", "expected a size" },
		{ "--size=K", "expected a size" },
		{ "--size=16777216T", "expected a size" },
		{ "--size=18446744073709551616", "expected a size" },
		{ "--colour=blue", "one of red, green, found \"blue\"" },
		{ "leftover", "\"leftover\" is left over" },
	};
	struct values v;
	unsigned i;

	(void)state;
	for (i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		RUN(&v, (char *)table[i].word);
		assert_false(v.go_on);
		assert_int_equal(v.status, OPTIONS_EXIT_USAGE);
		assert_non_null(strstr(v.err, table[i].said));
		assert_non_null(strstr(v.err, "--help"));
		assert_string_equal(v.out, "");
	}
}

static void test_capabilities(void **state)
{
	struct values v;

	(void)state;
	RUN(&v, (char *)"--nothing", (char *)"--number=x", (char *)"leftover",
	    (char *)"--print-capabilities", (char *)"--text");
	assert_false(v.go_on);
	assert_int_equal(v.status, 0);
	assert_string_equal(v.out, "{\"type\": \"x\"}\n");
	assert_string_equal(v.err, "");
}

static void test_information(void **state)
{
	struct values v;

	(void)state;
	RUN(&v, (char *)"--help");
	assert_false(v.go_on);
	assert_int_equal(v.status, 0);
	assert_non_null(strstr(v.out, "Usage: prog [OPTION]..."));
	assert_non_null(strstr(v.out, "--number=N"));
	assert_non_null(strstr(v.out, "--print-capabilities"));
	RUN(&v, (char *)"--version");
	assert_int_equal(v.status, 0);
	assert_int_equal(strncmp(v.out, "prog ", 5), 0);
}

static const char *peek(const char *const argv[])
{
	int argc = 0;

	while (argv[argc])
		argc++;
	return options_peek(argc, (char **)argv, "text");
}

/* Looks at one option, whatever else is there. */
static void test_peek(void **state)
{
	(void)state;
#define PEEK(...) peek((const char *const[]){ "prog", ##__VA_ARGS__, NULL })
	assert_null(PEEK());
	assert_null(PEEK("--text"));
	assert_null(PEEK("--texts=a", "text=a", "-text=a", "--tex=a"));
	assert_null(PEEK("--", "--text=a"));
	assert_string_equal(PEEK("--bogus", "left", "--text=a"), "a");
	assert_string_equal(PEEK("--text", "--flag"), "--flag");
	assert_string_equal(PEEK("--text=a", "--number=x", "--text", "b"), "b");
	assert_string_equal(PEEK("--text="), "");
#undef PEEK
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good),         cmocka_unit_test(test_mistakes),
		cmocka_unit_test(test_capabilities), cmocka_unit_test(test_information),
		cmocka_unit_test(test_peek),
	};

	log_init("prog");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
