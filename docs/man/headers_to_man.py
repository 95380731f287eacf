#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Manual pages of section 3, from the comments of the public headers: nothing is written twice.

	headers_to_man.py INCLUDE_FOLDER OUTPUT_FOLDER STAMP

A page for each header (belfry_virtq.3), one for each comment that documents functions (bf_virtq_pop.3),
and a link for each further function of that comment. STAMP receives the list of pages.
"""

import os
import pathlib
import re
import sys
import time

import api


def escape(text):
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + text if text[:1] in (".", "'") else text


def prose(text):
    """@arg is an argument's name: in italics."""
    return re.sub(r"@(\w+)", r"\\fI\1\\fR", escape(text))


def paragraphs(lines):
    """Prose is filled; "@arg: ..." with its indented lines is a list; other indented lines stay."""
    out, state = [], "prose"
    for line in lines:
        argument = re.match(r"(@\w+(?:, @\w+)*)[:,]\s+(.*)", line)
        if argument and state in ("prose", "list") and line[0] == "@":
            out += [".TP", prose(argument[1]), prose(argument[2])]
            state = "list"
        elif not line:
            if state == "code":
                out.append("")
            elif out and out[-1] != ".PP":
                out.append(".PP")
                state = "prose" if state == "list" else state
        elif re.match(r"\t| {2,}", line) and state == "list":
            out.append(prose(line.strip()))
        elif re.match(r"\t| {2,}", line):
            if state != "code":
                out.append(".nf")
            out.append(escape(line.replace("\t", "    ")))
            state = "code"
        else:
            if state == "code":
                out.append(".fi")
            if state == "list":
                out.append(".PP")
            out.append(prose(line))
            state = "prose"
    if state == "code":
        out.append(".fi")
    while out and not out[-1].strip(".P "):
        out.pop()
    return [line for i, line in enumerate(out)
            if not (line == "" and (i + 1 == len(out) or out[i + 1] in ("", ".fi")))]


def code(text):
    return [".nf", ".ft B", *(escape(line) or "\\&" for line in text.splitlines()), ".ft R", ".fi"]


def title(name):
    built = int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))
    return [time.strftime(f'.TH {name} 3 "%Y-%m-%d" "Belfry" "Library functions"', time.gmtime(built))]


def summary(doc, name):
    """One line: what the comment says of the function first."""
    text = re.sub(rf"^{name}\s*-\s*", "", " ".join(doc))
    text = re.split(r"(?<=[^.])[.:;](?:\s|$)", text, maxsplit=1)[0]
    words = re.sub(r"@(\w+)", r"\1", text).strip()
    return words if len(words) <= 90 else words[:87].rsplit(" ", 1)[0] + "..."


def function_page(header, group):
    names = [d.function for d in group]
    doc = [re.sub(rf"^{names[0]} - ", "", line) for line in group[0].doc]
    if doc:
        doc[0] = doc[0][:1].upper() + doc[0][1:]
    return "\n".join([
        *title(names[0]),
        ".SH NAME", f"{', '.join(names)} \\- {escape(summary(doc, names[0]))}",
        ".SH SYNOPSIS", *code(f"#include <{header.name}>"), ".PP",
        *code("\n".join(d.prototype().strip() for d in group)),
        ".SH DESCRIPTION", *paragraphs(doc),
        ".SH SEE ALSO", f".BR {page_of(header)} (3)", ""])


def page_of(header):
    return f"belfry_{header.path.stem}"


def header_page(header):
    doc = [line for line in header.overview]
    doc[0] = re.sub(r"^belfry/\S+ - ", "", doc[0])
    doc[0] = doc[0][:1].upper() + doc[0][1:]
    lines = [*title(page_of(header)), ".SH NAME",
             f"{page_of(header)} \\- {escape(summary(doc, ''))}",
             ".SH SYNOPSIS", *code(f"#include <{header.name}>"), ".PP", "Link with",
             ".BR \"pkg-config \\-\\-libs belfry\" .", ".SH DESCRIPTION", *paragraphs(doc)]
    types = [d for d in header.declarations if d.kind]
    if types:
        lines.append(".SH TYPES")
    for one in types:
        lines += [f".SS {one.kind}", *paragraphs(one.doc), *([".PP"] if one.doc else []), *code(one.code.strip().replace("\t", "        "))]
    if header.functions():
        lines += [".SH FUNCTIONS", *code("\n".join(d.prototype().strip() for d in header.functions()))]
    return "\n".join([*lines, ""])


def main(include, output, stamp):
    output = pathlib.Path(output)
    output.mkdir(parents=True, exist_ok=True)
    pages = {}
    for header in api.headers(include):
        pages[page_of(header)] = header_page(header)
        for group in header.groups():
            first = group[0].function
            pages[first] = function_page(header, group)
            for other in group[1:]:
                pages[other.function] = f".so man3/{first}.3\n"
    for name, text in pages.items():
        (output / f"{name}.3").write_text(text)
    pathlib.Path(stamp).write_text("".join(f"{name}.3\n" for name in sorted(pages)))


if __name__ == "__main__":
    main(*sys.argv[1:])
