# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Simulate a patch, restore it in one way, and measure both products."""

from __future__ import annotations

__all__ = ("PRODUCTS", "Run", "restore_and_measure", "run")

import dataclasses
import time
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_dilation

from lsst.astroclearnet.adapters import PixelMap, crop_to_patch
from lsst.astroclearnet.core import NoiseOptions, RestoreOptions, StackResult, restore
from lsst.astroclearnet.simulation import ArtefactOptions, add_cosmic_rays, fit_psf
from lsst.images import VisitImage

from ..processes import current_memory, peak_memory
from .exposures import Conditions, Sky, expose, local_stamps
from .projections import BORDER, Field, make_field
from .stars import Stars, make_sky, measure_image, set_fluxes
from .ways import Way, prepare

PRODUCTS = {"restored": "image", "linear": "linear_image"}
"""Attributes of the result by the names of the products."""

_RAY_LEVEL = 5.0
"""Light of a cosmic ray, in standard deviations, that should be rejected."""

_RAY_RADIUS = 4
"""Pixels around a cosmic ray in which rejected pixels are not false."""


@dataclasses.dataclass(frozen=True)
class Run:
    """One restoration of one simulated patch.

    Attributes
    ----------
    way
        Pixels that the likelihood is of.
    projections
        Name of the projections.
    seed
        Seed of everything random.
    size
        Side of the patch in pixels.
    number
        Number of exposures.
    signal_to_noise
        Limits of that of the stars.
    noise
        Whether exposures have noise.
    cosmic_rays
        Whether exposures have cosmic rays, 30 % of them not flagged.
    pair_share
        Share of the places with a pair instead of a star.
    fitted_psf
        Whether exposures come with PSFs fitted to stars.
    num_draws
        Number of noise realisations that the restoration makes its variances
        from; images do not depend on it.
    """

    way: Way
    projections: str
    seed: int
    size: int
    number: int
    signal_to_noise: tuple[float, float]
    noise: bool = True
    cosmic_rays: bool = False
    pair_share: float = 0.0
    fitted_psf: bool = False
    num_draws: int = NoiseOptions.num_draws


@dataclasses.dataclass(frozen=True)
class Simulation:
    """A simulated patch.

    Attributes
    ----------
    field
        Geometry and conditions.
    stars
        The stars.
    visit_images
        The exposures.
    rays
        For each exposure, pixels with light of cosmic rays that is not
        flagged.
    """

    field: Field
    stars: Stars
    visit_images: list[VisitImage]
    rays: list[npt.NDArray[np.bool_]]


def observe_sky(job: Run, field: Field, sky: Sky) -> Simulation:
    """Take all exposures of a field."""
    stamps = [local_stamps(sky, c) for c in field.exposures]
    stars = set_fluxes(sky, field.exposures, stamps)
    images, rays = [], []
    for k, (conditions, drawn) in enumerate(zip(field.exposures, stamps, strict=True)):
        rng = np.random.default_rng([job.seed, k, 3])
        psf = None
        if job.fitted_psf:
            visit, layout = field.visits[k]
            psf = fit_psf(visit, layout, conditions.projection, field.options, rng)
        hits = _Rays(conditions)
        images.append(
            expose(
                conditions,
                drawn,
                stars.flux,
                rng if job.noise else None,
                cosmic_rays=hits if job.cosmic_rays else None,
                psf=psf,
            )
        )
        rays.append(hits.unflagged)
    return Simulation(field, stars, images, rays)


class _Rays:
    """Adds cosmic rays and remembers those that nobody flagged."""

    def __init__(self, conditions: Conditions) -> None:
        self._sigma = np.sqrt(conditions.sky)
        self.unflagged: npt.NDArray[np.bool_] = np.zeros(tuple(conditions.bbox.shape), dtype=bool)

    def __call__(self, electrons: npt.NDArray[np.float64], rng: np.random.Generator) -> npt.NDArray[np.bool_]:
        before = electrons.copy()
        flagged = add_cosmic_rays(electrons, ArtefactOptions(), rng)
        noise = np.sqrt(np.maximum(before, self._sigma**2))
        self.unflagged = (electrons - before > _RAY_LEVEL * noise) & ~flagged
        return flagged


