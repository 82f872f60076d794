# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Fluxes of the same stars in two images, and their growth with radius."""

from __future__ import annotations

__all__ = ("FluxRatio", "curve_of_growth", "flux_ratio")

import dataclasses
from typing import Any

import numpy as np
import sep
from astropy.stats import mad_std
from numpy.typing import ArrayLike, NDArray

_MEDIAN_ERROR = np.sqrt(np.pi / 2.0)

_MIN_STARS = 3
"""Number of stars from which on their scatter says something."""


@dataclasses.dataclass(frozen=True)
class FluxRatio:
    """Fluxes of stars in an image relative to those in another.

    Attributes
    ----------
    offset
        Median of the ratio of the fluxes, minus one.
    error
        Standard deviation of ``offset``, from the scatter of the stars.
    scatter
        Robust standard deviation of the ratio.
    num_stars
        Number of stars with a flux in both.
    """

    offset: float
    error: float
    scatter: float
    num_stars: int

    @property
    def significance(self) -> float:
        """Offset in units of its error (`float`)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(np.abs(self.offset) / np.float64(self.error))


def flux_ratio(flux: ArrayLike, reference: ArrayLike) -> FluxRatio:
    """Compare the fluxes of stars in two images.

    Parameters
    ----------
    flux, reference
        Fluxes of the same stars, shape (n,); those that are not finite or not
        positive in either are left out.

    Returns
    -------
    ratio : `FluxRatio`
        The comparison; NaN with fewer than three stars.
    """
    one, other = np.asarray(flux, dtype=float), np.asarray(reference, dtype=float)
    usable = np.isfinite(one) & np.isfinite(other) & (one > 0) & (other > 0)
    number = int(usable.sum())
    if number < _MIN_STARS:
        return FluxRatio(np.nan, np.nan, np.nan, number)
    ratio = one[usable] / other[usable]
    scatter = float(mad_std(ratio))
    return FluxRatio(
        float(np.median(ratio) - 1.0), float(_MEDIAN_ERROR * scatter / np.sqrt(number)), scatter, number
    )


def curve_of_growth(
    image: NDArray[Any], x: ArrayLike, y: ArrayLike, radii: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the light of stars within growing apertures.

    Parameters
    ----------
    image
        Background-subtracted image, shape (H, W); NaN where not to be used.
    x, y
        Positions of the stars in pixels, shape (n,).
    radii
        Radii in pixels, shape (k,), ascending.

    Returns
    -------
    growth : `numpy.ndarray`
        Shape (k,), median over the stars of the flux within each radius,
        relative to that within the largest; NaN without stars.
    error : `numpy.ndarray`
        Shape (k,), standard deviation of the median, from the scatter of the
        stars; NaN with fewer than three.
    """
    data = np.ascontiguousarray(np.nan_to_num(np.asarray(image, dtype=float)))
    bad = np.ascontiguousarray(~np.isfinite(image))
    x, y, radii = (np.asarray(values, dtype=float) for values in (x, y, radii))
    empty = np.full(radii.size, np.nan)
    if not x.size:
        return empty, empty
    fluxes = np.array([sep.sum_circle(data, x, y, radius, mask=bad)[0] for radius in radii])
    positive = fluxes[-1] > 0
    if not positive.any():
        return empty, empty
    growth = fluxes[:, positive] / fluxes[-1, positive]
    number = growth.shape[1]
    error = _MEDIAN_ERROR * mad_std(growth, axis=1) / np.sqrt(number) if number >= _MIN_STARS else empty
    return np.median(growth, axis=1), np.asarray(error)
