# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The tables of the benchmark, in Markdown."""

from __future__ import annotations

__all__ = ("make_coverage_tables", "make_tables")

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..record import Table, format_value
from .coverage import coverage_rows
from .figures import FIGURES, Row
from .limits import LIMITS, judge

_LEGEND = (
    "Values with standard errors by bootstrap over scenes. Errors are rms errors to the truth at the target "
    "PSF in units of the sky noise of the inverse-variance coadd, where the truth is below 0.3 (sky), 1 to "
    "20 (faint) and above 3 (sources); far is more than 30 pixels from saturated stars. Biases are of a fit "
    "to the difference of two images, of the same exposures with and without the sources. A method that is "
    "stopped by eye is shown at the stop closest to the truth of each scene, which a user cannot know. Where "
    "methods have seen different numbers of objects, some have seen only the first scenes."
)

_COVERAGE_LEGEND = (
    "Share of pixels whose error is within 1, 2 and 3 declared sigmas, beside that of a normal distribution; "
    "flux and sigma in units of the sky noise of the inverse-variance coadd."
)

_LIMIT_LEGEND = (
    "A limit is met when the absolute value plus one standard error is within it, and uncertain where the "
    "standard error is more than a third of it."
)


def make_tables(rows: Sequence[Row], judged: Sequence[str], *, with_limits: bool) -> list[Table]:
    """Make a table of all images, and one of limits for some.

    Parameters
    ----------
    rows
        Figures of all images.
    judged
        Names of the images that limits are for.
    with_limits
        Whether the limits hold for the setting of these rows.

    Returns
    -------
    tables : `list` [`Table`]
        The tables.
    """
    products = list(dict.fromkeys(row.product for row in rows))
    by_name = {(row.product, row.measure): row for row in rows}
    comparison = []
    for measure in FIGURES:
        found = [by_name.get((product, measure)) for product in products]
        if any(found):
            cells = {"measure": measure, "objects": _range([row for row in found if row])}
            comparison.append(
                cells | {p: _value(row) if row else "-" for p, row in zip(products, found, strict=True)}
            )
    tables = [Table("All images", _LEGEND, comparison)]
    if with_limits:
        for product in (name for name in judged if name in products):
            tables.append(Table(f"Limits of {product}", _LIMIT_LEGEND, _limit_rows(product, rows)))
    return tables


def make_coverage_tables(records: Sequence[Mapping[str, dict[str, Any]]], product: str) -> list[Table]:
    """Make the tables of the coverage of an image.

    Parameters
    ----------
    records
        Records of the suite ``field``, by name of the image.
    product
        Its name.

    Returns
    -------
    tables : `list` [`Table`]
        In bins of the flux in the image, and of that in the truth; none if it
        declares no errors.
    """
    counted = [record[product].get("coverage", {}) for record in records if product in record]
    tables = []
    for bins, words in (("by_image", "in the image"), ("by_truth", "in the truth")):
        if rows := coverage_rows(counted, bins):
            title = f"Coverage of {product}, by the flux {words}"
            tables.append(Table(title, _COVERAGE_LEGEND, rows))
    return tables


def _limit_rows(product: str, rows: Sequence[Row]) -> list[dict[str, str]]:
    """Return a row for each figure of an image that has a limit."""
    table = []
    for row in rows:
        if row.product != product or row.measure not in LIMITS:
            continue
        limit = LIMITS[row.measure]
        table.append(
            {
                "measure": row.measure,
                "required": limit.compared_with or format_value(limit.required),
                "stretch": format_value(limit.stretch),
                "value": _value(row),
                "objects": _count(row),
                "verdict": judge(row, rows),
            }
        )
    return table


def _value(row: Row) -> str:
    return format_value((row.value, row.error if row.error > 0.0 else math.nan))


def _range(rows: Sequence[Row]) -> str:
    """Write the numbers of objects of several images."""
    numbers = sorted({row.number for row in rows})
    words = f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]}-{numbers[-1]}"
    return f"{words} {rows[0].of_what}"


def _count(row: Row) -> str:
    return f"{row.number} {row.of_what}"
