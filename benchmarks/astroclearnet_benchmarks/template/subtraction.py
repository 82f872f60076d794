# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Difference images: what appears, over the noise that a template adds.

Each way of subtraction is a pair of kernels, one for the science image and
one for the template: the difference of both images after them is the flux of
a point source that is fitted at each pixel, up to a factor.
"""

from __future__ import annotations

__all__ = ("WAYS", "Score", "subtract")

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..scenes import Scene
from .templates import Template, transfer

type Array = npt.NDArray[np.float64]
type Transform = npt.NDArray[np.complex128]

_REGULARIZATION = 1e-6
"""Squared transfer below which a kernel between PSFs is damped."""

_FLOOR = 1e-6
"""White noise of a template, over that of the sky, which its noise power does
not have: from the rounding of pixels, and from light beyond the borders.  It
costs .03 % of the noise of a difference; without it what a PSF-matched coadd
has left of fine structure is amplified."""

_DEGREES = (4, 2, 2)
"""Degrees of the polynomials of each Gaussian of a fitted kernel; as are the
numbers below, the default of ip_diffim (3a2e29f)."""

_SMALLEST, _SMALLEST_TO_SHARPEN = 0.7, 0.4
"""Smallest width of these Gaussians in pixels, where the template is to become
wider, and where sharper."""

_RATIO = 2.0
"""Ratio of the widths of successive Gaussians."""

_SIZE, _SIZES = 6.0, (21, 35)
"""Side of the kernel over the widest Gaussian, and its limits in pixels."""


class Score(NamedTuple):
    """The flux of a point source at each pixel of a difference image."""

    flux: Array
    """In nJy, shape (H, W)."""

    sigma: Array
    """Its standard deviation, with the photon noise of sources."""

    sky_sigma: float
    """The same on blank sky."""


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a way of subtraction may use.

    Attributes
    ----------
    image, variance
        The science image in nJy and its variance, shape (H, W).
    sky_variance
        Its variance on blank sky.
    psf
        Transform of the PSF that is taken for its own.
    template
        The template.
    stars
        Pixels around constant stars, shape (H, W), that kernels are fitted
        to.
    """

    image: Array
    variance: Array
    sky_variance: float
    psf: Transform
    template: Template
    stars: npt.NDArray[np.bool_]


def subtract(
    science: Scene, psf: npt.NDArray[np.float32], template: Template, way: str, stars: npt.NDArray[np.bool_]
) -> Score:
    """Subtract a template from a science visit.

    Parameters
    ----------
    science
        Scene of one exposure.
    psf
        PSF that is taken for its own, shape (P, P).
    template
        The template.
    way
        One of `WAYS`.
    stars
        Pixels around constant stars, shape (H, W).

    Returns
    -------
    score : `Score`
        What is left.
    """
    image, variance = science.images[0].astype(float), science.true_variances[0]
    level, shape = science.conditions[0].sky_variance, image.shape
    given = Inputs(image, variance, level, transfer(psf, shape), template, stars)
    for_science, for_template = WAYS[way](given)
    response = _mean((for_science * given.psf).real, shape)
    left = _inverse(for_science * np.fft.rfft2(image) - for_template * np.fft.rfft2(template.image), shape)
    template_noise = _mean(np.abs(for_template) ** 2 * template.power, shape)
    sky = _mean(np.abs(for_science) ** 2, shape) * level + template_noise
    expected = _spread(variance, for_science)
    if template_noise > 0.0:
        expected += _spread(template.variance, for_template, template_noise)
    return Score(left / response, np.sqrt(expected) / response, float(np.sqrt(sky) / response))


def _match_known(given: Inputs) -> tuple[Transform, Transform]:
    """Match the sharper image to the other one by their PSFs."""
    sharp, wide = given.template.psf, given.psf
    is_sharper = _width(sharp) < _width(wide)
    if not is_sharper:
        sharp, wide = wide, sharp
    kernel = wide * sharp.conj() / (np.abs(sharp) ** 2 + _REGULARIZATION)
    return _decorrelate(given, kernel, convolve_template=is_sharper)


