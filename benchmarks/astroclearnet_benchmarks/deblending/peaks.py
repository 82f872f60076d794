# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Peaks of an image, and how clearly each stands apart from higher ones."""

from __future__ import annotations

__all__ = ("Peak", "find_peaks")

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

type Array = npt.NDArray[np.float64]
type Mask = npt.NDArray[np.bool_]


class Peak(NamedTuple):
    """A local maximum.

    Attributes
    ----------
    y, x
        Position, to a fraction of a pixel.
    height
        Brightness of its pixel.
    depth
        Depth of the saddle to any higher peak, over the height; 1 for the
        highest of a footprint.
    """

    y: float
    x: float
    height: float
    depth: float


def find_peaks(image: Array, footprint: Mask) -> list[Peak]:
    """Find the local maxima of an image.

    Parameters
    ----------
    image
        Shape (H, W).
    footprint
        Pixels that count, shape (H, W).

    Returns
    -------
    peaks : `list` [`Peak`]
        Maxima of positive brightness among their eight neighbours, highest
        first.

    Notes
    -----
    Pixels are taken up from the brightest to the faintest; each joins the
    regions that it touches, and where two regions meet is the saddle of the
    lower peak.
    """
    height, width = image.shape
    flat = np.flatnonzero(footprint & (image > 0.0))
    values = image.ravel()
    order = flat[np.argsort(-values[flat], kind="stable")]
    parent: dict[int, int] = {}
    depths: dict[int, float] = {}

    def root(pixel: int) -> int:
        while parent[pixel] != pixel:
            parent[pixel] = parent[parent[pixel]]
            pixel = parent[pixel]
        return pixel

    for pixel in order.tolist():
        y, x = divmod(pixel, width)
        beside = {
            root(other)
            for row in range(max(y - 1, 0), min(y + 2, height))
            for column in range(max(x - 1, 0), min(x + 2, width))
            if (other := row * width + column) in parent
        }
        if not beside:
            parent[pixel] = pixel
            depths[pixel] = 1.0
            continue
        highest = max(beside, key=lambda peak: values[peak])
        parent[pixel] = highest
        for peak in beside - {highest}:
            parent[peak] = highest
            depths[peak] = float((values[peak] - values[pixel]) / values[peak])
    # A plateau of equal pixels has one peak: the others have no depth.
    return [
        Peak(*_refine(image, *divmod(pixel, width)), float(values[pixel]), depth)
        for pixel, depth in depths.items()
        if depth > 0.0
    ]


def _refine(image: Array, y: int, x: int) -> tuple[float, float]:
    """Return the vertex of the parabolas through a maximum."""
    shifts = []
    for axis, (position, length) in enumerate(zip((y, x), image.shape, strict=True)):
        shift = 0.0
        if 0 < position < length - 1:
            line = (
                image[position - 1 : position + 2, x] if axis == 0 else image[y, position - 1 : position + 2]
            )
            curvature = float(line[0] - 2.0 * line[1] + line[2])
            if curvature < 0.0:
                shift = float(np.clip(0.5 * (line[0] - line[2]) / curvature, -0.5, 0.5))
        shifts.append(position + shift)
    return shifts[0], shifts[1]
