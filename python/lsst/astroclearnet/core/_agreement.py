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
from ._consistency import ExposureConsistency, pilot_consistency
from ._exposure_stack import ExposureStack
from ._forward_model import ForwardModel
from ._likelihood import likelihood_variances
from ._linear import LinearEstimator
from ._noise_model import model_variances
from ._options import BACKGROUND_MODELS, AgreementOptions, RestoreOptions
from ._rejection import reject_outliers

_SIGNIFICANCE = 5.0
"""Departure, in its standard deviations, from which one is believed."""

_PILOT_STRENGTH = 1e-2
"""Strength of the estimate that tells the light in each pixel."""

_SEEN = 3.0
"""Brightness of a pixel, in sigma, that is no cosmic ray of one exposure."""

_VARIABILITY = 0.1
"""Share of the light of a source that may differ from exposure to exposure."""

_BLOCK = 32
"""Side in pixels of the blocks of the patch that count as one source."""

_LEAST_SOURCES = 3.0
"""From fewer one cannot tell an exposure that is off from a source that is."""

_LEAST_EXPOSURES = 3
"""Of two one cannot tell which is wrong."""


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
    consistency
        By how much each exposure departed from the others.
    corrected
        Whether that was corrected.
    contradictions
        Why exposures were left out, by their index.
    """

    stack: ExposureStack
    model: ForwardModel
    variances: torch.Tensor
    rejected: torch.Tensor
    background: torch.Tensor
    background_sigma: torch.Tensor
    consistency: ExposureConsistency
    corrected: bool
    contradictions: dict[int, str]

    def combine(self, left: ExposureConsistency) -> ExposureConsistency:
        """Return by how much the exposures depart, as they were given.

        Parameters
        ----------
        left
            By how much they still do, measured again with a better image.

        Returns
        -------
        consistency : `ExposureConsistency`
            That, with what was corrected, and what was found of exposures
            that were left out.
        """
        combined = {}
        for field in dataclasses.fields(left):
            before, after = getattr(self.consistency, field.name), getattr(left, field.name).clone()
            if self.corrected and field.name in ("flux_error", "shift_y", "shift_x"):
                after += before
            dropped = list(self.contradictions)
            after[dropped] = before[dropped]
            combined[field.name] = after
        return ExposureConsistency(**combined)


def reach_agreement(
    stack: ExposureStack, target_fwhm: float, fwhms: torch.Tensor, options: RestoreOptions
) -> Agreement:
    """Remove from exposures what the others contradict.

    Parameters
    ----------
    stack
        The exposures.
    target_fwhm
        FWHM in pixels of the target PSF.
    fwhms
        Shape (n,), FWHM of the given PSFs in pixels of the patch.
    options
        Settings.

    Returns
    -------
    agreement : `Agreement`
        What is left.
    """
    model = ForwardModel.from_stack(stack, target_fwhm)
    settled = _settle(stack, model, options)
    weights, num_sources = _even_weights(settled.stack, settled.rejected, model, settled.variances)
    consistency = pilot_consistency(model, settled.stack.images, weights, fwhms)
    contradictions = find_contradictions(consistency, num_sources, options.agreement)
    if contradictions:
        stack = stack.replace(good=stack.good.clone())
        stack.good[list(contradictions)] = False
    if options.agreement.correct:
        stack = align_exposures(stack, consistency)
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
        consistency=consistency,
        corrected=options.agreement.correct,
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
    flat, _ = _flatten(stack, stack.good, model, options.agreement)
    rejected = reject_outliers(flat, model, options.rejection)
    # Artefacts that were not flagged had a share in the first backgrounds.
    good = stack.good & ~rejected
    flat, background = _flatten(stack, good, model, options.agreement)
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


def _even_weights(
    stack: ExposureStack, rejected: torch.Tensor, model: ForwardModel, variances: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weights that no bright source dominates, and how many count.

    One star may be variable; many are not.  Pixels that were rejected count
    where the other exposures see light as well: there it may be the exposure
    that is wrong.  The number, shape (n,), is that of blocks of the patch
    that would tell as much as all do.
    """
    weights = 1.0 / variances
    estimator = LinearEstimator(model, stack.good * ~rejected * weights)
    light = model.predict(estimator.solve(stack.images, _PILOT_STRENGTH))
    significance = weights * light.clamp(min=0) ** 2
    weights = stack.good * (~rejected | (significance > _SEEN**2)) * weights
    weights = weights / (1.0 + _VARIABILITY**2 * significance)
    counted = torch.where(significance > 1.0, weights * light**2, 0.0)
    blocks = torch.nn.functional.avg_pool2d(
        model.sampling.mean(counted), _BLOCK, stride=_BLOCK, ceil_mode=True, count_include_pad=False
    ).flatten(1)
    return weights, blocks.sum(dim=1) ** 2 / (blocks**2).sum(dim=1).clamp(min=1e-30)


def find_contradictions(
    consistency: ExposureConsistency, num_sources: torch.Tensor, options: AgreementOptions
) -> dict[int, str]:
    """Say which exposures are off by more than is allowed.

    Parameters
    ----------
    consistency
        By how much each departs from the others.
    num_sources
        Shape (n,), from how many places of the patch that is known.
    options
        Limits.  A departure counts only if it is significant, known from
        three places or more, and among three exposures or more.

    Returns
    -------
    contradictions : `dict` [`int`, `str`]
        What is wrong, a slug and words with value and limit, by exposure.
    """
    found: dict[int, str] = {}
    known = torch.isfinite(consistency.flux_sigma)
    if int(known.sum()) < _LEAST_EXPOSURES:
        return found
    known = known & (num_sources >= _LEAST_SOURCES)
    for t in known.nonzero()[:, 0].tolist():
        flux, flux_sigma = float(consistency.flux_error[t]), float(consistency.flux_sigma[t])
        shift = math.hypot(float(consistency.shift_y[t]), float(consistency.shift_x[t]))
        shift_sigma = math.hypot(float(consistency.shift_sigma_y[t]), float(consistency.shift_sigma_x[t]))
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


def align_exposures(stack: ExposureStack, consistency: ExposureConsistency) -> ExposureStack:
    """Correct flux scales and positions of exposures.

    Parameters
    ----------
    stack
        The exposures.
    consistency
        By how much each departs from the others.

    Returns
    -------
    stack : `ExposureStack`
        Exposures with fluxes divided by their scale, and with PSFs off their
        centre by the shift, which leaves the pixels where they are.
    """
    scale = 1.0 / (1.0 + consistency.flux_error.to(stack.images))[:, None, None]
    shifts = torch.stack([consistency.shift_y, consistency.shift_x], dim=1)
    return dataclasses.replace(
        stack,
        images=stack.images * scale,
        variances=torch.where(stack.good, stack.variances * scale**2, stack.variances),
        psfs=_shifted(stack.psfs, shifts.to(stack.psfs)),
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
