# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Figure of the completeness and fluxes of injected sources."""

from __future__ import annotations

__all__ = ("completeness_figure",)

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from ._style import _COLORS, _STYLE, _new_figure, _plain

_PANELS = (
    ("star", "magnitude", "Stars", "Magnitude (AB)"),
    ("galaxy", "magnitude", "Galaxies", "Magnitude (AB)"),
    ("galaxy", "surface_brightness", "Galaxies", "Surface brightness (mag arcsec$^{-2}$)"),
)
"""Kind, property, title and label of the columns."""

_NUMBERS = (
    *("low", "high", "completeness", "completeness_low", "completeness_high"),
    *("flux_ratio", "flux_ratio_error"),
)
"""What is drawn of a bin."""

_OFFSET = 0.06
"""Shift between images, in widths of a bin, so that error bars do not hide
each other."""


def completeness_figure(bins: Sequence[Mapping[str, Any]], *, title: str) -> Figure:
    """Draw completeness and flux ratios of injected sources.

    Parameters
    ----------
    bins
        Those of `~lsst.astroclearnet.metrics.count_recovered`, with the
        ``image``, the ``kind`` (``star`` or ``galaxy``) and the ``property``
        (``magnitude`` or ``surface_brightness``).
    title
        Title of the figure.

    Returns
    -------
    figure : `matplotlib.figure.Figure`
        A column for stars by magnitude, and two for galaxies by magnitude and
        by surface brightness; completeness above, measured over true flux
        below.

    Raises
    ------
    ValueError
        If there are no bins.
    """
    if not bins:
        raise ValueError("A figure of completeness needs at least one bin.")
    names = list(dict.fromkeys(str(each["image"]) for each in bins))
    with matplotlib.rc_context(_STYLE):
        figure = _new_figure(10.0, 5.4, 0.06)
        figure.suptitle(_plain(title))
        axes = figure.subplots(2, len(_PANELS), sharex="col", sharey="row")
        for (above, below), (kind, quantity, heading, label) in zip(axes.T, _PANELS, strict=True):
            above.set_title(heading)
            below.set_xlabel(label)
            below.axhline(1.0, color="0.6", linewidth=0.7, zorder=0)
            for index, name in enumerate(names):
                chosen = [
                    each
                    for each in bins
                    if (each["image"], each["kind"], each["property"]) == (name, kind, quantity)
                ]
                if not chosen:
                    continue
                values = {key: np.array([each[key] for each in chosen]) for key in _NUMBERS}
                width = values["high"] - values["low"]
                x = 0.5 * (values["low"] + values["high"]) + _OFFSET * width * (
                    index - 0.5 * (len(names) - 1)
                )
                style = {"color": _COLORS[index % len(_COLORS)], "marker": "o", "markersize": 4, "capsize": 2}
                complete = values["completeness"]
                reach = [complete - values["completeness_low"], values["completeness_high"] - complete]
                above.errorbar(x, complete, yerr=reach, label=_plain(name), **style)
                below.errorbar(
                    x, values["flux_ratio"], yerr=values["flux_ratio_error"], label=_plain(name), **style
                )
        axes[0, 0].set_ylabel("Completeness")
        axes[0, 0].set_ylim(-0.03, 1.03)
        axes[1, 0].set_ylabel("Measured / true flux")
        axes[1, 0].set_ylim(0.0, 1.5)
        axes[0, 0].legend(loc="lower left")
    return figure
