# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Sky maps and PSFs of the full stack."""

from __future__ import annotations

__all__ = ("LegacyPointSpreadFunction", "patch_geometry_from_skymap", "refine_legacy_sky_map")

import itertools
import math
from functools import cached_property
from typing import Any

import numpy as np

from lsst.images import YX, Box, Image, SkyProjection, TractFrame
from lsst.images.cells import CellGrid, PatchDefinition
from lsst.images.psfs import PointSpreadFunction

from ._geometry import PatchGeometry, choose_cell_shape
from ._refine import corner_distance, require_factor

_SCALED_BY_BUILDER = {
    "legacy": ("patchInnerDimensions", "patchBorder"),
    "cells": ("cellInnerDimensions", "cellBorder"),
}
"""Options of the tract builders of lsst.skymap that are numbers of pixels."""


def patch_geometry_from_skymap(
    skymap: Any, *, name: str, tract: int, patch: int, cell_size: int
) -> PatchGeometry:
    """Take the geometry of a patch from a sky map of the full stack.

    A patch whose tract builder defines cells keeps them, without the border
    that the outer box adds.

    Parameters
    ----------
    skymap
        A ``lsst.skymap.BaseSkyMap``.
    name
        Name of the sky map.
    tract, patch
        Tract ID and sequential patch ID.
    cell_size
        Side in pixels of the cells of a patch without cells; the nearest size
        that divides its outer box is taken.

    Raises
    ------
    ValueError
        If no size between half and twice that divides the outer box.
    """
    tract_info = skymap[tract]
    patch_info = tract_info[patch]
    outer = Box.from_legacy(patch_info.getOuterBBox())
    if patch_info.getNumCells().x > 0:
        inner_size = patch_info.getCellInnerDimensions()
        cell_shape = YX(y=inner_size.y, x=inner_size.x)
        outer = outer.padded(-patch_info.getCellBorder())
    else:
        cell_shape = choose_cell_shape(outer, cell_size)
    frame = TractFrame(skymap=name, tract=tract, bbox=Box.from_legacy(tract_info.getBBox()))
    index = patch_info.getIndex()
    return PatchGeometry(
        projection=SkyProjection.from_legacy(tract_info.getWcs(), frame),
        definition=PatchDefinition(
            id=patch,
            index=YX(y=index.y, x=index.x),
            inner_bbox=Box.from_legacy(patch_info.getInnerBBox()),
            cells=CellGrid(bbox=outer, cell_shape=cell_shape),
        ),
    )


def refine_legacy_sky_map(skymap: Any, factor: int) -> Any:
    """Return a sky map of the full stack with smaller pixels.

    It has the same tracts and patches.  Their edges are those of whole pixels
    and may differ by the side of a pixel of the given sky map.

    Parameters
    ----------
    skymap
        A ``lsst.skymap.BaseSkyMap``.
    factor
        Ratio of the pixel scales, at least 2.

    Returns
    -------
    refined : ``lsst.skymap.BaseSkyMap``
        A sky map of the same class.

    Raises
    ------
    ValueError
        If the factor is smaller, the tract builder is not known, or tracts and
        patches would not be the same.
    """
    require_factor(factor)
    config = type(skymap.config)()
    config.loadFromString(skymap.config.saveToString())
    builder = config.tractBuilder.name
    if builder not in _SCALED_BY_BUILDER:
        known = ", ".join(_SCALED_BY_BUILDER)
        raise ValueError(f"The tract builder {builder!r} of the sky map is not known; known are {known}.")
    pixel = math.radians(config.pixelScale / 3600.0)
    config.pixelScale /= factor
    options = config.tractBuilder[builder]
    for name in _SCALED_BY_BUILDER[builder]:
        value = getattr(options, name)
        setattr(options, name, factor * value if isinstance(value, int) else [factor * v for v in value])
    refined = type(skymap)(config)
    for tract, finer in itertools.zip_longest(skymap, refined):
        if tract is None or finer is None or tuple(tract.getNumPatches()) != tuple(finer.getNumPatches()):
            raise ValueError(
                "A sky map of these pixels would have other tracts or patches; try another factor."
            )
        if corner_distance(tract.getOuterSkyPolygon(), finer.getOuterSkyPolygon()) > 1.5 * pixel:
            raise ValueError("Smaller pixels would move tracts by more than a pixel; try another factor.")
    return refined


class LegacyPointSpreadFunction(PointSpreadFunction):
    """PSF of a warp or coadd of the full stack, for all of its box.

    Where it has no inputs the PSF is that at the average position.  Every
    kernel has the box of that one, with a margin.

    Parameters
    ----------
    psf
        A ``lsst.meas.algorithms.CoaddPsf`` or another PSF.
    bounds
        Box of the warp or coadd.
    """

    _MARGIN = 4

    def __init__(self, psf: Any, bounds: Box) -> None:
        self._psf = psf
        self._bounds = bounds

    @property
    def bounds(self) -> Box:
        return self._bounds

    @cached_property
    def kernel_bbox(self) -> Box:
        kernel = self._psf.computeKernelImage(self._psf.getAveragePosition())
        radius = max(Box.from_legacy(kernel.getBBox()).shape) // 2 + self._MARGIN
        return Box.factory[-radius : radius + 1, -radius : radius + 1]

    def compute_kernel_image(self, *, x: float, y: float) -> Image:
        kernel = Image.from_legacy(self._compute("computeKernelImage", x, y))
        common = kernel.bbox.intersection(self.kernel_bbox)
        result = Image(0.0, bbox=self.kernel_bbox, dtype=np.float64)
        result[common] = kernel[common]
        return result

    def compute_stellar_image(self, *, x: float, y: float) -> Image:
        return Image.from_legacy(self._compute("computeImage", x, y))

    def compute_stellar_bbox(self, *, x: float, y: float) -> Box:
        return Box.from_legacy(self._compute("computeImage", x, y).getBBox())

    def _compute(self, method: str, x: float, y: float) -> Any:
        from lsst.afw.detection import InvalidPsfError
        from lsst.geom import Point2D

        compute = getattr(self._psf, method)
        try:
            return compute(Point2D(x, y))
        except InvalidPsfError:
            # No input covers this position.
            return compute(self._psf.getAveragePosition())
