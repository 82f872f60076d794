# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Parametric-bootstrap errors of the estimator."""

from __future__ import annotations

__all__ = ("RepeatedErrors", "linear_variance", "repeat_observations", "restored_variance")

import dataclasses
from collections.abc import Iterable

import torch

from ..estimate import Estimate, Estimator
from ..exposures import smooth
from ..forward import WEIGHT_FLOOR, ForwardModel
from ._local_noise import LocalNoise

_STRUCTURE_FWHM = 4.0
"""FWHM in pixels above which light is smooth and continued beyond the data."""

_RATIO_FWHM = 32.0
"""FWHM in pixels over which ratios of measured and predicted variance are
averaged, among pixels as far from missing data: what is missing beside a bad
column is not what is missing at a border."""

_NEAR = 8
"""Distance in pixels from missing data from which it no longer matters."""

_LARGEST_RATIO = 4.0
"""Local over typical ratio above which a pixel stands for itself: between the
scatter of a few draws and the cores of saturated stars, where squared errors
were measured to be 20 to 60 times the declared variance."""


@dataclasses.dataclass(frozen=True)
class RepeatedErrors:
    """Errors of repeated observations of a known sky.

    Attributes
    ----------
    restored, linear
        Shape (k, H, W), errors of the restored and the linear image.
    chi_square
        Shape (n,), mean chi-square of each exposure.
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
    """Observe the restored sky again and restore it (parametric bootstrap).

    The restored image is taken for the sky, observed with new noise, and
    restored by the same estimator; the difference is an error of the
    estimator, including the light that it smooths away (Efron & Tibshirani
    1993, An Introduction to the Bootstrap, section 6.5).  The error of the
    linear image is that of the noise alone, and of light where there are no
    data, which is drawn with the structure of the light around.

    Parameters
    ----------
    estimator
        The fitted estimator.
    estimate
        Its estimate from the exposures.
    noise
        Draws of the noise of the exposures, each of shape (n, h, w).
    counted
        Shape (n, h, w), 1 for the pixels that chi-square
        counts, 0 for others; all by default.
    """
    model, solver = estimator.model, estimator.linear
    expected = solver.normal(estimate.restored[None])[0]
    weights = estimator.weights if counted is None else estimator.weights * counted
    estimates = estimator.linear_estimates(expected, estimate.estimates)
    restored, linear = [], []
    chi_square = torch.zeros(model.num_exposures, device=estimator.weights.device)
    light = _unseen_structure(model, solver.coverage, estimate.restored)
    noise_of_light = torch.zeros_like(light)
    for number, draw in enumerate(noise):
        noise_right = solver.right_side(draw)
        # Apart from the light: errors of the noise would be small beside it.
        noise_estimates = estimator.linear_estimates(noise_right)
        again = estimator.restore_again(
            expected + noise_right, estimates + noise_estimates, estimate.correction
        )
        error = again - estimate.restored
        restored.append(model.crop(error))
        noise_of_light += (_unseen_structure(model, solver.coverage, error) - noise_of_light) / (number + 1)
        # That of blank sky is zero.
        structure = (light - 2.0 * noise_of_light).clamp(min=0.0).sqrt()
        white = torch.randn(model.latent_shape, generator=torch.Generator().manual_seed(number))
        unseen = model.filter_images((structure * white.to(structure))[None], model.target_transform)
        change = solver.normal(unseen)[0]
        found = estimator.debiaser.linear_image(noise_right + change, noise_estimates[0], drawn=True)
        linear.append(model.crop(found - unseen[0]))
        chi_square += (weights * (draw - model.predict(error)) ** 2).sum(dim=(1, 2))
    return RepeatedErrors(torch.stack(restored), torch.stack(linear), chi_square / len(restored))


def _unseen_structure(model: ForwardModel, coverage: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Return, where there are no data, the variance of white pixels that at
    the target PSF are as structured as the light around, latent_shape.
    """
    seen = model.embed((coverage > WEIGHT_FLOOR).to(image.dtype))
    total, share = smooth(torch.stack([seen * image, seen]), _STRUCTURE_FWHM)
    squares = seen * (image - total / share.clamp(min=1e-6)) ** 2
    # The surroundings, three times as wide.
    total, share = smooth(torch.stack([squares, seen]), 12.0)
    # The structure of white pixels of unit variance.
    impulse = torch.zeros_like(image)
    impulse[tuple(n // 2 for n in impulse.shape)] = 1.0
    star = model.filter_images(impulse[None], model.target_transform)
    unit = (star - smooth(star, _STRUCTURE_FWHM)).square().sum()
    return (1.0 - seen) * (total.clamp(min=0.0) / share.clamp(min=1e-6) / unit)


def linear_variance(errors: RepeatedErrors, noise: LocalNoise, seen: torch.Tensor) -> torch.Tensor:
    """Return the variance of the linear image, (H, W).

    The variance predicted for white noise in each exposure is scaled by the
    mean ratio of squared errors to it, among pixels around that are as far
    from missing data.  This adds correlated noise of resampled exposures,
    variation of the PSF, and light beyond the edge of the data.

    Parameters
    ----------
    errors
        Errors of repeated observations.
    noise
        Noise of the linear image.
    seen
        Shape (H, W), bool, pixels with data.
    """
    predicted = noise.variance()
    found = _mean_square(errors.linear, seen)
    distance = _distance_to_missing(seen, _NEAR)
    ratio = _pooled(torch.where(seen, (errors.linear**2).mean(dim=0) / predicted, 0.0), distance)
    # In the core of a star the error follows its own light, and must not count
    # for its surroundings.
    special = seen & (found > _LARGEST_RATIO * ratio * predicted)
    if bool(special.any()):
        distance = torch.where(special, 0, distance)
        ratio = _pooled(torch.where(distance > 0, (errors.linear**2).mean(dim=0) / predicted, 0.0), distance)
    variance = torch.where(special, torch.maximum(found, ratio * predicted), ratio * predicted)
    # Without data the estimate is an extrapolation, whose noise has no
    # spectrum.
    return torch.where(seen, variance, torch.maximum(variance, _mean_square(errors.linear, ~seen)))


def restored_variance(errors: RepeatedErrors, linear: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Return the expected squared error of the restored image, (H, W).

    Parameters
    ----------
    errors
        Errors of repeated observations.
    linear
        Shape (H, W), variance of the linear image: a lower bound where there
        are no data, since the repeated observations are of what the first
        made up there.
    seen
        Shape (H, W), bool, pixels with data.
    """
    found = _mean_square(errors.restored)
    return torch.where(seen, found, torch.maximum(found, linear))


def _mean_square(errors: torch.Tensor, known: torch.Tensor | None = None) -> torch.Tensor:
    """Return mean squares of errors, averaged over a few known pixels."""
    squares = (errors**2).mean(dim=0)
    share = torch.ones_like(squares) if known is None else known.to(squares.dtype)
    total, share = smooth(torch.stack([squares * share, share]), 2.0)
    return total / share.clamp(min=1e-6)


def _pooled(ratio: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
    """Average a ratio over pixels around of the same distance to missing
    data, leaving out distance 0.
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
    """Return the distance to missing data or the border, 0 in missing data."""
    inside = torch.nn.functional.pad(seen.to(torch.float32)[None], 4 * [largest])
    distance = inside.clone()
    for _ in range(largest - 1):
        # The diagonal neighbours count.
        inside = -torch.nn.functional.max_pool2d(-inside, 3, stride=1, padding=1)
        distance += inside
    return distance[0, largest:-largest, largest:-largest].to(torch.int64)
