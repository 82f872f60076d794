# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
"""Exposures that agree with each other: what does not is left out."""

from __future__ import annotations

__all__ = ("Agreement", "align_exposures", "find_contradictions", "reach_agreement")

import dataclasses
import math

import torch

from ._background import BackgroundDifferences, fit_background_differences
from ._exposure_stack import ExposureStack
from ._forward_model import ForwardModel
from ._likelihood import likelihood_variances
from ._linear import LinearEstimator
from ._noise_model import model_variances
from ._options import BACKGROUND_MODELS, AgreementOptions, RestoreOptions
from ._rejection import reject_outliers

_PILOT_STRENGTH = 1e-3
"""Strength of the estimate that exposures are compared with."""

_VARIABILITY = 0.1
"""Share of the light of a source that may differ from exposure to exposure."""

_BLOCK = 32
"""Side in pixels of the blocks of the patch that are compared."""

_LEAST_LIGHT = 10.0
"""Signal-to-noise ratio of the light of a block that counts."""

_LEAST_BLOCKS = 7
"""From fewer one cannot tell an exposure that is off from a source that is."""

_LEAST_EXPOSURES = 3
"""Of two one cannot tell which is wrong."""

_SIGNIFICANCE = 5.0
"""Departure, in its standard deviations, from which one is believed."""


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Exposures that agree, and what had to be done to that end.

    Attributes
    ----------
    stack
        The exposures without differences of background, with their flux
        scales and positions corrected if that was asked for; pixels that
        others contradict, and exposures that do, are not good.
    model
        Their forward model.
    variances
        Shape (n, h, w), variances of the likelihood.
    rejected
        Shape (n, h, w), bool, pixels that others contradict.
    background
        Shape (n, 3), the differences of background that were removed, as the
        coefficients of `BackgroundDifferences`.
    background_sigma
        Shape (n, 3), their standard deviations; infinite where unknown.
    departures
        Shape (3, n), by how much exposures departed from the others: relative
        flux scale, and shifts along rows and columns in pixels of the patch;
        0 where nothing is known.
    sigmas
        Shape (3, n), their standard deviations; infinite where nothing is
        known.
    contradictions
        Why exposures were left out, by their index.
    """

    stack: ExposureStack
    model: ForwardModel
    variances: torch.Tensor
    rejected: torch.Tensor
    background: torch.Tensor
    background_sigma: torch.Tensor
    departures: torch.Tensor
    sigmas: torch.Tensor
    contradictions: dict[int, str]


def reach_agreement(stack: ExposureStack, target_fwhm: float, options: RestoreOptions) -> Agreement:
    """Remove from exposures what the others contradict.

    Parameters
    ----------
    stack
        The exposures.
    target_fwhm
        FWHM in pixels of the target PSF.
    options
        Settings.

    Returns
    -------
    agreement : `Agreement`
        What is left.
    """
    model = ForwardModel.from_stack(stack, target_fwhm)
    settled = _settle(stack, model, options)
    departures, sigmas = _medians(_compare(settled, model))
    contradictions = find_contradictions(departures, sigmas, options.agreement)
    if contradictions:
        stack = stack.replace(good=stack.good.clone())
        stack.good[list(contradictions)] = False
    if options.agreement.correct:
        right = torch.ones_like(departures)
        right[:, list(contradictions)] = 0.0
        stack = align_exposures(stack, departures * right)
        model = ForwardModel.from_stack(stack, target_fwhm)
    if contradictions or options.agreement.correct:
        # Everything was judged by exposures that were wrong.
        settled = _settle(stack, model, options)
    return Agreement(
        stack=settled.stack.replace(good=settled.stack.good & ~settled.rejected),
        model=model,
        variances=settled.variances,
        rejected=settled.rejected,
        background=settled.background.coefficients,
        background_sigma=settled.background.sigma,
        departures=departures,
        sigmas=sigmas,
        contradictions=contradictions,
    )


@dataclasses.dataclass(frozen=True)
class _Settled:
    """Exposures on one background, and the pixels that others contradict."""

    stack: ExposureStack
    background: BackgroundDifferences
    rejected: torch.Tensor
    variances: torch.Tensor


def _settle(stack: ExposureStack, model: ForwardModel, options: RestoreOptions) -> _Settled:
    """Remove differences of background, and find outliers."""
    flat, first = _flatten(stack, stack.good, model, options.agreement)
    rejected = reject_outliers(flat, model, options.rejection)
    # Artefacts that were not flagged had a share in the first backgrounds.
    good = stack.good & ~rejected
    flat, second = _flatten(flat, good, model, options.agreement)
    background = dataclasses.replace(second, coefficients=first.coefficients + second.coefficients)
    variances = likelihood_variances(flat.replace(good=good), model)
    return _Settled(flat, background, rejected, variances)


def _flatten(
    stack: ExposureStack, good: torch.Tensor, model: ForwardModel, options: AgreementOptions
) -> tuple[ExposureStack, BackgroundDifferences]:
    """Remove differences of background that good pixels show."""
    if options.background == "none":
        nothing = torch.zeros(stack.num_exposures, 3, device=stack.device)
        return stack, BackgroundDifferences(nothing, torch.full_like(nothing, torch.inf), (0.0, 0.0))
    cleaned = stack.replace(good=good)
    weights = good / model_variances(cleaned)
    order = BACKGROUND_MODELS.index(options.background) - 1
    found = fit_background_differences(cleaned, model, weights, order=order)
    return stack.replace(images=(stack.images - found.evaluate(model)) * stack.good), found


def _compare(settled: _Settled, model: ForwardModel) -> torch.Tensor:
    """Return departures of exposures, block by block of the patch.

    Flux scale (relative) and shifts along rows and columns (pixels), each
    from the light of a block alone, of shape (3, n, K); NaN where there is
    too little light.  Pixels count although they were rejected: there it may
    be the exposure that is wrong.  No pixel of a bright source counts for
    more than one of a fainter one, for sources vary.
    """
    stack, variances = settled.stack, settled.variances
    estimator = LinearEstimator(model, stack.good * ~settled.rejected / variances)
    latent = estimator.solve(stack.images, _PILOT_STRENGTH)
    # Once more, as the penalty holds back light.
    latent = latent + estimator.solve(stack.images - model.predict(latent), _PILOT_STRENGTH)
    light = model.predict(latent)
    weights = stack.good / (variances + (_VARIABILITY * light) ** 2)
    left = stack.images - light
    gradients = [-model.predict(gradient) for gradient in torch.gradient(latent)]
    enough = _block_sums(weights * light**2, model) > _LEAST_LIGHT**2
    departures = []
    for template in (light, *gradients):
        information = _block_sums(weights * template**2, model)
        projected = _block_sums(weights * template * left, model)
        departures.append(torch.where(enough, projected / information.clamp(min=1e-30), torch.nan))
    return torch.stack(departures)


def _block_sums(data: torch.Tensor, model: ForwardModel) -> torch.Tensor:
    """Return sums of data over blocks of the patch, shape (n, K)."""
    maps = model.sampling.mean(data)
    bottom, right = (-size % _BLOCK for size in maps.shape[1:])
    padded = torch.nn.functional.pad(maps, (0, right, 0, bottom))
    return _BLOCK**2 * torch.nn.functional.avg_pool2d(padded, _BLOCK).flatten(1)


def find_contradictions(
    departures: torch.Tensor, sigmas: torch.Tensor, options: AgreementOptions
) -> dict[int, str]:
    """Say which exposures are off by more than is allowed.

    Parameters
    ----------
    departures
        Shape (3, n), relative departure in flux scale and shifts along rows
        and columns, in pixels of the patch.
    sigmas
        Shape (3, n), their standard deviations; infinite where nothing is
        known.
    options
        Limits.  A departure counts only if it is significant, and among three
        exposures or more.

    Returns
    -------
    contradictions : `dict` [`int`, `str`]
        What is wrong, a slug and words with value and limit, by exposure.
    """
    found: dict[int, str] = {}
    known = torch.isfinite(sigmas).all(dim=0)
    if int(known.sum()) < _LEAST_EXPOSURES:
        return found
    for t in known.nonzero()[:, 0].tolist():
        flux, flux_sigma = float(departures[0, t]), float(sigmas[0, t])
        shift, shift_sigma = float(departures[1:, t].norm()), float(sigmas[1:, t].max())
        if abs(flux) > max(options.max_flux_error, _SIGNIFICANCE * flux_sigma):
            found[t] = (
                f"flux_scale: Its sources are brighter by {100.0 * flux:+.1f} +- {100.0 * flux_sigma:.1f} % "
                f"than in the others, more than max_flux_error={100.0 * options.max_flux_error:g} %."
            )
        elif shift > max(options.max_shift, _SIGNIFICANCE * shift_sigma):
            found[t] = (
                f"astrometry: Its sources are {shift:.2f} +- {shift_sigma:.2f} pixels from where the others "
                f"have them, more than max_shift={options.max_shift:g}."
            )
    return found


def _medians(departures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return medians over blocks, relative to the median of all exposures.

    An exposure is off where most of its sources are: the median does not
    follow a transient, a trail or a variable star.  Medians and their
    standard deviations, (3, n); 0 and infinite for fewer than seven blocks.
    """
    medians = departures.nanquantile(0.5, dim=2)
    spread = (departures - medians[:, :, None]).abs().nanquantile(0.5, dim=2)
    number = torch.isfinite(departures).sum(dim=2)
    known = number >= _LEAST_BLOCKS
    # The standard deviation of a median of Gaussian values.
    sigmas = 1.2533 * 1.4826 * spread / number.clamp(min=1).sqrt()
    medians = torch.where(known, medians, torch.nan)
    medians = medians - medians.nanquantile(0.5, dim=1, keepdim=True)
    return torch.nan_to_num(medians), torch.where(known, sigmas, torch.inf)


