# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Point sources fitted together: positions of all bands, fluxes of each."""

from __future__ import annotations

__all__ = ("PointSources", "fit_point_sources")

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import pinvh
from scipy.spatial import cKDTree

from ..metrics import correlated_weights, point_source_image
from ._band_images import BandImages

type Array = NDArray[np.float64]

_PRIOR_SIGMA = 0.5
"""Standard deviation in pixels of the positions that are given: those of faint
sources, of which the exposures say less than the denoised image, stay."""

_MAX_STEP, _MAX_SHIFT = 0.5, 1.5
"""Largest shift in pixels in one step, and from the given position: beyond,
the fit has moved to another source."""

_NUM_STEPS = 4
"""Steps of positions: shifts that remain in pairs 2 pixels apart are below a
hundredth of a pixel."""

_MIN_RESOLUTION = 0.99
"""Least diagonal element of the resolution matrix of a source that is
distinguished from its neighbours."""


@dataclasses.dataclass(frozen=True)
class PointSources:
    """Point sources that were fitted to the images of all bands.

    Attributes
    ----------
    x, y
        Positions in pixels, shape (n,).
    covariance
        Covariance of (x, y), shape (n, 2, 2), in pixels^2.
    flux, error
        Fluxes and their standard deviations, those of the positions included,
        shape (bands, n), in the unit of the images; NaN without good pixels,
        and for sources that are inseparable from another.
    is_moved
        Whether positions are fitted, shape (n,); `False` where the fit ran
        away from the given position, which was kept.
    """

    x: Array
    y: Array
    covariance: Array
    flux: Array
    error: Array
    is_moved: NDArray[np.bool_]


@dataclasses.dataclass(frozen=True)
class _Equations:
    """Weighted columns of one box in one band: fluxes, and positions without
    what fluxes take up.
    """

    flux_weights: Array  # (m, k), the transposed is applied to data
    inverse: Array  # (k, k), of the normal matrix of fluxes
    coupling: Array  # (k, 2k), shift of fluxes by a unit shift of positions
    position_weights: Array  # (m, 2k)
    information: Array  # (2k, 2k)
    data: Array  # (m,)
    sigma: Array  # (m,), of the noise of the pixels
    rho: Array | None  # (m, m), its correlation, only for errors
    is_resolved: bool

    def covariance(self, weights: Array) -> Array:
        """Return the covariance of weighted sums of the data."""
        assert self.rho is not None
        scaled = weights * self.sigma[:, np.newaxis]
        return np.asarray(scaled.T @ self.rho @ scaled)


def fit_point_sources(
    bands: Sequence[BandImages], x: ArrayLike, y: ArrayLike, *, refine: bool = True
) -> PointSources:
    """Fit positions, common to all bands, and fluxes of point sources.

    Each source is fitted in boxes of the size of the PSF stamps, together
    with the sources within half of that; the light of others is subtracted.
    Weights are those of `~lsst.astroclearnet.metrics.correlated_weights`
    for noise of one variance (generalised least squares, Aitken 1936, Proc.
    R. Soc. Edinburgh 55, 42), positions are Gauss-Newton steps with a prior
    of 0.5 pixels around those given, and errors follow from the covariance of
    the noise.

    Parameters
    ----------
    bands
        Images of all bands.
    x, y
        Positions of all sources in pixels, shape (n,).
    refine
        Fit the positions?  Otherwise those given are taken as exact.

    Returns
    -------
    sources : `PointSources`
        Positions and fluxes.

    Raises
    ------
    ValueError
        If positions are not finite or differ in number.
    """
    start = np.array([x, y], dtype=float).T.reshape(-1, 2)
    if not np.isfinite(start).all():
        raise ValueError("Positions of sources must be finite.")
    fit = _Fit(bands, start)
    for _ in range(_NUM_STEPS):
        fit.update_fluxes()
        if refine:
            fit.move()
    fit.update_fluxes()
    far = np.hypot(*(fit.position - start).T) > _MAX_SHIFT
    if far.any():
        fit.position[far] = start[far]
        fit.update_fluxes()
    return fit.result(is_moved=refine & ~far, refine=refine)


