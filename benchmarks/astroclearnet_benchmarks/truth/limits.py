# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What is required of an image that looks true, and whether it is met."""

from __future__ import annotations

__all__ = ("LIMITS", "Limit", "judge")

import dataclasses
import math
from collections.abc import Sequence

from .figures import Row

LINEAR, COADD = "restored_coadd_linear", "inverse-variance coadd"
"""Names of the images that others are compared with."""


@dataclasses.dataclass(frozen=True)
class Limit:
    """A limit on a figure.

    Attributes
    ----------
    required, stretch
        Largest absolute value that is accepted, and aimed at; NaN without
        one.
    compared_with
        Name of the image whose figure is the limit instead.
    is_least
        Whether that is a lower limit.
    num_errors
        Standard errors of the difference by which it may be missed.
    """

    required: float = math.nan
    stretch: float = math.nan
    compared_with: str = ""
    is_least: bool = False
    num_errors: float = 0.0


LIMITS: dict[str, Limit] = {
    "error far: sky": Limit(0.10, 0.08),
    "error far: faint": Limit(1.15, 1.0),
    "error far: sources": Limit(1.85, 1.75),
    "error far: all": Limit(0.58, 0.54),
    "error everywhere: sky": Limit(0.12, 0.10),
    "error everywhere: all": Limit(0.65, 0.60),
    "halo": Limit(0.155, 0.14),
    "asymmetry": Limit(0.03),
    "smoothness": Limit(0.002),
    "asymmetry, structured": Limit(0.03),
    "smoothness, structured": Limit(0.002),
    "bias, star 5-20": Limit(0.05, 0.04),
    "bias, star 20-100": Limit(0.005, 0.004),
    "bias, star above 100": Limit(0.001, 0.001),
    "bias, knot 10": Limit(0.07, 0.05),
    "bias, knot 20": Limit(0.02, 0.01),
    "bias, arc": Limit(0.02, 0.01),
    "bias, real structure": Limit(0.02, 0.01),
    "completeness: isolated, i = 26": Limit(compared_with=LINEAR, is_least=True, num_errors=2.0),
    "completeness: isolated, i = 26.5": Limit(compared_with=LINEAR, is_least=True, num_errors=2.0),
    "completeness: companions": Limit(compared_with=LINEAR, is_least=True),
    "false per galaxy": Limit(compared_with=COADD),
    "false per galaxy with a companion": Limit(compared_with=COADD),
    "false per star": Limit(compared_with=COADD),
    "difference of two seeds": Limit(0.15, 0.1),
    "harm of a bad exposure": Limit(0.01),
    **{f"coverage within {sigmas}, by image": Limit(0.03) for sigmas in (1, 2, 3)},
}
"""Limits by name of the figure, for 12 exposures and a target of 3 pixels."""

_SURE = 1.0 / 3.0
"""Largest standard error relative to the limit."""


def judge(row: Row, rows: Sequence[Row]) -> str:
    """Say whether a figure keeps its limit.

    Parameters
    ----------
    row
        The figure.
    rows
        Figures of all images, for the comparison with another one.

    Returns
    -------
    verdict : `str`
        ``met``, ``stretch met`` or ``**missed**``, with ``uncertain`` if the
        standard error is more than a third of the limit; empty without a
        limit.  A limit is met when the absolute value plus one standard error
        is within it; harm may be negative without bounds.
    """
    limit = LIMITS.get(row.measure)
    if limit is None:
        return ""
    if limit.compared_with:
        return _compare(row, rows, limit)
    value = row.value if row.measure == "harm of a bad exposure" else abs(row.value)
    error = row.error if math.isfinite(row.error) else 0.0
    if value + error <= limit.stretch:
        verdict = "stretch met"
    else:
        verdict = "met" if value + error <= limit.required else "**missed**"
    sure = math.isfinite(row.error) and row.error <= _SURE * limit.required
    return verdict if sure else f"{verdict}, uncertain"


def _compare(row: Row, rows: Sequence[Row], limit: Limit) -> str:
    """Compare with the figure of another image."""
    others = [r for r in rows if (r.product, r.measure) == (limit.compared_with, row.measure)]
    if not others or row.product == limit.compared_with:
        return ""
    (other,) = others
    gain = (row.value - other.value) * (1.0 if limit.is_least else -1.0)
    slack = limit.num_errors * math.hypot(row.error, other.error)
    return "met" if gain >= -(slack if math.isfinite(slack) else 0.0) else "**missed**"
