# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Map of the light that the exposures demand."""

from __future__ import annotations

__all__ = ("demand_figure",)

from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from ._style import _STYLE, _add_color_bar, _asinh_norm, _color_map, _new_figure, _plain, _sky_sigma

_SUPPLIED_COLOR = "#ff2a7f"
_WITHHELD_COLOR = "#2b5fb4"
_PLAIN_COLOR = "#e8e8e8"
_MISSING_COLOR = "#3a3a3a"

_DRAWN_SIZE = 1000
"""Pixels on a side of a map that are drawn at most."""


def demand_figure(
    image: NDArray[Any],
    share: NDArray[Any],
    supplied: NDArray[np.bool_],
    withheld: NDArray[np.bool_],
    *,
    origin: tuple[int, int],
    title: str,
) -> Figure:
    """Draw which light of a restored coadd the exposures demand.

    Parameters
    ----------
    image
        Restored coadd in nJy, shape (H, W), NaN without data.
    share
        Demanded share of the light that stands out, shape (H, W), NaN
        elsewhere.
    supplied, withheld
        Pixels with light that the network supplied, and that it withheld,
        shape (H, W).
    origin
        Row and column of the first pixel, in pixels of the tract.
    title
        Title of the figure.

    Returns
    -------
    figure : `matplotlib.figure.Figure`
        Figure with an Agg canvas, 14 inches wide: image and share side by
        side, with supplied and withheld light on both.  Of a large patch each
        drawn pixel is a block, which is marked if any pixel in it is.
    """
    height, width = image.shape
    step = max(1, -(-max(height, width) // _DRAWN_SIZE))
    y, x = origin
    extent = (x - 0.5, x - 0.5 + width, y - 0.5, y - 0.5 + height)
    planes = {
        name: _marked(plane, step, extent) for name, plane in (("supplied", supplied), ("withheld", withheld))
    }
    with matplotlib.rc_context(_STYLE):
        figure = _new_figure(14.0, 6.3 * height / width + 1.3, 0.06)
        figure.suptitle(_plain(title))
        left, right = figure.subplots(1, 2, sharex=True, sharey=True)
        norm = _asinh_norm([image], _sky_sigma(image))
        _draw(left, _block_mean(image, step), norm, "gray", _MISSING_COLOR, extent, "nJy / pixel")
        left.set_title("Restored coadd")
        shown = _block_mean(share, step)
        label = "demanded share of the light that stands out"
        _draw(right, shown, Normalize(0.0, 1.0), "RdYlGn", _PLAIN_COLOR, extent, label)
        right.set_title("Demanded by the exposures")
        handles = []
        for name, color in (("supplied", _SUPPLIED_COLOR), ("withheld", _WITHHELD_COLOR)):
            for axes in (left, right):
                axes.imshow(cmap=ListedColormap([color]), **planes[name])
            count = int(np.count_nonzero(supplied if name == "supplied" else withheld))
            handles.append(Patch(color=color, label=f"{name}: {count} pixels"))
        left.set(xlabel="x (pixels of the tract)", ylabel="y (pixels of the tract)")
        right.set(xlabel="x (pixels of the tract)")
        figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


def _draw(
    axes: Axes,
    plane: NDArray[Any],
    norm: Normalize,
    cmap: str,
    bad: str,
    extent: tuple[float, float, float, float],
    label: str,
) -> None:
    """Draw a plane with its colour bar."""
    drawn = axes.imshow(
        np.ma.masked_invalid(plane),
        origin="lower",
        norm=norm,
        cmap=_color_map(cmap, bad),
        interpolation="nearest",
        extent=extent,
    )
    _add_color_bar(drawn, axes, label)


def _marked(plane: NDArray[np.bool_], step: int, extent: tuple[float, float, float, float]) -> dict[str, Any]:
    """Return how marks are drawn over a plane."""
    blocks = _blocks(np.asarray(plane, dtype=bool), step, False).any(axis=(1, 3))
    return {
        "X": np.ma.masked_where(~blocks, blocks),
        "origin": "lower",
        "interpolation": "nearest",
        "extent": extent,
    }


def _block_mean(plane: NDArray[Any], step: int) -> NDArray[np.float64]:
    """Return the means of the values in blocks, NaN without any."""
    blocks = _blocks(np.asarray(plane, dtype=float), step, np.nan)
    known = np.isfinite(blocks)
    count = known.sum(axis=(1, 3))
    total = np.where(known, blocks, 0.0).sum(axis=(1, 3))
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def _blocks(plane: NDArray[Any], step: int, fill: Any) -> NDArray[Any]:
    """Return a plane as blocks, shape (rows, step, columns, step)."""
    height, width = plane.shape
    padded = np.pad(plane, ((0, -height % step), (0, -width % step)), constant_values=fill)
    return padded.reshape(padded.shape[0] // step, step, padded.shape[1] // step, step)
