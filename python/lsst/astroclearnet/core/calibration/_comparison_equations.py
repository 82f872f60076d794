# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
"""What the comparison of exposures solves and learns from residuals."""

from __future__ import annotations

import dataclasses

import torch

_PRIOR_SOURCES = 1.0
"""Number of sources that the assumption counts for."""

_LARGEST_GROWTH = 2.0
"""Factor by which the square of a scatter changes at most at a time."""

_LEAST_SCATTER = 1e-3
_MOST_SCATTER = 0.3
"""Bounds of what sources can show."""

_REACH = 6.0
"""Deviation of a source, in standard deviations, from which it is ignored."""

_NULL = 1e-9
"""Eigenvalue, over the largest, below which nothing is known."""

_MEDIAN_OF_CHI_SQUARE = 1.386
"""For two degrees of freedom."""

_SINGULAR = 1e-6
"""What is added to the diagonal of what a source tells of its light, over the
largest element."""


@dataclasses.dataclass(frozen=True)
class Equations:
    """Normal equations of two parameters of each exposure, without sources.

    Attributes
    ----------
    matrix
        Shape (2n, 2n).
    right
        Shape (2n,).
    """

    matrix: torch.Tensor
    right: torch.Tensor

    @classmethod
    def reduce(
        cls, design: torch.Tensor, gain: torch.Tensor, weight: torch.Tensor, residual: torch.Tensor
    ) -> Equations:
        """Eliminate the two unknowns of each source.

        Parameters
        ----------
        design
            Shape (n, N, 2, 2), what parameters make of the two data of a
            source.
        gain
            Shape (n, N, 2, 2), what the unknowns of the source make of them.
        weight
            Shape (n, N, 2, 2), inverse covariances of the data.
        residual
            Shape (n, N, 2), what is left of them.

        Returns
        -------
        equations : `Equations`
            Those of the parameters.
        """
        number = len(design)
        weighted = weight @ design
        to_unknowns = gain.mT @ weighted
        own = (gain.mT @ weight @ gain).sum(dim=0)
        largest = own.diagonal(dim1=-2, dim2=-1).amax(dim=-1).clamp(min=1e-300)
        own = own + _SINGULAR * largest[:, None, None] * torch.eye(2, dtype=own.dtype)
        inverse = torch.linalg.inv(own)
        unknown = (inverse @ (gain.mT @ (weight @ residual[..., None])).sum(dim=0))[None]
        right = (weighted.mT @ (residual[..., None] - gain @ unknown)).sum(dim=1).reshape(2 * number)
        flat = to_unknowns.permute(0, 3, 1, 2).reshape(2 * number, -1)
        shared = (inverse @ to_unknowns).permute(0, 3, 1, 2).reshape(2 * number, -1)
        blocks = (design.mT @ weighted).sum(dim=1)
        return cls(torch.block_diag(*blocks) - flat @ shared.T, right)

    def solve(self, prior: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what to change, and how well the result is known.

        Parameters
        ----------
        prior
            Shape (n, 2), inverse variances of parameters around zero.
        state
            Shape (n, 2), the parameters.

        Returns
        -------
        step, variances : `torch.Tensor`
            Shape (n, 2); a change that all exposures share is not known, and
            adds nothing to the variances.
        """
        number = len(state)
        every = prior.flatten()
        scale = (self.matrix.diagonal() + every).clamp(min=1e-300).rsqrt()
        normal = scale[:, None] * (self.matrix + torch.diag(every)) * scale
        inverse = scale[:, None] * torch.linalg.pinv(normal, rtol=_NULL, hermitian=True) * scale
        step = inverse @ (self.right - every * state.flatten())
        compared = (self.matrix.diagonal().reshape(number, 2) > 0).all(dim=1).to(state.dtype)
        mean = compared.expand(number, -1) / compared.sum().clamp(min=1.0)
        project = torch.kron(torch.eye(number, dtype=state.dtype) - mean, torch.eye(2, dtype=state.dtype))
        variances = (project @ inverse @ project.T).diagonal().clamp(min=0.0)
        return step.reshape(number, 2), variances.reshape(number, 2)


class Scatter:
    """How much sources differ between exposures beyond their noise.

    Parameters
    ----------
    assumed
        Relative scatter before sources show it.
    valid
        Shape (n, N), bool, which exposures show which sources.
    signal
        Shape (n, N) or (N,), signal-to-noise ratio.

    Attributes
    ----------
    value
        The scatter.
    """

    def __init__(self, assumed: float, valid: torch.Tensor, signal: torch.Tensor) -> None:
        self.value = assumed
        self._assumed, self._shown = assumed, assumed**2
        self._number = max(1, int(valid.any(dim=0).sum()))
        # The brighter half shows it best.
        self._use = valid & (signal >= masked_median(signal.flatten(), valid.flatten(), 0))

    def learn(self, distance: torch.Tensor, known: torch.Tensor) -> None:
        """Correct it by what sources show.

        Parameters
        ----------
        distance
            Shape (n, N), squared deviations in units of their error, of two
            degrees of freedom.
        known
            Shape (n, N), bool, whether there is one.
        """
        use = self._use & known
        if not bool(use.any()):
            return
        excess = float(distance[use].median()) / _MEDIAN_OF_CHI_SQUARE
        shown = self._shown * min(max(excess, 1.0 / _LARGEST_GROWTH), _LARGEST_GROWTH)
        self._shown = min(max(shown, _LEAST_SCATTER**2), _MOST_SCATTER**2)
        total = self._number * self._shown + _PRIOR_SOURCES * self._assumed**2
        self.value = (total / (self._number + _PRIOR_SOURCES)) ** 0.5


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """Levels of sources from the other exposures.

    Attributes
    ----------
    values, variances
        Shape (2, n, N).
    known
        Shape (n, N), bool.
    shares
        Shape (2, n, N), what an exposure has in the level of all, over its
        gain.
    """

    values: torch.Tensor
    variances: torch.Tensor
    known: torch.Tensor
    shares: torch.Tensor

    def crossed(self, covariances: torch.Tensor) -> torch.Tensor:
        """Return the covariance of the two levels.

        Parameters
        ----------
        covariances
            Shape (n, N), that of the two data.

        Returns
        -------
        covariances : `torch.Tensor`
            Shape (n, N).
        """
        product = self.shares.prod(dim=0)
        return (covariances * product).sum(dim=0) - covariances * product


def tukey_weight(distance: torch.Tensor) -> torch.Tensor:
    """Return weights that fall to zero at six standard deviations.

    Parameters
    ----------
    distance
        Squared deviations in units of their error.

    Returns
    -------
    weight : `torch.Tensor`
        The biweight (Beaton & Tukey 1974, Technometrics 16, 147).
    """
    return (1.0 - distance / _REACH**2).clamp(min=0.0) ** 2


def leave_one_out(data: torch.Tensor, gain: torch.Tensor, weights: torch.Tensor) -> LeftOut:
    """Return levels of sources from the other exposures.

    Parameters
    ----------
    data, gain, weights
        Shape (2, n, N): data, over levels, and inverse variances.

    Returns
    -------
    left_out : `LeftOut`
        For each exposure.
    """
    total = (weights * gain**2).sum(dim=1, keepdim=True)
    others = (total - weights * gain**2).clamp(min=0.0)
    known = (others > 1e-6 * total).all(dim=0)
    variances = torch.where(known, 1.0 / others.clamp(min=1e-300), 0.0)
    values = ((weights * gain * data).sum(dim=1, keepdim=True) - weights * gain * data) * variances
    return LeftOut(values, variances, known, weights * gain / total.clamp(min=1e-300))


def invert_symmetric(variances: torch.Tensor, cross: torch.Tensor) -> torch.Tensor:
    """Return inverses of symmetric matrices.

    Parameters
    ----------
    variances
        Shape (2, ...), diagonals.
    cross
        Shape (...), the other element.

    Returns
    -------
    inverse : `torch.Tensor`
        Shape (3, ...), diagonals and the other element.
    """
    determinant = (variances[0] * variances[1] - cross**2).clamp(min=1e-300)
    return torch.stack([variances[1], variances[0], -cross]) / determinant


def symmetric_matrices(inverse: torch.Tensor) -> torch.Tensor:
    """Return what `invert_symmetric` returns as matrices.

    Parameters
    ----------
    inverse
        Shape (3, ...).

    Returns
    -------
    matrices : `torch.Tensor`
        Shape (..., 2, 2).
    """
    first, second, cross = inverse
    return torch.stack([torch.stack([first, cross], dim=-1), torch.stack([cross, second], dim=-1)], dim=-1)


def bilinear_form(a: torch.Tensor, inverse: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return products of two vectors with symmetric matrices between them.

    Parameters
    ----------
    a
        Shape (2, ...).
    inverse
        Shape (3, ...), as `invert_symmetric` returns it.
    b
        Shape (2, ...).

    Returns
    -------
    form : `torch.Tensor`
        Shape (...).
    """
    return inverse[0] * a[0] * b[0] + inverse[1] * a[1] * b[1] + inverse[2] * (a[0] * b[1] + a[1] * b[0])


def excess_variance(distance: torch.Tensor, valid: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """Return by what variances must be scaled for what sources show.

    Parameters
    ----------
    distance
        Shape (n, N), squared deviations in units of their error.
    valid
        Shape (n, N), bool, whether there are such.
    count
        Shape (n,), number of sources.

    Returns
    -------
    excess : `torch.Tensor`
        Shape (n,), at least one, and more for few sources, whose scatter is
        hardly known.
    """
    usable = valid & (distance < torch.inf)
    typical = masked_median(distance, usable, 1) / _MEDIAN_OF_CHI_SQUARE
    return typical.clamp(min=1.0) * (1.0 + 3.0 / count.clamp(min=1))


def masked_median(data: torch.Tensor, mask: torch.Tensor, dim: int) -> torch.Tensor:
    """Return medians of what a mask leaves.

    Parameters
    ----------
    data
        Any shape.
    mask
        Of that shape, bool, what to use.
    dim
        Axis of the median.

    Returns
    -------
    medians : `torch.Tensor`
        0 where nothing is left.
    """
    return torch.where(mask, data, torch.nan).nanquantile(0.5, dim=dim).nan_to_num()
