# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Noise of the linear product: its variance by sub-pixel phase, and moire."""

from __future__ import annotations

__all__ = ("measure_noise", "moire_frequencies", "peak_over_surroundings")

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lsst.astroclearnet.adapters import PixelMap
from lsst.astroclearnet.core import ExposureStack, RestoreOptions
from lsst.astroclearnet.core.estimate import LinearEstimator
from lsst.astroclearnet.core.forward import ForwardModel, weight_maps
from lsst.astroclearnet.core.noise import LocalNoise, RepeatedErrors, linear_variance
from lsst.astroclearnet.core.tiles import make_generator
from lsst.images import VisitImage

from ..processes import Runner
from ..record import Table, compare, format_value
from .exposures import expose
from .projections import BORDER, Field, make_field, view
from .ways import WAYS, prepare

type Array = npt.NDArray[np.float64]

_SCENES = {
    "survey": "rotations by any angle, scales within 1 %",
    "nearly aligned": "rotations within 3 degrees, scales within 1 %",
}
_NUM_PHASES, _NUM_BLOCKS = 8, 4
_NUM_DRAWS = 6
"""Realisations from which the product's variance is made, as by default."""

_LIMIT = 0.05
_HARMONICS = ((0, 1), (1, 0), (1, 1), (1, -1), (0, 2), (2, 0))
_RESOLUTION = 0.015
"""Least distance, in cycles per pixel, of frequencies that are compared."""

_LEAST_FREQUENCY = 0.02

_NUM_RING = 24
_CHANCE = 0.01

_PHASE_LEGEND = (
    "Blank sky through the linear estimator of the product: measured variance over the variance plane of the "
    "product, all pixels together, in 8x8 bins of the sub-pixel phase of the nearest pixel of the first "
    "exposure, and in 4x4 blocks of the patch. Of the bins the worst, with the standard error of a bin: the "
    "worst of 64 is expected beyond two and a half of them. "
)
_MOIRE_LEGEND = (
    "Power at the frequencies at which the pixels of the exposures beat with those of the patch, over the "
    "power at frequencies as high in other directions: the largest of all, in the mean of all realisations, "
    "in the measured variance and in the variance plane; the level that the largest exceeds by chance once "
    "in a hundred times; and the largest amplitudes, noise and all, in percent of the variance. The limit is "
    "on image and measured variance. "
)


def measure_noise(runner: Runner, *, count: int, quick: bool) -> list[Table]:
    """Measure the noise of the linear product."""
    size, number, draws = (100, 3, 4) if quick else (200, 6, max(30, 10 * count))
    variances, moires = [], []
    for scene in list(_SCENES)[: 1 if quick else None]:
        for way in WAYS:
            measure = (scene, way, size, number, draws)
            figures = runner(run_noise, *measure)
            name = {"exposures": scene, "likelihood": way}
            worst = figures["phase"][0] - 1.0
            variances.append(
                {
                    **name,
                    "all": format_value(tuple(figures["all"])),
                    "worst phase": format_value(tuple(figures["phase"])),
                    "worst block": format_value(tuple(figures["block"])),
                    "limit": compare(100.0 * worst, 100.0 * _LIMIT, " %"),
                }
            )
            chance = figures["chance"]
            largest = max(figures["mean_excess"], figures["variance_excess"])
            moires.append(
                {
                    **name,
                    "frequencies": str(figures["frequencies"]),
                    "image": format_value(figures["mean_excess"]),
                    "variance": format_value(figures["variance_excess"]),
                    "plane": format_value(figures["plane_excess"]),
                    "by chance": format_value(chance),
                    "amplitude %, variance": format_value(figures["amplitude"], 100.0),
                    "amplitude %, plane": format_value(figures["plane_amplitude"], 100.0),
                    "limit": compare(largest, chance, ""),
                }
            )
    described = ", ".join(f"{name}: {what}" for name, what in _SCENES.items())
    setting = f"{number} exposures, {size}x{size} pixels, {draws} realisations; {described}."
    return [
        Table("Variance", _PHASE_LEGEND + setting, variances),
        Table("Moire", _MOIRE_LEGEND + setting, moires),
    ]


