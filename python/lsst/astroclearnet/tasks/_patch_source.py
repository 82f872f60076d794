# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Where the geometry of a patch comes from."""

from __future__ import annotations

__all__ = ("GEOMETRY_CONNECTIONS", "geometry_from_coadd", "read_geometry")

from collections.abc import Mapping
from typing import Any

from lsst.images import Box
from lsst.images.cells import CellPointSpreadFunction

from ..adapters import PatchGeometry, SkyMapGeometry, patch_geometry_from_skymap

GEOMETRY_CONNECTIONS = {"skymap": "skymap", "coadd": "reference_coadd", "dict": "skymap_geometry"}
"""Input connection of each source of geometry."""


def read_geometry(source: str, dataset: Any, data_id: Mapping[str, Any], *, cell_size: int) -> PatchGeometry:
    """Return the geometry of a patch.

    Parameters
    ----------
    source
        A key of `GEOMETRY_CONNECTIONS`.
    dataset
        What that connection delivers: a sky map of the full stack, a
        deferred handle of a coadd, or the dictionary of a geometry dataset.
    data_id
        With keys skymap, tract and patch.
    cell_size
        Side in pixels of the cells of a sky map without cells.

    Returns
    -------
    geometry : `lsst.astroclearnet.adapters.PatchGeometry`
        The geometry.

    Raises
    ------
    LookupError
        If the source does not know the patch.
    ValueError
        If the source has another layout than expected.
    """
    tract, patch = int(data_id["tract"]), int(data_id["patch"])
    if source == "skymap":
        return patch_geometry_from_skymap(
            dataset, name=str(data_id["skymap"]), tract=tract, patch=patch, cell_size=cell_size
        )
    if source == "coadd":
        return geometry_from_coadd(dataset)
    return SkyMapGeometry.from_dict(dataset).patch(tract, patch)


def geometry_from_coadd(handle: Any) -> PatchGeometry:
    """Take the geometry of a patch from an existing coadd.

    Parameters
    ----------
    handle
        Deferred handle of a ``CellCoadd`` of the patch.

    Returns
    -------
    geometry : `lsst.astroclearnet.adapters.PatchGeometry`
        The same projection, boxes and cells.

    Raises
    ------
    ValueError
        If every cell of the coadd is missing.
    """
    psf: CellPointSpreadFunction = handle.get(component="psf")
    grid, missing = psf.bounds.grid, psf.bounds.missing
    for cell in psf.bounds.cell_indices():
        if cell not in missing:
            corner = grid.bbox_of(cell).start
            # The patch definition is not a component: one pixel carries it.
            pixel = Box.from_shape((1, 1), start=corner)
            coadd = handle.get(parameters={"bbox": pixel})
            return PatchGeometry(projection=coadd.sky_projection, definition=coadd.patch)
    raise ValueError("The reference coadd has no cell with data, and so no patch geometry.")
