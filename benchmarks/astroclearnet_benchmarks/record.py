# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Records of benchmarks: tables on a page, with code and machine."""

from __future__ import annotations

__all__ = (
    "Figure",
    "Section",
    "Table",
    "commit",
    "compare",
    "data_folder",
    "describe_code",
    "format_value",
    "make_page",
    "make_parser",
    "measure_sections",
    "package_version",
    "processor",
    "read_sections",
    "table_lines",
)

import argparse
import contextlib
import dataclasses
import datetime
import json
import logging
import math
import os
import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .processes import FAILURES

type Figure = tuple[float, float]
"""A value and its standard error, NaN where there is none."""

_LOG = logging.getLogger(__name__)

_FOLDER = Path(__file__).parents[1]
_CHECKOUT = _FOLDER if (_FOLDER / "pyproject.toml").exists() else None
"""Folder of distribution and records, if it is used from a checkout."""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of measurements.

    Attributes
    ----------
    title
        Its title.
    legend
        What the columns mean.
    rows
        Cells by the names of columns, which are those of the first row.
    """

    title: str
    legend: str
    rows: list[dict[str, str]]


@dataclasses.dataclass(frozen=True)
class Section:
    """What one command measured, when and with what.

    Attributes
    ----------
    name
        Its name.
    command
        The command that made it.
    code
        Version and commit of the package.
    date
        When it was made.
    machine
        Processor, threads and versions.
    tables
        The tables.
    """

    name: str
    command: str
    code: str
    date: str
    machine: str
    tables: list[Table]

    @classmethod
    def measured(cls, name: str, command: str, tables: list[Table], device: str = "cpu") -> Section:
        """Return a section that was measured just now, on this machine."""
        date = datetime.date.today().isoformat()
        return cls(name, command, describe_code(), date, describe_machine(device), tables)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Section:
        """Read back what `dataclasses.asdict` made of a section."""
        return cls(**{**content, "tables": [Table(**table) for table in content["tables"]]})


def make_parser(name: str, description: str | None, work: str = "") -> argparse.ArgumentParser:
    """Return a parser with the options that benchmarks share.

    The record is written to the folder of the distribution in a checkout, and
    to the working directory elsewhere; ``work`` says what is kept in the
    folder of intermediate results, if there is one.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m astroclearnet_benchmarks {name}", description=description
    )
    folder = _CHECKOUT or Path()
    parser.add_argument("--output", type=Path, default=folder / f"{name}.md", help="markdown file to write")
    if work:
        parser.add_argument(
            "--work", type=Path, default=Path("build/benchmarks") / name, help=f"folder of {work}"
        )
    return parser


def measure_sections(
    sections: Mapping[str, Callable[[], list[Table]]],
    command: Callable[[str], str],
    folder: Path,
    write: Callable[[], None],
    device: str = "cpu",
) -> int:
    """Measure sections, keep each as a file of the folder, and write the page.

    Returns the number of sections that failed, which do not stop the others.
    """
    folder.mkdir(parents=True, exist_ok=True)
    failures = 0
    for name, measure in sections.items():
        _LOG.info("Section %s", name)
        try:
            tables = measure()
        except FAILURES:
            _LOG.exception("Section %s failed", name)
            failures += 1
            continue
        section = Section.measured(name, command(name), tables, device)
        (folder / f"{name}.json").write_text(json.dumps(dataclasses.asdict(section)))
        write()
    return failures


def read_sections(folder: Path, names: Sequence[str]) -> list[Section]:
    """Return the sections that were ever measured, in the order of names."""
    files = [folder / f"{name}.json" for name in names]
    return [Section.from_dict(json.loads(file.read_text())) for file in files if file.exists()]


def make_page(sections: Sequence[Section], *, title: str, introduction: str) -> str:
    """Return the record of sections as Markdown."""
    lines = [f"# {title}", "", introduction, ""]
    for section in sections:
        made = f"Made {section.date} by `{section.command}`, {section.code}, on {section.machine}."
        lines += [f"## {section.name.capitalize()}", "", made, ""]
        for table in section.tables:
            rows = table_lines(table.rows) or ["Nothing was measured."]
            lines += [f"### {table.title}", "", table.legend, "", *rows, ""]
    return "\n".join(lines)


def table_lines(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the lines of a Markdown table, none without rows."""
    if not rows:
        return []
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    return lines + ["| " + " | ".join(row[c] for c in columns) + " |" for row in rows]


def format_value(figure: Figure | float, factor: float = 1.0) -> str:
    """Write a value times a factor, with as many digits as its error leaves.

    NaN is a dash.
    """
    value, error = figure if isinstance(figure, tuple) else (figure, math.nan)
    value, error = value * factor, error * factor
    if not math.isfinite(value):
        return "-"
    if not (math.isfinite(error) and error > 0.0):
        return f"{value:.3g}"
    decimals = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:.{decimals}f} ± {error:.{decimals}f}"


def compare(value: float, limit: float, unit: str) -> str:
    """Say whether the absolute value is within its limit."""
    if not math.isfinite(value):
        return f"{limit:.3g}{unit}: not measured"
    return f"{limit:.3g}{unit}: " + ("met" if abs(value) <= limit else "**missed**")


def describe_code() -> str:
    """Return version and commit of the package in words."""
    made_by = f"version {package_version('lsst-astroclearnet')}"
    return f"{made_by}, commit {known}" if (known := commit()) else made_by


def package_version(package: str) -> str:
    """Return the version of an installed package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def commit() -> str | None:
    """Return the commit of the checkout, if it is one."""
    if _CHECKOUT is None:
        return None
    command = ["git", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=10"]
    try:
        result = subprocess.run(command, cwd=_CHECKOUT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()


def describe_machine(device: str = "cpu") -> str:
    """Return processor, threads and versions in words."""
    machine = processor()
    if device == "cuda":
        import torch

        machine = f"{torch.cuda.get_device_name()}, with {machine}"
    threads = os.environ.get("OMP_NUM_THREADS", "default")
    packages = ("torch", "numpy", "galsim", "lsst-images")
    versions = ", ".join(f"{name} {package_version(name)}" for name in packages)
    return f"{machine}, {threads} threads, Python {platform.python_version()}, {versions}"


def processor() -> str:
    """Return the model of the processor."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def data_folder() -> Path:
    """Return the folder of the real exposures.

    The environment variable ASTROCLEARNET_DATA_DIR names it; by default it is
    ``shared/data`` beside the checkout.
    """
    checkout = Path() if _CHECKOUT is None else _CHECKOUT.parent
    default = checkout.resolve().parent / "shared" / "data"
    return Path(os.environ.get("ASTROCLEARNET_DATA_DIR") or default).resolve()
