#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The library as its users get it: headers, what it exports, pkg-config, manual pages. TAP.

	test_api.py ROOT BUILD_FOLDER
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT, BUILD = (pathlib.Path(a).resolve() for a in sys.argv[1:3])
sys.path.insert(0, str(ROOT / "docs/man"))
sys.dont_write_bytecode = True
import api  # noqa: E402  (it is not installed, only found there)

HEADERS = api.headers(ROOT / "include/belfry")
C = ["gcc", "-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
CXX = ["g++", "-std=c++11", "-Wall", "-Wextra", "-Werror"]


def run(*argv, **more):
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, check=False,
                          stdin=subprocess.DEVNULL, timeout=120, **more)
    if done.returncode:
        raise AssertionError(f"{' '.join(map(str, argv))}\n{done.stdout}{done.stderr}")
    return done.stdout


def compiles_alone(header, compiler):
    language = "c++" if compiler is CXX else "c"
    with tempfile.NamedTemporaryFile("w", suffix=".h") as one:
        one.write(f"#include <{header.name}>\n#include <{header.name}>\n")
        one.flush()
        run(*compiler, "-D_GNU_SOURCE", "-I", ROOT / "include", "-fsyntax-only", "-x", language, one.name)


def every_function_documented(header):
    bare = [d.function for d in header.functions() if len(" ".join(d.doc)) < 8]
    # What needs no word of its own shares a line with one that has it.
    alone = [d for d in bare if not re.search(rf"{d}.*/\*", header.path.read_text())]
    if alone:
        raise AssertionError(f"no comment says what these do: {', '.join(alone)}")


def declared():
    return {d.function for h in HEADERS for d in h.functions() if not d.inline}


def same(what, found, expected):
    if found != expected:
        raise AssertionError(f"{what}: missing {sorted(expected - found)}, too many "
                             f"{sorted(found - expected)}")


def map_is_the_headers():
    text = (ROOT / "lib/libbelfry.map").read_text().split("global:")[1].split("local:")[0]
    same("lib/libbelfry.map", set(re.findall(r"(\w+);", text)), declared())


def exports_are_the_headers():
    lines = run("nm", "-D", "--defined-only", BUILD / "lib/libbelfry.so").splitlines()
    symbols = {line.split()[2] for line in lines if " A " not in line}
    if any("@@BELFRY_" not in symbol for symbol in symbols):
        raise AssertionError(f"without a version: {[s for s in symbols if '@@' not in s]}")
    same("libbelfry.so", {symbol.split("@@")[0] for symbol in symbols}, declared())


def needs_libc_only():
    lines = run("readelf", "-d", BUILD / "lib/libbelfry.so")
    needed = set(re.findall(r"NEEDED.*\[([^\]]+)\]", lines))
    others = {n for n in needed if not n.startswith(("libc.so", "ld-linux"))}
    if others:
        raise AssertionError(f"links {sorted(others)}")


def installed_example(folder):
    run("meson", "install", "-C", BUILD, "--no-rebuild", "--quiet",
        env={**os.environ, "DESTDIR": str(folder)})
    config = next(folder.rglob("belfry.pc"))
    env = {**os.environ, "PKG_CONFIG_PATH": str(config.parent), "PKG_CONFIG_SYSROOT_DIR": str(folder)}
    flags = run("pkg-config", "--cflags", "--libs", "belfry", env=env).split()
    program = folder / "example"
    run(*C, "-std=gnu11", ROOT / "examples/backend.c", "-o", program, *flags)
    library = next(folder.rglob("libbelfry.so.0")).parent
    done = subprocess.run([program], capture_output=True, text=True, check=False, timeout=20,
                          env={**os.environ, "LD_LIBRARY_PATH": str(library)})
    if done.returncode != 1 or "usage:" not in done.stderr:
        raise AssertionError(f"the example against the installed library: {done}")
    pages = {page.stem for page in folder.rglob("man3/*.3")}
    wanted = {d.function for h in HEADERS for d in h.functions()}
    same("man3", pages - {f"belfry_{h.path.stem}" for h in HEADERS}, wanted)
    return next(folder.rglob("man3"))


def pages_are_clean(folder):
    pages = [p for p in sorted(folder.glob("*.3")) if not p.read_text().startswith(".so")]
    run("mandoc", "-T", "lint", "-W", "warning", *pages)


def cases(folder):
    for header in HEADERS:
        yield f"{header.name} compiles alone, as C", lambda h=header: compiles_alone(h, C)
        if shutil.which("g++"):
            yield f"{header.name} compiles alone, as C++", lambda h=header: compiles_alone(h, CXX)
        yield f"{header.name}: every function is documented", lambda h=header: every_function_documented(h)
    yield "the symbol map has the functions of the headers", map_is_the_headers
    yield "the library exports them, versioned, and nothing else", exports_are_the_headers
    yield "the library needs libc only", needs_libc_only
    yield ("installed: pkg-config builds the example, each function has a page",
           lambda: installed_example(folder))
    if shutil.which("mandoc"):
        yield "mandoc finds nothing to say about the pages of section 3", \
            lambda: pages_are_clean(next(folder.rglob("man3")))


def main():
    failed = number = 0
    with tempfile.TemporaryDirectory(prefix="belfry-api-") as folder:
        for number, (name, check) in enumerate(cases(pathlib.Path(folder)), 1):
            try:
                check()
                print(f"ok {number} - {name}")
            except (AssertionError, OSError, StopIteration, subprocess.SubprocessError) as error:
                failed += 1
                print(f"not ok {number} - {name}")
                print("\n".join(f"# {line}" for line in str(error).splitlines()))
    print(f"1..{number}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
