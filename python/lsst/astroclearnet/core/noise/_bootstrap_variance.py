# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.


"""Variances from the errors of repeated observations."""

from __future__ import annotations

__all__ = ("linear_variance", "restored_variance")

import math

import torch

from ..exposures import largest_around, smooth
from ._bootstrap import RepeatedErrors
from ._local_noise import LocalNoise

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

_PRIOR_DRAWS = 4.0
"""Number of draws that the mean of pixels of the same brightness is worth:
with it the scatter of the declared error is smallest, for 6 and 12 draws."""

_CORE_RATIO = 30.0
"""Mean square over that of pixels of the same brightness above which a pixel
stands for itself, as the cores of saturated stars do: beyond the scatter of a
few draws on blank sky, where errors are rare and large."""

_BRIGHTNESS, _BRIGHTNESS_STEP = (0.01, 300.0), 0.5
"""Range of brightness with means of its own, and step of its logarithm."""

_FEW = 30.0
"""Number of pixels that are few for a mean."""


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
    squares = (errors.linear**2).mean(dim=0)
    found = _mean_of_near(squares, seen)
    distance = _distance_to_missing(seen, _NEAR)
    ratio = _pooled(torch.where(seen, squares / predicted, 0.0), distance)
    # In the core of a star the error follows its own light, and must not count
    # for its surroundings.
    special = seen & (found > _LARGEST_RATIO * ratio * predicted)
    if bool(special.any()):
        distance = torch.where(special, 0, distance)
        ratio = _pooled(torch.where(distance > 0, squares / predicted, 0.0), distance)
    variance = torch.where(special, torch.maximum(found, ratio * predicted), ratio * predicted)
    # Without data the estimate is an extrapolation, whose noise has no
    # spectrum.
    return torch.where(seen, variance, torch.maximum(variance, _mean_of_near(squares, ~seen)))


def restored_variance(
    errors: RepeatedErrors, linear: torch.Tensor, brightness: torch.Tensor, seen: torch.Tensor
) -> torch.Tensor:
    """Return the expected squared error of the restored image, (H, W).

    A few draws tell little about a pixel.  Their mean square in it and its
    neighbours is therefore combined with that of all pixels of the same
    brightness, in units of the variance of the linear image, as the mean of a
    scaled inverse chi-square prior is (Gelman et al. 2013, Bayesian Data
    Analysis, section 2.6).

    Parameters
    ----------
    errors
        Errors of repeated observations.
    linear
        Shape (H, W), variance of the linear image: a lower bound where there
        are no data, since the repeated observations are of what the first
        made up there.
    brightness
        Shape (H, W), signal-to-noise ratio of a star with the brightness of
        the pixel as its peak.
    seen
        Shape (H, W), bool, pixels with data.
    """
    mean_square = errors.restored.square().mean(dim=0)
    squares = mean_square / linear
    typical = _mean_of_like(squares, brightness, seen)
    # Cores of saturated stars must not count for pixels that are as bright.
    plain = seen & (largest_around(_mean_of_near(squares / typical, seen), 3) < _CORE_RATIO)
    typical = _mean_of_like(squares, brightness, plain)
    found = _mean_of_near(squares / typical, seen)
    number = len(errors.restored)
    shrunk = (number * found + _PRIOR_DRAWS) / (number + _PRIOR_DRAWS)
    variance = linear * typical * torch.where(found > _CORE_RATIO, found, shrunk)
    # Where nothing is seen only the squares themselves tell.
    unseen = torch.maximum(_mean_of_near(mean_square, torch.ones_like(seen)), linear)
    return torch.where(seen, variance, unseen)


def _mean_of_like(squares: torch.Tensor, brightness: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Return the mean of the seen pixels of about the same brightness."""
    low, high = _BRIGHTNESS
    position = (brightness.clamp(low, high) / low).log() / _BRIGHTNESS_STEP
    result = torch.zeros_like(squares)
    overall = squares[seen].mean()
    for node in range(math.ceil(math.log(high / low) / _BRIGHTNESS_STEP) + 1):
        hat = (1.0 - (position - node).abs()).clamp(min=0.0)
        use = hat * seen
        # Brightnesses of few pixels take after those that are fainter.
        overall = ((squares * use).sum() + _FEW * overall) / (use.sum() + _FEW)
        result += hat * overall.log()
    return result.exp()


def _mean_of_near(values: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Return means over a few known pixels."""
    share = known.to(values.dtype)
    total, share = smooth(torch.stack([torch.where(known, values, 0.0), share]), 2.0)
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
