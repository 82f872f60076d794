# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Variance planes that hold the noise of their own pixels, and its removal."""

from __future__ import annotations

__all__ = (
    "free_plane",
    "is_blank",
    "second_difference",
)

import dataclasses
from collections.abc import Iterator

import torch

from ._local_medians import fill_variance, local_medians

_SIGNIFICANCE = 5.0
"""Significance, in standard deviations, of a dependence that is believed."""

_LARGEST_BIAS = 0.02
"""Dependence that need not be smoothed away: the bias of a weighted mean, in
sigma of a pixel."""

_LEAST_BIAS = 1e-3
"""Dependence that is taken for none, in the same unit."""

_FAR = 4.0
"""Residual, in robust standard deviations, of what is no longer noise."""

_BLOCK = 8
"""Side in pixels of the blocks whose scatter gives errors: beyond the reach of
the filter, so that they are independent."""

_LEAST_BLANK = 1000
"""Number of pixels of blank sky that are enough."""

_LEAST_PIXELS = 100
"""Number of pixels of one level of noise whose mean is judged."""

_LEAST_BLOCKS = 8
"""Number of blocks from which their scatter is known."""

_MOST = 0.95
"""Share of the pixels for which a slope must be known well."""

_OPENING = 7
"""Side in pixels of what is too narrow for a pattern of the detector."""

_COLLINEAR = 1e-2
"""Share of the largest eigenvalue below which slopes are not told apart."""

_LEAST_SHARE = 0.02
"""Share of the variance around that a pixel has at least: noise that differs
by more than a factor of 50 from pixel to pixel is none."""


@dataclasses.dataclass(frozen=True)
class FreedPlane:
    """A variance plane without the noise of the pixels themselves.

    Attributes
    ----------
    variance
        Shape (H, W), positive everywhere.
    bias
        By how much a mean weighted with the given plane would have been too
        low, in sigma of a pixel; 0 if the plane does not follow the noise.
    smoothed
        Whether the plane followed it in a way that is not linear, so that
        its fine pattern was given up.
    """

    variance: torch.Tensor
    bias: float
    smoothed: bool


def free_plane(
    variance: torch.Tensor, good: torch.Tensor, image: torch.Tensor, prediction: torch.Tensor
) -> FreedPlane:
    """Remove from a variance plane what it holds of the noise of its pixels.

    A plane that was computed from the pixels y themselves is
    ``v = b + c y``, with any pattern b, so that ``v - c (y - m)`` is free of
    noise for any prediction m, and as sharp as the plane.  The slope c, the
    inverse gain, is found by regression of the plane on the residuals, both
    filtered with the second difference along rows and columns, which passes
    the noise of single pixels, and next to nothing of sources, of errors of
    the PSF and of patterns with edges along rows or columns.  It may be in
    part proportional to the plane, as it is for a flat field.  A plane that
    does not depend on the residuals is returned as it is.  What depends on
    them in another way is replaced by medians of neighbours.

    Parameters
    ----------
    variance
        Shape (H, W), the plane.
    good
        Shape (H, W), bool, pixels to use.
    image
        Shape (H, W), the pixels.
    prediction
        Shape (H, W), expected brightness of the pixels.

    Returns
    -------
    freed : `FreedPlane`
        The plane to weight with.
    """
    filled = fill_variance(variance, good)
    level = local_medians(filled)
    # Sky that was subtracted twice is no negative light.
    prediction = prediction.clamp(min=0)
    residual = torch.where(good, image - prediction, 0.0)
    normal = residual * level.rsqrt()
    scale = normal[good].abs().median() / 0.6745 if bool(good.any()) else normal.new_tensor(0.0)
    # Patches have corners, where the medians around are those of others.
    plain = good & (residual.abs() < _FAR * scale * torch.maximum(filled, level).sqrt())
    check = _Check.build(normal / scale.clamp(min=1e-30), level, prediction, plain)
    bias = check.bias(filled)
    # Noise raises a plane that was made from it.
    if not check.follows_noise(filled, _LEAST_BIAS, rising=True):
        return FreedPlane(filled, 0.0, smoothed=False)
    around = level
    for slope, is_known in _slopes(filled, level, residual, prediction, plain):
        # Without light, so that medians do not flatten sources.
        dark = local_medians(filled - slope * torch.where(good, image, prediction))
        around = torch.maximum(dark + slope * prediction, _LEAST_SHARE * level)
        freed = torch.where(plain, torch.maximum(filled - slope * residual, _LEAST_SHARE * level), around)
        if is_known and not check.follows_noise(freed, _LARGEST_BIAS):
            return FreedPlane(freed, bias, smoothed=False)
    if not check.follows_noise(filled, _LARGEST_BIAS, rising=True):
        return FreedPlane(filled, 0.0, smoothed=False)
    return FreedPlane(around, bias, smoothed=True)


