# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Errors of the estimator, from observing what it found again."""

from __future__ import annotations

__all__ = ("RepeatedErrors", "linear_variance", "repeat_observations", "restored_variance")

import dataclasses
from collections.abc import Iterable

import torch

from ..estimate import Estimate, Estimator
from ..exposures import smooth
from ..forward import DEPTH_FLOOR, ForwardModel
from ._local_noise import LocalNoise

_ERROR_FWHM = 2.0
"""FWHM in pixels over which squared errors are averaged."""

_STRUCTURE_FWHM = 4.0
"""FWHM in pixels over which light is smooth that continues beyond the data."""

_SURROUNDINGS_FWHM = 12.0
"""FWHM in pixels of the surroundings whose structure light beyond has."""

_RATIO_FWHM = 32.0
"""The same for the ratio of measured and predicted variance of the linear
image, among pixels as far from missing data: what is missing beside a bad
column is not what is missing at a border."""

_NEAR = 8
"""Distance in pixels from missing data from which it no longer matters."""

_LARGEST_RATIO = 4.0
"""Local over typical ratio above which a pixel stands for itself: between the
scatter of a few draws and the cores of saturated stars, where squared errors
were 20 to 60 times the declared variance."""


@dataclasses.dataclass(frozen=True)
class RepeatedErrors:
    """Errors of repeated observations of a known sky.

    Attributes
    ----------
    restored
        Shape (k, H, W), errors of the restored image.
    linear
        Shape (k, H, W), errors of the linear image.
    chi_square
        Shape (n,), mean sum of squared weighted deviations of each exposure
        from the image restored from it.
    """

    restored: torch.Tensor
    linear: torch.Tensor
    chi_square: torch.Tensor


def repeat_observations(
    estimator: Estimator,
    estimate: Estimate,
    noise: Iterable[torch.Tensor],
    counted: torch.Tensor | None = None,
) -> RepeatedErrors:
    """Observe the restored sky again and restore that (parametric bootstrap).

    The restored image is taken for the sky, seen through each exposure with
    new noise, and restored by the same estimator.  What comes out differs
    from what went in by the error of the estimator, the light that it smooths
    away included (Efron & Tibshirani 1993, An Introduction to the Bootstrap,
    section 6.5).  The linear image being linear, its error is what it makes of
    the noise, and of light where there are no data, which nobody knows: it is
    drawn with the structure of the light around.

    Parameters
    ----------
    estimator
        The fitted estimator.
    estimate
        What it made of the exposures.
    noise
        Draws of the noise of the exposures, each of shape (n, h, w).
    counted
        Shape (n, h, w), or what broadcasts to it: 1 for the pixels that
        chi-square counts, which by default are all, and 0 for others.

    Returns
    -------
    errors : `RepeatedErrors`
        One error image for each draw.
    """
    model, solver = estimator.model, estimator.debiaser.estimator
    expected = solver.normal(estimate.restored[None])[0]
    weights = estimator.weights if counted is None else estimator.weights * counted
    estimates = estimator.linear_estimates(expected, estimate.bank)
    restored, linear = [], []
    chi_square = torch.zeros(model.num_exposures, device=estimator.weights.device)
    light = _unseen_structure(model, solver.coverage, estimate.restored)
    noise_of_light = torch.zeros_like(light)
    for number, draw in enumerate(noise):
        noise_right = solver.right_side(draw)
        # Apart from the light, beside which an error of the noise is small.
        noise_estimates = estimator.linear_estimates(noise_right)
        again = estimator.restore_again(
            expected + noise_right, estimates + noise_estimates, estimate.correction
        )
        error = again - estimate.restored
        restored.append(model.crop(error))
        noise_of_light += (_unseen_structure(model, solver.coverage, error) - noise_of_light) / (number + 1)
        # Of blank sky nothing is left.
        structure = (light - 2.0 * noise_of_light).clamp(min=0.0).sqrt()
        white = torch.randn(model.latent_shape, generator=torch.Generator().manual_seed(number))
        unseen = model.filter_images((structure * white.to(structure))[None], model.target_transform)
        change = solver.normal(unseen)[0]
        found = estimator.debiaser.linear_image(noise_right + change, noise_estimates[0], drawn=True)
        linear.append(model.crop(found - unseen[0]))
        chi_square += _chi_square(model, weights, draw, error)
    return RepeatedErrors(torch.stack(restored), torch.stack(linear), chi_square / len(restored))


