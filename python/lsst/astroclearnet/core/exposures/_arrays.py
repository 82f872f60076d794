# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Arrays from outside, which may carry what a tensor cannot."""

from __future__ import annotations

__all__ = ("ArrayLike",)

from typing import Any

import numpy as np
import torch

from .._errors import InputError

type ArrayLike = np.ndarray | torch.Tensor


def as_tensor(name: str, array: Any, dtype: torch.dtype | None, device: torch.device) -> torch.Tensor:
    """Return plain numbers as a tensor.

    Parameters
    ----------
    name
        What to call the array in errors.
    array
        An array, a tensor or nested lists.
    dtype
        Type of the tensor; by default that of the array if it is float32 or
        float64, else float64, which holds the values of all others.
    device
        Where to put it.

    Returns
    -------
    tensor : `torch.Tensor`
        The numbers, without gradients.

    Raises
    ------
    InputError
        If these are no real numbers, or truth values where another type is
        asked for, or they have a mask or a unit.
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


def require_plain(name: str, array: Any) -> None:
    """Refuse arrays with a mask or a unit, which would be lost.

    Parameters
    ----------
    name
        What to call the array in errors.
    array
        Anything; lists and tuples are searched.

    Raises
    ------
    InputError
        If there is a mask or a unit, also one that is dimensionless.
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
    # FITS arrays are big-endian, which torch does not take; and a negative
    # stride it does not take either.
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    # Memory-mapped files cannot be written to, which torch minds as well.
    return np.require(array, requirements=["C", "W"])
