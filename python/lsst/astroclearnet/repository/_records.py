# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Create Butler repositories and write their records of dimensions."""

from __future__ import annotations

__all__ = ("chain_collections", "create_repository", "register_sky_map", "register_visit_detector")

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from lsst.daf.butler import Butler, CollectionType, Config, DatasetRef, DatasetType, Timespan
from lsst.images import VisitImage
from lsst.resources import ResourcePathExpression

from ..adapters import SkyMapGeometry, TractGeometry, box_region

_DEFAULT_DAY_OBS = 19700101
_GEOMETRY_DATASET = "skymap_geometry"
_INSTRUMENT_LIMITS = ("visit_max", "exposure_max", "detector_max")
_MAX_ID = 2**31 - 1


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
    config = None if registry is None else Config({"registry": {"db": registry}})
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
    """
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
    lsst.daf.butler.registry.ConflictingDefinitionError
        If the repository has a sky map of this name with another geometry.
    """
    content = geometry.to_dict()
    digest = hashlib.sha1(json.dumps(content, sort_keys=True).encode(), usedforsecurity=False)
    with butler.transaction():
        butler.registry.syncDimensionData(
            "skymap",
            {
                "name": geometry.skymap,
                "hash": digest.digest(),
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
    """Write the records of a tract and its patches.

    Parameters
    ----------
    butler
        A writeable Butler.
    skymap
        Name of the sky map.
    tract
        Geometry of the tract.
    """
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


def register_visit_detector(butler: Butler, visit_image: VisitImage) -> dict[str, Any]:
    """Write every record of dimensions that a visit image needs.

    Instrument, physical filter, detector and observing day are written only
    if the repository has none of the same name, so that the richer records of
    an observatory's own package stay; the visit and the region of its detector
    must agree with records that exist.

    Parameters
    ----------
    butler
        A writeable Butler.
    visit_image
        The image whose ``obs_info``, ``detector``, ``band``, bounding box and
        sky projection are recorded. Where ``obs_info`` has no observing day,
        the UTC date of its start is used, and ``19700101`` without that.

    Returns
    -------
    data_id : `dict`
        Values of ``instrument``, ``visit`` and ``detector``.

    Raises
    ------
    ValueError
        If neither ``obs_info`` nor the pixel frame names instrument and
        visit.
    lsst.daf.butler.registry.ConflictingDefinitionError
        If the repository describes the visit or the region otherwise.
    """
    data_id = _identify(visit_image)
    instrument, visit, detector = data_id["instrument"], data_id["visit"], data_id["detector"]
    info = visit_image.obs_info
    day_obs = _observing_day(visit_image)
    common: dict[str, list[dict[str, Any]]] = {
        "instrument": [
            {"name": instrument, "visit_max": _MAX_ID, "exposure_max": _MAX_ID, "detector_max": _MAX_ID}
        ],
        "physical_filter": [
            {"instrument": instrument, "name": visit_image.physical_filter, "band": visit_image.band}
        ],
        "detector": [{"instrument": instrument, "id": detector, "full_name": visit_image.detector.name}],
        "day_obs": [{"instrument": instrument, "id": day_obs}],
    }
    record = {
        "instrument": instrument,
        "id": visit,
        "name": str(visit),
        "physical_filter": visit_image.physical_filter,
        "day_obs": day_obs,
        "exposure_time": None if info.exposure_time is None else float(info.exposure_time.to_value("s")),
        "target_name": info.object,
        "science_program": info.science_program,
    }
    if info.datetime_begin is not None and info.datetime_end is not None:
        record["timespan"] = Timespan(info.datetime_begin, info.datetime_end)
    region = box_region(visit_image.sky_projection, visit_image.bbox)
    with butler.transaction():
        for element, records in common.items():
            butler.registry.insertDimensionData(element, *records, skip_existing=True)
        butler.registry.syncDimensionData("visit", record)
        butler.registry.syncDimensionData("visit_detector_region", dict(**data_id, region=region))
    return data_id


def _identify(visit_image: VisitImage) -> dict[str, Any]:
    """Return instrument, visit and detector of an image.

    Parameters
    ----------
    visit_image
        The image.

    Returns
    -------
    data_id : `dict`
        Values of the three dimensions.

    Raises
    ------
    ValueError
        If instrument or visit are nowhere to be found.
    """
    info = visit_image.obs_info
    frame = visit_image.sky_projection.pixel_frame
    instrument = info.instrument or frame.instrument
    visit = info.visit_id if info.visit_id is not None else frame.visit
    if not instrument or visit is None:
        missing = "visit_id" if instrument else "instrument"
        raise ValueError(
            f"Visit image of detector {visit_image.detector.name!r} cannot be recorded: neither its "
            f"obs_info nor its pixel frame names the {missing.removesuffix('_id')}. Set obs_info.{missing}."
        )
    return {"instrument": instrument, "visit": int(visit), "detector": int(visit_image.detector.id)}


def _observing_day(visit_image: VisitImage) -> int:
    """Return the observing day of an image.

    Parameters
    ----------
    visit_image
        The image.

    Returns
    -------
    day_obs : `int`
        The date as ``YYYYMMDD``.
    """
    info = visit_image.obs_info
    if info.observing_day is not None:
        return int(info.observing_day)
    if info.datetime_begin is not None:
        return int(info.datetime_begin.utc.strftime("%Y%m%d"))
    return _DEFAULT_DAY_OBS
