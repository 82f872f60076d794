# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Prediction of each exposure from the others."""

from __future__ import annotations

import dataclasses
import functools
import math

import torch

from .._options import RejectionOptions
from ..estimate import LinearEstimator, Precision
from ..exposures import ExposureStack, fwhm_to_sigma, largest_around, masked_medians, model_variances
from ..forward import ForwardModel
from ._expected_differences import find_structure, list_differences
from ._psf_errors import mean_areas, psf_moments

_PENALTY_WEIGHT = 1e-5
"""Of 1e-4, 1e-5 and 1e-6 that of the smallest error where stars crowd."""

_PRECISION = Precision(light=1e-3, noise=0.005)
"""With 0.02 in place of 0.005 of the noise, pixels at the border of
bright light are rejected."""

_LATER_PRECISION = Precision(light=5e-4, noise=0.0025)
"""That of later rounds, which start close: what is left of the error is then
where the mask changed, and not all over."""

_VARIANCE_ROUNDS = 2
"""Rounds in which variances are expected anew: artefacts are then known."""

_LEAST_COVERAGE = 0.05
"""Share of the weight of the others below which noise is not extrapolated."""

_LEAST_UNRESOLVED = 1e-3
"""Share of the peak of a star that the others do not resolve, below which it
does not matter: a third of the least error that is allowed for."""

TRAIL_FWHM = 3.0
"""FWHM, in pixels, of the smoothing that brings out faint trails."""


@dataclasses.dataclass(frozen=True)
class Prediction:
    """Prediction of an exposure from the others, and its errors.

    Attributes
    ----------
    light
        Shape (1, h, w), the predicted exposure.
    structure
        Shape (1, h, w), light above its surroundings, as of stars and cores
        of galaxies; not negative.
    templates
        Shape (k, h, w), one standard deviation of what may differ in a single
        exposure: brightness of structure, position (2), second moments of the
        PSF (3) and what the others do not resolve, where that matters.
    border
        Shape (1, h, w), standard deviation of the error at the border of all
        data; 0 elsewhere.
    variance
        Shape (1, h, w), variance of the noise.
    smooth_share
        Share of that variance after smoothing with `TRAIL_FWHM`.
    fwhm
        FWHM in pixels of a Gaussian with the squared norm of the PSF.
    """

    light: torch.Tensor
    structure: torch.Tensor
    templates: torch.Tensor
    border: torch.Tensor
    variance: torch.Tensor
    smooth_share: float
    fwhm: float


