# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Tables for a terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.table import Table

ARCSEC = "\N{DOUBLE PRIME}"

type Columns = Mapping[str, Callable[[Any], str]]
"""Cells of a row by header; after ``|``, a header of equal words differs."""


def make_table(
    title: str,
    rows: Sequence[Any],
    labels: Columns,
    numbers: Columns,
    *,
    group: Callable[[Any], object] = lambda row: None,
    is_bold: Callable[[Any], bool] = lambda row: False,
    caption: str | None = None,
) -> Table:
    """Lay out rows with labels and, aligned to the right, numbers.

    Between rows of different groups there is a line.
    """
    table = Table(title=title, caption=caption)
    for header in labels:
        table.add_column(header)
    for header in numbers:
        table.add_column(header.partition("|")[0], justify="right")
    for row, after in zip(rows, [*rows[1:], None], strict=True):
        table.add_row(
            *(cell(row) for cell in (*labels.values(), *numbers.values())),
            style="bold" if is_bold(row) else None,
            end_section=after is None or group(after) != group(row),
        )
    return table


def number(name: str, digits: int) -> Callable[[Any], str]:
    """Return a function that formats a number of a row."""
    return lambda row: format_number(row[name], digits)


def text(name: str) -> Callable[[Any], str]:
    """Return a function that takes a text of a row."""
    return lambda row: str(row[name])


def format_number(value: float, digits: int) -> str:
    """Return a number with some digits after the point, or a dash for NaN."""
    return f"{value:.{digits}f}" if math.isfinite(value) else "-"
