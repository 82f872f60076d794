# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Prediction of each exposure from the others, and of what may differ."""

from __future__ import annotations

import dataclasses
import functools
import math

import torch

from .._options import RejectionOptions
from ..estimate import LinearEstimator, Precision
from ..exposures import ExposureStack, fwhm_to_sigma, masked_medians, model_variances
from ..forward import ForwardModel

_STRENGTH = 1e-5
"""Strength of the estimate that exposures are predicted from: of 1e-4, 1e-5
and 1e-6 that of the smallest error where stars crowd."""

_PRECISION = Precision(light=1e-3, noise=0.005)
"""Of its solution."""

_BASE_WIDTHS = 1.5
"""Radius, in FWHM of the PSF, of the opening that takes stars for structure:
a Gaussian star has 0.2 % of its peak there."""

_LEAST_STRUCTURE = 3.0
"""Light, in standard deviations of the prediction, that is structure."""

_BORDER = 4.0
"""Distance from the border of all data, in FWHM of the target PSF, within
which leaving out is not exact."""

_BORDER_LIGHT = 0.03
_BORDER_NOISE = 3.0
"""By how much a prediction may be off there, relative to the light and to its
noise; the largest that were measured."""

_LEAST_COVERAGE = 0.05
"""Share of the weight of the others below which noise is not extrapolated."""


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What the others say about an exposure.

    Attributes
    ----------
    light
        Shape (1, h, w), the predicted exposure.
    structure
        Shape (1, h, w), light above its surroundings: stars, cores of
        galaxies; not negative.
    templates
        Shape (k, h, w), one standard deviation of what may differ in a single
        exposure: brightness of structure, position (2), second moments of the
        PSF (3) and what the others do not resolve.
    border
        Shape (1, h, w), standard deviation of the error of the prediction at
        the border of all data; 0 elsewhere.
    variance
        Shape (1, h, w), variance of the noise of the prediction.
    smooth_share
        Share of that variance that is left in the prediction smoothed with a
        Gaussian of `TRAIL_FWHM`.
    fwhm
        FWHM of the PSF, in pixels of the exposure, if it were a Gaussian.
    """

    light: torch.Tensor
    structure: torch.Tensor
    templates: torch.Tensor
    border: torch.Tensor
    variance: torch.Tensor
    smooth_share: float
    fwhm: float


TRAIL_FWHM = 3.0
"""FWHM, in pixels, of the smoothing that brings out faint trails."""


@dataclasses.dataclass(frozen=True)
class LeaveOneOut:
    """Predicts each exposure from the others.

    The estimate R is a regularised one to which what the penalty withheld is
    added once more (iterated Tikhonov regularisation, Engl, Hanke & Neubauer
    1996, Regularization of Inverse Problems, chapter 5).  With P the power of
    all exposures, W their weight, s the penalty weight, A = P + s W, G = P / A
    and N what the residuals make of the right-hand side, it obeys
    (2 - G) N / A = (1 - G)^2 R, and the one without exposure t, whose A', G'
    and W' are those of the others, is R + D with

        D = (2 - G') (N - N(t)) / A' - (W' / W)^2 (A / A')^2 (2 - G) N / A.

    Pixels without data count as agreeing with R, so that D is divided by the
    share of the others that have data.
    """

    stack: ExposureStack
    model: ForwardModel
    good: torch.Tensor
    options: RejectionOptions
    once: torch.Tensor
    latent: torch.Tensor
    variances: torch.Tensor
    data_weights: torch.Tensor
    areas: torch.Tensor
    numerator: torch.Tensor
    power: torch.Tensor
    covered: torch.Tensor
    noise_ratios: torch.Tensor
    borders: torch.Tensor

    @classmethod
    def build(
        cls,
        stack: ExposureStack,
        model: ForwardModel,
        good: torch.Tensor,
        options: RejectionOptions,
        previous: LeaveOneOut | None = None,
    ) -> LeaveOneOut:
        """Make what all exposures share.

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
            What was made of nearly the same pixels, to start from.

        Returns
        -------
        predictor : `LeaveOneOut`
            The predictor.
        """
        stack = stack.replace(good=good)
        # Constant weights: the sums are diagonal in Fourier space.
        weights = good.any(dim=(1, 2)) / masked_medians(stack.variances, good, 1.0)
        estimator = LinearEstimator(model, good * weights[:, None, None])
        starts = (None, None) if previous is None else (previous.once, previous.latent)
        solve = functools.partial(estimator.solve, penalty_weights=(_STRENGTH,), precision=_PRECISION)
        once = solve(estimator.right_side(stack.images), start=starts[0])[0]
        # What was withheld and the rest together: alone it is too faint for
        # single precision.
        twice = 2.0 * stack.images - model.predict(once)
        start = once if starts[1] is None else starts[1]
        latent = solve(estimator.right_side(twice), start=start)[0]
        areas = _mean_areas(model, stack)
        variances = model_variances(stack, model.predict(latent))
        shape = model.inverse_target_power.shape
        covered = _covered_by_others(model, good, weights * areas)
        predictor = cls(
            stack=stack,
            model=model,
            good=good,
            options=options,
            once=once,
            latent=latent,
            variances=variances,
            data_weights=weights,
            areas=areas,
            numerator=torch.zeros(shape, dtype=torch.complex64, device=good.device),
            # The adjoint of the sampling holds one factor of the area.
            power=model.total_power(weights * areas),
            borders=_near_borders(model, good),
            covered=covered,
            noise_ratios=_noise_ratios(
                model, good * variances * weights[:, None, None], weights * areas, covered
            ),
        )
        for t in range(stack.num_exposures):
            predictor.numerator.add_(predictor._own(t, predictor._predict(t)))
        return predictor

    def predict(self, exposure: int) -> Prediction:
        """Predict an exposure from the others.

        Parameters
        ----------
        exposure
            Its index.

        Returns
        -------
        prediction : `Prediction`
            The prediction.
        """
        model, weights = self.model, self.data_weights * self.areas
        everything = self._predict(exposure)
        otf, total = model.mean_otfs[exposure], weights.sum()
        inverse, others = model.inverse_target_power, total - weights[exposure]
        rest = self.power - weights[exposure] * model.power(exposure)
        gain = 1.0 / (rest + _STRENGTH * others * inverse)
        withheld = 1.0 - gain * rest
        penalised = self.power + _STRENGTH * total * inverse
        change = gain * (1.0 + withheld) * (self.numerator - self._own(exposure, everything))
        change -= (others / total * gain) ** 2 * (2.0 * penalised - self.power) * self.numerator
        fewer = 1.0 + model.embed(1.0 / self.covered[exposure] - 1.0)
        change = model.transform(model.inverse_transform(change) * fewer)
        correction = self._observe((change * otf)[None], exposure)
        light = everything + correction
        noise = model.power(exposure) * gain**2 * rest * (1.0 + withheld) ** 2
        variance = model.fold_transform(noise) * self.areas[exposure] ** 2
        share = model.fold_transform(noise * self._smoothing()) / model.fold_transform(noise)
        psf = self.stack.psfs[exposure].mean(dim=(0, 1))
        moment = 1.0 / (4.0 * math.pi * float(psf.square().sum()))
        seen = (model.transform(self.latent) + change) * otf
        structure, templates = self._templates(seen, withheld**2, exposure, moment, float(variance.sqrt()))
        fwhm = math.sqrt(moment / float(self.areas[exposure])) / fwhm_to_sigma(1.0)
        variances = variance * self.noise_ratios[exposure][None]
        most = _BORDER_LIGHT * light.abs() + _BORDER_NOISE * variances.sqrt()
        correction = torch.nn.functional.max_pool2d(correction.abs(), 3, stride=1, padding=1)
        border = self.borders[exposure] * torch.minimum(correction, most)
        return Prediction(light, structure, templates, border, variances, float(share), fwhm)

    def _templates(
        self, spectrum: torch.Tensor, withheld: torch.Tensor, exposure: int, moment: float, sigma: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return structure, (1, h, w), and templates, (k, h, w)."""
        model, options = self.model, self.options
        light = model.inverse_transform(spectrum)
        radius = max(1, round(_BASE_WIDTHS * math.sqrt(moment) / fwhm_to_sigma(1.0)))
        base = _dilate(-_dilate(-light, radius), radius)
        structure = (light - base - _LEAST_STRUCTURE * sigma).clamp_(min=0.0)
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

    def _frequencies(self) -> tuple[torch.Tensor, torch.Tensor]:
        height, width = self.model.latent_shape
        device = self.good.device
        ky = 2.0 * math.pi * torch.fft.fftfreq(height, device=device)[:, None]
        return ky, 2.0 * math.pi * torch.fft.rfftfreq(width, device=device)

    def _smoothing(self) -> torch.Tensor:
        """Return the power of the smoothing of trails."""
        ky, kx = self._frequencies()
        return torch.exp(-(fwhm_to_sigma(TRAIL_FWHM) ** 2) * (ky**2 + kx**2))

    def _predict(self, exposure: int) -> torch.Tensor:
        """Predict an exposure from all, (1, h, w)."""
        return self.model.predict(self.latent, self._index(exposure))

    def _observe(self, spectra: torch.Tensor, exposure: int) -> torch.Tensor:
        """Sample transforms of images on an exposure, (1, h, w)."""
        images = self.model.inverse_transform(self.model.filtered(spectra))
        return self.model.sampling.observe(images, self._index(exposure))

    def _own(self, exposure: int, prediction: torch.Tensor) -> torch.Tensor:
        """Return what the residuals of an exposure add to the numerator."""
        # Pixels without data then count as agreeing with the prediction,
        # margins included.
        residual = torch.where(self.good[exposure], self.stack.images[exposure] - prediction, 0.0)
        image = self.model.sampling.adjoint(residual, self._index(exposure))[0]
        seen = self.model.filtered(self.model.transform(image))
        return self.data_weights[exposure] * self.model.mean_otfs[exposure].conj() * seen

    def _index(self, exposure: int) -> torch.Tensor:
        return torch.tensor([exposure], device=self.good.device)


def _near_borders(model: ForwardModel, good: torch.Tensor) -> torch.Tensor:
    """Return whether all data end near a pixel, (n, h, w), 0 or 1."""
    covered = model.sampling.mean(good.to(torch.float32)).sum(dim=0) > _LEAST_COVERAGE
    ends = 1.0 - model.embed(covered.to(torch.float32))
    near = model.crop(_dilate(ends, round(_BORDER * model.target_fwhm)))
    return model.sampling.look_up(near.expand(len(good), -1, -1))


def _covered_by_others(model: ForwardModel, good: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Return how much of the weight of the others is there, (n, H, W)."""
    present = model.sampling.mean(good.to(shares.dtype)) * shares[:, None, None]
    others = (shares.sum() - shares).clamp(min=1e-30)[:, None, None]
    return ((present.sum(dim=0) - present) / others).clamp(min=_LEAST_COVERAGE)


def _noise_ratios(
    model: ForwardModel, weighted: torch.Tensor, shares: torch.Tensor, covered: torch.Tensor
) -> torch.Tensor:
    """Return the variance of predictions over that of typical noise.

    It follows the noise of the others and how many of them are there; shape
    (n, h, w).
    """
    noise = model.sampling.mean(weighted) * shares[:, None, None]
    others = (shares.sum() - shares).clamp(min=1e-30)[:, None, None]
    return model.sampling.look_up((noise.sum(dim=0) - noise).clamp(min=0.0) / others / covered**2)


def _dilate(image: torch.Tensor, radius: int) -> torch.Tensor:
    """Return the largest value in a square around each pixel, (H, W)."""
    size = 2 * radius + 1
    rows = torch.nn.functional.max_pool2d(image[None], (size, 1), stride=1, padding=(radius, 0))
    return torch.nn.functional.max_pool2d(rows, (1, size), stride=1, padding=(0, radius))[0]


def _mean_areas(model: ForwardModel, stack: ExposureStack) -> torch.Tensor:
    """Return the mean area of the pixels of each exposure, (n,)."""
    area = model.sampling.area
    if not area.ndim:
        return area.expand(stack.num_exposures)
    number = (area > 0).sum(dim=(1, 2)).clamp(min=1)
    return area.sum(dim=(1, 2)) / number