@dataclasses.dataclass(frozen=True)
class _Check:
    """Tells whether a plane follows the noise of its pixels.

    A mean weighted with the inverse plane is compared with one weighted with
    the inverse of the variances around, which is zero for any plane that
    does not depend on the noise.

    Attributes
    ----------
    noise
        Shape (h, w), noise of pixels in units of its standard deviation.
    level
        Shape (h, w), variances around.
    groups
        Shape (k, h, w), bool, pixels to use, by level.
    border
        Number of pixels on each side of the plane that are left out.
    """

    noise: torch.Tensor
    level: torch.Tensor
    groups: torch.Tensor
    border: int

    @classmethod
    def build(
        cls, normal: torch.Tensor, level: torch.Tensor, prediction: torch.Tensor, plain: torch.Tensor
    ) -> _Check:
        """Choose the pixels.

        Parameters
        ----------
        normal
            Shape (H, W), residuals in units of their standard deviation.
        level
            Shape (H, W), variances around.
        prediction
            Shape (H, W), brightness.
        plain
            Shape (H, W), bool, pixels of which residuals are noise.

        Returns
        -------
        check : `_Check`
            With blank sky, or, where there is not enough, with differences of
            neighbours.
        """
        use, border = plain & is_blank(prediction, level), 0
        if int(use.sum()) < _LEAST_BLANK:
            border = 1
            noise = level.sqrt()
            normal = second_difference(normal * noise) / (4.0 * noise[1:-1, 1:-1])
            # Nor where sources are so sharp that their errors show.
            curved = second_difference(prediction).abs() > 4.0 * noise[1:-1, 1:-1]
            use, level = (_eroded(plain)[1:-1, 1:-1] > 0) & ~curved, level[1:-1, 1:-1]
        octave = torch.log2(level).round()
        groups = [use & (octave == k) for k in octave[use].unique()]
        enough = [group for group in groups if int(group.sum()) >= _LEAST_PIXELS]
        return cls(normal, level, torch.stack(enough) if enough else use.new_zeros(0, *use.shape), border)

    def bias(self, plane: torch.Tensor) -> float:
        """Return the bias of a mean that is weighted with a plane.

        Parameters
        ----------
        plane
            Shape (H, W), the plane.

        Returns
        -------
        bias : `float`
            In sigma of a pixel; positive if the mean is too low.
        """
        biases, _, number = self._measure(plane)
        return float((biases * number).sum() / number.sum().clamp(min=1.0))

    def follows_noise(self, plane: torch.Tensor, allowed: float, *, rising: bool = False) -> bool:
        """Tell whether it is more than is allowed, and significant.

        Parameters
        ----------
        plane
            Shape (H, W), the plane.
        allowed
            Largest bias, in sigma of a pixel.
        rising
            Whether only planes count that rise with the noise.

        Returns
        -------
        follows : `bool`
            Whether it is so for the pixels of any level.
        """
        biases, sigmas, _ = self._measure(plane)
        sizes = biases if rising else biases.abs()
        return bool(((sizes > allowed) & (sizes > _SIGNIFICANCE * sigmas)).any())

    def _measure(self, plane: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        height, width = plane.shape
        inner = plane[self.border : height - self.border, self.border : width - self.border]
        measured = []
        for group in self.groups:
            weight = self.level[group] / inner[group]
            moments = self.noise[group] * (1.0 - weight / weight.mean())
            measured.append((float(moments.mean()), float(moments.std()) / len(moments) ** 0.5, len(moments)))
        biases, sigmas, numbers = torch.tensor(measured, dtype=torch.float64).reshape(-1, 3).T
        return biases, sigmas, numbers


def second_difference(image: torch.Tensor) -> torch.Tensor:
    """Return the product of second differences along rows and columns.

    Parameters
    ----------
    image
        Shape (..., H, W).

    Returns
    -------
    differences : `torch.Tensor`
        Shape (..., H - 2, W - 2); white noise of unit variance has the
        standard deviation 6.
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
    """Yield slopes, (H, W), of a plane against residuals, the simplest first.

    With each, whether its error leaves no more than is allowed.
    """
    weight = _eroded(plain)[1:-1, 1:-1] / level[1:-1, 1:-1]
    least = _LARGEST_BIAS * torch.minimum(variance, level).sqrt()
    # The prediction takes what the plane knows of sources.
    templates = torch.stack([residual, prediction])
    found, covariance = _regress(variance, templates, weight)
    sigma = covariance[0, 0].sqrt()
    if not bool(found[0].abs() > _SIGNIFICANCE * sigma):
        return
    yield found[0].expand_as(level), _mostly(sigma <= least[plain])
    # That of a flat field is proportional to the plane.
    pattern = _opened(level)
    pattern = pattern / pattern[plain].median()
    found, covariance = _regress(variance, torch.cat([templates, pattern * templates]), weight)
    sigmas = (covariance[0, 0] + 2.0 * pattern * covariance[0, 2] + pattern**2 * covariance[2, 2]).sqrt()
    # Without light there is a variance as well.
    largest = level / local_medians(prediction).clamp(min=1e-30)
    yield torch.minimum(found[0] + found[2] * pattern, largest), _mostly((sigmas <= least)[plain])


def _mostly(true: torch.Tensor) -> bool:
    return float(true.float().mean()) > _MOST


def _regress(
    target: torch.Tensor, templates: torch.Tensor, weight: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fit the second differences of templates, (k, H, W), to those of a plane.

    Returns the coefficients, (k,), and their covariance, which is infinite if
    there are too few pixels.
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
    # Errors by the scatter of blocks, whatever the pattern of the plane.
    left = (right - matrices @ found) @ inverse
    return found.to(target.dtype), (left.T @ left).to(target.dtype)


def is_blank(prediction: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """Tell where neither a pixel nor those around have light.

    Parameters
    ----------
    prediction
        Shape (H, W), expected brightness.
    level
        Shape (H, W), variances.

    Returns
    -------
    blank : `torch.Tensor`
        Shape (H, W), bool, whether it is below one sigma everywhere around.
    """
    return torch.nn.functional.max_pool2d(prediction[None], 5, stride=1, padding=2)[0] < level.sqrt()


def _opened(level: torch.Tensor) -> torch.Tensor:
    """Remove what is brighter than its surroundings and small, as stars."""
    lowest = -torch.nn.functional.max_pool2d(-level[None], _OPENING, stride=1, padding=_OPENING // 2)
    return torch.nn.functional.max_pool2d(lowest, _OPENING, stride=1, padding=_OPENING // 2)[0]


def _eroded(use: torch.Tensor) -> torch.Tensor:
    """Return 1 where all neighbours are used as well, else 0."""
    return 1.0 - torch.nn.functional.max_pool2d((~use).float()[None], 3, stride=1, padding=1)[0]