def run(job: Run) -> dict[str, Any]:
    """Simulate stars on a jittered grid, restore and measure them."""
    field = make_field(job.projections, seed=job.seed, size=job.size, number=job.number)
    sky = make_sky(field.geometry, job.seed, job.signal_to_noise, pair_share=job.pair_share)
    return restore_and_measure(job, field, sky)


def restore_and_measure(job: Run, field: Field, sky: Sky) -> dict[str, Any]:
    """Expose a field to its sky, restore and measure it.

    Returns
    -------
    record : `dict`
        Attributes of the run; ``products`` by name, as of `measure_image`;
        ``prepare_cpu`` and ``restore_cpu``, processor time in seconds;
        ``memory``, by which that of the process grew at most, in MiB;
        ``chi_square`` of the exposures; numbers of pixels ``rejected``, of
        ``false`` ones among them and of those ``used``; and of ``rays`` and
        of those ``found``.
    """
    simulation = observe_sky(job, field, sky)
    geometry = simulation.field.geometry
    before = current_memory()
    start = time.process_time()
    noise = NoiseOptions(num_draws=job.num_draws, num_realizations=min(2, job.num_draws))
    # Only noise that was resampled is not what a restoration can draw itself.
    draws = 0 if job.way == "native" else job.num_draws
    arguments = prepare(job.way, simulation.visit_images, geometry, num_draws=draws)
    prepared = time.process_time()
    target = simulation.field.target_fwhm
    options = RestoreOptions(noise=noise)
    result = restore(**arguments, target_fwhm=target, options=options, device="cpu", seed=job.seed)
    restored = time.process_time()
    memory = peak_memory() - before
    products = {
        name: measure_image(crop_to_patch(getattr(result, attribute), geometry), simulation.stars, target)
        for name, attribute in PRODUCTS.items()
    }
    return {
        **dataclasses.asdict(job),
        "target_fwhm": target,
        "pixel_scale": geometry.pixel_scale,
        "products": products,
        "prepare_cpu": prepared - start,
        "restore_cpu": restored - prepared,
        "memory": memory,
        "chi_square": result.chi_square.tolist(),
        **_rejections(simulation, result),
    }


def _rejections(simulation: Simulation, result: StackResult) -> dict[str, int]:
    """Count rejected pixels of the patch, and cosmic rays among them."""
    geometry = simulation.field.geometry
    bbox = geometry.bbox.padded(BORDER)
    disc = np.hypot(*np.mgrid[-_RAY_RADIUS : _RAY_RADIUS + 1, -_RAY_RADIUS : _RAY_RADIUS + 1]) <= _RAY_RADIUS
    near = np.ones((3, 3), dtype=bool)
    counts = {"rejected": 0, "false": 0, "used": int((result.weights > 0).sum()), "rays": 0, "found": 0}
    for rejected, visit_image, rays in zip(
        result.rejected, simulation.visit_images, simulation.rays, strict=True
    ):
        to_patch = PixelMap.from_projections(
            visit_image.sky_projection, visit_image.bbox, geometry.projection
        ).positions()
        rows = np.rint(to_patch.y[rays] - bbox.y.start).astype(int)
        columns = np.rint(to_patch.x[rays] - bbox.x.start).astype(int)
        inside = (rows >= 0) & (rows < bbox.shape.y) & (columns >= 0) & (columns < bbox.shape.x)
        hit = np.zeros(bbox.shape, dtype=bool)
        hit[rows[inside], columns[inside]] = True
        counts["rejected"] += int(rejected.sum())
        counts["false"] += int((rejected & ~binary_dilation(hit, disc)).sum())
        counts["rays"] += int(hit.sum())
        counts["found"] += int((hit & binary_dilation(rejected, near)).sum())
    return counts
