# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Fluxes, apertures and moments of all sources in one band."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..metrics import point_source_image
from ._band_images import BandImages
from ._point_sources import PointSources
from ._profiles import Moments, aperture_weights, fit_moments

type Array = NDArray[np.float64]

_MIN_SHAPE_RATIO = 5.0
"""Signal-to-noise ratio below which adaptive moments do not converge, or to
those of the noise."""


def measure_band(
    band: BandImages, sources: PointSources, number: int, radii: Sequence[int]
) -> dict[str, NDArray[np.float32] | NDArray[np.bool_]]:
    """Measure all sources in one band.

    Parameters
    ----------
    band
        Images of the band.
    sources
        Sources that were fitted to all bands.
    number
        Which of those the band is.
    radii
        Radii of apertures in pixels.

    Returns
    -------
    columns : `dict` [`str`, `numpy.ndarray`]
        Values by the names of `object_columns` without their prefix, shape
        (n,).
    """
    flux, error = sources.flux[number], sources.error[number]
    columns = {"psfFlux": flux, "psfFluxErr": error}
    places = list(zip(sources.x.tolist(), sources.y.tolist(), strict=True))
    cutter = _Cutter.build(band, sources, np.nan_to_num(flux), radii)
    start = _psf_moments(band.psf)
    # Cell by cell, so that correlations are kept.
    for i in sorted(range(len(places)), key=lambda i: band.cell_of(*places[i])):
        source = cutter.cut(i, *places[i])
        if source is None:
            continue
        values: dict[str, float] = {}
        for radius in radii:
            weights = aperture_weights(cutter.size, source.center, radius)
            used = weights > 0
            if np.isfinite(source.data.ravel()[used]).all():
                values[f"ap{radius:02d}Flux"] = float(weights[used] @ source.data.ravel()[used])
                values[f"ap{radius:02d}FluxErr"] = source.error(weights)
        if flux[i] >= _MIN_SHAPE_RATIO * error[i]:
            moments = fit_moments(source.data, source.center, start)
            if moments is not None:
                values |= _moment_values(source, moments)
        for name, value in values.items():
            columns.setdefault(name, np.full(len(places), np.nan))[i] = value
    empty = np.full(len(places), np.nan)
    flags = {"psfFlux": "psfFlux_flag", "gaussFlux": "shape_flag"}
    flags |= {f"ap{radius:02d}Flux": f"ap{radius:02d}Flux_flag" for radius in radii}
    return {
        **{name: values.astype(np.float32) for name, values in columns.items()},
        **{flag: ~np.isfinite(columns.get(name, empty)) for name, flag in flags.items()},
    }


@dataclasses.dataclass(frozen=True)
class _Source:
    """One source without the others."""

    data: Array  # (S, S), NaN where bad
    center: tuple[float, float]
    profile: Array  # (S, S), the PSF
    sigma: Array  # (S * S,)
    rho: Array  # (S * S, S * S)

    def error(self, weights: Array) -> float:
        """Return the standard deviation of a weighted sum of the data."""
        scaled = weights * self.sigma
        return math.sqrt(max(float(scaled @ self.rho @ scaled), 0.0))


@dataclasses.dataclass(frozen=True)
class _Cutter:
    """An image without sources, of which each is put back alone."""

    band: BandImages
    flux: Array
    residual: Array  # padded by half of a box
    sigma: Array
    half: int

    @classmethod
    def build(cls, band: BandImages, sources: PointSources, flux: Array, radii: Sequence[int]) -> _Cutter:
        """Subtract all sources."""
        half = max(int(np.ceil(max(radii, default=0))) + 1, band.psf.shape[0] // 2)
        model = point_source_image(band.image.shape, band.psf, sources.x, sources.y, flux)
        residual = np.where(band.good, band.image - model, np.nan)
        sigma = np.sqrt(np.where(band.good, band.variance, 0.0))
        return cls(band, flux, np.pad(residual, half, constant_values=np.nan), np.pad(sigma, half), half)

    @property
    def size(self) -> int:
        """Side of a box in pixels."""
        return 2 * self.half + 1

    def cut(self, i: int, x: float, y: float) -> _Source | None:
        """Return a source; `None` for one off the image."""
        column, row = round(x), round(y)
        height, width = self.band.image.shape
        if not (0 <= column < width and 0 <= row < height):
            return None
        center = (x - column + self.half, y - row + self.half)
        size = self.size
        profile = point_source_image((size, size), self.band.psf, [center[0]], [center[1]], [1.0])
        box = (slice(row, row + size), slice(column, column + size))
        return _Source(
            data=self.residual[box] + self.flux[i] * profile,
            center=center,
            profile=profile,
            sigma=self.sigma[box].ravel(),
            rho=self.band.correlation_matrix(self.band.cell_of(x, y), size),
        )


def _psf_moments(psf: Array) -> tuple[float, float, float]:
    """Return the moments to begin with: those of the PSF."""
    middle = 0.5 * (psf.shape[0] - 1)
    found = fit_moments(psf, (middle, middle), (2.0, 2.0, 0.0))
    return (2.0, 2.0, 0.0) if found is None else (found.xx, found.yy, found.xy)


def _moment_values(source: _Source, moments: Moments) -> dict[str, float]:
    """Return the values of columns that come from moments."""
    psf = source.profile.ravel()
    of_psf = psf / (psf @ psf)
    point = float(of_psf @ source.data.ravel())
    ratio = point / moments.flux
    return {
        "gaussFlux": moments.flux,
        "ixx": moments.xx,
        "iyy": moments.yy,
        "ixy": moments.xy,
        "gaussFluxErr": source.error(moments.weights[0]),
        "ixxErr": source.error(moments.weights[3]),
        "iyyErr": source.error(moments.weights[4]),
        "ixyErr": source.error(moments.weights[5]),
        "extendedness": 1.0 - ratio,
        "extendednessErr": source.error((ratio * moments.weights[0] - of_psf) / moments.flux),
    }
