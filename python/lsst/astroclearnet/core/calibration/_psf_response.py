# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What errors of PSFs do to predictions by other exposures, and to fluxes."""

from __future__ import annotations

import dataclasses

import torch

from ..estimate import penalty_weight_for_residual
from ..forward import ForwardModel
from ._psf_shapes import NUM_SHAPES, reshape_psfs

_LEAST_SIZE = 96
"""Least side in pixels of the grid of the transforms."""

_FLOOR = 1e-5
"""Penalty weight of predictions by other exposures."""

_EXPOSURES = 16
"""Number of exposures at once: a product of matrices of all would take memory
by the square of their number."""

_STAR_RADIUS = 2.0
"""Radius, in FWHM of the target PSF, of stamps of stars."""


@dataclasses.dataclass(frozen=True)
class PsfResponse:
    """Responses to errors of PSFs, for point sources and full coverage.

    Attributes
    ----------
    psfs
        Shape (n, P, P), double, the PSFs.
    derivatives
        Shape (n, 4, P, P), their derivatives.
    shared
        Shape (n, 4, n, 4), double, how much an error of the PSF of an exposure
        (last) appears as one of another exposure that it predicts, with the
        opposite sign.
    fluxes
        Shape (n, 4), double, derivatives of the logarithm of the flux of a
        star, from a plain fit of the target PSF to the linear image, by the
        changes of the PSF given for an exposure.
    star
        Shape (2, S, S), double, S odd: a star in the image of all exposures,
        and its derivative by a common factor in the widths of their PSFs.
    star_shares
        Shape (n,), double, derivatives of the width that is measured with
        these by that of the PSF of each exposure; of sum 1.
    """

    psfs: torch.Tensor
    derivatives: torch.Tensor
    shared: torch.Tensor
    fluxes: torch.Tensor
    star: torch.Tensor
    star_shares: torch.Tensor

    @classmethod
    def build(
        cls,
        psfs: torch.Tensor,
        derivatives: torch.Tensor,
        weights: torch.Tensor,
        presence: torch.Tensor,
        *,
        target_fwhm: float,
        max_residual: float,
    ) -> PsfResponse:
        """Work out the responses.

        Parameters
        ----------
        psfs
            Shape (n, P, P), float64, sum 1.
        derivatives
            Shape (n, 4, P, P), as of `psf_derivatives`.
        weights
            Shape (n,), inverse variances per pixel of the patch.
        presence
            Shape (n, n), share of the sources that are compared of an exposure
            (first) that others have data of: sharp ones saturate.
        target_fwhm
            FWHM of the target PSF in pixels.
        max_residual
            Largest residual of a star in the linear image, over its peak.
        """
        psfs, derivatives, present = psfs.cpu(), derivatives.cpu(), presence.double().cpu()
        weights = weights.double().cpu() / weights.sum().double().cpu()
        size = max(_LEAST_SIZE - psfs.shape[-1] + 1, 2)
        model = ForwardModel(psfs[:, None, None], (size, size), target_fwhm)
        transforms = model.transfer(psfs)
        changes = transforms.new_empty(*derivatives.shape[:2], *transforms.shape[1:])
        for block in torch.arange(len(psfs)).split(_EXPOSURES):
            changes[block] = model.transfer(derivatives[block])
        star, star_shares = _star_response(
            model, transforms, changes[:, 0], weights, round(_STAR_RADIUS * target_fwhm)
        )
        return cls(
            psfs=psfs,
            derivatives=derivatives,
            shared=_shared_response(model, transforms, changes, weights * present),
            fluxes=_flux_response(model, transforms, changes, weights, max_residual),
            star=star,
            star_shares=star_shares,
        )

    def curvature(self, exposure: int, change: torch.Tensor) -> torch.Tensor:
        """Return what a linear fit of a star finds beyond a change, (4,).

        Parameters
        ----------
        exposure
            Index of the exposure.
        change
            Shape (4,), double, that of its PSF.
        """
        psf, derivatives = self.psfs[exposure], self.derivatives[exposure]
        middle, radius = psf.shape[-1] // 2, self.star.shape[-1] // 2
        near = slice(max(middle - radius, 0), middle + radius + 1)
        design = torch.cat([psf[None], derivatives])[:, near, near].flatten(1).T
        difference = (reshape_psfs(psf, change) - psf)[near, near].flatten()
        found = torch.linalg.lstsq(design, difference[:, None]).solution[1:, 0]
        return torch.as_tensor(found - change)


