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

_PENALTY_WEIGHT = 1e-5
"""Of 1e-4, 1e-5 and 1e-6 that of the smallest error where stars crowd."""

_PRECISION = Precision(light=1e-3, noise=0.005)

_LEAST_COVERAGE = 0.05
"""Share of the weight of the others below which noise is not extrapolated."""

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
        PSF (3) and what the others do not resolve.
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
        self._weights = weights = good.any(dim=(1, 2)) / masked_medians(stack.variances, good, 1.0)
        estimator = LinearEstimator(model, good * weights[:, None, None])
        solve = functools.partial(estimator.solve, penalty_weights=(_PENALTY_WEIGHT,), precision=_PRECISION)
        start = None if previous is None else previous._once
        self._once: torch.Tensor = solve(estimator.right_side(stack.images), start=start)[0]
        # Residuals and light together: alone they are too faint for single
        # precision.
        twice = 2.0 * stack.images - model.predict(self._once)
        start = self._once if previous is None else previous._latent
        self._latent: torch.Tensor = solve(estimator.right_side(twice), start=start)[0]
        self._everything = model.predict(self._latent)
        self.variances = model_variances(stack, self._everything)
        self._areas = _mean_areas(model)
        shares = weights * self._areas
        self._covered = _covered_by_others(model, good, shares)
        weighted = good * self.variances * weights[:, None, None]
        self._noise_ratios = _noise_ratios(model, weighted, shares, self._covered)
        self._borders = _near_borders(model, good)
        # The adjoint of the sampling holds one factor of the area.
        self._power = model.total_power(shares)
        self._numerator = torch.zeros(self._power.shape, dtype=torch.complex64, device=good.device)
        for t in range(stack.num_exposures):
            self._numerator.add_(self._own(t))

    def predict(self, exposure: int) -> Prediction:
        """Predict an exposure from the others.

        Parameters
        ----------
        exposure
            Its index.
        """
        model, weights = self._model, self._weights * self._areas
        otf, total = model.mean_otfs[exposure], weights.sum()
        inverse, others = model.inverse_target_power, total - weights[exposure]
        rest = self._power - weights[exposure] * model.power(exposure)
        gain = 1.0 / (rest + _PENALTY_WEIGHT * others * inverse)
        withheld = 1.0 - gain * rest
        penalised = self._power + _PENALTY_WEIGHT * total * inverse
        change = gain * (1.0 + withheld) * (self._numerator - self._own(exposure))
        change -= (others / total * gain) ** 2 * (2.0 * penalised - self._power) * self._numerator
        fewer = 1.0 + model.embed(1.0 / self._covered[exposure] - 1.0)
        change = model.transform(model.inverse_transform(change) * fewer)
        correction = self._observe((change * otf)[None], exposure)
        light = self._everything[exposure] + correction
        noise = model.power(exposure) * gain**2 * rest * (1.0 + withheld) ** 2
        variance = model.fold_transform(noise) * self._areas[exposure] ** 2
        share = model.fold_transform(noise * self._smoothing()) / model.fold_transform(noise)
        psf = self.stack.psfs[exposure].mean(dim=(0, 1))
        moment = 1.0 / (4.0 * math.pi * float(psf.square().sum()))
        seen = (model.transform(self._latent) + change) * otf
        structure, templates = self._templates(seen, withheld**2, exposure, moment, float(variance.sqrt()))
        fwhm = math.sqrt(moment / float(self._areas[exposure])) / fwhm_to_sigma(1.0)
        variances = variance * self._noise_ratios[exposure][None]
        # The largest errors that were measured at the border.
        most = 0.03 * light.abs() + 3.0 * variances.sqrt()
        correction = largest_around(correction.abs(), 3)
        border = self._borders[exposure] * torch.minimum(correction, most)
        return Prediction(light, structure, templates, border, variances, float(share), fwhm)

    def _templates(
        self, spectrum: torch.Tensor, withheld: torch.Tensor, exposure: int, moment: float, sigma: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return structure, (1, h, w), and templates, (k, h, w)."""
        model, options = self._model, self._options
        light = model.inverse_transform(spectrum)
        # At 1.5 FWHM a Gaussian star has 0.2 % of its peak.
        radius = max(1, round(1.5 * math.sqrt(moment) / fwhm_to_sigma(1.0)))
        size = 2 * radius + 1
        base = largest_around(-largest_around(-light, size), size)
        structure = (light - base - 3.0 * sigma).clamp_(min=0.0)
        # Differences are local: where the data end the light falls to zero.
        rows, columns = torch.gradient(light)
        (yy, yx), (_, xx) = torch.gradient(rows), torch.gradient(columns)
        shift, width = options.shift_tolerance, options.psf_tolerance * moment
        images = (
            structure,
            shift * rows,
            shift * columns,
            width * yy,
            width * xx,
            math.sqrt(2.0) * width * yx,
            model.inverse_transform(withheld * model.transform(structure)),
        )
        maps = torch.cat([self._observe(model.transform(image)[None], exposure) for image in images])
        structure = maps[:1].clamp(min=0.0)
        return structure, torch.cat((options.variability * structure, maps[1:]))

    def _smoothing(self) -> torch.Tensor:
        """Return the power of the smoothing of trails."""
        height, width = self._model.latent_shape
        device = self.stack.good.device
        ky = 2.0 * math.pi * torch.fft.fftfreq(height, device=device)[:, None]
        kx = 2.0 * math.pi * torch.fft.rfftfreq(width, device=device)
        return torch.exp(-(fwhm_to_sigma(TRAIL_FWHM) ** 2) * (ky**2 + kx**2))

    def _observe(self, spectra: torch.Tensor, exposure: int) -> torch.Tensor:
        """Sample transforms of images on an exposure, (1, h, w)."""
        images = self._model.inverse_transform(self._model.filtered(spectra))
        return self._model.sampling.observe(images, self._index(exposure))

    def _own(self, exposure: int) -> torch.Tensor:
        """Return what the residuals of an exposure add to the numerator."""
        # Pixels without data, margins included, then have no residual.
        residual = self.stack.images[exposure] - self._everything[exposure]
        residual = torch.where(self.stack.good[exposure], residual, 0.0)
        image = self._model.sampling.adjoint(residual[None], self._index(exposure))[0]
        seen = self._model.filtered(self._model.transform(image))
        return self._weights[exposure] * self._model.mean_otfs[exposure].conj() * seen

    def _index(self, exposure: int) -> torch.Tensor:
        return torch.tensor([exposure], device=self.stack.good.device)


def _near_borders(model: ForwardModel, good: torch.Tensor) -> torch.Tensor:
    """Return whether all data end near a pixel, (n, h, w), 0 or 1."""
    covered = model.sampling.mean(good.to(torch.float32)).sum(dim=0) > _LEAST_COVERAGE
    ends = 1.0 - model.embed(covered.to(torch.float32))
    # Leaving out is not exact within four FWHM.
    near = model.crop(largest_around(ends, 2 * round(4.0 * model.target_fwhm) + 1))
    return model.sampling.look_up(near)


def _covered_by_others(model: ForwardModel, good: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Return the share of the weight of the others with data, (n, H, W)."""
    present = model.sampling.mean(good.to(shares.dtype)) * shares[:, None, None]
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


def _mean_areas(model: ForwardModel) -> torch.Tensor:
    """Return the mean area of the pixels of each exposure, (n,)."""
    area = model.sampling.area
    number = (area > 0).sum(dim=(1, 2)).clamp(min=1)
    return area.sum(dim=(1, 2)) / number
