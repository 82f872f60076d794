# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Variances without the noise of the pixels themselves."""

from __future__ import annotations

__all__ = ("decorrelate_variance", "is_blank", "model_variances", "second_difference")

import dataclasses
import math
from collections.abc import Iterator

import torch

from ._filters import box_means, largest_around, local_medians, masked_medians
from ._stack import ExposureStack

_SIGNIFICANCE = 5.0
"""Significance in sigma of a correlation that counts."""

_LARGEST_BIAS = 0.02
"""Correlation that need not be smoothed away: bias of a weighted mean in sigma
of a pixel."""

_LEAST_BIAS = 1e-3
"""Correlation that is negligible, in the same unit."""

_NOISE_RANGE = 4.0
"""Residual in robust sigma above which it is not noise."""

_BLOCK = 8
"""Side in pixels of blocks with independent errors, beyond the filter's
reach."""

_LEAST_BLANK = 1000
"""Number of blank-sky pixels that are enough."""

_LEAST_PIXELS = 100
"""Number of pixels that a level of noise needs for a mean."""

_LEAST_BLOCKS = 8
"""Number of blocks that their scatter needs."""

_KNOWN_SHARE = 0.95
"""Share of pixels whose slope must be known well."""

_OPENING = 7
"""Side in pixels of the opening that removes stars from detector patterns."""

_COLLINEAR = 1e-2
"""Relative eigenvalue below which slopes are degenerate."""

_FILL_BLOCK = 8
"""Side in pixels of blocks whose means fill large gaps; the side in blocks of
those that fill what remains."""

_LEAST_RATIO = 0.02
"""Least ratio of a variance to the local median: noise does not differ by more
than a factor of 50 from pixel to pixel."""


def model_variances(stack: ExposureStack, prediction: torch.Tensor | None = None) -> torch.Tensor:
    """Return variances decorrelated from the noise of their own pixels.

    A variance plane that contains the photon noise of the very pixel makes
    weights 1 / variance favour pixels that scattered low, which biases fluxes;
    see `decorrelate_variance`.

    Parameters
    ----------
    stack
        The exposures.
    prediction
        Shape (n, h, w), expected flux of each pixel.  Without it each variance
        is the local median, without the pixel itself.

    Returns
    -------
    variances : `torch.Tensor`
        Shape (n, h, w), positive everywhere, also at unusable pixels.
    """
    # One exposure at a time: temporaries take many times the memory of the
    # result.
    return torch.stack(
        [
            local_medians(_fill_variance(stack.variances[t], stack.good[t]))
            if prediction is None
            else decorrelate_variance(
                stack.variances[t], stack.good[t], stack.images[t], prediction[t]
            ).variance
            for t in range(stack.num_exposures)
        ]
    )


@dataclasses.dataclass(frozen=True)
class DecorrelatedVariance:
    """A variance plane without the noise of the pixels themselves.

    Attributes
    ----------
    variance
        Shape (h, w), positive everywhere.
    bias
        By how much a mean weighted with the given plane would be too low, in
        sigma of a pixel; 0 without correlation.
    smoothed
        Whether a non-linear correlation was removed by smoothing.
    """

    variance: torch.Tensor
    bias: float
    smoothed: bool


def decorrelate_variance(
    variance: torch.Tensor, good: torch.Tensor, image: torch.Tensor, prediction: torch.Tensor
) -> DecorrelatedVariance:
    """Remove the noise of the pixels themselves from their variances.

    A variance estimated from the pixel y itself is v = b + c y with any
    pattern b, so that v - c (y - m) is free of noise for any prediction m.
    The slope c, the inverse gain, follows from regression of v on the
    residuals, both filtered with second differences along rows and columns,
    which suppress sources, PSF errors and patterns along rows or columns.
    Part of it may be proportional to v, as for a flat field.  An uncorrelated
    plane is returned unchanged; one that correlates non-linearly is replaced
    by local medians.

    Parameters
    ----------
    variance
        Shape (h, w), the given variances.
    good
        Shape (h, w), bool, usable pixels.
    image
        Shape (h, w), the pixels.
    prediction
        Shape (h, w), expected flux of the pixels.

    Returns
    -------
    plane : `DecorrelatedVariance`
        The variances to weight with.
    """
    filled = _fill_variance(variance, good)
    level = local_medians(filled)
    # Over-subtracted sky is no negative flux.
    prediction = prediction.clamp(min=0)
    residual = torch.where(good, image - prediction, 0.0)
    normal = residual * level.rsqrt()
    scale = masked_medians(normal[None].abs(), good[None], 0.0)[0] / 0.6745
    # At corners of areas with another level, local medians are those around.
    plain = good & (residual.abs() < _NOISE_RANGE * scale * torch.maximum(filled, level).sqrt())
    test = _CorrelationTest.build(normal / scale.clamp(min=1e-30), level, prediction, plain)
    given = test.measure(filled)
    # Photon noise raises the variance estimated from it.
    if not given.exceeds(_LEAST_BIAS, rising=True):
        return DecorrelatedVariance(filled, 0.0, smoothed=False)
    bias = given.mean()
    around = level
    for slope, is_known in _slopes(filled, level, residual, prediction, plain):
        # Without sources, which the medians would flatten.
        dark = local_medians(filled - slope * torch.where(good, image, prediction))
        around = torch.maximum(dark + slope * prediction, _LEAST_RATIO * level)
        decorrelated = torch.where(
            plain, torch.maximum(filled - slope * residual, _LEAST_RATIO * level), around
        )
        if is_known and not test.measure(decorrelated).exceeds(_LARGEST_BIAS):
            return DecorrelatedVariance(decorrelated, bias, smoothed=False)
    if not given.exceeds(_LARGEST_BIAS, rising=True):
        return DecorrelatedVariance(filled, 0.0, smoothed=False)
    return DecorrelatedVariance(around, bias, smoothed=True)