class _Fit:
    """The state of a fit."""

    def __init__(self, bands: Sequence[BandImages], start: Array) -> None:
        self.bands, self.start, self.position = bands, start, start.copy()
        self.flux = np.zeros((len(bands), len(start)))
        self.residuals = [np.where(band.good, band.image, np.nan).astype(float) for band in bands]
        half = max((band.psf.shape[0] // 2 for band in bands), default=0)
        # Positions move less than what the boxes are wider than stars.
        near = cKDTree(start).query_ball_point(start, half) if len(start) else []
        # The source itself comes first.
        self.near = [np.array([i, *(j for j in sorted(js) if j != i)]) for i, js in enumerate(near)]
        self.order = _by_cell(bands, start)

    def update_fluxes(self) -> None:
        """Fit the fluxes at the positions."""
        self._subtract()
        fluxes = np.zeros_like(self.flux)
        for b, row in enumerate(fluxes):
            for i in self.order:
                if (equations := self._equations(b, i, derivatives=False)) is not None:
                    row[i] = equations.inverse[0] @ (equations.flux_weights.T @ equations.data)
        self.flux = fluxes
        self._subtract()

    def move(self) -> None:
        """Move all positions by one step."""
        steps = np.zeros_like(self.position)
        for i in self.order:
            near = self.near[i]
            information, right = self._prior(near)
            for b in range(len(self.bands)):
                if (equations := self._equations(b, i)) is not None:
                    information += equations.information
                    right += equations.position_weights.T @ equations.data
            steps[i] = np.linalg.solve(information, right)[:2]
        self.position += np.clip(steps, -_MAX_STEP, _MAX_STEP)

    def result(self, *, is_moved: NDArray[np.bool_], refine: bool) -> PointSources:
        """Return the fit with its errors."""
        number = len(self.start)
        error, covariance = np.full_like(self.flux, np.nan), np.zeros((number, 2, 2))
        for i in self.order:
            all_bands = [self._equations(b, i, errors=True) for b in range(len(self.bands))]
            information, _ = self._prior(self.near[i])
            prior = information.copy()
            information += sum(e.information for e in all_bands if e is not None)
            inverse = pinvh(information) if refine else np.zeros_like(information)
            scatter = [
                np.zeros_like(prior) if e is None else e.covariance(e.position_weights) for e in all_bands
            ]
            total = prior + sum(scatter)
            covariance[i] = (inverse @ total @ inverse)[:2, :2]
            for b, equations in enumerate(all_bands):
                if equations is None or not equations.is_resolved:
                    continue
                # The noise of this band acts on its flux twice, directly and
                # through the positions.
                through = -equations.coupling[0] @ inverse
                weights = equations.flux_weights @ equations.inverse[0] + equations.position_weights @ through
                variance = equations.covariance(weights[:, np.newaxis])[0, 0]
                error[b, i] = np.sqrt(variance + through @ (total - scatter[b]) @ through)
        flux = np.where(np.isfinite(error), self.flux, np.nan)
        x, y = self.position.T
        return PointSources(x, y, covariance, flux, error, is_moved)

    def _prior(self, near: NDArray[np.int64]) -> tuple[Array, Array]:
        """Return information and right-hand side of the given positions."""
        offset = (self.start - self.position)[near].ravel()
        return np.eye(offset.size) / _PRIOR_SIGMA**2, offset / _PRIOR_SIGMA**2

    def _subtract(self) -> None:
        """Subtract all sources."""
        for band, flux, residual in zip(self.bands, self.flux, self.residuals, strict=True):
            x, y = self.position.T
            model = point_source_image(band.image.shape, band.psf, x, y, flux)
            residual[:] = np.where(band.good, band.image - model, np.nan)

    def _equations(
        self, b: int, i: int, *, derivatives: bool = True, errors: bool = False
    ) -> _Equations | None:
        """Return the equations of a source and its near neighbours in a band;
        `None` without good pixels.
        """
        band, near = self.bands[b], self.near[i]
        size = band.psf.shape[0]
        corner = np.rint(self.start[i]).astype(int) - size // 2
        residual, sigma, used = _cut(self.residuals[b], band, corner, size)
        profiles, shifts = _columns(band.psf, self.position[near] - corner, size)
        if not used.any() or not np.square(profiles[used, 0]).sum() > 0.5 * np.square(band.psf).sum():
            return None
        flux = self.flux[b, near]
        unit = np.median(sigma[used])
        cell = band.cell_of(*self.start[i])
        is_whole = bool(used.all())
        rho = None if is_whole and not errors else band.correlation_matrix(cell, size)[np.ix_(used, used)]
        if not is_whole:
            residual, sigma, profiles, shifts = residual[used], sigma[used], profiles[used], shifts[used]
        columns = profiles
        if derivatives:
            # A source without light says nothing of its position.
            moved = shifts * np.maximum(flux, 0.0)[:, np.newaxis]
            columns = np.hstack([profiles, moved.reshape(len(profiles), -1)])
        if is_whole:
            weighted = band.weight_matrix(cell, size) @ columns / unit**2
        else:
            assert rho is not None
            weighted = correlated_weights(columns, rho) / unit**2
        k = len(near)
        normal = columns.T @ weighted
        scale = np.sqrt(np.diag(normal)[:k])
        scale = np.where(scale > 0, scale, 1.0)
        inverse = pinvh(normal[:k, :k] / np.outer(scale, scale), rtol=1e-6) / np.outer(scale, scale)
        coupling = inverse @ normal[:k, k:]
        return _Equations(
            flux_weights=weighted[:, :k],
            inverse=inverse,
            coupling=coupling,
            position_weights=weighted[:, k:] - weighted[:, :k] @ coupling,
            information=normal[k:, k:] - normal[k:, :k] @ coupling,
            data=residual + profiles @ flux,
            sigma=sigma,
            rho=rho,
            is_resolved=bool((inverse @ normal[:k, :k])[0, 0] >= _MIN_RESOLUTION),
        )


def _by_cell(bands: Sequence[BandImages], position: Array) -> NDArray[np.int64]:
    """Order sources by their cells, so that correlations are kept."""
    if not bands:
        return np.arange(len(position))
    cells = np.array([bands[0].cell_of(*place) for place in position]).reshape(-1, 2)
    return np.lexsort(cells.T[::-1])


def _cut(residual: Array, band: BandImages, corner: NDArray[np.int64], size: int) -> tuple[Any, Any, Any]:
    """Cut a box, which may be partly off the image, as vectors: residual,
    sigma and whether a pixel is used.
    """
    height, width = residual.shape
    left, top = corner
    rows, columns = slice(max(top, 0), max(top + size, 0)), slice(max(left, 0), max(left + size, 0))
    box, sigma = np.full((size, size), np.nan), np.ones((size, size))
    inside = (
        slice(rows.start - top, min(rows.stop, height) - top),
        slice(columns.start - left, min(columns.stop, width) - left),
    )
    if rows.start < min(rows.stop, height) and columns.start < min(columns.stop, width):
        box[inside] = residual[rows, columns]
        sigma[inside] = np.sqrt(np.where(band.good[rows, columns], band.variance[rows, columns], 1.0))
    return box.ravel(), sigma.ravel(), np.isfinite(box).ravel()


def _columns(psf: Array, position: Array, size: int) -> tuple[Array, Array]:
    """Return PSFs at positions (x, y) in a box, and their derivatives with
    respect to x and y, as columns: (size^2, k) and (size^2, k, 2).
    """
    stamp = psf.shape[0]
    profiles = np.zeros((len(position), 3, size, size))
    whole = np.rint(position).astype(int)
    fraction = position - whole
    ky, kx = 2.0j * np.pi * np.fft.fftfreq(stamp)[:, np.newaxis], 2.0j * np.pi * np.fft.rfftfreq(stamp)
    transform = np.fft.rfft2(psf)
    shifted = transform * np.exp(
        -ky * fraction[:, 1, np.newaxis, np.newaxis] - kx * fraction[:, 0, np.newaxis, np.newaxis]
    )
    stamps = np.fft.irfft2(np.stack([shifted, -kx * shifted, -ky * shifted], axis=1), s=psf.shape)
    for profile, planes, (column, row) in zip(profiles, stamps, whole - stamp // 2, strict=True):
        top, left = max(row, 0), max(column, 0)
        bottom, right = min(row + stamp, size), min(column + stamp, size)
        if top < bottom and left < right:
            part = planes[:, top - row : bottom - row, left - column : right - column]
            profile[:, top:bottom, left:right] = part
    flat = profiles.reshape(len(position), 3, -1)
    return flat[:, 0].T, np.moveaxis(flat[:, 1:], -1, 0)
