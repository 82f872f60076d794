# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Errors, leakage and fluxes of joint images, without the bootstrap."""

from __future__ import annotations

__all__ = ("FAINT_SOURCES", "LEVELS", "Errors", "measure_errors", "measure_injections")

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch

from lsst.astroclearnet.core import load_packaged_joint_model
from lsst.astroclearnet.core.estimate import BandImage
from lsst.astroclearnet.core.exposures import fwhm_to_sigma, largest_around

from .fields import Band, Field

LEVELS = {"sky": (-math.inf, 0.1), "faint": (1.0, 20.0), "bright": (20.0, math.inf)}
"""Brightness of pixels in the truth, in units of the peak of a star of
signal-to-noise ratio 1."""

FAINT_SOURCES = "faint sources"
"""Level of pixels of faint light around which nothing is bright."""

_BRIGHTEST = 12.0
"""Brightness, in the unit of `LEVELS`, that nothing within the FWHM of the
target PSF of a pixel of `FAINT_SOURCES` exceeds."""

_LEAST_COVERAGE = 0.5
_STEP, _FIRST = 36, 24
"""Distance of injected sources, and of the first from the border, in
pixels."""

_BLANK = 0.3
"""Brightness, in the unit of `LEVELS`, of what may be beneath them in any
band."""

_ROOM = 4
"""Half of the side in pixels of what must be blank."""


@dataclasses.dataclass(frozen=True)
class Errors:
    """Root mean square errors of a band in a field, by level.

    Attributes
    ----------
    single, joint
        Errors of the restoration on its own, and of the joint one.
    network
        Errors of the image of the single network, before debiasing.
    """

    single: dict[str, float]
    joint: dict[str, float]
    network: dict[str, float]


def combine(images: Sequence[BandImage]) -> list[torch.Tensor]:
    """Return joint images of bands, by the packaged joint network."""
    return load_packaged_joint_model().combine(images)


@torch.no_grad()
def measure_errors(
    field: Field, *, strangers: Field | None = None, num_guides: int | None = None
) -> list[Errors]:
    """Measure the errors of each band of a field.

    Parameters
    ----------
    field
        The field.
    strangers
        Field whose bands guide it; by default its own other bands do.
    num_guides
        Largest number of bands that guide it; all by default.
    """
    images = [band.image for band in field.bands]
    errors = []
    for k, (band, image) in enumerate(zip(field.bands, images, strict=True)):
        others = [*images[k + 1 :], *images[:k]]
        if strangers is not None:
            others = [other.image for other in strangers.bands[: len(others)]]
        joint = combine([image, *others[:num_guides]])[0]
        errors.append(
            Errors(
                single=_by_level(band, image.restored),
                joint=_by_level(band, joint),
                network=_by_level(band, image.mixed),
            )
        )
    return errors


def _by_level(band: Band, image: torch.Tensor) -> dict[str, float]:
    """Return the error of an image in units of a star of signal-to-noise 1."""
    unit = band.star_noise
    error, brightness = (band.estimator.model.crop(image) - band.truth) / unit, band.truth / unit
    known = band.estimator.linear.coverage > _LEAST_COVERAGE
    found = {}
    for level, (low, high) in LEVELS.items():
        found[level] = _rms(error[known & (brightness >= low) & (brightness < high)])
    low, high = LEVELS["faint"]
    reach = round(band.estimator.model.target_fwhm)
    is_lone = largest_around(brightness, 2 * reach + 1) < _BRIGHTEST
    found[FAINT_SOURCES] = _rms(error[known & is_lone & (brightness >= low) & (brightness < high)])
    return found


def _rms(values: torch.Tensor) -> float:
    return float(values.square().mean().sqrt()) if len(values) else math.nan


@dataclasses.dataclass(frozen=True)
class Injected:
    """What became of light that was injected into some bands of a field.

    Attributes
    ----------
    leak
        Shape (b, k), mean change beneath each source of the bands in which it
        does not shine, if there are any, weighted with its profile, in units
        of their noise there.
    light
        Shape (b, k), the light of the source there, in the same way and unit,
        if it shone in these bands as in the other.
    single, joint
        Shape (k,), flux of each source in its band over the true one, in the
        image of the band on its own and in the joint one.
    """

    leak: np.ndarray
    light: np.ndarray
    single: np.ndarray
    joint: np.ndarray


