# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""How much exposures differ where light has structure."""

from __future__ import annotations

__all__ = ("PsfErrors",)

import dataclasses
import math
from collections.abc import Sequence

import torch
from scipy.optimize import nnls

from ..exposures import ExposureStack
from ..forward import ForwardModel
from ._expected_differences import find_structure, list_differences

_EXPECTED = (0.02, 0.02, 0.01, 0.01)
"""Amplitudes, as of `PsfErrors`, that pixels are weighted and clipped with:
about those of HSC-like detector images whose PSFs are fitted by Piff."""

_MATTERS = 0.25
"""Variance of such differences, over that of the noise, from which on a pixel
tells about them."""

_CLIP = 16.0
"""Largest squared residual over its variance: variable sources and what was
not rejected are no errors of the PSF."""

_PRIOR_PIXELS, _PRIOR_WEIGHT = 200.0, 4.0
"""Number of pixels that what all exposures say is worth for a single one, and
how many times its own: these have one realisation of its errors, and where
errors of all exposures are alike the larger ones are no worse than others."""

_GROUPS = (1, 2, 1, 2)
"""Numbers of templates that have the same amplitude."""

_PREDICTION_ERROR = 1e-3
"""Errors of the prediction by the others that pass for such differences: with
exact PSFs amplitudes of this size are found."""

_LEAST_PIXELS = 100.0
"""Number of pixels of all exposures below which nothing is known."""


@dataclasses.dataclass(frozen=True)
class PsfErrors:
    """Standard deviations of what differs in single exposures.

    Attributes
    ----------
    amplitudes
        Shape (n, 4), double: of the light above its surroundings, relative; of
        the position along an axis, in pixels of the patch; of the width of the
        PSF, relative; and of its second moments relative to their mean, of
        either ellipticity.
    """

    amplitudes: torch.Tensor

    @classmethod
    def unknown(cls, num_exposures: int) -> PsfErrors:
        """Return amplitudes of zero.

        Parameters
        ----------
        num_exposures
            Number of exposures of the patch.
        """
        return cls(torch.zeros(num_exposures, 4, dtype=torch.float64))

    def of_templates(self, moments: torch.Tensor) -> torch.Tensor:
        """Return the sizes of the templates of each exposure, (n, 6).

        Parameters
        ----------
        moments
            Shape (n,), variances of the PSFs in square pixels; derivatives of
            the light are multiplied with them.
        """
        sizes = torch.repeat_interleave(self.amplitudes, torch.tensor(_GROUPS), dim=1).to(moments)
        sizes[:, 3:] *= moments[:, None]
        return sizes

    def chi_squares(
        self, light: torch.Tensor, weights: torch.Tensor, stack: ExposureStack, model: ForwardModel
    ) -> torch.Tensor:
        """Return what such errors add to the chi-square of each exposure.

        Parameters
        ----------
        light
            Shape (n, h, w), expected light.
        weights
            Shape (n, h, w), inverse variances of the pixels that count.
        stack
            The exposures.
        model
            Their forward model.

        Returns
        -------
        chi_squares : `torch.Tensor`
            Shape (n,).
        """
        inside = model.sampling.positions()[0].isfinite()
        moments, areas = psf_moments(stack.psfs).to(light), mean_areas(model)
        none, found = light.new_zeros(()), []
        for t, (moment, area) in enumerate(torch.stack([moments, areas], dim=1).tolist()):
            one = slice(t, t + 1)
            structure = find_structure(light[one], inside[one], math.sqrt(moment / area), none)
            shift, width = 1.0 / math.sqrt(area), moment / area
            templates = list_differences(light[one], inside[one], structure, shift=shift, width=width)
            squares = _sum_squares(shape_templates(templates)).flatten(1) @ weights[t].flatten()
            found.append(self.amplitudes[t].square().to(squares) @ squares)
        return torch.stack(found)

    def select(self, exposures: torch.Tensor) -> PsfErrors:
        """Return those of some exposures.

        Parameters
        ----------
        exposures
            Shape (m,), their indices.
        """
        return PsfErrors(self.amplitudes[exposures.cpu()])

    @classmethod
    def solve(
        cls,
        tables: Sequence[tuple[torch.Tensor, PsfErrorFit]],
        num_exposures: int,
        corrected: PsfErrors | None = None,
    ) -> PsfErrors:
        """Solve for the amplitudes, which are not negative.

        Those of an exposure with few bright pixels are close to those of all.

        Parameters
        ----------
        tables
            Indices of the exposures of each tile, and its sums.
        num_exposures
            Number of exposures of the patch.
        corrected
            Errors in these sums that have been corrected since.
        """
        errors = cls.unknown(num_exposures)
        sums = torch.zeros(num_exposures, 4, 6, dtype=torch.float64)
        for exposures, fit in tables:
            sums.index_add_(0, exposures.cpu(), fit.sums.double().cpu())
        if corrected is not None:
            sums[:, :, 4] -= (sums[:, :, :4] @ corrected.amplitudes.square()[..., None])[..., 0]
        total = sums.sum(dim=0)
        if float(total[0, 5]) < _LEAST_PIXELS:
            return errors
        common = _not_negative(total)
        total[:, 4] = total[:, :4] @ common
        for own, amplitudes in zip(sums, errors.amplitudes, strict=True):
            share = (_PRIOR_PIXELS + _PRIOR_WEIGHT * own[0, 5]) / total[0, 5]
            squares = _not_negative(own + share * total) - _PREDICTION_ERROR**2
            amplitudes.copy_(squares.clamp(min=0.0).sqrt())
        return errors


