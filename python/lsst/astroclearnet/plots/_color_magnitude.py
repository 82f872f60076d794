# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Colours and magnitudes of a catalogue beside the truth."""

from __future__ import annotations

__all__ = ("color_magnitude_figure",)

from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ._style import _STYLE, _new_figure, _plain


def color_magnitude_figure(
    measured: NDArray[Any],
    truth: NDArray[Any],
    is_star: NDArray[np.bool_],
    *,
    bands: tuple[str, str],
    title: str,
) -> Figure:
    """Draw measured and true colours over magnitudes.

    Parameters
    ----------
    measured
        Measured fluxes in two bands, shape (2, n), in nJy; sources without a
        positive one in both are left out.
    truth
        True fluxes of the same sources, shape (2, n), in nJy.
    is_star
        Whether they are stars, shape (n,).
    bands
        Names of the bands; magnitudes are those of the second.
    title
        Title of the figure.

    Returns
    -------
    figure : `matplotlib.figure.Figure`
        Stars and galaxies in a panel each: true values as circles, measured
        ones as dots, with a line between.

    Raises
    ------
    ValueError
        If the arrays do not fit each other.
    """
    if measured.shape != truth.shape or measured.shape != (2, len(is_star)):
        raise ValueError(
            "Fluxes must have the shape (2, n) and stars (n,); "
            f"got {measured.shape}, {truth.shape} and {is_star.shape}."
        )
    usable = (measured > 0).all(axis=0) & (truth > 0).all(axis=0)
    with matplotlib.rc_context(_STYLE):
        figure = _new_figure(8.0, 4.4, 0.08)
        panels = figure.subplots(1, 2, sharex=True, sharey=True)
        for axes, name, chosen in zip(
            panels, ("Stars", "Galaxies"), (usable & is_star, usable & ~is_star), strict=True
        ):
            (color, magnitude), (true_color, true_magnitude) = (
                _color_magnitude(flux[:, chosen]) for flux in (measured, truth)
            )
            axes.plot([true_color, color], [true_magnitude, magnitude], color="0.75", lw=0.8, zorder=1)
            axes.scatter(true_color, true_magnitude, s=22, facecolors="none", edgecolors="0.3", label="truth")
            axes.scatter(color, magnitude, s=7, color="#c8553d", label="measured")
            axes.set_title(f"{name} ({np.count_nonzero(chosen)})")
            axes.set_xlabel(_plain(f"{bands[0]} - {bands[1]}"))
        panels[0].set_ylabel(_plain(f"{bands[1]} (AB)"))
        panels[0].invert_yaxis()
        panels[1].legend(loc="upper left")
        figure.suptitle(_plain(title))
    return figure


def _color_magnitude(flux: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return colours and AB magnitudes of fluxes in nJy."""
    first, second = 31.4 - 2.5 * np.log10(np.asarray(flux, dtype=float))
    return first - second, second
