# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Sampling of images on the latent grid at the pixels of the exposures."""

from __future__ import annotations

__all__ = ("Sampling",)

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..exposures import PixelPositions, largest_around, smooth
from ._interpolation import Interpolation
from ._kernel_profile import transfer_function
from ._latent_grid import LatentGrid
from ._whole_pixels import WholePixels, find_offsets

_LARGEST_INTEGER = 2.0**40
"""What the largest datum becomes in sums; 2^23 of it can be added up."""

_SPARSE = 1.5
"""Side of a pixel in pixels of the patch from which on data are spread over
it.  The interpolation kernel alone leaves 0.3 % of the pattern of pixels of
this side, 20 % of those of side 2, and holes between those of side 3."""


class Sampling:
    """Sampling of images on the latent grid at the pixels of the exposures.

    "Data" are arrays of shape (n, h, w) on the pixels of the exposures,
    "maps" have shape (n, H, W) on the grid of the patch, and "images" the
    shape of the latent image, which has a margin around the patch.  All
    methods that take ``exposures`` take all of them by default; on a GPU
    indices that are not tensors need not be waited for.

    Parameters
    ----------
    positions
        Positions of the pixels of the exposures on the patch; where those of
        all exposures are pixels of the patch nothing is interpolated.
    grid
        Grid of the patch and the latent image.
    """

    def __init__(self, positions: PixelPositions, grid: LatentGrid) -> None:
        self.grid = grid
        self._positions = positions
        self._interpolations: dict[int, Interpolation] = {}
        self._boxes: dict[int, WholePixels] = {}

    def __getstate__(self) -> dict[str, Any]:
        # What is made of the positions is made again.
        return self.__dict__ | {"_interpolations": {}, "_boxes": {}}

    @functools.cached_property
    def prefilter(self) -> torch.Tensor | None:
        """Factor of the transform of an image before it is observed.

        Shape (Hl, Wl // 2 + 1); `None` for 1.
        """
        if self._offsets is not None:
            return None
        height, width = self.grid.latent_shape
        column, row = (
            torch.from_numpy((1.0 / transfer_function(frequency)).astype(np.float32)).to(self.area.device)
            for frequency in (np.fft.fftfreq(height), np.fft.rfftfreq(width))
        )
        return column[:, None] * row

    @property
    def area(self) -> torch.Tensor:
        """Area of the pixels of the exposures in pixels of the patch.

        Shape (n, h, w).
        """
        return self._positions.area

    def positions(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the positions of the pixels of the exposures on the patch.

        Returns
        -------
        y, x : `torch.Tensor`
            Shape (n, h, w), rows and columns; NaN for a pixel that is not on
            the patch.
        """
        return self._positions.y, self._positions.x

    def observe(
        self, images: torch.Tensor, exposures: torch.Tensor | Sequence[int] | None = None
    ) -> torch.Tensor:
        """Sample one image for each exposure; return data.

        Parameters
        ----------
        images
            Shape ``(n, *latent_shape)``, light per pixel of the patch,
            multiplied with the prefilter.
        exposures
            Indices of the exposures.
        """
        chosen = self.indices(exposures)
        data = torch.empty(len(chosen), *self.area.shape[1:], device=self.area.device)
        for one, t, image in zip(data, chosen, images.split(1), strict=True):
            one.copy_(self._operator(t).observe(image)[0])
        return data

    def adjoint(
        self, data: torch.Tensor, exposures: torch.Tensor | Sequence[int] | None = None
    ) -> torch.Tensor:
        """Apply the adjoint of `observe`; return images.

        Parameters
        ----------
        data
            Shape (n, h, w).
        exposures
            Indices of the exposures.
        """
        chosen = self.indices(exposures)
        images = torch.empty(len(chosen), *self.grid.latent_shape, device=self.area.device)
        for image, t, one in zip(images, chosen, data.split(1), strict=True):
            image.copy_(self._operator(t).adjoint(one)[0])
        return images

    def normal(self, images: torch.Tensor, weights: torch.Tensor, exposure: int) -> None:
        """Sample images on an exposure, weight the data and go back.

        Parameters
        ----------
        images
            Shape ``(b, *latent_shape)``, replaced by the adjoints of their
            weighted data.
        weights
            Shape (h, w).
        exposure
            Index of the exposure.
        """
        self._operator(exposure).normal(images, weights)

    def mean(self, data: torch.Tensor, exposures: torch.Tensor | Sequence[int] | None = None) -> torch.Tensor:
        """Return maps of local means of data, 0 where there are none.

        Parameters
        ----------
        data
            Shape (n, h, w).
        exposures
            Indices of the exposures.
        """
        return self.grid.crop(self.spread(data, exposures)).contiguous()

    def spread(
        self, data: torch.Tensor, exposures: torch.Tensor | Sequence[int] | None = None
    ) -> torch.Tensor:
        """Apply `adjoint`, with the data spread over the areas of pixels.

        Parameters
        ----------
        data
            Shape (n, h, w).
        exposures
            Indices of the exposures.
        """
        chosen = self.indices(exposures)
        images = self.adjoint(data, chosen)
        for image, t in zip(images, chosen, strict=True):
            if self.is_spread(t):
                image.copy_(smooth(image[None], self._sides[t])[0])
        return images

    def is_spread(self, exposure: int) -> bool:
        """Tell whether `spread` spreads the data of an exposure over pixels.

        Parameters
        ----------
        exposure
            Index of the exposure.
        """
        return self._sides[exposure] > _SPARSE

    def total(self, data: torch.Tensor) -> torch.Tensor:
        """Sum up all data in the pixels of the patch, (H, W).

        Parameters
        ----------
        data
            Shape (n, h, w).
        """
        height, width = self.grid.shape
        # Integers are added without rounding, in any order: threads of a GPU
        # have none.
        unit = data.abs().amax().double().clamp_(min=torch.finfo(torch.float32).tiny) / _LARGEST_INTEGER
        sums = torch.zeros(height * width + 1, dtype=torch.int64, device=data.device)
        for t, one in enumerate(data):
            sums.index_add_(0, self._nearest(t), (one.flatten() / unit).round_().long())
        return (sums[:-1] * unit).to(data.dtype).reshape(height, width)

    def largest(self, data: torch.Tensor) -> torch.Tensor:
        """Return maps of the largest datum in each pixel, 0 without data.

        Where pixels of the exposures are larger, each has those it reaches.

        Parameters
        ----------
        data
            Shape (n, h, w), not negative, or boolean.
        """
        height, width = self.grid.shape
        maps = torch.empty(len(data), height, width, dtype=data.dtype, device=data.device)
        for t, one in enumerate(data):
            peaks = torch.zeros(height * width + 1, device=data.device)
            peaks.scatter_reduce_(0, self._nearest(t), one.flatten().to(peaks.dtype), "amax")
            found = peaks[:-1].reshape(height, width)
            if self.is_spread(t):
                found = largest_around(found, 2 * int(0.5 * self._sides[t]) + 1)
            maps[t] = found
        return maps

    def look_up(self, maps: torch.Tensor) -> torch.Tensor:
        """Return data: the values of maps there, 0 off the patch.

        Parameters
        ----------
        maps
            Shape (n, H, W) or (H, W).
        """
        flat = torch.nn.functional.pad(maps.flatten(-2), (0, 1)).expand(len(self.area), -1)
        found = torch.empty(self.area.shape, dtype=maps.dtype, device=maps.device)
        for t, values in enumerate(flat):
            found[t] = values[self._nearest(t)].reshape(found[t].shape)
        return found

    def indices(self, exposures: torch.Tensor | Sequence[int] | None) -> list[int]:
        """Return indices of exposures as numbers.

        Parameters
        ----------
        exposures
            The indices; `None` for all.
        """
        if exposures is None:
            return list(range(len(self.area)))
        return exposures.tolist() if isinstance(exposures, torch.Tensor) else list(exposures)

    @functools.cached_property
    def _offsets(self) -> list[tuple[int, int]] | None:
        return find_offsets(self._positions)

    @functools.cached_property
    def _sides(self) -> list[float]:
        """Sides of the pixels of each exposure in pixels of the patch."""
        if self._offsets is not None:
            return [1.0] * len(self.area)
        numbers = (self.area > 0).sum(dim=(1, 2)).clamp(min=1)
        return [float(side) for side in (self.area.sum(dim=(1, 2)) / numbers).sqrt().tolist()]

    def _operator(self, exposure: int) -> Interpolation | WholePixels:
        return self._interpolation(exposure) if self._offsets is None else self._whole_pixels(exposure)

    def _interpolation(self, exposure: int) -> Interpolation:
        p, exposure = self._positions, self._same_as(exposure)
        if exposure not in self._interpolations:
            y, x, area = p.y[exposure], p.x[exposure], p.area[exposure]
            self._interpolations[exposure] = Interpolation(y, x, area, self.grid)
        return self._interpolations[exposure]

    def _whole_pixels(self, exposure: int) -> WholePixels:
        assert self._offsets is not None
        exposure = self._same_as(exposure)
        if exposure not in self._boxes:
            area = self._positions.area[exposure]
            self._boxes[exposure] = WholePixels(self._offsets[exposure], area, self.grid)
        return self._boxes[exposure]

    def _same_as(self, exposure: int) -> int:
        """Return the first exposure with the same positions: exposures on the
        grid of the patch share them.
        """
        p = self._positions
        return 0 if p.y.stride(0) == p.x.stride(0) == p.area.stride(0) == 0 else exposure

    def _nearest(self, exposure: int) -> torch.Tensor:
        """Return numbers of patch pixels, shape (p,); the last for off it."""
        height, width = self.grid.shape
        y, x = (c[exposure].flatten() for c in (self._positions.y, self._positions.x))
        # A position on the very border may round to beyond it.
        row = torch.round(torch.nan_to_num(y)).long().clamp_(0, height - 1)
        column = torch.round(torch.nan_to_num(x)).long().clamp_(0, width - 1)
        return torch.where(torch.isfinite(y), row * width + column, height * width)