@dataclasses.dataclass(frozen=True)
class _Correlation:
    """Biases of a weighted mean in sigma, positive if too low, their standard
    deviations and numbers of pixels, by level of noise, on the CPU.
    """

    biases: torch.Tensor
    sigmas: torch.Tensor
    numbers: torch.Tensor

    def mean(self) -> float:
        """Return the bias of all pixels."""
        return float((self.biases * self.numbers).sum() / self.numbers.sum().clamp(min=1.0))

    def exceeds(self, allowed: float, *, rising: bool = False) -> bool:
        """Return whether a bias is significant and larger than allowed."""
        sizes = self.biases if rising else self.biases.abs()
        return bool(((sizes > allowed) & (sizes > _SIGNIFICANCE * self.sigmas)).any())


@dataclasses.dataclass(frozen=True)
class _CorrelationTest:
    """Test whether a variance plane correlates with the noise of its pixels.

    A mean weighted with its inverse is compared with one weighted with the
    inverse local medians, by level of noise.  Groups are (g, h, w), 0 or 1.
    """

    noise: torch.Tensor
    level: torch.Tensor
    groups: torch.Tensor
    border: int

    @classmethod
    def build(
        cls, normal: torch.Tensor, level: torch.Tensor, prediction: torch.Tensor, plain: torch.Tensor
    ) -> _CorrelationTest:
        """Select blank sky or, without enough of it, second differences."""
        use, border = plain & is_blank(prediction, level), 0
        if int(use.sum()) < _LEAST_BLANK:
            border = 1
            noise = level.sqrt()
            normal = second_difference(normal * noise) / (4.0 * noise[1:-1, 1:-1])
            # Exclude sources so sharp that their errors matter.
            curved = second_difference(prediction).abs() > 4.0 * noise[1:-1, 1:-1]
            use, level = (_eroded(plain)[1:-1, 1:-1] > 0) & ~curved, level[1:-1, 1:-1]
        octave = torch.log2(level).round()
        # None of a plane of one level; at most one for each bit of a float.
        low, high = math.inf, -math.inf
        if octave.numel():
            limits = octave.masked_fill(~use, torch.inf).amin(), octave.masked_fill(~use, -torch.inf).amax()
            low, high = torch.stack(limits).tolist()
        octaves = torch.arange(low, high + 1.0, device=level.device) if low <= high else level.new_zeros(0)
        groups = use & (octave == octaves[:, None, None])
        groups = groups[groups.sum(dim=(1, 2)) >= _LEAST_PIXELS]
        return cls(normal, level, groups.to(level.dtype), border)

    def measure(self, plane: torch.Tensor) -> _Correlation:
        """Return the correlation of a plane."""
        height, width = plane.shape
        inner = plane[self.border : height - self.border, self.border : width - self.border]
        weight, numbers = self.level / inner, self.groups.sum(dim=(1, 2))
        means = (self.groups * weight).sum(dim=(1, 2)) / numbers
        moments = self.groups * self.noise * (1.0 - weight / means[:, None, None])
        biases = moments.sum(dim=(1, 2)) / numbers
        spreads = moments.square().sum(dim=(1, 2)) / numbers - biases**2
        sigmas = (spreads.clamp(min=0.0) / (numbers - 1.0)).sqrt()
        return _Correlation(*torch.stack([biases, sigmas, numbers]).double().cpu())


def second_difference(image: torch.Tensor) -> torch.Tensor:
    """Return the product of second differences along rows and columns.

    Parameters
    ----------
    image
        Shape (..., H, W).

    Returns
    -------
    differences : `torch.Tensor`
        Shape (..., H - 2, W - 2); 6 sigma for white noise of 1 sigma.
    """
    rows = image[..., :-2, :] - 2.0 * image[..., 1:-1, :] + image[..., 2:, :]
    return rows[..., :-2] - 2.0 * rows[..., 1:-1] + rows[..., 2:]