def _match_fitted(given: Inputs) -> tuple[Transform, Transform]:
    """Match the template to the science image by a kernel that is fitted to
    stars (Alard & Lupton 1998), as AlardLuptonSubtractTask does by default.
    """
    template, shape = given.template.image, given.image.shape
    spectrum = np.fft.rfft2(template)
    kernels = np.stack([transfer(kernel, shape) for kernel in _kernel_basis(given)])
    weights = 1.0 / np.sqrt(given.variance[given.stars])
    design = np.stack([_inverse(spectrum * kernel, shape)[given.stars] for kernel in kernels], axis=1)
    amplitudes = np.linalg.lstsq(design * weights[:, None], given.image[given.stars] * weights)[0]
    return _decorrelate(given, np.tensordot(amplitudes, kernels, axes=1), convolve_template=True)


def _decorrelate(given: Inputs, kernel: Transform, *, convolve_template: bool) -> tuple[Transform, Transform]:
    """Subtract after a kernel for one image, decorrelate, and filter with the
    PSF.

    The decorrelation is that of Reiss & Lupton (2016, DMTN-021), which takes
    the noise of either image for white.
    """
    level, template = given.sky_variance, given.template
    white = _mean(template.power, given.image.shape)
    if convolve_template:
        whitening = (level + white) / (level + np.abs(kernel) ** 2 * white)
        return given.psf.conj() * whitening, given.psf.conj() * whitening * kernel
    whitening = (level + white) / (np.abs(kernel) ** 2 * level + white)
    return template.psf.conj() * whitening * kernel, template.psf.conj() * whitening


def _kernel_basis(given: Inputs) -> list[Array]:
    """Return kernels whose sums a matching kernel is: Gaussians times
    polynomials.
    """
    science, template = _width(given.psf), _width(given.template.psf)
    smallest = _SMALLEST if science >= template else _SMALLEST_TO_SHARPEN
    between = max(np.sqrt(abs(science**2 - template**2)), smallest)
    widths = max(smallest, between / _RATIO) * _RATIO ** np.arange(len(_DEGREES))
    radius = int(np.clip(_SIZE * widths[-1], *_SIZES)) // 2
    offsets = np.arange(-radius, radius + 1, dtype=float)
    basis = []
    for width, degree in zip(widths, _DEGREES, strict=True):
        profile = np.exp(-0.5 * (offsets / width) ** 2)
        for i in range(degree + 1):
            for j in range(degree + 1 - i):
                kernel = np.outer(profile * (offsets / radius) ** i, profile * (offsets / radius) ** j)
                basis.append(kernel / np.abs(kernel).sum())
    return basis


def _width(psf: Transform) -> float:
    """Return the width in pixels of the Gaussian whose transfer has the same
    sum of squares.
    """
    shape = (psf.shape[0], 2 * (psf.shape[1] - 1))
    return float(1.0 / np.sqrt(4.0 * np.pi * _mean(np.abs(psf) ** 2, shape)))


def _zogy(given: Inputs) -> tuple[Transform, Transform]:
    """Return the kernels of the optimal statistic of Zackay, Ofek & Gal-Yam
    (2016, ApJ 830, 27), with the noise power of the template by frequency.
    """
    ours, theirs = np.abs(given.psf) ** 2, np.abs(given.template.psf) ** 2
    power = given.template.power + _FLOOR * given.sky_variance
    total = np.maximum(given.sky_variance * theirs + power * ours, np.finfo(float).tiny)
    return given.psf.conj() * theirs / total, given.template.psf.conj() * ours / total


WAYS: dict[str, Callable[[Inputs], tuple[Transform, Transform]]] = {
    "ZOGY": _zogy,
    "known kernel": _match_known,
    "fitted kernel": _match_fitted,
}
"""Ways of subtraction: kernels for the science image and the template."""


def _mean(values: Array, shape: tuple[int, ...]) -> float:
    """Return the mean over all frequencies, from half of them."""
    counts = np.full(values.shape[1], 2.0)
    counts[0] = 1.0
    if shape[1] % 2 == 0:
        counts[-1] = 1.0
    return float(np.sum(values * counts) / (shape[0] * shape[1]))


def _spread(variance: Array, kernel: Transform, total: float | None = None) -> Array:
    """Return the variance after a kernel, of noise that is white; with its
    squares normalised to a total, if there is one.
    """
    square = _inverse(kernel, variance.shape) ** 2
    if total is not None:
        square *= total / square.sum()
    spread = _inverse(np.fft.rfft2(square) * np.fft.rfft2(variance), variance.shape)
    return np.maximum(spread, variance.min() * square.sum())


def _inverse(values: Transform, shape: tuple[int, ...]) -> Array:
    """Return the image of a transform."""
    return np.asarray(np.fft.irfft2(values, s=shape))
