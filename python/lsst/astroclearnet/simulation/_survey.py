# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Simulate a survey and write it into a Butler repository."""

from __future__ import annotations

__all__ = ("SurveySummary", "make_survey")

import dataclasses
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import Table

from lsst.daf.butler import Butler, DatasetType
from lsst.images import Image, VisitImage

from ..repository import chain_collections, create_repository, put_visit_image, register_sky_map
from ._deep_coadd import make_deep_coadd
from ._instrument import INSTRUMENT, focal_plane
from ._observe import observe
from ._options import SurveyOptions
from ._rendering import render_truth
from ._sources import make_catalogue
from ._visits import plan_visits


@dataclasses.dataclass(frozen=True)
class SurveySummary:
    """Where a simulated survey is, and what it holds.

    Attributes
    ----------
    root
        Root of the repository.
    instrument, skymap, tract
        Data ID values common to all datasets.
    bands
        Names of the bands.
    patches
        IDs of the patches.
    visits_run
        RUN collection of the visit images.
    sky_map_run
        RUN collection of the geometry of the sky map.
    coadds_run
        RUN collection of the direct coadds.
    truth_run
        RUN collection of the truth catalogue and the truth images.
    defaults
        CHAINED collection of what a user finds in a repository: visit images,
        sky map and direct coadds, but not the truth.
    num_visit_images
        Number of visit images, one per visit and detector.
    """

    root: str
    instrument: str
    skymap: str
    tract: int
    bands: tuple[str, ...]
    patches: tuple[int, ...]
    visits_run: str
    sky_map_run: str
    coadds_run: str
    truth_run: str
    defaults: str
    num_visit_images: int


def make_survey(
    root: str | os.PathLike[str],
    options: SurveyOptions | None = None,
    *,
    registry: str | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> SurveySummary:
    """Make a repository and fill it with a simulated survey.

    Datasets written: ``visit_image`` (storage class ``VisitImage``) with the
    records of its dimensions; ``skymap_geometry`` (``StructuredDataDict``);
    ``deep_coadd`` (``CellCoadd``, see `make_deep_coadd`); ``truth_image``
    (``ImageV2``, see `render_truth`), both with dimensions skymap, tract,
    patch and band; and ``truth_catalogue`` (``ArrowAstropy``, dimensions
    skymap and tract, see `make_catalogue`).

    Parameters
    ----------
    root
        Directory of the repository; it must not hold one already.
    options
        Size and content of the survey; by default that of `SurveyOptions`.
    registry
        URL of the database for the registry; see
        `~lsst.astroclearnet.repository.create_repository`.
    progress
        Function called after each visit image with the number done, the
        number to do, and the name of the one done.

    Returns
    -------
    summary : `SurveySummary`
        Collections and data ID values.
    """
    if options is None:
        options = SurveyOptions()
    butler = create_repository(os.fspath(root), registry=registry)
    visits = plan_visits(options)
    detectors = focal_plane(options.detector_grid, options.detector_shape, options.detector_gap)
    summary = SurveySummary(
        root=os.fspath(root),
        instrument=INSTRUMENT,
        skymap=options.skymap,
        tract=options.tract,
        bands=tuple(dict.fromkeys(visit.band for visit in visits)),
        patches=tuple(range(math.prod(options.num_patches))),
        visits_run=f"{INSTRUMENT}/visits",
        sky_map_run="skymaps",
        coadds_run=f"{INSTRUMENT}/coadds",
        truth_run=f"{INSTRUMENT}/truth",
        defaults=f"{INSTRUMENT}/defaults",
        num_visit_images=len(visits) * len(detectors),
    )
    register_sky_map(butler, options.geometry, summary.sky_map_run)
    catalogue = make_catalogue(options, visits)
    done = 0
    for band in summary.bands:
        images: list[VisitImage] = []
        for visit in (visit for visit in visits if visit.band == band):
            for layout in detectors:
                images.append(observe(visit, layout, catalogue, options))
                put_visit_image(butler, images[-1], summary.visits_run)
                done += 1
                if progress is not None:
                    name = f"visit {visit.visit} detector {layout.detector}"
                    progress(done, summary.num_visit_images, name)
        _put_deep_coadds(butler, images, band, options, summary)
    _put_truth(butler, catalogue, options, summary)
    chain_collections(butler, summary.defaults, [summary.visits_run, summary.sky_map_run, summary.coadds_run])
    return summary


def _put_deep_coadds(
    butler: Butler,
    images: Sequence[VisitImage],
    band: str,
    options: SurveyOptions,
    summary: SurveySummary,
) -> None:
    """Put the direct coadds of a band."""
    dataset_type = DatasetType(
        "deep_coadd", ["skymap", "tract", "patch", "band"], "CellCoadd", universe=butler.dimensions
    )
    butler.registry.registerDatasetType(dataset_type)
    butler.collections.register(summary.coadds_run)
    for patch in summary.patches:
        coadd = make_deep_coadd(images, options.geometry.patch(summary.tract, patch), band)
        if coadd is not None:
            data_id = {"skymap": summary.skymap, "tract": summary.tract, "patch": patch, "band": band}
            butler.put(coadd, dataset_type, data_id, run=summary.coadds_run)


def _put_truth(butler: Butler, catalogue: Table, options: SurveyOptions, summary: SurveySummary) -> None:
    """Put the truth catalogue and the truth images."""
    table_type = DatasetType(
        "truth_catalogue", ["skymap", "tract"], "ArrowAstropy", universe=butler.dimensions
    )
    image_type = DatasetType(
        "truth_image", ["skymap", "tract", "patch", "band"], "ImageV2", universe=butler.dimensions
    )
    for dataset_type in (table_type, image_type):
        butler.registry.registerDatasetType(dataset_type)
    butler.collections.register(summary.truth_run)
    tract_id: dict[str, Any] = {"skymap": summary.skymap, "tract": summary.tract}
    butler.put(catalogue, table_type, run=summary.truth_run, **tract_id)
    for patch in summary.patches:
        geometry = options.geometry.patch(summary.tract, patch)
        for band in summary.bands:
            pixels = render_truth(catalogue, geometry, band, psf_fwhm=options.truth_fwhm)
            image = Image(
                pixels.astype(np.float32),
                bbox=geometry.bbox,
                unit=u.nJy,
                sky_projection=geometry.projection,
                metadata={"psf_fwhm_pixels": options.truth_fwhm},
            )
            butler.put(image, image_type, run=summary.truth_run, patch=patch, band=band, **tract_id)
