# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What sections measure, and its table."""

from __future__ import annotations

__all__ = ("Figure", "Section", "Table", "compare", "format_value", "make_page")

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

type Figure = tuple[float, float]
"""A value and its standard error, NaN where there is none."""


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
    """What one section measured, when and with what.

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
    def from_dict(cls, content: dict[str, Any]) -> Section:
        """Read a section back.

        Parameters
        ----------
        content
            What `dataclasses.asdict` made of one.

        Returns
        -------
        section : `Section`
            The section.
        """
        return cls(**{**content, "tables": [Table(**table) for table in content["tables"]]})


def format_value(figure: Figure | float, factor: float = 1.0) -> str:
    """Write a number, with as many digits as its error leaves.

    Parameters
    ----------
    figure
        The value, or a pair of the value and its error.
    factor
        Factor to multiply both by.

    Returns
    -------
    text : `str`
        The number; a dash for NaN.
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
    """Say whether a value is within its limit.

    Parameters
    ----------
    value
        The value, whose sign does not matter.
    limit
        The limit.
    unit
        Its unit, with a space before it where one is due.

    Returns
    -------
    text : `str`
        The limit and what became of it.
    """
    if not math.isfinite(value):
        return f"{limit:.3g}{unit}: not measured"
    return f"{limit:.3g}{unit}: " + ("met" if abs(value) <= limit else "**missed**")


_INTRODUCTION = (
    "From calibrated visit images to the patch: what is lost on the way. `native` is the likelihood on the "
    "exposures' own pixels; `resampled` the one on pixels that were brought to the patch by a Lanczos kernel "
    "of order 5. The truth is that of the simulation; stars have PSFs that vary over the detectors and are "
    "given as they truly are unless a table says otherwise. Errors are standard errors."
)


def make_page(
    sections: Sequence[Section],
    *,
    title: str = "From visit images to the patch",
    introduction: str = _INTRODUCTION,
) -> str:
    """Write the page.

    Parameters
    ----------
    sections
        The sections, in their order.
    title
        Heading of the page.
    introduction
        What it begins with.

    Returns
    -------
    page : `str`
        Markdown.
    """
    lines = [f"# {title}", "", introduction, ""]
    for section in sections:
        lines += [f"## {section.name.capitalize()}", ""]
        lines += [
            f"Made {section.date} by `{section.command}`, {section.code}, on {section.machine}.",
            "",
        ]
        for table in section.tables:
            lines += [f"### {table.title}", "", table.legend, "", *_lines_of(table.rows), ""]
    return "\n".join(lines)


def _lines_of(rows: Sequence[dict[str, str]]) -> list[str]:
    if not rows:
        return ["Nothing was measured."]
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    return lines + ["| " + " | ".join(row[c] for c in columns) + " |" for row in rows]