@dataclasses.dataclass(frozen=True)
class PsfErrorFit:
    """Sums over pixels for the fit of squared amplitudes.

    The squared residuals of an exposure from the prediction by the others are
    the variance of the noise, and of what differs: a regression on squared
    templates, with weights for residuals that are normal.

    Attributes
    ----------
    sums
        Shape (m, 4, 6): normal matrix, right-hand side, and number of pixels.
    """

    sums: torch.Tensor

    @classmethod
    def empty(cls, num_exposures: int, device: torch.device) -> PsfErrorFit:
        """Return sums without pixels.

        Parameters
        ----------
        num_exposures
            Number of exposures.
        device
            Device of the sums.
        """
        return cls(torch.zeros(num_exposures, 4, 6, device=device))

    def add(
        self,
        exposure: int,
        residual: torch.Tensor,
        noise: torch.Tensor,
        templates: torch.Tensor,
        use: torch.Tensor,
        num_covering: torch.Tensor,
    ) -> None:
        """Add the pixels of an exposure.

        Parameters
        ----------
        exposure
            Its index.
        residual
            Shape (h, w), from the prediction by the others.
        noise
            Shape (h, w), variance of its noise.
        templates
            Shape (6, h, w), of `shape_templates` for amplitudes of one.
        use
            Shape (h, w), bool, pixels to use.
        num_covering
            Shape (), number of exposures that cover a pixel: the prediction
            has the errors of the others.
        """
        squares = _sum_squares(templates)
        expected = squares.new_tensor(_EXPECTED).square()[:, None, None]
        differs = (expected * squares).sum(dim=0)
        total = noise + differs
        weights = (use & (differs > _MATTERS * noise)) / total
        own = squares * weights
        excess = (torch.minimum(residual.square(), _CLIP * total) - noise) * weights
        own, excess = own.flatten(1), excess.flatten()
        shared = 1.0 + 1.0 / (num_covering - 1.0).clamp(min=1.0)
        sums = self.sums[exposure]
        sums[:, :4] += own @ own.T
        sums[:, 4] += own @ excess / shared
        sums[:, 5] += (weights > 0).sum()


def shape_templates(differences: torch.Tensor) -> torch.Tensor:
    """Return templates of width and ellipticity in place of second moments.

    Parameters
    ----------
    differences
        Shape (6, ...), as of `list_differences`.

    Returns
    -------
    templates : `torch.Tensor`
        Shape (6, ...): brightness, positions (2), width, and ellipticity (2).
    """
    rows, columns, mixed = differences[3:]
    shapes = torch.stack([rows + columns, rows - columns, math.sqrt(2.0) * mixed])
    return torch.cat([differences[:3], shapes])


def psf_moments(psfs: torch.Tensor) -> torch.Tensor:
    """Return the variance of each PSF, (n,), in square pixels of the patch.

    Parameters
    ----------
    psfs
        Shape (n, n_cells_y, n_cells_x, P, P).
    """
    # Of Gaussians with the squared norms of the PSFs.
    return 1.0 / (4.0 * math.pi * psfs.mean(dim=(1, 2)).square().sum(dim=(1, 2)))


def mean_areas(model: ForwardModel) -> torch.Tensor:
    """Return the mean area of the pixels of each exposure, (n,).

    Parameters
    ----------
    model
        Forward model of the exposures.
    """
    area = model.sampling.area
    number = (area > 0).sum(dim=(1, 2)).clamp(min=1)
    return area.sum(dim=(1, 2)) / number


def _sum_squares(templates: torch.Tensor) -> torch.Tensor:
    """Return the sums of squares of templates of the same amplitude."""
    return torch.stack([part.square().sum(dim=0) for part in templates.split(_GROUPS)])


def _not_negative(sums: torch.Tensor) -> torch.Tensor:
    """Return squared amplitudes, (4,), from sums, (4, 6)."""
    scale = sums[:, :4].diagonal().clamp(min=1e-300).rsqrt()
    matrix = scale[:, None] * sums[:, :4] * scale
    values, vectors = torch.linalg.eigh(matrix)
    root = values.clamp(min=1e-9).sqrt()
    # |root V' x - V' b / root|^2 differs from x'Mx - 2 b'x by a constant.
    found, _ = nnls((root[:, None] * vectors.T).numpy(), (vectors.T @ (scale * sums[:, 4]) / root).numpy())
    return torch.from_numpy(found) * scale
