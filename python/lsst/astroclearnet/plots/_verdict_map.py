# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Map of the patches of a tract by verdict."""

from __future__ import annotations

__all__ = ("quality_map",)

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from ._style import _STYLE, _new_figure, _plain

_VERDICT_COLORS = {"good": "#7fb58a", "check": "#f2c65a", "bad": "#c8553d"}
"""Colours, told apart by colour-blind eyes and in grey too."""

_MAX_LABELS = 150
"""Number of patches up to which each has its figures written into it."""


@dataclass(frozen=True)
class _PatchBox:
    """A patch on the map."""

    label: str
    x: tuple[float, float]
    y: tuple[float, float]
    verdict: str
    lines: tuple[str, ...] = ()


def _verdict_map(patches: Sequence[_PatchBox], *, title: str) -> Figure:
    """Draw the patches of a tract, coloured by verdict."""
    if not patches:
        raise ValueError("A map needs at least one patch.")
    left, right = min(p.x[0] for p in patches), max(p.x[1] for p in patches)
    bottom, top = min(p.y[0] for p in patches), max(p.y[1] for p in patches)
    size = max(right - left, top - bottom)
    with matplotlib.rc_context(_STYLE):
        columns = max(1.0, size / max(p.x[1] - p.x[0] for p in patches))
        side = float(np.clip(1.6 * columns, 4.0, 8.0))
        width, height = (side * extent / size for extent in (right - left, top - bottom))
        width = max(3.4, width)
        figure = _new_figure(width + 1.0, height + 1.4, 0.06)
        axes = figure.subplots()
        axes.set_title(_plain(title))
        font = min(11.0, 60.0 / columns)
        for patch in patches:
            box = Rectangle(
                (patch.x[0] - 0.5, patch.y[0] - 0.5),
                patch.x[1] - patch.x[0],
                patch.y[1] - patch.y[0],
                facecolor=_VERDICT_COLORS[patch.verdict],
                edgecolor="white",
                linewidth=1.2,
            )
            axes.add_patch(box)
            if len(patches) <= _MAX_LABELS:
                axes.annotate(
                    "\n".join((patch.label, *patch.lines)),
                    (0.5 * sum(patch.x), 0.5 * sum(patch.y)),
                    ha="center",
                    va="center",
                    fontsize=font,
                    linespacing=1.35,
                )
        axes.set(xlim=(left - 0.5, right - 0.5), ylim=(bottom - 0.5, top - 0.5), aspect="equal")
        axes.set(xlabel="x (pixels of the tract)", ylabel="y (pixels of the tract)")
        counts = Counter(patch.verdict for patch in patches)
        handles = [Patch(color=color, label=f"{v}: {counts[v]}") for v, color in _VERDICT_COLORS.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def quality_map(qualities: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the verdicts of patches of a tract.

    Parameters
    ----------
    qualities
        The dataset ``restored_coadd_quality`` of each patch, at least one,
        all of one tract and band.

    Returns
    -------
    figure : `matplotlib.figure.Figure`
        Figure with an Agg canvas, at most 9 inches wide and high: the inner
        boxes of the patches, coloured by verdict, with the FWHM of the
        exposures and of the restored coadd, and the depth of the linear
        coadd.
    """
    boxes = []
    for quality in qualities:
        patch, figures = quality["patch"], quality["metrics"]
        lines = [f"{figures['fwhm_in']:.2f} \N{RIGHTWARDS ARROW} {figures['fwhm_out']:.2f}\N{DOUBLE PRIME}"]
        if math.isfinite(figures["depth_linear"]):
            lines.append(f"{figures['depth_linear']:.2f} mag")
        (left, right), (bottom, top) = patch["inner_x"], patch["inner_y"]
        boxes.append(
            _PatchBox(str(patch["patch"]), (left, right), (bottom, top), quality["verdict"], tuple(lines))
        )
    first = qualities[0]["patch"]
    return _verdict_map(boxes, title=f"{first['skymap']}, tract {first['tract']}, {first['band']}")
