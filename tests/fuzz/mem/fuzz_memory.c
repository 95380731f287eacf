/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Memory tables of the input: made, grown and shrunk, and asked for translations, which are compared with
 * a slow look at each region.
 *
 * Input: how many regions, regions {gpa, size, uva, offset}; then questions and changes.
 */
#include "tests/fuzz/fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/mem/map.h"

#define FILE_SIZE (1u << 20)
#define MAX_NR    16u

static int file;
static uint64_t nr_made, nr_refused, nr_with, nr_without, nr_found, nr_pieces;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	file = memfd_create("bf-fuzz", MFD_CLOEXEC);
	fuzz_must(file >= 0 && !ftruncate(file, FILE_SIZE));
	return 0;
}

/* Near to one another, in pages, unless the input wants the whole width. */
static uint64_t address(struct input *in, uint8_t kind)
{
	return kind & 1 ? input64(in) : (uint64_t)input8(in) << 12;
}

static struct bf_memory_region region(struct input *in)
{
	uint8_t kind = input8(in);

	return (struct bf_memory_region){
		.gpa = address(in, kind),
		.size = address(in, kind >> 1),
		.uva = address(in, kind >> 2),
		.fd_offset = address(in, kind >> 3),
		.fd = fcntl(file, F_DUPFD_CLOEXEC, 0),
	};
}

/* What the map should say: the region that has all of it. */
static void *slow(const struct bf_memory *map, uint64_t gpa, uint64_t len)
{
	for (unsigned i = 0; i < bf_memory_nr_regions(map); i++) {
		const struct bf_memory_region *r = bf_memory_region(map, i);

		if (gpa >= r->gpa && gpa - r->gpa < r->size && len <= r->size - (gpa - r->gpa))
			return (uint8_t *)r->hva + (gpa - r->gpa);
	}
	return NULL;
}

static void ask(const struct bf_memory *map, uint64_t gpa, uint64_t len)
{
	volatile uint8_t *hva = bf_memory_from_gpa(map, gpa, len);
	struct iovec iov[4];
	uint64_t sum = 0;
	int nr;

	fuzz_must(hva == slow(map, gpa, len));
	if (hva && len) {
		nr_found += hva[0] + hva[len - 1] + 1u;
	}
	nr = bf_memory_iov(map, gpa, len, iov, 4);
	fuzz_must(nr >= 1 || nr == -EFAULT || nr == -E2BIG);
	for (int i = 0; i < nr; i++) {
		fuzz_must(iov[i].iov_base == slow(map, gpa + sum, iov[i].iov_len));
		sum += iov[i].iov_len;
		nr_pieces++;
	}
	fuzz_must(nr < 0 || sum == len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	struct bf_memory_region regions[MAX_NR] = { 0 };
	unsigned nr = input8(&in) % (MAX_NR + 1);
	struct bf_memory *map = NULL, *next;
	unsigned steps = 0;

	for (unsigned i = 0; i < nr; i++)
		regions[i] = region(&in);
	if (bf_memory_new(regions, nr, &map)) {
		nr_refused++;
		for (unsigned i = 0; i < nr; i++)
			close(regions[i].fd);
		map = NULL;
	} else {
		nr_made++;
	}
	while (in.left && steps++ < 64) {
		uint8_t op = input8(&in);

		if (op < 64) {
			struct bf_memory_region added = region(&in);

			if (bf_memory_with(map, &added, &next)) {
				close(added.fd);
				continue;
			}
			nr_with++;
		} else if (op < 96 && map) {
			const struct bf_memory_region *gone =
				bf_memory_region(map, op % bf_memory_nr_regions(map));

			fuzz_must(!bf_memory_without(map, gone->gpa, gone->uva, gone->size, &next));
			nr_without++;
		} else if (map) {
			uint64_t gpa = address(&in, op);

			ask(map, gpa, op & 2 ? input32(&in) : address(&in, op >> 2));
			continue;
		} else {
			continue;
		}
		bf_memory_unref(map);
		map = next;
	}
	bf_memory_unref(map);
	return 0;
}

bool fuzz_report(void)
{
	printf("memory: %llu tables made, %llu refused, %llu regions added, %llu removed, %llu "
	       "pieces translated\n",
	       (unsigned long long)nr_made, (unsigned long long)nr_refused,
	       (unsigned long long)nr_with, (unsigned long long)nr_without,
	       (unsigned long long)nr_pieces);
	return nr_made && nr_refused && nr_with && nr_without && nr_found && nr_pieces;
}
