# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What the peaks and children of a field of blends are, with each image."""

from __future__ import annotations

__all__ = ("FWHMS", "METHODS", "SMOOTHED", "STOCK", "measure_field", "restored")

import math
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from astropy.stats import gaussian_fwhm_to_sigma
from scipy.ndimage import gaussian_filter

from lsst.astroclearnet.core import NoiseOptions, RestoreOptions, restore

from ..baselines import coadd_psf, inverse_variance_coadd
from ..scenes import BlendField, simulate_blends
from .children import child_fluxes
from .peaks import find_peaks
from .stock import STOCK_FWHM, deconvolve, difference_kernel, find_footprints

type Array = npt.NDArray[np.float64]

FWHMS = (1.88, 2.2, 2.5, 3.0, 4.0)
"""Target FWHM in pixels; the first is that of the model PSF of scarlet, the
last that of the campaigns for HSC and LSSTCam."""

_COMMON_FWHM = 3.0
"""FWHM in pixels of the smoothed stock image and of the linear one."""

COADD, STOCK, ACCELERATED = "direct coadd", "stock deconvolution", "stock, with momentum"
SMOOTHED, LINEAR = "stock, smoothed to 3 pixels", "linear, 3 pixels"

_RADIUS = 16.0
"""Distance in pixels from a bright source within which peaks are its children
or false."""

_TOLERANCES = (0.5, 2.0)
"""Largest distance of a peak from its source, in separations and in pixels."""


def restored(fwhm: float) -> str:
    """Return the name of the restored image at a target FWHM in pixels."""
    return f"restored, {fwhm:g} pixels"


METHODS = (COADD, STOCK, ACCELERATED, SMOOTHED, LINEAR, *(restored(fwhm) for fwhm in FWHMS))
"""Names of the images."""


class _Image(NamedTuple):
    """An image that a deblender may get, and what it took to make it."""

    name: str
    image: Array
    kernel: npt.NDArray[np.complex128]
    seconds: float
    iterations: int = 0


def measure_field(seed: int) -> dict[str, Any]:
    """Simulate a field and measure its blends on all images.

    Parameters
    ----------
    seed
        Seed of the field.

    Returns
    -------
    record : `dict`
        ``seconds`` and ``iterations`` of each method, and ``blends``:
        ``kind``, ``separation``, ``flux`` of the sources and, by method,
        ``peaks`` (rows of the index of the source they belong to, -1 for
        none, height in noise levels of the coadd, and depth) and ``children``
        (fluxes over the true ones).
    """
    field = simulate_blends(seed)
    good = np.ones(field.images.shape, dtype=bool)
    coadd = inverse_variance_coadd(field.images, field.variances, good)
    image, variance = coadd.image.astype(float), coadd.variance.astype(float)
    psf = coadd_psf(field.psfs.astype(float), coadd.weights)
    footprints = find_footprints(image, variance, psf)
    noise = float(np.sqrt(np.median(variance)))
    record: dict[str, Any] = {"seconds": {}, "iterations": {}, "blends": []}
    rows = field.catalogue.group_by("blend").groups
    for rows_of_blend in rows:
        record["blends"].append(
            {
                "kind": str(rows_of_blend["kind"][0]),
                "separation": float(rows_of_blend["separation"][0]),
                "flux": [float(flux) for flux in rows_of_blend["flux"]],
                "peaks": {},
                "children": {},
            }
        )
    for made in _make_images(field, image, variance, psf, footprints):
        record["seconds"][made.name] = made.seconds
        record["iterations"][made.name] = made.iterations
        for blend, rows_of_blend in zip(record["blends"], rows, strict=True):
            places = np.stack([rows_of_blend["y"], rows_of_blend["x"]], axis=1)
            peaks = _find_members(made.image, footprints, places)
            blend["peaks"][made.name] = [[member, height / noise, depth] for member, height, depth in peaks]
            flux = child_fluxes(image, made.image * footprints, made.kernel, places, _RADIUS)
            blend["children"][made.name] = [float(f) for f in flux / np.asarray(rows_of_blend["flux"])]
    return record


def _make_images(
    field: BlendField, coadd: Array, variance: Array, psf: Array, footprints: npt.NDArray[np.bool_]
) -> Iterator[_Image]:
    """Make all images of a field."""
    shape = (coadd.shape[0], coadd.shape[1])
    yield _Image(COADD, coadd, np.ones((shape[0], shape[1] // 2 + 1), dtype=complex), 0.0)
    kernel = difference_kernel(psf, STOCK_FWHM, shape, integrated=True)
    for name, accelerated in ((STOCK, False), (ACCELERATED, True)):
        start = time.process_time()
        image, iterations = deconvolve(coadd, variance, psf, footprints, accelerated=accelerated)
        seconds = time.process_time() - start
        yield _Image(name, image, kernel, seconds, iterations)
        if name == STOCK:
            image = gaussian_filter(
                image, math.sqrt(_COMMON_FWHM**2 - STOCK_FWHM**2) * gaussian_fwhm_to_sigma
            )
            yield _Image(SMOOTHED, image, difference_kernel(psf, _COMMON_FWHM, shape), seconds, iterations)
    good = np.ones(field.images.shape, dtype=bool)
    options = RestoreOptions(noise=NoiseOptions(num_draws=1, num_realizations=0))
    for fwhm in FWHMS:
        start = time.process_time()
        result = restore(
            field.images, field.variances, good, field.psfs, target_fwhm=fwhm, options=options, device="cpu"
        )
        seconds = time.process_time() - start
        kernel = difference_kernel(psf, fwhm, shape)
        yield _Image(restored(fwhm), np.nan_to_num(result.image.astype(float)), kernel, seconds)
        if fwhm == _COMMON_FWHM:
            yield _Image(LINEAR, np.nan_to_num(result.linear_image.astype(float)), kernel, seconds)


def _find_members(
    image: Array, footprints: npt.NDArray[np.bool_], places: Array
) -> list[tuple[int, float, float]]:
    """Return the source, height and depth of each peak around the first."""
    y, x = np.indices(image.shape)
    inside = np.hypot(y - places[0, 0], x - places[0, 1]) <= _RADIUS
    relative, most = _TOLERANCES
    tolerance = most
    if len(places) > 1:
        tolerance = min(most, relative * float(np.hypot(*(places[1] - places[0]))))
    found = []
    for peak in find_peaks(image, footprints & inside):
        distances = np.hypot(*(places - [peak.y, peak.x]).T)
        nearest = int(np.argmin(distances))
        member = nearest if distances[nearest] <= tolerance else -1
        found.append((member, peak.height, peak.depth))
    return found
