# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Pixels of images summed in the pixels of a map of the sky."""

from __future__ import annotations

__all__ = ("HealpixSums",)

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import hpgeom
import numpy as np
from numpy.typing import NDArray


@dataclasses.dataclass(frozen=True)
class HealpixSums:
    """Sums of pixels of images in each pixel of a HEALPix map.

    Every pixel of an image counts whole where its centre lies.  Sums of
    images that meet in a pixel of the map are added by `combine`, so that a
    mean, the quotient of two sums, is that over all of them.

    Attributes
    ----------
    nside
        Resolution of the map (Gorski et al. 2005, ApJ 622, 759).
    pixels
        Shape (n,), int64, the pixels of the map in the NESTED scheme,
        ascending.
    values
        Sums of shape (n,), float64, by name.
    """

    nside: int
    pixels: NDArray[np.int64]
    values: dict[str, NDArray[np.float64]]

    @classmethod
    def from_positions(
        cls, nside: int, ra: NDArray[Any], dec: NDArray[Any], values: Mapping[str, NDArray[Any]]
    ) -> HealpixSums:
        """Sum values by their positions.

        Parameters
        ----------
        nside
            Resolution of the map, a power of two.
        ra, dec
            Shape (m,), ICRS positions in degrees.
        values
            What to sum, shape (m,), by name.

        Returns
        -------
        sums : `HealpixSums`
            Only the pixels of the map that have a position.
        """
        return cls._group(nside, hpgeom.angle_to_pixel(nside, ra, dec), values)

    @classmethod
    def combine(cls, parts: Sequence[HealpixSums]) -> HealpixSums:
        """Add sums of several images.

        Parameters
        ----------
        parts
            At least one, all with the same resolution and names.

        Returns
        -------
        sums : `HealpixSums`
            The pixels of all of them.
        """
        pixels = np.concatenate([part.pixels for part in parts])
        values = {name: np.concatenate([part.values[name] for part in parts]) for name in parts[0].values}
        return cls._group(parts[0].nside, pixels, values)

    def select(self, chosen: NDArray[np.bool_]) -> HealpixSums:
        """Return some of the pixels.

        Parameters
        ----------
        chosen
            Shape (n,), which ones.
        """
        values = {name: value[chosen] for name, value in self.values.items()}
        return HealpixSums(self.nside, self.pixels[chosen], values)

    @property
    def pixel_area(self) -> float:
        """Area of a pixel of the map in arcsec^2 (`float`)."""
        return float(hpgeom.nside_to_pixel_area(self.nside, degrees=True)) * 3600.0**2

    @classmethod
    def _group(cls, nside: int, pixels: NDArray[Any], values: Mapping[str, NDArray[Any]]) -> HealpixSums:
        """Sum values of the same pixel."""
        unique, place = np.unique(np.asarray(pixels, dtype=np.int64), return_inverse=True)
        sums = {
            name: np.bincount(place, weights=value, minlength=unique.size) for name, value in values.items()
        }
        return cls(nside, unique, sums)
