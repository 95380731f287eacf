/* SPDX-License-Identifier: BSD-3-Clause */
/* Runs the files of a corpus through a fuzz target, without libFuzzer: as a test, and for coverage. */
#include "fuzz.h"

#include <dirent.h>

static unsigned run(const char *folder, const char *name)
{
	static uint8_t data[1 << 20];
	char path[4096];
	size_t len;
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	file = fopen(path, "rb");
	if (!file)
		return 0;
	len = fread(data, 1, sizeof(data), file);
	fclose(file);
	LLVMFuzzerTestOneInput(data, len);
	return 1;
}

int main(int argc, char **argv)
{
	struct dirent *entry;
	unsigned nr = 0;
	DIR *dir;

	if (argc != 2 || !(dir = opendir(argv[1]))) {
		fprintf(stderr, "usage: %s FOLDER: the files to run, a corpus\n", argv[0]);
		return 2;
	}
	LLVMFuzzerInitialize(&argc, &argv);
	while ((entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			nr += run(argv[1], entry->d_name);
	closedir(dir);
	printf("%u inputs; ", nr);
	return nr && fuzz_report() ? 0 : 1;
}