def run_noise(scene: str, way: str, size: int, number: int, draws: int) -> dict[str, Any]:
    """Measure the noise of one kind of exposures."""
    field = make_field("survey", seed=7300, size=size, number=number)
    if scene != "survey":
        field = _aligned(field)
    images = [expose(c, [], np.zeros(0), None) for c in field.exposures]
    plane, errors = _errors(way, field, images, draws)
    middle = (slice(BORDER, -BORDER), slice(BORDER, -BORDER))
    plane, errors = plane[middle], errors[(slice(None), *middle)]
    ratio = errors**2 / plane
    figures: dict[str, Any] = {"all": _worst(ratio, np.zeros(plane.shape, dtype=int))}
    figures["phase"] = _worst(ratio, _phases(field, images[0])[middle])
    blocks = (np.arange(size) * _NUM_BLOCKS) // size
    figures["block"] = _worst(ratio, blocks[:, None] * _NUM_BLOCKS + blocks)
    frequencies = moire_frequencies(field, images)
    mean = errors.mean(axis=0) / np.sqrt(plane.mean())
    # Not over the plane, whose own pattern would be seen in their ratio.
    variance = (errors**2).mean(axis=0) / plane.mean()
    figures["frequencies"] = len(frequencies)
    figures["chance"] = -math.log(1.0 - (1.0 - _CHANCE) ** (1.0 / max(1, len(frequencies))))
    figures["mean_excess"] = _largest(mean, frequencies)[0]
    figures["variance_excess"], figures["amplitude"] = _largest(variance, frequencies)
    figures["plane_excess"], figures["plane_amplitude"] = _largest(plane / plane.mean(), frequencies)
    return figures


def _aligned(field: Field) -> Field:
    """Turn all exposures into nearly that of the patch."""
    rng = np.random.default_rng(13)
    side = field.exposures[0].bbox.x.size
    bbox = field.geometry.bbox
    base = field.geometry.projection
    exposures = []
    for k, conditions in enumerate(field.exposures):
        center = np.array([bbox.x.center, bbox.y.center]) + rng.uniform(-5.0, 5.0, size=2)
        projection = view(
            base,
            (float(center[0]), float(center[1])),
            side,
            visit=k + 1,
            rotation=float(rng.uniform(-3.0, 3.0)),
            scale=1.0 + float(rng.uniform(-0.01, 0.01)),
        )
        exposures.append(dataclasses.replace(conditions, projection=projection))
    return dataclasses.replace(field, exposures=tuple(exposures))


def _errors(way: str, field: Field, images: list[VisitImage], draws: int) -> tuple[Array, Array]:
    """Return the variance plane of the product, and linear images of noise."""
    total = draws + _NUM_DRAWS
    arguments = prepare(way, images, field.geometry, num_draws=0 if way == "native" else total)
    noise = arguments.pop("noise", None)
    with torch.no_grad():
        stack = ExposureStack.from_arrays(**arguments)
        model = ForwardModel.from_stack(stack, field.target_fwhm)
        weights = stack.good / stack.variances
        estimator = LinearEstimator(model, weights)
        penalty_weight = estimator.penalty_weight_for(RestoreOptions().debiasing.max_psf_residual)
        drawn: Iterator[torch.Tensor]
        if noise is None:
            generator = make_generator(5)
            shape = stack.variances.shape
            drawn = (torch.randn(shape, generator=generator) * stack.variances.sqrt() for _ in range(total))
        else:
            drawn = (torch.from_numpy(draw) for draw in noise)
        rights = (estimator.right_side(torch.where(stack.good, draw, 0.0)) for draw in drawn)
        errors = torch.stack([model.crop(estimator.solve(r, (penalty_weight,))[0]) for r in rights])
        seen = weight_maps(model, weights).used.any(dim=0)
        first = RepeatedErrors(
            errors[:0], errors[:_NUM_DRAWS], torch.zeros(len(images)), errors[:0], torch.zeros(seen.shape)
        )
        plane = linear_variance(first, LocalNoise(model, weights, penalty_weight), seen)
    return plane.double().numpy(), errors[_NUM_DRAWS:].double().numpy()


