# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Create Butler repositories and write their records of dimensions."""

from __future__ import annotations

__all__ = ("chain_collections", "create_repository", "register_sky_map", "require_sky_map")

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from lsst.daf.butler import Butler, CollectionType, Config, DatasetRef, DatasetType
from lsst.daf.butler.registry import ConflictingDefinitionError
from lsst.images import VisitImage
from lsst.resources import ResourcePathExpression
from lsst.utils.introspection import get_full_type_name

from ..adapters import SkyMapGeometry, TractGeometry, box_region
from ._map_formatter import HealSparseMapFormatter
from ._names import _require_collection, require_name
from ._visit_record import VisitRecord

_GEOMETRY_DATASET = "skymap_geometry"
_MAX_ID = 2**31 - 1
_MAX_SKYMAP = 64
"""Characters that the registry has for the name of a sky map."""


def create_repository(root: ResourcePathExpression, *, registry: str | None = None) -> Butler:
    """Make an empty repository with a file datastore.

    Parameters
    ----------
    root
        Directory or URI of the repository; it must not hold one already.
    registry
        URL of an empty database for its registry, such as
        ``postgresql://user@host/database``; by default an SQLite file in
        the repository.  A PostgreSQL database needs the extension
        ``btree_gist``, and its password belongs into the file that the Butler
        reads, not into the URL.

    Returns
    -------
    butler : `lsst.daf.butler.Butler`
        A writeable client of the new repository.
    """
    # The one that the Butler is configured with is in the full stack.
    formatter = get_full_type_name(HealSparseMapFormatter)
    config = Config({"datastore": {"formatters": {"HealSparseMap": formatter}}})
    if registry is not None:
        config["registry", "db"] = registry
    # Else the URL of another SQLite file would be replaced in silence.
    Butler.makeRepo(root, config=config, forceConfigRoot=registry is None)
    return Butler.from_config(root, writeable=True)


def chain_collections(butler: Butler, chain: str, children: Sequence[str]) -> None:
    """Define a CHAINED collection, or add members to the end of one.

    Parameters
    ----------
    butler
        A writeable Butler.
    chain
        Name of the CHAINED collection.
    children
        Collections to be searched in this order; those that the chain has
        already keep their places.

    Raises
    ------
    ValueError
        If the name of the chain is none that a repository can keep.
    """
    _require_collection(chain)
    known: tuple[str, ...] = ()
    if not butler.collections.register(chain, CollectionType.CHAINED):
        known = butler.collections.get_info(chain).children
    butler.collections.redefine_chain(chain, [*known, *(c for c in children if c not in known)])


def register_sky_map(butler: Butler, geometry: SkyMapGeometry, run: str) -> DatasetRef:
    """Write the records of a sky map and its geometry as a dataset.

    Writing the same geometry again changes nothing.

    Parameters
    ----------
    butler
        A writeable Butler.
    geometry
        Tracts, patches and cells.
    run
        RUN collection for the dataset ``skymap_geometry``, made if absent.

    Returns
    -------
    ref : `lsst.daf.butler.DatasetRef`
        Reference to the dataset of the geometry.

    Raises
    ------
    ValueError
        If the name of the sky map or of the collection is none that a
        repository can keep.
    lsst.daf.butler.registry.ConflictingDefinitionError
        If the repository has a sky map of this name with another geometry.
    """
    content = geometry.to_dict()
    require_name("sky map", geometry.skymap, max_length=_MAX_SKYMAP)
    _require_collection(run)
    with butler.transaction():
        butler.registry.syncDimensionData(
            "skymap",
            {
                "name": geometry.skymap,
                "hash": _digest(geometry),
                "tract_max": max(tract.tract for tract in geometry.tracts) + 1,
                "patch_nx_max": max(tract.num_patches[1] for tract in geometry.tracts),
                "patch_ny_max": max(tract.num_patches[0] for tract in geometry.tracts),
            },
        )
        for tract in geometry.tracts:
            _register_tract(butler, geometry.skymap, tract)
    dataset_type = DatasetType(
        _GEOMETRY_DATASET, ["skymap"], "StructuredDataDict", universe=butler.dimensions
    )
    butler.registry.registerDatasetType(dataset_type)
    butler.collections.register(run)
    existing = butler.find_dataset(dataset_type, skymap=geometry.skymap, collections=[run])
    if existing is not None:
        return existing
    return butler.put(content, dataset_type, skymap=geometry.skymap, run=run)


def _register_tract(butler: Butler, skymap: str, tract: TractGeometry) -> None:
    """Write the records of a tract and its patches."""
    projection = tract.projection(skymap)
    sync = butler.registry.syncDimensionData
    sync("tract", {"skymap": skymap, "id": tract.tract, "region": box_region(projection, tract.bbox)})
    for index in range(tract.num_patches[0] * tract.num_patches[1]):
        patch = tract.patch(index)
        sync(
            "patch",
            {
                "skymap": skymap,
                "tract": tract.tract,
                "id": patch.id,
                "cell_x": patch.index.x,
                "cell_y": patch.index.y,
                "region": box_region(projection, patch.cells.bbox),
            },
        )


def require_sky_map(butler: Butler, geometry: SkyMapGeometry) -> None:
    """Refuse a sky map whose name the repository has for another one.

    Parameters
    ----------
    butler
        A Butler.
    geometry
        Tracts, patches and cells.

    Raises
    ------
    lsst.daf.butler.registry.ConflictingDefinitionError
        If the repository has a sky map of this name with another geometry.
    """
    for record in butler.registry.queryDimensionRecords("skymap", dataId={"skymap": geometry.skymap}):
        if record.hash != _digest(geometry):
            raise ConflictingDefinitionError(f"Sky map {geometry.skymap!r} has another geometry.")


def _digest(geometry: SkyMapGeometry) -> bytes:
    """Return the hash of a sky map."""
    content = json.dumps(geometry.to_dict(), sort_keys=True)
    return hashlib.sha1(content.encode(), usedforsecurity=False).digest()


def _register_visit_detector(
    butler: Butler, visit_image: VisitImage, *, update: bool = False
) -> dict[str, Any]:
    """Write every dimension record that a visit image needs."""
    found = VisitRecord.from_visit_image(visit_image)
    instrument = found.instrument
    common: dict[str, list[dict[str, Any]]] = {
        "instrument": [
            {"name": instrument, "visit_max": _MAX_ID, "exposure_max": _MAX_ID, "detector_max": _MAX_ID}
        ],
        "physical_filter": [{"instrument": instrument, "name": found.physical_filter, "band": found.band}],
        "detector": [{"instrument": instrument, "id": found.detector, "full_name": found.detector_name}],
        "day_obs": [{"instrument": instrument, "id": found.day_obs}],
    }
    with butler.transaction():
        for element, records in common.items():
            butler.registry.insertDimensionData(element, *records, skip_existing=True)
        # Else the image would count among those of another band in silence.
        data_id = {"instrument": instrument, "physical_filter": found.physical_filter}
        for record in butler.registry.queryDimensionRecords("physical_filter", dataId=data_id):
            if record.band != found.band:
                raise ConflictingDefinitionError(
                    f"filter {found.physical_filter!r} is of band {record.band!r}, and not {found.band!r}"
                )
        butler.registry.syncDimensionData("visit", found.visit_row, update=update)
        region = dict(**found.data_id, region=found.region)
        butler.registry.syncDimensionData("visit_detector_region", region, update=update)
    return found.data_id
