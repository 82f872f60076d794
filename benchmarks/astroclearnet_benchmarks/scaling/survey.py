# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""A patch under the detectors of Hyper Suprime-Cam, in a repository."""

from __future__ import annotations

__all__ = ("BAND", "SurveyPatch", "simulate_survey")

import dataclasses
import logging
import time
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import Table

from lsst.astroclearnet.adapters import PatchGeometry, PixelMap
from lsst.astroclearnet.repository import chain_collections, put_visit_image, register_sky_map
from lsst.astroclearnet.simulation import (
    INSTRUMENT,
    PIXEL_SCALE,
    SurveyOptions,
    detector_projection,
    focal_plane,
    make_catalogue,
    observe,
    plan_visits,
    render_truth,
)
from lsst.daf.butler import Butler, Config
from lsst.images import Box, DetectorFrame, SkyProjection
from lsst.images.fits import FitsCompressionOptions

from ..processes import peak_memory

BAND = "i"

_SIDE = 4200
"""Side in pixels of a patch of Rubin's sky map of HSC, with its border."""

_DETECTOR = (4176, 2048)
"""Height and width in pixels of a detector of HSC."""

_GAPS = (53.0, 12.0)
"""Gaps in arcsec between detectors along y and x (HSC instrument parameters,
Subaru Telescope)."""

_GRID = (4, 7)
"""The detectors of HSC that rotated and dithered visits put on a patch."""

_DITHER = 0.85
"""Radius of dithers over the side of the patch: 10 arcmin for a whole one."""

_CELL = 50

_DEMONSTRATION_SIDE = 150
"""Pixels of a patch of the demonstration, which has 30 stars and 2 pairs."""

_MARGIN = 200
"""Pixels around the patch that sources are drawn in."""

_STEP = 20
"""Pixels between those that are asked whether a detector covers them."""

_RECIPE = FitsCompressionOptions.LOSSY.model_dump(mode="json")
"""Compression of Rubin's visit images, in steps of 1/16 of the noise."""