def _positions(field: Field, image: VisitImage) -> tuple[Array, Array]:
    """Return where the pixels of the patch are on an exposure."""
    bbox = field.geometry.bbox.padded(BORDER)
    y, x = PixelMap.from_projections(field.geometry.projection, bbox, image.sky_projection).positions()
    return np.asarray(y), np.asarray(x)


def _phases(field: Field, image: VisitImage) -> npt.NDArray[np.int64]:
    """Return the bin of the sub-pixel phase of the nearest pixel."""
    y, x = (
        np.clip((_NUM_PHASES * (c - np.rint(c) + 0.5)).astype(int), 0, _NUM_PHASES - 1)
        for c in _positions(field, image)
    )
    return np.asarray(_NUM_PHASES * y + x)


def _worst(ratio: Array, bins: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Return the mean ratio of the bin furthest from 1, and its error."""
    flat = bins.ravel()
    counts = np.bincount(flat)
    means = np.stack([np.bincount(flat, weights=each.ravel()) / np.maximum(counts, 1) for each in ratio])
    means = means[:, counts > 0]
    worst = int(np.argmax(np.abs(means.mean(axis=0) - 1.0)))
    error = means[:, worst].std(ddof=1) / math.sqrt(len(means))
    return float(means[:, worst].mean()), float(error)


def moire_frequencies(field: Field, images: list[VisitImage]) -> Array:
    """Return the beats between the pixels of exposures and of the patch."""
    found: list[Array] = []
    for image in images:
        y, x = _positions(field, image)
        row, column = (size // 2 for size in y.shape)
        jacobian = np.array(
            [
                [c[row + 1, column] - c[row - 1, column], c[row, column + 1] - c[row, column - 1]]
                for c in (y, x)
            ]
        )
        for harmonic in _HARMONICS:
            frequency = 0.5 * jacobian.T @ np.array(harmonic, dtype=float)
            frequency -= np.rint(frequency)
            if np.hypot(*frequency) > _LEAST_FREQUENCY:
                found.append(frequency)
    return np.array(found).reshape(-1, 2)


def _largest(image: Array, frequencies: Array) -> tuple[float, float]:
    """Return the largest excess, and the largest amplitude."""
    found = [peak_over_surroundings(image, frequency) for frequency in frequencies]
    if not found:
        return math.nan, math.nan
    return max(f[0] for f in found), max(f[1] for f in found)


def peak_over_surroundings(image: Array, frequency: Array) -> tuple[float, float]:
    """Compare the power at a frequency with that around it.

    Returns
    -------
    excess : `float`
        Power over the mean power at frequencies as high in other directions.
    amplitude : `float`
        Amplitude of the wave, noise and all.
    """
    height, width = image.shape
    window = np.hanning(height)[:, None] * np.hanning(width)
    values = (image - np.average(image, weights=window)) * window

    def transform(ky: float, kx: float) -> complex:
        rows = np.exp(-2j * np.pi * ky * np.arange(height))
        columns = np.exp(-2j * np.pi * kx * np.arange(width))
        return complex(rows @ values @ columns)

    power = abs(transform(*frequency)) ** 2
    # Noise of a smooth map is red: what surrounds is as far from zero.
    radius, direction = float(np.hypot(*frequency)), math.atan2(frequency[0], frequency[1])
    nearest = _RESOLUTION / max(radius, _RESOLUTION)
    angles = direction + np.linspace(nearest, math.pi - nearest, _NUM_RING)
    around = [abs(transform(radius * math.sin(t), radius * math.cos(t))) ** 2 for t in angles]
    # The median of an exponential distribution is ln 2 of its mean.
    level = float(np.median(around)) / math.log(2.0)
    return float(power / level), float(2.0 * math.sqrt(power) / window.sum())
