# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""From the grid of the patch to the pixels of the exposures, and back."""

from __future__ import annotations

__all__ = ("CropSampling", "NativeSampling", "Sampling")

import copy
import functools
from abc import ABC, abstractmethod

import numpy as np
import torch

from ._interpolation import Interpolation, transfer_function
from ._latent_grid import LatentGrid
from ._positions import PixelPositions


class Sampling(ABC):
    """Takes images on the latent grid to the pixels of the exposures.

    "Data" are arrays of shape (n, h, w) on the pixels of the exposures,
    "maps" have shape (n, H, W) on the grid of the patch, and "images" the
    shape of the latent image, which has a margin around the patch.
    """

    grid: LatentGrid
    """Grid of the patch and the latent image."""

    @property
    @abstractmethod
    def prefilter(self) -> torch.Tensor | None:
        """What the transform of an image is to be multiplied with before it
        is observed, shape (Hl, Wl // 2 + 1); `None` for one.
        """

    @property
    @abstractmethod
    def area(self) -> torch.Tensor:
        """Area of the pixels of the exposures in pixels of the patch, of
        shape (n, h, w) or one that broadcasts to it.
        """

    @abstractmethod
    def positions(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return where the pixels of the exposures lie on the patch.

        Returns
        -------
        y, x : `torch.Tensor`
            Rows and columns of the patch, of shapes that broadcast to
            (n, h, w); NaN for a pixel that is not on the patch.
        """

    @abstractmethod
    def observe(self, images: torch.Tensor, exposures: torch.Tensor | None = None) -> torch.Tensor:
        """Sample one image for each exposure on its pixels.

        Parameters
        ----------
        images
            Shape (n, *latent_shape), light per pixel of the patch, multiplied
            with the prefilter.
        exposures
            Indices of the exposures that ``images`` belong to; all by
            default.

        Returns
        -------
        data : `torch.Tensor`
            Shape (n, h, w), light per pixel of the exposures.
        """

    @abstractmethod
    def adjoint(self, data: torch.Tensor, exposures: torch.Tensor | None = None) -> torch.Tensor:
        """Apply the adjoint of `observe`.

        Parameters
        ----------
        data
            Shape (n, h, w).
        exposures
            Indices of the exposures that ``data`` belong to; all by default.

        Returns
        -------
        images : `torch.Tensor`
            Shape (n, *latent_shape).
        """

    @abstractmethod
    def mean(self, data: torch.Tensor, exposures: torch.Tensor | None = None) -> torch.Tensor:
        """Return local means of data, 0 where there are none.

        Parameters
        ----------
        data
            Shape (n, h, w).
        exposures
            Indices of the exposures that ``data`` belong to; all by default.

        Returns
        -------
        maps : `torch.Tensor`
            Shape (n, H, W).
        """

    @abstractmethod
    def total(self, data: torch.Tensor) -> torch.Tensor:
        """Add all data to the pixels of the patch in which they lie.

        Parameters
        ----------
        data
            Shape (n, h, w).

        Returns
        -------
        total : `torch.Tensor`
            Shape (H, W).
        """

    @abstractmethod
    def largest(self, data: torch.Tensor) -> torch.Tensor:
        """Return the largest datum in each pixel of the patch.

        Parameters
        ----------
        data
            Shape (n, h, w), not negative, or boolean.

        Returns
        -------
        maps : `torch.Tensor`
            Shape (n, H, W); 0 where there are none.
        """

    @abstractmethod
    def look_up(self, maps: torch.Tensor) -> torch.Tensor:
        """Return the values of maps in the pixels in which the data lie.

        Parameters
        ----------
        maps
            Shape (n, H, W) or (H, W).

        Returns
        -------
        data : `torch.Tensor`
            Shape (n, h, w), or one that broadcasts to it; 0 off the patch.
        """

    @abstractmethod
    def window(self, rows: slice, columns: slice) -> Sampling:
        """Return the sampling of a window of the patch.

        Parameters
        ----------
        rows
            Rows of the window, with a start and a stop.
        columns
            Columns of the window, with a start and a stop.

        Returns
        -------
        sampling : `Sampling`
            Sampling on the pixels that lie in the window.
        """

    @abstractmethod
    def cut(self, data: torch.Tensor) -> torch.Tensor:
        """Cut data of the whole patch to those of this window.

        Parameters
        ----------
        data
            Shape (n, h, w), on the pixels of the sampling that this is a
            window of.

        Returns
        -------
        cut : `torch.Tensor`
            Shape (n, h', w'); 0 for pixels that do not lie in the window.
        """


class CropSampling(Sampling):
    """Sampling of exposures that lie on the grid of the patch.

    Parameters
    ----------
    grid
        Grid of the patch and the latent image.
    device
        Where the data are.
    window
        Rows and columns of a window of the patch, where it is one.
    """

    prefilter = None

    def __init__(
        self, grid: LatentGrid, device: torch.device, window: tuple[slice, slice] | None = None
    ) -> None:
        self.grid = grid
        self._device = device
        self._window = window if window is not None else (slice(None), slice(None))

    @property
    def area(self) -> torch.Tensor:
        return torch.ones((), device=self._device)

    def positions(self) -> tuple[torch.Tensor, torch.Tensor]:
        height, width = self.grid.shape
        rows, columns = (torch.arange(n, dtype=torch.float64, device=self._device) for n in (height, width))
        return rows[:, None], columns[None, :]

    def observe(self, images: torch.Tensor, exposures: torch.Tensor | None = None) -> torch.Tensor:
        return self.grid.crop(images)

    def adjoint(self, data: torch.Tensor, exposures: torch.Tensor | None = None) -> torch.Tensor:
        return self.grid.embed(data)

    def mean(self, data: torch.Tensor, exposures: torch.Tensor | None = None) -> torch.Tensor:
        return data

    def total(self, data: torch.Tensor) -> torch.Tensor:
        return data.sum(dim=0)

    def largest(self, data: torch.Tensor) -> torch.Tensor:
        return data

    def look_up(self, maps: torch.Tensor) -> torch.Tensor:
        return maps

    def window(self, rows: slice, columns: slice) -> CropSampling:
        return CropSampling(self.grid.window(rows, columns), self._device, (rows, columns))

    def cut(self, data: torch.Tensor) -> torch.Tensor:
        return data[..., self._window[0], self._window[1]]


class NativeSampling(Sampling):
    """Sampling of exposures on their own pixels.

    Parameters
    ----------
    positions
        Where their pixels lie on the patch.
    grid
        Grid of the patch and the latent image.
    window
        Rows and columns at which the pixels of each exposure are cut out,
        where the patch is a window of a greater one.
    """

    def __init__(
        self,
        positions: PixelPositions,
        grid: LatentGrid,
        window: list[tuple[slice, slice]] | None = None,
    ) -> None:
        self.grid = grid
        self._positions = positions
        self._window = window
        self._operators: dict[int, Interpolation] = {}

    @functools.cached_property
    def prefilter(self) -> torch.Tensor:
        height, width = self.grid.latent_shape
        ky, kx = np.fft.fftfreq(height), np.fft.rfftfreq(width)
        product = transfer_function(ky)[:, None] * transfer_function(kx)[None, :]
        return torch.from_numpy((1.0 / product).astype(np.float32)).to(self.area.device)

    @property
    def area(self) -> torch.Tensor:
        return self._positions.area

    def positions(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self._positions.y, self._positions.x

    def observe(self, images: torch.Tensor, exposures: torch.Tensor | None = None) -> torch.Tensor:
        data = [self._operator(t)(image) for t, image in zip(self._list(exposures), images, strict=True)]
        return torch.stack(data).reshape(len(data), *self.area.shape[1:])

    def adjoint(self, data: torch.Tensor, exposures: torch.Tensor | None = None) -> torch.Tensor:
        flat = data.flatten(1)
        operators = [self._operator(t) for t in self._list(exposures)]
        return torch.stack([op.adjoint(d) for op, d in zip(operators, flat, strict=True)])

    def mean(self, data: torch.Tensor, exposures: torch.Tensor | None = None) -> torch.Tensor:
        return self.grid.crop(self.adjoint(data, exposures))

    def total(self, data: torch.Tensor) -> torch.Tensor:
        height, width = self.grid.shape
        sums = torch.zeros(height * width + 1, dtype=data.dtype, device=data.device)
        return sums.index_add(0, self._nearest.flatten(), data.flatten())[:-1].reshape(height, width)

    def largest(self, data: torch.Tensor) -> torch.Tensor:
        height, width = self.grid.shape
        values = data.flatten(1).to(torch.float32)
        peaks = torch.zeros(len(data), height * width + 1, device=data.device)
        peaks = peaks.scatter_reduce(1, self._nearest.flatten(1), values, "amax")[:, :-1]
        return peaks.reshape(-1, height, width).to(data.dtype)

    def look_up(self, maps: torch.Tensor) -> torch.Tensor:
        index = self._nearest.flatten(1)
        flat = torch.nn.functional.pad(maps.flatten(-2), (0, 1)).expand(len(index), -1)
        return flat.gather(1, index).reshape(self.area.shape)

    def window(self, rows: slice, columns: slice) -> NativeSampling:
        grid = self.grid.window(rows, columns)
        if grid.shape == self.grid.shape:
            # The matrices can be shared.
            whole = copy.copy(self)
            whole._window = None
            return whole
        y, x = self._positions.y - rows.start, self._positions.x - columns.start
        inside = (y >= -0.5) & (y < grid.shape[0] - 0.5) & (x >= -0.5) & (x < grid.shape[1] - 0.5)
        cuts = _bounding_boxes(inside)
        nowhere = torch.full((), torch.nan, dtype=y.dtype, device=y.device)
        parts = (torch.where(inside, c, nowhere) for c in (y, x))
        y, x, area = (_cut(part, cuts) for part in (*parts, inside * self._positions.area))
        return NativeSampling(PixelPositions(grid.shape, y, x, area), grid, cuts)

    def cut(self, data: torch.Tensor) -> torch.Tensor:
        if self._window is None:
            return data
        return torch.where(self._positions.inside, _cut(data, self._window), torch.zeros_like(data[0, 0, 0]))

    def _list(self, exposures: torch.Tensor | None) -> list[int]:
        return list(range(len(self.area))) if exposures is None else exposures.tolist()

    def _operator(self, exposure: int) -> Interpolation:
        if exposure not in self._operators:
            p = self._positions
            y, x, area = (c[exposure].flatten().cpu().numpy() for c in (p.y, p.x, p.area))
            self._operators[exposure] = Interpolation(y, x, area, self.grid, self.area.device)
        return self._operators[exposure]

    @functools.cached_property
    def _nearest(self) -> torch.Tensor:
        """Number of the patch pixel, the last for pixels off the patch."""
        height, width = self.grid.shape
        p = self._positions
        # A position on the very border may round to beyond it.
        row = torch.round(torch.nan_to_num(p.y)).long().clamp(0, height - 1)
        column = torch.round(torch.nan_to_num(p.x)).long().clamp(0, width - 1)
        return torch.where(p.inside, row * width + column, height * width)


def _bounding_boxes(inside: torch.Tensor) -> list[tuple[slice, slice]]:
    """Return boxes of equal size that hold what is inside of each image."""
    boxes: list[list[int]] = []
    sizes = [1, 1]
    for image in inside:
        ends = []
        for axis in (0, 1):
            found = image.any(dim=1 - axis).nonzero()[:, 0]
            first, last = (int(found[0]), int(found[-1])) if len(found) else (0, 0)
            sizes[axis] = max(sizes[axis], last - first + 1)
            ends.append(first)
        boxes.append(ends)
    cuts = []
    for corner in boxes:
        starts = [min(c, full - s) for c, full, s in zip(corner, inside.shape[1:], sizes, strict=True)]
        rows, columns = (slice(start, start + size) for start, size in zip(starts, sizes, strict=True))
        cuts.append((rows, columns))
    return cuts


def _cut(data: torch.Tensor, cuts: list[tuple[slice, slice]]) -> torch.Tensor:
    return torch.stack([image[rows, columns] for image, (rows, columns) in zip(data, cuts, strict=True)])