_FORMATTER = "lsst.images.formatters.GenericFormatter"
_CONFIG = {
    "datastore": {
        "formatters": {
            "VisitImage": {"formatter": _FORMATTER, "parameters": {"recipe": "lossy"}},
            "write_recipes": {_FORMATTER: {"lossy": {"image": _RECIPE, "variance": _RECIPE}}},
        }
    }
}

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class SurveyPatch:
    """A survey of one patch, and where it is.

    Attributes
    ----------
    folder
        Folder of the repository and the truth.
    size
        Side of the patch with its border in pixels; detectors, gaps and
        dithers are smaller in proportion where it is not 4200.
    visits
        Number of visits.
    """

    folder: Path
    size: int
    visits: int

    @property
    def root(self) -> Path:
        """The repository."""
        return self.folder / "repo"

    @property
    def truth(self) -> Path:
        """File of the truth: the image and the stars."""
        return self.folder / "truth.npz"

    @property
    def collection(self) -> str:
        """Collection of the inputs."""
        return f"{INSTRUMENT}/defaults"

    @property
    def geometry(self) -> PatchGeometry:
        """The patch."""
        options = self.options
        return options.geometry.patch(options.tract, 0)

    @property
    def options(self) -> SurveyOptions:
        """The survey, with the density of sources of the demonstration."""
        scale = self.size / _SIDE
        border = 2 if scale == 1.0 else 1
        cells = max(1, self.size // _CELL - 2 * border)
        number = (_CELL * cells / _DEMONSTRATION_SIDE) ** 2
        height, width = (round(scale * side) for side in _DETECTOR)
        y_gap, x_gap = (round(scale * gap / PIXEL_SCALE) for gap in _GAPS)
        return SurveyOptions(
            bands=(BAND,),
            visits_per_band=self.visits,
            cell_size=_CELL,
            patch_cells=cells,
            border_cells=border,
            num_patches=(1, 1),
            detector_grid=_GRID,
            detector_shape=(height, width),
            detector_gap=(y_gap, x_gap),
            dither_arcsec=_DITHER * PIXEL_SCALE * self.size,
            stars_per_patch=30.0 * number,
            pairs_per_patch=2.0 * number,
            is_drawn_fast=True,
        )


def simulate_survey(patch: SurveyPatch, target_fwhm: float) -> dict[str, float]:
    """Simulate the detectors that touch the patch, and the truth.

    Images that are there already are kept.

    Parameters
    ----------
    patch
        The patch.
    target_fwhm
        FWHM of the PSF of the truth in pixels.

    Returns
    -------
    figures : `dict`
        ``images``, the number of detector images; ``covered``, how many of
        them a pixel of the patch has on average; ``new`` ones with their
        ``cpu`` seconds; ``disk`` and peak ``memory`` in GiB.
    """
    start = time.process_time()
    options, geometry = patch.options, patch.geometry
    visits = plan_visits(options)
    catalogue = make_catalogue(options, visits)
    catalogue = catalogue[_near(catalogue, geometry)]
    butler = _open(patch)
    run = f"{INSTRUMENT}/visits"
    held = _held(butler, run)
    images, new, covered = 0, 0, 0.0
    for visit in visits:
        for layout in focal_plane(options.detector_grid, options.detector_shape, options.detector_gap):
            projection = detector_projection(visit, layout, options)
            fraction = _covered_fraction(geometry, projection, layout.bbox)
            if not fraction:
                continue
            images += 1
            covered += fraction
            data_id = {"instrument": INSTRUMENT, "visit": visit.visit, "detector": layout.detector}
            if data_id in held:
                continue
            put_visit_image(butler, observe(visit, layout, catalogue, options), run)
            new += 1
            _LOG.info(
                "%d images, %.0f s of CPU, %.1f GiB",
                images,
                time.process_time() - start,
                peak_memory() / 1024,
            )
    chain_collections(butler, patch.collection, [run, "skymaps"])
    _write_truth(patch, catalogue, target_fwhm)
    files = [file for file in patch.folder.rglob("*") if file.is_file()]
    return {
        "images": images,
        "covered": covered,
        "new": new,
        "cpu": time.process_time() - start,
        "disk": sum(file.stat().st_size for file in files) / 2**30,
        "memory": peak_memory() / 2**10,
    }


def _open(patch: SurveyPatch) -> Butler:
    """Open the repository, a new one if there is none."""
    if not (patch.root / "butler.yaml").exists():
        patch.root.mkdir(parents=True, exist_ok=True)
        Butler.makeRepo(str(patch.root), config=Config(_CONFIG))
        register_sky_map(
            Butler.from_config(str(patch.root), writeable=True), patch.options.geometry, "skymaps"
        )
    return Butler.from_config(str(patch.root), writeable=True)


def _held(butler: Butler, run: str) -> list[dict[str, Any]]:
    """Return the data IDs of the images that are there."""
    if run not in butler.collections.query("*"):
        return []
    refs = butler.query_datasets("visit_image", collections=[run], explain=False)
    return [{name: ref.dataId[name] for name in ("instrument", "visit", "detector")} for ref in refs]


def _covered_fraction(geometry: PatchGeometry, projection: SkyProjection[DetectorFrame], bbox: Box) -> float:
    """Return the fraction of the patch that a detector covers."""
    rows, columns = (
        np.arange(axis.start, axis.stop, _STEP, dtype=float) for axis in (geometry.bbox.y, geometry.bbox.x)
    )
    y, x = np.meshgrid(rows, columns, indexing="ij")
    pixels = PixelMap.from_projections(geometry.projection, geometry.bbox, projection).apply(y=y, x=x)
    inside = (pixels.y >= bbox.y.min) & (pixels.y <= bbox.y.max)
    inside &= (pixels.x >= bbox.x.min) & (pixels.x <= bbox.x.max)
    return float(inside.mean())


def _near(catalogue: Table, geometry: PatchGeometry) -> np.ndarray:
    """Tell which sources are on the patch or close to it."""
    y, x = _pixels(catalogue, geometry)
    height, width = geometry.bbox.shape
    return (y > -_MARGIN) & (y < height + _MARGIN) & (x > -_MARGIN) & (x < width + _MARGIN)


def _pixels(catalogue: Table, geometry: PatchGeometry) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns of sources in the array of the patch."""
    sky = SkyCoord(ra=np.asarray(catalogue["ra"]) * u.deg, dec=np.asarray(catalogue["dec"]) * u.deg)
    pixels = geometry.projection.sky_to_pixel(sky)
    return (
        np.asarray(pixels.y) - geometry.bbox.y.min,
        np.asarray(pixels.x) - geometry.bbox.x.min,
    )


def _write_truth(patch: SurveyPatch, catalogue: Table, target_fwhm: float) -> None:
    """Write the image at the target PSF and the stars."""
    if patch.truth.exists():
        return
    image = render_truth(catalogue, patch.geometry, BAND, psf_fwhm=target_fwhm)
    stars = catalogue[np.asarray(catalogue["kind"]) == "star"]
    y, x = _pixels(stars, patch.geometry)
    part = patch.truth.with_suffix(".part.npz")
    np.savez(
        part,
        image=image.astype(np.float32),
        y=y,
        x=x,
        flux=np.asarray(stars[f"flux_{BAND}"], dtype=float),
        saturated=np.asarray(stars["is_saturated"]),
        paired=np.asarray(stars["pair_id"]) >= 0,
    )
    part.replace(patch.truth)
