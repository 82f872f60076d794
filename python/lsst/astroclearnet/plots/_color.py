# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Colour pictures of three bands."""

from __future__ import annotations

__all__ = (
    "COLOR_SCALES",
    "ColorStretch",
    "choose_range",
    "color_channels",
    "color_comparison_figure",
    "color_figure",
    "color_picture",
    "color_stretch",
)

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from astropy.visualization import make_lupton_rgb
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from ._style import _STYLE, _add_scale_bar, _new_figure, _plain, _sky_sigma

COLOR_SCALES = (0.8, 1.0, 1.5)
"""Factors of the fluxes in red, green and blue: i, r and g of stars and
galaxies are then white, yellow and blue as they are to the eye."""

_LINEAR_SIGMAS = 20.0
"""Range of the linear part of the stretch in sigma of the sky."""

_FAINTEST_PEAKS = 4.0
"""Range of the linear part in peaks of the faintest believable star: in the
demonstration it is then that of 20 sigma of the direct coadd."""

_SOFTENING = 8.0
_BLACK_SIGMAS = 1.0
_MISSING = 58
"""Grey level of pixels without data."""

_LONG_SIDE = 10.0
_LEAST_SIDE = 4.0
"""Sides of a figure in inches; a title needs the lesser."""

_DRAWN_PIXELS = 2000
"""Longer side of a picture that is drawn at most: a figure has no more."""

_MISSING_COST = 1000.0
"""Light that a missing pixel in a cut-out outweighs."""


@dataclass(frozen=True)
class ColorStretch:
    """How surface brightness becomes colour.

    Attributes
    ----------
    scales
        Factors of the red, the green and the blue image.
    minimum
        Level, after these factors, that is black.
    stretch
        Range of the linear part of the stretch, after these factors.
    softening
        The parameter Q of Lupton et al. (2004, PASP 116, 133).
    """

    scales: tuple[float, float, float]
    minimum: float
    stretch: float
    softening: float = _SOFTENING


def color_stretch(
    images: Sequence[NDArray[Any]], scales: tuple[float, float, float], linear: float | None = None
) -> ColorStretch:
    """Choose a stretch that shows faint light a little above the noise.

    Parameters
    ----------
    images
        Red, green and blue image in nJy, shape (H, W); NaN is ignored.
    scales
        Factors of the three.
    linear
        Range of the linear part in nJy, after the factors; by default 20
        sigma of the sky.

    Returns
    -------
    stretch : `ColorStretch`
        The stretch, to be used for all pictures that are to be compared.
    """
    sigma = float(np.median([f * _sky_sigma(image) for f, image in zip(scales, images, strict=True)]))
    return ColorStretch(scales, -_BLACK_SIGMAS * sigma, linear or _LINEAR_SIGMAS * sigma)


def choose_range(peaks: Sequence[Sequence[float]], scales: Sequence[float]) -> float | None:
    """Choose the linear range of a stretch by how faint stars are believable.

    The sky of restored coadds has too little noise to choose by.

    Parameters
    ----------
    peaks
        Peaks in nJy of the faintest believable star of the coadds of each
        band, two or three of red, green and blue; NaN where not known.
    scales
        Factors of red, green and blue.

    Returns
    -------
    linear : `float` or `None`
        Range in nJy, after the factors; `None` if no peak is known.
    """
    factors = scales if len(peaks) == len(scales) else (scales[0], scales[-1])
    known = [
        factor * float(np.nanmedian(values))
        for factor, values in zip(factors, peaks, strict=True)
        if np.isfinite(values).any()
    ]
    return _FAINTEST_PEAKS * float(np.median(known)) if known else None


