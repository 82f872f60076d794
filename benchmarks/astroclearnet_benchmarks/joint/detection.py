# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Detection on images of all bands: what is found of what the truth has."""

from __future__ import annotations

__all__ = ("PURITY", "RATIOS", "Found", "Peaks", "Sources", "count_found", "find_peaks", "make_images")

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import maximum_filter
from scipy.spatial import cKDTree

from lsst.astroclearnet.core import load_packaged_joint_model
from lsst.astroclearnet.core.joint import WhiteEstimator

from ..record import Figure
from .fields import Band, Field

type Array = npt.NDArray[np.float64]

RATIOS = ((3.0, 5.0), (5.0, 7.0), (7.0, 10.0))
"""Bins of the signal-to-noise ratio of sources in all bands together."""

PURITY = 0.95
"""Share of the detections that are sources, at the threshold."""

_LEAST_RATIO = 1.5
"""Signal-to-noise ratio, in all bands together, from which light is one."""

_SIDE = 5
"""Side in pixels of the square in which a source is the brightest pixel, and
in which a detection must have light."""

_MATCH_RADIUS = 2.0
"""Distance in pixels of a detection from the source that it is."""

_BORDER = 6


@dataclasses.dataclass(frozen=True)
class Sources:
    """Local maxima of the true sky of all bands, at the target PSF.

    Attributes
    ----------
    places
        Row and column of each, shape (k, 2).
    ratios
        Shape (k,), signal-to-noise ratios, in all bands together, of stars as
        bright.
    near
        Shape (H, W), largest ratio around each pixel.
    """

    places: Array
    ratios: Array
    near: Array

    @classmethod
    def of_field(cls, field: Field) -> Sources:
        """Find the sources of a field.

        Parameters
        ----------
        field
            The field.
        """
        squares = [(band.truth.clamp(min=0.0) / band.star_noise).square() for band in field.bands]
        return cls.of_image(torch.stack(squares).sum(dim=0).sqrt().double().numpy())

    @classmethod
    def of_image(cls, ratios: Array) -> Sources:
        """Find the sources of an image.

        Parameters
        ----------
        ratios
            Shape (H, W), signal-to-noise ratios of stars as bright as pixels.
        """
        near = maximum_filter(ratios, _SIDE)
        places = _inside(np.argwhere((ratios == near) & (ratios >= _LEAST_RATIO)), ratios.shape)
        return cls(places.astype(np.float64), ratios[tuple(places.T)], near)


@dataclasses.dataclass(frozen=True)
class Peaks:
    """Local maxima of an image, and what they are.

    Attributes
    ----------
    heights
        Shape (p,), what they are ranked by.
    sources
        Shape (p,), number of the source; -1 for none.
    by_chance
        The same in the mirrored field, which has nothing to do with the image.
    is_false
        Shape (p,), whether there is nothing where they are.  Others that are
        no source are pieces of one.
    """

    heights: Array
    sources: npt.NDArray[np.int64]
    by_chance: npt.NDArray[np.int64]
    is_false: npt.NDArray[np.bool_]


def find_peaks(image: Array, sources: Sources, noise: Array | float = 1.0) -> Peaks:
    """Find the local maxima of an image.

    Parameters
    ----------
    image
        Shape (H, W).
    sources
        The true sources.
    noise
        What heights are divided by, of one value or shape (H, W).
    """
    places = _inside(np.argwhere((image == maximum_filter(image, 3)) & (image > 0.0)), image.shape)
    pixels = tuple(places.T)
    mirrored = np.abs(sources.places - (0.0, image.shape[1] - 1.0))
    own, chance = (_match(places, each) for each in (sources.places, mirrored))
    is_false = (own < 0) & (sources.near[pixels] < _LEAST_RATIO)
    return Peaks((image / noise)[pixels], own, chance, is_false)


@dataclasses.dataclass(frozen=True)
class Found:
    """What is found in some fields, with standard errors over the fields.

    Attributes
    ----------
    completeness
        Share of the sources of each bin of `RATIOS` that are found, without
        those that are by chance.
    pieces
        Detections in a field that are pieces of a source.
    threshold
        Least height of detections.
    """

    completeness: tuple[Figure, ...]
    pieces: Figure
    threshold: float


def count_found(peaks: Sequence[Peaks], sources: Sequence[Sources]) -> Found:
    """Count the sources above the lowest threshold with the purity.

    The threshold is one for all fields, so that no chance peak of a field sets
    it.  Pieces of sources count neither for nor against the purity.

    Parameters
    ----------
    peaks
        Peaks of each field.
    sources
        Sources of each field.
    """
    heights, is_source, is_false = (
        np.concatenate(each)
        for each in zip(*((p.heights, p.sources >= 0, p.is_false) for p in peaks), strict=True)
    )
    order = np.argsort(-heights)
    true, false = np.cumsum(is_source[order]), np.cumsum(is_false[order])
    pure = np.flatnonzero(true >= PURITY * (true + false))
    threshold = float(heights[order[pure[-1]]]) if len(pure) else math.inf
    found = [_is_found(p.sources[p.heights >= threshold], s) for p, s in zip(peaks, sources, strict=True)]
    lucky = [_is_found(p.by_chance[p.heights >= threshold], s) for p, s in zip(peaks, sources, strict=True)]
    chance = float(np.concatenate(lucky).mean())
    completeness = []
    for low, high in RATIOS:
        sought = [(s.ratios >= low) & (s.ratios < high) for s in sources]
        numbers = [int(f[k].sum()) for f, k in zip(found, sought, strict=True)]
        value, error = _share(numbers, [int(k.sum()) for k in sought])
        completeness.append(((value - chance) / (1.0 - chance), error / (1.0 - chance)))
    pieces = [int(((p.sources < 0) & ~p.is_false & (p.heights >= threshold)).sum()) for p in peaks]
    return Found(tuple(completeness), _share(pieces, [1] * len(pieces)), threshold)


