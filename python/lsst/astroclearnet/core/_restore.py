# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Restoration of one patch from plain arrays."""

from __future__ import annotations

__all__ = ("restore",)

from collections.abc import Iterable, Iterator

import numpy as np
import torch

from ._agreement import Agreement, reach_agreement
from ._consistency import psf_width_errors
from ._depth import WeightMaps, weight_maps
from ._device import make_generator, select_device
from ._errors import InputError
from ._estimator import Estimator
from ._exposure_stack import ArrayLike, ExposureStack
from ._fit import FitHistory, ProgressCallback, fit_network
from ._forward_model import ForwardModel
from ._kernels import kernel_fwhm
from ._local_noise import LocalNoise
from ._network import MixingNetwork
from ._options import NoiseOptions, RestoreOptions
from ._positions import PixelPositions
from ._result import MaskBit, RestorationResult
from ._samples import make_samples
from ._uncertainty import draw_noise, linear_variance, repeat_observations, restored_variance


def restore(  # noqa: PLR0913
    images: ArrayLike,
    variances: ArrayLike,
    good: ArrayLike,
    psfs: ArrayLike,
    *,
    target_fwhm: float,
    positions: PixelPositions | None = None,
    options: RestoreOptions | None = None,
    device: str | torch.device = "auto",
    seed: int = 0,
    noise: ArrayLike | None = None,
    callback: ProgressCallback | None = None,
) -> RestorationResult:
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
        Where the pixels of the exposures lie on the patch, for exposures on
        their own grids.  Without it they are co-registered: their pixels are
        those of the patch.
    options
        Settings; the defaults suit survey exposures.
    device
        ``"auto"``, ``"cpu"`` or ``"cuda"``.
    seed
        Seed of everything random; the same seed gives the same image.
    noise
        Shape (k, n, h, w), pure noise of exposures that were resampled, with
        the correlations which that gave it, k being at least
        ``options.noise.num_realizations``.  By default
        ``options.noise.num_draws`` of white noise are drawn.
    callback
        Called after each epoch with its number, loss and validation loss.

    Returns
    -------
    result : `RestorationResult`
        The restored image and what is known about it, on the CPU.

    Raises
    ------
    InputError
        If the arrays or options do not fit.
    NoUsableDataError
        If no pixel is usable.
    """
    options = options if options is not None else RestoreOptions()
    chosen = select_device(device)
    generator = make_generator(seed)
    stack = ExposureStack.from_arrays(images, variances, good, psfs, positions=positions, device=chosen)
    order = _canonical_order(stack)
    stack = stack.select(order)
    with torch.no_grad():
        agreement = reach_agreement(stack, target_fwhm, options)
    stack, model, variance = agreement.stack, agreement.model, agreement.variances
    weights = stack.good / variance
    network = MixingNetwork(options.network)
    network.initialize(generator)
    network.to(chosen)
    history = _fit(network, stack, weights, model, options, generator, callback)
    draws = draw_noise(variance, options.noise.num_draws, generator)
    if noise is not None:
        draws = _given_draws(noise, stack, order, options.noise)
    with torch.no_grad():
        estimator = Estimator.build(network, model, weights, options)
        return _assemble(estimator, history, agreement, draws, order)


def _canonical_order(stack: ExposureStack) -> torch.Tensor:
    """Return an order that does not depend on how exposures are listed."""
    keys = zip(
        stack.psfs.square().sum(dim=(-1, -2)).mean(dim=(1, 2)).tolist(),
        stack.images.double().sum(dim=(1, 2)).tolist(),
        stack.variances.double().sum(dim=(1, 2)).tolist(),
        strict=True,
    )
    ranked = sorted(enumerate(keys), key=lambda item: item[1])
    return torch.tensor([index for index, _ in ranked], device=stack.device)


def _given_draws(
    noise: ArrayLike, stack: ExposureStack, order: torch.Tensor, options: NoiseOptions
) -> Iterator[torch.Tensor]:
    draws = torch.as_tensor(noise, dtype=torch.float32)
    least = max(1, options.num_realizations)
    if draws.shape[1:] != stack.images.shape or len(draws) < least:
        raise InputError(
            f"noise must have shape (k, *{tuple(stack.images.shape)}) with k at least {least}, "
            f"not {tuple(draws.shape)}."
        )
    return (torch.nan_to_num(draw.to(stack.device)[order]) for draw in draws)


def _fit(
    network: MixingNetwork,
    stack: ExposureStack,
    weights: torch.Tensor,
    model: ForwardModel,
    options: RestoreOptions,
    generator: torch.Generator,
    callback: ProgressCallback | None,
) -> FitHistory:
    if int((weights > 0).any(dim=(1, 2)).sum()) < 2:
        return FitHistory(stop_reason="one exposure: nothing to hold out, filters mixed as initialised")
    with torch.no_grad():
        samples = make_samples(stack, weights, model, options.network.strengths, options.fit, generator)
    if not samples:
        return FitHistory(stop_reason="exposures do not overlap: nothing to hold out")
    return fit_network(network, samples, options.fit, generator=generator, callback=callback)


def _assemble(
    estimator: Estimator,
    history: FitHistory,
    agreement: Agreement,
    draws: Iterable[torch.Tensor],
    order: torch.Tensor,
) -> RestorationResult:
    model, weights, stack = estimator.model, estimator.weights, agreement.stack
    estimate = estimator.estimate(stack.images)
    errors = repeat_observations(estimator, estimate, draws)
    local_noise = LocalNoise(model, weights, estimator.linear_strength)
    maps = weight_maps(model, weights)
    seen = maps.used.any(dim=0)
    variance_of_linear = linear_variance(errors, local_noise, seen)
    variance = restored_variance(errors, variance_of_linear, seen)

    deviation = (stack.images - model.predict(estimate.restored)) * weights.sqrt()
    total = model.sampling.total
    residual = total(deviation * weights.sqrt()) * total(weights).clamp(min=1e-30).rsqrt()
    expected = torch.where(errors.chi_square > 0, errors.chi_square, torch.nan)
    widths = _fwhms(stack)
    width_error, width_sigma = psf_width_errors(
        model, estimate.restored, estimate.linear, stack.images, weights, widths
    )
    clipped = model.sampling.largest(agreement.rejected)
    mask = _mask(seen, clipped, float(widths.max()))
    no_data = (mask & MaskBit.NO_DATA) > 0
    kept = estimator.options.noise.num_realizations
    back = order.argsort()

    def known(values: torch.Tensor) -> np.ndarray:
        return _to_numpy(torch.where(no_data, torch.nan, values))

    return RestorationResult(
        image=known(model.crop(estimate.restored)),
        variance=known(variance),
        mask=_to_numpy(mask),
        rejected=_to_numpy(clipped[back]),
        coadd=_to_numpy(torch.where(seen, _coadd(model, stack.images, weights, maps), torch.nan)),
        noise_realizations=known(errors.restored[:kept]),
        linear_image=known(model.crop(estimate.linear)),
        linear_variance=known(variance_of_linear),
        linear_noise_realizations=known(errors.linear[:kept]),
        linear_noise=local_noise,
        weights=_to_numpy((maps.weights * maps.used)[back]),
        residual=_to_numpy(residual),
        chi_square=_to_numpy(((deviation**2).sum(dim=(1, 2)) / expected)[back]),
        flux_error=_to_numpy(agreement.departures[0, back]),
        flux_sigma=_to_numpy(agreement.sigmas[0, back]),
        shift=_to_numpy(agreement.departures[1:, back].T),
        shift_sigma=_to_numpy(agreement.sigmas[1:, back].T),
        psf_width_error=_to_numpy(width_error[back]),
        psf_width_sigma=_to_numpy(width_sigma[back]),
        background=_to_numpy(agreement.background[back]),
        background_sigma=_to_numpy(agreement.background_sigma[back]),
        dropped={int(order[t]): reason for t, reason in agreement.contradictions.items()},
        target_fwhm=model.target_fwhm,
        sky_level=float(estimator.network.sky_level) * _sky_unit(estimator),
        linear_strength=estimator.linear_strength,
        linear_departure=estimator.linear_departure,
        num_parameters=estimator.network.num_parameters,
        history=history,
        device=str(stack.device),
    )


def _coadd(
    model: ForwardModel, images: torch.Tensor, weights: torch.Tensor, maps: WeightMaps
) -> torch.Tensor:
    """Return the weighted mean of exposures on the patch."""
    total = model.sampling.adjoint(weights * images).sum(dim=0)
    # What interpolates values at pixels also brings pixels to the patch.
    image = model.inverse_transform(model.filtered(model.transform(total)))
    return model.crop(image) / maps.weights.sum(dim=0).clamp(min=1e-30)


def _sky_unit(estimator: Estimator) -> float:
    """Return the noise of the smoothest filter, the unit of the sky level."""
    strength = torch.tensor(estimator.options.network.strengths[-1:])
    return float(estimator.closure.estimator.covariances(strength).sqrt())


def _fwhms(stack: ExposureStack) -> torch.Tensor:
    widths = [kernel_fwhm(psf.mean(dim=(0, 1)).cpu().numpy()) for psf in stack.psfs]
    return torch.tensor(widths, device=stack.device)


def _mask(seen: torch.Tensor, rejected: torch.Tensor, widest: float) -> torch.Tensor:
    """Return the mask.

    A pixel without data is known from around if it lies in a hole that is not
    wider than twice the widest PSF: in the closing of the pixels with data.
    """
    reach = max(1, round(widest))
    near = ~_dilate(~_dilate(seen, reach), reach)
    mask = torch.zeros(seen.shape, dtype=torch.uint8, device=seen.device)
    mask[~near] |= MaskBit.NO_DATA
    mask[near & ~seen] |= MaskBit.INPAINTED
    mask[rejected.any(dim=0)] |= MaskBit.CLIPPED
    return mask


def _dilate(pixels: torch.Tensor, radius: int) -> torch.Tensor:
    grown = torch.nn.functional.max_pool2d(pixels[None].float(), 2 * radius + 1, stride=1, padding=radius)
    return grown[0] > 0


def _to_numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()
