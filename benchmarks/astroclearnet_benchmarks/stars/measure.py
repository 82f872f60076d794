# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Errors around bright stars, ring by ring."""

from __future__ import annotations

__all__ = ("measure_field",)

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt, label

from lsst.astroclearnet.core import RestoreOptions, StackResult, StarOptions, restore

from .fields import BrightStar, StarField

type Array = npt.NDArray[np.float64]
type Mask = npt.NDArray[np.bool_]

TARGET = 3.0
RINGS = tuple((float(r), r + 2.0) for r in range(2, 24, 2))
"""Distances in pixels from the flagged core, or from the centre of a star
without one."""

_MIDDLE = (5.0, 25.0)
_FAR = 40.0
_OTHERS = 25.0
"""Distance in pixels within which pixels belong to another bright star."""

_MATCH = 2.0


def measure_field(field: StarField, psfs: str, *, with_stars: bool, seed: int = 0) -> dict[str, Any]:
    """Restore a field and measure errors around its bright stars.

    Parameters
    ----------
    field
        The field.
    psfs
        ``exact`` or ``fitted``.
    with_stars
        Whether stars are taken out and put back.
    seed
        Seed of the restoration.
    """
    given = field.psfs if psfs == "exact" else field.fitted_psfs
    options = RestoreOptions(stars=StarOptions(enabled=with_stars))
    result = restore(
        field.images, field.variances, field.good, given, target_fwhm=TARGET, options=options, seed=seed
    )
    truth = field.truth(TARGET)
    planes = {
        "image": (result.image - truth, np.sqrt(result.variance)),
        "linear_image": (result.linear_image - truth, np.sqrt(result.linear_variance)),
    }
    sigma = np.sqrt(result.linear_variance)
    flagged = ~field.good.any(axis=0)
    stars = []
    for number, star in enumerate(field.stars):
        distance, own = _distances(star, flagged)
        others = [one for k, one in enumerate(field.stars) if k != number]
        clear = ~flagged & np.all([_radius(one, truth.shape) > _OTHERS for one in others], axis=0)
        rings = {f"{low:g}": (distance > low) & (distance <= high) & clear for low, high in RINGS}
        rings["middle"] = (distance > _MIDDLE[0]) & (distance <= _MIDDLE[1]) & clear
        record: dict[str, Any] = {
            "magnitude": star.magnitude,
            "saturated": int(star.saturated.sum()),
            "flux": star.flux,
            "core": int(own.sum()),
        } | _fitted(star, result)
        for name, (error, declared) in planes.items():
            record[name] = {
                ring: _moments(error[chosen], sigma[chosen], declared[chosen])
                for ring, chosen in rings.items()
            }
            if own.any():
                record[name]["core"] = _moments(error[own], sigma[own], declared[own])
        stars.append(record)
    far = ~flagged & np.all([_radius(star, truth.shape) > _FAR for star in field.stars], axis=0)
    return {
        "stars": stars,
        "far": {
            name: _moments(error[far], np.full(int(far.sum()), field.sky_sigma), declared[far])
            for name, (error, declared) in planes.items()
        },
        "chi_square": float(np.nanmax(result.chi_square)),
        "false": len(result.star_flux) - sum(star["found"] for star in stars),
    }


def _radius(star: BrightStar, shape: tuple[int, ...]) -> Array:
    rows, columns = np.indices(shape)
    return np.asarray(np.hypot(rows - star.y, columns - star.x))


def _distances(star: BrightStar, flagged: Mask) -> tuple[Array, Mask]:
    """Return distances from the flagged core or, without one, the centre, and
    the core with the trail of saturated pixels.
    """
    radius = _radius(star, flagged.shape)
    groups, _ = label(flagged, np.ones((3, 3)))
    near = np.unique(groups[(radius < 4.0) & flagged])
    own = np.isin(groups, near[near > 0])
    return (np.asarray(distance_transform_edt(~own)) if own.any() else radius), own


def _moments(error: Array, sigma: Array, declared: Array) -> list[float]:
    """Return number of pixels, mean error in sigma, and mean square of the
    error in declared sigmas.
    """
    if not error.size:
        return [0.0, 0.0, 0.0]
    return [float(error.size), float(np.mean(error / sigma)), float(np.mean((error / declared) ** 2))]


def _fitted(star: BrightStar, result: StackResult) -> dict[str, Any]:
    """Return what was fitted to a star."""
    for place, flux, sigma in zip(
        result.star_position, result.star_flux, result.star_flux_sigma, strict=True
    ):
        if np.hypot(place[0] - star.y, place[1] - star.x) < _MATCH:
            return {"found": True, "fitted_flux": float(flux), "flux_sigma": float(sigma)}
    return {"found": False}
