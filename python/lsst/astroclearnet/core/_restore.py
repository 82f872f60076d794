# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Restoration of a patch from plain arrays."""

from __future__ import annotations

__all__ = ("restore",)

import dataclasses

import numpy as np
import torch

from ._errors import InputError
from ._options import NoiseOptions, RestoreOptions
from .estimate import ProgressCallback, RestorationModel
from .exposures import ArrayLike, ExposureStack, PixelPositions, StackSource, Tile, as_tensor, require_plain
from .tiles import StackResult, restore_exposures


def restore(  # noqa: PLR0913
    images: ArrayLike,
    variances: ArrayLike,
    good: ArrayLike,
    psfs: ArrayLike,
    *,
    target_fwhm: float,
    positions: PixelPositions | None = None,
    options: RestoreOptions | None = None,
    model: RestorationModel | None = None,
    device: str | torch.device = "auto",
    seed: int = 0,
    noise: ArrayLike | None = None,
    callback: ProgressCallback | None = None,
) -> StackResult:
    """Restore the sky at a target PSF from exposures of a patch.

    Parameters
    ----------
    images
        Shape (n, h, w), background-subtracted exposures in one unit.
    variances
        Shape (n, h, w), their variances in that unit squared.
    good
        Shape (n, h, w), boolean, `True` where a pixel may be used.
    psfs
        Shape (n, P, P), or (n, n_cells_y, n_cells_x, P, P) for PSFs that
        vary over a regular grid of cells covering the patch; on pixels of the
        patch.
    target_fwhm
        FWHM in pixels of the circular Gaussian PSF of the result.
    positions
        Positions of the pixels on the patch, for exposures on their own
        grids.  Without it exposures are co-registered: their pixels are those
        of the patch.
    options
        Settings; the defaults suit survey exposures.
    model
        Trained network for ``options.model.source="dataset"``; by default
        that of the package is used.
    device
        ``"auto"``, ``"cpu"`` or ``"cuda"``.
    seed
        Seed of everything random; the same seed gives the same image.
    noise
        Shape (k, n, h, w), noise of resampled exposures with its correlations,
        k being at least ``options.noise.num_realizations``.  By default
        ``options.noise.num_draws`` of white noise are drawn.
    callback
        Called after each epoch of a fit with its number, loss and validation
        loss.

    Returns
    -------
    result : `StackResult`
        The restored image with its errors, on the CPU.

    Raises
    ------
    InputError
        If the arrays or options are inconsistent.
    NoUsableDataError
        If no pixel is usable.
    RestorationError
        If no tile of the patch can be restored.
    """
    require_plain("target_fwhm", target_fwhm)
    options = options if options is not None else RestoreOptions()
    stack = ExposureStack.from_arrays(images, variances, good, psfs, positions=positions, in_noise_units=True)
    empty = (~stack.good.any(dim=(1, 2))).nonzero()[:, 0].tolist()
    order = _canonical_order(stack)
    draws = None if noise is None else _given_draws(noise, stack, options.noise)[:, order]
    maps = _DenseMaps(stack.num_exposures, stack.shape)
    result = restore_exposures(
        StackSource(stack.select(order), draws),
        target_fwhm=target_fwhm,
        options=options,
        model=model,
        device=device,
        seed=seed,
        maps=maps,
        callback=callback,
    )
    fields = {f.name: getattr(result, f.name) for f in dataclasses.fields(result)}
    found = StackResult(**fields, weights=maps.weights, rejected=maps.rejected)
    found = found.reorder(order.tolist()).in_flux_unit(stack.unit)
    reasons = dict.fromkeys(empty, "no_usable_pixels: None of its pixels is usable.") | found.dropped
    return dataclasses.replace(found, dropped=reasons)


class _DenseMaps:
    """Weights and outliers of whole exposures."""

    def __init__(self, num_exposures: int, shape: tuple[int, int]) -> None:
        self.weights = np.zeros((num_exposures, *shape), dtype=np.float32)
        self.rejected = np.zeros((num_exposures, *shape), dtype=bool)

    def add(self, tile: Tile, exposures: np.ndarray, weights: np.ndarray, rejected: np.ndarray) -> None:
        self.weights[exposures, tile.inner_rows, tile.inner_columns] = weights
        self.rejected[exposures, tile.inner_rows, tile.inner_columns] = rejected


def _canonical_order(stack: ExposureStack) -> torch.Tensor:
    """Return an order that does not depend on how exposures are listed."""
    keys = zip(
        stack.psfs.square().sum(dim=(-1, -2)).mean(dim=(1, 2)).tolist(),
        stack.images.double().sum(dim=(1, 2)).tolist(),
        stack.variances.double().sum(dim=(1, 2)).tolist(),
        strict=True,
    )
    ranked = sorted(enumerate(keys), key=lambda item: item[1])
    return torch.tensor([index for index, _ in ranked])


def _given_draws(noise: ArrayLike, stack: ExposureStack, options: NoiseOptions) -> torch.Tensor:
    draws = as_tensor("noise", noise, torch.float64, stack.device)
    least = max(1, options.num_realizations)
    if draws.shape[1:] != stack.images.shape or len(draws) < least:
        raise InputError(
            f"noise must have shape (k, *{tuple(stack.images.shape)}) with k at least {least}, "
            f"not {tuple(draws.shape)}."
        )
    return (draws / stack.unit).to(torch.float32)
