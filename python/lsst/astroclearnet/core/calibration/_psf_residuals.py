# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Errors of the PSFs of a tile, from predictions by other exposures."""

from __future__ import annotations

import dataclasses

import torch

from ..exposures import largest_around
from ..forward import ForwardModel, TileData
from ..outliers import LeaveOneOut
from ._psf_response import PsfResponse
from ._psf_shapes import NUM_SHAPES, psf_derivatives
from ._star_widths import measure_star_widths

_BLOCK = 48
"""Side in pixels of the blocks whose scatter gives the errors: of a few
sources each, with a brightness and a position of their own."""

_SIGNIFICANCE = 10.0
"""Least height of a source above its surroundings, in sigma of a pixel and
its prediction: the templates of fainter ones are noise."""

_REACH = 2.0
"""Distance from such pixels, in FWHM of the target PSF, up to which pixels
are compared."""

_LOST_REACH = 4.0
"""Distance from such pixels that are missing, in FWHM of the target PSF, up to
which none are compared: what wings of a star without its core say of the width
is what the prediction gets wrong there."""

_LIGHT_ERROR = 0.01
"""Error of a pixel relative to structure, beside noise, so that no star has
more weight than one of S/N of about 100 in its brightest pixel."""

_NUISANCES = 3
_NUISANCE_ERRORS = (0.3, 0.3, 0.3)
"""Number of templates that are fitted along, brightness and position, and the
prior standard deviations of their coefficients, relative and in pixels."""


@dataclasses.dataclass(frozen=True)
class PsfResiduals:
    """Normal equations of the errors of the PSFs in a tile.

    Attributes
    ----------
    exposures
        Shape (m,), int64, which exposures of the patch these are.
    normal
        Shape (m, b, 4, 4), double, normal matrices of blocks, with brightness
        and position of each eliminated.
    right
        Shape (m, b, 4), double, right-hand sides: with ``normal`` they give
        what the PSF of an exposure has more than those of the others.
    response
        Responses to errors of the PSFs.
    stars
        Shape (2, k), double, relative excess of the width of sources in the
        image of all exposures over that of stars, and standard deviations.
    """

    exposures: torch.Tensor
    normal: torch.Tensor
    right: torch.Tensor
    response: PsfResponse
    stars: torch.Tensor


def measure_psf_residuals(
    tile_data: TileData, predictor: LeaveOneOut, residuals: torch.Tensor, max_residual: float
) -> PsfResiduals:
    """Compare residuals with what errors of PSFs would leave.

    Parameters
    ----------
    tile_data
        The tile, calibrated.
    predictor
        What predicts each of its exposures from the others.
    residuals
        Shape (m, h, w), residuals from the predictions.
    max_residual
        Largest residual of a star in the linear image, over its peak.
    """
    model, stack = tile_data.model, predictor.stack
    mean = stack.psfs.mean(dim=(1, 2))
    derivatives = psf_derivatives(mean)
    inside = torch.zeros(tile_data.tile.shape, device=stack.device)
    inside[tile_data.tile.within] = 1.0
    use = stack.good & (model.sampling.look_up(inside) > 0)
    spectrum = model.transform(predictor.latent)
    present = model.sampling.mean(stack.good.float()).clamp(0, 1)
    equations = [
        _block_equations(model, predictor, t, residuals[t], use[t], derivatives[t], spectrum)
        for t in range(stack.num_exposures)
    ]
    normal, right, tells = (torch.stack(parts) for parts in zip(*equations, strict=True))
    tells = model.sampling.mean(tells).flatten(1)
    tells = tells / tells.sum(dim=1, keepdim=True).clamp(min=1e-30)
    response = PsfResponse.build(
        mean,
        derivatives,
        predictor.weights,
        tells @ present.flatten(1).T,
        target_fwhm=model.target_fwhm,
        max_residual=max_residual,
    )
    return PsfResiduals(
        exposures=tile_data.exposures.cpu(),
        normal=normal.cpu(),
        right=right.cpu(),
        response=response,
        stars=measure_star_widths(tile_data, predictor, response.star),
    )


def _block_equations(
    model: ForwardModel,
    predictor: LeaveOneOut,
    exposure: int,
    residual: torch.Tensor,
    use: torch.Tensor,
    derivatives: torch.Tensor,
    spectrum: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return normal matrices and right-hand sides of blocks, and how much each
    pixel tells of the width, (h, w).
    """
    structure, differences = predictor.differences(exposure)
    own = predictor.variances[exposure]
    noise = predictor.noise(exposure)
    size = 2 * round(_REACH * model.target_fwhm) + 1
    bright = structure > _SIGNIFICANCE * noise.sqrt()
    lost = bright & ~predictor.stack.good[exposure]
    far = largest_around(lost.float(), 2 * round(_LOST_REACH * model.target_fwhm) + 1)[0] == 0
    near = (largest_around(bright.float(), size)[0] > 0) & far
    # What the prediction shares with the exposures it is made from is no
    # information about this one.
    error = noise + (_LIGHT_ERROR * structure[0]) ** 2 + predictor.border[exposure] ** 2
    if exposure in predictor.unresolved:
        error = error + predictor.unresolved[exposure][0] ** 2
    weights = (use & near) * own / noise / error
    templates = torch.cat(
        [
            predictor.light[exposure : exposure + 1],
            differences[1:3],
            _templates(model, exposure, derivatives, spectrum),
            residual[None],
        ]
    )
    sums = _sum_blocks(templates, weights)
    prior = torch.tensor(_NUISANCE_ERRORS, dtype=sums.dtype, device=sums.device) ** -2
    nuisance = sums[:, :_NUISANCES, :_NUISANCES] + torch.diag(prior)
    cross = sums[:, _NUISANCES:, :_NUISANCES]
    left = sums[:, _NUISANCES:, _NUISANCES:] - cross @ torch.linalg.solve(nuisance, cross.mT)
    tells = weights * templates[_NUISANCES] ** 2
    return left[:, :NUM_SHAPES, :NUM_SHAPES], left[:, :NUM_SHAPES, NUM_SHAPES], tells


def _templates(
    model: ForwardModel, exposure: int, derivatives: torch.Tensor, spectrum: torch.Tensor
) -> torch.Tensor:
    """Return what changes of a PSF add to an exposure, (4, h, w)."""
    inverse = model.target_transform * model.inverse_target_power
    kernels = model.transfer(derivatives.to(spectrum.device)).to(torch.complex64) * inverse
    index = torch.tensor([exposure])
    images = [
        model.inverse_transform(model.filtered(spectrum * kernel))[None].contiguous() for kernel in kernels
    ]
    return torch.cat([model.sampling.observe(image, index) for image in images])


def _sum_blocks(templates: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return weighted sums of products in blocks, (b, k, k), double."""
    number = len(templates)
    margins = [-length % _BLOCK for length in weights.shape]
    rows = []
    for k, template in enumerate(templates):
        products = torch.nn.functional.pad(
            templates[k:] * (weights * template), (0, margins[1], 0, margins[0])
        )
        blocks = products.double().reshape(
            number - k, products.shape[1] // _BLOCK, _BLOCK, products.shape[2] // _BLOCK, _BLOCK
        )
        rows.append(torch.nn.functional.pad(blocks.sum(dim=(2, 4)).flatten(1), (0, 0, k, 0)))
    upper = torch.stack(rows).permute(2, 0, 1)
    return upper + upper.triu(1).mT
