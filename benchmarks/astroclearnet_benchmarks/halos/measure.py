# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Restores fields with and without a halo."""

from __future__ import annotations

__all__ = ("COVERAGES", "IMAGES", "Recovered", "measure_halo")

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lsst.astroclearnet.core import restore

from ..scenes import SceneOptions, simulate_scene

COVERAGES = ("cover the field", "end amid the halo")
IMAGES = ("linear_image", "image")

_TARGET_FWHM = 3.2
_NUM_EXPOSURES = 8
_PEAK = 0.92 / 30.0
"""Brightness of the centre, over the sky noise of an exposure."""

_FWHM = 150.0
_RADIUS, _CENTRE = 150.0, 40.0
"""In pixels of 0.2 arcsec, the last ones those within which light is added."""

_BACKGROUND = 0.3
"""Standard deviation of level and slopes of backgrounds, over that noise and
the field."""


class Recovered(NamedTuple):
    """Light that is found over that of the halo, in all and in its centre."""

    light: float
    centre: float


def measure_halo(seed: int, size: int, coverage: str) -> dict[str, Recovered]:
    """Measure which part of a halo is left in each image.

    Parameters
    ----------
    seed
        Seed of the field.
    size
        Its side in pixels.
    coverage
        What the exposures do, one of `COVERAGES`.
    """
    scene = simulate_scene(
        SceneOptions(seed=seed, kind="field", shape=(size, size), num_exposures=_NUM_EXPOSURES)
    )
    rng = np.random.default_rng((seed, 28))
    noise = float(np.median(np.sqrt(scene.variances)))
    offsets = np.arange(size) - 0.5 * (size - 1)
    y, x = offsets[:, None], offsets[None]
    radius = np.hypot(y, x)
    halo = _PEAK * noise * np.exp(-4.0 * np.log(2.0) * (radius / _FWHM) ** 2)
    planes = [a + b * y / size + c * x / size for a, b, c in rng.normal(size=(_NUM_EXPOSURES, 3))]
    images = scene.images + _BACKGROUND * noise * np.stack(planes)
    good = scene.good
    if coverage == COVERAGES[1]:
        good = good & np.stack([_detector(y, x, rng) for _ in range(_NUM_EXPOSURES)])

    def run(data: npt.NDArray[np.floating]) -> dict[str, npt.NDArray[np.floating]]:
        result = restore(data, scene.variances, good, scene.psfs, target_fwhm=_TARGET_FWHM, device="cpu")
        return {name: getattr(result, name) for name in IMAGES}

    without, with_halo = run(images), run(images + halo)
    found = {}
    for name in IMAGES:
        difference = with_halo[name] - without[name]
        known = np.isfinite(difference)
        inside = known & (radius < _RADIUS), known & (radius < _CENTRE)
        found[name] = Recovered(*(float(difference[use].sum() / halo[use].sum()) for use in inside))
    return found


def _detector(
    y: npt.NDArray[np.floating], x: npt.NDArray[np.floating], rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """Return the pixels of a detector whose edge crosses the halo."""
    angle, distance = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(0.0, 60.0)
    return np.asarray(y * np.sin(angle) + x * np.cos(angle) < distance)
