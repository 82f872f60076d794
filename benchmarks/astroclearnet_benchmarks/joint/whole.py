# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Whole restorations of fields: declared errors, detection, cost."""

from __future__ import annotations

__all__ = ("Whole", "measure_cost", "measure_whole")

import dataclasses
import time
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import maximum_filter
from scipy.spatial import cKDTree

from lsst.astroclearnet.core import (
    BandsResult,
    RestorationResult,
    RestoreOptions,
    restore_bands,
    restore_exposures,
)
from lsst.astroclearnet.core.exposures import StackSource

from ..processes import peak_memory
from .fields import Field, make_field
from .measure import LEVELS

type Array = npt.NDArray[np.float64]

_PURITY = 0.95
_MATCH_RADIUS = 2.5
"""Distance in pixels of a detection from the source that it is."""

_BORDER = 6
_LEAST_RATIO = 2.0
"""Signal-to-noise ratio, in all bands together, of sources that a detection
may be."""

_SOUGHT = (5.0, 10.0)
"""Signal-to-noise ratio, in all bands together, of the sources that
completeness counts."""

DETECTED_ON = ("detection image", "mean of single restorations", "best single restoration")


@dataclasses.dataclass(frozen=True)
class Whole:
    """Figures of a field.

    Attributes
    ----------
    pulls
        Root mean square error over the declared one, by level, of each band
        and of the detection image.
    found
        Completeness at a purity of 95 % by the image that is searched.
    """

    pulls: dict[str, dict[str, float]]
    found: dict[str, float]


def measure_whole(field: Field) -> Whole:
    """Restore all bands of a field on their own and together.

    Parameters
    ----------
    field
        The field.
    """
    single, joint = _restore_single(field), _restore_joint(field)
    truths = {name: band.truth.numpy() for name, band in zip(single, field.bands, strict=True)}
    noises = {name: band.star_noise.numpy() for name, band in zip(single, field.bands, strict=True)}
    pulls = {
        name: _pulls(truths[name], noises[name], result.image, result.variance)
        for name, result in joint.results.items()
    }
    detection = joint.detection
    white = np.sum([weight * truths[name] for name, weight in detection.weights.items()], axis=0)
    noise = np.sqrt(sum((weight * noises[name]) ** 2 for name, weight in detection.weights.items()))
    pulls["detection image"] = _pulls(white, noise, detection.image, detection.variance)
    mean = np.sum([weight * single[name].image for name, weight in detection.weights.items()], axis=0)
    found = {
        DETECTED_ON[0]: _completeness(detection.image, field),
        DETECTED_ON[1]: _completeness(mean, field),
        DETECTED_ON[2]: max(_completeness(result.image, field) for result in single.values()),
    }
    return Whole(pulls, found)


def measure_cost(number: int, way: str) -> tuple[float, float]:
    """Restore all bands of a field in a process of its own.

    Parameters
    ----------
    number
        Number of the field.
    way
        ``"single"`` or ``"joint"``.

    Returns
    -------
    seconds, mebibytes : `float`
        Time and peak memory.
    """
    field = make_field(number)
    restore = _restore_single if way == "single" else _restore_joint
    start = time.perf_counter()
    restore(field)
    return time.perf_counter() - start, peak_memory()


def _sources(field: Field) -> dict[str, StackSource]:
    """Return the exposures of each band."""
    return {str(k): StackSource(band.stack) for k, band in enumerate(field.bands)}


def _restore_single(field: Field) -> dict[str, RestorationResult]:
    """Restore each band on its own."""
    return {
        name: restore_exposures(
            source, target_fwhm=field.target_fwhm, options=RestoreOptions(), seed=0, device="cpu"
        )
        for name, source in _sources(field).items()
    }


def _restore_joint(field: Field) -> BandsResult:
    """Restore the bands together."""
    sources = _sources(field)
    return restore_bands(
        sources,
        target_fwhm=field.target_fwhm,
        options=RestoreOptions(),
        seeds={name: number for number, name in enumerate(sources)},
        device="cpu",
    )


def _pulls(truth: Array, noise: Array, image: Array, variance: Array) -> dict[str, float]:
    """Return errors over the declared ones, by level."""
    pull, brightness = (image - truth) / np.sqrt(variance), truth / noise
    return {
        level: float(np.sqrt(np.nanmean(pull[(brightness >= low) & (brightness < high)] ** 2)))
        for level, (low, high) in LEVELS.items()
    }


def _completeness(image: Array, field: Field) -> float:
    """Return the share of sought sources that are found at the purity."""
    ratios = _ratios(field)
    inside = _inside(field.sources[:, 0], image.shape) & _inside(field.sources[:, 1], image.shape)
    real = inside & (ratios > _LEAST_RATIO)
    places, ratios = field.sources[real, :2], ratios[real]
    peaks = np.argwhere((image == maximum_filter(image, 3)) & (image > 0.0))
    peaks = peaks[_inside(peaks[:, 0], image.shape) & _inside(peaks[:, 1], image.shape)]
    peaks = peaks[np.argsort(-image[tuple(peaks.T)])]
    distance, nearest = cKDTree(places).query(peaks)
    is_true = distance < _MATCH_RADIUS
    purity = np.cumsum(is_true) / np.arange(1, len(is_true) + 1)
    # The faintest threshold that is as pure.
    number = int(np.flatnonzero(purity >= _PURITY).max(initial=-1)) + 1
    sought = (ratios >= _SOUGHT[0]) & (ratios < _SOUGHT[1])
    is_found = np.zeros(len(places), dtype=bool)
    is_found[nearest[:number][is_true[:number]]] = True
    return float(is_found[sought].mean())


def _ratios(field: Field) -> Array:
    """Return signal-to-noise ratios of sources as of stars in all bands."""
    total = np.zeros(len(field.sources))
    for k, band in enumerate(field.bands):
        flux_noise = float(band.estimator.model.crop(band.estimator.debiaser.flux_noise).median())
        total += (field.sources[:, 2 + k] / flux_noise) ** 2
    return np.sqrt(total)


def _inside(places: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    return np.asarray((places >= _BORDER) & (places <= shape[0] - 1 - _BORDER))
