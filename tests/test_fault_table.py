# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The table of faults in the documentation, and the tests that it names."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent
DOCUMENTATION = TESTS.parent / "doc" / "lsst.astroclearnet"
TABLE = (DOCUMENTATION / "faults.rst").read_text()
NAME = re.compile(r"``(test_\w+\.py)::(test_\w+)``")


def read_rows() -> dict[str, list[tuple[str, str]]]:
    """Return the tests of each fault."""
    rows = re.split(r"^   \* - ", TABLE, flags=re.MULTILINE)[1:]
    return {row.splitlines()[0]: NAME.findall(row) for row in rows if not row.startswith("Fault\n")}


def list_tests(file: str) -> set[str]:
    """Return the names of the tests of a file; none if it does not exist."""
    if not (TESTS / file).is_file():
        return set()
    tree = ast.parse((TESTS / file).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_fault_has_tests_that_exist() -> None:
    """If it fails, the documentation claims what nobody checks."""
    rows = read_rows()
    assert len(rows) > 30
    assert [fault for fault, tests in rows.items() if not tests] == []
    named = sorted({test for tests in rows.values() for test in tests})
    assert [f"{file}::{name}" for file, name in named if name not in list_tests(file)] == []
    # A name that is mistyped is no name at all.
    assert sum(map(len, rows.values())) == TABLE.count("``test_")


def test_every_test_of_a_fault_is_in_the_table() -> None:
    """If it fails, the table is out of date."""
    named = {name for tests in read_rows().values() for name in tests}
    files = [*TESTS.glob("test_faults_*.py"), *TESTS.glob("test_fuzz_*.py")]
    assert len(files) >= 5
    tests = {(path.name, name) for path in files for name in list_tests(path.name)}
    assert [test for test in sorted(tests - named) if test[1].startswith("test_")] == []


def test_table_can_be_found() -> None:
    """If it fails, no page leads to it."""
    assert re.search(r"^   faults$", (DOCUMENTATION / "index.rst").read_text(), re.MULTILINE)