class LeaveOneOut:
    """Predicts each exposure from the others.

    The estimate R is iterated once (iterated Tikhonov regularisation, Engl,
    Hanke & Neubauer 1996, Regularization of Inverse Problems, chapter 5).
    With P the power of all exposures, W their weight, s the penalty weight,
    A = P + s W, G = P / A and N the right-hand side of the residuals, it obeys
    (2 - G) N / A = (1 - G)^2 R.  Without exposure t, with A', G' and W' of the
    others, it is R + D with

        D = (2 - G') (N - N(t)) / A' - (W' / W)^2 (A / A')^2 (2 - G) N / A.

    Pixels without data count as having no residual, so that D is divided by
    the share of the others that have data.

    Parameters
    ----------
    stack
        The exposures.
    model
        Their forward model.
    good
        Shape (n, h, w), bool, pixels to use.
    options
        Tolerances.
    previous
        Predictor from nearly the same pixels, to start from.

    Attributes
    ----------
    stack
        The exposures, with these pixels.
    variances
        Shape (n, h, w), their variances.
    light
        Shape (n, h, w), their predictions.
    num_covering
        Shape (), mean number of exposures in a pixel.
    near
        Shape (n, h, w), bool, whether all data end near a pixel.
    latent
        Shape latent_shape, the sky at the target PSF, from all exposures.
    border
        Shape (n, h, w), standard deviation of the error of predictions at the
        border of all data; 0 elsewhere.
    weights
        Shape (n,), weights of the exposures per area.
    unresolved
        Shape (1, h, w), standard deviation of the light that the others do not
        resolve, by index of the exposures for which it matters.
    """

    def __init__(
        self,
        stack: ExposureStack,
        model: ForwardModel,
        good: torch.Tensor,
        options: RejectionOptions,
        previous: LeaveOneOut | None = None,
    ) -> None:
        self.stack = stack = stack.replace(good=good)
        self._model, self._options = model, options
        # Constant weights: the sums are diagonal in Fourier space.
        self._weights: torch.Tensor = (
            good.any(dim=(1, 2)) / masked_medians(stack.variances, good, 1.0)
            if previous is None
            else previous._weights
        )
        weights = self._weights
        estimator = LinearEstimator(model, good * weights[:, None, None])
        right = estimator.right_side(stack.images)
        self._round: int = 1 if previous is None else previous._round + 1
        # In the second round artefacts are no longer in it.
        self._smooth: torch.Tensor = (
            estimator.smooth_light(right) if previous is None or self._round == 2 else previous._smooth
        )
        smooth = self._smooth
        refine = functools.partial(estimator.refine, right, _PENALTY_WEIGHT, light=smooth)
        start = smooth if previous is None else previous._once
        self._once: torch.Tensor = refine(start=start, prior=smooth, precision=_PRECISION)
        start = self._once if previous is None else previous.latent
        precision = _PRECISION if previous is None else _LATER_PRECISION
        self.latent: torch.Tensor = refine(start=start, prior=self._once, precision=precision)
        self._shares: _Shares = _Shares.build(stack, model, weights) if previous is None else previous._shares
        self.weights = self._shares.weights
        self.light = everything = model.predict(self.latent)
        # Later on variances hardly change.
        if previous is None or self._round <= _VARIANCE_ROUNDS:
            self.variances: torch.Tensor = model_variances(stack, everything)
        else:
            self.variances = previous.variances
        self._predict_all(None if previous is None else previous.near)

    def predict(self, exposure: int) -> Prediction:
        """Predict an exposure from the others.

        Parameters
        ----------
        exposure
            Its index.
        """
        options, one = self._options, slice(exposure, exposure + 1)
        moment, area = self._shares.scales[exposure]
        structure, templates = self.differences(exposure)
        brightness, shifts, moments = templates.split([1, 2, 3])
        templates = torch.cat(
            [
                options.variability * brightness,
                options.shift_tolerance * shifts,
                options.psf_tolerance * moments,
            ]
        )
        if exposure in self.unresolved:
            templates = torch.cat([templates, self.unresolved[exposure]])
        return Prediction(
            self.light[one],
            structure,
            templates,
            self.border[one],
            self._variance[one],
            self._shares.smooth[exposure],
            math.sqrt(moment / area) / fwhm_to_sigma(1.0),
        )

    def differences(self, exposure: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return structure of an exposure, and what may differ in it.

        Parameters
        ----------
        exposure
            Its index.

        Returns
        -------
        structure : `torch.Tensor`
            Shape (1, h, w), that of `Prediction`.
        templates : `torch.Tensor`
            Shape (6, h, w), for amplitudes of one, as of `PsfErrors`.
        """
        moment, area = self._shares.scales[exposure]
        one = slice(exposure, exposure + 1)
        light, inside = self.light[one], self._shares.inside[one]
        noise = 3.0 * self._shares.typical[exposure].sqrt()
        structure = find_structure(light, inside, math.sqrt(moment / area), noise)
        shift, width = 1.0 / math.sqrt(area), moment / area
        return structure, list_differences(light, inside, structure, shift=shift, width=width)

    def noise(self, exposure: int) -> torch.Tensor:
        """Return the variance of an exposure and its prediction, (h, w).

        Parameters
        ----------
        exposure
            Its index.
        """
        return self.variances[exposure] + self._variance[exposure]

    def _predict_all(self, near: torch.Tensor | None) -> None:
        """Correct predictions from all exposures to those from the others."""
        model, stack, shares = self._model, self.stack, self._shares
        number, light = stack.num_exposures, self.light
        present = model.sampling.mean(stack.good.to(light.dtype))
        covered = _covered_by_others(present, shares.weights)
        number_there = (present > _LEAST_COVERAGE).sum(dim=0)
        self.num_covering: torch.Tensor = number_there.sum() / (number_there > 0).sum()
        near = _near_borders(model, present) if near is None else near
        self.near: torch.Tensor = near
        weighted = stack.good * self.variances * self._weights[:, None, None]
        self._variance = _noise_ratios(model, weighted, shares.weights, covered)
        own = [self._own(t, light[t]) for t in range(number)]
        numerator = functools.reduce(torch.add, own)
        spectrum = model.transform(self.latent)
        self.border = torch.empty_like(light)
        self.unresolved: dict[int, torch.Tensor] = {}
        for t in range(number):
            change = shares.own_factors[t] * own[t] + shares.factors[t] * numerator
            fewer = 1.0 + model.embed(1.0 / covered[t] - 1.0)
            change = model.transform(model.inverse_transform(change) * fewer)
            correction = self._observe(change * model.mean_otfs[t], t)
            light[t] += correction[0]
            self._variance[t] *= shares.typical[t]
            # The largest errors that were measured at the border.
            most = 0.03 * light[t].abs() + 3.0 * self._variance[t].sqrt()
            self.border[t] = near[t] * torch.minimum(largest_around(correction[0].abs(), 3), most)
            if t in shares.unresolved:
                seen = model.inverse_transform((spectrum + change) * model.mean_otfs[t])[None]
                sigma = math.sqrt(shares.scales[t][0])
                structure = find_structure(seen, None, sigma, 3.0 * shares.typical[t].sqrt())
                self.unresolved[t] = self._observe(shares.unresolved[t] * model.transform(structure[0]), t)

    def _observe(self, spectrum: torch.Tensor, exposure: int) -> torch.Tensor:
        """Sample the transform of an image on an exposure, (1, h, w)."""
        image = self._model.inverse_transform(self._model.filtered(spectrum))
        return self._model.sampling.observe(image[None], torch.tensor([exposure]))

    def _own(self, exposure: int, prediction: torch.Tensor) -> torch.Tensor:
        """Return what the residuals of an exposure add to the numerator."""
        # Pixels without data, margins included, then have no residual.
        residual = torch.where(self.stack.good[exposure], self.stack.images[exposure] - prediction, 0.0)
        image = self._model.sampling.adjoint(residual[None], torch.tensor([exposure]))[0]
        seen = self._model.filtered(self._model.transform(image))
        return self._weights[exposure] * self._model.mean_otfs[exposure].conj() * seen


@dataclasses.dataclass(frozen=True)
class _Shares:
    """Shares of exposures in the estimate, which do not depend on rejection.

    Weights are per area, (n,); what residuals of the exposure and of all are
    multiplied with, (n) of (Hl, Wl // 2 + 1); typical variances of
    predictions, (n,), their shares after smoothing, and what is not resolved.
    """

    weights: torch.Tensor
    scales: list[list[float]]
    inside: torch.Tensor
    own_factors: list[torch.Tensor]
    factors: list[torch.Tensor]
    typical: torch.Tensor
    smooth: list[float]
    unresolved: dict[int, torch.Tensor]

    @classmethod
    def build(cls, stack: ExposureStack, model: ForwardModel, weights: torch.Tensor) -> _Shares:
        """Work out what leaving an exposure out takes."""
        areas = mean_areas(model)
        # The adjoint of the sampling holds one factor of the area.
        shares = weights * areas
        power, total, inverse = model.total_power(shares), shares.sum(), model.inverse_target_power
        penalised, smoothing = power + _PENALTY_WEIGHT * total * inverse, _trail_power(model)
        own, every, withheld, maps = [], [], [], []
        for t, share in enumerate(shares):
            rest = power - share * model.power(t)
            gain = 1.0 / (rest + _PENALTY_WEIGHT * (total - share) * inverse)
            lost = 1.0 - gain * rest
            twice = gain * (1.0 + lost)
            own.append(-twice)
            every.append(twice - ((total - share) / total * gain) ** 2 * (2.0 * penalised - power))
            noise = model.power(t) * gain**2 * rest * (1.0 + lost) ** 2
            star = model.mean_otfs[t].abs() * model.target_transform
            withheld.append(lost**2)
            maps.append(
                [model.fold_transform(one) for one in (noise, noise * smoothing, lost**2 * star, star)]
            )
        noise, smooth, lacking, stars = torch.stack([torch.stack(one) for one in maps], dim=1)
        return cls(
            weights=shares,
            scales=torch.stack([psf_moments(stack.psfs).to(areas), areas], dim=1).tolist(),
            inside=model.sampling.positions()[0].isfinite(),
            own_factors=own,
            factors=every,
            typical=noise * areas**2,
            smooth=(smooth / noise).tolist(),
            unresolved={
                t: withheld[t]
                for t, share in enumerate((lacking / stars).tolist())
                if share > _LEAST_UNRESOLVED
            },
        )


def _trail_power(model: ForwardModel) -> torch.Tensor:
    """Return the power of the smoothing of trails."""
    height, width = model.latent_shape
    device = model.mean_otfs.device
    ky = 2.0 * math.pi * torch.fft.fftfreq(height, device=device)[:, None]
    kx = 2.0 * math.pi * torch.fft.rfftfreq(width, device=device)
    return torch.exp(-(fwhm_to_sigma(TRAIL_FWHM) ** 2) * (ky**2 + kx**2))


def _near_borders(model: ForwardModel, present: torch.Tensor) -> torch.Tensor:
    """Return whether all data end near a pixel, (n, h, w), bool."""
    covered = present.sum(dim=0) > _LEAST_COVERAGE
    ends = 1.0 - model.embed(covered.to(torch.float32))
    # Leaving out is not exact within four FWHM.
    near = model.crop(largest_around(ends, 2 * round(4.0 * model.target_fwhm) + 1))
    return model.sampling.look_up(near) > 0


def _covered_by_others(present: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Return the share of the weight of the others with data, (n, H, W)."""
    present = present * shares[:, None, None]
    others = (shares.sum() - shares).clamp(min=1e-30)[:, None, None]
    return ((present.sum(dim=0) - present) / others).clamp(min=_LEAST_COVERAGE)


def _noise_ratios(
    model: ForwardModel, weighted: torch.Tensor, shares: torch.Tensor, covered: torch.Tensor
) -> torch.Tensor:
    """Return the variance of predictions over that of typical noise and full
    coverage, (n, h, w).
    """
    noise = model.sampling.mean(weighted) * shares[:, None, None]
    others = (shares.sum() - shares).clamp(min=1e-30)[:, None, None]
    return model.sampling.look_up((noise.sum(dim=0) - noise).clamp(min=0.0) / others / covered**2)
