#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""What the documents promise: manual pages against --help, the packaged description against
--print-capabilities. TAP on standard output.

	test_man.py ROOT PAGE PROGRAM [PAGE PROGRAM]...
"""

import json
import pathlib
import re
import shutil
import subprocess
import sys

OPTION = re.compile(r"--([a-z][a-z0-9-]*)")


def output(*argv):
    done = subprocess.run([str(a) for a in argv], check=True, capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=20)
    if done.stderr:
        raise AssertionError(f"{argv[0]} wrote to standard error: {done.stderr}")
    return done.stdout


def options_of_help(program):
    """The options that have a line of their own."""
    lines = output(program, "--help").splitlines()
    return {m[1] for m in (re.match(r"\s+--([a-z][a-z0-9-]*)", line) for line in lines) if m}


def options_of_source(source):
    """The options that have an entry: *--name*... or *--name*, *--other* at the start of a line."""
    found = set()
    for line in source.read_text().splitlines():
        if line.startswith("*--"):
            found |= set(OPTION.findall(line))
    return found


def check_options(source, program):
    documented, known = options_of_source(source), options_of_help(program)
    if not known:
        raise AssertionError(f"{program.name} --help shows no option")
    if known - documented:
        raise AssertionError(f"{source.name} has no entry for --{', --'.join(sorted(known - documented))}")
    if documented - known:
        raise AssertionError(f"{program.name} --help does not have --{', --'.join(sorted(documented - known))}")


def check_keys(source, program):
    """The keys of --device, e.g. blk,socket=PATH[,num-queues=N], each with an entry of its own."""
    keys = set()
    for line in output(program, "--help").splitlines():
        if re.match(r"\s+([a-z]+|\[),[a-z-]+=", line):
            keys |= set(re.findall(r",([a-z-]+)=", line))
    entries = set(re.findall(r"^\*([a-z-]+)=", source.read_text(), re.MULTILINE))
    if keys != entries:
        raise AssertionError(f"--help has the keys {sorted(keys)}, {source.name} explains "
                             f"{sorted(entries)}")


def check_lint(page):
    if page.stat().st_size < 1000:
        raise AssertionError(f"{page.name} has {page.stat().st_size} bytes")
    done = subprocess.run(["mandoc", "-T", "lint", "-W", "error", page], capture_output=True,
                          text=True, check=False)
    if done.returncode:
        raise AssertionError(done.stdout + done.stderr)


def check_examples(page):
    """A backslash at the end of a line has to survive: the shell needs it."""
    text = output("mandoc", "-T", "ascii", "-O", "width=200", page)
    text = re.sub(".\b", "", text)
    example = text.split("\nEXAMPLES\n")[1]
    if not re.search(r"\\\n\s+--", example):
        raise AssertionError(f"the examples of {page.name} have lost their line continuations")


def check_description(path, program):
    said = json.loads(path.read_text())
    able = json.loads(output(program, "--print-capabilities"))
    for theirs, ours in (("type", "type"), ("tags", "features")):
        if said[theirs] != able[ours]:
            raise AssertionError(f"{path.name} says {theirs} {said[theirs]}, {program.name} says "
                                 f"{ours} {able[ours]}")
    if pathlib.Path(said["binary"]).name != program.name or not said["description"]:
        raise AssertionError(f"{path.name} does not describe {program.name}")


def cases(root, pages):
    for page, program in pages:
        source = root / "docs/man" / f"{page.name}.scd"
        options = options_of_help(program)
        yield f"{page.name}: the options are those of --help", check_options, (source, program), None
        if "device" in options:
            yield f"{page.name}: the keys of a device", check_keys, (source, program), None
        yield f"{page.name}: mandoc finds no error", check_lint, (page,), "mandoc"
        yield f"{page.name}: the examples can be pasted", check_examples, (page,), "mandoc"
        description = root / "packaging" / f"60-{program.name}.json"
        if "print-capabilities" in options:
            yield (f"{description.name}: as --print-capabilities says", check_description,
                   (description, program), None)


def main():
    root, *rest = (pathlib.Path(a) for a in sys.argv[1:])
    every = list(cases(root, list(zip(rest[::2], rest[1::2]))))
    failed = 0
    print(f"1..{len(every)}")
    for number, (name, check, values, needs) in enumerate(every, 1):
        if needs and not shutil.which(needs):
            print(f"ok {number} - {name} # SKIP no {needs}: run lab/setup")
            continue
        try:
            check(*values)
            print(f"ok {number} - {name}")
        except (AssertionError, OSError, ValueError, KeyError, IndexError,
                subprocess.SubprocessError) as error:
            failed += 1
            print(f"not ok {number} - {name}")
            print("\n".join(f"# {line}" for line in str(error).splitlines()))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
