# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
"""Photometry of the sources of a tile in each exposure, at one resolution."""

from __future__ import annotations

__all__ = ("MatchedSources", "measure_sources")

import dataclasses
import math
from collections.abc import Sequence

import torch

from ._forward_model import ForwardModel
from ._kernels import fwhm_to_sigma, kernel_fwhm
from ._linear import LinearEstimator
from ._parts import SettledPart

_PILOT_STRENGTH = 1e-3
"""Strength of the estimate that stands in for pixels that are not good."""

_PILOT_TOLERANCE = 0.03
"""Its error: it matters where pixels are not good alone."""

_SIZES = (1.3, 2.0)
"""Standard deviations of stars as they are measured, over that of the widest
PSF.  The first is close to what makes the least noise; the more the second
differs, the less an error of a PSF passes for one of the flux scale."""

_SKY_SIZE = 4.0
"""Standard deviation, over that of the widest PSF, of the surroundings that
are subtracted."""

_WIDEST = 1.6
"""Width over the median of all beyond which a PSF does not set the resolution
at which all are compared."""

_FLOOR = 1e-6
"""Power of a PSF beside the target PSF below which it is not undone."""

_MISSING = 0.05
"""Share of the noise of a measurement that may be that of pixels which are not
good; the light that they lose is then less than a tenth."""

_SIGNIFICANCE = 10.0
"""Signal-to-noise ratio, in all exposures, of a source that is compared.
Noise that helps to select it then makes less than 1 %."""

_MOST_SOURCES = 500
"""Number of sources of a tile; more teach nothing new."""

_SEARCH = 12
"""Largest shift in pixels that is looked for."""

_REFINEMENTS = 4
"""Number of times that a shift is refined; the last ones are below 0.05."""

_REFINED = 0.05
"""Step in pixels that needs no other: what is left is linear."""

_CLEARLY = 1.1
"""Similarity, over that without a shift, from which on a shift is believed."""

_LEAST_EXPOSURES = 2
"""Of one there is nothing to compare."""

_ROWS = 64
"""Rows of which a median is taken at a time."""

_STAR_TOLERANCE = 0.1
"""Relative error of the ratio of the two fluxes of a star."""

_SHARPEST = 1.6
"""Factor by which a source may be sharper than a star."""

_CROWDED = 4.0
"""Light around a source over its own from which on it is that of another."""

_ISOLATION = 1.5
"""Light around a star, as the star would make it, that is still its own."""


@dataclasses.dataclass(frozen=True)
class MatchedSources:
    """Sources as all exposures show them, brought to one PSF.

    Every figure is the same linear function of the light in all exposures:
    those that agree have equal expectations, whatever the source is and
    whatever selected it.

    Attributes
    ----------
    fluxes
        Shape (2, n, N), double, light within a narrow and a wide Gaussian,
        less that of the surroundings.
    gradients
        Shape (2, n, N), its derivatives along rows and columns, of the
        narrow one.
    covariances
        Shape (4, n, N), variances of the two fluxes, their covariance, and
        the variance of a gradient.
    offsets
        Shape (2, n), shifts in pixels at which exposures were measured.
    valid
        Shape (n, N), bool, whether an exposure shows a source whole.
    curvatures
        Shape (2, N), Laplacians of the fluxes over the fluxes.
    hessians
        Shape (3, N), second derivatives of the narrow flux (along rows,
        mixed, along columns), over the flux.
    crowding
        Shape (N,), light around a source over its own, at least 1.
    is_star
        Shape (N,), bool, whether a source is as narrow as a star and alone.
    psf_variances
        Shape (n,), variances of the PSFs along an axis, in square pixels.
    """

    fluxes: torch.Tensor
    gradients: torch.Tensor
    covariances: torch.Tensor
    offsets: torch.Tensor
    valid: torch.Tensor
    curvatures: torch.Tensor
    hessians: torch.Tensor
    crowding: torch.Tensor
    is_star: torch.Tensor
    psf_variances: torch.Tensor

    def select(self, chosen: torch.Tensor) -> MatchedSources:
        """Return some of the sources of a tile.

        Parameters
        ----------
        chosen
            Shape (N,), bool.

        Returns
        -------
        sources : `MatchedSources`
            These sources.
        """
        whole = ("offsets", "psf_variances")
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return MatchedSources(**{k: v if k in whole else v[..., chosen] for k, v in values.items()})


