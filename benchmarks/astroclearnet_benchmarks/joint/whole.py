# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Whole restorations of fields: declared errors, detection, cost."""

from __future__ import annotations

__all__ = ("RANKED_BY", "Whole", "measure_cost", "measure_whole")

import dataclasses
import time

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from lsst.astroclearnet.core import (
    BandsResult,
    RestorationResult,
    RestoreOptions,
    restore_bands,
    restore_exposures,
)
from lsst.astroclearnet.core.exposures import StackSource

from ..processes import peak_memory
from .detection import Peaks, Sources, find_peaks
from .fields import Field, make_field
from .measure import LEVELS

type Array = npt.NDArray[np.float64]

_AVERAGED = 16.0
"""Standard deviation in pixels of the Gaussian with which declared errors are
averaged, where detections are ranked by them."""

RANKED_BY = (
    "height over the noise of a star",
    "height over its averaged error",
    "height over its own error",
)


@dataclasses.dataclass(frozen=True)
class Whole:
    """Figures of a field.

    Attributes
    ----------
    pulls
        Root mean square error over the declared one, by level, of each band
        and of the detection image.
    sources
        Its sources.
    peaks
        Peaks of the detection image, by what they are ranked by.
    """

    pulls: dict[str, dict[str, float]]
    sources: Sources
    peaks: dict[str, Peaks]


def measure_whole(field: Field) -> Whole:
    """Restore the bands of a field together.

    Parameters
    ----------
    field
        The field.
    """
    joint = _restore_joint(field)
    truths = {name: band.truth.numpy() for name, band in zip(joint.results, field.bands, strict=True)}
    noises = {name: band.star_noise.numpy() for name, band in zip(joint.results, field.bands, strict=True)}
    pulls = {
        name: _pulls(truths[name], noises[name], result.image, result.variance)
        for name, result in joint.results.items()
    }
    detection = joint.detection
    white = np.sum([weight * truths[name] for name, weight in detection.weights.items()], axis=0)
    noise = np.sqrt(sum((weight * noises[name]) ** 2 for name, weight in detection.weights.items()))
    pulls["detection image"] = _pulls(white, noise, detection.image, detection.variance)
    sources = Sources.of_field(field)
    declared = np.sqrt(detection.variance)
    units = noise, gaussian_filter(declared, _AVERAGED), declared
    peaks = {
        name: find_peaks(detection.image, sources, unit) for name, unit in zip(RANKED_BY, units, strict=True)
    }
    return Whole(pulls, sources, peaks)


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
