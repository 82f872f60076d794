# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Docstrings of constants where a room gathers them.

A constant is documented by the string below it in its own module.  Sphinx
looks for that in the module that it was asked for, which only imports it, and
takes the docstring of its type instead.
"""

from __future__ import annotations

__all__ = ("setup",)

import sys
from typing import Any

from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.typing import ExtensionMetadata


def _find_docstring(room: str, name: str) -> list[str]:
    """Return the lines below the definition of a constant, if it has any."""
    for module in sorted(key for key in sys.modules if key.startswith(f"{room}.")):
        if name in vars(sys.modules[module]):
            analyzer = ModuleAnalyzer.for_module(module)
            lines = analyzer.find_attr_docs().get(("", name))
            if lines:
                return list(lines)
    return []


def process_docstring(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Replace the docstring of the type of a constant by its own."""
    if what == "data":
        room, _, constant = name.rpartition(".")
        lines[:] = _find_docstring(room, constant)


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the replacement."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", process_docstring, priority=100)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
