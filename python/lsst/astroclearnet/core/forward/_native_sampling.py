# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""From the grid of the patch to exposures on their own pixels, and back."""

from __future__ import annotations

__all__ = ("NativeSampling",)

import copy
import functools

import numpy as np
import torch

from ..exposures import PixelPositions, bounding_boxes, cut_out
from ._interpolation import CompiledInterpolation, Interpolation, SparseInterpolation
from ._interpolation_profile import transfer_function
from ._latent_grid import LatentGrid
from ._sampling import Sampling


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
        chosen = self._list(exposures)
        data = torch.empty(len(chosen), *self.area.shape[1:], device=self.area.device)
        for one, t, image in zip(data, chosen, images, strict=True):
            one.copy_(self._operator(t).observe(image).reshape(one.shape))
        return data

    def adjoint(self, data: torch.Tensor, exposures: torch.Tensor | None = None) -> torch.Tensor:
        chosen = self._list(exposures)
        images = torch.empty(len(chosen), *self.grid.latent_shape, device=self.area.device)
        for image, t, one in zip(images, chosen, data, strict=True):
            image.copy_(self._operator(t).adjoint(one.flatten()))
        return images

    def normal(
        self, images: torch.Tensor, weights: torch.Tensor, exposure: int, scratch: torch.Tensor
    ) -> None:
        self._operator(exposure).normal(images, weights.flatten(), scratch)

    def scratch_size(self, number: int) -> int:
        return self._kind.scratch_size(number, self.grid)

    def mean(self, data: torch.Tensor, exposures: torch.Tensor | None = None) -> torch.Tensor:
        chosen = self._list(exposures)
        maps = torch.empty(len(chosen), *self.grid.shape, device=self.area.device)
        for one, t, values in zip(maps, chosen, data, strict=True):
            one.copy_(self.grid.crop(self._operator(t).adjoint(values.flatten())))
        return maps

    def total(self, data: torch.Tensor) -> torch.Tensor:
        height, width = self.grid.shape
        sums = torch.zeros(height * width + 1, dtype=data.dtype, device=data.device)
        for t, one in enumerate(data):
            sums.index_add_(0, self._nearest(t), one.flatten())
        return sums[:-1].reshape(height, width)

    def largest(self, data: torch.Tensor) -> torch.Tensor:
        height, width = self.grid.shape
        maps = torch.empty(len(data), height, width, dtype=data.dtype, device=data.device)
        for t, one in enumerate(data):
            peaks = torch.zeros(height * width + 1, device=data.device)
            peaks.scatter_reduce_(0, self._nearest(t), one.flatten().to(peaks.dtype), "amax")
            maps[t] = peaks[:-1].reshape(height, width)
        return maps

    def look_up(self, maps: torch.Tensor) -> torch.Tensor:
        flat = torch.nn.functional.pad(maps.flatten(-2), (0, 1)).expand(len(self.area), -1)
        found = torch.empty(self.area.shape, dtype=maps.dtype, device=maps.device)
        for t, values in enumerate(flat):
            found[t] = values[self._nearest(t)].reshape(found[t].shape)
        return found

    def window(self, rows: slice, columns: slice) -> NativeSampling:
        grid = self.grid.window(rows, columns)
        if grid.shape == self.grid.shape:
            # The matrices can be shared.
            whole = copy.copy(self)
            whole._window = None
            return whole
        p = self._positions
        edges = (rows.start - 0.5, rows.stop - 0.5, columns.start - 0.5, columns.stop - 0.5)
        inside = torch.stack([_within(y, x, edges) for y, x in zip(p.y, p.x, strict=True)])
        cuts = bounding_boxes(inside)
        kept = cut_out(inside, cuts)
        nowhere = torch.full((), torch.nan, dtype=p.y.dtype, device=p.y.device)
        y = torch.where(kept, cut_out(p.y, cuts) - rows.start, nowhere)
        x = torch.where(kept, cut_out(p.x, cuts) - columns.start, nowhere)
        return NativeSampling(PixelPositions(grid.shape, y, x, kept * cut_out(p.area, cuts)), grid, cuts)

    def cut(self, data: torch.Tensor) -> torch.Tensor:
        if self._window is None:
            return data
        return torch.where(
            self._positions.inside, cut_out(data, self._window), torch.zeros_like(data[0, 0, 0])
        )

    def _list(self, exposures: torch.Tensor | None) -> list[int]:
        return list(range(len(self.area))) if exposures is None else exposures.tolist()

    @property
    def _kind(self) -> type[CompiledInterpolation | SparseInterpolation]:
        return CompiledInterpolation if self.area.device.type == "cpu" else SparseInterpolation

    def _operator(self, exposure: int) -> Interpolation:
        if exposure not in self._operators:
            p = self._positions
            y, x, area = (c[exposure].flatten() for c in (p.y, p.x, p.area))
            self._operators[exposure] = self._kind(y, x, area, self.grid)
        return self._operators[exposure]

    def _nearest(self, exposure: int) -> torch.Tensor:
        """Return numbers of patch pixels, the last for pixels off the patch.

        Of shape (p,).
        """
        height, width = self.grid.shape
        y, x = (c[exposure].flatten() for c in (self._positions.y, self._positions.x))
        # A position on the very border may round to beyond it.
        row = torch.round(torch.nan_to_num(y)).long().clamp_(0, height - 1)
        column = torch.round(torch.nan_to_num(x)).long().clamp_(0, width - 1)
        return torch.where(torch.isfinite(y), row * width + column, height * width)


def _within(y: torch.Tensor, x: torch.Tensor, edges: tuple[float, float, float, float]) -> torch.Tensor:
    return (y >= edges[0]) & (y < edges[1]) & (x >= edges[2]) & (x < edges[3])
