#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The public headers, read: declarations, each with the comment that documents it.

The manual pages of section 3 are made from this (headers_to_man.py), and tests/docs compares it with
what the library exports.
"""

import pathlib
import re

TOKEN = re.compile(
    r"(?P<comment>/\*.*?\*/)|(?P<pre>^[ \t]*#(?:[^\n\\]|\\\n|\\.)*)|(?P<space>\s+)|(?P<code>.)",
    re.DOTALL | re.MULTILINE)


def text_of(comment):
    """A comment without its stars: lines."""
    body = re.sub(r"^/\*+ ?|\s*\*+/$", "", comment)
    lines = [re.sub(r"^\s*\* ?", "", line).rstrip() for line in body.splitlines()]
    while lines and not lines[0]:
        lines.pop(0)
    return lines


class Declaration:
    """Something declared at the top level. doc: lines; own: has a comment of its own."""

    def __init__(self, code, doc, own):
        self.code, self.doc, self.own = code, doc, own
        bare = re.sub(r"/\*.*?\*/", "", code, flags=re.DOTALL)
        head = bare.split("{")[0]
        function = re.search(r"\b(bf_\w+)\s*\(", head)
        self.function = function[1] if function and "typedef" not in head else None
        kind = re.match(r"\s*(struct|union|enum)\s+(bf_\w+)\s*\{", bare)
        self.kind = f"{kind[1]} {kind[2]}" if kind else None
        self.inline = "static inline" in head

    def prototype(self):
        """As it is called: no body."""
        code = self.code.split("{")[0].rstrip() + ";" if self.inline else self.code
        return code.replace("\t", "        ")


class Header:
    """One header: its first comment, and what it declares."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.overview = []
        self.declarations = []
        self.read(self.path.read_text())

    def read(self, text):
        text = re.sub(r'#ifdef __cplusplus\n(?:extern "C" \{|\})\n#endif\n', "\n", text)
        doc, group_doc, code, depth = None, None, "", 0
        for token in TOKEN.finditer(text):
            word = token[0]
            if code.strip():  # inside a declaration
                code += word
                if token.lastgroup != "code":
                    continue
                depth += (word == "{") - (word == "}")
                inline_end = word == "}" and depth == 0 and "static inline" in code
                if depth == 0 and (word == ";" or inline_end):
                    self.add(code, doc, group_doc)
                    code, doc = "", None
            elif token.lastgroup == "comment":
                if word.startswith("/**"):
                    doc = text_of(word)
                    if not self.overview:
                        self.overview, doc = doc, None
                    group_doc = doc
            elif token.lastgroup == "pre":
                doc = None
            elif token.lastgroup == "space":
                if word.count("\n") > 1:
                    doc = group_doc = None
            else:
                code = word

    def add(self, code, doc, group_doc):
        self.declarations.append(Declaration(code, doc or group_doc or [], doc is not None))

    @property
    def name(self):
        return f"belfry/{self.path.name}"

    def functions(self):
        return [d for d in self.declarations if d.function]

    def groups(self):
        """Functions that share a comment: [[Declaration]]."""
        groups = []
        for one in self.functions():
            if not one.own and groups and groups[-1][-1].doc is one.doc:
                groups[-1].append(one)
            else:
                groups.append([one])
        return groups


def headers(folder):
    return [Header(path) for path in sorted(pathlib.Path(folder).glob("*.h"))]
