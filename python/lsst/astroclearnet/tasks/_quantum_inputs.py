# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Input datasets of a quantum, as `RestoreCoaddTask.run` takes them."""

from __future__ import annotations

__all__ = (
    "GEOMETRY_CONNECTIONS",
    "VisitSummarySource",
    "apply_visit_summaries",
    "gather_inputs",
    "parse_visit_selections",
    "read_geometry",
)

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lsst.daf.butler import DataCoordinate
from lsst.images import Box
from lsst.images.cells import CellPointSpreadFunction
from lsst.pipe.base import InputQuantizedConnection, QuantumContext
from lsst.sphgeom import DISJOINT

from ..adapters import (
    DirectWarpSource,
    ExposureId,
    PatchGeometry,
    RecalibratedSource,
    SkyMapGeometry,
    UnusableExposureError,
    VisitCalibration,
    VisitImageSource,
    patch_geometry_from_skymap,
    source_id,
    visit_calibration_from_summary,
)

type VisitSummarySource = Any
"""A visit summary of the full stack, a deferred handle of one, or calibrations
(`VisitCalibration`) by detector."""

GEOMETRY_CONNECTIONS = {"skymap": "skymap", "coadd": "reference_coadd", "dict": "skymap_geometry"}
"""Input connection of each source of geometry."""

_INPUT_CONNECTIONS = frozenset(
    {"visit_images", "direct_warps", "visit_summaries", "visit_selections", "sky_corrections"}
)
"""Connections of all other inputs."""


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
        return _geometry_from_coadd(dataset)
    return SkyMapGeometry.from_dict(dataset).patch(tract, patch)


def _geometry_from_coadd(handle: Any) -> PatchGeometry:
    """Take the geometry of a patch from a handle of its coadd."""
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


def gather_inputs(
    butlerQC: QuantumContext,
    inputRefs: InputQuantizedConnection,
    *,
    patch: DataCoordinate | None = None,
    band: str | None = None,
) -> dict[str, Any]:
    """Return the inputs of a quantum, but for the geometry.

    Parameters
    ----------
    butlerQC
        Butler of the quantum.
    inputRefs
        Its inputs.
    patch
        The patch, of a quantum of several: inputs of others are left out.
    band
        The band, of a quantum of several: inputs of others are left out.

    Returns
    -------
    inputs : `dict`
        Arguments of `RestoreCoaddTask.run`: ``visit_images``, deferred
        handles of visit images or direct warps; and, where they are
        connected, ``visit_summaries`` by instrument and visit,
        ``selections``, ``sky_corrections`` by instrument, visit and
        detector, and ``restoration_model``.
    """
    refs: dict[str, Any] = {name: found for name, found in inputRefs if name in _INPUT_CONNECTIONS}
    if patch is not None:
        refs = {
            name: [ref for ref in found if _is_on_patch(ref.dataId, patch)] for name, found in refs.items()
        }
    if band is not None:
        refs = {name: [ref for ref in found if ref.dataId["band"] == band] for name, found in refs.items()}
    inputs: dict[str, Any] = {}
    if "direct_warps" in refs:
        inputs["visit_images"] = [DirectWarpSource(handle) for handle in butlerQC.get(refs["direct_warps"])]
    else:
        inputs["visit_images"] = butlerQC.get(refs["visit_images"])
    if "visit_summaries" in refs:
        inputs["visit_summaries"] = {
            (str(handle.dataId["instrument"]), int(handle.dataId["visit"])): handle
            for handle in butlerQC.get(refs["visit_summaries"])
        }
    if "visit_selections" in refs:
        selections = refs["visit_selections"]
        instruments = (str(ref.dataId["instrument"]) for ref in selections)
        inputs["selections"] = parse_visit_selections(zip(instruments, butlerQC.get(selections), strict=True))
    if "sky_corrections" in refs:
        inputs["sky_corrections"] = {
            source_id(handle).detector_key: handle for handle in butlerQC.get(refs["sky_corrections"])
        }
    if hasattr(inputRefs, "restoration_model"):
        models = inputRefs.restoration_model
        if band is not None:
            (models,) = (ref for ref in models if ref.dataId["band"] == band)
        inputs["restoration_model"] = butlerQC.get(models)
    return inputs


def _is_on_patch(data_id: DataCoordinate, patch: DataCoordinate) -> bool:
    """Tell whether a dataset is of a patch, or may overlap it on the sky."""
    if "patch" in data_id.dimensions:
        return data_id["tract"] == patch["tract"] and data_id["patch"] == patch["patch"]
    if not (data_id.hasRecords() and patch.hasRecords()):
        return True
    region, outer = data_id.region, patch.region
    return region is None or outer is None or not region.relate(outer) & DISJOINT


