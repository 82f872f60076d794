# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What detectors record of the light of a scene, and what they miss."""

from __future__ import annotations

__all__ = ()

import dataclasses
import math

import numpy as np
import numpy.typing as npt
from astropy.stats import gaussian_fwhm_to_sigma

from lsst.astroclearnet.simulation import (
    GAIN,
    READ_NOISE,
    ArtefactOptions,
    add_cosmic_rays,
    bad_columns,
    bleed,
    interpolate_rows,
    trail_profile,
)

from ._exposures import Conditions

type Array = npt.NDArray[np.float64]
type Mask = npt.NDArray[np.bool_]

_TRAIL_PEAK = 5.0


@dataclasses.dataclass(frozen=True)
class Recorded:
    """What a detector recorded.

    Attributes
    ----------
    image, variance
        Exposure and its variance plane, shape (H, W), in nJy and nJy^2.
    good
        Pixels that are not flagged, shape (H, W).
    true_variance
        Variance of the noise, shape (H, W), in nJy^2.
    cosmic_rays, trail
        Light of unflagged cosmic rays and of the trail on good pixels, shape
        (H, W), in nJy.
    """

    image: Array
    variance: Array
    good: Mask
    true_variance: Array
    cosmic_rays: Array
    trail: Array


def missing_pixels(shape: tuple[int, int], num_exposures: int, rng: np.random.Generator) -> Mask:
    """Draw where exposures miss the grid: one has an edge, one a chip gap.

    Parameters
    ----------
    shape
        Height and width of the grid.
    num_exposures
        Number of exposures; a single one misses nothing.
    rng
        Random numbers.

    Returns
    -------
    missing : `numpy.ndarray`
        Shape (n, H, W).
    """
    height, width = shape
    missing = np.zeros((num_exposures, height, width), dtype=bool)
    with_edge, with_gap = (*rng.permutation(num_exposures)[:2], 0)[:2]
    edge = int(width * rng.uniform(0.3, 0.7))
    gap = int(height * rng.uniform(0.1, 0.8))
    gap_width = int(rng.integers(12, 21))
    if num_exposures > 1:
        missing[with_edge, :, :edge] = True
        missing[with_gap, gap : gap + gap_width] = True
    return missing


def record(
    light: Array,
    conditions: Conditions,
    missing: Mask,
    options: ArtefactOptions,
    rng: np.random.Generator,
    *,
    has_trail: bool,
) -> Recorded:
    """Record an exposure.

    Flagged pixels are interpolated along rows.  The variance plane is that of
    a pipeline: the recorded electrons, noise and all, plus read noise.

    Parameters
    ----------
    light
        Expected light of all sources in nJy, shape (H, W).
    conditions
        Conditions of the exposure.
    missing
        Pixels beside the detector, shape (H, W).
    options
        Noise and defects.
    rng
        Random numbers.
    has_trail
        Whether a satellite crosses.

    Returns
    -------
    recorded : `Recorded`
        The exposure.
    """
    sky, per_njy = conditions.sky, conditions.per_njy
    trail = _trail(light.shape, conditions, rng) if has_trail else np.zeros_like(light)
    expected = np.clip(light * per_njy, 0.0, None) + sky
    electrons = expected + trail
    if options.noise:
        electrons = rng.poisson(electrons).astype(float)
    rays = np.zeros_like(light)
    flagged = add_cosmic_rays(rays, options, rng)
    electrons += rays
    unflagged = np.where(flagged, 0.0, rays)
    if options.saturation:
        flagged |= bleed(electrons)
    flagged |= bad_columns(light.shape, options.bad_columns, rng)
    if options.noise:
        electrons += rng.normal(0.0, READ_NOISE, size=electrons.shape)
        electrons = np.round(electrons / GAIN) * GAIN
    interpolate_rows(electrons, flagged)
    electrons[missing] = sky
    good = ~(flagged | missing)
    return Recorded(
        image=(electrons - sky) / per_njy,
        variance=(np.clip(electrons, 1.0, None) + READ_NOISE**2) / per_njy**2,
        good=good,
        true_variance=(expected + READ_NOISE**2) / per_njy**2,
        cosmic_rays=np.where(good, unflagged, 0.0) / per_njy,
        trail=np.where(good, trail, 0.0) / per_njy,
    )


def _trail(shape: tuple[int, ...], conditions: Conditions, rng: np.random.Generator) -> Array:
    """Draw the electrons of a satellite trail near the middle."""
    height, width = shape
    profile = trail_profile(
        np.arange(width)[np.newaxis, :] - width / 2.0,
        np.arange(height)[:, np.newaxis] - height / 2.0,
        angle=rng.uniform(0.0, math.pi),
        distance=rng.uniform(-0.2, 0.2) * min(shape),
        sigma=conditions.fwhm * gaussian_fwhm_to_sigma,
    )
    return _TRAIL_PEAK * math.sqrt(conditions.sky) * profile
