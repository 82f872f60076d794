# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Shears by anacal, from galaxies on fields of opposite shear.

FPFS of the package anacal (Li et al. 2018, MNRAS 481, 4445): ellipticities of
galaxies without their PSF, with the analytic response to shear of each, of
its detection, and of its noise (Li & Mandelbaum 2023, MNRAS 521, 4904; Li,
Mandelbaum et al. 2025, MNRAS 536, 3663).  The package is not needed before
`measure_responses` is called.
"""

from __future__ import annotations

__all__ = ("PLACES", "has_anacal", "measure_responses")

import importlib.util
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from lsst.astroclearnet.core import fwhm_to_sigma
from lsst.astroclearnet.simulation import PIXEL_SCALE

from ..scenes import SceneSource
from .fields import TARGET_FWHM, RestoredField

type Array = npt.NDArray[np.float64]

PLACES = ("known", "detected")
"""Where galaxies are measured: at their centres, or where anacal detects."""

_SMOOTHING = 0.38
"""Width in arcsec of the kernel that takes the place of the PSF, sigma; that
of the target PSF is 0.23."""

_STAMP = 64
"""Side in pixels of stamps of PSFs and of galaxies."""

_OVERLAP = 80
"""Pixels around a cell; anacal asks for 36 at least with this kernel."""

_THRESHOLD = 5.0
"""Signal-to-noise ratio of peaks that are detected; galaxies are brighter."""

_FLUX_STEP, _PEAK_STEP = 0.8, 0.2
"""Widths of the smooth steps of the weights of detection, in flux and in the
height of a peak over its neighbours.  That of peaks is wide: with the one of
anacal's tests, 0.04, pixels add twice the noise to m."""

_ZERO_POINT = 31.4
"""Magnitude of 1 nJy."""


def has_anacal() -> bool:
    """Tell whether the package is installed.

    Returns
    -------
    installed : `bool`
        Whether it is.
    """
    return importlib.util.find_spec("anacal") is not None


def measure_responses(field: RestoredField) -> dict[tuple[str, str], Array]:
    """Measure ellipticities and their responses on the images of a field.

    A noise realisation that comes with an image is turned by 90 degrees and
    given to anacal, which adds it to the image and corrects for both.  The
    truth has no noise.  The threshold is the same on all images: that of the
    linear image.

    Parameters
    ----------
    field
        The field.

    Returns
    -------
    responses : `dict` [`tuple`, `numpy.ndarray`]
        By place, one of `PLACES`, and image.  Shape (2, n, 4): the shear, +
        and -, the galaxy, and the sums over its orientations of its
        ellipticity along the shear and across it, and of their responses to
        either component.
    """
    variance = _white_variance(field.noise["linear_image"][0, 0])
    measured = {}
    for name, images in field.images.items():
        for place in PLACES:
            found = np.zeros((2, len(field.galaxies), 4))
            for k, j in np.ndindex(2, 2):
                noise = field.noise[name][k, j] if name in field.noise else None
                found[k] += _measure(images[k, j], noise, variance, field, place)
            measured[place, name] = found
    return measured


def _measure(image: Array, noise: Array | None, variance: float, field: RestoredField, place: str) -> Array:
    """Return what `measure_responses` does, of one image: shape (n, 4)."""
    turned = None if noise is None else np.rot90(noise).astype(np.float32)
    order = (field.component + 1, 2 - field.component)
    if place == "known":
        catalogue = _measure_at(image, turned, variance, field.galaxies)
        columns = [catalogue[f"fpfs1_e{i}"] for i in order]
        columns += [catalogue[f"fpfs1_de{i}_dg{i}"] for i in order]
        return np.stack(columns, axis=1)
    catalogue = _detect(image, turned, variance)
    weight = catalogue["wsel"]
    columns = [weight * catalogue[f"fpfs_e{i}"] for i in order]
    columns += [
        catalogue[f"dwsel_dg{i}"] * catalogue[f"fpfs_e{i}"] + weight * catalogue[f"fpfs_de{i}_dg{i}"]
        for i in order
    ]
    centres = np.array([(galaxy.x, galaxy.y) for galaxy in field.galaxies])
    places = np.stack([catalogue["x1_det"], catalogue["x2_det"]], axis=1) / PIXEL_SCALE
    sums = np.zeros((len(centres), 4))
    if len(places):
        np.add.at(sums, cKDTree(centres).query(places)[1], np.stack(columns, axis=1))
    return sums


def _measure_at(image: Array, noise: Any, variance: float, galaxies: list[SceneSource]) -> Any:
    """Return the catalogue of anacal at the centres of galaxies."""
    from anacal import fpfs

    places = np.array([(g.y, g.x) for g in galaxies]).view([("y", float), ("x", float)])[:, 0]
    return fpfs.process_image(
        fpfs_config=fpfs.FpfsConfig(npix=_STAMP, sigma_shapelets1=_SMOOTHING),
        pixel_scale=PIXEL_SCALE,
        noise_variance=variance,
        mag_zero=_ZERO_POINT,
        gal_array=image.astype(np.float32),
        psf_array=_psf(),
        noise_array=noise,
        detection=places,
    )


def _detect(image: Array, noise: Any, variance: float) -> Any:
    """Return the catalogue of anacal where it detects."""
    from anacal import fpfs, geometry, task

    height, width = image.shape
    detector = task.Task(
        scale=PIXEL_SCALE,
        sigma_arcsec=_SMOOTHING,
        snr_peak_min=_THRESHOLD,
        omega_f=_FLUX_STEP,
        omega_v=_PEAK_STEP,
        stamp_size=_STAMP,
        image_bound=_STAMP // 2,
        num_epochs=1,
        fpfs_c0=fpfs.FpfsConfig().c0,
        mag_zero=_ZERO_POINT,
    )
    cells = geometry.get_cell_list(
        img_nx=width, img_ny=height, cell_nx=width, cell_ny=height, cell_overlap=_OVERLAP, scale=PIXEL_SCALE
    )
    # A noise image doubles the variance that anacal takes.
    factor = 2.0 if noise is None else 1.0
    return detector.process_image(
        image.astype(np.float32), _psf(), factor * variance, cells, noise_array=noise
    )


def _psf() -> Array:
    """Return the target PSF, centred on the pixel that anacal asks for."""
    offsets = np.arange(_STAMP) - _STAMP // 2
    profile = np.exp(-0.5 * (offsets / fwhm_to_sigma(TARGET_FWHM)) ** 2)
    psf = np.outer(profile, profile)
    return np.asarray(psf / psf.sum())


def _white_variance(noise: Array) -> float:
    """Return the variance of the white noise that is as strong as the noise
    of an image, once the PSF is replaced with the kernel.
    """
    squares = [(2.0 * np.pi * np.fft.fftfreq(size)) ** 2 for size in noise.shape]
    wider = (_SMOOTHING / PIXEL_SCALE) ** 2 - fwhm_to_sigma(TARGET_FWHM) ** 2
    power = np.exp(-wider * np.add.outer(*squares))
    return float(np.sum(np.abs(np.fft.fft2(noise)) ** 2 * power) / noise.size / power.sum())