def _unseen_structure(model: ForwardModel, coverage: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Return the mean square, pixel by pixel, of a sky that is as structured
    as the light around, where there are no data; shape latent_shape.
    """
    seen = model.embed((coverage > DEPTH_FLOOR).to(image.dtype))
    total, share = smooth(torch.stack([seen * image, seen]), _STRUCTURE_FWHM)
    squares = seen * (image - total / share.clamp(min=1e-6)) ** 2
    total, share = smooth(torch.stack([squares, seen]), _SURROUNDINGS_FWHM)
    # The same of a sky of independent pixels of unit variance.
    impulse = torch.zeros_like(image)
    impulse[tuple(n // 2 for n in impulse.shape)] = 1.0
    star = model.filter_images(impulse[None], model.target_transform)
    unit = (star - smooth(star, _STRUCTURE_FWHM)).square().sum()
    return (1.0 - seen) * (total.clamp(min=0.0) / share.clamp(min=1e-6) / unit)


def _chi_square(
    model: ForwardModel, weights: torch.Tensor, draw: torch.Tensor, error: torch.Tensor
) -> torch.Tensor:
    """Return what an image leaves of each exposure, (n,)."""
    totals = []
    exposures = torch.arange(len(draw), device=draw.device)
    for exposure, one, weight in zip(exposures.split(1), draw.split(1), weights.split(1), strict=True):
        left = one - model.predict(error, exposure)
        totals.append((weight * left**2).sum())
    return torch.stack(totals)


def linear_variance(errors: RepeatedErrors, noise: LocalNoise, seen: torch.Tensor) -> torch.Tensor:
    """Return the variance of the linear image.

    The variance that the spectra of the noise predict for white noise in each
    exposure, scaled by what repeated observations show among pixels around
    that are as far from missing data: correlated noise of resampled
    exposures, a PSF that varies, and at the edge of the data light beyond it.

    Parameters
    ----------
    errors
        Errors of repeated observations.
    noise
        Noise of the linear image.
    seen
        Shape (H, W), bool, pixels with data.

    Returns
    -------
    variance : `torch.Tensor`
        Shape (H, W).
    """
    predicted = noise.variance()
    found = _mean_square(errors.linear, seen)
    distance = _distance_to_missing(seen, _NEAR)
    ratio = _pooled(torch.where(seen, (errors.linear**2).mean(dim=0) / predicted, 0.0), distance)
    # In the core of a star the error follows its light, not that of its
    # surroundings, and the other way round.
    special = seen & (found > _LARGEST_RATIO * ratio * predicted)
    if bool(special.any()):
        distance = torch.where(special, 0, distance)
        ratio = _pooled(torch.where(distance > 0, (errors.linear**2).mean(dim=0) / predicted, 0.0), distance)
    variance = torch.where(special, torch.maximum(found, ratio * predicted), ratio * predicted)
    # Where there are no data the estimate is an extrapolation, whose noise no
    # spectrum tells.
    return torch.where(seen, variance, torch.maximum(variance, _mean_square(errors.linear, ~seen)))


def restored_variance(errors: RepeatedErrors, linear: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Return the expected squared error of the restored image.

    Parameters
    ----------
    errors
        Errors of repeated observations.
    linear
        Shape (H, W), variance of the linear image.  It takes nothing for
        granted, and is a lower bound where there are no data: repeated
        observations know there only what the first made up.
    seen
        Shape (H, W), bool, pixels with data.

    Returns
    -------
    variance : `torch.Tensor`
        Shape (H, W).
    """
    found = _mean_square(errors.restored)
    return torch.where(seen, found, torch.maximum(found, linear))


def _mean_square(errors: torch.Tensor, known: torch.Tensor | None = None) -> torch.Tensor:
    """Return the mean square of errors, averaged over a few pixels that are
    known.
    """
    squares = (errors**2).mean(dim=0)
    share = torch.ones_like(squares) if known is None else known.to(squares.dtype)
    total, share = smooth(torch.stack([squares * share, share]), _ERROR_FWHM)
    return total / share.clamp(min=1e-6)


def _pooled(ratio: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
    """Average a ratio around each pixel over pixels of the same distance, or
    of any where there are none; those of distance 0 do not count.
    """
    far = distance == _NEAR
    known = (far if bool(far.any()) else distance > 0).to(ratio.dtype)
    total, share = smooth(torch.stack([ratio * known, known]), _RATIO_FWHM)
    pooled = torch.where(share > 0.01, total / share.clamp(min=0.01), 1.0)
    for value in range(1, _NEAR):
        here = distance == value
        if bool(here.any()):
            known = here.to(ratio.dtype)
            total, share = smooth(torch.stack([ratio * known, known]), _RATIO_FWHM)
            pooled = torch.where(here, total / share.clamp(min=1e-6), pooled)
    return pooled


def _distance_to_missing(seen: torch.Tensor, largest: int) -> torch.Tensor:
    """Return how far missing data are, at most so many pixels: 0 in them, 1
    beside them and beside the border.
    """
    inside = torch.nn.functional.pad(seen.to(torch.float32)[None], 4 * [largest])
    distance = inside.clone()
    for _ in range(largest - 1):
        # The diagonal neighbours count.
        inside = -torch.nn.functional.max_pool2d(-inside, 3, stride=1, padding=1)
        distance += inside
    return distance[0, largest:-largest, largest:-largest].to(torch.int64)
