# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Rejection of pixels that are outliers among the exposures."""

from __future__ import annotations

__all__ = ("Outliers", "reject_outliers")

import dataclasses

import numpy as np
import torch
from scipy.ndimage import binary_propagation

from .._options import RejectionOptions
from ..estimate import record_solve
from ..exposures import ExposureStack, largest_around
from ..forward import ForwardModel, Sampling
from ._leave_one_out import LeaveOneOut
from ._psf_errors import PsfErrorFit, shape_templates
from ._structured_residuals import StructuredResiduals

_FREE_ROUNDS = 2
"""Rounds after which pixels are only added, as a few would come and go without
end: 4 to 5 % of those rejected in scenes with trails and cosmic rays."""

_CONVERGED = 1e-4
"""Share of the pixels that may still change in the last round."""

_CANDIDATE = 0.8
"""Share of the high threshold that a residual must reach, without what may
differ, for this to be fitted around it: where a fit makes residuals larger,
because the star below an artefact is fainter, neighbours show it too."""

_REACH = 1.25
"""Distance from such residuals, in FWHM of the target PSF, up to which it is
fitted."""

_MOVED = 0.1
"""Change of a prediction, in sigma, up to which fits around it are kept."""

_OBJECTION_RATIO = 1.3
"""Least deviation of an outlier over that of any other exposure."""

_BRIDGE = 1.25
"""Half of the gap, in FWHM of the target PSF, over which a trail is followed
through a star that hides it."""


@dataclasses.dataclass(frozen=True)
class Outliers:
    """Outliers among exposures, and how much these differ without them.

    Attributes
    ----------
    rejected
        Shape (n, h, w), bool, good pixels only.
    psf_errors
        Sums for the fit of errors of PSFs.
    predictor
        What predicts each exposure from the others without these pixels;
        `None` of less than three exposures, or without rejection.
    residuals
        Shape (n, h, w), residuals from its predictions.
    """

    rejected: torch.Tensor
    psf_errors: PsfErrorFit
    predictor: LeaveOneOut | None = None
    residuals: torch.Tensor | None = None


def reject_outliers(stack: ExposureStack, model: ForwardModel, options: RejectionOptions) -> Outliers:
    """Find pixels in which one exposure deviates from all others.

    Each exposure is predicted from the others.  A pixel deviates when its
    residual is significant, alone or smoothed over a few pixels, beyond what
    a variable source or a small error of the PSF or the position would cause.
    A group grows from pixels above the high threshold into connected ones
    above the low threshold, and through a star that lies on a trail.  Where
    another exposure deviates about as much, the model is wrong there and
    nothing is rejected.

    Parameters
    ----------
    stack
        The exposures.
    model
        Their forward model.
    options
        Thresholds and tolerances.

    Returns
    -------
    outliers : `Outliers`
        The pixels, and how much exposures differ without them.
    """
    rejected, num_good = torch.zeros_like(stack.good), float(stack.good.sum())
    # With two exposures the faulty one cannot be identified.
    if not options.enabled or int(stack.good.any(dim=(1, 2)).sum()) < 3:
        return Outliers(rejected, PsfErrorFit.empty(len(rejected), rejected.device))
    predictor, residuals, is_fitted = None, None, False
    for number in range(1, options.max_rounds + 1):
        predictor = LeaveOneOut(stack, model, stack.good & ~rejected, options, predictor)
        residuals = _Residuals.measure(predictor, stack.good, options, residuals)
        deviates = residuals.beyond > options.high_threshold
        # While many artefacts are in the predictions of other exposures, fits
        # are in vain.
        if number > 1 or options.max_rounds == 1 or float(deviates.sum()) <= _CONVERGED * num_good:
            residuals.fit(model, options)
            is_fitted = True
        # Pixels that were rejected before object with all of their residual: a
        # change of the sky must not be rejected from one exposure after the
        # other.
        plain = residuals.plain
        objections = torch.where(rejected, plain, residuals.beyond)
        found = _groups(residuals.beyond, objections, stack.good, model.sampling, options)
        if bool(found.any()):
            reach = max(1, round(_BRIDGE * model.target_fwhm))
            # Seen in several exposures it is a change of the sky.
            shared = _shared(plain > options.high_threshold, model.sampling)
            found |= (plain > options.low_threshold) & ~shared & _closing(found, reach)
        if number > _FREE_ROUNDS:
            found |= rejected
        changed = float((found != rejected).sum()) / num_good
        rejected = found
        if changed <= _CONVERGED and is_fitted:
            break
    record_solve("outliers", steps=number, residual=changed / _CONVERGED)
    assert residuals is not None
    left = residuals.differences()
    return Outliers(rejected, residuals.fit_psf_errors(left, stack.good & ~rejected), predictor, left)