class _Matcher:
    """Brings exposures to one PSF and measures them.

    With the PSF f(t), a functional psi of the light of the sky is

        psi * R + (psi / f(t)) * (y(t) - k(t) * R)

    for any image R: it cancels but where pixels are not good.
    """

    def __init__(self, settled: SettledPart) -> None:
        part = settled.part
        self.stack, self.model = part.stack, part.model
        # Where pixels were rejected it may be the exposure that is wrong.
        self.good = self.stack.good | settled.rejected
        self.variances = settled.variances
        widths = [kernel_fwhm(psf.mean(dim=(0, 1)).cpu().numpy()) for psf in self.stack.psfs]
        self.psf_sigma = fwhm_to_sigma(1.0) * torch.tensor(widths, device=self.good.device)
        used = self.psf_sigma[self.good.any(dim=(1, 2))]
        self.sigma = float(used[used <= _WIDEST * used.median()].max())
        ky, kx = _frequencies(self.model, self.good.device)
        self.ky, self.kx, self.power = ky, kx, ky**2 + kx**2
        sky = self._gaussian(_SKY_SIZE)
        self.filters = [self._gaussian(size) - sky for size in _SIZES]
        self.inverse = self.model.target_transform * self.model.inverse_target_power
        estimator = LinearEstimator(self.model, self.stack.good / settled.variances)
        latent = estimator.solve(self.stack.images, _PILOT_STRENGTH, tolerance=_PILOT_TOLERANCE)
        self.latent = latent
        self.transform = self.model.transform(latent)

    def _gaussian(self, size: float) -> torch.Tensor:
        return torch.exp(-2.0 * (math.pi * size * self.sigma) ** 2 * self.power)

    def _undo(self, t: int) -> torch.Tensor:
        """Return what brings an exposure to the PSF of the target, inverted."""
        otf = self.model.mean_otfs[t]
        return self.inverse * otf.conj() / (otf.abs() ** 2 + _FLOOR)

    def spectrum(self, t: int) -> torch.Tensor:
        """Return the transform of the sky as one exposure shows it."""
        index = torch.tensor([t], device=self.good.device)
        residual = self.stack.images[t] - self.model.predict(self.latent, index)[0]
        image = self.model.sampling.adjoint((residual * self.good[t] / self._area(t))[None], index)[0]
        seen = self.model.filtered(self.model.transform(image))
        return self.inverse * self.transform + self._undo(t) * seen

    def noise(self, t: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return variances of the narrow flux, shares of pixels that miss,
        and variances of all figures over that of the narrow flux, (4,).
        """
        index = torch.tensor([t], device=self.good.device)
        kernels = [self.model.filtered(psi * self._undo(t)) for psi in self.filters]
        area = self._area(t)
        inside = self.good[t]
        presence = self.model.embed(self.model.sampling.mean(inside.float()[None], index)[0].clamp(0, 1))
        # Noise of pixels that are not good is taken for that of their
        # surroundings.
        density = self.model.embed(
            self.model.sampling.mean((inside * self.variances[t] / area)[None], index)[0]
        )
        squared = self.model.transform(self.model.inverse_transform(kernels[0]) ** 2)
        total = float(squared[0, 0].real)
        share = self._convolve(squared / total, 1.0 - presence)
        variance = self._convolve(squared, density) / (1.0 - share).clamp(min=_MISSING)
        first, second = (kernel.abs() ** 2 for kernel in kernels)
        energies = torch.stack(
            [
                self.model.fold_transform(one)
                for one in (
                    first,
                    second,
                    (kernels[0] * kernels[1].conj()).real,
                    2.0 * math.pi**2 * first * self.power,
                )
            ]
        )
        # Rounding may leave anything off the exposure.
        floor = torch.finfo(variance.dtype).eps * variance.max().clamp(min=1e-30)
        return variance.clamp(min=float(floor)), share, (energies / energies[0]).double()

    def _area(self, t: int) -> torch.Tensor:
        area = self.model.sampling.area
        area = area[t] if area.ndim else area
        return torch.where(area > 0, area, 1.0)

    def _convolve(self, kernel: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        return self.model.inverse_transform(kernel * self.model.transform(image))

    def image(self, spectrum: torch.Tensor, factor: torch.Tensor | float) -> torch.Tensor:
        """Return the image of a transform after multiplication."""
        return self.model.inverse_transform(spectrum * factor)


@torch.no_grad()
def measure_sources(settled: SettledPart) -> MatchedSources:
    """Measure the sources that a tile owns in all exposures.

    Parameters
    ----------
    settled
        The tile.

    Returns
    -------
    sources : `MatchedSources`
        Figures on the CPU; there may be none.
    """
    matcher = _Matcher(settled)
    number = matcher.stack.num_exposures
    spectra = [matcher.spectrum(t) for t in range(number)]
    maps = [matcher.image(spectrum, matcher.filters[0]) for spectrum in spectra]
    variances, shares, ratios = zip(*(matcher.noise(t) for t in range(number)), strict=True)
    valid = [share < _MISSING for share in shares]
    reference, information = _combine(maps, variances, valid)
    significance = reference * information.sqrt()
    places = _find(matcher, settled, significance, valid)
    scene = _Scene.build(matcher, reference, places)
    known = torch.stack([one[places] for one in valid])
    measured = []
    for t, spectrum in enumerate(spectra):
        start = _coarse_shift(maps[t] * variances[t].rsqrt() * valid[t], significance)
        measured.append(scene.measure(spectrum, start, known[t]))
    offsets, fluxes, gradients = zip(*measured, strict=True)
    noise = [ratio[:, None] * one[places].double() for one, ratio in zip(variances, ratios, strict=True)]
    crowding = (_surroundings(matcher, reference)[places].double() / scene.flux).clamp(min=1.0)
    ratio, curvature = _star_shape(matcher)
    width = scene.wide / scene.flux / ratio
    # What is on the flank of a greater source has no light of its own.
    peaked = (scene.curvatures < 0).all(dim=0) & (scene.curvatures[0] > _SHARPEST * curvature)
    peaked &= (scene.hessians[[0, 2]] < 0).all(dim=0) & (width > 1.0 / _SHARPEST) & (crowding < _CROWDED)
    sources = MatchedSources(
        fluxes=torch.stack(fluxes, dim=1).cpu(),
        gradients=torch.stack(gradients, dim=1).cpu(),
        covariances=torch.stack(noise, dim=1).cpu(),
        offsets=torch.stack(offsets, dim=1).cpu(),
        valid=known.cpu(),
        curvatures=scene.curvatures.cpu(),
        hessians=scene.hessians.cpu(),
        crowding=crowding.cpu(),
        is_star=(((width - 1.0).abs() < _STAR_TOLERANCE) & (crowding < _ISOLATION)).cpu(),
        psf_variances=matcher.psf_sigma.double().cpu() ** 2,
    )
    return sources.select(peaked.cpu())


@dataclasses.dataclass(frozen=True)
class _Scene:
    """The sources of all exposures together, at given places."""

    matcher: _Matcher
    places: tuple[torch.Tensor, torch.Tensor]
    flux: torch.Tensor
    wide: torch.Tensor
    slopes: torch.Tensor
    curvatures: torch.Tensor
    hessians: torch.Tensor

    @classmethod
    def build(
        cls, matcher: _Matcher, reference: torch.Tensor, places: tuple[torch.Tensor, torch.Tensor]
    ) -> _Scene:
        """Measure the reference, (Hl, Wl), and its derivatives."""
        narrow = matcher.model.transform(reference)
        first, second = matcher.filters
        seen = first.abs() > _FLOOR * first.abs().max()
        wide = narrow * torch.where(seen, second / torch.where(seen, first, 1.0), 1.0)
        ky, kx, square = matcher.ky, matcher.kx, -4.0 * math.pi**2

        def at(spectrum: torch.Tensor, factor: torch.Tensor | float = 1.0) -> torch.Tensor:
            return matcher.image(spectrum, factor)[places].double()

        flux, wide_flux = at(narrow), at(wide)
        return cls(
            matcher=matcher,
            places=places,
            flux=flux,
            wide=wide_flux,
            slopes=torch.stack([at(narrow, 2j * math.pi * k) for k in (ky, kx)]) / flux,
            curvatures=torch.stack(
                [at(narrow, square * matcher.power) / flux, at(wide, square * matcher.power) / wide_flux]
            ),
            hessians=torch.stack([at(narrow, square * a * b) for a, b in ((ky, ky), (ky, kx), (kx, kx))])
            / flux,
        )

    def measure(
        self, spectrum: torch.Tensor, start: torch.Tensor, valid: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Measure an exposure where it shows the sources.

        Return its shift, (2,), the fluxes, (2, N), and gradients, (2, N).
        """
        matcher, shift = self.matcher, start
        for remaining in reversed(range(_REFINEMENTS)):
            angle = 2.0 * math.pi * (shift[0] * matcher.ky + shift[1] * matcher.kx)
            moved = spectrum * torch.polar(torch.ones_like(angle), angle)
            fluxes = self._at(moved, matcher.filters)
            slopes = [2j * math.pi * k * matcher.filters[0] for k in (matcher.ky, matcher.kx)]
            gradients = self._at(moved, slopes)
            step = self._step(gradients / fluxes[0], valid & (fluxes[0] > 0))
            if float(step.norm()) < _REFINED or not remaining:
                break
            shift = (shift + step.to(shift)).clamp(-_SEARCH - 1, _SEARCH + 1)
        return shift.double(), fluxes, gradients

    def _at(self, spectrum: torch.Tensor, factors: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack([self.matcher.image(spectrum, factor)[self.places].double() for factor in factors])

    def _step(self, slopes: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Return the median shift of sources from relative gradients."""
        yy, yx, xx = self.hessians
        determinant = yy * xx - yx**2
        change = self.slopes - slopes
        shifts = torch.stack([xx * change[0] - yx * change[1], yy * change[1] - yx * change[0]]) / determinant
        # Maxima alone have a place; others are on the flanks of greater ones.
        use = valid & (yy < 0) & (determinant > 0)
        if not bool(use.any()):
            return torch.zeros(2, dtype=slopes.dtype, device=slopes.device)
        return shifts[:, use].median(dim=1).values.clamp(-2.0, 2.0)


def _frequencies(model: ForwardModel, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    height, width = model.latent_shape
    ky = torch.fft.fftfreq(height, device=device)[:, None]
    kx = torch.fft.rfftfreq(width, device=device)[None, :]
    return ky.expand(-1, width // 2 + 1), kx.expand(height, -1)


def _combine(
    maps: Sequence[torch.Tensor], variances: Sequence[torch.Tensor], valid: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the median of maps, and the sum of their inverse variances.

    A median, so that what a single exposure shows is no source.
    """
    median, information = torch.zeros_like(maps[0]), torch.zeros_like(maps[0])
    for variance, here in zip(variances, valid, strict=True):
        information += here / variance
    for rows in torch.arange(len(median), device=median.device).split(_ROWS):
        here = torch.stack([one[rows] for one in valid])
        values = torch.stack([one[rows] for one in maps]).masked_fill_(~here, torch.inf).sort(dim=0).values
        count = here.sum(dim=0, keepdim=True)
        low, high = ((count - 1).clamp(min=0) // 2), count // 2
        high = torch.minimum(high, (count - 1).clamp(min=0))
        middle = 0.5 * (values.gather(0, low) + values.gather(0, high))
        median[rows] = torch.where(count > 0, middle, 0.0)[0]
    return median, information


def _find(
    matcher: _Matcher, settled: SettledPart, significance: torch.Tensor, valid: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return rows and columns of the sources on the latent grid."""
    radius = max(1, round(matcher.sigma))
    highest = torch.nn.functional.max_pool2d(significance[None], 2 * radius + 1, stride=1, padding=radius)[0]
    inside = torch.zeros(settled.part.tile.shape, device=significance.device)
    inside[settled.part.tile.within] = 1.0
    owned = matcher.model.embed(inside) > 0
    number = sum(one.to(torch.int16) for one in valid)
    peaks = (significance == highest) & (significance > _SIGNIFICANCE) & owned & (number >= _LEAST_EXPOSURES)
    rows, columns = peaks.nonzero(as_tuple=True)
    brightest = significance[rows, columns].argsort(descending=True)[:_MOST_SOURCES]
    return rows[brightest], columns[brightest]


def _coarse_shift(image: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Return the shift of an image in units of its noise, in whole pixels.

    It is zero unless another makes them clearly more similar.
    """
    # No source counts for more than many others.
    one, other = (torch.fft.rfft2(data.clamp(0.0, _SIGNIFICANCE)) for data in (image, reference))
    similarity = torch.fft.irfft2(one * other.conj(), s=image.shape)
    lags = torch.arange(-_SEARCH, _SEARCH + 1, device=image.device)
    near = similarity[lags[:, None], lags]
    best = int(near.argmax())
    if float(near.flatten()[best]) < _CLEARLY * float(near[_SEARCH, _SEARCH]):
        return torch.zeros(2, device=image.device)
    return torch.stack([lags[best // len(lags)], lags[best % len(lags)]]).float()


def _surroundings(matcher: _Matcher, reference: torch.Tensor) -> torch.Tensor:
    """Return the light around each pixel, such that a star has its own flux."""
    transform = matcher.model.transform(reference.clamp(min=0.0))
    broad = matcher.image(transform, matcher._gaussian(_SKY_SIZE))
    return broad * (1.0 + (_SKY_SIZE / _SIZES[0]) ** 2)


def _star_shape(matcher: _Matcher) -> tuple[float, float]:
    """Return the wide over the narrow flux of a star, and its curvature."""
    star = matcher.inverse * matcher.model.target_transform
    fold = matcher.model.fold_transform
    narrow, wide = (float(fold(psi * star)) for psi in matcher.filters)
    bent = float(fold(-4.0 * math.pi**2 * matcher.power * matcher.filters[0] * star))
    return wide / narrow, bent / narrow