def color_channels(images: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """Choose what is red, green and blue of images in two or three bands.

    Parameters
    ----------
    images
        Images in nJy, the reddest first, shape alike.

    Returns
    -------
    channels : `list` of `numpy.ndarray`
        Red, green and blue image: the three, or of two the first, their mean
        and the second.

    Raises
    ------
    ValueError
        If there are not two or three.
    """
    if len(images) == 3:
        return list(images)
    if len(images) != 2:
        raise ValueError(f"Colours need images in two or three bands; got {len(images)}.")
    first, last = images
    return [first, 0.5 * (first + last), last]


def color_picture(images: Sequence[NDArray[Any]], stretch: ColorStretch) -> NDArray[np.uint8]:
    """Make a colour picture of three images.

    Colours follow Lupton et al. (2004, PASP 116, 133), as of astropy: the
    stretch acts on the brightness and keeps the ratios of the bands.

    Parameters
    ----------
    images
        Red, green and blue image in nJy, shape (H, W) alike; NaN where
        missing.
    stretch
        The stretch.

    Returns
    -------
    picture : `numpy.ndarray`
        Shape (H, W, 3), uint8; grey where any image is missing.
    """
    planes = [f * np.asarray(image, dtype=float) for f, image in zip(stretch.scales, images, strict=True)]
    missing = ~np.isfinite(planes).all(axis=0)
    # Pixels without light have no ratio of bands.
    with np.errstate(invalid="ignore", divide="ignore"):
        picture = make_lupton_rgb(
            *(np.where(missing, stretch.minimum, plane) for plane in planes),
            minimum=stretch.minimum,
            stretch=stretch.stretch,
            Q=stretch.softening,
        )
    picture[missing] = _MISSING
    return np.asarray(picture, dtype=np.uint8)


def color_comparison_figure(
    panels: Sequence[tuple[str, NDArray[np.uint8]]], *, pixel_scale: float, title: str
) -> Figure:
    """Draw colour pictures of a patch, whole and enlarged, side by side.

    Parameters
    ----------
    panels
        Title and picture, shape (H, W, 3) alike; coadd and restored coadd,
        for example.
    pixel_scale
        Size of a pixel in arcsec.
    title
        Title of the figure.

    Returns
    -------
    figure : `matplotlib.figure.Figure`
        Figure with an Agg canvas, 5 inches for each panel; the second row
        shows the third of each side with the most light.

    Raises
    ------
    ValueError
        If there is no panel or the pictures differ in shape.
    """
    shapes = {picture.shape for _, picture in panels}
    if len(shapes) != 1:
        raise ValueError(f"The panels must be pictures of one shape; got {sorted(shapes)}.")
    height, width, _ = shapes.pop()
    cut = _brightest_part(panels[0][1])
    with matplotlib.rc_context(_STYLE):
        figure = _new_figure(5.0 * len(panels), 10.0 * height / width + 0.8, 0.03)
        figure.suptitle(_plain(title), fontsize=14)
        axes = figure.subplots(2, len(panels), squeeze=False)
        for column, (name, picture) in enumerate(panels):
            axes[0, column].set_title(name)
            _show_picture(axes[0, column], picture, pixel_scale)
            corner = (cut[1].start - 0.5, cut[0].start - 0.5)
            axes[0, column].add_patch(
                Rectangle(
                    corner, cut[1].stop - cut[1].start, cut[0].stop - cut[0].start, fill=False, ec="w", lw=0.8
                )
            )
            _show_picture(axes[1, column], picture[cut], pixel_scale)
    return figure


def color_figure(picture: NDArray[np.uint8], *, pixel_scale: float, title: str, note: str = "") -> Figure:
    """Draw one colour picture, such as that of a tract.

    Parameters
    ----------
    picture
        Shape (H, W, 3).
    pixel_scale
        Size of a pixel in arcsec.
    title
        Title of the figure.
    note
        Sentence below the picture, such as what is missing.

    Returns
    -------
    figure : `matplotlib.figure.Figure`
        Figure with an Agg canvas, 10 inches on its longer side.
    """
    height, width, _ = picture.shape
    long = max(height, width)
    with matplotlib.rc_context(_STYLE):
        figure = _new_figure(
            max(_LEAST_SIDE, _LONG_SIDE * width / long), _LONG_SIDE * height / long + 0.8, 0.03
        )
        figure.suptitle(_plain(title), fontsize=14)
        axes = figure.subplots()
        _show_picture(axes, _shrunk(picture), pixel_scale * _step(picture))
        if note:
            axes.set_xlabel(_plain(textwrap.fill(note, 110)), color="0.35")
    return figure


def _step(picture: NDArray[np.uint8]) -> int:
    """Return how many pixels of a large picture fall on one of a figure."""
    return max(1, max(picture.shape[:2]) // _DRAWN_PIXELS)


def _shrunk(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the means of blocks of a picture that is larger than drawn."""
    step = _step(picture)
    if step == 1:
        return picture
    height, width = (side // step for side in picture.shape[:2])
    blocks = picture[: height * step, : width * step].reshape(height, step, width, step, 3)
    return np.asarray(np.rint(blocks.mean(axis=(1, 3), dtype=np.float32)), dtype=np.uint8)


def _show_picture(axes: Axes, picture: NDArray[np.uint8], pixel_scale: float, bar: bool = True) -> None:
    """Draw a picture with the first row at the bottom, and a scale bar."""
    axes.imshow(picture, origin="lower", interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    if bar:
        _add_scale_bar(axes, (picture.shape[0], picture.shape[1]), pixel_scale)


def _brightest_part(picture: NDArray[np.uint8]) -> tuple[slice, slice]:
    """Return the ninth of a picture that shows most and misses least."""
    height, width = (max(1, side // 3) for side in picture.shape[:2])
    light = np.maximum(np.asarray(picture, dtype=float).mean(axis=2) - _MISSING, 0.0)
    light[(picture == _MISSING).all(axis=2)] = -_MISSING_COST
    best, place = -np.inf, (0, 0)
    for y in range(0, picture.shape[0] - height + 1, max(1, height // 4)):
        for x in range(0, picture.shape[1] - width + 1, max(1, width // 4)):
            total = float(light[y : y + height, x : x + width].sum())
            if total > best:
                best, place = total, (y, x)
    return np.s_[place[0] : place[0] + height, place[1] : place[1] + width]
