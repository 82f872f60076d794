# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What detectors and the sky add to exposures: bleeds, cosmic rays, trails."""

from __future__ import annotations

__all__ = ("add_cosmic_rays", "bad_columns", "bleed", "interpolate_rows", "trail_profile")

import math

import numpy as np
import numpy.typing as npt
from astropy.stats import gaussian_fwhm_to_sigma
from scipy.ndimage import binary_dilation

from ._instrument import FULL_WELL, PIXEL_SCALE, DetectorLayout
from ._options import ArtefactOptions
from ._visits import SimulatedVisit, _sky_electrons

type Array = npt.NDArray[np.float64]
type Mask = npt.NDArray[np.bool_]

# In place of the visit ID, which is larger, in the seeds of exposures.
_BAD_COLUMN_STREAM = 999


def _satellite_trail(visit: SimulatedVisit, layout: DetectorLayout) -> Array:
    """Return the light of a satellite trail on a detector."""
    height, width = layout.bbox.shape
    if visit.trail is None:
        return np.zeros((height, width))
    x = np.arange(width)[np.newaxis, :] + layout.x_offset
    y = np.arange(height)[:, np.newaxis] + layout.y_offset
    sigma = math.hypot(visit.seeing_arcsec * gaussian_fwhm_to_sigma / PIXEL_SCALE, 1.0 / math.sqrt(12.0))
    peak = visit.trail.brightness * math.sqrt(_sky_electrons(visit))
    return peak * trail_profile(x, y, angle=visit.trail.angle, distance=visit.trail.distance, sigma=sigma)


def trail_profile(
    x: npt.ArrayLike, y: npt.ArrayLike, *, angle: float, distance: float, sigma: float
) -> Array:
    """Return the brightness of a straight trail of Gaussian profile.

    Parameters
    ----------
    x, y
        Coordinates in pixels, of shapes that broadcast to each other.
    angle
        Direction of the trail from the x axis in radians.
    distance
        Signed distance of the trail from the origin in pixels.
    sigma
        Standard deviation of its profile in pixels.

    Returns
    -------
    profile : `numpy.ndarray`
        Brightness relative to that of the middle of the trail.
    """
    offset = np.asarray(y) * math.cos(angle) - np.asarray(x) * math.sin(angle) - distance
    return np.asarray(np.exp(-0.5 * (offset / sigma) ** 2))


def add_cosmic_rays(electrons: Array, options: ArtefactOptions, rng: np.random.Generator) -> Mask:
    """Add the tracks of cosmic rays to an image.

    Lengths are exponential with a mean of 6 pixels, charges per pixel
    log-normal about 1500 electrons.

    Parameters
    ----------
    electrons
        Image of shape (H, W) to add to.
    options
        Number of cosmic rays and the fraction that is flagged.
    rng
        Random numbers.

    Returns
    -------
    flagged : `numpy.ndarray`
        Pixels of the tracks that were found, of shape (H, W).
    """
    height, width = electrons.shape
    flagged = np.zeros(electrons.shape, dtype=bool)
    steps_per_pixel = 4
    for _ in range(rng.poisson(options.cosmic_rays * electrons.size / 1e5)):
        x, y = rng.uniform(0.0, width), rng.uniform(0.0, height)
        angle = rng.uniform(0.0, 2.0 * math.pi)
        length = 1.0 + rng.exponential(6.0)
        charge = rng.lognormal(math.log(1500.0), 0.8)
        is_flagged = rng.uniform() < options.flagged_fraction
        step = np.arange(0.0, length, 1.0 / steps_per_pixel)
        columns = np.floor(x + step * math.cos(angle)).astype(int)
        rows = np.floor(y + step * math.sin(angle)).astype(int)
        inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
        pixels, steps = np.unique(rows[inside] * width + columns[inside], return_counts=True)
        track = np.divmod(pixels, width)
        electrons[track] += steps * (charge / steps_per_pixel)
        flagged[track] |= is_flagged
    return flagged


def bleed(electrons: Array) -> Mask:
    """Clip an image at full well; the excess fills pixels along columns.

    The charge of each saturated run of a column spreads to both of its ends
    alike, until every pixel it reaches is full. Charge that reaches the edge
    of the detector is lost.

    Parameters
    ----------
    electrons
        Image of shape (H, W), changed in place.

    Returns
    -------
    saturated : `numpy.ndarray`
        Pixels that are full and their eight neighbours, of shape (H, W): like
        the Science Pipelines, grown by one pixel, so that the partly filled
        ends of the trails are flagged.
    """
    for column in np.flatnonzero(np.any(electrons > FULL_WELL, axis=0)):
        values = electrons[:, column]
        excess = np.clip(values - FULL_WELL, 0.0, None)
        np.minimum(values, FULL_WELL, out=values)
        full = np.flatnonzero(excess)
        for direction in (1, -1):
            carried, remaining, row = 0.0, list(full[::-direction]), 0
            while remaining or carried:
                if not carried:
                    row = remaining[-1]
                if not 0 <= row < len(values):
                    break
                if remaining and row == remaining[-1]:
                    carried += 0.5 * excess[remaining.pop()]
                room = min(FULL_WELL - values[row], carried)
                values[row] += room
                carried -= room
                row += direction
    return np.asarray(binary_dilation(electrons >= FULL_WELL, structure=np.ones((3, 3))))


def _bad_column_mask(layout: DetectorLayout, number: int, seed: int) -> Mask:
    """Return the bad columns of a detector, the same in every visit."""
    rng = np.random.default_rng([seed, _BAD_COLUMN_STREAM, layout.detector])
    return bad_columns(layout.bbox.shape, number, rng)


def bad_columns(shape: tuple[int, ...], number: int, rng: np.random.Generator) -> Mask:
    """Draw the bad columns of an image.

    Parameters
    ----------
    shape
        Height and width of the image in pixels.
    number
        How many columns are bad.
    rng
        Random numbers.

    Returns
    -------
    bad : `numpy.ndarray`
        Bad pixels, of shape (H, W): columns from a random row to the top.
    """
    height, width = shape
    bad = np.zeros((height, width), dtype=bool)
    for column in rng.integers(0, width, size=number):
        bad[rng.integers(0, height) :, column] = True
    return bad


def interpolate_rows(values: Array, bad: Mask) -> None:
    """Replace bad pixels by linear interpolation along rows.

    Parameters
    ----------
    values
        Image of shape (H, W), changed in place.
    bad
        Pixels to replace, of shape (H, W); a row that is bad throughout is
        left as it is.
    """
    columns = np.arange(values.shape[1])
    for row in np.flatnonzero(bad.any(axis=1) & ~bad.all(axis=1)):
        good = ~bad[row]
        values[row, bad[row]] = np.interp(columns[bad[row]], columns[good], values[row, good])
