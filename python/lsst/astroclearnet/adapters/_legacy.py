# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Objects of the full stack: the only place that knows its types."""

from __future__ import annotations

__all__ = ("background_image_from_legacy", "patch_geometry_from_skymap", "visit_image_from_exposure")

from typing import Any

import astropy.units as u

from lsst.images import (
    YX,
    Box,
    Image,
    MaskPlane,
    SkyProjection,
    TractFrame,
    VisitImage,
    get_legacy_visit_image_mask_planes,
)
from lsst.images.cells import CellGrid, PatchDefinition

from ._patch_geometry import PatchGeometry, choose_cell_shape


def patch_geometry_from_skymap(
    skymap: Any, *, name: str, tract: int, patch: int, cell_size: int
) -> PatchGeometry:
    """Take the geometry of a patch from a sky map of the full stack.

    A patch whose tract builder knows cells keeps them; its cells leave out
    the border that the outer box adds to them.  Any other patch is cut into
    cells of about the size that is asked for.

    Parameters
    ----------
    skymap
        A ``lsst.skymap.BaseSkyMap``.
    name
        Name of the sky map.
    tract
        Tract ID.
    patch
        Sequential patch ID.
    cell_size
        Side in pixels of the cells of a patch without cells, if that divides
        its outer box; otherwise the nearest size that does.

    Returns
    -------
    geometry : `PatchGeometry`
        The geometry in the types of `lsst.images`.

    Raises
    ------
    ValueError
        If no size between half and twice that divides the outer box of a
        patch without cells.
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


def visit_image_from_exposure(exposure: Any) -> VisitImage:
    """Convert an exposure of the full stack.

    Parameters
    ----------
    exposure
        A ``lsst.afw.image.ExposureF``.

    Returns
    -------
    visit_image : `lsst.images.VisitImage`
        The same image; mask planes that have no counterpart keep their name.
    """
    plane_map = dict(get_legacy_visit_image_mask_planes())
    for plane in exposure.mask.getMaskPlaneDict():
        plane_map.setdefault(plane, MaskPlane(name=plane, description=f"Legacy mask plane {plane}."))
    # Calibrated pixels have unit calibration; BUNIT is not always written.
    calibrated = exposure.photoCalib.getCalibrationMean() == 1.0
    unit = u.nJy if calibrated and not exposure.metadata.exists("BUNIT") else None
    return VisitImage.from_legacy(exposure, exposure_record=None, unit=unit, plane_map=plane_map)


def background_image_from_legacy(background: Any) -> Image:
    """Convert a background of the full stack, such as a sky correction.

    Parameters
    ----------
    background
        A ``lsst.afw.math.BackgroundList``.

    Returns
    -------
    image : `lsst.images.Image`
        The background over its whole detector, without a unit, which the
        full stack does not record: it is that of the pixels it was measured
        on.
    """
    return Image.from_legacy(background.getImage())
