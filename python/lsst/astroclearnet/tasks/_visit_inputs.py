# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Visit images with the calibration of visit summaries."""

from __future__ import annotations

__all__ = ("VisitSummarySource", "apply_visit_summaries", "gather_sources", "gather_visit_summaries")

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from lsst.pipe.base import InputQuantizedConnection, QuantumContext

from ..adapters import (
    DirectWarpSource,
    ExposureId,
    RecalibratedSource,
    UnusableExposureError,
    VisitCalibration,
    VisitImageSource,
    source_id,
    visit_calibration_from_summary,
)

type VisitSummarySource = Any
"""A visit summary of the full stack, a deferred handle of one, or calibrations
(`VisitCalibration`) by detector."""


def gather_sources(butlerQC: QuantumContext, inputRefs: InputQuantizedConnection) -> list[VisitImageSource]:
    """Return what a quantum is to be restored from.

    Parameters
    ----------
    butlerQC
        Butler of the quantum.
    inputRefs
        Its inputs.

    Returns
    -------
    sources : `list`
        Deferred handles of visit images, or direct warps.
    """
    if hasattr(inputRefs, "direct_warps"):
        return [DirectWarpSource(handle) for handle in butlerQC.get(inputRefs.direct_warps)]
    handles: list[VisitImageSource] = butlerQC.get(inputRefs.visit_images)
    return handles


def gather_visit_summaries(
    butlerQC: QuantumContext, inputRefs: InputQuantizedConnection
) -> dict[tuple[str, int], VisitSummarySource] | None:
    """Return the visit summaries of a quantum.

    Parameters
    ----------
    butlerQC
        Butler of the quantum.
    inputRefs
        Its inputs.

    Returns
    -------
    visit_summaries : `dict` or `None`
        Deferred handles by instrument and visit; `None` where they are no
        input.
    """
    if not hasattr(inputRefs, "visit_summaries"):
        return None
    return {
        (str(handle.dataId["instrument"]), int(handle.dataId["visit"])): handle
        for handle in butlerQC.get(inputRefs.visit_summaries)
    }


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
