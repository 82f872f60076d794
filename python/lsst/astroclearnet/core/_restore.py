# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Restoration of one patch from plain arrays."""

from __future__ import annotations

__all__ = ("MaskBit", "RestorationResult", "restore")

import dataclasses
import enum

import numpy as np
import torch

from ._bank import DEPTH_FLOOR, FilterBank
from ._device import make_generator, select_device
from ._errors import InputError
from ._exposure_stack import ArrayLike, ExposureStack
from ._fit import FitHistory, ProgressCallback, fit_network
from ._forward_model import ForwardModel
from ._kernels import kernel_fwhm
from ._linear import LinearEstimator
from ._network import MixingNetwork
from ._noise_model import model_variances
from ._options import RestoreOptions
from ._rejection import reject_outliers
from ._samples import make_samples
from ._uncertainty import draw_noise, noise_ratio, non_negative_error, propagate_noise

_PILOT_STRENGTH = 1e-3
"""Strength of the estimate from which photon noise is predicted."""


class MaskBit(enum.IntFlag):
    """Bits of the mask of a restored image."""

    NO_DATA = 1
    """No exposure constrains the pixel; image and variance are NaN."""

    INPAINTED = 2
    """No exposure has a usable pixel here; the value comes from around."""

    CLIPPED = 4
    """At least one exposure was left out because the others contradict it."""


@dataclasses.dataclass(frozen=True)
class RestorationResult:
    """A restored image and all that is known about it.

    Attributes
    ----------
    image
        Shape (H, W), float32, the sky at the target PSF in the unit of the
        exposures; NaN where there is no data.
    variance
        Shape (H, W), float32, expected squared error of ``image``; NaN where
        there is no data.
    mask
        Shape (H, W), uint8, `MaskBit` values.
    rejected
        Shape (n, H, W), bool, usable pixels that the other exposures
        contradict.
    noise_realizations
        Shape (k, H, W), float32, pure noise passed through the estimator.
    weights
        Shape (n, H, W), float32, inverse variances given to the pixels of the
        exposures; 0 where a pixel was not used.
    residual
        Shape (H, W), float32, mean deviation of the exposures from the
        restored image convolved to their PSFs, in units of its noise.
    chi_square
        Shape (n,), reduced chi-square of the used pixels of each exposure
        under the restored image convolved to its PSF: the sum of squared
        deviations over what the same estimator leaves of pure noise, which
        accounts for the degrees of freedom that the image takes up and for
        correlated noise.  Without noise realisations it is the mean squared
        deviation; NaN without pixels.
    target_fwhm
        FWHM in pixels of the circular Gaussian PSF of ``image``.
    sky_level
        Level below which the network sees no light, in the unit of the image.
    noise_ratio
        Variance of the noise realisations over that predicted for white
        noise, by which ``variance`` was scaled.
    num_parameters
        Number of fitted parameters.
    history
        What happened during the fit.
    device
        Device that was used.
    """

    image: np.ndarray
    variance: np.ndarray
    mask: np.ndarray
    rejected: np.ndarray
    noise_realizations: np.ndarray
    weights: np.ndarray
    residual: np.ndarray
    chi_square: np.ndarray
    target_fwhm: float
    sky_level: float
    noise_ratio: float
    num_parameters: int
    history: FitHistory
    device: str


