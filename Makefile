# SPDX-License-Identifier: BSD-3-Clause
#
# Short names for what meson, ninja and the scripts in lab/ and tests/ do.
# BUILD=folder builds elsewhere; MESONFLAGS are given to the first meson setup.

BUILD ?= build
MESONFLAGS ?=

all: $(BUILD)/build.ninja
	ninja -C $(BUILD)

setup:
	@lab/setup

$(BUILD)/build.ninja: | setup
	meson setup $(BUILD) $(MESONFLAGS)

# What the project is about, shown with a real guest; writes out/demo.json.
demo: all
	lab/demo $(BUILD)

# Every test there is.
check: all
	@tests/run-all $(BUILD)

# What the fuzzers' corpora and the tests reach of the code that parses; writes out/coverage.
coverage: all
	@tests/coverage $(BUILD)

# Back ends and rings beside DPDK's and qemu-storage-daemon's; writes out/bench.json and out/bench.svg.
bench: all
	ninja -C $(BUILD) bench-programs
	bench/compare $(BUILD)

# In the lab: start-up and memory beside QEMU, what belfry-vdpa costs; writes out/bench-*.json.
bench-lab: all
	ninja -C $(BUILD) bench-programs
	bench/startup $(BUILD)
	bench/vdpa $(BUILD)

# A shell where KVM works.
lab: setup
	@lab/run

format:
	git ls-files '*.[ch]' | xargs clang-format -i

tidy: all
	run-clang-tidy -quiet -p $(BUILD) '$(CURDIR)/(lib|devices|vmm|tools)/'

# Keeps out/lab/kernel, which had to be downloaded.
clean:
	rm -rf $(BUILD) out/lab/run.* out/lab/*.cpio* out/lab/console.log

distclean: clean
	rm -rf out

.PHONY: all setup demo check coverage bench bench-lab lab format tidy clean distclean