@torch.no_grad()
def measure_injections(
    field: Field, kind: str, signal_to_noise: float, *, band: int = 0, elsewhere: float = 0.0
) -> Injected:
    """Inject sources into a field and measure all bands.

    Parameters
    ----------
    field
        The field.
    kind
        ``"star"``; ``"transient"``, a star in half of the exposures;
        ``"artefact"``, a bar of 1 by 9 pixels that every exposure has; or
        ``"dropout"``, a star in all bands but one.
    signal_to_noise
        Ratio of a star in all exposures of the band; the peak of a bar is that
        of the star.
    band
        The band.
    elsewhere
        The same in all other bands.
    """
    target = field.bands[band]
    places = _blank_places(field)
    before = [one.image for one in field.bands]
    after = list(before)
    ratios = [
        signal_to_noise if (k == band) != (kind == "dropout") else elsewhere for k in range(len(before))
    ]
    for k, (one, ratio) in enumerate(zip(field.bands, ratios, strict=True)):
        light = _stars(one, places, field.target_fwhm) * ratio * one.star_noise
        if k == band:
            star = light
        added = one.observe(_bars(light) if kind == "artefact" else light)
        if kind == "transient":
            added[::2] = 0.0
        after[k] = one.restore_with(added) if ratio else before[k]
    joint_before, joint_after = combine(before), combine(after)
    crop = target.estimator.model.crop
    single, joint = (
        _fluxes(crop(image) - target.truth, star, places)
        for image in (after[band].restored, joint_after[band])
    )
    leak, equal = [], []
    for k, other in enumerate(field.bands):
        if ratios[k]:
            continue
        crop = other.estimator.model.crop
        noise = other.star_noise
        change = crop(joint_after[k] - joint_before[k]) / noise
        profile = _stars(other, places, field.target_fwhm)
        leak.append([_weighted(change, profile, place) for place in places])
        equal.append([signal_to_noise * _weighted(profile, profile, place) for place in places])
    return Injected(np.array(leak), np.array(equal), single, joint)


def _blank_places(field: Field) -> list[tuple[int, int]]:
    """Return places of a grid that are blank in all bands."""
    height, width = field.bands[0].truth.shape
    places = []
    for y in range(_FIRST, height - _FIRST, _STEP):
        for x in range(_FIRST, width - _FIRST, _STEP):
            box = slice(y - _ROOM, y + _ROOM + 1), slice(x - _ROOM, x + _ROOM + 1)
            brightest = max(float((band.truth / band.star_noise)[box].max()) for band in field.bands)
            covered = min(float(band.estimator.linear.coverage[box].min()) for band in field.bands)
            if brightest < _BLANK and covered > _LEAST_COVERAGE:
                places.append((y, x))
    return places


def _stars(band: Band, places: Sequence[tuple[int, int]], fwhm: float) -> torch.Tensor:
    """Return stars with a peak of 1 at the target PSF, (H, W)."""
    height, width = band.truth.shape
    v, u = torch.arange(float(height))[:, None], torch.arange(float(width))
    scale = 2.0 * fwhm_to_sigma(fwhm) ** 2
    image = torch.zeros(height, width)
    for y, x in places:
        image += torch.exp(-((v - y) ** 2) / scale) * torch.exp(-((u - x) ** 2) / scale)
    return image


def _bars(stars: torch.Tensor) -> torch.Tensor:
    """Return stars stretched to bars of nine pixels."""
    return torch.stack([stars.roll(shift, 1) for shift in range(-4, 5)]).amax(dim=0)


def _weighted(image: torch.Tensor, profile: torch.Tensor, place: tuple[int, int]) -> float:
    """Return the mean of an image around a place, weighted with a profile."""
    box = slice(place[0] - _ROOM, place[0] + _ROOM + 1), slice(place[1] - _ROOM, place[1] + _ROOM + 1)
    return float((image[box] * profile[box]).sum() / profile[box].sum())


def _fluxes(image: torch.Tensor, star: torch.Tensor, places: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return the light of stars in an image without other light, fitted with
    their profile, over the truth.
    """
    found = []
    for y, x in places:
        box = slice(y - 2 * _ROOM, y + 2 * _ROOM + 1), slice(x - 2 * _ROOM, x + 2 * _ROOM + 1)
        square = float(star[box].square().sum())
        found.append(float((image[box] * star[box]).sum()) / square if square else math.nan)
    return np.array(found)
