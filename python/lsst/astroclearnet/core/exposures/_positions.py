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
from ._arrays import require_plain

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
        cls, shape: tuple[int, int], y: np.ndarray, x: np.ndarray, area: np.ndarray
    ) -> PixelPositions:
        """Validate arrays.

        Parameters
        ----------
        shape
            Height and width of the patch in pixels.
        y, x, area
            As the attributes, of any real type; positions off the patch become
            NaN.

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
        with np.errstate(invalid="ignore"):
            inside = (y >= -0.5) & (y < shape[0] - 0.5) & (x >= -0.5) & (x < shape[1] - 0.5)
            known = np.isfinite(area) & (area > 0)
        if (inside & ~known).any():
            raise InputError("A pixel on the patch has no positive area.")
        known &= (area >= 1.0 / _LARGEST_AREA) & (area <= _LARGEST_AREA)
        if (inside & ~known).any():
            raise InputError(
                f"The area of a pixel on the patch differs from one by more than a factor of "
                f"{_LARGEST_AREA:g}; it must be in pixels of the patch."
            )
        return cls(
            shape=shape,
            y=torch.from_numpy(np.where(inside, y, np.nan).astype(np.float64, copy=False)),
            x=torch.from_numpy(np.where(inside, x, np.nan).astype(np.float64, copy=False)),
            area=torch.from_numpy(np.where(inside, area, 0.0).astype(np.float32)),
        )

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