def align_exposures(stack: ExposureStack, departures: torch.Tensor) -> ExposureStack:
    """Correct flux scales and positions of exposures.

    Parameters
    ----------
    stack
        The exposures.
    departures
        Shape (3, n), by how much they depart from the others: relative flux
        scale and shifts along rows and columns, in pixels of the patch.

    Returns
    -------
    stack : `ExposureStack`
        Exposures with fluxes divided by their scale, and with PSFs off their
        centre by the shift, which leaves the pixels where they are.
    """
    scale = 1.0 / (1.0 + departures[0].to(stack.images))[:, None, None]
    return dataclasses.replace(
        stack,
        images=stack.images * scale,
        variances=torch.where(stack.good, stack.variances * scale**2, stack.variances),
        psfs=_shifted(stack.psfs, departures[1:].T.to(stack.psfs)),
    )


def _shifted(psfs: torch.Tensor, shifts: torch.Tensor) -> torch.Tensor:
    """Shift PSFs, (n, cells_y, cells_x, P, P), by (n, 2) pixels."""
    size = psfs.shape[-1]
    # Padded so that nothing comes in at the other side.
    ky = torch.fft.fftfreq(2 * size, dtype=psfs.dtype, device=psfs.device)[:, None]
    kx = torch.fft.rfftfreq(2 * size, dtype=psfs.dtype, device=psfs.device)
    angle = -2.0 * math.pi * (shifts[:, 0, None, None] * ky + shifts[:, 1, None, None] * kx)
    phase = torch.polar(torch.ones_like(angle), angle)[:, None, None]
    moved = torch.fft.irfft2(torch.fft.rfft2(psfs, s=(2 * size, 2 * size)) * phase, s=(2 * size, 2 * size))
    return moved[..., :size, :size]
