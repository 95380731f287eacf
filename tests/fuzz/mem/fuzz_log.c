/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The dirty log: where it lies and how long it is comes from a message, what is marked from descriptors.
 * Bits are compared with a slow model; the bytes around the log must stay as they were.
 *
 * Input: offset and size (the whole width or small), then ranges to mark.
 */
#include "tests/fuzz/fuzz.h"

#include <sys/mman.h>
#include <unistd.h>

#include "lib/mem/log.h"

#define FILE_SIZE 16384u

static int file;
static uint8_t *bytes;
static uint64_t nr_made, nr_refused, nr_marked, nr_cut;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	file = memfd_create("bf-fuzz", MFD_CLOEXEC);
	fuzz_must(file >= 0 && !ftruncate(file, FILE_SIZE));
	bytes = mmap(NULL, FILE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	fuzz_must(bytes != MAP_FAILED);
	return 0;
}

static void mark_slowly(uint8_t *model, uint64_t size, uint64_t gpa, uint64_t len)
{
	uint64_t last;

	if (!len)
		return;
	last = len - 1 > UINT64_MAX - gpa ? UINT64_MAX : gpa + (len - 1);
	for (uint64_t page = gpa / BF_LOG_PAGE; page <= last / BF_LOG_PAGE; page++) {
		if (page / 8 >= size) {
			nr_cut++;
			return;
		}
		model[page / 8] |= (uint8_t)(1u << page % 8);
		nr_marked++;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct input in = { data, len };
	bool wide = input8(&in) & 1;
	uint64_t offset = wide ? input64(&in) : input16(&in) % FILE_SIZE;
	uint64_t size = wide ? input64(&in) : input16(&in) % FILE_SIZE;
	static uint8_t model[FILE_SIZE];
	struct bf_dirty_log *log;

	memset(bytes, 0, FILE_SIZE);
	memset(model, 0, FILE_SIZE);
	if (bf_dirty_log_new(file, offset, size, &log)) {
		nr_refused++;
		return 0;
	}
	fuzz_must(size && size <= FILE_SIZE && offset <= FILE_SIZE - size);
	fuzz_must(bf_dirty_log_size(log) == size);
	nr_made++;
	for (unsigned i = 0; i < 64 && in.left; i++) {
		uint8_t kind = input8(&in);
		uint64_t gpa = kind & 1 ? input64(&in) : (uint64_t)input16(&in) << 8;
		uint64_t span = kind & 2 ? input64(&in) : input16(&in);

		bf_dirty_log_mark(log, gpa, span);
		mark_slowly(model + offset, size, gpa, span);
	}
	bf_dirty_log_unref(log);
	fuzz_must(!memcmp(bytes, model, FILE_SIZE));
	return 0;
}

bool fuzz_report(void)
{
	printf("log: %llu made, %llu refused, %llu pages marked, %llu ranges cut off\n",
	       (unsigned long long)nr_made, (unsigned long long)nr_refused,
	       (unsigned long long)nr_marked, (unsigned long long)nr_cut);
	return nr_made && nr_refused && nr_marked && nr_cut;
}
