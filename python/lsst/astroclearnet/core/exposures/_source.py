# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Where the exposures of a patch come from, part by part."""

from __future__ import annotations

__all__ = (
    "ExposureCut",
    "ExposureSource",
    "StackSource",
)

import dataclasses
from typing import Protocol

import torch

from ._cut_outs import bounding_boxes, cut_out
from ._positions import PixelPositions
from ._stack import ExposureStack


@dataclasses.dataclass(frozen=True)
class ExposureCut:
    """Exposures cut to a region of the patch.

    Attributes
    ----------
    exposures
        Shape (m,), int64, which of the exposures of the source have a usable
        pixel in the region, rising.
    stack
        These exposures, on the CPU, as those of a patch that is the region.
    origins
        Row and column, in its own pixels, of the first pixel that the arrays
        hold of each exposure.
    noise
        Shape (k, m, h, w), noise of these pixels, where the source knows it.
    """

    exposures: torch.Tensor
    stack: ExposureStack
    origins: tuple[tuple[int, int], ...]
    noise: torch.Tensor | None = None


class ExposureSource(Protocol):
    """Exposures of a patch that can be had part by part.

    They need not be in memory as a whole.
    """

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the patch in pixels."""

    @property
    def num_exposures(self) -> int:
        """Number of exposures (`int`)."""

    @property
    def resident_bytes(self) -> int:
        """Memory that the exposures take as a whole (`int`)."""

    def count(self, rows: slice, columns: slice) -> int:
        """Return how many exposures may have pixels in a region.

        Parameters
        ----------
        rows
            Rows of the region.
        columns
            Columns of the region.

        Returns
        -------
        number : `int`
            An upper bound that needs no pixels.
        """

    def cut(self, rows: slice, columns: slice) -> ExposureCut | None:
        """Return the exposures in a region.

        Parameters
        ----------
        rows
            Rows of the region, with a start and a stop.
        columns
            Columns of the region, with a start and a stop.

        Returns
        -------
        cut : `ExposureCut` or `None`
            The exposures with a usable pixel there; `None` if none has.
        """


class StackSource:
    """Exposures that are in memory.

    Parameters
    ----------
    stack
        The exposures, on the CPU.
    noise
        Shape (k, n, h, w), noise of their pixels, if it is not white.
    """

    def __init__(self, stack: ExposureStack, noise: torch.Tensor | None = None) -> None:
        self._stack = stack
        self._noise = noise

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the patch in pixels."""
        return self._stack.shape

    @property
    def num_exposures(self) -> int:
        """Number of exposures (`int`)."""
        return self._stack.num_exposures

    @property
    def resident_bytes(self) -> int:
        """Memory that the exposures take as a whole (`int`)."""
        tensors = [self._stack.images, self._stack.variances, self._stack.good]
        if self._stack.positions is not None:
            tensors += [self._stack.positions.y, self._stack.positions.x, self._stack.positions.area]
        return sum(t.numel() * t.element_size() for t in tensors)

    def count(self, rows: slice, columns: slice) -> int:
        """Return how many exposures may have pixels in a region.

        Parameters
        ----------
        rows
            Rows of the region.
        columns
            Columns of the region.

        Returns
        -------
        number : `int`
            All of them.
        """
        return self.num_exposures

    def cut(self, rows: slice, columns: slice) -> ExposureCut | None:
        """Return the exposures in a region.

        Parameters
        ----------
        rows
            Rows of the region, with a start and a stop.
        columns
            Columns of the region, with a start and a stop.

        Returns
        -------
        cut : `ExposureCut` or `None`
            The exposures with a usable pixel there; `None` if none has.
        """
        stack = self._stack
        if (rows.stop - rows.start, columns.stop - columns.start) == stack.shape:
            good, boxes = stack.good, None
        else:
            inside, boxes = self._find(rows, columns)
            good = cut_out(stack.good, boxes) & inside
        used = good.any(dim=(1, 2)).nonzero()[:, 0]
        if not len(used):
            return None
        if boxes is None:
            boxes = [(slice(0, good.shape[1]), slice(0, good.shape[2]))] * len(good)

        def part(data: torch.Tensor) -> torch.Tensor:
            return cut_out(data, boxes)[used]

        positions = None
        if stack.positions is not None:
            shape = (rows.stop - rows.start, columns.stop - columns.start)
            p = stack.positions
            positions = PixelPositions.from_arrays(
                shape, *(c.numpy() for c in (part(p.y) - rows.start, part(p.x) - columns.start, part(p.area)))
            )
        images, variances, good = part(stack.images), part(stack.variances), good[used]
        return ExposureCut(
            exposures=used,
            stack=ExposureStack(
                images=torch.where(good, images, 0.0),
                variances=torch.where(good, variances, 1.0),
                good=good,
                psfs=_psfs_within(stack.psfs[used], stack.shape, rows, columns),
                positions=positions,
            ),
            origins=tuple((boxes[t][0].start, boxes[t][1].start) for t in used.tolist()),
            noise=None if self._noise is None else torch.stack([part(draw) for draw in self._noise]),
        )

    def _find(self, rows: slice, columns: slice) -> tuple[torch.Tensor, list[tuple[slice, slice]]]:
        """Return which pixels of boxes are in a region, and the boxes."""
        stack = self._stack
        if stack.positions is None:
            boxes = [(rows, columns)] * stack.num_exposures
            return torch.ones((), dtype=torch.bool), boxes
        y, x = stack.positions.y, stack.positions.x
        inside = (y >= rows.start - 0.5) & (y < rows.stop - 0.5)
        inside &= (x >= columns.start - 0.5) & (x < columns.stop - 0.5)
        boxes = bounding_boxes(inside)
        return cut_out(inside, boxes), boxes


def _psfs_within(psfs: torch.Tensor, shape: tuple[int, int], rows: slice, columns: slice) -> torch.Tensor:
    """Return PSFs at the middles of equal cells of a region.

    They are interpolated linearly between those of the patch, which are at
    the middles of its own cells, (n, cells_y, cells_x, P, P).
    """
    for dim, region in ((1, rows), (2, columns)):
        number, size = psfs.shape[dim], shape[dim - 1]
        length = region.stop - region.start
        if number == 1 or length == size:
            continue
        parts = max(1, round(number * length / size))
        middles = region.start - 0.5 + (torch.arange(parts, dtype=psfs.dtype) + 0.5) * length / parts
        place = (middles + 0.5) * number / size - 0.5
        # Beyond the outermost middles they are continued, as everywhere.
        first = place.floor().long().clamp(0, number - 2)
        share = (place - first).reshape([-1 if d == dim else 1 for d in range(5)])
        lower, upper = psfs.index_select(dim, first), psfs.index_select(dim, first + 1)
        psfs = (1.0 - share) * lower + share * upper
    return psfs
