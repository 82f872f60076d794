# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Geometry of the patches of a sky map, of this package or the full stack."""

from __future__ import annotations

from collections.abc import Callable

from lsst.daf.butler import Butler, MissingDatasetTypeError

from ..adapters import PatchGeometry, SkyMapGeometry, patch_geometry_from_skymap

type TractPatch = tuple[int, int]
"""Tract and patch."""

type ReadPatch = Callable[[TractPatch], PatchGeometry]

_CELL_SIZE = 100
"""Side in pixels of the cells of a sky map without cells, as by default."""


def read_sky_map(butler: Butler, skymap: str | None) -> ReadPatch | None:
    """Return what tells the geometry of patches; `None` if the input
    collections do not, or the full stack is needed to read it.
    """
    if skymap is None:
        return None
    for name in ("skymap_geometry", "skyMap"):
        try:
            ref = butler.find_dataset(name, skymap=skymap)
            dataset = None if ref is None else butler.get(ref)
        except (MissingDatasetTypeError, ImportError):
            continue
        if dataset is None:
            continue
        if name == "skyMap":
            return lambda patch: patch_geometry_from_skymap(
                dataset, name=skymap, tract=patch[0], patch=patch[1], cell_size=_CELL_SIZE
            )
        geometry = SkyMapGeometry.from_dict(dataset)
        return lambda patch: geometry.patch(*patch)
    return None
