# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
"""Positions of the pixels of exposures on the patch."""

from __future__ import annotations

__all__ = ("PixelPositions",)

import dataclasses

import numpy as np
import torch

from .._errors import InputError
from ._arrays import blocks, require_plain

_LARGEST_AREA = 1e4
"""Pixel area beyond which (or its inverse) it is not in pixels of the
patch."""


@dataclasses.dataclass(frozen=True)
class PixelPositions:
    """Positions of the pixels of exposures on the patch.

    Attributes
    ----------
    shape
        Height and width of the patch in pixels.
    y, x
        Shape (n, h, w), float64, row and column of pixel centres in the array
        of the patch; NaN off the patch.
    area
        Shape (n, h, w), float32, area of each pixel in pixels of the patch.
    """

    shape: tuple[int, int]
    y: torch.Tensor
    x: torch.Tensor
    area: torch.Tensor

    @classmethod
    def from_arrays(
        cls,
        shape: tuple[int, int],
        y: np.ndarray,
        x: np.ndarray,
        area: np.ndarray,
        *,
        overwrite: bool = False,
    ) -> PixelPositions:
        """Validate arrays.

        Parameters
        ----------
        shape
            Height and width of the patch in pixels.
        y, x, area
            As the attributes, of any real type; positions off the patch become
            NaN.
        overwrite
            Whether the arrays may be changed, and kept.

        Returns
        -------
        positions : `PixelPositions`
            The positions, on the CPU.

        Raises
        ------
        InputError
            If arrays are not real, shapes differ or a pixel on the patch has
            no positive area.
        """
        y, x, area = (_as_real(name, array) for name, array in (("y", y), ("x", x), ("area", area)))
        if not (y.shape == x.shape == area.shape and y.ndim == 3):
            raise InputError(
                f"Positions need shape (n, h, w) each, not y {y.shape}, x {x.shape} and area {area.shape}."
            )
        checked = [
            array
            if overwrite and array.dtype == dtype and array.flags.writeable
            else np.empty(y.shape, dtype)
            for array, dtype in ((y, np.float64), (x, np.float64), (area, np.float32))
        ]
        for block in blocks(y.shape):
            inside = (y[block] >= -0.5) & (y[block] < shape[0] - 0.5)
            inside &= (x[block] >= -0.5) & (x[block] < shape[1] - 0.5)
            _require_areas(area[block][inside])
            for array, values, elsewhere in zip(checked, (y, x, area), (np.nan, np.nan, 0.0), strict=True):
                np.copyto(array[block], np.where(inside, values[block], elsewhere), casting="same_kind")
        return cls(shape, *(torch.from_numpy(array) for array in checked))

    @property
    def inside(self) -> torch.Tensor:
        """Whether a pixel lies on the patch, shape (n, h, w), bool."""
        return torch.isfinite(self.y)

    def to(self, device: torch.device) -> PixelPositions:
        """Return the positions on a device.

        Parameters
        ----------
        device
            The device.

        Returns
        -------
        positions : `PixelPositions`
            The positions.
        """
        return PixelPositions(self.shape, self.y.to(device), self.x.to(device), self.area.to(device))

    def select(self, exposures: torch.Tensor) -> PixelPositions:
        """Return the positions of a selection of exposures.

        Parameters
        ----------
        exposures
            Shape (k,), indices.

        Returns
        -------
        positions : `PixelPositions`
            The selection.
        """
        return PixelPositions(self.shape, self.y[exposures], self.x[exposures], self.area[exposures])


def _require_areas(areas: np.ndarray) -> None:
    """Refuse areas of pixels on the patch that are none."""
    if not len(areas) or (areas.min() >= 1.0 / _LARGEST_AREA and areas.max() <= _LARGEST_AREA):
        return
    if not (np.isfinite(areas) & (areas > 0)).all():
        raise InputError("A pixel on the patch has no positive area.")
    raise InputError(
        f"The area of a pixel on the patch differs from one by more than a factor of {_LARGEST_AREA:g}; it "
        "must be in pixels of the patch."
    )


def _as_real(name: str, array: np.ndarray) -> np.ndarray:
    """Return a real array without mask or unit."""
    if isinstance(array, np.ma.MaskedArray):
        raise InputError(f"{name} is a masked array; give plain values, and NaN where there is no position.")
    require_plain(name, array)
    try:
        array = np.asarray(array)
    except ValueError as exc:
        raise InputError(f"{name} cannot be read as an array: {exc}") from exc
    if array.dtype.kind not in "iuf":
        raise InputError(f"{name} must be real numbers, not {array.dtype}.")
    return array
