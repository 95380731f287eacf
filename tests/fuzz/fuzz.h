/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What every fuzz target includes: a reader of the input, and what a target has to say of itself.
 *
 * A target is built twice: by libFuzzer (clang), and with replay.c, which runs the files of a corpus, by
 * any compiler. Both end with fuzz_report(): a corpus that does not reach the code that it is for is a
 * failure, whatever it covers on the way.
 */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Print what was reached; true: all that has to be. */
bool fuzz_report(void);

/* The sanitizers end with a report too; this is for what they cannot see. */
#define fuzz_must(condition)                                                            \
	do {                                                                            \
		if (!(condition)) {                                                     \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
			abort();                                                        \
		}                                                                       \
	} while (0)

struct input {
	const uint8_t *at;
	size_t left;
};

/* Bytes; zeroes when the input is at its end. */
static inline void input_bytes(struct input *in, void *to, size_t len)
{
	size_t got = len < in->left ? len : in->left;

	memset(to, 0, len);
	if (got)
		memcpy(to, in->at, got);
	in->at += got;
	in->left -= got;
}

static inline uint8_t input8(struct input *in)
{
	uint8_t v;

	input_bytes(in, &v, sizeof(v));
	return v;
}

static inline uint16_t input16(struct input *in)
{
	uint16_t v;

	input_bytes(in, &v, sizeof(v));
	return v;
}

static inline uint32_t input32(struct input *in)
{
	uint32_t v;

	input_bytes(in, &v, sizeof(v));
	return v;
}

static inline uint64_t input64(struct input *in)
{
	uint64_t v;

	input_bytes(in, &v, sizeof(v));
	return v;
}

#endif