@torch.no_grad()
def make_images(field: Field) -> dict[str, Array]:
    """Return images of a field on which to detect.

    They are in units of the noise of a star, or of the image where it is
    linear, and all means have the same weights.

    Parameters
    ----------
    field
        The field.
    """
    bands = field.bands
    single = [band.image for band in bands]
    joint = load_packaged_joint_model().combine(single)
    weights = [1.0 / band.estimator.linear.flux_variance for band in bands]
    white = WhiteEstimator.build(single, weights, [band.has_data for band in bands])
    crop = white.grids[white.reference].crop
    noise = torch.stack([w * band.star_noise for w, band in zip(white.weights, bands, strict=True)])
    star = noise.square().sum(dim=0).sqrt()
    linear = white.mean(
        [
            b.estimator.debiaser.linear_image(b.right_side, s.estimates[0])
            for b, s in zip(bands, single, strict=True)
        ]
    )
    linear_noise = math.sqrt(
        sum(w**2 * _linear_variance(band) for w, band in zip(white.weights, bands, strict=True))
    )
    deepest = max(range(len(bands)), key=lambda k: float((bands[k].truth / bands[k].star_noise).mean()))
    own = bands[deepest].estimator.model
    filtered = torch.stack([_matched(band) for band in bands])
    images = {
        "detection image": crop(white.restore(single)) / star,
        "mean of joint restorations": crop(white.mean(joint)) / star,
        "mean of single restorations": crop(white.mean([image.restored for image in single])) / star,
        "band of most signal, restored": own.crop(single[deepest].restored) / bands[deepest].star_noise,
        "mean of linear images": crop(linear) / linear_noise,
        "matched filter, equal flux in all bands": _equal_flux(filtered, bands),
        "matched filters, root of the sum of squares": filtered.clamp(min=0.0).square().sum(dim=0).sqrt(),
    }
    return {name: image.double().numpy() for name, image in images.items()}


def _linear_variance(band: Band) -> float:
    """Return the variance of the linear image on blank sky."""
    penalty_weight = torch.tensor([band.estimator.linear_penalty_weight])
    return float(band.estimator.linear.variances(penalty_weight))


def _matched(band: Band) -> torch.Tensor:
    """Return the flux of a star in each pixel over its noise, (H, W): the
    exposures, correlated with their PSFs, as no estimate can be better.
    """
    model = band.estimator.model
    filtered = model.crop(model.filter_images(band.right_side[None], model.target_transform)[0])
    return filtered * model.crop(band.estimator.debiaser.flux_noise)


def _equal_flux(filtered: torch.Tensor, bands: Sequence[Band]) -> torch.Tensor:
    """Return the same for a star with the same flux in all bands."""
    inverse = torch.stack([1.0 / b.estimator.model.crop(b.estimator.debiaser.flux_noise) for b in bands])
    return (filtered * inverse).sum(dim=0) / inverse.square().sum(dim=0).sqrt()


def _match(places: npt.NDArray[np.int64], sources: Array) -> npt.NDArray[np.int64]:
    """Return the nearest source of each place within reach, or -1."""
    if not len(sources):
        return np.full(len(places), -1)
    distance, nearest = cKDTree(sources).query(places)
    return np.where(distance < _MATCH_RADIUS, nearest, -1)


def _is_found(matches: npt.NDArray[np.int64], sources: Sources) -> npt.NDArray[np.bool_]:
    return np.isin(np.arange(len(sources.ratios)), matches)


def _share(parts: Sequence[float], wholes: Sequence[float]) -> Figure:
    """Return a share of counts with its standard error over fields (Cochran
    1977, Sampling Techniques, section 2.11).
    """
    part, whole = np.array(parts, dtype=np.float64), np.array(wholes, dtype=np.float64)
    if not whole.sum():
        return math.nan, math.nan
    share = float(part.sum() / whole.sum())
    number = len(part)
    if number < 2:
        return share, math.nan
    scatter = np.sum((part - share * whole) ** 2) * number / (number - 1)
    return share, float(math.sqrt(scatter) / whole.sum())


def _inside(places: npt.NDArray[np.int64], shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """Return places that are not near the border."""
    last = np.array(shape) - 1 - _BORDER
    return places[((places >= _BORDER) & (places <= last)).all(axis=1)]
