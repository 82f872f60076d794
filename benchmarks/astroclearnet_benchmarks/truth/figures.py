# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Figures of a method: values with standard errors, from its records."""

from __future__ import annotations

__all__ = ("FIGURES", "Row", "make_rows")

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..record import format_value
from .coverage import NOMINAL
from .surroundings import DETECTION_CLASSES, detection_figures

type Records = Sequence[dict[str, Any]]
"""Records of a product, one for each scene of a suite."""

_BOOTSTRAPS = 200
_MIN_PIXELS = 2000
"""Pixels that a bin needs for its coverage to be known to a percent."""


@dataclasses.dataclass(frozen=True)
class Figure:
    """How a figure follows from records.

    Attributes
    ----------
    suite
        Suite whose records it needs.
    value
        Function of the records that returns it, NaN if they do not tell.
    number
        Function of the records that returns the number of objects.
    of_what
        What these objects are.
    """

    suite: str
    value: Callable[[Records], float]
    number: Callable[[Records], int]
    of_what: str = "scenes"


@dataclasses.dataclass(frozen=True)
class Row:
    """A figure of a method.

    Attributes
    ----------
    product
        Name of the image.
    measure
        Name of the figure, one of `FIGURES`.
    value
        Its value.
    error
        Its standard error, by bootstrap over scenes; NaN for fewer than two.
    number
        Number of objects.
    of_what
        What they are.
    """

    product: str
    measure: str
    value: float
    error: float
    number: int
    of_what: str

    def __str__(self) -> str:
        value = format_value((self.value, self.error if self.error > 0.0 else math.nan))
        return f"{self.product} | {self.measure} | {value} | {self.number} {self.of_what}"


def make_rows(records: Mapping[str, Sequence[Mapping[str, dict[str, Any]]]]) -> list[Row]:
    """Return the figures of all products.

    Parameters
    ----------
    records
        By suite, a record of `measure_case` for each scene.

    Returns
    -------
    rows : `list` [`Row`]
        A row for each product and figure that the records hold, in the order
        of the products and of `FIGURES`.
    """
    products = dict.fromkeys(name for each in records.values() for record in each for name in record)
    rows = []
    for product in products:
        for measure, figure in FIGURES.items():
            used = [r[product] for r in records.get(figure.suite, ()) if product in r]
            value = figure.value(used) if used else math.nan
            if math.isfinite(value):
                error = _bootstrap(figure.value, used)
                rows.append(Row(product, measure, value, error, figure.number(used), figure.of_what))
    return rows


def _bootstrap(function: Callable[[Records], float], records: Records) -> float:
    """Return the standard error of a function of scenes."""
    number = len(records)
    if number < 2:
        return math.nan
    rng = np.random.default_rng(0)
    values = [
        function([records[index] for index in rng.integers(number, size=number)]) for _ in range(_BOOTSTRAPS)
    ]
    # The variance of a resampled mean is too small by (n - 1) / n.
    return float(np.nanstd(values) * math.sqrt(number / (number - 1)))


def _scene_mean(suite: str, *path: str) -> Figure:
    """Return the mean over scenes of a value."""

    def values(records: Records) -> list[float]:
        found = []
        for record in records:
            value: Any = record
            for name in path:
                value = value.get(name, math.nan) if isinstance(value, dict) else math.nan
            if math.isfinite(value):
                found.append(float(value))
        return found

    return Figure(suite, lambda records: _mean(values(records)), lambda records: len(values(records)))


def _objects(
    suite: str, group: str, name: str, summarise: Callable[[list[float]], float], of_what: str
) -> Figure:
    """Return a figure of all objects of all scenes."""

    def values(records: Records) -> list[float]:
        return [value for record in records for value in record.get(group, {}).get(name, ())]

    return Figure(
        suite, lambda records: summarise(values(records)), lambda records: len(values(records)), of_what
    )


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else math.nan


def _median(values: list[float]) -> float:
    return float(np.median(values)) if values else math.nan


def _bias(values: list[float]) -> float:
    return _mean(values) - 1.0


