# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Figure that compares images of one patch, with zooms."""

from __future__ import annotations

__all__ = ("Zoom", "comparison_figure")

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from ._color import _show_picture
from ._style import (
    _OUTLINE,
    _STYLE,
    _add_color_bar,
    _add_scale_bar,
    _asinh_norm,
    _color_map,
    _new_figure,
    _plain,
    _show_image,
    _sky_sigma,
)

_FRAME_COLOR = "#5fd3c4"


@dataclass(frozen=True)
class Zoom:
    """A square cut-out that every panel shows enlarged.

    Attributes
    ----------
    x, y
        Centre in pixels of the images.
    size
        Side in pixels.
    label
        What there is to see, such as "close pair".
    """

    x: float
    y: float
    size: int
    label: str

    def corner(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Return the lower left pixel of the cut-out inside an image.

        Parameters
        ----------
        shape
            Height and width of the image in pixels.

        Returns
        -------
        x, y : `int`
            First column and first row; cut-outs are moved inwards at the
            borders.
        """
        x = min(max(round(self.x - self.size / 2), 0), max(shape[1] - self.size, 0))
        y = min(max(round(self.y - self.size / 2), 0), max(shape[0] - self.size, 0))
        return x, y


def comparison_figure(
    panels: Sequence[tuple[str, NDArray[Any]]],
    *,
    zooms: Sequence[Zoom] = (),
    pixel_scale: float,
    title: str = "",
) -> Figure:
    """Draw images of one patch in a row, and zooms of each below it.

    All images have one asinh stretch, which follows the sky noise of the
    least noisy of them that has any; so has every row of zooms.  Colour
    pictures are shown as they are.

    Parameters
    ----------
    panels
        Title and image in nJy, shape (H, W) alike, NaN where missing, or
        colour picture, shape (H, W, 3), uint8; best exposure, coadd, restored
        image and truth, for example.
    zooms
        Cut-outs, one row each.
    pixel_scale
        Size of a pixel in arcsec.
    title
        Title of the figure; none if empty.

    Returns
    -------
    figure : `matplotlib.figure.Figure`
        Figure of 3 inches for every column and row, with an Agg canvas.

    Raises
    ------
    ValueError
        If there is no panel or the images differ in shape.
    """
    shapes = {image.shape for _, image in panels}
    if len(shapes) != 1:
        raise ValueError(f"The panels must be images of one shape; got {sorted(shapes)}.")
    shape = shapes.pop()[:2]
    rows = 1 + len(zooms)
    with matplotlib.rc_context(_STYLE):
        height = 3.0 * (shape[0] / shape[1] + len(zooms)) + 0.7
        figure = _new_figure(3.0 * len(panels) + 0.9, height, 0.02)
        if title:
            figure.suptitle(_plain(title), fontsize=15)
        ratios = [shape[0] / shape[1]] + [1.0] * len(zooms)
        axes = figure.subplots(rows, len(panels), squeeze=False, height_ratios=ratios)
        images = [image for _, image in panels]
        draw = _draw_pictures if images[0].ndim == 3 else _draw_row
        draw(axes[0], images, images, pixel_scale)
        for (name, _), panel in zip(panels, axes[0], strict=True):
            panel.set_title(name)
        for number, (zoom, row) in enumerate(zip(zooms, axes[1:], strict=True), start=1):
            x, y = zoom.corner(shape)
            cuts = [image[y : y + zoom.size, x : x + zoom.size] for image in images]
            draw(row, cuts, images, pixel_scale)
            row[0].set_ylabel(f"{number}   {zoom.label}", labelpad=6, fontsize=11.5)
            for panel in axes[0]:
                _frame(panel, x, y, zoom.size, str(number))
            for panel in row:
                for spine in panel.spines.values():
                    spine.set(color=_FRAME_COLOR, linewidth=1.2)
    return figure


def _draw_row(
    row: Sequence[Axes], images: Sequence[NDArray[Any]], whole: Sequence[NDArray[Any]], pixel_scale: float
) -> None:
    """Draw a row of images with one stretch, by the sky noise of the whole
    ones, and one colour bar.
    """
    norm = _asinh_norm(list(images), float(np.median([_sky_sigma(image) for image in whole])))
    cmap = _color_map("magma", "#3a3a3a")
    for axes, image in zip(row, images, strict=True):
        drawn = _show_image(axes, image, norm, cmap)
    _add_scale_bar(row[0], images[0].shape, pixel_scale)
    _add_color_bar(drawn, row[-1], "nJy / pixel")


def _draw_pictures(
    row: Sequence[Axes], pictures: Sequence[NDArray[Any]], whole: Sequence[NDArray[Any]], pixel_scale: float
) -> None:
    """Draw a row of colour pictures."""
    for axes, picture in zip(row, pictures, strict=True):
        _show_picture(axes, picture, pixel_scale, bar=axes is row[0])


def _frame(axes: Axes, x: int, y: int, size: int, label: str) -> None:
    """Mark a cut-out in an image."""
    axes.add_patch(Rectangle((x - 0.5, y - 0.5), size, size, fill=False, ec=_FRAME_COLOR, lw=1.1))
    axes.annotate(
        label,
        (x - 0.5, y + size - 0.5),
        xytext=(2.5, -2.5),
        textcoords="offset points",
        color=_FRAME_COLOR,
        va="top",
        ha="left",
        size=10,
        path_effects=[_OUTLINE],
    )
