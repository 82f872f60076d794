# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Templates of difference images, with their PSFs and the noise they have."""

from __future__ import annotations

__all__ = ("TARGET_FWHM", "TEMPLATES", "Template", "make_templates", "perfect_template", "transfer")

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lsst.astroclearnet.core import fwhm_to_sigma, restore

from ..baselines import coadd_psf, inverse_variance_coadd, matching_kernel, psf_matched_coadd
from ..scenes import Scene

type Array = npt.NDArray[np.float64]
type Transform = npt.NDArray[np.complex128]

TEMPLATES = ("linear", "direct", "PSF-matched")

TARGET_FWHM = 3.2
"""Of the restored coadd, in pixels of 0.168 arcsec."""

_MATCHED_FWHM = 5.7
"""Of the PSF-matched coadd: that of the widest exposure."""


class Template(NamedTuple):
    """An image to subtract.

    Transforms are those of `numpy.fft.rfft2`.
    """

    image: Array
    """In nJy, shape (H, W)."""

    psf: Transform
    """Transform of the PSF, 1 at zero frequency."""

    power: Array
    """Noise power on blank sky: the variance that white noise of this power
    has, by frequency."""

    variance: Array
    """Variance of the pixels over that on blank sky."""


def make_templates(scene: Scene, psfs: npt.NDArray[np.float32]) -> dict[str, Template]:
    """Make the templates of exposures.

    Parameters
    ----------
    scene
        The exposures.
    psfs
        PSFs that are taken for theirs, shape (n, P, P).

    Returns
    -------
    templates : `dict` [`str`, `Template`]
        For each of `TEMPLATES`.
    """
    shape, variances = scene.options.shape, scene.true_variances.astype(np.float32)
    restored = restore(scene.images, variances, scene.good, psfs, target_fwhm=TARGET_FWHM, device="cpu")
    size = restored.linear_noise.correlation(slice(0, shape[0]), slice(0, shape[1]))
    level = float(np.median(restored.linear_variance[scene.blank]))
    templates = {
        "linear": Template(
            restored.linear_image.astype(float),
            _gaussian(TARGET_FWHM, shape),
            level * np.clip(transfer(size, shape).real, 0.0, None),
            restored.linear_variance / level,
        )
    }
    direct = inverse_variance_coadd(scene.images, variances, scene.good)
    level = float(np.median(direct.variance[scene.blank]))
    psf = transfer(coadd_psf(psfs, direct.weights), shape)
    templates["direct"] = Template(
        direct.image.astype(float), psf, np.full(psf.shape, level), direct.variance / level
    )
    matched = psf_matched_coadd(scene.images, variances, scene.good, psfs, _MATCHED_FWHM)
    level = float(np.median(matched.variance[scene.blank]))
    weights = matched.weights.mean(axis=(1, 2))
    power = np.zeros(psf.shape)
    for weight, given, conditions in zip(weights, psfs, scene.conditions, strict=True):
        kernel = matching_kernel(given, _MATCHED_FWHM, shape)
        power += (weight * np.abs(kernel)) ** 2 * conditions.sky_variance
    templates["PSF-matched"] = Template(
        matched.image.astype(float), _gaussian(_MATCHED_FWHM, shape), power, matched.variance / level
    )
    return templates


def perfect_template(light: Array, psf: npt.NDArray[np.float32]) -> Template:
    """Return a template without noise, with the PSF of the science visit.

    Parameters
    ----------
    light
        Expected light of the visit, shape (H, W).
    psf
        Its PSF, shape (P, P).

    Returns
    -------
    template : `Template`
        The template.
    """
    psf_transfer = transfer(psf, light.shape)
    return Template(light, psf_transfer, np.zeros(psf_transfer.shape), np.ones(light.shape))


def transfer(stamp: npt.NDArray[np.floating], shape: tuple[int, ...]) -> Transform:
    """Return the transform of a stamp, centred on its middle pixel.

    Parameters
    ----------
    stamp
        Stamp of odd size, shape (P, P).
    shape
        Height and width of images.

    Returns
    -------
    transform : `numpy.ndarray`
        Shape (H, W // 2 + 1).
    """
    plane = np.zeros(shape)
    plane[: stamp.shape[0], : stamp.shape[1]] = stamp
    middle = (-(stamp.shape[0] // 2), -(stamp.shape[1] // 2))
    return np.asarray(np.fft.rfft2(np.roll(plane, middle, axis=(0, 1))))


def _gaussian(fwhm: float, shape: tuple[int, ...]) -> Transform:
    """Return the transform of a round Gaussian of unit sum."""
    square = np.add.outer(np.fft.fftfreq(shape[0]) ** 2, np.fft.rfftfreq(shape[1]) ** 2)
    return np.exp(-2.0 * (np.pi * fwhm_to_sigma(fwhm)) ** 2 * square).astype(complex)
