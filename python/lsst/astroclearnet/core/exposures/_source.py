# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Exposures of a patch, cut out tile by tile."""

from __future__ import annotations

__all__ = ("ExposureCutouts", "ExposureSource", "StackSource")

import dataclasses
from typing import Protocol

import torch

from ._cut_outs import bounding_boxes, cut_out
from ._positions import PixelPositions
from ._stack import ExposureStack

_STEP = 8
"""Pixels between those that the size of a cut-out is estimated from."""

_REACH = 12
"""Pixels by which the box is widened for that, at least the diagonal of a
step."""


@dataclasses.dataclass(frozen=True)
class ExposureCutouts:
    """Cut-outs of exposures in a box of the patch.

    Attributes
    ----------
    exposures
        Shape (m,), int64, indices, in ascending order, of exposures with a
        usable pixel in the box.
    stack
        These exposures, on the CPU, with the box for a patch.
    origins
        Row and column of the first pixel of each cut-out in its exposure.
    noise
        Shape (k, m, h, w), noise of these pixels, where the source knows it.
    """

    exposures: torch.Tensor
    stack: ExposureStack
    origins: tuple[tuple[int, int], ...]
    noise: torch.Tensor | None = None


class ExposureSource(Protocol):
    """Exposures of a patch that are read in boxes."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the patch in pixels."""

    @property
    def num_exposures(self) -> int:
        """Number of exposures (`int`)."""

    @property
    def resident_bytes(self) -> int:
        """Memory that the whole exposures take (`int`)."""

    def extent(self, rows: slice, columns: slice) -> tuple[int, int, int]:
        """Return an upper bound of the shape of the stack in a box.

        Parameters
        ----------
        rows, columns
            The box; no pixels are read.

        Returns
        -------
        number, height, width : `int`
            The bounds; cut-outs of rotated exposures are larger than the box.
        """

    def read(self, rows: slice, columns: slice) -> ExposureCutouts | None:
        """Return the exposures in a box.

        Parameters
        ----------
        rows, columns
            The box, with start and stop.

        Returns
        -------
        cut : `ExposureCutouts` or `None`
            The cut-outs; `None` without usable pixels.
        """


class StackSource:
    """Exposures in memory.

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
        return self._stack.shape

    @property
    def num_exposures(self) -> int:
        return self._stack.num_exposures

    @property
    def resident_bytes(self) -> int:
        tensors = [self._stack.images, self._stack.variances, self._stack.good]
        if self._stack.positions is not None:
            tensors += [self._stack.positions.y, self._stack.positions.x, self._stack.positions.area]
        return sum(t.numel() * t.element_size() for t in tensors)

    def extent(self, rows: slice, columns: slice) -> tuple[int, int, int]:
        number, *full = self._stack.images.shape
        sides = [rows.stop - rows.start, columns.stop - columns.start]
        if self._stack.positions is not None and tuple(sides) != self.shape:
            # Of any pixel in the box the next one before it that is looked at
            # is within this distance of it.
            y, x = (slice(side.start - _REACH, side.stop + _REACH) for side in (rows, columns))
            _, boxes = self._locate(y, x, step=_STEP)
            sides = [(side.stop - side.start) * _STEP for side in boxes[0]]
        height, width = map(min, sides, full)
        return number, height, width

    def read(self, rows: slice, columns: slice) -> ExposureCutouts | None:
        stack = self._stack
        if (rows.stop - rows.start, columns.stop - columns.start) == stack.shape:
            good, boxes = stack.good, None
        else:
            inside, boxes = self._locate(rows, columns)
            good = cut_out(stack.good, boxes) & inside
        used = good.any(dim=(1, 2)).nonzero()[:, 0]
        if not len(used):
            return None
        if boxes is None:
            boxes = [(slice(0, good.shape[1]), slice(0, good.shape[2]))] * len(good)

        def take(data: torch.Tensor) -> torch.Tensor:
            return cut_out(data, boxes)[used]

        positions = None
        if stack.positions is not None:
            shape = (rows.stop - rows.start, columns.stop - columns.start)
            p = stack.positions
            positions = PixelPositions.from_arrays(
                shape,
                *(c.numpy() for c in (take(p.y) - rows.start, take(p.x) - columns.start, take(p.area))),
                overwrite=True,
            )
        images, variances, good = take(stack.images), take(stack.variances), good[used]
        return ExposureCutouts(
            exposures=used,
            stack=ExposureStack(
                images=torch.where(good, images, 0.0),
                variances=torch.where(good, variances, 1.0),
                good=good,
                psfs=_psfs_within(stack.psfs[used], stack.shape, rows, columns),
                positions=positions,
            ),
            origins=tuple((boxes[t][0].start, boxes[t][1].start) for t in used.tolist()),
            noise=None if self._noise is None else torch.stack([take(draw) for draw in self._noise]),
        )

    def _locate(
        self, rows: slice, columns: slice, step: int = 1
    ) -> tuple[torch.Tensor, list[tuple[slice, slice]]]:
        """Return which pixels of cut-outs are in the box, and their slices."""
        stack = self._stack
        if stack.positions is None:
            boxes = [(rows, columns)] * stack.num_exposures
            return torch.ones((), dtype=torch.bool), boxes
        y, x = (c[:, ::step, ::step] for c in (stack.positions.y, stack.positions.x))
        inside = (y >= rows.start - 0.5) & (y < rows.stop - 0.5)
        inside &= (x >= columns.start - 0.5) & (x < columns.stop - 0.5)
        boxes = bounding_boxes(inside)
        return cut_out(inside, boxes), boxes


def _psfs_within(psfs: torch.Tensor, shape: tuple[int, int], rows: slice, columns: slice) -> torch.Tensor:
    """Interpolate PSFs linearly to the middles of equal cells of a box."""
    for dim, side in ((1, rows), (2, columns)):
        number, size = psfs.shape[dim], shape[dim - 1]
        length = side.stop - side.start
        if number == 1 or length == size:
            continue
        count = max(1, round(number * length / size))
        middles = side.start - 0.5 + (torch.arange(count, dtype=psfs.dtype) + 0.5) * length / count
        place = (middles + 0.5) * number / size - 0.5
        # Extrapolated beyond the outermost cells.
        first = place.floor().long().clamp(0, number - 2)
        fraction = (place - first).reshape([-1 if d == dim else 1 for d in range(5)])
        lower, upper = psfs.index_select(dim, first), psfs.index_select(dim, first + 1)
        psfs = (1.0 - fraction) * lower + fraction * upper
    return psfs
