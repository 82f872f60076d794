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

_RARE, _INDEPENDENT = 4.0, 1.5
"""Sigma beyond which the local over the typical ratio is no scatter of the
draws, so that a pixel stands for itself, and the squares that neighbours add
to each draw: with four draws above 5.2, and in the cores of saturated stars
squared errors were measured to be 20 to 60 times the declared variance."""

_PRIOR_DRAWS = 4.0
"""Number of draws that the mean of pixels of the same brightness is worth at
most: with it the scatter of the declared error on sky is smallest, for 6 and
12 draws."""

_CORE_RATIO = 30.0
"""Mean square over that of pixels of the same brightness above which a pixel
stands for itself, as the cores of saturated stars do: beyond the scatter of a
few draws on blank sky, where errors are rare and large."""

_BRIGHTNESS, _BRIGHTNESS_STEP = (0.01, 3e4), 1.0
"""Range of brightness with means of its own, up to that of saturated stars in
deep exposures, and step of its logarithm."""

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
    special = seen & (found > _largest_ratio(len(errors.linear)) * ratio * predicted)
    if bool(special.any()):
        distance = torch.where(special, 0, distance)
        ratio = _pooled(torch.where(distance > 0, squares / predicted, 0.0), distance)
    variance = torch.where(special, torch.maximum(found, ratio * predicted), ratio * predicted)
    # Without data the estimate is an extrapolation, whose noise has no
    # spectrum.
    return torch.where(seen, variance, torch.maximum(variance, _mean_of_near(squares, ~seen)))


def _largest_ratio(number: int) -> float:
    """Return what a mean of squares of some draws, of expectation one, hardly
    exceeds (Wilson & Hilferty 1931, PNAS 17, 684).
    """
    variance = 2.0 / (9.0 * _INDEPENDENT * number)
    return (1.0 - variance + _RARE * math.sqrt(variance)) ** 3


def restored_variance(
    errors: torch.Tensor,
    unseen_light: torch.Tensor,
    linear: torch.Tensor,
    brightness: torch.Tensor,
    seen: torch.Tensor,
) -> torch.Tensor:
    """Return the expected squared error of the restored image, (H, W).

    A few draws tell little about a pixel.  Their mean square in it and its
    neighbours is therefore combined with that of all pixels of the same
    brightness, in units of the variance of the linear image there.  The weight
    of the pixel is the regression of its variance on its mean square among
    pixels of the same brightness, which their scatter and the covariance of
    two halves of the draws tell (Lord & Novick 1968, Statistical Theories of
    Mental Test Scores, section 3.7): where variances differ much, as beside
    bright stars of deep exposures, each pixel stands for itself.  It is at
    least that of a scaled inverse chi-square prior of some draws (Gelman et
    al. 2013, Bayesian Data Analysis, section 2.6).

    Parameters
    ----------
    errors
        Shape (k, H, W), errors of the image in repeated observations.
    unseen_light
        Shape (H, W), variance of the light where there are no data.
    linear
        Shape (H, W), variance of the linear image.
    brightness
        Shape (H, W), signal-to-noise ratio of a star with the brightness of
        the pixel as its peak.
    seen
        Shape (H, W), bool, pixels with data.
    """
    squares = errors.square()
    mean_square = squares.mean(dim=0)
    # Averaged as the squares are: estimates mix noise across a step.
    unit = torch.where(seen, _mean_of_near(linear, seen), linear)
    typical = unit * _mean_of_like((mean_square / unit)[None], brightness, seen)[0]
    # Cores of saturated stars must not count for pixels that are as bright.
    plain = seen & (largest_around(_mean_of_near(mean_square / typical, seen), 3) < _CORE_RATIO)
    typical = unit * _mean_of_like((mean_square / unit)[None], brightness, plain)[0]
    found = _mean_of_near(mean_square / typical, seen)
    number = len(squares)
    weight = torch.full_like(found, number / (number + _PRIOR_DRAWS))
    if number > 1:
        halves = [_mean_of_near(squares[k::2].mean(dim=0) / typical, seen) for k in range(2)]
        weight = torch.maximum(weight, _regression(found, halves, brightness, plain))
    variance = typical * torch.where(found > _CORE_RATIO, found, 1.0 + weight * (found - 1.0))
    # Where nothing is seen only the squares themselves tell, and the repeated
    # observations are of what the first made up there.
    unseen = mean_square + unseen_light
    return torch.where(seen, variance, _mean_of_near(unseen, torch.ones_like(seen)))


def _regression(
    found: torch.Tensor, halves: list[torch.Tensor], brightness: torch.Tensor, seen: torch.Tensor
) -> torch.Tensor:
    """Return the slope of the truth on a mean of two halves, at most 1."""
    first, second = halves
    moments = torch.stack([found, found**2, first, second, first * second])
    mean, square, first, second, product = _mean_of_like(moments, brightness, seen)
    # The errors of the halves are independent, and only the truth correlates.
    covariance = product - first * second
    return (covariance / (square - mean**2).clamp(min=1e-6)).clamp(max=1.0)


def _mean_of_like(values: torch.Tensor, brightness: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Return means over seen pixels about as bright, (c, H, W)."""
    low, high = _BRIGHTNESS
    position = (brightness.clamp(low, high) / low).log() / _BRIGHTNESS_STEP
    result = torch.zeros_like(values)
    overall = values[:, seen].mean(dim=1)
    for node in range(math.ceil(math.log(high / low) / _BRIGHTNESS_STEP) + 1):
        hat = (1.0 - (position - node).abs()).clamp(min=0.0)
        use = hat * seen
        # Brightnesses of few pixels take after those that are fainter.
        overall = ((values * use).sum(dim=(1, 2)) + _FEW * overall) / (use.sum() + _FEW)
        result += hat * overall[:, None, None]
    return result


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
