# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Cut-outs on the screen: in Firefly where it is present, else as figures."""

from __future__ import annotations

__all__ = ("show_cutout",)

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import ArrayLike

from ._style import _COLORS, _STYLE, _add_color_bar, _asinh_norm, _color_map, _new_figure, _plain, _sky_sigma

_POINT_SIZE = 6
"""Diameter in pixels of the circles around points in Firefly."""

_MISSING_COLOR = "#3a3a3a"
_UNKNOWN_COLOR = "#e8e8e8"


def show_cutout(
    cutout: Any,
    *,
    title: str,
    unit: str = "nJy / pixel",
    limits: tuple[float, float] | None = None,
    planes: Sequence[str] = (),
    points: tuple[ArrayLike, ArrayLike] | None = None,
    frame: int = 1,
) -> Any:
    """Show a part of a coadd, with mask planes and a catalogue on it.

    Where ``lsst.afw.display`` finds Firefly, as on the Rubin Science
    Platform, the cut-out appears there; elsewhere it is a figure.

    Parameters
    ----------
    cutout
        A `lsst.images.MaskedImage`, such as a part of a coadd or of the map
        of its demanded light.
    title
        Its title.
    unit
        Label of the values.
    limits
        Values that are black and white, on a linear scale; by default the
        scale is that of an asinh.
    planes
        Mask planes that are marked in a figure; Firefly has them all.
    points
        Columns and rows of sources, in pixels of the tract, shape (n,) each.
    frame
        Frame of Firefly.

    Returns
    -------
    shown : `lsst.afw.display.Display` or `matplotlib.figure.Figure`
        Where it is shown; a figure has an Agg canvas, 6 inches wide.

    Raises
    ------
    ValueError
        If the cut-out lacks one of the planes.
    """
    if unknown := sorted(set(planes) - set(cutout.mask.schema.names)):
        raise ValueError(
            f"The cut-out has no mask plane {', '.join(unknown)}; known are "
            f"{', '.join(sorted(cutout.mask.schema.names))}."
        )
    x, y = (np.atleast_1d(np.asarray(axis, dtype=float)) for axis in points or ((), ()))
    display = _firefly(frame)
    if display is None:
        marks = {plane: cutout.mask.get(plane) for plane in planes}
        return _draw(cutout, marks, x, y, title, unit, limits)
    legacy = cutout.to_legacy()
    # An exposure has its own.
    wcs = {} if hasattr(legacy, "getWcs") else {"wcs": cutout.sky_projection.to_legacy()}
    display.mtv(legacy, title=title, **wcs)
    display.scale(*(("asinh", "zscale") if limits is None else ("linear", *limits)))
    with display.Buffering():
        for column, row in zip(x, y, strict=True):
            display.dot("o", float(column), float(row), size=_POINT_SIZE, ctype="cyan")
    return display


def _firefly(frame: int) -> Any:
    """Return a display of Firefly; nothing where there is none."""
    try:
        from lsst.afw.display import Display

        return Display(frame=frame, backend="firefly")
    except (ImportError, RuntimeError):
        # Without afw, without its plug-in, and without a server.
        return None


def _draw(
    cutout: Any,
    marks: Mapping[str, Any],
    x: np.ndarray,
    y: np.ndarray,
    title: str,
    unit: str,
    limits: tuple[float, float] | None,
) -> Figure:
    """Draw a cut-out in pixels of the tract."""
    pixels, box = np.asarray(cutout.image.array, dtype=float), cutout.bbox
    extent = (box.x.start - 0.5, box.x.stop - 0.5, box.y.start - 0.5, box.y.stop - 0.5)
    placed: dict[str, Any] = {"origin": "lower", "interpolation": "nearest", "extent": extent}
    norm: Normalize
    if limits is None:
        norm, cmap = _asinh_norm([pixels], _sky_sigma(pixels)), _color_map("gray", _MISSING_COLOR)
    else:
        norm, cmap = Normalize(*limits), _color_map("RdYlGn", _UNKNOWN_COLOR)
    with matplotlib.rc_context(_STYLE):
        figure = _new_figure(6.0, 5.0 * pixels.shape[0] / pixels.shape[1] + 0.8, 0.06)
        axes: Axes = figure.subplots()
        drawn = axes.imshow(np.ma.masked_invalid(pixels), norm=norm, cmap=cmap, **placed)
        handles = []
        for color, (plane, mark) in zip(_mark_colors(len(marks)), marks.items(), strict=True):
            axes.imshow(np.ma.masked_where(~mark, mark), cmap=ListedColormap([color]), alpha=0.7, **placed)
            handles.append(Patch(color=color, label=_plain(plane)))
        inside = (x > extent[0]) & (x < extent[1]) & (y > extent[2]) & (y < extent[3])
        axes.scatter(x[inside], y[inside], s=60, facecolors="none", edgecolors="#00b7c7", linewidths=0.9)
        axes.set(title=_plain(title), xlabel="x (pixels of the tract)", ylabel="y (pixels of the tract)")
        _add_color_bar(drawn, axes, unit)
        if handles:
            figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def _mark_colors(number: int) -> list[str]:
    """Return colours of mask planes."""
    return [_COLORS[index % len(_COLORS)] for index in range(number)]