def _shared_response(
    model: ForwardModel, psfs: torch.Tensor, changes: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Return `PsfResponse.shared` for weights (n, n) in sources of each."""
    number = len(psfs)
    fold = model.fold_weights(psfs.device)
    power = psfs.abs() ** 2
    shared = torch.empty(number, NUM_SHAPES, number, NUM_SHAPES, dtype=torch.float64)
    blocks = torch.arange(number).split(_EXPOSURES)
    for block in blocks:
        # The brightness of a star is fitted along.
        own = torch.cat([psfs[block, None], changes[block]], dim=1)
        normal = (fold * own.conj()[:, :, None] * own[:, None]).real.sum(dim=(-2, -1))
        others = weights[block].clone()
        others[torch.arange(len(block)), block] = 0.0
        floor = _FLOOR * others.sum(dim=1).clamp(min=1e-30)
        total = torch.tensordot(others, power, dims=1) + floor[:, None, None]
        # Sums over the frequency plane as a product of real matrices.
        left = torch.view_as_real(own * (fold * psfs[block] / total).conj()[:, None]).flatten(2)
        for other in blocks:
            sky = torch.view_as_real(psfs[other].conj()[:, None] * changes[other]).flatten(2)
            products = (left @ sky.flatten(0, 1).T).unflatten(-1, sky.shape[:2])
            products *= others[:, None, other, None]
            found = torch.linalg.solve(normal, products.flatten(2))[:, 1:]
            shared[block[0] : block[-1] + 1, :, other[0] : other[-1] + 1] = found.unflatten(-1, sky.shape[:2])
    return shared


def _flux_response(
    model: ForwardModel,
    psfs: torch.Tensor,
    changes: torch.Tensor,
    weights: torch.Tensor,
    max_residual: float,
) -> torch.Tensor:
    """Return `PsfResponse.fluxes`."""
    target, inverse = model.target_transform.double(), model.inverse_target_power.double()
    power = torch.tensordot(weights, psfs.abs() ** 2, dims=1) * (target * inverse) ** 2
    penalty = penalty_weight_for_residual(model, power.float(), max_residual)
    total = power + penalty * inverse
    # K' = K + dK in sum(w K'* K) / (sum(w |K'|^2) + s / |G|^2).
    factor = target**2 * (target * inverse) ** 2 * (1.0 / total - 2.0 * power / total**2)
    found = [
        weight * model.fold_transform(factor * (change.conj() * psf).real)
        for weight, change, psf in zip(weights, changes, psfs, strict=True)
    ]
    return torch.stack(found) / model.fold_transform(target**2 * power / total)


def _star_response(
    model: ForwardModel, psfs: torch.Tensor, widths: torch.Tensor, weights: torch.Tensor, radius: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `PsfResponse.star` and `PsfResponse.star_shares`; derivatives of
    the PSFs by width are (n, Hl, Wl // 2 + 1).
    """
    target = model.target_transform.double()
    total = torch.tensordot(weights, psfs.abs() ** 2, dims=1) + _FLOOR
    offsets = torch.arange(-radius, radius + 1)

    def stamps(transforms: torch.Tensor) -> torch.Tensor:
        images = model.inverse_transform(transforms.to(torch.complex128))
        return images[:, offsets[:, None], offsets]

    share = target / total * weights[:, None, None]
    changes = torch.cat(
        [
            stamps(share[block] * (psfs[block].conj() * widths[block]).real)
            for block in torch.arange(len(psfs)).split(_EXPOSURES)
        ]
    )
    star = torch.cat([stamps(target[None]), changes.sum(dim=0, keepdim=True)])
    design = torch.cat([star, torch.ones_like(star[:1])]).flatten(1).T
    return star, torch.linalg.lstsq(design, changes.flatten(1).T).solution[1]