def parse_visit_selections(
    datasets: Iterable[tuple[str, Mapping[Any, Any]]],
) -> dict[str, frozenset[int]]:
    """Take the selected visits from datasets.

    Parameters
    ----------
    datasets
        Instrument and content of each dataset, as
        ``lsst.pipe.tasks.selectImages.BestSeeingSelectVisitsTask`` and
        ``BestSeeingQuantileSelectVisitsTask`` write them: a dictionary whose
        keys are the selected visits.  The keys may be numbers or, where a
        format like JSON knows no others, strings; the values do not count.

    Returns
    -------
    selections : `dict` [`str`, `frozenset` [`int`]]
        Selected visits by instrument.

    Raises
    ------
    ValueError
        If a key is no visit.
    """
    selections: dict[str, frozenset[int]] = {}
    for instrument, content in datasets:
        try:
            visits = frozenset(int(key) for key in content)
        except (TypeError, ValueError) as exc:
            raise ValueError(
                f"The visit selection of {instrument} has a key that is no visit ({exc}); "
                "it must be a dictionary whose keys are visits."
            ) from exc
        selections[instrument] = selections.get(instrument, frozenset()) | visits
    return selections


def apply_visit_summaries(
    visit_images: Sequence[VisitImageSource],
    visit_summaries: Mapping[tuple[str, int], VisitSummarySource],
    *,
    psf: bool,
    wcs: bool,
    photo_calib: bool,
) -> tuple[list[VisitImageSource], dict[str, str]]:
    """Have visit images read with the calibration of visit summaries.

    No image is read.

    Parameters
    ----------
    visit_images
        Visit images, or deferred handles of them.
    visit_summaries
        Visit summaries by instrument and visit.
    psf
        Whether to take the PSF from them.
    wcs
        Whether to take the projection.
    photo_calib
        Whether to take the photometric calibration.

    Returns
    -------
    sources : `list`
        What takes the place of the visit images, in their order.
    refused : `dict` [`str`, `str`]
        The reason for each visit image that is left out, by its name.
    """
    sources: list[VisitImageSource] = []
    refused: dict[str, str] = {}
    contents: dict[tuple[str, int], Any] = {}
    for source in visit_images:
        identity = source_id(source)
        try:
            if identity.visit_key not in contents:
                contents[identity.visit_key] = _read_summary(visit_summaries, identity)
            calibration = _find_calibration(
                contents[identity.visit_key], identity, psf=psf, wcs=wcs, photo_calib=photo_calib
            )
        except UnusableExposureError as exc:
            refused[str(identity)] = f"{exc.reason}: {exc}"
        else:
            sources.append(RecalibratedSource(source, identity, calibration))
    return sources, refused


def _read_summary(visit_summaries: Mapping[tuple[str, int], VisitSummarySource], identity: ExposureId) -> Any:
    """Return a visit summary, read where it is a handle."""
    if identity.visit_key not in visit_summaries:
        raise UnusableExposureError(
            "no_visit_summary",
            f"There is no visit summary of instrument {identity.instrument!r}, visit {identity.visit}.",
        )
    summary = visit_summaries[identity.visit_key]
    if isinstance(summary, Mapping) or not (hasattr(summary, "get") and hasattr(summary, "dataId")):
        return summary
    try:
        return summary.get()
    except MemoryError:
        raise
    except Exception as exc:
        # A file may fail in any way of the library that reads it.
        raise UnusableExposureError("no_visit_summary", f"The visit summary cannot be read: {exc}") from exc


def _find_calibration(
    summary: Any, identity: ExposureId, *, psf: bool, wcs: bool, photo_calib: bool
) -> VisitCalibration:
    """Return what a visit summary says of a detector."""
    if not isinstance(summary, Mapping):
        return visit_calibration_from_summary(summary, identity, psf=psf, wcs=wcs, photo_calib=photo_calib)
    if identity.detector not in summary:
        raise UnusableExposureError(
            "not_in_visit_summary", "The visit summary has no record of its detector."
        )
    calibration: VisitCalibration = summary[identity.detector]
    for wanted, field, reason in (
        (psf, "psf", "no_psf"),
        (wcs, "projection", "no_wcs"),
        (photo_calib, "scaling", "no_photo_calib"),
    ):
        if not wanted:
            calibration = dataclasses.replace(calibration, **{field: None})
        elif getattr(calibration, field) is None:
            raise UnusableExposureError(reason, f"The visit summary has no {field} of its detector.")
    return calibration