@dataclasses.dataclass
class _Residuals:
    """Residuals from the predictions of a round.

    Absolute ones in units of their error, (n, h, w), beyond what may differ
    between exposures, and all; in which pixels the former is fitted, and the
    predictions with which it was.
    """

    predictor: LeaveOneOut
    good: torch.Tensor
    beyond: torch.Tensor
    plain: torch.Tensor
    scales: torch.Tensor
    differs: torch.Tensor
    candidates: torch.Tensor
    fitted: torch.Tensor | None
    light: torch.Tensor
    previous: _Residuals | None

    @classmethod
    def measure(
        cls,
        predictor: LeaveOneOut,
        good: torch.Tensor,
        options: RejectionOptions,
        previous: _Residuals | None,
    ) -> _Residuals:
        """Measure residuals without a fit."""
        beyond, plain, scales = (torch.empty_like(predictor.variances) for _ in range(3))
        differs, candidates = torch.empty_like(good), torch.empty_like(good)
        if previous is not None:
            previous.previous = None
        found = cls(
            predictor, good, beyond, plain, scales, differs, candidates, None, predictor.light, previous
        )
        for t in range(len(good)):
            one = found._build(t)
            torch.abs(one.significance()[0], out=beyond[t])
            torch.abs(one.plain[0], out=plain[t])
            scales[t], differs[t] = one.scale[0], one.may_differ[0]
            torch.gt(one.bound()[0].abs(), _CANDIDATE * options.high_threshold, out=candidates[t])
        return found

    def fit(self, model: ForwardModel, options: RejectionOptions) -> None:
        """Fit what may differ where any exposure deviates, so that they are
        compared with each other.
        """
        near = model.sampling.largest(self.candidates).any(dim=0)
        size = 2 * round(_REACH * model.target_fwhm) + 1
        chosen = self.differs & model.sampling.look_up(_grown(near, size))
        self.fitted, self.light = chosen.clone(), self.predictor.light
        previous = self.previous
        if previous is not None and previous.fitted is not None:
            change = self.light - previous.light
            moved = change.square() > _MOVED**2 * self.predictor.variances
            kept = chosen & previous.fitted & ~_grown(moved, size)
            torch.where(kept, previous.beyond, self.beyond, out=self.beyond)
            self.light = torch.where(kept, previous.light, self.light)
            chosen &= ~kept
        self.previous = None
        pixels = chosen.flatten(1).nonzero()[:, 1].split(chosen.sum(dim=(1, 2)).tolist())
        for t, some in enumerate(pixels):
            if len(some):
                torch.abs(self._build(t, self.scales[t : t + 1]).fit(some)[0], out=self.beyond[t])

    def differences(self) -> torch.Tensor:
        """Return residuals of all exposures, (n, h, w)."""
        return self.predictor.stack.images - self.predictor.light - self.scales

    def fit_psf_errors(self, left: torch.Tensor, good: torch.Tensor) -> PsfErrorFit:
        """Compare what is left of good pixels with what may differ."""
        predictor = self.predictor
        fit = PsfErrorFit.empty(len(good), good.device)
        for t, use in enumerate(good):
            if t in predictor.unresolved:
                # Light that others do not resolve would pass for an error.
                continue
            _, differences = predictor.differences(t)
            templates = shape_templates(differences)
            # Near missing data predictions have errors of their own.
            fit.add(
                t, left[t], predictor.noise(t), templates, use & ~predictor.near[t], predictor.num_covering
            )
        return fit

    def _build(self, exposure: int, scale: torch.Tensor | None = None) -> StructuredResiduals:
        one, predictor = slice(exposure, exposure + 1), self.predictor
        images, variances = predictor.stack.images[one], predictor.variances[one]
        return StructuredResiduals(images, variances, self.good[one], predictor.predict(exposure), scale)


def _grown(pixels: torch.Tensor, size: int) -> torch.Tensor:
    """Return whether one of a square of pixels around is true."""
    return largest_around(pixels.to(torch.float32), size) > 0


def _groups(
    size: torch.Tensor,
    objections: torch.Tensor,
    good: torch.Tensor,
    sampling: Sampling,
    options: RejectionOptions,
) -> torch.Tensor:
    """Return the deviating pixels to which no other exposure objects."""
    if not bool((good & (size > options.high_threshold)).any()):
        return torch.zeros_like(good)
    # Exposures are compared where they meet: on the patch.
    near, objecting = (_with_neighbours(sampling.largest(maps)) for maps in (size, objections))
    first = second = torch.zeros_like(near[0])
    for one in objecting:
        second = torch.maximum(second, torch.minimum(first, one))
        first = torch.maximum(first, one)
    alone, strongest = torch.empty_like(near, dtype=torch.bool), torch.empty_like(near, dtype=torch.bool)
    for t, (one, own) in enumerate(zip(near, objecting, strict=True)):
        other = torch.where(own == first, second, first)
        torch.gt(one, _OBJECTION_RATIO * other, out=alone[t])
        torch.ge(one, other, out=strongest[t])
    del near, objecting
    alone, strongest = sampling.look_up(alone), sampling.look_up(strongest)
    seeds = alone & good & (size > options.high_threshold)
    allowed = strongest & good & (size > options.low_threshold)
    if not bool(seeds.any()):
        return seeds
    # Seeds grow into connected pixels that are allowed.
    within_exposures = np.ones((1, 3, 3))
    grown = binary_propagation(seeds.cpu().numpy(), within_exposures, allowed.cpu().numpy())
    return torch.from_numpy(grown).to(seeds.device)


def _with_neighbours(maps: torch.Tensor) -> torch.Tensor:
    """Return the largest of a pixel and its neighbours, (n, H, W)."""
    return largest_around(maps, 3)


def _shared(differs: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Return the pixels, (n, h, w), at which several exposures differ."""
    several = sampling.largest(differs).sum(dim=0) > 1
    return sampling.look_up(several)


def _closing(pixels: torch.Tensor, radius: int) -> torch.Tensor:
    """Fill gaps of up to twice a radius, (n, h, w), bool."""
    size, inner = 2 * radius + 1, slice(radius, -radius)
    padded = torch.nn.functional.pad(pixels.to(torch.float32), (radius,) * 4)
    grown = largest_around(padded, size)
    return -largest_around(-grown, size)[:, inner, inner] > 0
