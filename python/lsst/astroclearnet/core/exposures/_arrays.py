# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Conversion of input arrays to tensors."""

from __future__ import annotations

__all__ = ("ArrayLike",)

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from .._errors import InputError

_BLOCK = 2**15
"""Pixels of a block.  Three exposures of 1786x1645 pixels with positions are
validated in 53 ns a pixel, and with whole images in 87."""

type ArrayLike = np.ndarray | torch.Tensor


def as_tensor(name: str, array: Any, dtype: torch.dtype | None, device: torch.device) -> torch.Tensor:
    """Convert an array to a tensor.

    Parameters
    ----------
    name
        Name of the array in errors.
    array
        An array, a tensor or nested lists.
    dtype
        Type of the tensor; by default that of float32 and float64 arrays, and
        float64 for all others.
    device
        Device of the tensor.

    Returns
    -------
    tensor : `torch.Tensor`
        The tensor, without gradients.

    Raises
    ------
    InputError
        If the array is not real, is boolean where numbers are expected, is
        sparse, or has a mask or a unit.
    """
    require_plain(name, array)
    try:
        tensor = array if isinstance(array, torch.Tensor) else torch.from_numpy(_native(np.asarray(array)))
    except (TypeError, ValueError) as exc:
        raise InputError(f"{name} of type {type(array).__name__} cannot be read as numbers: {exc}") from exc
    if tensor.is_complex():
        raise InputError(f"{name} is complex; give real numbers.")
    if tensor.dtype == torch.bool and dtype != torch.bool:
        raise InputError(f"{name} is boolean; give real numbers.")
    if tensor.layout != torch.strided:
        raise InputError(f"{name} is a sparse tensor; give a dense one.")
    if dtype is None:
        dtype = tensor.dtype if tensor.dtype in (torch.float32, torch.float64) else torch.float64
    return tensor.detach().to(device=device, dtype=dtype)


def blocks(shape: Sequence[int]) -> Iterator[tuple[int, slice]]:
    """Divide images among blocks of rows that stay in the cache.

    Parameters
    ----------
    shape
        Numbers of images, rows and columns.

    Yields
    ------
    image, rows : `int`, `slice`
        Index of the image, and some of its rows.
    """
    number, height, width = shape
    step = max(1, _BLOCK // max(1, width))
    for index in range(number):
        for start in range(0, height, step):
            yield index, slice(start, start + step)


def require_plain(name: str, array: Any) -> None:
    """Refuse arrays with a mask or a unit, which would be lost.

    Parameters
    ----------
    name
        Name of the array in errors.
    array
        Anything; lists and tuples are searched.

    Raises
    ------
    InputError
        If there is a mask or a unit, even a dimensionless one.
    """
    if isinstance(array, list | tuple):
        for item in array:
            require_plain(name, item)
    if isinstance(array, np.ma.MaskedArray) or isinstance(getattr(array, "mask", None), np.ndarray):
        raise InputError(f"{name} is a masked array; give plain values, and the mask through 'good'.")
    # Of astropy and lsst.images, or of pint.
    unit = getattr(array, "unit", getattr(array, "units", None))
    if unit is not None:
        raise InputError(
            f"{name} has a unit ({unit!s}), which would be lost; give plain values, images in one unit and "
            "variances in its square."
        )


def _native(array: np.ndarray) -> np.ndarray:
    # torch takes neither big-endian arrays, as of FITS files, nor negative
    # strides, nor read-only arrays such as memory maps.
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return np.require(array, requirements=["C", "W"])
