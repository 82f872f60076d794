# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The table of names of the full stack in the documentation."""

from __future__ import annotations

import ast
import csv
import re
from pathlib import Path

TOP = Path(__file__).parents[1]
DOCUMENTATION = TOP / "doc" / "lsst.astroclearnet"
TABLE = DOCUMENTATION / "full-stack-names.csv"
CODE = (
    *sorted((TOP / "python" / "lsst" / "astroclearnet" / "adapters").rglob("_legacy.py")),
    *sorted((TOP / "tests").glob("test_afw*.py")),
)
PIPELINES = (
    *(TOP / "pipelines" / "_ingredients" / f"{name}RestoredCoadd.yaml" for name in ("Measure", "Analyze")),
    *(
        TOP / "pipelines" / "_ingredients" / f"{name}.yaml"
        for name in ("TabulateRestoredObjects", "MakeRestoredHips")
    ),
    TOP / "pipelines" / "RestoreInjected.yaml",
)

STACK = re.compile(r"lsst\.(afw|cell_coadds|drp|geom|meas|pex\.exceptions|pipe\.tasks|skymap|source)\b")
# How the stack writes its methods, which this package does not.
METHOD = re.compile(
    r"(add|as|calibrate|compute|find|get|has|make|pixel|set|sky)[A-Z]\w*|exists|find|set|stitch"
)


def find_names(source: str) -> set[str]:
    """Return imported names, and methods with a dot before them."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module and STACK.match(node.module):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Attribute) and METHOD.fullmatch(node.attr):
            names.add(f".{node.attr}")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            # Methods that are called by name.
            texts = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
            names |= {f".{text}" for text in texts if isinstance(text, str) and METHOD.fullmatch(text)}
    return names


def read_table() -> dict[str, dict[str, str]]:
    """Return the rows of the table by name."""
    with TABLE.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["name"] for row in rows}) == len(rows)
    return {row["name"]: row for row in rows}


def used_names() -> set[str]:
    """Return all names that code, tests and pipelines use."""
    classes = {name for path in PIPELINES for name in re.findall(r"class: (lsst\.\S+)", path.read_text())}
    names = {name for name in classes if not name.startswith("lsst.astroclearnet.")}
    for path in CODE:
        names |= find_names(path.read_text())
    return names


def test_every_name_is_in_the_table() -> None:
    """If it fails, a name of the full stack is used that nobody has looked up
    in its source.
    """
    assert len(CODE) >= 3
    assert used_names() - read_table().keys() == set()


def test_every_row_is_used() -> None:
    """If it fails, the table states what no code needs any longer."""
    assert read_table().keys() - used_names() == set()


def test_rows_name_place_and_commit() -> None:
    """If it fails, nobody can find what a row says."""
    commits: dict[str, str] = {}
    for name, row in read_table().items():
        assert re.fullmatch(r"(python|include)/\S+\.(py|cc|h):[1-9]\d*", row["place"]), name
        assert re.fullmatch(r"[0-9a-f]{12}", row["commit"]), name
        # One commit for each package.
        assert commits.setdefault(row["package"], row["commit"]) == row["commit"]


def test_table_is_shown() -> None:
    """If it fails, the table is no part of the documentation."""
    assert ":file: full-stack-names.csv" in (DOCUMENTATION / "full-stack.rst").read_text()


def test_every_test_of_the_stack_is_in_the_documentation() -> None:
    """If it fails, a reader does not know what was run in a full stack."""
    page = (DOCUMENTATION / "full-stack.rst").read_text()
    listed = set(re.findall(r"\* - ``(test_\w+)``", page))
    written = set()
    for path in (TOP / "tests").glob("test_*.py"):
        tree = ast.parse(path.read_text())
        names = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        if path.name.startswith("test_afw"):
            written |= {name for name in names if name.startswith("test_")}
        else:
            marks = {name: ast.unparse(ast.Tuple(node.decorator_list)) for name, node in names.items()}
            written |= {name for name, mark in marks.items() if "pytest.mark.afw" in mark}
    assert written == listed


def test_names_are_found() -> None:
    """If it fails, the tests above have a hole."""
    for source, names in (
        ("def f():\n    from lsst.afw.image import ExposureF", {"lsst.afw.image.ExposureF"}),
        ("def f(x):\n    return x.getPsf().computeImage(1)", {".getPsf", ".computeImage"}),
        ("def f(self):\n    return self._compute('computeImage', 1)", {".computeImage"}),
        ("from lsst.images import Box\nbox.to_polygon()", set()),
    ):
        assert find_names(source) == names, source
