#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Installs the generated pages of section 3, whose names are known only when they are made.

	install_man3.py FOLDER MAN3_FOLDER
"""

import os
import pathlib
import shutil
import sys

source, target = sys.argv[1:]
prefix = pathlib.Path(os.environ["MESON_INSTALL_DESTDIR_PREFIX"])
destination = prefix / target
destination.mkdir(parents=True, exist_ok=True)
for page in sorted(pathlib.Path(source).glob("*.3")):
    shutil.copyfile(page, destination / page.name)