def restore(
    images: ArrayLike,
    variances: ArrayLike,
    good: ArrayLike,
    psfs: ArrayLike,
    *,
    target_fwhm: float,
    options: RestoreOptions | None = None,
    device: str | torch.device = "auto",
    seed: int = 0,
    noise: ArrayLike | None = None,
    callback: ProgressCallback | None = None,
) -> RestorationResult:
    """Restore the sky at a target PSF from co-registered exposures.

    Parameters
    ----------
    images
        Shape (n, H, W), background-subtracted exposures in one unit.
    variances
        Shape (n, H, W), their variances in that unit squared.
    good
        Shape (n, H, W), boolean, `True` where a pixel may be used.
    psfs
        Shape (n, P, P), or (n, n_cells_y, n_cells_x, P, P) for PSFs that
        vary over a regular grid of cells covering the images.
    target_fwhm
        FWHM in pixels of the circular Gaussian PSF of the result.
    options
        Settings; the defaults suit survey exposures.
    device
        ``"auto"``, ``"cpu"`` or ``"cuda"``.
    seed
        Seed of everything random; the same seed gives the same image.
    noise
        Shape (k, n, H, W), pure noise of the exposures with the correlations
        that their resampling gave it.  By default
        ``options.noise.num_realizations`` of white noise are drawn.
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
    stack = ExposureStack.from_arrays(images, variances, good, psfs, device=chosen)
    model = ForwardModel.from_stack(stack, target_fwhm)
    with torch.no_grad():
        rejected = reject_outliers(stack, model, options.rejection)
        stack = stack.replace(good=stack.good & ~rejected)
        likelihood_variances = _likelihood_variances(stack, model)
        draws = _noise_draws(noise, likelihood_variances, options.noise.num_realizations, generator)
    weights = stack.good / likelihood_variances
    network = MixingNetwork(options.network)
    network.initialize(generator)
    network.to(chosen)
    history = _fit(network, stack, weights, model, options, generator, callback)
    with torch.no_grad():
        return _assemble(network, history, stack, weights, model, draws, rejected, options)


def _likelihood_variances(stack: ExposureStack, model: ForwardModel) -> torch.Tensor:
    pilot = LinearEstimator(model, stack.good / model_variances(stack))
    return model_variances(stack, model.predict(pilot.solve(stack.images, _PILOT_STRENGTH)))


def _noise_draws(
    noise: ArrayLike | None, variances: torch.Tensor, number: int, generator: torch.Generator
) -> torch.Tensor:
    if noise is None:
        return draw_noise(variances, number, generator)
    draws = torch.as_tensor(noise, dtype=torch.float32, device=variances.device)
    if draws.shape[1:] != variances.shape:
        raise InputError(f"noise must have shape (k, *{tuple(variances.shape)}), not {tuple(draws.shape)}.")
    return torch.nan_to_num(draws)


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
    network: MixingNetwork,
    history: FitHistory,
    stack: ExposureStack,
    weights: torch.Tensor,
    model: ForwardModel,
    draws: torch.Tensor,
    rejected: torch.Tensor,
    options: RestoreOptions,
) -> RestorationResult:
    bank = FilterBank.build(model, stack.images, weights, options.network.strengths)
    mixture = network.mixture(bank)
    output = network.combine(mixture, bank)
    estimator = LinearEstimator(model, weights)
    strength = torch.tensor([options.network.closure_strength])
    latent = output + estimator.close(stack.images, output, float(strength))
    propagated = propagate_noise(draws, mixture, model, weights, options.network)
    closure_variance = estimator.covariances(strength)[0, 0] / bank.depth.clamp(min=DEPTH_FLOOR)
    variance = bank.mixture_variance(mixture)
    seen = weights.sum(dim=0) > 0
    ratio = noise_ratio(model.sample(propagated), model.sample(variance + closure_variance), seen)
    sky_level = float(network.sky_level) * bank.unit
    if options.network.non_negative:
        excess = (mixture * bank.estimates).sum(dim=0) - sky_level
        variance = non_negative_error(excess, variance)
    variance = ratio * (variance + closure_variance)

    deviation = (stack.images - model.predict(latent)) * weights.sqrt()
    residual = (deviation * weights.sqrt()).sum(dim=0) * weights.sum(dim=0).clamp(min=1e-30).rsqrt()
    chi_square = (deviation**2).sum(dim=(1, 2)) / _expected_chi_square(draws, propagated, model, weights)
    mask = _mask(seen, rejected, stack)
    no_data = (mask & MaskBit.NO_DATA) > 0
    nan = torch.full((), torch.nan, device=mask.device)
    return RestorationResult(
        image=_to_numpy(torch.where(no_data, nan, model.sample(latent))),
        variance=_to_numpy(torch.where(no_data, nan, model.sample(variance))),
        mask=_to_numpy(mask),
        rejected=_to_numpy(rejected),
        noise_realizations=_to_numpy(torch.where(no_data, nan, model.sample(propagated))),
        weights=_to_numpy(weights),
        residual=_to_numpy(residual),
        chi_square=_to_numpy(chi_square),
        target_fwhm=model.target_fwhm,
        sky_level=sky_level,
        noise_ratio=ratio,
        num_parameters=network.num_parameters,
        history=history,
        device=str(stack.device),
    )


def _expected_chi_square(
    draws: torch.Tensor, propagated: torch.Tensor, model: ForwardModel, weights: torch.Tensor
) -> torch.Tensor:
    """Return the sum of squares that the estimator leaves of pure noise."""
    if len(draws):
        left = torch.stack([d - model.predict(p) for d, p in zip(draws, propagated, strict=True)])
        expected = (weights * left**2).sum(dim=(-1, -2)).mean(dim=0)
    else:
        expected = (weights > 0).sum(dim=(-1, -2)).to(weights.dtype)
    return torch.where(expected > 0, expected, torch.nan)


def _mask(seen: torch.Tensor, rejected: torch.Tensor, stack: ExposureStack) -> torch.Tensor:
    """Return the mask.

    A pixel without data is known from around if it lies in a hole that is not
    wider than twice the widest PSF: in the closing of the pixels with data.
    """
    widths = [kernel_fwhm(psf.mean(dim=(0, 1)).cpu().numpy()) for psf in stack.psfs]
    reach = max(1, round(max(widths)))
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