def _detection(suite: str, name: str) -> Figure:
    """Return a figure of detection."""
    sources = {"false per galaxy": "galaxies", "false per star": "stars"}

    def number(records: Records) -> int:
        if name in sources:
            return sum(record[sources[name]] for record in searched(records))
        index = DETECTION_CLASSES.index(name)
        return sum(record["sources"][index] for record in searched(records))

    def value(records: Records) -> float:
        used = searched(records)
        return detection_figures(used)[name] if used else math.nan

    def searched(records: Records) -> Records:
        return [record["detection"] for record in records if "detection" in record]

    return Figure(suite, value, number, sources.get(name, "sources"))


def _coverage(sigmas: int, bins: str) -> Figure:
    """Return the largest deviation of a coverage from nominal in any bin."""

    def counts(records: Records) -> np.ndarray:
        used = [np.array(r["coverage"][bins]) for r in records if r.get("coverage")]
        return np.asarray(np.sum(used, axis=0)) if used else np.zeros((0, 0, 4))

    def value(records: Records) -> float:
        total = counts(records)
        enough = total[..., 0] >= _MIN_PIXELS
        if not enough.any():
            return math.nan
        share = total[..., sigmas][enough] / total[..., 0][enough]
        deviation = share - NOMINAL[sigmas - 1]
        return float(deviation[np.argmax(np.abs(deviation))])

    return Figure("field", value, lambda records: int(counts(records)[..., 0].sum()), "pixels")


def _error_figures() -> dict[str, Figure]:
    figures = {}
    for words, region in (("far", "far"), ("everywhere", "everywhere")):
        for name in ("sky", "faint", "sources", "all"):
            figures[f"error {words}: {name}"] = _scene_mean("field", "pixels", region, name)
    return figures


FIGURES: dict[str, Figure] = {
    **_error_figures(),
    "halo": _objects("field", "halos", "halo", _median, "galaxies"),
    "mottle": _objects("field", "halos", "mottle", _median, "galaxies"),
    "halo, structured": _objects("hosts", "halos", "halo", _median, "galaxies"),
    "mottle, structured": _objects("hosts", "halos", "mottle", _median, "galaxies"),
    "asymmetry": _objects("field", "shapes", "asymmetry", _median, "galaxies"),
    "smoothness": _objects("field", "shapes", "smoothness", _median, "galaxies"),
    "asymmetry, structured": _objects("hosts", "shapes", "asymmetry", _median, "galaxies"),
    "smoothness, structured": _objects("hosts", "shapes", "smoothness", _median, "galaxies"),
    "bias, star 5-20": _objects("injections", "injections", "star 5-20", _bias, "stars"),
    "bias, star 20-100": _objects("injections", "injections", "star 20-100", _bias, "stars"),
    "bias, star above 100": _objects("injections", "injections", "star above 100", _bias, "stars"),
    "bias, knot 10": _objects("hosts", "injections", "knot 10", _bias, "knots"),
    "bias, knot 20": _objects("hosts", "injections", "knot 20", _bias, "knots"),
    "bias, arc": _objects("injections", "injections", "arc", _bias, "arcs"),
    "bias, real structure": _objects("injections", "injections", "real", _bias, "galaxies"),
    **{
        f"response at {ratio}": _objects("injections", "injections", f"response {ratio}", _mean, "stars")
        for ratio in range(1, 6)
    },
    "completeness: isolated, i = 26": _detection("field", DETECTION_CLASSES[0]),
    "completeness: isolated, i = 26.5": _detection("field", DETECTION_CLASSES[1]),
    "completeness: companions": _detection("companions", DETECTION_CLASSES[2]),
    "false per galaxy": _detection("field", "false per galaxy"),
    "false per galaxy with a companion": _detection("companions", "false per galaxy"),
    "false per star": _detection("field", "false per star"),
    "difference of two seeds": _scene_mean("field", "difference"),
    "harm of a bad exposure": _scene_mean("field", "harm"),
    **{
        f"coverage within {sigmas}, {words}": _coverage(sigmas, bins)
        for bins, words in (("by_image", "by image"), ("by_truth", "by truth"))
        for sigmas in (1, 2, 3)
    },
    **{
        f"{suite}: {name}": _scene_mean(suite, "pixels", "far", part)
        for suite in ("hosts", "companions", "crowded", "cluster", "nebula", "dithered")
        for name, part in (("error on sources", "sources"), ("total error", "all"))
    },
    **{
        f"{suite}: halo": _objects(suite, "halos", "halo", _median, "galaxies")
        for suite in ("cluster", "nebula", "dithered")
    },
}
"""The figures by name, in the order of the table."""