def _slopes(
    variance: torch.Tensor,
    level: torch.Tensor,
    residual: torch.Tensor,
    prediction: torch.Tensor,
    plain: torch.Tensor,
) -> Iterator[tuple[torch.Tensor, bool]]:
    """Yield slopes (H, W) and whether they are well known, simplest first."""
    weight = _eroded(plain)[1:-1, 1:-1] / level[1:-1, 1:-1]
    least = _LARGEST_BIAS * torch.minimum(variance, level).sqrt()
    # The prediction takes up the variance of sources.
    templates = torch.stack([residual, prediction])
    found, covariance = _regress(variance, templates, weight)
    sigma = covariance[0, 0].sqrt()
    if not bool(found[0].abs() > _SIGNIFICANCE * sigma):
        return
    yield found[0].expand_as(level), _mostly_true(sigma <= least[plain])
    # A flat field makes the slope proportional to the variance.
    pattern = _opened(level)
    pattern = pattern / pattern[plain].median()
    found, covariance = _regress(variance, torch.cat([templates, pattern * templates]), weight)
    sigmas = (covariance[0, 0] + 2.0 * pattern * covariance[0, 2] + pattern**2 * covariance[2, 2]).sqrt()
    # Read noise limits the slope.
    largest = level / local_medians(prediction).clamp(min=1e-30)
    yield torch.minimum(found[0] + found[2] * pattern, largest), _mostly_true((sigmas <= least)[plain])


def _mostly_true(true: torch.Tensor) -> bool:
    return float(true.float().mean()) > _KNOWN_SHARE


def _regress(
    target: torch.Tensor, templates: torch.Tensor, weight: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fit second differences of templates, (k, H, W), to those of the target.

    Return the coefficients and their covariance, infinite with few pixels.
    """
    number = len(templates)
    none = target.new_zeros(number), target.new_full((number, number), torch.inf)
    if min(weight.shape) < _BLOCK:
        return none
    design = second_difference(templates) * weight
    right_side = second_difference(target) * weight
    squares = [a * b for k, a in enumerate(design) for b in design[k:]]
    products = torch.stack([*squares, *(a * right_side for a in design)])
    blocks = torch.nn.functional.avg_pool2d(products, _BLOCK).flatten(1).double()
    blocks = blocks[:, blocks[0] > 0]
    if blocks.shape[1] < _LEAST_BLOCKS:
        return none
    rows, columns = torch.triu_indices(number, number)
    matrices = blocks.new_zeros(blocks.shape[1], number, number)
    matrices[:, rows, columns] = matrices[:, columns, rows] = blocks[: len(squares)].T
    right = blocks[len(squares) :].T
    total = matrices.sum(dim=0)
    unit = total.diagonal().clamp(min=1e-300).rsqrt()
    inverse = torch.linalg.pinv(unit[:, None] * total * unit, rtol=_COLLINEAR, hermitian=True)
    inverse = unit[:, None] * inverse * unit
    found = inverse @ right.sum(dim=0)
    # Errors from the scatter of blocks, valid for any pattern of the variance.
    residual = (right - matrices @ found) @ inverse
    return found.to(target.dtype), (residual.T @ residual).to(target.dtype)


def is_blank(prediction: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """Return where neither a pixel nor its neighbours contain a source.

    Parameters
    ----------
    prediction
        Shape (H, W), expected flux.
    level
        Shape (H, W), variances.

    Returns
    -------
    blank : `torch.Tensor`
        Shape (H, W), bool, below one sigma within two pixels.
    """
    return largest_around(prediction, 5) < level.sqrt()


def _opened(level: torch.Tensor) -> torch.Tensor:
    """Remove structure narrower than the opening, such as stars."""
    return largest_around(-largest_around(-level, _OPENING), _OPENING)


def _eroded(use: torch.Tensor) -> torch.Tensor:
    """Return 1 where all neighbours are used as well, else 0."""
    return 1.0 - largest_around((~use).float(), 3)


def _fill_variance(variance: torch.Tensor, good: torch.Tensor) -> torch.Tensor:
    """Give unusable pixels the mean of their surroundings; 1 without any."""
    if bool(good.all()):
        return variance
    (height, width), side = good.shape, _FILL_BLOCK
    sums = torch.stack([good.to(variance.dtype), torch.where(good, variance, 0.0)])
    margins = [-size % side**2 for size in (width, height)]
    blocks = torch.nn.functional.avg_pool2d(
        torch.nn.functional.pad(sums, (0, margins[0], 0, margins[1])), side
    )
    filled = torch.where(good, variance, masked_medians(variance[None], good[None], 1.0))
    for (share, total), size in ((torch.nn.functional.avg_pool2d(blocks, side), side**2), (blocks, side)):
        mean = (total / share).repeat_interleave(size, 0).repeat_interleave(size, 1)[:height, :width]
        filled = torch.where(good | mean.isnan(), filled, mean)
    share, total = box_means(sums, 3)
    # Less than half a pixel is rounding.
    return torch.where(~good & (share * 9.0 > 0.5), total / share.clamp(min=1e-30), filled)
